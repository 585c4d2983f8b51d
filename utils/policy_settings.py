"""Settings of a policy of evaluation, from text: `NAME=VALUE`."""

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

from utils.errors import UserError


def bounded(default: float, low: float, high: float = math.inf) -> Any:
    """Return a dataclass's field of a number that must lie between two others, ends included."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


def configure(policy: Callable, settings: Sequence[str], option: str) -> Callable:
    """Return a policy with its settings.

    Args:
        policy: A function, which has none, or a dataclass that makes such functions.
        settings: Texts `NAME=VALUE`; those that are not given have their defaults.
        option: What the user gave the policy by, `--eval_policy=best_of_n` for instance.

    Raises:
        UserError: A setting is unknown, given twice, or its value out of range.
    """
    known = (
        {field.name: field for field in dataclasses.fields(policy)}
        if dataclasses.is_dataclass(policy)
        else {}
    )
    kinds = typing.get_type_hints(policy) if known else {}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UserError(f"{option} has no setting '{name}'; its settings are: {listed}")
        if name in values:
            raise UserError(f"{option} is given {name} twice; give it once")
        try:
            values[name] = _parse(text, kinds[name], *known[name].metadata.get("bounds", ()))
        except ValueError as error:
            raise UserError(f"{option}:{name}={text} must be {error}") from error
    return policy(**values) if known else policy


def _parse(text: str, kind: Any, low: float = -math.inf, high: float = math.inf) -> Any:
    """Return a value of a kind; a ValueError says what it must be."""
    choices = {str(choice): choice for choice in typing.get_args(kind)}
    if kind is bool:
        choices = {"True": True, "False": False}
    if choices:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return choices[text]
    what = "a whole number" if kind is int else "a number"
    what += f" of at least {low:g}" if high == math.inf else f" between {low:g} and {high:g}"
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(what) from None
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(what)
    return value
