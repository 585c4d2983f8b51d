import functools
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from utils.report.statistics import (
    bootstrap,
    bootstrap_interval,
    iqm,
    mean,
    percentile_interval,
    performance_profile,
    probability_of_improvement,
    resample,
)

RLIABLE = np.load(Path(__file__).parent / "data" / "rliable.npz", allow_pickle=False)
STATISTICS = {
    "mean": mean,
    "iqm": iqm,
    "profile": functools.partial(performance_profile, thresholds=RLIABLE["thresholds"]),
}


def per_task(indices):
    """Indices of rliable (repetitions, seeds, tasks) as ours, a list over tasks."""
    return list(np.moveaxis(indices, -1, 0))


def agree_with_rliable(name, statistic, scores, indices):
    point = statistic(*scores)
    np.testing.assert_allclose(np.ravel(point), RLIABLE[f"{name}_point"], rtol=1e-12)
    values = bootstrap(statistic, *scores, indices=indices)
    recorded = RLIABLE[f"{name}_values"]
    np.testing.assert_allclose(values.reshape(recorded.shape), recorded, rtol=1e-12)
    ends = np.reshape(percentile_interval(values), RLIABLE[f"{name}_interval"].shape)
    np.testing.assert_allclose(ends, RLIABLE[f"{name}_interval"], rtol=1e-12)
    assert np.ptp(recorded) > 0


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_resampled_seeds_are_those_of_rliable(name):
    agree_with_rliable(name, STATISTICS[name], [RLIABLE["x"].T], [per_task(RLIABLE["indices"])])


def test_the_probability_of_improvement_is_that_of_rliable():
    scores = [RLIABLE["x"].T, RLIABLE["y"].T]
    assert any(np.intersect1d(x, y).size for x, y in zip(*scores, strict=True))  # ties
    indices = [per_task(RLIABLE[f"improvement_indices_{name}"]) for name in "xy"]
    agree_with_rliable("improvement", probability_of_improvement, scores, indices)


def test_tasks_may_have_different_numbers_of_seeds():
    scores = [np.array([0.0, 2.0]), np.array([3.0, 4.0, 5.0, 8.0]), np.array([7.0, 7.0, 7.0])]
    assert mean(scores) == pytest.approx((1 + 5 + 7) / 3)
    assert iqm(scores) == trim_mean([0, 2, 3, 4, 5, 8, 7, 7, 7], 0.25)
    np.testing.assert_allclose(
        performance_profile(scores, [2, 4.5]), [(0 + 1 + 1) / 3, (0 + 0.5 + 1) / 3]
    )
    others = [np.array([1.0, 2.0, 3.0]), np.array([4.0]), np.array([8.0, 7.0])]
    expected = [
        mannwhitneyu(x, y).statistic / (len(x) * len(y))
        for x, y in zip(scores, others, strict=True)
    ]
    assert probability_of_improvement(scores, others) == pytest.approx(np.mean(expected))
    low, high = bootstrap_interval(iqm, scores)
    assert low < iqm(scores) < high


def test_seeds_are_resampled_within_tasks_and_independently():
    indices = resample([np.zeros(3), np.zeros(5), np.zeros(5)], 4000, np.random.default_rng(0))
    assert [task.shape for task in indices] == [(4000, 3), (4000, 5), (4000, 5)]
    for task in indices:
        shares = np.bincount(task.ravel()) / task.size
        np.testing.assert_allclose(shares, 1 / task.shape[1], atol=0.02)
    assert abs(np.corrcoef(indices[1][:, 0], indices[2][:, 0])[0, 1]) < 0.05


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    rng = np.random.default_rng(1)
    scores = [rng.normal(task, 1.0, 40) for task in range(6)]
    low, high = bootstrap_interval(mean, scores, repetitions=20_000)
    error = np.sqrt(sum(task.var() / len(task) for task in scores)) / len(scores)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.03)
    assert (low + high) / 2 == pytest.approx(mean(scores), abs=0.1 * error)
    narrow = bootstrap_interval(mean, scores, repetitions=20_000, confidence=0.5)
    assert narrow[1] - narrow[0] == pytest.approx(2 * 0.6745 * error, rel=0.03)


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(2).normal(size=(2, 5))
    assert bootstrap_interval(mean, scores) == bootstrap_interval(mean, scores)
    assert bootstrap_interval(mean, scores) != bootstrap_interval(mean, scores, seed=1)


def test_one_seed_has_no_interval():
    assert bootstrap_interval(mean, [np.array([3.0])]) is None
    assert bootstrap_interval(mean, [np.array([3.0, 4.0]), np.array([3.0])]) is None
    two = [np.array([3.0, 4.0])]
    assert bootstrap_interval(probability_of_improvement, two, [np.array([3.0])]) is None
    assert bootstrap_interval(mean, two) == (3.0, 4.0)
