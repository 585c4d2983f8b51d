"""Common behaviour of agents: run for every file in agents/, the toys, and any file by --agent.

    python -m pytest tests/test_agent_contract.py --agent=path/to/agent.py

What a test may expect of an agent (several modes, improvement, when targets move) its class states.
"""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import agents
from tests import contract
from utils.checkpoints import Checkpoints, to_arrays
from utils.errors import UserError
from utils.runs.checks import UntouchedNetworks
from utils.training import Trainer

HERE = Path(__file__).parent
DEFAULT = Path(agents.DEFAULT).resolve()
# Those that train until something is learnt are slow but for the default agent.
LEARNING = ("test_a_bandit_is_solved_as_stated", "test_the_optimum_of_a_quadratic_q_is_found")
# Those that compile one program at most, and are never slow.
LIGHT = (
    "test_updates_are_finite_and_reach_every_network",
    "test_only_what_learns_has_moments",
    "test_metrics_of_held_out_data_are_scalars",
)


def is_slow(test, path):
    """Whether a test of an agent's file is left out of the default ones."""
    if test in LEARNING:
        return path != DEFAULT
    is_ours = path.parent == DEFAULT.parent  # and no toy
    return is_ours and path.stem not in contract.ALWAYS_FULL and test not in LIGHT


def pytest_generate_tests(metafunc):
    """Have every test run for every file, or for the one that is given."""
    given = metafunc.config.getoption("--agent")
    if given:
        paths = [Path(given)]
    else:
        paths = [*sorted((HERE.parent / "agents").glob("[!_]*.py"))]
        paths += sorted((HERE / "toy_agents").glob("*.py"))
    slow = [not given and is_slow(metafunc.function.__name__, path) for path in paths]
    metafunc.parametrize(
        "subject",
        [
            pytest.param(path, marks=[pytest.mark.slow] * left_out)
            for path, left_out in zip(paths, slow, strict=True)
        ],
        ids=[path.stem for path in paths],
        indirect=True,
        scope="session",
    )


@pytest.fixture(scope="session")
def subject(request):
    return contract.subject(request.param)


def results_of(state):
    """Every array but the keys, without the functions that a TrainState refers to."""
    results = to_arrays((state.agents.network, state.metric_sums, state.step))
    return jax.tree.map(np.asarray, results)


def assert_finite(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


def test_updates_are_finite_and_reach_every_network(subject, capsys):
    assert_finite(results_of(subject.trained))
    assert subject.trained.metric_sums
    untouched = UntouchedNetworks(lambda: subject.start().agents)
    untouched.warn(subject.trained.agents, updates=int(subject.trained.metric_count))
    assert capsys.readouterr().out == ""


def test_how_training_is_cut_into_dispatches_does_not_show_in_a_bit(subject):
    expected = results_of(subject.trained)
    for cuts in ([1] * contract.UPDATES, [5, 1, 4, 2]):
        chex.assert_trees_all_equal(results_of(subject.train(*cuts)), expected)


def test_programs_of_known_length_give_the_same_results(subject):
    """To the bit for the agents of this library, which is no property of every program.

    A constant in a loss can be folded differently into a loop whose length the compiler knows: the
    toy `from_data` differs in the last digit.
    """
    expected = results_of(subject.trained)
    actual = results_of(subject.train(5, 7, trainer=Trainer(subject.source, 1, chunk=4)))
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)
    if subject.file.path.resolve().parent == DEFAULT.parent:
        chex.assert_trees_all_equal(actual, expected)


def test_members_trained_together_equal_separate_runs(subject):
    def network_of(state, member):
        return jax.tree.map(lambda x: np.asarray(x[member]), to_arrays(state.agents.network))

    together = Trainer(subject.source, 2, chunk=1).update(subject.start(0, 1), contract.UPDATES)
    alone = [subject.trained, subject.train(contract.UPDATES, state=subject.start(1))]
    for member in (0, 1):
        chex.assert_trees_all_close(
            network_of(together, member), network_of(alone[member], 0), rtol=1e-3, atol=1e-5
        )
    first, second = (jax.tree.leaves(network_of(together, i)["params"]) for i in (0, 1))
    assert any(not np.allclose(a, b) for a, b in zip(first, second, strict=True))


def test_a_checkpoint_resumes_to_the_bit(subject, tmp_path):
    half = contract.UPDATES // 2
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(half, subject.train(half), {})
    state, _ = checkpoints.restore(subject.start())
    checkpoints.close()
    assert int(state.step) == half
    state = subject.train(contract.UPDATES - half, state=state)
    chex.assert_trees_all_equal(results_of(state), results_of(subject.trained))


def test_actions_of_any_batch_shape_lie_in_the_box(subject):
    shapes, temperatures = [(), (4,), (2, 3)], [0.0, 1.0]
    size = subject.example["observations"].shape[-1]
    far = 10.0 * jax.random.normal(jax.random.key(0), (6, size))

    @jax.jit
    def act(agent, key):
        return [
            [
                agent.sample_actions(far[: np.prod(shape, dtype=int)].reshape(*shape, size), key, t)
                for t in temperatures
            ]
            for shape in shapes
        ]

    for shape, actions in zip(shapes, act(subject.agent, jax.random.key(1)), strict=True):
        for array in actions:
            assert array.shape == (*shape, subject.example["actions"].shape[-1])
            assert np.all(np.abs(array) <= 1.0)


def test_targets_move_by_their_rates_towards_the_parameters(subject):
    """Those from before the step, or from after it, as the agent states."""
    state = jax.tree.map(jnp.copy, subject.trained)
    for _ in range(2):  # because a delayed target may stand still in one of them
        before = jax.tree.map(lambda x: x[0], state.agents)
        state = subject.train(1, state=state)
        after = jax.tree.map(lambda x: x[0], state.agents)
        rates = before.target_rates()
        followed = (after if before.TARGETS_AFTER_STEP else before).network.params
        assert set(after.network.target_params) == set(rates)
        for name, rate in rates.items():
            old = before.network.target_params[name]
            expected = jax.tree.map(lambda p, t, r=rate: r * p + (1 - r) * t, followed[name], old)
            new = after.network.target_params[name]
            chex.assert_trees_all_close(new, expected, rtol=1e-5, atol=1e-6)
            assert not np.any(rate) or not all(
                jax.tree.leaves(jax.tree.map(np.array_equal, new, old))
            )


def test_only_what_learns_has_moments(subject):
    network = subject.agent.network
    assert set(network.opt_state) == set(network.params)
    assert set(network.target_params) <= set(network.params)


def test_an_agent_can_be_donated(subject):
    agent = jax.tree.map(jnp.copy, subject.start().agents)
    created = jax.tree.leaves(subject.agents.network)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in created]
    assert len(set(buffers)) == len(buffers)
    jax.jit(lambda agent: jax.tree.map(jnp.negative, agent), donate_argnums=0)(agent)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(agent.network))


def test_acting_and_learning_online(subject):
    """25 steps, of which at least one ends an episode."""
    state, ring, outcomes = subject.online(25)
    assert sum(outcome["terminals"].item() for outcome in outcomes) >= 1
    assert int(state.step) == int(state.metric_count) == 25
    assert_finite(results_of(state))
    actions = np.stack([outcome["actions"] for outcome in outcomes], axis=1)
    np.testing.assert_array_equal(ring["actions"], actions)
    assert np.all(np.abs(actions) <= 1.0)
    frozen = set(state.agents.network.frozen)
    before = subject.start().agents.network.params
    for name, params in state.agents.network.params.items():
        same = jax.tree.map(np.array_equal, params, before[name])
        assert all(jax.tree.leaves(same)) == (name in frozen), name


def test_metrics_of_held_out_data_are_scalars(subject):
    metrics = jax.eval_shape(
        lambda agent, batch, key: agent.evaluate_loss(batch, key),
        subject.agent,
        subject.example,
        jax.random.key(0),
    )
    assert metrics
    assert all(value.shape == () for value in metrics.values())


def test_the_check_raises_no_false_alarm(subject):
    """For the defaults, and with each switch turned: a refusal must come from check_config."""
    subject.file.check(subject.file.config)
    for key in [key for key, value in subject.config.items() if isinstance(value, bool)]:
        config = ml_collections.ConfigDict(subject.config)
        config[key] = not config[key]
        try:
            subject.agent_class.check_config(config)
        except UserError:
            continue
        subject.file.check(config)


def one_step(actions, reward_of):
    """Data of episodes of one step, each (n, ...), from actions (n, a) and the same state."""
    actions = np.clip(actions, -1.0, 1.0).astype(np.float32)
    nowhere = np.zeros((len(actions), 1), np.float32)
    return {
        "observations": nowhere,
        "actions": actions,
        "next_observations": nowhere,
        "rewards": reward_of(actions).astype(np.float32),
        "masks": np.zeros(len(actions), np.float32),
        "terminals": np.ones(len(actions), np.float32),
    }


def learned_actions(subject, data, settings):
    """1000 actions of an agent after 2000 updates, at temperature 1 and at 0."""
    learner = contract.Subject(
        subject.file.path,
        data,
        **{key: (64, 64) for key in subject.config if key.endswith("hidden_dims")},
        **{"lr": 1e-3, "batch_size": 128} | settings,
    )
    learner.config.update({"offline_steps": 2000} if "offline_steps" in learner.config else {})
    state = learner.train(2000)
    agent = jax.tree.map(lambda x: x[0], state.agents)
    return (
        np.asarray(agent.sample_actions(jnp.zeros((1000, 1)), jax.random.key(0), temperature))
        for temperature in (1.0, 0.0)
    )


def test_a_bandit_is_solved_as_stated(subject):
    """An agent keeps both modes of the data, or is better than they are, or both.

    With two modes every unimodal policy fails: the mean of the data earns nothing. Who states no
    several modes gets data of one.
    """
    agent_class = subject.agent_class
    if agent_class.MULTIMODAL:  # the best actions lie beside the modes
        modes, deviation, peak, width = [-0.6, 0.6], 0.05, 0.7, 0.1
    else:
        modes, deviation, peak, width = [0.3], 0.2, 0.6, 0.3

    def reward_of(actions):
        beside = np.abs(actions) if agent_class.MULTIMODAL else actions
        return np.exp(-(((beside - peak) / width) ** 2)).mean(-1)

    rng = np.random.default_rng(0)
    data = one_step(
        rng.choice(modes, (4096, 1)) + deviation * rng.normal(size=(4096, 1)), reward_of
    )
    explored, evaluated = learned_actions(subject, data, agent_class.BANDIT)
    before = data["rewards"].mean()
    assert before < 0.6
    if agent_class.MULTIMODAL:
        assert before < 0.45
        assert reward_of(data["actions"].mean(keepdims=True)).mean() < 0.01
        assert 0.3 < np.mean(explored > 0) < 0.7  # both modes, about equally often
    if agent_class.IMPROVES:
        assert reward_of(evaluated).mean() > before + 0.15
        assert reward_of(evaluated).mean() > 0.6
    else:
        assert reward_of(evaluated).mean() > before - 0.15
        distance = np.abs(evaluated - data["actions"].mean())
        assert agent_class.MULTIMODAL or distance.mean() < 0.1


def test_the_optimum_of_a_quadratic_q_is_found(subject):
    """By an agent that is better than its data, here uniform, if it is free to leave them."""
    best = 0.5
    data = one_step(
        np.random.default_rng(0).uniform(-1, 1, (4096, 1)),
        lambda actions: -5.0 * ((actions - best) ** 2).sum(-1),
    )
    _, evaluated = learned_actions(subject, data, subject.agent_class.UNCONSTRAINED)
    distance = np.abs(evaluated - best).mean()
    assert distance < 0.1 if subject.agent_class.IMPROVES else distance > 0.4
