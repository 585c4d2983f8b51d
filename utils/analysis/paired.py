"""Paired differences between two policies that met the same resets and the same noise."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from utils.report.statistics import bootstrap_interval, mean

_POWER = 0.8
_CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """What episodes say of the difference between two policies of the same agents.

    Attributes:
        value: Mean over agents of the mean over their episodes.
        of_these: 95 % interval for these agents, had they played more episodes: a bootstrap of each
            agent's pairs. None with one episode per agent, and where no pair differs.
        of_new: 95 % interval for agents of further seeds, by Student's t of the agents' means. None
            with one agent, and where no pair differs.
        better: Number of pairs with a positive difference.
        worse: Number of pairs with a negative one.
        p: Probability of so uneven a split of these, or a more uneven one, if both were as likely:
            the exact sign test, for success McNemar's.
        detectable_of_these: Least true difference that so many pairs of these agents would tell
            from 0 with probability 0.8, at 5 %. None where `of_these` is.
        detectable_of_new: The same for agents of further seeds. None where `of_new` is.
    """

    value: float
    of_these: Interval | None
    of_new: Interval | None
    better: int
    worse: int
    p: float
    detectable_of_these: float | None
    detectable_of_new: float | None


def compare(scores: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Difference:
    """Compare two policies by the pairs of their episodes.

    Args:
        scores: Of each agent the scores of its episodes, (episodes,).
        reference: The same of the other policy; episodes of one number had one reset.
    """
    pairs = [np.subtract(*both) for both in zip(scores, reference, strict=True)]
    better, worse = (int(sum((sign * pair > 0).sum() for pair in pairs)) for sign in (1, -1))
    some = better + worse > 0
    interval = bootstrap_interval(mean, pairs, confidence=_CONFIDENCE) if some else None
    means = np.array([pair.mean() for pair in pairs])
    of_new, detectable_of_new = _over_agents(means) if some else (None, None)
    return Difference(
        value=float(mean(pairs)),
        of_these=interval and (float(interval[0]), float(interval[1])),
        of_new=of_new,
        better=better,
        worse=worse,
        p=float(stats.binomtest(better, better + worse).pvalue) if some else 1.0,
        detectable_of_these=_detectable(pairs) if interval else None,
        detectable_of_new=detectable_of_new,
    )


def _detectable(pairs: Sequence[np.ndarray]) -> float:
    normal = statistics.NormalDist()
    error = sum(pair.var(ddof=1) / len(pair) for pair in pairs) ** 0.5 / len(pairs)
    return float(error * (normal.inv_cdf(0.5 + _CONFIDENCE / 2) + normal.inv_cdf(_POWER)))


def _over_agents(means: np.ndarray) -> tuple[Interval | None, float | None]:
    """Return the interval and the detectable difference from the means (agents,)."""
    if len(means) < 2:
        return None, None
    error = means.std(ddof=1) / len(means) ** 0.5
    half, power = (error * stats.t.ppf([0.5 + _CONFIDENCE / 2, _POWER], len(means) - 1)).tolist()
    value = float(means.mean())
    return (value - half, value + half), half + power
