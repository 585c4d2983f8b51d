"""Drift of the recorded update steps where matrix products have fewer bits.

python -m tests.parity.precision

The operands of every product, of the losses and of their gradients, are rounded as the hardware
rounds them; sums stay float32. What the agents make of that is compared with the recorded
parameters and losses.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend import core

from tests.golden_files import Golden
from tests.test_golden import FILES

MANTISSAS = {"float32": 23, "tensorfloat32": 10, "bfloat16": 7}
"""Bits of the mantissa that operands keep; all have float32's eight bits of exponent."""


def with_rounded_products(function: Callable, bits: int) -> Callable:
    """Return a function whose matrix products see operands with so many bits of mantissa."""

    def rounded(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = _evaluate(traced, jax.tree.leaves(arguments), bits)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rounded


def _evaluate(closed: core.ClosedJaxpr, inputs: Sequence[Any], bits: int) -> list[Any]:
    """Evaluate a traced program with rounded operands."""
    jaxpr, values = closed.jaxpr, {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        outputs = _apply(equation, list(map(read, equation.invars)), bits)
        values.update(zip(equation.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))


def _apply(equation: core.JaxprEqn, operands: list[Any], bits: int) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        operands = [jax.lax.reduce_precision(operand, 8, bits) for operand in operands]
    elif name == "scan":
        return _scan(params, operands, bits)
    elif name == "cond":
        branches = [partial(_evaluate_on, branch, bits) for branch in params["branches"]]
        return jax.lax.switch(operands[0], branches, *operands[1:])
    else:
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        if isinstance(inner, core.ClosedJaxpr):
            return _evaluate(inner, operands, bits)
        if any(True for _ in core.jaxprs_in_params(params)):
            raise NotImplementedError(f"products within {name} are not looked for")
    outputs = equation.primitive.bind(*operands, **params)
    return outputs if equation.primitive.multiple_results else [outputs]


def _evaluate_on(closed: core.ClosedJaxpr, bits: int, *inputs: Any) -> list[Any]:
    return _evaluate(closed, inputs, bits)


def _scan(params: dict[str, Any], operands: list[Any], bits: int) -> list[Any]:
    """Evaluate a loop of a known number of rounds, `fori_loop` for instance."""
    if "num_carry" in params:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    else:  # JAX 0.12
        num_consts, num_carry, _ = (len(list(part)) for part in params["ft_in"].unpack())
    consts, carry = operands[:num_consts], operands[num_consts : num_consts + num_carry]

    def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = _evaluate(params["jaxpr"], [*consts, *carry, *xs], bits)
        return outputs[:num_carry], outputs[num_carry:]

    carry, stacked = jax.lax.scan(
        body, carry, operands[num_consts + num_carry :], params["length"], params["reverse"]
    )
    return [*carry, *stacked]


def drift(path: Any, bits: int) -> tuple[float, float]:
    """Replay a file of recorded steps with rounded products.

    Returns:
        The distance of the last parameters from the recorded ones, relative to how far they had
        moved, and the largest error of a loss, relative to 1 + |loss|.
    """
    golden = Golden(path)
    worst = 0.0
    with jax.default_matmul_precision("highest"):
        agent = golden.build()
        begin = agent.network.params
        update = jax.jit(with_rounded_products(inspect.unwrap(type(agent).update), bits))
        for parts in golden.steps:
            batch = parts["batch"] | {"noise": parts["noise"]}
            agent, metrics = update(agent, batch, jax.random.key(0))
            for key, value in metrics.items():
                expected = parts["loss"].get(key.split("/")[1])
                if expected is not None and not expected.ndim:  # others are of each critic
                    error = abs(float(value) - float(expected)) / (1 + abs(float(expected)))
                    worst = max(worst, error)
    expected, _ = golden.params("final", agent)
    return _distance(agent.network.params, expected) / _distance(begin, expected), worst


def _distance(first: Any, second: Any) -> float:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(x) - np.asarray(y)) ** 2) for x, y in pairs)))


def main() -> int:
    """Print one line of a table per file."""
    print(f"| recorded steps | {' | '.join(MANTISSAS)} |")
    print(f"|---|{len(MANTISSAS) * '---|'}")
    for path in FILES:
        found = (drift(path, bits) for bits in MANTISSAS.values())
        cells = (f"{100 * moved:.2g} %, {loss:.1g}" for moved, loss in found)
        print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
