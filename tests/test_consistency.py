"""Consistency models: times, sampling and the function's form, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils import consistency


def test_the_number_of_times_is_that_of_the_recorded_steps():
    for iteration, expected in (
        (0, 2),
        (3, 3),
        (40, 5),
        (700, 18),
        (900, 21),
        (20_000, 95),
        (40_000, 135),
        (49_999, 150),
    ):
        assert consistency.num_scales(jnp.asarray(iteration), 50_000) == expected


@pytest.mark.parametrize("iterations", [1, 7, 1_000, 22_496, 10_000_000])
def test_the_number_of_times_is_a_square_root_rounded_up(iterations):
    chosen = np.unique(np.linspace(0, iterations - 1, 200).astype(int))
    found = jax.vmap(lambda i: consistency.num_scales(i, iterations))(jnp.asarray(chosen))
    # In whole numbers, where a rounded quotient can lie on the other side of a square.
    grown = [i * (150**2 - 2**2) + 2**2 * iterations for i in chosen.tolist()]
    expected = [math.isqrt((x - 1) // iterations) + 1 for x in grown]
    np.testing.assert_array_equal(found, expected)


def test_times_are_dense_where_there_is_little_noise():
    table = consistency.boundaries()
    assert table.shape == (149, 150)
    for count, row in enumerate(table, start=2):
        times = row[:count]
        np.testing.assert_allclose(times[[0, -1]], [0.002, 80.0], rtol=1e-6)
        assert (np.diff(times) > 0).all()
        assert (row[count:] == row[-1]).all()
        assert count == 2 or (np.diff(times, 2) > 0).all()
    middle = (0.002 ** (1 / 7) + 0.5 * (80.0 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7
    np.testing.assert_allclose(table[1, 1], middle, rtol=1e-6)


def test_neighbours_are_of_the_times_that_there_are():
    earlier, later = consistency.neighbours(jnp.array([0, 1]), jnp.asarray(3))
    row = consistency.boundaries()[1]
    np.testing.assert_array_equal(earlier, row[:2, None])
    np.testing.assert_array_equal(later, row[1:3, None])


@pytest.mark.parametrize(("count", "times"), [(1, [80]), (2, [80, 2]), (3, [80, 41, 2])])
def test_samples_come_from_evaluations_with_new_noise_between(count, times):
    asked = []

    def model(x, t):
        asked.append((np.asarray(x), t))
        return 0.1 * jnp.ones_like(x)

    z = jax.random.normal(jax.random.key(0), (count, 4, 2)).at[1:].set(1.0)
    samples = consistency.sample(model, z)
    np.testing.assert_allclose(samples, 0.1)
    assert [t[0, 0] for _, t in asked] == times
    np.testing.assert_allclose(asked[0][0], 80.0 * z[0], rtol=1e-6)
    for (x, _), t in zip(asked[1:], times[1:], strict=True):
        # So close that t**2 - 0.002**2 differs from t**2.
        np.testing.assert_allclose(x, 0.1 + np.sqrt(t**2 - 0.002**2), rtol=2.5e-7)


def test_samples_lie_in_the_box():
    z = jnp.ones((2, 1))
    np.testing.assert_array_equal(consistency.sample(lambda x, t: jnp.array([-3.0]), z), [-1.0])


def test_the_function_is_the_identity_at_the_first_time_and_the_network_far_away():
    model = consistency.ConsistencyModel((8,), time_dim=4)
    observations, x = jnp.ones((3, 5)), jnp.full((3, 2), 0.7)

    @jax.jit
    def at(x, time):
        t = jnp.full((3, 1), time)
        params = model.init(jax.random.key(0), observations, x, t)
        return model.apply(params, observations, x, t)

    np.testing.assert_allclose(at(x, consistency.FIRST_TIME), x, rtol=1e-6)
    assert np.abs(at(x, 80.0)).max() < 2.0  # 0.5 of an output of order 1, whatever x is
    assert not np.allclose(at(x, 80.0), at(x, 2.0))


def test_features_of_time_turn_at_frequencies_from_1_to_1_over_10000():
    found = consistency.sinusoidal_features(jnp.array([2.0]), 16)
    frequencies = 10_000.0 ** -(np.arange(8) / 7)
    expected = [*np.sin(2.0 * frequencies), *np.cos(2.0 * frequencies)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
