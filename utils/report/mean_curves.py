"""Evaluations as curves: of each seed, and means over seeds and tasks with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.report.pooling import Cell
from utils.report.records import SeedRecord
from utils.report.statistics import (
    REPETITIONS,
    Scores,
    bootstrap,
    mean,
    percentile_interval,
    resample,
)

Statistic = Callable[[Scores], np.ndarray]
"""`mean` or `iqm` of `utils.report.statistics`."""


@dataclass(frozen=True)
class SeedCurves:
    """Values of one or several seeds of a task at common steps.

    Attributes:
        steps: Ascending (n,).
        values: Of each seed (seeds, n).
    """

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class MeanCurve:
    """A mean by step.

    Attributes:
        steps: Where it is known, ascending (n,).
        values: The mean (n,).
        band: Lower and upper end of its interval, (n,) each; None if it cannot be told.
    """

    steps: np.ndarray
    values: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None


def curves_of(records: Sequence[SeedRecord]) -> SeedCurves:
    """Return the finite evaluations at the steps that all seeds have."""
    known = [
        {step: value for step, value in record.evaluations.items() if np.isfinite(value)}
        for record in records
    ]
    steps = sorted(set.intersection(*map(set, known))) if known else []
    values = np.array([[curve[step] for step in steps] for curve in known])
    return SeedCurves(np.array(steps, dtype=int), values.reshape(len(known), len(steps)))


def mean_curve(tasks: Sequence[SeedCurves], statistic: Statistic = mean) -> MeanCurve | None:
    """Average the seeds of one task or of several.

    Args:
        tasks: The curves on each task, of any number of seeds.
        statistic: What becomes of their values.

    Returns:
        The curve at the steps that all tasks have, with its 95 % bootstrap interval unless a task
        has a single seed; None without a common step. Each resample takes whole curves, so the
        interval is as smooth as they are.
    """
    steps = sorted(set.intersection(*(set(task.steps.tolist()) for task in tasks)))
    if not steps:
        return None
    # (steps, seeds) per task
    values = [task.values[:, np.isin(task.steps, steps)].T for task in tasks]
    band = None
    if all(len(task.values) > 1 for task in tasks):
        indices = resample([row[0] for row in values], REPETITIONS, np.random.default_rng(0))
        ends = [
            percentile_interval(
                bootstrap(statistic, [task[step] for task in values], indices=[indices])
            )
            for step in range(len(steps))
        ]
        low, high = np.transpose(ends)
        band = low, high
    return MeanCurve(np.array(steps), statistic(values), band)


def common_tasks(cells: Sequence[Cell]) -> list[str]:
    """Return the tasks on which all methods have been evaluated.

    A mean over others would compare methods on different tasks.
    """
    evaluated = [cell for cell in cells if cell.at_step is not None]
    labels = {cell.label for cell in evaluated}
    known = {(cell.task, cell.label) for cell in evaluated}
    tasks = dict.fromkeys(cell.task for cell in evaluated)
    return [task for task in tasks if all((task, label) in known for label in labels)]
