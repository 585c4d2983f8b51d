"""Paired differences: known ones, and how often their intervals cover."""

import numpy as np
import pytest
from scipy import stats

from utils.analysis.paired import compare


def bernoulli(rng, agents, episodes, both, gain):
    """Scores in percent of two policies that succeed together, or one alone."""
    pairs = []
    for _ in range(agents):
        u = rng.uniform(size=episodes)
        reference = u < both
        pairs.append((100.0 * (reference | (u > 1 - gain)), 100.0 * reference))
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_a_difference_is_the_mean_over_agents_with_the_pairs_counted():
    scores = [np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0])]
    reference = [np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0])]
    found = compare(scores, reference)
    assert found.value == pytest.approx((0.5 - 0.5) / 2)
    assert (found.better, found.worse) == (2, 1)
    assert found.p == pytest.approx(stats.binomtest(2, 3).pvalue)
    spread = stats.t.ppf(0.975, 1) * 0.5  # of means 0.5 and -0.5
    assert found.of_new == pytest.approx((-spread, spread))


def test_pairing_finds_what_unpaired_episodes_hide():
    """95 of 100 episodes are the same by both policies, and five are won."""
    reference = np.tile([0.0, 100.0], 50)
    scores = reference.copy()
    scores[[0, 20, 40, 60, 80, 98]] = 100.0
    found = compare([scores], [reference])
    assert found.value == 6.0
    assert found.of_these[0] > 0
    assert found.p == pytest.approx(2 * 0.5**6)
    assert found.of_new is None
    assert found.detectable_of_new is None
    other = compare([scores], [np.roll(reference, 1)])
    assert other.of_these[0] < 0


def test_intervals_cover_and_the_detectable_difference_is_detected():
    rng = np.random.default_rng(0)
    covered, found = [], []
    for _ in range(100):
        one = compare(*bernoulli(rng, agents=3, episodes=100, both=0.5, gain=0.1))
        covered.append(one.of_these[0] <= 10 <= one.of_these[1])
        found.append(one.detectable_of_these)
    assert 0.9 <= np.mean(covered) <= 0.99
    # 300 pairs of which a tenth differ by 100: 2.8 standard errors.
    expected = (1.960 + 0.842) * 100 * (0.1 * 0.9 / 300) ** 0.5
    assert np.mean(found) == pytest.approx(expected, rel=0.05)
    detected = [
        compare(*bernoulli(rng, 3, 100, 0.5, gain=expected / 100)).of_these[0] > 0
        for _ in range(60)
    ]
    assert 0.7 <= np.mean(detected) <= 1.0


def test_where_no_pair_differs_there_is_no_interval():
    scores = [np.array([0.0, 100.0])] * 3
    found = compare(scores, scores)
    assert (found.value, found.better, found.worse, found.p) == (0.0, 0, 0, 1.0)
    assert found.of_these is found.of_new is found.detectable_of_these is None


def test_equal_scores_give_equal_intervals():
    rng = np.random.default_rng(1)
    pairs = bernoulli(rng, 2, 50, 0.5, 0.2)
    assert compare(*pairs) == compare(*pairs)
