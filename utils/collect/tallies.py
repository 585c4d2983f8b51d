"""What a collector did, as far as datasets do not hold it."""

import dataclasses
from typing import Self

import numpy as np

TRACES = ("reached", "progress")
"""Columns of a maze's rows that belong to no dataset, see `MazeCollector.steps`."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What the walkers of some episodes did; of arms, only the steps are counted.

    Attributes:
        episodes: Number of episodes.
        steps: Environment steps, with those of discarded episodes.
        goals: Goals reached.
        steps_to_goals: Steps that led to them; those after an episode's last goal do not count.
        progress: Metres walked in the direction of the next cell.
    """

    episodes: int = 0
    steps: int = 0
    goals: int = 0
    steps_to_goals: int = 0
    progress: float = 0.0

    @classmethod
    def of_episode(cls, steps: int, traces: dict[str, np.ndarray]) -> "Tally":
        """Return the tally of an episode from its traces, if it has any."""
        if not traces:
            return cls(episodes=1, steps=steps)
        reached = np.flatnonzero(traces["reached"])
        return cls(
            episodes=1,
            steps=steps,
            goals=len(reached),
            steps_to_goals=int(reached[-1]) + 1 if len(reached) else 0,
            progress=float(traces["progress"].sum()),
        )

    def __add__(self, other: Self) -> "Tally":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Tally(*(one + another for one, another in pairs))

    def walk(self) -> str:
        """Return how well was walked, in words; empty for arms."""
        if not self.progress:
            return ""
        text = f"{self.progress / self.steps:.3f} m per step in the direction told"
        if not self.goals:
            return text
        return (
            f"{self.goals / self.episodes:.2f} goals per episode, a goal in "
            f"{self.steps_to_goals / self.goals:.0f} steps, {text}"
        )
