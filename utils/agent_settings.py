"""What the settings of every agent must fulfil, by their kind and by how they are named."""

import math
from collections.abc import Iterator
from typing import Any

import ml_collections

from utils.errors import UserError


def check_settings(config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict) -> None:
    """Refuse numbers with which no agent can learn.

    Args:
        config: The settings.
        defaults: What `get_config()` returns.

    Raises:
        UserError: A number is not finite where its default is; a learning rate, a setting named
            `lr` or ending in `_lr`, is negative; or a width, an element of a setting whose name
            ends in `hidden_dims`, is no positive integer.
    """
    for key, value in config.items():
        if not _finite(value) and _finite(defaults.get(key)):
            raise UserError(f"--agent.{key}={value} is not finite; give a finite number")
        if (key == "lr" or key.endswith("_lr")) and any(rate < 0 for rate in _numbers(value)):
            raise UserError(
                f"--agent.{key}={value} is a negative learning rate; give a positive one"
            )
        if key.endswith("hidden_dims") and not _are_widths(value):
            raise UserError(
                f"--agent.{key}={value} is no tuple of widths; give positive integers, "
                f"'--agent.{key}=(256, 256)' for instance"
            )


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in a setting, which may be a tuple of them."""
    if isinstance(value, (tuple, list)):
        for element in value:
            yield from _numbers(element)
    elif isinstance(value, (int, float)):
        yield value


def _finite(value: Any) -> bool:
    return all(map(math.isfinite, _numbers(value)))


def _are_widths(value: Any) -> bool:
    """Whether a setting is a width, or a tuple of them; one that is not set is."""
    widths = value if isinstance(value, (tuple, list)) else [] if value is None else [value]
    return all(isinstance(width, int) and width > 0 for width in widths)
