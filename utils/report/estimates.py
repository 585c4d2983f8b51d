"""Scores of seeds as a mean with its spread, in numbers and in words."""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from utils.report.pooling import Cell
from utils.report.records import scored_steps
from utils.report.scores import METRICS
from utils.report.statistics import bootstrap_interval, mean

SCORES = {
    "protocol": "score by the benchmark's protocol",
    "last3": "mean of the last three evaluations",
    "last": "last evaluation",
    "best": "best evaluation, which is chosen after the fact",
    "offline": "evaluation at the end of the offline phase",
}
"""What each kind of score is, see `utils.report.records.score`."""

RATES = ("success", "normalized_return")
"""Metrics with one scale for all tasks, so that means over tasks mean something."""


@dataclass(frozen=True)
class Estimate:
    """What seeds say of the expected score.

    Attributes:
        value: Mean over the seeds.
        std: Population standard deviation over the seeds; None with one.
        interval: 95 % bootstrap interval of the mean over the seeds; None with one.
        seeds: Number of seeds.
    """

    value: float
    std: float | None
    interval: tuple[float, float] | None
    seeds: int


def estimate(scores: np.ndarray) -> Estimate | None:
    """Return what scores (seeds,) say; None for no seeds."""
    if not len(scores):
        return None
    interval = bootstrap_interval(mean, [scores])
    return Estimate(
        value=float(np.mean(scores)),
        std=float(np.std(scores)) if len(scores) > 1 else None,
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        seeds=len(scores),
    )


def number_text(value: float, metric: str) -> str:
    """Return a score as text, with one decimal where the metric has a scale."""
    return f"{value:.1f}" if metric in RATES else f"{value:.4g}"


def mean_text(found: Estimate | None, metric: str) -> str:
    """Return the mean and the standard deviation as text."""
    if found is None:
        return "-"
    spread = "" if found.std is None else f" ± {number_text(found.std, metric)}"
    return number_text(found.value, metric) + spread


def interval_text(interval: tuple[float, float] | None, metric: str) -> str:
    """Return an interval as text."""
    return "-" if interval is None else " to ".join(number_text(end, metric) for end in interval)


def went_online(cell: Cell) -> bool:
    """Return whether scores of the cell are of the online phase."""
    start = cell.records[0].config.online_start
    return start is not None and cell.at_step is not None and cell.at_step > start


def score_text(cell: Cell, which: str, interval: bool = False) -> str:
    """Return mean and standard deviation, `offline -> online` for a run with both.

    Args:
        cell: The cell. Scores of seeds on their way are in parentheses, with their step.
        which: Kind of score, see `utils.report.records.score`.
        interval: Whether the interval of the (online) mean follows, in brackets.
    """
    kinds = ["offline", which] if which == "protocol" and went_online(cell) else [which]
    metric = cell.records[0].metric
    found = [estimate(cell.scores(kind)) for kind in kinds]
    text = " -> ".join(mean_text(one, metric) for one in found)
    if interval and found[-1] is not None and found[-1].interval is not None:
        text += f" [{interval_text(found[-1].interval, metric)}]"
    return text if cell.complete or found[-1] is None else f"({text} at {cell.at_step})"


def scored_episodes(cell: Cell, which: str) -> int:
    """Return the number of episodes in the scores of all seeds."""
    return sum(
        record.config.eval_episodes * len(scored_steps(record, which, cell.at_step or 0))
        for record in cell.scored
    )


def episodes_interval(cell: Cell, which: str) -> tuple[float, float] | None:
    """Return a 95 % interval over the episodes of a cell's one seed, in percent.

    It does not tell how much another seed would differ. None for several seeds, and for a metric
    that is no share of episodes.
    """
    scores = cell.scores(which)
    if len(scores) != 1 or cell.records[0].metric != "success" or not np.isfinite(scores[0]):
        return None
    trials, factor = scored_episodes(cell, which), METRICS["success"].factor
    low, high = wilson_interval(scores[0] / factor * trials, trials)
    return factor * low, factor * high


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a success probability.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of independent trials, at least 1.
        confidence: Probability that the interval covers.

    Returns:
        The lower and the upper end, within [0, 1].
    """
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
