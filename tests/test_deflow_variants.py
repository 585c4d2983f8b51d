"""What DeFlow's variants change: the trust region's shape, and delta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.toys import batch, make
from utils.errors import UserError

COUNT = 4000


def losses(agent, data, base_actions):
    """Loss, divergence, metrics, and the loss's gradient for the refinement."""

    def loss(params):
        found, divergence, metrics = agent.refinement_loss(data, params, base_actions)
        return found, (divergence, metrics)

    params = agent.network.params
    (found, (divergence, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return float(found), float(divergence), metrics, grads


def with_samples(monkeypatch, agent, transform):
    """Have an agent propose `transform` of the noise."""
    monkeypatch.setattr(type(agent), "propose", lambda self, observations, z: transform(z))


@pytest.fixture(scope="module")
def data():
    return batch(size=16)


@pytest.fixture(scope="module")
def base_actions():
    return jax.random.uniform(jax.random.key(1), (16, 3), minval=-0.5, maxval=0.5)


# --- An anisotropic trust region ------------------------------------------------------------------


@pytest.mark.parametrize("transform", [lambda z: 0.1 * z, lambda z: jnp.zeros_like(z)])
def test_equal_variances_leave_the_divergence_as_it_is(monkeypatch, data, base_actions, transform):
    """And so do samples that do not vary."""
    agent = make("deflow_anisotropic", covariance_samples=COUNT)
    with_samples(monkeypatch, agent, transform)
    loss, divergence, metrics, grads = losses(agent, data, base_actions)
    plain = make("deflow")
    plain = plain.replace(network=plain.network.replace(params=agent.network.params))
    expected, mean_square, _, expected_grads = losses(plain, data, base_actions)
    assert divergence == pytest.approx(mean_square, rel=0.05)
    assert metrics["actor/mean_square"] == pytest.approx(mean_square)
    assert loss == pytest.approx(expected, rel=0.05)
    first, second = (jax.tree.leaves(g["refinement"]) for g in (grads, expected_grads))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.2, atol=0.05 * np.abs(b).max())


def test_the_divergence_is_measured_by_the_scaled_covariance(monkeypatch, data, base_actions):
    mixing = np.array([[0.3, 0.0, 0.0], [0.2, 0.1, 0.0], [0.0, 0.05, 0.02]])
    residual = make("deflow_anisotropic").network.select("refinement")(
        data["observations"], base_actions
    )
    covariance = mixing @ mixing.T
    for weight in (0.05, 0.5, 1.0):
        agent = make("deflow_anisotropic", covariance_samples=COUNT, isotropic_weight=weight)
        for size in (1.0, 1e-2):  # the trace alone is scaled away
            with_samples(monkeypatch, agent, lambda z, size=size: size * z @ mixing.T)
            found, divergence, metrics, _ = losses(agent, data, base_actions)
            scaled = (1 - weight) * 3 * covariance / np.trace(covariance) + weight * np.eye(3)
            expected = (
                np.einsum("bi,ij,bj->b", residual, np.linalg.inv(scaled), residual).mean() / 3
            )
            assert divergence == pytest.approx(float(expected), rel=0.1)
            q_loss, alpha = metrics["actor/q_loss"], metrics["alpha/alpha"]
            assert found == pytest.approx(float(q_loss + alpha * divergence), rel=1e-3, abs=1e-4)


def test_only_the_refinement_learns_from_it(data, base_actions):
    agent = make("deflow_anisotropic")
    *_, grads = losses(agent, data, base_actions)
    for name in ("base_flow", "critic", "log_alpha"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads[name])), name
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["refinement"]))
    later = agent.replace(network=agent.network.replace(step=jnp.ones((), jnp.int32)))
    observations = data["observations"]
    assert not np.allclose(agent.shape(observations), later.shape(observations))
    np.testing.assert_array_equal(agent.shape(observations), agent.shape(observations))
    traces = np.trace(agent.shape(observations), axis1=1, axis2=2)
    np.testing.assert_allclose(traces, 3.0, rtol=1e-5)


# --- A learned delta ------------------------------------------------------------------------------


def exact_velocity(deviation):
    """The velocity of flow matching for data N(0, deviation^2 I)."""

    def velocity(self, observations, x, t):
        slope = t * deviation**2 - (1 - t)
        return slope / ((1 - t) ** 2 + (t * deviation) ** 2) * x

    return velocity


@pytest.mark.parametrize(("deviation", "shift"), [(0.1, 0.03), (0.5, 0.25)])
def test_the_ratio_of_errors_is_that_of_the_formula(monkeypatch, deviation, shift):
    """Data N(0, s^2) have the error pi s / 2, and 1 + r^2 / 2 s^2 of it where shifted by r."""
    agent = make("deflow_learned_delta", excess_error=0.05)
    monkeypatch.setattr(type(agent), "velocity", exact_velocity(deviation))
    monkeypatch.setattr(type(agent), "refine", lambda self, observations, actions: actions + shift)
    actions = deviation * jax.random.normal(jax.random.key(0), (400_000, 3))
    many = {"observations": jnp.zeros((400_000, 5)), "actions": actions}
    error = agent.matching_error(many["observations"], actions)
    assert float(error) == pytest.approx(np.pi * deviation / 2, rel=0.02)
    loss, metrics = agent.delta_loss(many, agent.network.params, actions)
    expected = 1 + shift**2 / (2 * deviation**2)
    assert float(metrics["delta/error_ratio"]) == pytest.approx(expected, abs=0.02)
    assert float(metrics["delta/base_error_ratio"]) == 1.0
    assert float(loss) == pytest.approx(np.log(0.001) * (expected - 1.05), abs=0.2)


@pytest.mark.parametrize(("shift", "rises"), [(0.0, True), (0.5, False)])
def test_delta_rises_while_the_flow_explains_the_actions(monkeypatch, data, shift, rises):
    agent = make("deflow_learned_delta")
    assert float(agent.trust_region()) == pytest.approx(0.001)
    monkeypatch.setattr(type(agent), "velocity", exact_velocity(0.2))
    monkeypatch.setattr(type(agent), "refine", lambda self, observations, actions: actions + shift)
    actions = 0.2 * jax.random.normal(jax.random.key(3), (16, 3))
    *_, grads = losses(agent, data | {"actions": actions}, actions)
    assert (float(grads["log_delta"]["value"]) < 0) == rises  # it is descended
    for name in ("base_flow", "critic", "log_alpha"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads[name])), name


def test_alpha_keeps_the_divergence_at_the_present_delta(data):
    agent = make("deflow_learned_delta", target_divergence=0.02)
    plain = make("deflow", target_divergence=0.02)
    params = agent.network.params
    for divergence in (0.01, 0.05):
        found, metrics = agent.dual_loss(params, jnp.asarray(divergence))
        expected, same = plain.dual_loss(plain.network.params, jnp.asarray(divergence))
        assert float(found) == pytest.approx(float(expected), rel=1e-5)
        assert float(metrics["actor/divergence_ratio"]) == pytest.approx(
            float(same["actor/divergence_ratio"]), rel=1e-5
        )
    grads = jax.grad(lambda params: agent.dual_loss(params, jnp.asarray(0.1))[0])(params)
    assert float(grads["log_delta"]["value"]) == 0.0
    assert float(grads["log_alpha"]["value"]) < 0.0


def test_published_settings_are_those_of_deflow_without_delta():
    variant, plain = (
        toys.load(toys.AGENTS / f"{name}.py") for name in ("deflow_learned_delta", "deflow")
    )
    assert set(variant.published) == set(plain.published)
    row = plain.published["puzzle-3x3-play"] | {}
    assert row.pop("target_divergence") == 0.005
    assert variant.published["puzzle-3x3-play"] == row


def test_a_fixed_alpha_leaves_no_delta_to_learn():
    agent_class, config = toys.tiny("deflow_learned_delta", use_lagrange=False)
    with pytest.raises(UserError, match=r"take agents/deflow\.py for a fixed alpha"):
        agent_class.check_config(config)
