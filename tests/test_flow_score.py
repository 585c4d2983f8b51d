"""The score that follows from a flow's velocity, against densities in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils import flow

TIMES = [0.5, 0.9, 0.95, 0.99]
POINTS = jnp.array([[-0.9, 0.3], [0.0, 0.0], [0.4, 0.7], [1.2, -0.8]])


def mixture_velocity(means, std, weights):
    """The exact velocity E[x1 - x0 | x_t] for data of Gaussians with one standard deviation."""
    means, weights = jnp.asarray(means), jnp.asarray(weights)

    def velocity(x, t):
        centred = x[..., None, :] - t[..., None, :] * means  # (..., modes, d)
        variance = (t * std) ** 2 + (1 - t) ** 2  # (..., 1)
        logits = jnp.log(weights) - (centred**2).sum(-1) / (2 * variance)
        shares = jax.nn.softmax(logits)[..., None]
        slope = (t * std**2 - (1 - t)) / variance
        return (shares * (means + slope[..., None, :] * centred)).sum(-2)

    return velocity


def mixture_score(means, std, weights, x):
    """The gradient of the log density of a mixture of Gaussians."""
    means, weights = jnp.asarray(means), jnp.asarray(weights)

    def log_density(point):
        squares = ((point - means) ** 2).sum(-1)
        return jax.nn.logsumexp(jnp.log(weights) - squares / (2 * std**2))

    return jax.vmap(jax.grad(log_density))(x)


@pytest.mark.parametrize("t", TIMES)
def test_the_score_of_a_gaussian_is_that_of_the_blurred_one(t):
    mean, std = jnp.array([0.3, -0.2]), 0.4
    found = flow.score(mixture_velocity([mean], std, [1.0]), POINTS, t)
    expected = -(POINTS - mean) / (std**2 + flow.blur(t) ** 2)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("t", TIMES)
def test_the_score_of_two_modes_is_that_of_the_blurred_mixture(t):
    means, std, weights = [[-0.5, 0.1], [0.6, 0.2]], 0.3, [0.3, 0.7]
    found = flow.score(mixture_velocity(means, std, weights), POINTS, t)
    blurred = (std**2 + flow.blur(t) ** 2) ** 0.5
    expected = mixture_score(means, blurred, weights, POINTS)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=5e-3)
    # The two modes pull in opposite directions, or the test would be that of one.
    assert (np.sign(expected[0]) != np.sign(expected[3])).all()


def test_an_error_of_the_velocity_is_multiplied_as_stated():
    def velocity(error):
        exact = mixture_velocity([[0.0, 0.0]], 0.4, [1.0])
        return lambda x, t: exact(x, t) + error

    for t, factor in ((0.9, 8.1), (0.95, 18.05), (0.99, 98.01)):
        scores = [flow.score(velocity(error), POINTS, t) for error in (0.0, 0.01)]
        np.testing.assert_allclose((scores[1] - scores[0]) / 0.01, factor, rtol=0.01)
