"""Policies of evaluation on small agents, and on one whose densities are known."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils.agent import critic_values
from utils.agent_check import check_policy
from utils.errors import UserError
from utils.policies import (
    BestOfN,
    GuidedFlow,
    IteratedRefinement,
    Langevin,
    load_policy,
    propose,
    sample,
)
from utils.trust_region import BATCH

ROWS = 24
OBSERVATIONS = toys.batch(size=ROWS)["observations"]
KEYS = jax.random.split(jax.random.key(0), ROWS)


def play(policy, agent, observations=OBSERVATIONS, keys=KEYS):
    """Actions (b, a), computed as an evaluation does."""
    act = jax.vmap(policy, in_axes=(None, 0, 0), axis_name=BATCH)
    return jax.jit(act)(agent, observations, keys)


@pytest.fixture(scope="module")
def agent():
    return toys.make("deflow")


@pytest.fixture(scope="module")
def default(agent):
    return play(sample, agent)


# --- What all have in common ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "best_of_n:samples=1",
        "iterated_refinement:steps=0",
        "langevin:steps=0",
        "langevin:steps=0:budget=none",
    ],
)
def test_without_more_samples_or_steps_a_policy_is_the_default_to_the_bit(agent, default, name):
    np.testing.assert_array_equal(play(load_policy(name), agent), default)


@pytest.mark.parametrize(
    ("agent_name", "policy", "method"),
    [
        ("bc", "best_of_n", r"value\("),
        ("bc", "best_of_n:q=min", r"values\("),
        ("bc", "propose", r"propose\("),
        ("fql", "iterated_refinement", r"refine\("),
        ("fql", "langevin", r"refine\("),
        ("rebrac", "langevin:budget=none", r"velocity\("),
        ("rebrac", "guided_flow", r"velocity\("),
    ],
)
def test_an_agent_that_lacks_a_method_is_refused_by_its_name(agent_name, policy, method):
    with pytest.raises(UserError) as caught:
        check_policy(*toys.tiny(agent_name), load_policy(policy))
    pattern = rf"\w+Agent does not define {method}.*\), which is needed here"
    assert re.fullmatch(pattern, str(caught.value))


def test_controls_without_a_budget_need_no_trust_region():
    for policy in ("langevin:budget=none", "guided_flow", "best_of_n:q=lower"):
        check_policy(*toys.tiny("fql"), load_policy(policy))


# --- Best of N ------------------------------------------------------------------------------------


def test_the_value_does_not_fall_when_there_are_more_samples():
    measures = {
        "value": lambda q: q.mean(0),
        "min": lambda q: q.min(0),
        "lower": lambda q: q.mean(0) - 2 * q.std(0),
    }
    for name, measure in measures.items():
        found = np.array(
            [
                measure(gaussian_agent().values(None, closed_form(BestOfN(n, name), rows=500)))
                for n in (1, 4, 16)
            ]
        )
        assert (np.diff(found, axis=0) >= -1e-6).all(), name
        assert (found[-1] > found[0] + 1e-4).mean() > 0.9


def test_of_two_critics_one_deviation_below_the_mean_is_their_minimum():
    best = {name: closed_form(BestOfN(8, name), rows=500) for name in ("value", "mean", "min")}
    np.testing.assert_array_equal(best["value"], best["mean"])
    assert (best["min"] != best["mean"]).any()
    for deviations, name in ((0.0, "mean"), (1.0, "min")):
        lower = closed_form(BestOfN(8, "lower", deviations), rows=500)
        np.testing.assert_array_equal(lower, best[name])


def test_the_candidates_are_refined_actions_of_their_own_noise(agent, default):
    best = play(BestOfN(8, "min"), agent)

    def others(observation, key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, 8))
        base = jax.vmap(lambda key: propose(agent, observation, key))(keys)
        return jax.vmap(agent.refine, (None, 0))(observation, base)

    candidates = jax.jit(jax.vmap(others))(OBSERVATIONS, KEYS)
    candidates = jnp.concatenate([default[:, None], candidates], axis=1)
    distance = jnp.abs(candidates - best[:, None]).max(-1).min(1)
    assert distance.max() < 1e-5


def test_of_a_gaussian_policy_the_first_is_its_mode_and_the_others_explore():
    agent = toys.make("iql")
    mode = play(sample, agent)
    np.testing.assert_array_equal(play(BestOfN(1), agent), mode)
    assert (play(BestOfN(8), agent) != mode).any(axis=1).mean() > 0.5


@pytest.mark.parametrize(
    "name", [path.stem for path in toys.AGENTS.glob("*.py") if path.stem not in ("__init__", "bc")]
)
def test_every_agents_critics_are_told_one_by_one(name):
    agent_class, config = toys.tiny(name)
    batch = toys.batch(size=6)
    example = batch["observations"], batch["actions"]

    def values():
        agent = agent_class.create(jax.random.key(0), *example, config)
        return critic_values(agent, *example)

    shape = jax.eval_shape(values).shape
    assert len(shape) == 2
    assert shape[0] >= 2
    assert shape[1] == 6


# --- Iterated refinement --------------------------------------------------------------------------


def divergence(agent, actions):
    """Squared distance from the base actions (b,)."""
    return ((actions - play(propose, agent)) ** 2).sum(1)


def test_iterated_refinement_keeps_the_budget_of_every_state():
    agent = toys.make("deflow", target_divergence=1e-4)
    own = divergence(agent, play(sample, agent))
    allowed = np.maximum(3 * 1e-4, own)
    free = divergence(agent, play(IteratedRefinement(4, "none"), agent))
    assert (free > 1.1 * allowed).any()  # or there would be nothing to keep
    kept = divergence(agent, play(IteratedRefinement(4), agent))
    assert (kept <= allowed * (1 + 1e-4)).all()
    batch = divergence(agent, play(IteratedRefinement(4, "batch"), agent))
    assert batch.mean() <= max(3 * 1e-4, own.mean()) * (1 + 1e-4)
    assert (batch > allowed * 1.01).any()


def test_one_further_refinement_is_the_refinement_of_the_refined(agent, default):
    once = play(IteratedRefinement(1, "none"), agent)
    np.testing.assert_allclose(once, agent.refine(OBSERVATIONS, default), atol=1e-6)


# --- Langevin, and guidance: an agent whose densities are known -----------------------------------

MEAN, STD = 0.1, 0.1  # of the data in each of two dimensions
PEAK, WIDTH = -0.1, 0.2  # of Q
TILT = jnp.array([0.5, -0.3])  # by which two critics differ from Q


def gaussian_agent():
    """Data, flow and Q in closed form; what it refines stays as it is."""

    def velocity(o, x, t):
        variance = (t * STD) ** 2 + (1 - t) ** 2
        return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)

    def propose(o, z):
        return MEAN + STD * z

    def sample_actions(o, key, temperature):
        return propose(o, jax.random.normal(key, (2,)))

    def value(o, action):
        return -(((action - PEAK) / WIDTH) ** 2).sum(-1) / 2

    return types.SimpleNamespace(
        config={"action_dim": 2},
        velocity=velocity,
        propose=propose,
        refine=lambda o, action: action,
        sample_actions=sample_actions,
        value=value,
        values=lambda o, action: value(o, action) + jnp.stack([action @ TILT, -action @ TILT]),
        trust_region=lambda: jnp.asarray(0.01),
    )


def closed_form(policy, rows=20_000):
    """Actions (b, 2) of many noises."""
    keys = jax.random.split(jax.random.key(1), rows)
    act = jax.vmap(lambda key: policy(gaussian_agent(), jnp.zeros(1), key), axis_name=BATCH)
    return np.asarray(jax.jit(act)(keys))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("score", [True, False])
def test_langevin_samples_the_blurred_data_tilted_by_q(temperature, score):
    time = 0.9
    blur = (1 - time) / time
    policy = Langevin(
        steps=400, temperature=temperature, step_size=0.1, time=time, score=score, budget="none"
    )
    actions = closed_form(policy)
    precision = score / (STD**2 + blur**2) + 1 / (WIDTH**2 * temperature)
    mean = (score * MEAN / (STD**2 + blur**2) + PEAK / (WIDTH**2 * temperature)) / precision
    variance = 1 / (precision * (1 - 0.1 * blur**2 * precision / 2))
    assert actions.mean() == pytest.approx(mean, abs=0.01)
    if variance < 0.05:  # the bounds of actions are far away
        assert actions.var() == pytest.approx(variance, rel=0.03)


def test_langevin_within_a_budget_stays_there_and_climbs():
    base = closed_form(propose)
    cold = Langevin(steps=30, temperature=0.01, time=0.9)
    actions = closed_form(cold)
    distance = np.sqrt(((actions - base) ** 2).sum(1))
    radius = (2 * 0.01) ** 0.5  # of delta, as it refines nothing
    assert distance.max() <= radius * (1 + 1e-4)
    assert (distance > 0.95 * radius).mean() > 0.5
    value = gaussian_agent().value
    assert value(None, actions).mean() > value(None, base).mean() + 0.3


def test_guidance_follows_the_gradient_at_the_end_of_one_step():
    """Two Euler steps by hand, of which the second looks from t = 1/2."""
    agent, key = gaussian_agent(), jax.random.key(3)
    x = jax.random.normal(key, (2,))
    for t in (0.0, 0.5):
        v = agent.velocity(None, x, t)
        gradient = -((x + (1 - t) * v) - PEAK) / WIDTH**2
        x = x + 0.5 * (v + gradient / 20.0)
    found = GuidedFlow(temperature=20.0, flow_steps=2)(agent, jnp.zeros(1), key)
    np.testing.assert_allclose(found, x, rtol=1e-5)


def test_guidance_that_is_nothing_is_the_base_flow(agent):
    found = play(GuidedFlow(temperature=1e12), agent)
    np.testing.assert_allclose(found, play(propose, agent), atol=1e-6)
