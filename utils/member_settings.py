"""Settings of which some are arrays, so that each member of a program has values of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_collections


class MemberSettings(ml_collections.FrozenConfigDict):
    """Settings that are a tree, whose leaves are those settings that are arrays.

    Args:
        shared: All settings, with any numbers in the place of arrays.
        varied: The arrays by name.
    """

    def __init__(self, shared: Mapping[str, Any], varied: Mapping[str, Any]):
        super().__init__(shared)
        object.__setattr__(self, "_shared", ml_collections.FrozenConfigDict(shared))
        object.__setattr__(self, "_varied", dict(varied))
        self._fields.update(varied)


def shared_settings(settings: MemberSettings) -> ml_collections.FrozenConfigDict:
    """Return the settings with numbers in the place of arrays."""
    return settings._shared


def settings_of_member(settings: Any, member: int) -> Any:
    """Return one member's settings; those that are the same for all members as they are."""
    if not isinstance(settings, MemberSettings):
        return settings
    return jax.tree.map(lambda leaf: leaf[member], settings)


def with_more(settings: MemberSettings, more: Mapping[str, Any]) -> MemberSettings:
    """Return settings with some more, none of which is an array."""
    return MemberSettings(dict(settings._shared, **more), settings._varied)


def _flatten(settings: MemberSettings) -> tuple[list[tuple[Any, Any]], tuple]:
    leaves = [(jax.tree_util.DictKey(name), leaf) for name, leaf in settings._varied.items()]
    return leaves, (settings._shared, tuple(settings._varied))


def _unflatten(rest: tuple, leaves: Iterable[Any]) -> MemberSettings:
    shared, names = rest
    return MemberSettings(shared, dict(zip(names, leaves, strict=True)))


jax.tree_util.register_pytree_with_keys(MemberSettings, _flatten, _unflatten)
