"""The Langevin chain against what is known of it on a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils.langevin import chain

MEAN, VARIANCE, CHAINS = 0.7, 0.25, 40_000


def end(step_size, steps=60, **kwargs):
    """States of many chains on a Gaussian after they have forgotten their start at 0."""

    def drift(x):
        return -(x - MEAN) / VARIANCE

    return chain(drift, jnp.zeros(CHAINS), jax.random.key(0), steps, step_size, **kwargs)


def test_the_stationary_mean_and_variance_are_known_and_the_bias_extrapolates():
    variances = []
    for share in (0.4, 0.2):  # of the Gaussian's variance
        x = end(share * VARIANCE)
        expected = VARIANCE / (1 - share / 2)
        assert x.mean() == pytest.approx(MEAN, abs=4 * (expected / CHAINS) ** 0.5)
        assert x.var() == pytest.approx(expected, rel=4 * (2 / CHAINS) ** 0.5)
        variances.append(x.var())
    biases = [variance - VARIANCE for variance in variances]
    assert biases[0] > 2 * biases[1] > 0.1 * VARIANCE  # in proportion to the step, to first order
    # 2 V(h) - V(2 h) is off by h^2 only: by 3 % here, where V(h) is by 11 %.
    assert 2 * variances[1] - variances[0] == pytest.approx(VARIANCE, rel=0.05)


def test_it_diverges_from_twice_the_variance_on():
    assert end(1.9 * VARIANCE).var() < 30 * VARIANCE
    assert end(2.1 * VARIANCE).var() > 30 * VARIANCE


def test_every_step_is_projected():
    x = end(0.2 * VARIANCE, project=lambda x: jnp.clip(x, 0.0, 0.5))
    assert (x.min(), x.max()) == (0.0, 0.5)
    once = jnp.clip(end(0.2 * VARIANCE), 0.0, 0.5)  # which is not the same as at the end alone
    assert abs(x.mean() - once.mean()) > 0.01


def test_no_step_is_the_start():
    start = jnp.array([0.1, -0.3])
    result = chain(jnp.exp, start, jax.random.key(0), 0, 0.1)
    np.testing.assert_array_equal(result, start)
