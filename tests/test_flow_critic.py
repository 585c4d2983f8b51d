"""The pieces of a flow critic, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from utils.flow_critic import FlowCritic, ReturnRange, fourier_features, hl_gauss, solve

RANGE = ReturnRange.of_rewards(-1.0, 0.5, 0.9)


def test_a_range_is_that_of_endless_episodes():
    assert (RANGE.low, RANGE.high) == pytest.approx((-10.0, 5.0))
    np.testing.assert_allclose(RANGE.at(jnp.array([0.0, 0.2, 1.0])), [-10.0, -7.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(RANGE.ratio(jnp.array([-10.0, -7.0, 5.0])), [0.0, 0.2, 1.0])


def test_a_return_is_embedded_as_the_histogram_of_a_gaussian():
    x = np.array([[-10.0], [-3.3], [5.0], [12.0]])
    edges, deviation = np.linspace(-10.0, 5.0, 7), 2.0 * 2.5
    mass = np.diff(stats.norm.cdf(edges, x, deviation))
    expected = mass / mass.sum(-1, keepdims=True)
    np.testing.assert_allclose(hl_gauss(jnp.array(x), RANGE, 7, 2.0), expected, rtol=1e-4)


def test_a_histogram_is_one_far_outside_its_range_too():
    far = jnp.array([-1e9, -50.0, 50.0, 1e9])[:, None]
    mass = hl_gauss(far, RANGE, 7, 0.75)
    assert np.isfinite(mass).all()
    np.testing.assert_allclose(mass.sum(-1), np.ones(4), rtol=1e-6)
    np.testing.assert_array_equal(mass.argmax(-1), [0, 0, 5, 5])


def test_fourier_features_begin_at_the_first_half_wave():
    t = jnp.array([[0.0], [0.5], [1.0]])
    np.testing.assert_allclose(
        fourier_features(t, 3), [[1, 1, 1], [0, -1, 0], [-1, 1, -1]], atol=1e-6
    )


def test_members_are_independent_and_each_may_have_its_own_points():
    critic = FlowCritic((8,), lambda x: x, lambda t: t)
    shapes = ((4, 3, 5), (4, 3, 2), (4, 3, 1), (4, 3, 1))
    keys = jax.random.split(jax.random.key(0), 4)
    observations, actions, x, t = (
        jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)
    )
    params = jax.jit(critic.init)(jax.random.key(1), observations, actions, x, t)
    apply = jax.jit(critic.apply)
    velocity = apply(params, observations, actions, x, t)
    assert velocity.shape == (2, 4, 3, 1)
    assert not np.allclose(velocity[0], velocity[1])
    moved = apply(params, observations, actions, jnp.stack([x, x + 1.0]), t)
    np.testing.assert_allclose(moved[0], velocity[0], rtol=1e-5)
    assert not np.allclose(moved[1], velocity[1])


def test_members_are_solved_apart_from_the_same_start():
    def velocity(x, t):
        return jnp.array([1.0, -2.0])[:, None, None] + t

    returns = solve(velocity, jnp.array([[3.0], [4.0]]), num_members=2, num_steps=4)
    np.testing.assert_allclose(returns, [[4.375, 5.375], [1.375, 2.375]], rtol=1e-6)
