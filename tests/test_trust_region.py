"""Budgets of actions at evaluation: what is kept, and what is left as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils.trust_region import BATCH, projection

DELTA, DIM, ROWS = 0.01, 4, 64
NORMAL = jax.random.normal


@pytest.fixture(scope="module")
def actions():
    """Base, refined and wanted actions (rows, d); the refined spend more and less than delta."""
    keys = jax.random.split(jax.random.key(0), 4)
    base = jnp.clip(NORMAL(keys[0], (ROWS, DIM)), -1, 1)
    reach = 0.1 * jnp.exp(NORMAL(keys[1], (ROWS, 1)))
    refined = jnp.clip(base + reach * NORMAL(keys[2], (ROWS, DIM)), -1, 1)
    wanted = base + 0.3 * NORMAL(keys[3], (ROWS, DIM))
    return base, refined, wanted


def project(budget, base, refined, wanted):
    def one(base, refined, wanted):
        return projection(budget, base, refined, jnp.asarray(DELTA))(wanted)

    return jax.vmap(one, axis_name=BATCH)(base, refined, wanted)


def squares(actions, base):
    return ((actions - base) ** 2).sum(axis=1)


def test_a_states_budget_is_delta_or_what_its_refinement_spends(actions):
    base, refined, wanted = actions
    found = project("state", base, refined, wanted)
    allowed = jnp.maximum(DIM * DELTA, squares(refined, base))
    assert (allowed > DIM * DELTA).any()
    assert (allowed == DIM * DELTA).any()
    clipped = jnp.clip(wanted, -1, 1)
    beyond = squares(clipped, base) > allowed
    assert 0 < beyond.sum() < ROWS
    np.testing.assert_array_equal(found[~beyond], clipped[~beyond])
    np.testing.assert_allclose(squares(found, base)[beyond], allowed[beyond], rtol=1e-4)
    # On the way from the base action, hence within the bounds.
    way, whole = found - base, clipped - base
    cosine = (way * whole).sum(1) / jnp.sqrt((way**2).sum(1) * (whole**2).sum(1))
    np.testing.assert_allclose(cosine[beyond], 1, rtol=1e-4)
    assert jnp.abs(found).max() <= 1


def test_a_batchs_budget_holds_the_mean_and_keeps_the_proportions(actions):
    base, refined, wanted = actions
    found = project("batch", base, refined, wanted)
    allowed = jnp.maximum(DIM * DELTA, squares(refined, base).mean())
    clipped = jnp.clip(wanted, -1, 1)
    assert squares(clipped, base).mean() > allowed
    np.testing.assert_allclose(squares(found, base).mean(), allowed, rtol=1e-4)
    ratios = squares(found, base) / squares(clipped, base)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-3)
    assert (squares(found, base) > jnp.maximum(DIM * DELTA, squares(refined, base))).any()


@pytest.mark.parametrize("budget", ["state", "batch"])
def test_the_refined_action_is_within_its_budget_to_the_bit(actions, budget):
    base, refined, _ = actions
    np.testing.assert_array_equal(project(budget, base, refined, refined), refined)


def test_outside_an_evaluation_the_batch_is_the_one_state(actions):
    row = [part[0] for part in actions]
    found = [
        projection(budget, *row[:2], jnp.asarray(DELTA))(row[2]) for budget in ("state", "batch")
    ]
    np.testing.assert_array_equal(*found)


def test_without_a_budget_the_bounds_alone_are_kept(actions):
    base, refined, wanted = actions
    found = project("none", base, refined, 3 * wanted)
    np.testing.assert_array_equal(found, jnp.clip(3 * wanted, -1, 1))
