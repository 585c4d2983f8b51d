"""How many more seeds would decide a comparison.

A comparison of two methods is decided where Welch's 95 % interval of their difference, averaged
over tasks, excludes 0. (The percentile bootstrap, which tables show, is too narrow with few seeds.)
The forecast takes the differences and variances so far for the true ones and asks for the least
number of seeds with which that happens with a probability of 80 %.

How often it is right was measured on QAM's published results (16 methods in pairs, 50 tasks, 12
seeds of which the forecast saw a few): ``python -m tests.report.more_seeds_on_published``. Truth is
what samples of all 12 seeds say; in percent of the forecasts of each kind:

| | 3 seeds | 4 | 6 | five tasks, 3 | 4 | 6 |
|---|---|---|---|---|---|---|
| it is decided | 27 | 33 | 43 | 58 | 66 | 73 |
| - with the right sign | 99 | 100 | 100 | 100 | 100 | 100 |
| a number of seeds | 43 | 38 | 29 | 32 | 24 | 16 |
| - within a factor of two | 65 | 65 | 65 | 63 | 60 | 61 |
| - too low by more | 24 | 25 | 24 | 26 | 25 | 22 |
| - that many decide, those seen among them | 74 | 77 | 82 | 75 | 77 | 82 |
| - that many new ones decide | 68 | 71 | 75 | 70 | 71 | 76 |
| more than 50 | 30 | 29 | 28 | 11 | 11 | 11 |
| - that is true | 78 | 82 | 86 | 54 | 64 | 72 |

To add seeds until a comparison is decided, and then to stop, finds differences that are not there
more often than in 5 % of cases: take the number beforehand.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from utils.report.statistics import Scores, mean

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 50
RELIABILITY = "such a number is right within a factor of two in 6 of 10 cases, too low in 1 of 4"
RELIABILITY_OF_MORE = "such a forecast is wrong in 2 to 5 of 10 cases"


@dataclass(frozen=True)
class Forecast:
    """What is known of a comparison, and how many seeds would decide it.

    Attributes:
        difference: Of the means, the first method's minus the second's.
        interval: Welch's of the difference.
        done: Seeds so far, of the method and task that has fewest.
        needed: Seeds of each method on each task with which it is probably decided: `done` if it is
            already, None if more than `MOST_SEEDS`.
    """

    difference: float
    interval: tuple[float, float]
    done: int
    needed: int | None


def forecast(x: Scores, y: Scores) -> Forecast | None:
    """Forecast how many seeds decide whether one method is better.

    Args:
        x: Scores of one method, (seeds,) per task.
        y: Scores of the other on the same tasks; numbers of seeds may differ.

    Returns:
        The forecast, or None if a method has one seed on a task, whose spread is unknown.
    """
    groups = [np.asarray(task, float) for method in (x, y) for task in method]
    done = np.array([len(group) for group in groups])
    if done.min() < 2:
        return None
    difference = float(mean(x) - mean(y))
    # Of each group, what it adds to the variance of the difference if it has one seed.
    variances = np.array([group.var(ddof=1) for group in groups]) / len(x) ** 2
    error, quantile = _welch(variances, done[:, None])
    interval = difference - quantile[0] * error[0], difference + quantile[0] * error[0]
    rounding = 1e-9 * max(np.abs(group).max() for group in groups)
    least = int(done.min())
    if interval[0] > rounding or interval[1] < -rounding:
        return Forecast(difference, interval, least, least)
    numbers = np.arange(least + 1, MOST_SEEDS + 1)
    error, quantile = _welch(variances, np.maximum(done[:, None], numbers))
    enough = np.full(len(numbers), False)
    if abs(difference) > rounding:
        enough = ndtr(abs(difference) / error - quantile) >= POWER
    needed = int(numbers[enough.argmax()]) if enough.any() else None
    return Forecast(difference, interval, least, needed)


def _welch(variances: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error of a sum of means, and its quantile of Student's t.

    Args:
        variances: Of one member of each group, (groups,).
        numbers: Members of each group, (groups, cases).

    Returns:
        Error and quantile, (cases,), with Welch and Satterthwaite's degrees of freedom.
    """
    parts = variances[:, None] / numbers
    total, squares = parts.sum(axis=0), (parts**2 / (numbers - 1)).sum(axis=0)
    freedom = np.divide(total**2, squares, out=np.ones_like(total), where=squares > 0)
    return np.sqrt(total), stdtrit(freedom, (1 + CONFIDENCE) / 2)


def sentence(seeds: Forecast | None, x: str, y: str, decimals: int = 1) -> str:
    """Say in one sentence how many more seeds would decide a comparison.

    Args:
        seeds: The forecast.
        x: Name of the method that the difference is of.
        y: Name of the other.
        decimals: Of the difference.
    """
    if seeds is None:
        return f"{x} and {y} need two seeds each before a comparison says anything."
    low, high = (f"{end:.{decimals}f}" for end in seeds.interval)
    known = f"{seeds.difference:+.{decimals}f}, Welch's 95 % interval {low} to {high}, "
    known += f"{seeds.done} seeds"
    if seeds.needed is None:
        most = max(MOST_SEEDS, seeds.done)
        return (
            f"More than {most} seeds of each would be needed to tell {x} from {y} "
            f"({x} minus {y}: {known}); {RELIABILITY_OF_MORE}."
        )
    if seeds.needed == seeds.done:
        better, worse = (x, y) if seeds.difference > 0 else (y, x)
        return f"{better} is better than {worse} ({x} minus {y}: {known})."
    more = seeds.needed - seeds.done
    return (
        f"About {more} more seed{'s' * (more > 1)} ({seeds.needed} of each) would decide between "
        f"{x} and {y} ({x} minus {y}: {known}); {RELIABILITY}."
    )
