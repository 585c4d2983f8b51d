"""What an agent states about its metrics, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Panel:
    title: str
    key: str
    scale: Literal["linear", "log"] = "linear"
    reference: float | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Signature:
    name: str
    remedy: str
    above: Mapping[str, float] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)

    def shows_in(self, row) -> bool:
        return all(k in row and row[k] > b for k, b in self.above.items()) and all(
            k in row and row[k] < b for k, b in self.below.items()
        )
