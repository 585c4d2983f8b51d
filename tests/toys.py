"""Small agents and data that several tests share."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from utils.agent import derived_settings
from utils.agent_files import load_agent_file
from utils.columns import prepare
from utils.datasets import example_batch

AGENTS = Path(__file__).parents[1] / "agents"
# Compiled in two thirds of the time, for tests of what is around the agent.
SHALLOW = {"actor_hidden_dims": (16,), "value_hidden_dims": (16,)}
SMALL = {"actor_hidden_dims": (32, 32), "value_hidden_dims": (32, 32), "batch_size": 16}


def transitions(size=512, observation_dim=5, action_dim=3, seed=0):
    """Random transitions as NumPy arrays."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "observations": normal(size, observation_dim),
        "actions": np.tanh(normal(size, action_dim)),
        "next_observations": normal(size, observation_dim),
        "rewards": normal(size),
        "masks": (rng.uniform(size=size) < 0.9).astype(np.float32),
    }


def batch(**kwargs):
    """One random batch on the device."""
    return {key: jnp.asarray(value) for key, value in transitions(**kwargs).items()}


# One class per agent, so that what JAX has compiled for its functions serves every test.
load = functools.cache(load_agent_file)


def tiny(name="deflow", **settings):
    """Agent class and a small configuration, as far as it has such settings."""
    agent_file = load(AGENTS / f"{name}.py")
    config = agent_file.config.copy_and_resolve_references()
    config.update({key: value for key, value in SMALL.items() if key in config})
    config.update(settings)
    return agent_file.agent_class, config


@functools.cache
def creator(name, **settings):
    """Compiled creation of a small agent for the shapes of `batch`, from a key."""
    agent_class, config = tiny(name, **settings)
    example = batch(size=2)
    arguments = example["observations"], example["actions"]
    return jax.jit(lambda key: agent_class.create(key, *arguments, config))


def make(name="deflow", **settings):
    """A small agent for the shapes of `batch`."""
    return creator(name, **settings)(jax.random.key(0))


def prepared(agent_class, config, data):
    """The data as an agent learns from them, and a batch, as a run has them.

    Its settings get those that follow from the data.
    """
    columns = agent_class.columns(config)
    scale_rewards = functools.partial(agent_class.scale_rewards, config=config)
    data = prepare(data, columns, scale_rewards)
    config.update(derived_settings(agent_class, data, config))
    return data, example_batch(data, config.batch_size, columns)


def moved(before, after):
    """Networks and targets that differ between two agents."""

    def names(first, second):
        return {
            name
            for name in first
            if not all(jax.tree.leaves(jax.tree.map(np.array_equal, first[name], second[name])))
        }

    one, two = before.network, after.network
    return names(one.params, two.params), names(one.target_params, two.target_params)
