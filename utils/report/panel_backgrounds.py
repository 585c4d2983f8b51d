"""What others have published, behind own results in a panel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.report.mean_curves import MeanCurve, SeedCurves, Statistic, mean_curve
from utils.report.statistics import mean


@dataclass(frozen=True)
class Background:
    """Another group's curve on a task.

    Attributes:
        name: Of the method and its release, and how its protocol differs; equal on all tasks.
        task: Full name of the task.
        metric: A key of `METRICS`; values are in its units (success in percent).
        curve: Of each seed or, where no more was released, mean and interval.
    """

    name: str
    task: str
    metric: str
    curve: SeedCurves | MeanCurve


@dataclass(frozen=True)
class Level:
    """A published score, of one task or the mean of several.

    Attributes:
        name: Method and source, for the legend.
        agent: Name of the own agent whose look it is drawn in.
        tasks: Full names of the tasks.
        metric: A key of `METRICS`; the value is in its units (success in percent).
        value: The score.
        online: Whether it is of the end of the online phase, and not of the offline one.
    """

    name: str
    agent: str
    tasks: tuple[str, ...]
    metric: str
    value: float
    online: bool = False


def background_means(
    backgrounds: Sequence[Background], metric: str, tasks: Sequence[str], statistic: Statistic
) -> dict[str, MeanCurve]:
    """Return the means of those methods that have a curve of each of some tasks.

    Args:
        backgrounds: The curves.
        metric: What they are of.
        tasks: Full names.
        statistic: `mean` or `iqm`, which takes seeds.

    Returns:
        Curves by name.
    """
    found: dict[str, dict[str, SeedCurves | MeanCurve]] = {}
    for one in backgrounds:
        if one.metric == metric and one.task in tasks:
            found.setdefault(one.name, {})[one.task] = one.curve
    means = {
        name: _average(list(own.values()), statistic)
        for name, own in found.items()
        if len(own) == len(tasks)
    }
    return {name: curve for name, curve in means.items() if curve is not None}


def _average(curves: Sequence[SeedCurves | MeanCurve], statistic: Statistic) -> MeanCurve | None:
    """Average another group's curves; None where that takes seeds which were not released."""
    seeds = [curve for curve in curves if isinstance(curve, SeedCurves)]
    if len(seeds) == len(curves):
        return mean_curve(seeds, statistic)
    if len(curves) == 1:
        return curves[0]
    if statistic is not mean:
        return None
    # A mean of means; their intervals do not give its own.
    return mean_curve(
        [SeedCurves(curve.steps, np.atleast_2d(curve.values)) for curve in curves], mean
    )


def level_means(
    levels: Sequence[Level], metric: str, tasks: Sequence[str], *, online: bool
) -> dict[tuple[str, bool], float]:
    """Return published means over some tasks, by name and phase.

    They are put together from scores that have each task once.
    """
    found: dict[tuple[str, bool], dict[str, float]] = {}
    # Those of most tasks first; others fill in what they lack.
    for level in sorted(levels, key=lambda level: -len(level.tasks)):
        if level.metric == metric and (online or not level.online) and set(level.tasks) <= {*tasks}:
            known = found.setdefault((level.name, level.online), {})
            if not known.keys() & level.tasks:
                known |= dict.fromkeys(level.tasks, level.value)
    return {
        key: float(np.mean(list(known.values())))
        for key, known in found.items()
        if len(known) == len(tasks)
    }
