"""Losses by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from utils.losses import ensemble_mse, expectile_loss, td_target


def test_an_expectile_weighs_what_lies_above():
    difference = jnp.array([2.0, -1.0])
    np.testing.assert_allclose(expectile_loss(difference, 0.9), (0.9 * 4 + 0.1 * 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(expectile_loss(difference, 0.5), (4 + 1) / 4, rtol=1e-6)


def test_a_target_bootstraps_unless_the_episode_has_ended():
    batch = {"rewards": jnp.array([1.0, 2.0]), "masks": jnp.array([1.0, 0.0])}
    np.testing.assert_allclose(td_target(batch, jnp.array([10.0, 10.0]), 0.9), [10.0, 2.0])


def test_every_member_regresses_on_one_target():
    q, target = jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([1.0, 1.0])
    np.testing.assert_allclose(ensemble_mse(q, target), (0 + 1 + 4 + 16) / 4, rtol=1e-6)
    with pytest.raises(AssertionError):
        ensemble_mse(q, target[:, None])
