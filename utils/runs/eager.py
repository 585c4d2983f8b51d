"""Where a NaN arises: a function is run operation by operation, and the first bad one is named."""

import dataclasses
import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jax
import numpy as np

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parents[1])
_SHOWN = 8  # inputs of an operation


@dataclasses.dataclass(frozen=True)
class Finding:
    """The first operation whose result is not finite.

    Attributes:
        what: What it gives, "NaN in log".
        place: File and line of the agent, with the function.
        line: That line's text.
        details: Lines on its result and its inputs: name, type, shape and range.
    """

    what: str
    place: str
    line: str
    details: tuple[str, ...]


def find_line(function: Callable[[], Any], infinities: bool = False) -> Finding | None:
    """Run a function without compiling it, up to the first operation that gives a NaN.

    Args:
        function: What is run.
        infinities: Whether to look for infinities instead. Some are meant: a mask, for instance.

    Returns:
        Where that was, or None if there was no such operation.
    """
    check = jax.debug_infs if infinities else jax.debug_nans
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")  # JAX's frames hold the operation
    try:
        with jax.disable_jit(), check(True):
            function()
    except FloatingPointError as error:
        return _finding(error, "infinity" if infinities else "NaN")
    finally:
        jax.config.update("jax_traceback_filtering", filtering)
    return None


def _finding(error: FloatingPointError, what: str) -> Finding:
    frames = list(traceback.walk_tb(error.__traceback__))
    backward = error.__cause__ is not None  # then it holds where the operation's forward twin was
    places = list(_places(error.__cause__ if backward else error))
    theirs = [place for place in places if not _is_library(place[0].f_code)]
    frame, number = (theirs or places or frames)[-1]
    path, name = frame.f_code.co_filename, frame.f_code.co_name
    suffix = ", in its gradient" if backward else ""
    operation, details = _operation(frames)
    return Finding(
        what=f"{what} in {operation}" if operation else what,
        place=f"{path}:{number} ({name}{suffix})",
        line=linecache.getline(path, number).strip(),
        details=tuple(details),
    )


def _places(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Return the frames of an error that lie within `find_line`, the innermost last."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [i for i, (frame, _) in enumerate(frames) if frame.f_code is find_line.__code__]
    named = [i for i, (frame, _) in enumerate(frames) if frame.f_code.co_filename == __file__]
    begin = (own or named or [-1])[-1] + 1
    return iter(frames[begin:])


def _is_library(code: CodeType) -> bool:
    return code.co_filename.startswith((*_LIBRARIES, _OURS))


def _operation(frames: list[tuple[FrameType, int]]) -> tuple[str, list[str]]:
    """Return an operation's name, and lines on its result and inputs, from where JAX runs it."""
    calls = [frame for frame, _ in frames if frame.f_code.co_name == "apply_primitive"]
    if not calls:
        return "", []
    local = calls[-1].f_locals
    primitive, inputs, parameters = local["prim"], local["args"], local["params"]
    result = primitive.bind(*inputs, **parameters)  # again, now that nothing is checked
    results = result if primitive.multiple_results else [result]
    names = _names(frames)
    lines = [f"gives {describe(array)}" for array in results]
    lines += [
        f"from {names.get(id(array), 'a value without a name')}: {describe(array)}"
        for array in inputs[:_SHOWN]
    ]
    return primitive.name, lines


def _names(frames: list[tuple[FrameType, int]]) -> dict[int, str]:
    """Return what the agent's functions call arrays, by the arrays' id."""
    names = {}
    for frame, _ in frames:
        if not _is_library(frame.f_code):
            for name, value in frame.f_locals.items():
                entries = value.items() if isinstance(value, dict) else [(None, value)]
                for key, entry in entries:
                    label = name if key is None else f"{name}[{key!r}]"
                    names[id(_concrete(entry))] = label
    return names


def _concrete(value: Any) -> Any:
    """Return the array behind what differentiates or maps it."""
    while isinstance(value, jax.core.Tracer):
        inner = getattr(value, "primal", getattr(value, "val", None))
        if inner is None:
            break
        value = inner
    return value


def describe(array: Any) -> str:
    """Return an array's type, shape, range and how many of its values are not finite."""
    values = np.asarray(array)
    text = f"{values.dtype}{list(values.shape)}"
    if not values.size:
        return text
    if not np.issubdtype(values.dtype, np.inexact):
        return f"{text} from {values.min()} to {values.max()}"
    finite = values[np.isfinite(values)]
    if finite.size:
        text += f" from {finite.min():.6g} to {finite.max():.6g}"
    counts = {"NaN": np.isnan(values).sum(), "infinite": np.isinf(values).sum()}
    listed = [f"{count} of {values.size} {name}" for name, count in counts.items() if count]
    return ", ".join([text, *listed])
