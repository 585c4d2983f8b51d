"""Policies that an agent is evaluated with, by name or by the path of a file.

A policy is a function (agent, observation (o,), key) -> action (a,). It says how an agent acts when
it is evaluated, and has no part in training or exploration.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from utils.python_files import named_or_from_file

Policy = Callable[[Any, jax.Array, jax.Array], jax.Array]

_CANDIDATES = 32


def sample(agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """Act as the agent says, at temperature 0."""
    return agent.sample_actions(observation, key, 0.0)


def best_of_n(agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """Take, of 32 actions that the agent samples at temperature 1, that of the highest value."""
    keys = jax.random.split(key, _CANDIDATES)
    actions = jax.vmap(lambda key: agent.sample_actions(observation, key, 1.0))(keys)
    values = jax.vmap(lambda action: agent.value(observation, action))(actions)
    return actions[jnp.argmax(values)]


def propose(agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """Act by the agent's model of the data alone, not refined."""
    return agent.propose(observation, jax.random.normal(key, (agent.config["action_dim"],)))


POLICIES: dict[str, Policy] = {"sample": sample, "best_of_n": best_of_n, "propose": propose}


def load_policy(name: str) -> Policy:
    """Return a policy by its name, or from a Python file that defines `policy`.

    Args:
        name: A key of `POLICIES`, or a path.

    Raises:
        UserError: There is no such policy, or the file does not define one.
    """
    signature = "policy(agent, observation, key)"
    return named_or_from_file(name, POLICIES, "--eval_policy", signature)
