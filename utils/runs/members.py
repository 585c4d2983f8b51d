"""The agents that a run trains together."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the agents that a run trains together.

    Attributes:
        seed: Its training seed.
        point: Number of its grid point.
        values: What is varied there, `tau=0.01` for instance; empty where nothing is.
    """

    seed: int
    point: int = 0
    values: str = ""

    def __str__(self) -> str:
        return f"{self.seed} of {self.values}" if self.values else str(self.seed)

    @property
    def key(self) -> str:
        """What it is called in a checkpoint."""
        return f"{self.point}/{self.seed}" if self.point else str(self.seed)
