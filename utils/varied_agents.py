"""Agents of which each has its own values of some settings, trained together as members.

An agent's file reads `self.config.lr` as ever. Where that is varied, it is a traced number, and
the agent is of a class made here, in which the settings are part of the tree that is mapped over
members.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax
import jax

from utils.agent import Agent, Batch, Config
from utils.member_settings import MemberSettings, shared_settings


def create_varied(
    agent_class: type[Agent],
    seed: jax.Array,
    rng: jax.Array,
    example: Batch,
    config: Config,
    varied: Mapping[str, jax.Array],
) -> Agent:
    """Build the agent of a seed with some settings that are arrays; see `Agent.create_member`.

    Args:
        agent_class: What to build.
        seed: The training seed, shape ().
        rng: A key of it.
        example: An example batch.
        config: The settings, with any numbers for those that are varied.
        varied: By name, numbers of shape ().
    """
    settings = MemberSettings(config, varied)
    agent = _varied_class(agent_class).create_member(seed, rng, example, settings)
    # What the modules were built from was traced, and must not stay in the agent's functions: they
    # are taken from an agent of plain numbers. `check_varied` sees to it that it is all the same.
    create = functools.partial(agent_class.create_member, config=config)
    plain = jax.eval_shape(create, seed, rng, example)
    like = _with_settings(type(agent), plain, MemberSettings(plain.config, varied))
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(agent))


@functools.cache
def _varied_class(agent_class: type[Agent]) -> type[Agent]:
    """Return the same class of agents with settings that are a tree.

    Their arrays are no part of a checkpoint, as settings never are.
    """
    members = {
        "__annotations__": {"config": MemberSettings},
        "__module__": agent_class.__module__,
        "__doc__": agent_class.__doc__,
    }
    varied_class = type(agent_class.__name__, (agent_class,), members)

    def plain(agent: Agent) -> Agent:
        return _with_settings(agent_class, agent, shared_settings(agent.config))

    def to_state_dict(agent: Agent) -> dict[str, Any]:
        return flax.serialization.to_state_dict(plain(agent))

    def from_state_dict(agent: Agent, state: dict[str, Any]) -> Agent:
        restored = flax.serialization.from_state_dict(plain(agent), state)
        return _with_settings(varied_class, restored, agent.config)

    flax.serialization.register_serialization_state(
        varied_class, to_state_dict, from_state_dict, override=True
    )
    return varied_class


def _with_settings(agent_class: type[Agent], agent: Agent, settings: Config) -> Agent:
    """Return an agent as one of another class, with other settings."""
    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(agent)}
    return agent_class(**fields | {"config": settings})
