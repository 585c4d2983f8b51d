"""Methods compared over several tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from utils.report import statistics
from utils.report.grid import Grid, TaskGroup

Interval = tuple[float, float]


@dataclass(frozen=True)
class Aggregate:
    """A statistic of a method over the tasks of a group.

    Attributes:
        value: The statistic.
        interval: 95 % interval by the stratified bootstrap; None where a task has one seed.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """All methods over the tasks of a group.

    Attributes:
        group: The tasks.
        reference: Label of the method with the greatest IQM, which the others are compared with.
        means: Mean over the tasks of the means over seeds, by label.
        iqms: Interquartile mean over all runs, by label.
        improvements: Probability that a run of the reference beats one of the method, by label of
            the others.
        doubts: By label, what its numbers lack.
    """

    group: TaskGroup
    reference: str
    means: Mapping[str, Aggregate]
    iqms: Mapping[str, Aggregate]
    improvements: Mapping[str, Aggregate]
    doubts: Mapping[str, list[str]]


def compare(grid: Grid, group: TaskGroup, which: str) -> Comparison:
    """Compare all methods over the tasks of a group.

    Args:
        grid: The cells.
        group: One of `utils.report.grid.task_groups`.
        which: Kind of score, see `utils.report.records.score`.
    """
    scores = {label: group_scores(grid, group, label, which) for label in grid.labels}
    iqms = {label: _aggregate(statistics.iqm, own) for label, own in scores.items()}
    reference = max(iqms, key=lambda label: iqms[label].value)
    return Comparison(
        group=group,
        reference=reference,
        means={label: _aggregate(statistics.mean, own) for label, own in scores.items()},
        iqms=iqms,
        improvements={
            label: _aggregate(statistics.probability_of_improvement, scores[reference], own)
            for label, own in scores.items()
            if label != reference
        },
        doubts={label: _doubts(grid, group, label) for label in grid.labels},
    )


def _doubts(grid: Grid, group: TaskGroup, label: str) -> list[str]:
    """Return on how many tasks of a group scores are not of all seeds, or not final."""
    cells = [grid.cells[task, label] for task in group.tasks]
    missing = sum(len(cell.scored) < len(cell.records) for cell in cells)
    unfinished = sum(not cell.complete for cell in cells)
    doubts = [f"without some seeds on {missing} of {len(cells)} tasks"] if missing else []
    if unfinished:
        doubts.append(f"from unfinished runs on {unfinished} of {len(cells)} tasks")
    return doubts


def group_scores(grid: Grid, group: TaskGroup, label: str, which: str) -> list[np.ndarray]:
    """Return a method's scores, (seeds,) per task of a group."""
    return [grid.cells[task, label].scores(which) for task in group.tasks]


def _aggregate(statistic: Callable[..., np.ndarray], *scores: list[np.ndarray]) -> Aggregate:
    interval = statistics.bootstrap_interval(statistic, *scores)
    ends = None if interval is None else (float(interval[0]), float(interval[1]))
    return Aggregate(float(statistic(*scores)), ends)
