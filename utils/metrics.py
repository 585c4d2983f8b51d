"""What an agent states about its metrics: how to draw them, and which values tell of a failure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from utils.errors import UserError


@dataclass(frozen=True)
class Panel:
    """One plot of a column of train.csv.

    It is plain data: `dataclasses.asdict` gives what JSON can hold, and `Panel(**it)` the panel.

    Attributes:
        title: The heading.
        key: The column, by its exact name.
        scale: Axis of the values; a logarithmic one leaves out the values that are not positive.
        reference: Value marked by a line, if any; in units of the drawn values.
        factor: Multiplies the column's values.

    Raises:
        UserError: The scale is unknown.
    """

    title: str
    key: str
    scale: Literal["linear", "log"] = "linear"
    reference: float | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log"):
            raise UserError(
                f"the panel '{self.title}' has the unknown scale {self.scale!r}; "
                "choose linear or log"
            )


@dataclass(frozen=True)
class Signature:
    """A failure that shows in logged metrics.

    It shows in a row where every metric in `above` exceeds its bound and every one in `below` is
    under it; in a row that lacks one of them, or has NaN there, it does not. It is spoken of once
    it has shown in three rows running.

    Attributes:
        name: What is wrong, in a few words.
        remedy: What the user can do about it.
        above: Bound by metric, by the exact names of train.csv's columns.
        below: The same for bounds from above.
        lasting: For how many steps it must also have shown without a break, where it is usual for
            a while after the start.

    Raises:
        UserError: There is no bound, so that it would show in every row.
    """

    name: str
    remedy: str
    above: Mapping[str, float] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)
    lasting: int = 0

    def __post_init__(self) -> None:
        if not self.above and not self.below:
            raise UserError(
                f"the failure signature '{self.name}' has no bound; give it one by above= or below="
            )

    def shows_in(self, row: Mapping[str, float]) -> bool:
        """Tell whether the failure shows in a row of metrics."""
        missing = float("nan")  # which no comparison holds for
        return all(row.get(key, missing) > bound for key, bound in self.above.items()) and all(
            row.get(key, missing) < bound for key, bound in self.below.items()
        )


def unstable_critic(metric: str, remedy: str) -> Signature:
    """Return the failure of values that grow without bound.

    Args:
        metric: The mean magnitude of values, which with rewards of order 1 stays far below 1e6.
        remedy: What the user can do about it.
    """
    return Signature("|Q| above 1e6 (unstable critic)", remedy, above={metric: 1e6})
