"""Where gradients flow, what an update moves, and that the agents learn a toy problem."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils import flow
from utils.envs import tasks
from utils.errors import UserError

BATCH = toys.batch(size=16)
KEY = jax.random.key(0)


UPDATED = {"tau": 0.1}  # the settings of the tests that compile an update


def noise_for(agent, seed=1):
    return agent.sample_noise(jax.random.key(seed), BATCH)


def gradients(agent, loss):
    return jax.jit(jax.grad(lambda params: loss(params)[0]))(agent.network.params)


def is_zero(tree):
    return all(not np.any(leaf) for leaf in jax.tree.leaves(tree))


def deflow_parts(agent):
    """Each loss of DeFlow as a function of the parameters alone."""
    noise = noise_for(agent)
    solve = jax.jit(agent.propose)
    base = solve(BATCH["observations"], noise["z"])
    next_base = solve(BATCH["next_observations"], noise["next_z"])
    refine = jax.jit(agent.network.select("refinement"))
    divergence = jnp.mean(refine(BATCH["observations"], base) ** 2)
    return {
        "base_flow": lambda params: agent.flow_loss(BATCH, params, noise),
        "critic": lambda params: agent.critic_loss(BATCH, params, next_base),
        "refinement": lambda params: agent.refinement_loss(BATCH, params, base),
        "log_alpha": lambda params: agent.dual_loss(params, divergence),
    }


def test_each_loss_of_deflow_reaches_its_own_network_only():
    agent = toys.make()
    for name, loss in deflow_parts(agent).items():
        grads = gradients(agent, loss)
        assert not is_zero(grads[name]), name
        others = {key: value for key, value in grads.items() if key != name}
        assert set(others) | {name} == {"base_flow", "critic", "refinement", "log_alpha"}
        assert is_zero(others), name


def test_total_loss_adds_no_path_between_the_losses():
    """The whole step's gradient of a network is that of its own loss: nothing enters the solver."""
    agent = toys.make()
    noise = noise_for(agent)
    total = gradients(agent, lambda params: agent.total_loss(BATCH, params, noise))
    for name, loss in deflow_parts(agent).items():
        chex.assert_trees_all_close(total[name], gradients(agent, loss)[name], rtol=1e-4, atol=1e-6)


def test_fql_gradients_stay_in_their_networks():
    agent = toys.make("fql")
    noise = noise_for(agent)
    parts = {
        "base_flow": lambda params: agent.flow_loss(BATCH, params, noise),
        "critic": lambda params: agent.critic_loss(BATCH, params, noise),
        "onestep_actor": lambda params: agent.actor_loss(BATCH, params, noise),
    }
    for name, loss in parts.items():
        grads = gradients(agent, loss)
        assert not is_zero(grads.pop(name))
        assert is_zero(grads)


@pytest.mark.parametrize(("scale", "rises"), [(3.0, True), (0.1, False)])
def test_alpha_rises_exactly_if_the_divergence_exceeds_its_target(scale, rises):
    agent = toys.make(**UPDATED)
    target = agent.config.target_divergence
    params = dict(agent.network.params)
    params["refinement"] = jax.tree.map(lambda x: scale * x, params["refinement"])
    agent = agent.replace(network=agent.network.replace(params=params))
    before = float(agent.alpha())
    assert before == pytest.approx(np.e)
    after, metrics = jax.jit(type(agent).update)(agent, BATCH, jax.random.key(1))
    assert (float(metrics["actor/divergence"]) > target) == rises
    assert (float(after.alpha()) > before) == rises
    assert float(after.alpha()) != before


def test_fixed_alpha_enters_the_loss_once():
    agent = toys.make(use_lagrange=False, alpha=7.0, **toys.SHALLOW)
    assert "log_alpha" not in agent.network.params
    noise = noise_for(agent)
    loss, metrics = agent.total_loss(BATCH, agent.network.params, noise)
    expected = (
        metrics["critic/critic_loss"]
        + metrics["flow/flow_loss"]
        + metrics["actor/q_loss"]
        + 7.0 * metrics["actor/divergence"]
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_bc_only_has_neither_critic_nor_refinement():
    agent = toys.make(bc_only=True)
    assert set(agent.network.params) == {"base_flow"}
    assert agent.network.target_params == {}
    after, metrics = jax.jit(type(agent).update)(agent, BATCH, jax.random.key(1))
    assert set(metrics) == {"flow/flow_loss"}
    assert not is_zero(jax.tree.map(jnp.subtract, after.network.params, agent.network.params))
    z = jax.random.normal(jax.random.key(3), BATCH["actions"].shape)
    np.testing.assert_array_equal(
        agent.sample_actions(BATCH["observations"], jax.random.key(3)),
        agent.propose(BATCH["observations"], z),
    )


def test_one_flow_pass_serves_both_states_and_nothing_else_solves_the_flow(monkeypatch):
    solved = []

    def counting(velocity, x0, num_steps):
        solved.append(x0.shape)
        return original(velocity, x0, num_steps)

    original = flow.euler
    monkeypatch.setattr(flow, "euler", counting)
    agent = toys.make()
    # Another function for every call, lest JAX should remember what another test has traced.
    jax.eval_shape(lambda *inputs: type(agent).update(*inputs), agent, BATCH, jax.random.key(0))
    assert solved == [(32, 3)]  # 16 states s and 16 states s'


def test_euler_steps_start_at_zero_and_are_explicit():
    times = [0.0, 0.25, 0.5, 0.75]
    result = flow.euler(lambda x, t: x + t, jnp.ones((2, 1)), 4)
    x = 1.0
    for t in times:
        x += 0.25 * (x + t)
    np.testing.assert_allclose(result, np.full((2, 1), x), rtol=1e-6)


@pytest.mark.parametrize("name", ["deflow", "fql"])
def test_published_tables_cover_the_73_tasks_and_fit_the_agent(name):
    agent_file = toys.load(toys.AGENTS / f"{name}.py")
    state_based = {
        f"{task}-task{n}" for task in agent_file.published if "-v" not in task for n in range(1, 6)
    }
    exact = {task for task in agent_file.published if "-v" in task}
    assert (len(state_based), len(exact)) == (50, 23)
    for settings in agent_file.published.values():
        assert settings
        assert set(settings) <= set(agent_file.config)
    for task in state_based | exact:
        assert agent_file.published_settings(tasks.resolve(task))


@pytest.mark.parametrize(
    ("agent", "task", "key", "value"),
    [
        ("deflow", "antmaze-large-navigate", "q_agg", "min"),
        ("deflow", "antmaze-giant-navigate-task2", "discount", 0.995),
        ("deflow", "cube-double-play-task3", "target_divergence", 0.001),
        ("deflow", "puzzle-4x4-play", "target_divergence", 0.005),
        ("deflow", "humanoidmaze-large-navigate", "target_divergence", 0.001),
        ("fql", "antsoccer-arena-navigate", "alpha", 10.0),
        ("fql", "scene-play-task5", "alpha", 300.0),
        ("fql", "puzzle-3x3-play", "alpha", 1000.0),
    ],
)
def test_published_values(agent, task, key, value):
    agent_file = toys.load(toys.AGENTS / f"{agent}.py")
    assert agent_file.published_settings(tasks.resolve(task))[key] == value


def test_a_task_without_published_settings_has_none():
    agent_file = toys.load(toys.AGENTS / "deflow.py")
    assert agent_file.published_settings(tasks.resolve("pointmaze-medium-navigate")) == {}


def test_a_bad_choice_is_named():
    agent_class, config = toys.tiny(q_agg="max")
    with pytest.raises(UserError, match=r"--agent.q_agg=max is not one of mean, min"):
        agent_class.check_config(config)


def test_failure_signatures():
    agent_class, _ = toys.tiny()
    healthy = {"actor/divergence_ratio": 1.0, "alpha/alpha": 2.0, "critic/q_abs": 50.0}
    assert not any(signature.shows_in(healthy) for signature in agent_class.SIGNATURES)
    for change, words in [
        ({"actor/divergence_ratio": 2.5}, "off-manifold"),
        ({"actor/divergence_ratio": 0.01, "alpha/alpha": 2e4}, "over-regularised"),
        ({"critic/q_abs": 2e6}, "unstable critic"),
    ]:
        row = healthy | change
        (found,) = [signature for signature in agent_class.SIGNATURES if signature.shows_in(row)]
        assert words in found.name


def test_held_out_data_tell_what_the_refinement_gains():
    agent = toys.make(**toys.SHALLOW)

    class Known(type(agent)):
        def refine(self, observations, base_actions):
            return base_actions + 0.25

        def value(self, observations, actions):
            return observations[..., 0] + 2.0 * actions.sum(axis=-1)

    known = Known(network=agent.network, config=agent.config)
    metrics = jax.jit(known.evaluate_loss)(BATCH, KEY)
    np.testing.assert_allclose(metrics["actor/q_gain"], 2.0 * 3 * 0.25, rtol=1e-5)
    before = jax.jit(lambda: super(type(agent), agent).evaluate_loss(BATCH, KEY))()
    assert set(metrics) == {*before, "actor/q_gain"}
    assert "validation/actor/q_gain" in {panel.key for panel in known.PANELS}
    cloned = jax.eval_shape(toys.make(bc_only=True, **toys.SHALLOW).evaluate_loss, BATCH, KEY)
    assert "actor/q_gain" not in cloned


def test_freezing_an_unknown_network_is_refused():
    agent = toys.make(**toys.SHALLOW)
    assert agent.freeze("refinement", "critic").network.frozen == ("refinement", "critic")
    with pytest.raises(UserError, match=r"network aktor, which is not in .*there are .*refinement"):
        agent.freeze("critic", "aktor")


def test_a_target_of_an_unknown_network_is_refused_unless_it_is_the_defaults_critic():
    agent_class, config = toys.tiny(**toys.SHALLOW)
    arrays = BATCH["observations"], BATCH["actions"]

    class WithoutCritic(agent_class):
        @classmethod
        def networks(cls, observations, actions, config):
            table = super().networks(observations, actions, config)
            return {name: row for name, row in table.items() if name != "critic"}

    agent = jax.eval_shape(lambda key: WithoutCritic.create(key, *arrays, config), KEY)
    assert agent.network.target_params == {}

    class Misnamed(agent_class):
        @classmethod
        def targets(cls, config):
            return {"critc": 0.1}

    with pytest.raises(UserError, match=r"network critc, which is not in .*there are .*critic"):
        jax.eval_shape(lambda key: Misnamed.create(key, *arrays, config), KEY)


def test_gradients_norms_are_logged_on_held_out_data_and_by_a_setting_in_updates():
    agent_class, config = toys.tiny(**toys.SHALLOW)
    config.grad_norms = True
    arrays = BATCH["observations"], BATCH["actions"]
    agent = jax.jit(lambda key: agent_class.create(key, *arrays, config))(KEY)
    _, metrics = agent.update(BATCH, jax.random.split(KEY)[0])
    held_out = jax.jit(agent.evaluate_loss)(BATCH, KEY)  # with the same noise
    logged = {name for name in metrics if name.startswith("grad_norm/")}
    assert logged == {f"grad_norm/{name}" for name in agent.network.params}
    for name in logged:
        assert metrics[name] > 0
        np.testing.assert_allclose(held_out[name], metrics[name], rtol=1e-4)
    _, frozen = agent.freeze("critic").update(BATCH, KEY)
    assert set(frozen) == set(metrics)  # a run's columns stay what they are
    assert frozen["grad_norm/critic"] == 0 < frozen["grad_norm/refinement"]
    _, metrics = toys.make(**toys.SHALLOW).update(BATCH, KEY)
    assert not any(name.startswith("grad_norm/") for name in metrics)  # updates are as fast as ever
