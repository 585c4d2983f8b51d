"""Random numbers that do not come from a key: a trace would freeze them."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from utils.errors import UserError
from utils.python_files import is_installed


def require_same_numbers(first: core.ClosedJaxpr, second: core.ClosedJaxpr) -> None:
    """Compare the constants of two traces of one function.

    What NumPy's generator, or Python's, gives while a function is traced stays in the program: it
    would be the same in every update, and another one when a run is resumed.

    Raises:
        UserError: They differ.
    """
    for (one, place), (other, _) in zip(constants(first), constants(second), strict=False):
        if not np.array_equal(one, other) and np.array_equal(one, one):
            raise UserError(
                f"{place}a number here is another one whenever JAX traces it, and would be the "
                "same in every update: take it from jax.random and a key, not from NumPy's or "
                "Python's generator"
            )


def constants(program: core.ClosedJaxpr) -> Iterator[tuple[np.ndarray, str]]:
    """Yield the numbers in a traced program in order, and the line where each is used."""
    known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    for equation in program.jaxpr.eqns:
        for operand in equation.invars:
            literal = isinstance(operand, core.Literal)
            value = operand.val if literal else known.get(operand)
            if value is not None and not _is_key(value):
                yield np.asarray(value), user_line(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, core.ClosedJaxpr):
                    yield from constants(inner)
                elif isinstance(inner, core.Jaxpr):
                    yield from constants(core.ClosedJaxpr(inner, ()))


def _is_key(value: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.prng_key)


def user_line(equation: core.JaxprEqn) -> str:
    """Return where in the user's code an equation comes from, as the beginning of a sentence."""
    trace = equation.source_info.traceback
    frames = [] if trace is None else trace.frames
    own = [frame for frame in frames if not is_installed(frame.file_name)]
    return f"{own[0].file_name}, line {own[0].line_num}: " if own else ""
