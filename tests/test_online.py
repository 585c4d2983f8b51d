"""Online training: one dispatch per step is the plain order, and toys improve by it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy_envs, toys
from utils.checkpoints import to_arrays
from utils.datasets import DeviceDataset, example_batch
from utils.online import OnlineState, OnlineTrainer, TrainingEnvs, episode_seeds
from utils.replay import Replay
from utils.sampling import sample_rows
from utils.training import Trainer, create_agents, seed_keys

SMALL = toys.SHALLOW | {"batch_size": 16}


class Training:
    """Offline and then online training on a toy, as a run does it."""

    def __init__(
        self,
        env,
        data,
        seeds=(0,),
        offline=0,
        utd=1,
        balanced=False,
        name="deflow",
        **settings,
    ):
        agent_class, config = toys.tiny(name, **{"batch_size": 64, "lr": 1e-3} | settings)
        self.seeds, self.config = np.asarray(seeds), config
        example = example_batch(data, config.batch_size)
        agents = create_agents(agent_class, self.seeds, example, config)
        self.state = OnlineState.create(agents, self.seeds, example)
        source = DeviceDataset(data, config.batch_size)
        if offline:
            self.state = Trainer(source, len(seeds)).update(self.state, offline)
        self.state = self.state.replace(agents=self.state.agents.start_online())
        self.replay = Replay(
            source.arrays,
            capacity=100_000,
            batch_size=config.batch_size,
            num_members=len(seeds),
            max_inserts=2000,
            balanced=balanced,
        )
        self.ring = self.replay.empty()
        self.trainer = OnlineTrainer(self.replay, offline, utd)
        self.envs = TrainingEnvs(env, seed_keys(self.seeds, "environment"))
        self.episodes = [[] for _ in seeds]
        self.outcomes = []

    def __enter__(self):
        self.state = self.trainer.reset(self.state, self.envs.reset())
        return self

    def __exit__(self, *exception):
        self.envs.close()

    def run(self, steps):
        for _ in range(steps):
            outcome, ended = self.envs.step(np.asarray(self.state.actions))
            self.state, self.ring = self.trainer.step(self.state, self.ring, outcome)
            self.outcomes.append(outcome)
            for episodes, metrics in zip(self.episodes, ended, strict=True):
                episodes.extend([metrics] if metrics else [])
        return self

    def mean(self, name, last):
        """Mean of a metric over the last training episodes of the first seed."""
        return np.mean([metrics[name] for metrics in self.episodes[0][-last:]])


def networks(state, seed=0):
    return jax.tree.map(lambda x: np.asarray(x[seed]), to_arrays(state.agents.network))


@pytest.fixture(scope="module")
def walks():
    """Random walks on the square: few reach the goal."""
    return toy_envs.dataset(
        toy_envs.Goal(), 2000, lambda rng, observation: rng.uniform(-1.0, 1.0, 2)
    )


@pytest.mark.parametrize(
    ("name", "utd"), [("deflow", 1), pytest.param("fql", 3, marks=pytest.mark.slow)]
)
def test_one_dispatch_per_step_is_the_plain_order(walks, name, utd):
    """Act, step, insert on the host, sample on the host, update: the same numbers."""
    options = SMALL | {"utd": utd, "name": name}
    with Training(toy_envs.Goal, walks, [3], **options) as training:
        agent = jax.tree.map(lambda x: jnp.copy(x[0]), training.state.agents)
        training.run(12)
    keys = {name: seed_keys(np.array([3]), name)[0] for name in ("data", "noise", "exploration")}
    update, act = jax.jit(type(agent).update), jax.jit(type(agent).sample_actions)
    env = toy_envs.Goal()
    rows = [dict(zip(walks, values, strict=True)) for values in zip(*walks.values(), strict=True)]
    episode, environment_keys = 0, seed_keys(np.array([3]), "environment")

    def reset():
        (seed,) = episode_seeds(environment_keys, np.array([episode]))
        return env.reset(seed=int(seed))[0].astype(np.float32)

    observation = reset()
    for step in range(12):
        action = act(agent, observation, jax.random.fold_in(keys["exploration"], step))
        following, reward, terminated, truncated, _ = env.step(np.asarray(action))
        following = following.astype(np.float32)
        np.testing.assert_allclose(training.outcomes[step]["next_observations"][0], following, 1e-5)
        row = (observation, np.asarray(action), following, reward, 1.0 - terminated)
        rows.append(dict(zip(walks, row, strict=True)))
        observation = following
        if terminated or truncated:
            episode += 1
            observation = reset()
        for i in range(utd):
            number = step * utd + i
            chosen = np.asarray(
                sample_rows(jax.random.fold_in(keys["data"], number), 16, len(rows))
            )
            batch = {key: jnp.asarray(np.stack([rows[j][key] for j in chosen])) for key in walks}
            noise_key = jax.random.fold_in(keys["noise"], number)
            agent, _ = update(agent, batch, noise_key)
    expected = jax.tree.map(np.asarray, to_arrays(agent.network))
    chex.assert_trees_all_close(networks(training.state), expected, rtol=1e-3, atol=1e-5)
    assert int(training.state.step) == 12
    assert int(training.state.metric_count) == 12 * utd


def test_seeds_together_are_seeds_apart(walks):
    """Every seed has its own environment, its own replay and its own randomness."""
    with Training(toy_envs.Goal, walks, [4, 5], **SMALL) as together:
        together.run(25)
    for index, seed in enumerate((4, 5)):
        with Training(toy_envs.Goal, walks, [seed], **SMALL) as alone:
            alone.run(25)
        chex.assert_trees_all_close(
            networks(together.state, index), networks(alone.state), rtol=1e-3, atol=1e-5
        )
        for ours, theirs in zip(together.outcomes, alone.outcomes, strict=True):
            np.testing.assert_allclose(ours["observations"][index], theirs["observations"][0], 1e-4)
        assert together.envs.episodes[index] == alone.envs.episodes[0] >= 1
    first, second = (np.asarray(together.ring["observations"][i, :25]) for i in (0, 1))
    assert not np.isclose(first, second).any()


def test_a_time_limit_bootstraps_and_the_end_of_the_task_does_not():
    towards_goal, away = np.ones((1, 2), np.float32), -np.ones((1, 2), np.float32)
    envs = TrainingEnvs(toy_envs.Goal, seed_keys(np.array([0]), "environment"))
    first = envs.reset()
    for step in range(1, 21):
        outcome, (metrics,) = envs.step(away)
        assert outcome["masks"] == 1.0
        assert (metrics is not None) == (step == 20)
    assert metrics == {"return": -20.0, "length": 20.0, "success": 0.0}
    # The successor is the old episode's, what to act on is the new one's.
    np.testing.assert_array_equal(outcome["next_observations"], [[-1.0, -1.0]])
    assert (outcome["observations"] > -1.0).all()
    assert not np.array_equal(outcome["observations"], first)
    metrics = None
    while metrics is None:
        outcome, (metrics,) = envs.step(towards_goal)
        assert outcome["masks"] == (metrics is None)
    assert metrics["success"] == 1.0
    assert outcome["rewards"] == 0.0
    assert envs.episodes == [2]
    envs.close()


def test_running_episodes_are_taken_up_in_new_processes():
    keys = seed_keys(np.array([7, 8]), "environment")
    actions = np.random.default_rng(0).uniform(-1, 1, (33, 2, 2)).astype(np.float32)
    first = TrainingEnvs(toy_envs.Goal, keys)
    first.reset()
    taken = [[], []]
    for step in range(33):
        outcome, ended = first.step(actions[step])
        for i, metrics in enumerate(ended):
            taken[i] = [] if metrics else [*taken[i], actions[step, i]]
    second = TrainingEnvs(toy_envs.Goal, keys)
    observations = second.reset(first.episodes, taken)
    np.testing.assert_array_equal(observations, outcome["observations"])
    assert first.lengths.max() > 0
    for action in actions:  # and they go on alike, into the episodes that follow
        ours, theirs = second.step(action), first.step(action)
        chex.assert_trees_all_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    first.close()
    second.close()


def test_a_policy_that_is_not_finite_stops_nobody_else_and_is_noted():
    envs = TrainingEnvs(toy_envs.Goal, seed_keys(np.arange(2), "environment"), "goal-v0")
    envs.reset()
    assert not envs.diverged.any()
    outcome, _ = envs.step(np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32))
    assert all(np.isfinite(array).all() for array in outcome.values())
    assert envs.diverged.tolist() == [False, True]
    # Its episode is taken up again by the actions that the replay has.
    envs.reset([0, 0], [[], np.full((1, 2), np.nan, np.float32)])
    assert envs.lengths.tolist() == [0, 1]
    envs.close()


# --- The base flow may stay -----------------------------------------------------------------------


INPUTS = ("observations", "actions")


def changed(before, after):
    """Names of the networks whose parameters are not the same bits."""
    return {
        name
        for name, params in before["params"].items()
        if any(
            not np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(params), jax.tree.leaves(after["params"][name]), strict=True
            )
        )
    }


def test_fix_bc_flow_online_keeps_the_base_flow_bit_for_bit(walks):
    everything = {"base_flow", "refinement", "critic", "log_alpha"}
    options = SMALL | {"offline": 30, "fix_bc_flow_online": True}
    with Training(toy_envs.Goal, walks, [0], **options) as training:
        before = networks(training.state)  # with momentum from the offline phase
        training.run(30)
    assert changed(networks(training.state), before) == everything - {"base_flow"}
    start = create_agents(
        type(training.state.agents), training.seeds, example_batch(walks, 16), training.config
    )
    assert changed(networks(training.state.replace(agents=start)), before) == everything


def test_a_frozen_network_keeps_its_encoder_too(walks):
    """An encoder is a part of the network that it serves, as a fork for images would have it."""
    import flax.linen as nn

    from utils.networks import MLP

    class Encoded(nn.Module):
        out: int

        @nn.compact
        def __call__(self, observations, *inputs):
            encoded = nn.tanh(nn.Dense(4, name="encoder")(observations))
            return MLP((16,), self.out)(encoded, *inputs)

    deflow, config = toys.tiny(fix_bc_flow_online=True, **SMALL)

    class Fork(deflow):
        @classmethod
        def networks(cls, observations, actions, config):
            table = super().networks(observations, actions, config)
            table["base_flow"] = (Encoded(actions.shape[-1]), table["base_flow"][1])
            return table

    example = example_batch(walks, 16)
    create = jax.jit(lambda key: Fork.create(key, *map(example.get, INPUTS), config))
    agent, update = create(jax.random.key(0)), jax.jit(Fork.update)
    for step in range(2):
        agent, _ = update(agent, example, jax.random.key(step))
    online = agent.start_online()
    for step in range(3):
        online, _ = update(online, example, jax.random.key(step))
    before, after = (to_arrays(a.network) for a in (agent, online))
    assert "encoder" in before["params"]["base_flow"]
    assert changed(before, after) == {"refinement", "critic", "log_alpha"}


# --- Learning -------------------------------------------------------------------------------------


LEARNING = {"flow_steps": 4, "tau": 0.02, "discount": 0.95, "target_divergence": 0.3}


@pytest.mark.slow
def test_the_bandit_improves_online():
    """The data do not have the best action, and the trust region forbids a leap to it."""
    data = toy_envs.dataset(toy_envs.Bandit(), 500, lambda rng, _: 0.2 * rng.normal(size=1))
    options = LEARNING | {"target_divergence": 0.02}
    with Training(toy_envs.Bandit, data, offline=500, **options) as training:
        training.run(1500)
    returns = [metrics["return"] for metrics in training.episodes[0]]
    assert data["rewards"].mean() < -0.6
    assert np.mean(returns[:100]) < -0.1
    assert np.mean(returns[-100:]) > -0.05


@pytest.mark.slow
def test_reaching_a_goal_improves_online(walks):
    with Training(toy_envs.Goal, walks, offline=300, **LEARNING) as training:
        training.run(1600)
    successes = [metrics["success"] for metrics in training.episodes[0]]
    assert np.mean(successes[:20]) < 0.5
    assert np.mean(successes[-50:]) > 0.9
    assert training.mean("length", 50) < 8


def test_half_dataset_half_online_from_scratch_solves_the_goal(walks):
    """RLPD's way: an agent from scratch, and no offline phase."""
    with Training(toy_envs.Goal, walks, balanced=True, **LEARNING) as training:
        training.run(1800)
    successes = [metrics["success"] for metrics in training.episodes[0]]
    assert np.mean(successes[:20]) < 0.5
    assert np.mean(successes[-50:]) > 0.9
