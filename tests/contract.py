"""An agent's file with small networks, trained on a toy: what its common behaviour tests share."""

import functools
from pathlib import Path

import jax
import ml_collections
import numpy as np

from tests import toy_envs, toys
from utils.agent_files import load_agent_file
from utils.datasets import DeviceDataset
from utils.online import OnlineState, OnlineTrainer, TrainingEnvs
from utils.replay import Replay
from utils.training import Trainer, TrainingState, create_agents, seed_keys

ALWAYS_FULL = ("deflow", "fql")
"""The agents whose tests are all among the default ones, which have to end in minutes.

Of the others' tests, what compiles several programs is slow.
"""
SEEDS = np.array([5, 6])
UPDATES = 12


def small(config, **settings):
    """Settings of an agent with small networks, whatever it calls them; others as far as it has."""
    config = ml_collections.ConfigDict(config)
    dims = {key: (32,) for key in config if key.endswith("hidden_dims")}
    for key, value in (dims | {"batch_size": 16} | settings).items():
        if key in config:
            config[key] = value
    return config


@functools.cache
def walks():
    """Transitions of random walks, 400 rows; a few reach the goal, and most are cut off."""
    env, rng, rows = toy_envs.Goal(), np.random.default_rng(0), []
    observation, _ = env.reset(seed=0)
    for _ in range(400):
        action = rng.uniform(-1.0, 1.0, 2)
        following, reward, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        rows.append((observation, action, following, reward, 1.0 - terminated, ended))
        observation = env.reset()[0] if ended else following
    names = ("observations", "actions", "next_observations", "rewards", "masks", "terminals")
    columns = zip(*rows, strict=True)
    return {name: np.array(x, np.float32) for name, x in zip(names, columns, strict=True)}


class Subject:
    """An agent under test, on given data.

    Attributes:
        file: Its file.
        agent_class: Its class.
        config: Its settings.
        data: The data as it learns from them.
        example: A batch.
    """

    def __init__(self, path, data, **settings):
        self.file = load_agent_file(path)
        self.agent_class = self.file.agent_class
        self.config = small(self.file.config, offline_steps=1000, **settings)
        self.data, self.example = toys.prepared(self.agent_class, self.config, data)
        self.columns = self.agent_class.columns(self.config)
        self.source = DeviceDataset(self.data, self.config.batch_size, columns=self.columns)

    def scale_rewards_with(self, config):
        return lambda rewards: self.agent_class.scale_rewards(rewards, config)

    @functools.cached_property
    def agents(self):
        """The agents of both seeds as they begin; to be copied before they are trained."""
        return create_agents(self.agent_class, SEEDS, self.example, self.config)

    @functools.cached_property
    def agent(self):
        """The first of them, alone."""
        return jax.tree.map(lambda x: x[0], self.agents)

    @functools.cached_property
    def trainer(self):
        """The trainer of one member."""
        return Trainer(self.source, 1, chunk=1)

    @functools.cache  # noqa: B019
    def _start(self, members, kind):
        chosen = list(members)
        agents = jax.tree.map(lambda x: x[np.array(chosen)], self.agents)
        return kind.create(agents, SEEDS[chosen], self.example)

    def start(self, *members, kind=TrainingState):
        """Training's state at step 0 of some members (by default the first)."""
        state = jax.tree.map(lambda x: x.copy(), self._start(members or (0,), kind))
        # Put there as a restored one is, so that what is compiled for one serves the other.
        return jax.device_put(state, jax.devices()[0])

    def train(self, *cuts, trainer=None, state=None):
        """Train the first member, in dispatches of these numbers of updates."""
        state = self.start() if state is None else state
        for count in cuts:
            state = (trainer or self.trainer).update(state, count)
        return state

    @functools.cached_property
    def trained(self):
        """Training's state of the first member after some updates; to be read only."""
        return self.train(UPDATES)

    def online(self, steps, from_dataset=True):
        """Act and learn on the toy: returns the state, the ring, and the steps' outcomes."""
        state = self.start(kind=OnlineState)
        state = state.replace(agents=state.agents.start_online())
        replay = Replay(
            self.source.arrays,
            capacity=1000,
            batch_size=self.config.batch_size,
            num_members=1,
            max_inserts=steps,
            from_dataset=from_dataset,
            columns=self.columns,
        )
        ring, trainer = replay.empty(), OnlineTrainer(replay, 0)
        keys = seed_keys(SEEDS[:1], "environment")
        scale = self.scale_rewards_with(self.config)
        envs = TrainingEnvs(toy_envs.Goal, keys, scale_rewards=scale)
        try:
            state, outcomes = trainer.reset(state, envs.reset()), []
            for _ in range(steps):
                actions = np.asarray(state.actions)
                outcome, _ = envs.step(actions)
                outcomes.append(outcome | {"actions": actions})
                state, ring = trainer.step(state, ring, outcome)
        finally:
            envs.close()
        return state, ring, outcomes


@functools.cache
def subject(path: Path):
    """An agent's file on the walks; one per file, so that what is compiled serves all tests."""
    return Subject(path, walks())
