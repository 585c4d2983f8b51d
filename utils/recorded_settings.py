"""Settings that note which of them are read, so that one that does nothing can be named."""

from typing import Any

import ml_collections

from utils.member_settings import MemberSettings, with_more


class _Recorded:
    """What both kinds of settings have in common; whoever takes all of them has read them all."""

    def __init__(self, values: Any = None, reads: set[str] | None = None):
        object.__setattr__(self, "_reads", set())
        super().__init__(values)
        if reads is not None:
            object.__setattr__(self, "_reads", reads)

    def __getitem__(self, key: str) -> Any:
        self._reads.add(key)
        return super().__getitem__(key)

    def items(self, *arguments: Any, **keywords: Any) -> Any:
        self._reads.update(self.keys())
        return super().items(*arguments, **keywords)

    def iteritems(self, *arguments: Any, **keywords: Any) -> Any:
        self._reads.update(self.keys())
        return super().iteritems(*arguments, **keywords)

    def to_dict(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        self._reads.update(self.keys())
        return super().to_dict(*arguments, **keywords)

    def copy_and_resolve_references(self, *arguments: Any) -> ml_collections.ConfigDict:
        self._reads.update(self.keys())
        return super().copy_and_resolve_references(*arguments)

    def get_ref(self, key: str) -> Any:
        self._reads.add(key)
        return super().get_ref(key)


class RecordedSettings(_Recorded, ml_collections.ConfigDict):
    """Settings that note which of them are read.

    Args:
        values: The settings.
        reads: Names are added to it; by default to a set of their own.
    """


class FrozenRecordedSettings(_Recorded, ml_collections.FrozenConfigDict):
    """The same, as an agent keeps them.

    They equal none but those of the same record: what JAX has traced with others it traces again.
    """

    def as_configdict(self) -> ml_collections.ConfigDict:
        """Return a copy that can be changed, of which nothing is noted any more."""
        self._reads.update(self.keys())
        return super().as_configdict()

    def __hash__(self) -> int:
        return hash(id(self._reads))

    def __eq__(self, other: Any) -> bool:
        same = isinstance(other, FrozenRecordedSettings) and self._reads is other._reads
        return same and self._fields == other._fields


def freeze(settings: Any, **more: Any) -> ml_collections.FrozenConfigDict:
    """Return settings that cannot change, with some more; recorded and varied ones stay so."""
    if isinstance(settings, MemberSettings):
        return with_more(settings, more)
    if isinstance(settings, _Recorded):
        plain = {key: ml_collections.ConfigDict.__getitem__(settings, key) for key in settings}
        return FrozenRecordedSettings(plain | more, settings._reads)
    return ml_collections.FrozenConfigDict(dict(settings, **more))
