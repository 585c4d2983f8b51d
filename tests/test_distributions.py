"""Densities against SciPy's, and what the temperature does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from utils.distributions import Gaussian, TanhGaussian

MEAN, LOG_STD, NOISE = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
GAUSSIAN = Gaussian(jnp.asarray(MEAN), jnp.asarray(LOG_STD))


def test_the_density_of_a_gaussian_is_that_of_its_dimensions():
    x = MEAN + 1.5
    expected = stats.norm.logpdf(x, MEAN, np.exp(LOG_STD)).sum(-1)
    np.testing.assert_allclose(GAUSSIAN.log_prob(x), expected, rtol=1e-5)


@pytest.mark.parametrize("distribution", [GAUSSIAN, TanhGaussian(GAUSSIAN)])
def test_the_temperature_multiplies_the_deviation(distribution):
    np.testing.assert_array_equal(distribution.sample(NOISE, 0.0), distribution.mode())
    sample = distribution.sample(NOISE, 0.5)
    expected = MEAN + 0.5 * np.exp(LOG_STD) * NOISE
    if distribution is not GAUSSIAN:
        expected = np.tanh(expected)
    np.testing.assert_allclose(sample, expected, rtol=1e-5)
    np.testing.assert_allclose(distribution.std(), np.exp(LOG_STD), rtol=1e-6)


def test_the_density_of_a_sample_is_the_density_at_it():
    sample, log_prob = GAUSSIAN.sample_and_log_prob(NOISE)
    np.testing.assert_allclose(log_prob, GAUSSIAN.log_prob(sample), rtol=1e-4)


def test_the_density_of_a_squashed_sample_has_the_slope_of_tanh():
    sample, log_prob = TanhGaussian(GAUSSIAN).sample_and_log_prob(NOISE)
    x = (MEAN + np.exp(LOG_STD) * NOISE).astype(float)
    np.testing.assert_allclose(sample, np.tanh(x), rtol=1e-5)
    expected = stats.norm.logpdf(x, MEAN, np.exp(LOG_STD)) - np.log(1 - np.tanh(x) ** 2)
    np.testing.assert_allclose(log_prob, expected.sum(-1), rtol=1e-4)


def test_densities_and_their_gradients_are_finite_where_tanh_is_flat():
    def log_prob(mean):
        far = TanhGaussian(Gaussian(mean, jnp.zeros(1)))
        return far.sample_and_log_prob(jnp.ones(1))[1]

    value, gradient = jax.value_and_grad(log_prob)(jnp.array([40.0]))
    np.testing.assert_allclose(value, stats.norm.logpdf(1.0) - 2 * (np.log(2) - 41.0), rtol=1e-5)
    np.testing.assert_allclose(gradient, [2.0], rtol=1e-5)
