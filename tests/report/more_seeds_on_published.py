"""How often forecasts of more seeds are right: ``python -m tests.report.more_seeds_on_published``.

Each pair of QAM's methods is compared on single tasks and on the five tasks of an environment, by
success at the end of the offline phase. A forecast sees some of the 12 seeds of either method; the
truth is drawn from all 12 with replacement: the number of seeds with which 80 % of the comparisons
are decided with the right sign, and how often the forecast's number decides.
"""

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from utils.report import more_seeds

PUBLISHED = Path(more_seeds.__file__).parent / "published" / "qam.npz"
SHOWN = (3, 4, 6)
REPETITIONS = 500
_QUANTILES = student.ppf(0.975, np.arange(1, 1001))


@dataclass(frozen=True)
class Case:
    """One forecast against what all seeds say.

    Attributes:
        done: Seeds that the forecast saw.
        needed: What it said, see `more_seeds.Forecast`.
        same_sign: Whether the difference so far has the sign of the true one.
        truth: Number of seeds that suffices; infinite if more than the most.
        fresh: How often the forecast's number of new seeds decides, with the right sign.
        kept: How often the seeds seen do, with so many others that it is this number.
    """

    done: int
    needed: int | None
    same_sign: bool
    truth: float
    fresh: float
    kept: float


def decisions(x, y):
    """Signs of differences that Welch's interval tells from 0, else 0; (..., tasks, seeds)."""
    numbers = x.shape[-1], y.shape[-1]
    parts = np.concatenate(
        [s.var(-1, ddof=1) / n for s, n in zip((x, y), numbers, strict=True)], -1
    )
    freedom = np.repeat([n - 1 for n in numbers], x.shape[-2])
    squares = np.maximum((parts**2 / freedom).sum(-1), 1e-300)
    quantile = np.interp(parts.sum(-1) ** 2 / squares, np.arange(1, 1001), _QUANTILES)
    difference = (x.mean(-1) - y.mean(-1)).sum(-1)
    certain = np.abs(difference) > quantile * np.sqrt(parts.sum(-1)) + 1e-9
    return np.where(certain, np.sign(difference), 0)


def drawn(scores, number, rng):
    """Seeds of each task with replacement, (REPETITIONS, tasks, number)."""
    tasks, seeds = scores.shape
    taken = rng.integers(seeds, size=(REPETITIONS, tasks, number))
    return scores[np.arange(tasks)[:, None], taken]


def sufficient(x, y, sign, rng):
    """The least number of seeds with which the true sign is found with the wanted probability."""
    low, high = 1, more_seeds.MOST_SEEDS + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = decisions(drawn(x, middle, rng), drawn(y, middle, rng)) == sign
        low, high = (low, middle) if found.mean() >= more_seeds.POWER else (middle, high)
    return high if sign and high <= more_seeds.MOST_SEEDS else np.inf


def cases(x, y, rng):
    """Forecasts of one comparison; scores are (tasks, seeds)."""
    sign = np.sign(np.round(x.mean() - y.mean(), 9))
    truth = sufficient(x, y, sign, rng)
    for done in SHOWN:
        seen = [rng.permuted(scores, axis=1)[:, :done] for scores in (x, y)]
        forecast = more_seeds.forecast(*seen)
        fresh = kept = np.nan
        if forecast.needed is not None and forecast.needed > done:
            pair = [drawn(scores, forecast.needed, rng) for scores in (x, y)]
            fresh = np.mean(sign * decisions(*pair) > 0)
            for scores, given in zip(pair, seen, strict=True):
                scores[..., :done] = given
            kept = np.mean(sign * decisions(*pair) > 0)
        same = np.sign(forecast.difference) == sign
        yield Case(done, forecast.needed, same, truth, fresh, kept)


def line(found):
    """What cases with the same number of seeds say."""
    decided = np.array([case.needed == case.done for case in found])
    never = np.array([case.needed is None for case in found])
    more = ~decided & ~never
    numbers = [case for case, is_number in zip(found, more, strict=True) if is_number]
    ratio = np.array([case.needed / case.truth for case in numbers])
    shares = {
        "decided": decided,
        "right sign": np.array([case.same_sign for case in found])[decided],
        "a number": more,
        "within 2": (ratio >= 0.5) & (ratio <= 2),
        "too low": ratio < 0.5,
        "too high": ratio > 2,
        "fresh": [case.fresh for case in numbers],
        "kept": [case.kept for case in numbers],
        "> 50": never,
        "true": np.isinf([case.truth for case in found])[never],
    }
    return ", ".join(f"{name} {percent(values)}" for name, values in shares.items())


def percent(values):
    return f"{100 * np.mean(values):.0f} %" if len(values) else "-"


def compare(success, groups, most, rng):
    """Print a line for each number of seeds.

    Args:
        success: In percent, (methods, tasks, seeds).
        groups: Indices of the tasks that are compared together.
        most: How many comparisons to take, at random.
        rng: Source of randomness.
    """
    todo = list(itertools.product(itertools.combinations(range(len(success)), 2), groups))
    chosen = rng.permutation(len(todo))[:most]
    pairs = [(success[i, group], success[j, group]) for (i, j), group in (todo[c] for c in chosen)]
    found = [case for pair in pairs for case in cases(*pair, rng)]
    for done in SHOWN:
        print(f"{done} seeds: {line([case for case in found if case.done == done])}", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=PUBLISHED, help="QAM's arrays")
    parser.add_argument("--comparisons", type=int, default=6000, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    with np.load(options.data, allow_pickle=False) as data:
        success = 100.0 * data["success"][..., list(data["steps"]).index(data["offline_steps"])]
    success = success[~np.isnan(success).any(axis=(1, 2))]  # a method is online only
    tasks = np.arange(success.shape[1])
    for title, groups in (("single tasks", tasks[:, None]), ("five tasks", tasks.reshape(-1, 5))):
        print(title)
        compare(success, groups, options.comparisons, np.random.default_rng(0))


if __name__ == "__main__":
    main()
