import numpy as np
import pytest
from scipy.stats import ttest_ind

from tests.report import more_seeds_on_published
from utils.report.more_seeds import MOST_SEEDS, POWER, forecast, sentence


def standardised(mean, deviation, seeds, seed):
    """Scores with exactly this mean and standard deviation."""
    scores = np.random.default_rng(seed).normal(size=seeds)
    return mean + deviation * (scores - scores.mean()) / scores.std(ddof=1)


def test_the_interval_is_welchs():
    x, y = standardised(50, 8, 4, 0), standardised(47, 2, 7, 1)
    interval = ttest_ind(x, y, equal_var=False).confidence_interval()
    found = forecast([x], [y])
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert (found.difference, found.done) == (pytest.approx(3), 4)


def test_the_number_of_seeds_decides_with_the_wanted_probability():
    found = forecast([standardised(52, 9, 3, 0)], [standardised(45, 5, 3, 1)])
    assert 10 < found.needed < 40
    rng = np.random.default_rng(0)
    x, y = rng.normal(52, 9, (found.needed, 4000)), rng.normal(45, 5, (found.needed, 4000))
    decided = np.mean(ttest_ind(x, y, equal_var=False).pvalue < 0.05)
    assert decided == pytest.approx(POWER, abs=0.03)


def test_several_tasks_are_compared_by_their_mean():
    x, y = standardised(52, 9, 3, 0), standardised(45, 9, 3, 1)
    one, four = forecast([x], [y]), forecast([x] * 4, [y] * 4)
    assert four.difference == pytest.approx(one.difference)
    assert np.ptp(four.interval) < np.ptp(one.interval) / 2
    assert four.done < four.needed == pytest.approx(one.needed / 4, abs=2)
    # Where a difference on one task is made up for by another, there is none.
    assert forecast([x, y], [y, x]).needed is None


def test_seeds_that_a_method_has_already_are_counted():
    x, y = standardised(52, 9, 3, 0), standardised(45, 9, 3, 1)
    fewer = forecast([x], [standardised(45, 9, 60, 1)])
    assert fewer.done == 3
    assert fewer.needed < forecast([x], [y]).needed


def test_what_is_decided_needs_no_more_seeds():
    found = forecast([standardised(90, 3, 3, 0)], [standardised(20, 3, 4, 1)])
    assert found.needed == found.done == 3
    assert sentence(found, "a", "b").startswith("a is better than b (a minus b: +70.0, ")
    found = forecast([np.full(3, 20.0)], [np.full(3, 90.0)])
    assert sentence(found, "a", "b") == (
        "b is better than a (a minus b: -70.0, Welch's 95 % interval -70.0 to -70.0, 3 seeds)."
    )


def test_no_difference_needs_more_than_the_most():
    same = standardised(50, 9, 3, 0)
    for found in (forecast([same], [same]), forecast([np.full(30, 0.1)], [np.full(20, 0.1)])):
        assert found.needed is None
    text = sentence(forecast([same], [same + 0.5]), "a", "b")
    assert text.startswith(f"More than {MOST_SEEDS} seeds of each would be needed to tell a from b")
    assert "wrong in" in text


def test_a_sentence_says_how_many_and_how_far_to_trust_it():
    found = forecast([standardised(52, 9, 3, 0)], [standardised(45, 5, 3, 1)])
    low, high = found.interval
    assert sentence(found, "deflow", "fql, tau=0.01") == (
        f"About {found.needed - 3} more seeds ({found.needed} of each) would decide between deflow "
        "and fql, tau=0.01 (deflow minus fql, tau=0.01: +7.0, "
        f"Welch's 95 % interval {low:.1f} to {high:.1f}, 3 seeds); such a number is "
        "right within a factor of two in 6 of 10 cases, too low in 1 of 4."
    )


def test_one_seed_gives_no_forecast():
    found = forecast([np.array([1.0])], [np.array([1.0, 2.0])])
    assert found is None
    assert sentence(found, "a", "b") == (
        "a and b need two seeds each before a comparison says anything."
    )


def test_the_measurement_on_published_results_runs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    success = np.full((4, 5, 12, 2), np.nan, np.float32)
    success[:3, ..., 1] = rng.binomial(50, rng.uniform(0.2, 0.9, (3, 5, 1)), (3, 5, 12)) / 50
    path = tmp_path / "results.npz"
    np.savez(path, success=success, steps=[1, 2], offline_steps=2)
    more_seeds_on_published.main([f"--data={path}", "--comparisons=15"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("single tasks", "3 seeds", "4 seeds", "6 seeds"),
        *("five tasks", "3 seeds", "4 seeds", "6 seeds"),
    ]


def test_the_measurement_decides_as_the_forecast_does():
    rng = np.random.default_rng(0)
    signs = []
    for _ in range(40):
        x, y = rng.normal(56, 5, (2, 3)), rng.normal(50, 5, (2, 5))
        found = forecast(x, y)
        signs.append(np.sign(found.difference) if found.needed == found.done else 0)
        assert more_seeds_on_published.decisions(x, y) == signs[-1]
    assert set(signs) == {0, 1}
