"""Where gradients flow, what an update moves, and that the agents learn a toy problem."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils import flow
from utils.agent_files import load_agent_file, published_settings
from utils.datasets import DeviceDataset, example_batch
from utils.envs import names
from utils.errors import UserError
from utils.training import Trainer, TrainingState, create_agents

BATCH = toys.batch(size=16)


UPDATED = {"tau": 0.1}  # the settings of the tests that compile an update


def noise_for(agent, seed=1):
    return agent.draw_noise(jax.random.key(seed), BATCH)


def gradients(agent, loss):
    return jax.jit(jax.grad(lambda params: loss(params)[0]))(agent.network.params)


def is_zero(tree):
    return all(not np.any(leaf) for leaf in jax.tree.leaves(tree))


def deflow_parts(agent):
    """Each loss of DeFlow as a function of the parameters alone."""
    noise = noise_for(agent)
    solve = jax.jit(agent.base_actions)
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


@pytest.mark.parametrize("name", ["deflow", "fql"])
def test_targets_move_by_tau_towards_the_parameters_before_the_step(name):
    agent = toys.make(name, **UPDATED)
    update = jax.jit(type(agent).update)
    agent, _ = update(agent, BATCH, jax.random.key(1))  # parameters and targets differ from here
    after, _ = update(agent, BATCH, jax.random.key(2))
    expected = jax.tree.map(
        lambda online, target: 0.1 * online + 0.9 * target,
        agent.network.params["critic"],
        agent.network.target_params["critic"],
    )
    chex.assert_trees_all_close(after.network.target_params["critic"], expected, rtol=1e-6)
    assert set(after.network.target_params) == {"critic"}


@pytest.mark.parametrize("name", ["deflow", "fql"])
def test_targets_are_unknown_to_the_optimiser(name):
    agent = toys.make(name)
    moments = agent.network.opt_state[0].mu
    chex.assert_trees_all_equal_structs(moments, agent.network.params)
    assert "critic" in agent.network.target_params


@pytest.mark.parametrize("name", ["deflow", "fql"])
def test_an_agent_can_be_donated(name):
    agent = toys.make(name)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(agent.network)]
    assert len(set(buffers)) == len(buffers)
    old = jax.tree.leaves(agent.network)
    jax.jit(lambda agent: jax.tree.map(jnp.negative, agent), donate_argnums=0)(agent)
    assert all(leaf.is_deleted() for leaf in old)


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
        agent.base_actions(BATCH["observations"], z),
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


@pytest.mark.parametrize("name", ["deflow", "fql"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_actions_of_any_batch_shape_lie_in_the_box(name, shape):
    agent = toys.make(name)
    observations = 10.0 * jax.random.normal(jax.random.key(0), (*shape, 5))
    actions = agent.sample_actions(observations, jax.random.key(1))
    assert actions.shape == (*shape, 3)
    assert np.all(np.abs(actions) <= 1.0)


def test_euler_steps_start_at_zero_and_are_explicit():
    times = [0.0, 0.25, 0.5, 0.75]
    result = flow.euler(lambda x, t: x + t, jnp.ones((2, 1)), 4)
    x = 1.0
    for t in times:
        x += 0.25 * (x + t)
    np.testing.assert_allclose(result, np.full((2, 1), x), rtol=1e-6)


@pytest.mark.parametrize("name", ["deflow", "fql"])
def test_published_tables_cover_the_73_tasks_and_fit_the_agent(name):
    _, module = load_agent_file(toys.AGENTS / f"{name}.py")
    state_based = {
        f"{task}-task{n}" for task in module.PUBLISHED if "-v" not in task for n in range(1, 6)
    }
    exact = {task for task in module.PUBLISHED if "-v" in task}
    assert (len(state_based), len(exact)) == (50, 23)
    pixels = {"encoder", "p_aug", "frame_stack"}
    for task, settings in module.PUBLISHED.items():
        known = set(module.get_config()) | {"offline_steps"}
        assert set(settings) - known == (pixels if task.startswith("visual") else set())
    for task in state_based:
        assert published_settings(module, names.resolve(task))["offline_steps"] == 1_000_000


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
    _, module = load_agent_file(toys.AGENTS / f"{agent}.py")
    assert published_settings(module, names.resolve(task))[key] == value


def test_a_task_without_published_settings_has_none():
    _, module = load_agent_file(toys.AGENTS / "deflow.py")
    assert published_settings(module, names.resolve("pointmaze-medium-navigate")) == {}


def test_a_bad_choice_is_named():
    agent_class, config = toys.tiny(q_agg="max")
    with pytest.raises(UserError, match=r"--agent.q_agg=max is not one of mean, min"):
        agent_class.check_config(config)


def test_failure_signatures():
    agent_class, config = toys.tiny()
    healthy = {"actor/divergence_ratio": 1.0, "alpha/alpha": 2.0, "critic/q_abs": 50.0}
    assert agent_class.failure_signatures(healthy, config) == {}
    for change, words in [
        ({"actor/divergence_ratio": 2.5}, "off-manifold"),
        ({"actor/divergence_ratio": 0.01, "alpha/alpha": 2e4}, "over-regularised"),
        ({"critic/q_abs": 2e6}, "unstable critic"),
    ]:
        (found,) = agent_class.failure_signatures(healthy | change, config)
        assert words in found


def train(name, data, updates, **settings):
    agent_class, config = toys.tiny(
        name, actor_hidden_dims=(64, 64), value_hidden_dims=(64, 64), batch_size=128, **settings
    )
    seeds = np.arange(1)
    source = DeviceDataset(data, 128)
    example = example_batch(data, 128)
    agents = create_agents(agent_class, seeds, example, config)
    state = Trainer(source, 1).update(TrainingState.create(agents, seeds, example), updates)
    return jax.tree.map(lambda x: x[0], state.agents)


def reward_of(actions):
    """Peaks at -0.7 and 0.7; the data's modes lie beside them, and between them is nothing."""
    return np.exp(-(((np.abs(actions) - 0.7) / 0.1) ** 2)).mean(-1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("deflow", {"target_divergence": 0.01}),
        pytest.param("fql", {"alpha": 30.0, "normalize_q_loss": True}, marks=pytest.mark.slow),
    ],
)
def test_two_modes_are_kept_and_improved(name, settings):
    """A bandit on which every unimodal policy fails: the mean of the data earns nothing."""
    rng = np.random.default_rng(0)
    size = 4096
    actions = rng.choice([-0.6, 0.6], (size, 1)) + 0.05 * rng.normal(size=(size, 1))
    data = {
        "observations": np.zeros((size, 1), np.float32),
        "actions": actions.astype(np.float32),
        "next_observations": np.zeros((size, 1), np.float32),
        "rewards": reward_of(actions).astype(np.float32),
        "masks": np.zeros(size, np.float32),
    }
    agent = train(name, data, 2000, lr=1e-3, **settings)
    samples = np.asarray(agent.sample_actions(jnp.zeros((1000, 1)), jax.random.key(0)))
    assert 0.3 < np.mean(samples > 0) < 0.7  # both modes, about equally often
    assert reward_of(actions).mean() < 0.45
    assert reward_of(samples).mean() > 0.6
    assert reward_of(actions.mean(keepdims=True)).mean() < 0.01
