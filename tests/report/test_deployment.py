import itertools

import numpy as np
import pytest

from utils.errors import UserError
from utils.report.deployment import expected_deployment
from utils.report.statistics import bootstrap_interval, mean


def coins(rates, episodes=50, seed=0):
    """Policies that succeed at some rates, in percent."""
    rng = np.random.default_rng(seed)
    return [100.0 * rng.binomial(1, rate, episodes) for rate in rates]


def test_policies_without_noise_are_deployed_by_their_order():
    # Negative returns: a policy that was not tried must not seem the better one.
    policies = [np.full(4 + i, level) for i, level in enumerate([-9.0, -7.0, -4.0, -2.0, -1.0])]
    result = expected_deployment(policies, budgets=(2, 6), repetitions=4000)
    assert result.policies == (1, 2, 3, 4, 5)
    levels = [values[0] for values in policies]
    best = [np.mean([max(s) for s in itertools.combinations(levels, k)]) for k in range(1, 6)]
    np.testing.assert_allclose(result.scores[:, 1], best, atol=0.15)
    assert result.scores[4, 1] == -1.0
    np.testing.assert_allclose(result.scores[:, 0], [best[0], *[best[1]] * 4], atol=0.15)


def ucb(rates, budget, rng):
    """The rate of the arm that UCB1 prefers after a budget, one pull after the other."""
    rates = rng.permutation(rates)
    won, pulls = np.zeros(len(rates)), np.zeros(len(rates))
    for t in range(budget):
        arm = t if t < len(rates) else np.argmax(won / pulls + np.sqrt(2 * np.log(t) / pulls))
        won[arm] += rng.random() < rates[arm]
        pulls[arm] += 1
    return rates[np.argmax(won / pulls)]


def test_with_many_episodes_it_is_what_ucb_finds_on_the_true_rates():
    rates = [0.3, 0.5, 0.6, 0.8]
    rng = np.random.default_rng(0)
    found = [np.mean([ucb(rates, budget, rng) for _ in range(1000)]) for budget in (5, 40)]
    policies = coins(rates, episodes=20_000)
    result = expected_deployment(policies, policies=[4], budgets=(5, 40), repetitions=4000)
    np.testing.assert_allclose(result.scores[0], 100 * np.array(found), atol=2.0)
    assert 55 < result.scores[0, 0] < result.scores[0, 1] - 5


def test_a_lucky_evaluation_does_not_count_as_a_good_policy():
    held_out, reused = (
        np.mean(
            [
                expected_deployment(
                    coins([0.5] * 10, seed=seed), policies=[10], hold_out=hold_out, repetitions=200
                ).scores[0, -1]
                for seed in range(40)
            ]
        )
        for hold_out in (True, False)
    )
    assert held_out == pytest.approx(50, abs=1.5)
    assert reused > 53


def test_the_interval_is_over_policies_and_not_over_trials():
    policies = coins(np.linspace(0.1, 0.9, 12))
    low, high = bootstrap_interval(mean, [np.array([values.mean() for values in policies])])
    for repetitions in (1000, 10_000):
        result = expected_deployment(policies, policies=[1], repetitions=repetitions)
        assert result.high[0, 0] - result.low[0, 0] == pytest.approx(high - low, rel=0.15)
        assert (result.high[0, 0] + result.low[0, 0]) / 2 == pytest.approx((low + high) / 2, abs=3)


def test_equal_policies_and_single_ones_have_no_spread():
    result = expected_deployment([np.full(5, 7.0)] * 3)
    assert np.all([result.low == 7.0, result.scores == 7.0, result.high == 7.0])
    result = expected_deployment(coins([0.5], episodes=1), hold_out=False)
    assert np.isnan(result.low).all()
    assert np.isnan(result.high).all()


def test_the_unit_of_returns_does_not_matter_and_a_seed_repeats_the_result():
    policies = coins([0.2, 0.4, 0.7, 0.8], episodes=10)
    policies[1] = policies[1][:7]
    result = expected_deployment(policies)
    again = expected_deployment([values / 64 - 8 for values in policies])
    for ours, others in ((result.scores, again.scores), (result.low, again.low)):
        np.testing.assert_allclose(ours / 64 - 8, others)
    assert result.scores.shape == (4, 3)
    np.testing.assert_array_equal(expected_deployment(policies).high, result.high)
    assert np.any(expected_deployment(policies, seed=1).scores != result.scores)


def test_too_few_episodes_and_policies_are_refused():
    with pytest.raises(UserError, match="policy 1 has 1 kept episodes where 2 are needed"):
        expected_deployment([np.zeros(2), np.zeros(1)])
    with pytest.raises(ValueError, match="3 of 2 policies"):
        expected_deployment([np.zeros(2), np.zeros(2)], policies=[3])
