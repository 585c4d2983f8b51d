"""The host's side of a checkpoint."""

import dataclasses
from typing import Any, Self

from utils.runs.members import Member


@dataclasses.dataclass(frozen=True)
class Failure:
    """Where a seed's numbers stopped being finite, and where it therefore stays.

    Attributes:
        seed: The training seed.
        step: Step at which it was found.
        checkpoint: Step of its last good checkpoint; None if there is none.
        row: Step of the last row of train.csv before it; 0 if there is none.
        point: Number of its grid point.
    """

    seed: int
    step: int
    checkpoint: int | None
    row: int
    point: int = 0

    def is_of(self, member: Member) -> bool:
        """Whether it is a member's."""
        return (self.seed, self.point) == (member.seed, member.point)


@dataclasses.dataclass
class Progress:
    """How far a run has come; what its numbers depend on besides arrays.

    Attributes:
        step: Updates done offline plus environment steps taken online.
        last_logged: Step of the last row of train.csv.
        last_evaluated: Step of the last row of eval.csv; -1 before the first.
        regular_logged: Step of the last row of train.csv that a longer run has too: where a run
            ends between two of its intervals, it has one more.
        regular_evaluated: The same of eval.csv.
        online_start: Step at which the online phase begins, if there is one.
        episodes: Number of each seed's running episode, online.
        lengths: Steps taken in it.
        cuts: Insertions into the replay after which the running episodes of all seeds were ended,
            because their environments could not be brought back to where they were.
        failed: The seeds that have failed, in the order in which they did.
        showing: Per member and failure signature that shows, in how many rows running it has, and
            the step of the row before them.
        warned: Per member, the failure signatures that have been spoken of.
        seconds: Spent on training.
        logged_seconds: Of these, before the last row.
        wandb_id: Id of the run at Weights & Biases.
        dataset: Fingerprint of the training data.
    """

    step: int = 0
    last_logged: int = 0
    last_evaluated: int = -1
    regular_logged: int = 0
    regular_evaluated: int = -1
    online_start: int | None = None
    episodes: list[int] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    cuts: list[int] = dataclasses.field(default_factory=list)
    failed: list[Failure] = dataclasses.field(default_factory=list)
    showing: dict[str, dict[str, list[int]]] = dataclasses.field(default_factory=dict)
    warned: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    logged_seconds: float = 0.0
    wandb_id: str | None = None
    dataset: str = ""

    def lengthen(self) -> None:
        """Forget the rows of an earlier end, which the run that goes on from there has not."""
        self.last_logged = min(self.last_logged, self.regular_logged)
        self.last_evaluated = min(self.last_evaluated, self.regular_evaluated)

    def as_dict(self) -> dict[str, Any]:
        """Return a copy in JSON's types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `as_dict` was made of."""
        failed = [Failure(**failure) for failure in values.get("failed", ())]
        return cls(**values | {"failed": failed})

    def failure(self, member: Member) -> Failure | None:
        """Return a member's failure, None if it goes on."""
        return next((failure for failure in self.failed if failure.is_of(member)), None)
