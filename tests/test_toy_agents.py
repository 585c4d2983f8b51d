"""What each toy is for: a test that fails if its feature does not work."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import contract
from utils.errors import UserError

TOYS = Path(__file__).parent / "toy_agents"


def toy(name):
    """The subject that the common behaviour tests have compiled for, if they ran here."""
    return contract.subject(TOYS / f"{name}.py")


def one_member(state):
    return jax.tree.map(lambda x: x[0], state.agents)


@functools.cache
def course(name, updates=2):
    """The agent at the start and after each update."""
    state = toy(name).start()
    agents = [one_member(jax.tree.map(jnp.copy, state))]
    for _ in range(updates):
        state = toy(name).train(1, state=state)
        agents.append(one_member(jax.tree.map(jnp.copy, state)))
    return agents


def difference(before, after, name):
    """Largest change of a parameter of a network."""
    changes = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), before.network.params[name], after.network.params[name]
    )
    return max(jax.tree.leaves(changes))


def same(first, second):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))


def test_every_toy_has_a_test():
    tests = {name.removeprefix("test_toy_") for name in globals() if name.startswith("test_toy_")}
    assert tests == {path.stem for path in TOYS.glob("*.py")}


def test_toy_two_rates():
    """The first step of Adam moves what has a gradient by the learning rate."""
    before, after = course("two_rates")[:2]
    assert difference(before, after, "actor") == pytest.approx(3e-4, rel=1e-2)
    assert difference(before, after, "critic") == pytest.approx(1e-3, rel=1e-2)


def test_toy_value_first():
    """The critic's target is that of V after its step in the same update, not before it."""
    before = course("value_first")[1]
    batch = toy("value_first").example
    after, metrics = before.update(batch, jax.random.key(0))
    old, new = (agent.target(batch).mean() for agent in (before, after))
    assert float(metrics["critic/target"]) == pytest.approx(float(new), rel=1e-5)
    assert abs(float(old - new)) > 1e-4
    assert {"value/value_loss", "critic/critic_loss", "actor/actor_loss"} <= set(metrics)
    assert all(difference(before, after, name) > 0 for name in ("value", "critic", "actor"))


def test_toy_delayed_actor():
    """Actor, its moments and the targets stand still in every second update."""
    start, first, second = course("delayed_actor")
    third = course("delayed_actor", 3)[-1]
    for before, after, is_due in (
        (start, first, True),
        (first, second, False),
        (second, third, True),
    ):
        assert (difference(before, after, "actor") > 0) == is_due
        moments = (agent.network.opt_state["actor"] for agent in (before, after))
        assert same(*moments) != is_due
        assert difference(before, after, "critic") > 0
    assert same(first.network.target_params, second.network.target_params)
    assert not same(second.network.target_params, third.network.target_params)


def test_toy_averages():
    """After the first step the averages have moved; the parameters from before it are theirs."""
    before, after = course("averages")[:2]
    for name, rate in (("critic", 0.05), ("actor", 0.02)):
        moved = jax.tree.map(
            lambda x, y: y - x,
            before.network.target_params[name],
            after.network.target_params[name],
        )
        expected = jax.tree.map(
            lambda x, y, r=rate: r * (y - x),
            before.network.params[name],
            after.network.params[name],
        )
        chex.assert_trees_all_close(moved, expected, atol=1e-7)
        assert not same(before.network.target_params[name], after.network.target_params[name])
    observations = toy("averages").example["observations"]
    acted = after.sample_actions(observations, jax.random.key(0), 0.0)
    np.testing.assert_allclose(
        acted, jnp.tanh(after.network.select_target("actor")(observations)), rtol=1e-6
    )


def test_toy_dropout():
    """Each key drops other components while learning; acting drops none."""
    subject = toy("dropout")
    agent, batch = subject.agent, subject.example
    losses = [
        float(agent.total_loss(batch, agent.network.params, jax.random.key(key))[0])
        for key in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]
    actions = [
        agent.sample_actions(batch["observations"], jax.random.key(key), 0.0) for key in (0, 1)
    ]
    np.testing.assert_array_equal(*actions)


def test_toy_next_actions():
    """The target bootstraps from the action that the data took next, and its own at an end."""
    subject = toy("next_actions")
    data, agent = subject.data, subject.agent
    for row, ends in enumerate(data["terminals"][:-1]):
        following = data["actions"][row + (0 if ends else 1)]
        np.testing.assert_array_equal(data["next_actions"][row], following)
    batch = subject.source.sample(jax.random.key(0), 16)
    critic = agent.network.select_target("critic")
    next_q = critic(batch["next_observations"], batch["next_actions"]).min(0)
    expected = batch["rewards"] + 0.95 * batch["masks"] * next_q
    np.testing.assert_allclose(agent.target(batch), expected, rtol=1e-5)
    _, metrics = agent.update(batch, jax.random.key(0))
    assert float(metrics["critic/target"]) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_toy_monte_carlo():
    """Returns online are those of the whole episode, and no row is learned from before its end."""
    steps = 45
    state, ring, outcomes = toy("monte_carlo").online(steps, from_dataset=False)
    rewards = np.array([outcome["rewards"].item() for outcome in outcomes])
    ends = [i for i, outcome in enumerate(outcomes) if outcome["terminals"].item()]
    assert len(ends) >= 2
    expected, following = np.zeros(steps), 0.0
    for i in range(ends[-1], -1, -1):
        following = rewards[i] + (0.0 if i in ends else 0.95 * following)
        expected[i] = following
    np.testing.assert_allclose(ring["returns"][0], expected, rtol=1e-5)
    assert int(state.metric_count) == steps - ends[0] - 1  # from the step after the first end
    assert state.agents.network.target_params == {}


def test_toy_from_data():
    """Its settings are the data's, and its actions those of standardised observations."""
    subject = toy("from_data")
    observations, config = subject.data["observations"], subject.config
    np.testing.assert_allclose(config.mean, observations.mean(0), rtol=1e-5)
    np.testing.assert_allclose(config.deviation, observations.std(0) + 1e-3, rtol=1e-5)
    assert config.reward_range == (-1.0, 0.0)
    standardised = (observations[:8] - np.array(config.mean)) / np.array(config.deviation)
    np.testing.assert_allclose(
        subject.agent.sample_actions(observations[:8], jax.random.key(0), 0.0),
        jnp.tanh(subject.agent.network.select("actor")(standardised.astype(np.float32))),
        rtol=1e-4,
        atol=1e-6,
    )


def test_toy_scaled_rewards():
    """Rewards are 10 r - 1 in the data and online."""
    subject = toy("scaled_rewards")
    np.testing.assert_allclose(subject.data["rewards"], 10 * contract.walks()["rewards"] - 1)
    np.testing.assert_allclose(subject.source.arrays["rewards"], subject.data["rewards"])
    _, ring, _ = subject.online(5)
    np.testing.assert_allclose(ring["rewards"][0], np.full(5, -11.0))  # -1 before the goal


def test_toy_scheduled():
    """The rate falls to 0 at the run's end, and gradients are clipped before the moments."""
    subject = toy("scheduled")
    agent, batch = subject.agent, subject.example
    optimizer = agent.optimizers()["critic"]
    params = agent.network.params["critic"]
    gradient = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), params)
    sizes = []
    for count in (0, 500, 1000):
        state = jax.tree.map(
            lambda x, count=count: jnp.full_like(x, count) if x.dtype == jnp.int32 else x,
            agent.network.opt_state["critic"],
        )
        updates, state = optimizer.update(gradient, state, params)
        sizes.append(max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(updates)))
    assert sizes[0] > sizes[1] > 0.0 == sizes[2]

    huge = batch | {"rewards": 1e6 * (batch["rewards"] + 2.0)}
    after, _ = agent.update(huge, jax.random.key(0))
    (moments,) = [
        state
        for state in jax.tree.leaves(
            after.network.opt_state["critic"], is_leaf=lambda node: hasattr(node, "mu")
        )
        if hasattr(state, "mu")
    ]
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(moments.mu)))
    assert norm == pytest.approx(0.1, rel=1e-3)  # (1 - beta_1) times the largest norm


def test_toy_keywords():
    """The noise given by keyword reaches the actor, and none is given at temperature 0."""
    subject = toy("keywords")
    agent, observations = subject.agent, subject.example["observations"]

    def act(key, temperature):
        return agent.sample_actions(observations, jax.random.key(key), temperature)

    assert not np.allclose(act(0, 1.0), act(1, 1.0))
    np.testing.assert_array_equal(act(0, 0.0), act(1, 0.0))
    kernel = agent.network.params["actor"]["MLP_0"]["Dense_0"]["kernel"]
    assert len(kernel) == observations.shape[-1] + agent.config.action_dim


def test_toy_cloning():
    """It learns without critic, targets, tau and discount; what it lacks is named when needed."""
    subject = toy("cloning")
    agent = subject.agent
    assert set(agent.network.params) == {"actor"}
    assert agent.network.target_params == {}
    assert not {"tau", "discount", "q_agg"} & set(subject.config)
    state = subject.train(100)
    batch = subject.example
    before, after = (
        float(each.total_loss(batch, each.network.params, ())[0])
        for each in (agent, one_member(state))
    )
    assert after < before
    with pytest.raises(UserError, match=r"Cloning does not define value\(observations, actions\)"):
        agent.value(batch["observations"], batch["actions"])
