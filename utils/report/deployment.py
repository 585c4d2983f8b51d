"""Which policy to deploy: the score of the best of k, as a few episodes online choose it.

The procedure is that of Jackson et al. 2025, "A Clean Slate for Offline Reinforcement Learning"
(arXiv 2504.11453), as in its released code: k of the trained policies are the arms of a bandit by
UCB, a pull is one of an arm's kept episodes, drawn with replacement, and the policy with the
highest mean return after the budget is deployed. Its score is expected over subsets and pulls.

Ours are these differences:

- A policy is scored by episodes that are not pulled. Where the same ones serve both, a lucky
  evaluation is chosen and then counted as a good policy. The other half is all that is known of it,
  however many pulls there are: fresh episodes would choose a little better.
- The bonus of UCB is scaled by the range of all kept returns. It is meant for returns in [0, 1].
- A policy that has not been pulled is not deployed, also where returns are negative.
- The interval is over policies: it says how much other seeds and settings would differ. That of the
  released code is over trials, and shrinks with their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError
from utils.report.statistics import percentile_interval

_TRIALS_PER_RESAMPLE = 5


@dataclass(frozen=True)
class Deployment:
    """Expected score of the deployed policy; arrays are (policies, budgets).

    Attributes:
        policies: How many policies there are to choose from.
        budgets: How many episodes are played to choose.
        scores: In the unit of the episodes.
        low: Lower end of the 95 % interval; NaN if a single policy is known.
        high: Upper end.
    """

    policies: tuple[int, ...]
    budgets: tuple[int, ...]
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray


def expected_deployment(
    episodes: Sequence[np.ndarray],
    *,
    policies: Sequence[int] | None = None,
    budgets: Sequence[int] = (10, 30, 100),
    hold_out: bool = True,
    repetitions: int = 1000,
    seed: int = 0,
) -> Deployment:
    """Estimate the score of the policy that a bandit chooses, see the module.

    Args:
        episodes: Of each final policy (seeds, settings, or both) the score of each episode,
            (episodes,); policies may differ in their number.
        policies: Numbers of policies to choose from, at most as many as there are; by default all.
        budgets: Numbers of episodes to choose by, in all.
        hold_out: Whether a policy is scored by the half of its episodes that is not pulled. If not,
            all are both pulled and scored, as in the released code, and scores are too high.
        repetitions: Number of trials for a mean, and again for an interval.
        seed: Of the random numbers; the same one gives the same result.

    Returns:
        The scores for each number of policies and each budget.

    Raises:
        UserError: A policy has fewer episodes than are needed: two, or one without `hold_out`.
    """
    policies = tuple(range(1, len(episodes) + 1) if policies is None else policies)
    if max(policies) > len(episodes):
        raise ValueError(f"{max(policies)} of {len(episodes)} policies")
    rng = np.random.default_rng(seed)
    arms = _Arms(episodes, hold_out, rng)
    budgets = tuple(budgets)
    results = [_estimate(arms, k, budgets, repetitions, rng) for k in policies]
    return Deployment(policies, budgets, *map(np.array, zip(*results, strict=True)))


class _Arms:
    """Policies whose episodes are pulled and scored.

    A policy's episodes stand in a random order on a circle. A trial pulls those of an arc that
    begins anywhere, and scores the policy by the mean of the others.
    """

    def __init__(self, episodes: Sequence[np.ndarray], hold_out: bool, rng: np.random.Generator):
        self._length = np.array([len(values) for values in episodes])
        needed = 2 if hold_out else 1
        if self._length.min() < needed:
            raise UserError(
                f"policy {self._length.argmin()} has {self._length.min()} kept episodes where "
                f"{needed} are needed to choose between policies; evaluate it with more"
            )
        self._pulled = (self._length + 1) // 2 if hold_out else self._length
        self._scored = self._length - self._pulled if hold_out else self._length
        self._values = np.zeros((len(episodes), self._length.max()))
        self._sums = np.zeros((len(episodes), 2 * self._length.max() + 1))
        for i, values in enumerate(episodes):
            values = rng.permutation(np.asarray(values, float))
            self._values[i, : len(values)] = values
            self._sums[i, 1 : 2 * len(values) + 1] = np.cumsum(np.tile(values, 2))
        self.spread = np.ptp(np.concatenate(list(episodes)))

    def __len__(self) -> int:
        return len(self._length)

    def begin(self, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return where the arc of each arm begins."""
        return rng.integers(self._length[chosen])

    def scores(self, chosen: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Return the mean of the episodes outside each arm's arc."""
        first, number = start + self._pulled[chosen], self._scored[chosen]
        first %= self._length[chosen]
        return (self._sums[chosen, first + number] - self._sums[chosen, first]) / number

    def pull(self, chosen: np.ndarray, start: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return an episode of each arm's arc, by a number in [0, 1)."""
        episode = start + (uniform * self._pulled[chosen]).astype(int)
        return self._values[chosen, episode % self._length[chosen]]


def _estimate(
    arms: _Arms, k: int, budgets: tuple[int, ...], repetitions: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores and both ends of their intervals, (budgets,) each.

    The interval is a bootstrap over policies, with a mean of a few trials for each resample. The
    part of these means' variance that comes from the trials is estimated within resamples and taken
    out. Resamples repeat policies, so their maximum is too low: only the spread is taken from them.
    """
    n = len(arms)
    subsets = _subsets(repetitions, n, k, rng)
    if n == 1:
        scores = _play(arms, subsets, budgets, rng).mean(axis=0)
        return scores, np.full_like(scores, np.nan), np.full_like(scores, np.nan)
    resamples = rng.integers(n, size=(-(-repetitions // _TRIALS_PER_RESAMPLE), n))
    resamples = np.repeat(resamples, _TRIALS_PER_RESAMPLE, axis=0)
    again = np.take_along_axis(resamples, _subsets(len(resamples), n, k, rng), axis=1)
    played = _play(arms, np.concatenate([subsets, again]), budgets, rng)
    scores = played[:repetitions].mean(axis=0)
    groups = played[repetitions:].reshape(-1, _TRIALS_PER_RESAMPLE, len(budgets))
    means = groups.mean(axis=1)
    spread = means.var(axis=0, ddof=1)
    noise = groups.var(axis=1, ddof=1).mean(axis=0) / _TRIALS_PER_RESAMPLE
    share = np.sqrt(np.clip(1 - noise / np.where(spread > 0, spread, 1), 0, 1))
    low, high = percentile_interval((means - means.mean(axis=0)) * share)
    return scores, scores + low, scores + high


def _subsets(number: int, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return sets of k out of n in random order, (number, k)."""
    return rng.random((number, n)).argsort(axis=1)[:, :k]


def _play(
    arms: _Arms, chosen: np.ndarray, budgets: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Let UCB1 (Auer et al. 2002) choose between arms.

    Args:
        arms: All policies.
        chosen: Those of each trial in random order, (trials, k); so ties need no lot.
        budgets: Numbers of pulls.
        rng: Source of randomness.

    Returns:
        The score of the best arm after each budget, (trials, budgets).
    """
    trials, k = chosen.shape
    rows = np.arange(trials)
    start = arms.begin(chosen, rng)
    truth = arms.scores(chosen, start)
    total, counts = np.zeros((trials, k)), np.zeros((trials, k))
    means = np.full((trials, k), -np.inf)
    after = {}
    for pulls in range(max(budgets)):
        if pulls < k:
            arm = np.full(trials, pulls)
        else:
            bonus = arms.spread * np.sqrt(2 * np.log(pulls) / counts)
            arm = np.argmax(means + bonus, axis=1)
        total[rows, arm] += arms.pull(chosen[rows, arm], start[rows, arm], rng.random(trials))
        counts[rows, arm] += 1
        means[rows, arm] = total[rows, arm] / counts[rows, arm]
        if pulls + 1 in budgets:
            after[pulls + 1] = truth[rows, means.argmax(axis=1)]
    return np.stack([after[budget] for budget in budgets], axis=1)
