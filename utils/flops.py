"""Floating-point operations of a traced program, as often as a compiled one does them.

XLA's own analysis counts the body of a loop once, however often it runs, and a traced program has
what the compiler takes out of loops and merges.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend import core


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or a convolution.

    Attributes:
        equation: Of the traced program.
        times: How often it is computed.
    """

    equation: core.JaxprEqn
    times: int

    @property
    def flops(self) -> float:
        """The operations of all times: 2 m k n for a product of (m, k) and (k, n)."""
        return self.times * _flops_of(self.equation)


def products(function: Any, *arguments: Any) -> list[Product]:
    """List the matrix products and convolutions that a function computes.

    As in what XLA compiles, one that is the same in all rounds of a loop is computed once, and so
    are two of the same numbers. A loop whose number of rounds is only known when it runs counts
    once, and a choice has its dearest branch.

    Args:
        function: What is traced; nothing is computed.
        *arguments: Arrays, or their shapes and types.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return list(_Walk().through(jaxpr, [_Value() for _ in jaxpr.invars]))


def matmul_flops(function: Any, *arguments: Any) -> float:
    """Count the operations of `products`; the arguments are the same."""
    return sum(product.flops for product in products(function, *arguments))


@dataclasses.dataclass(frozen=True, eq=False)
class _Loop:
    rounds: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Value:
    """What a variable stands for; what is known to be equal is one object.

    Attributes:
        loops: Those from round to round of which it differs.
    """

    loops: frozenset[_Loop] = frozenset()


class _Walk:
    """A walk through a traced program, in which equal values are recognised."""

    def __init__(self):
        self._values: dict[Any, _Value] = {}  # by variable, and by what is computed from what

    def through(self, jaxpr: core.Jaxpr, inputs: Sequence[_Value]) -> Iterator[Product]:
        """Yield the products of a program whose inputs have these values."""
        for variable in jaxpr.constvars:
            self._values.setdefault(variable, _Value())
        self._values.update(zip(jaxpr.invars, inputs, strict=True))
        for equation in jaxpr.eqns:
            yield from self._of(equation, [self._value(one) for one in equation.invars])

    def _value(self, operand: Any) -> _Value:
        if isinstance(operand, core.Literal):
            return self._values.setdefault((str(operand.aval), str(operand.val)), _Value())
        return self._values[operand]

    def _of(self, equation: core.JaxprEqn, inputs: list[_Value]) -> Iterator[Product]:
        """Yield the products of an equation, and give its outputs their values."""
        name, params = equation.primitive.name, equation.params
        loops = frozenset().union(*(value.loops for value in inputs))
        if name == "scan":
            constants = params["num_consts"]
            yield from self._loop(params["jaxpr"].jaxpr, inputs, constants, params["length"])
        elif name == "while":
            at, constants = params["cond_nconsts"], params["body_nconsts"]
            yield from self._loop(params["body_jaxpr"].jaxpr, inputs[at:], constants, 1)
        elif name == "cond":
            found = [list(_Walk().through(b.jaxpr, inputs[1:])) for b in params["branches"]]
            yield from max(found, key=lambda branch: sum(product.flops for product in branch))
        elif inner := _called(equation):
            yield from self.through(inner, inputs)
            outputs = zip(equation.outvars, map(self._value, inner.outvars), strict=True)
            self._values.update(outputs)
            return
        else:
            key = name, str(params), *map(id, inputs)
            if key not in self._values and name in ("dot_general", "conv_general_dilated"):
                yield Product(equation, math.prod(loop.rounds for loop in loops))
            for number, variable in enumerate(equation.outvars):
                self._values[variable] = self._values.setdefault((*key, number), _Value(loops))
            self._values[key] = self._values[equation.outvars[0]]
            return
        self._values.update((variable, _Value(loops)) for variable in equation.outvars)

    def _loop(
        self, body: core.Jaxpr, inputs: list[_Value], constants: int, rounds: int
    ) -> Iterator[Product]:
        """Yield the products of a loop whose first inputs are the same in all rounds."""
        loops = frozenset().union(*(value.loops for value in inputs), [_Loop(rounds)])
        changing = [_Value(loops) for _ in body.invars[constants:]]
        yield from self.through(body, [*inputs[:constants], *changing])


def _called(equation: core.JaxprEqn) -> core.Jaxpr | None:
    """Return the program that an equation is a call of; None if it is no call."""
    for jaxpr in core.jaxprs_in_params(equation.params):
        pairs = (jaxpr.invars, equation.invars), (jaxpr.outvars, equation.outvars)
        if all([a.aval.shape for a in x] == [b.aval.shape for b in y] for x, y in pairs):
            return jaxpr
    return None


def _flops_of(equation: core.JaxprEqn) -> float:
    """Return the operations of one product or convolution."""
    size, params = math.prod(equation.outvars[0].aval.shape), equation.params
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * size * math.prod(shape[axis] for axis in contracted)
    kernel = equation.invars[1].aval.shape
    outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * size * math.prod(kernel) / outputs
