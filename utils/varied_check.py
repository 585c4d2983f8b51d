"""Whether a setting can be varied within one program; by tracing, as `utils.agent_check` does."""

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.extend import core

from utils.agent import derived_settings
from utils.agent_check import BATCH, abstract_agent, random_transitions
from utils.errors import UserError
from utils.frozen_noise import constants
from utils.policies import Policy, sample
from utils.recorded_settings import RecordedSettings
from utils.varied_agents import create_varied

_ADDRESS = re.compile("0x[0-9a-f]+")


def check_varied(
    agent_class: Any,
    config: ml_collections.ConfigDict,
    name: str,
    values: tuple[float, float],
    policy: Policy = sample,
) -> None:
    """Refuse a setting whose values need data or programs of their own.

    Args:
        agent_class: The agent, which has been checked with these settings.
        config: The settings.
        name: The setting that is varied.
        values: Its least and its greatest value.
        policy: The policy that is evaluated.

    Raises:
        UserError: Data, shapes, branches or the networks' functions depend on it.
    """

    def refused(why: str) -> UserError:
        return UserError(f"--vary agent.{name}: {elsewhere(why)}")

    config = config.copy_and_resolve_references()
    config.batch_size = BATCH
    agent, example, key = abstract_agent(agent_class, config, set())
    if name in _data_reads(agent_class, config, example):
        raise refused("the data that it learns from are computed with it")
    programs = []
    for value in values:
        settings = ml_collections.ConfigDict(agent.config.to_dict() | {name: value})
        try:
            programs.append(list(_programs(agent_class, settings, name, policy, example, key)))
        except UserError:
            raise
        except Exception as error:  # whatever the agent's lines do with a number yet unknown
            raise refused("a branch, a shape or a constant follows from it") from error
    if not all(map(_same, *programs)):
        raise refused("what its networks compute follows from it")


def elsewhere(why: str) -> str:
    """Return why one program cannot train all values of a setting, and what can."""
    return (
        f"{why}, so its values do not fit into one program; python -m utils.sweep takes the same "
        "--vary, and trains each value in a run of its own"
    )


def _data_reads(
    agent_class: Any, config: ml_collections.ConfigDict, example: dict[str, Any]
) -> set[str]:
    """Return which settings are read where data are prepared."""
    reads: set[str] = set()
    config = RecordedSettings(config, reads)
    data = random_transitions(agent_class, config, example["observations"].shape[1:])
    derived_settings(agent_class, data, config)
    return reads


def _programs(
    agent_class: Any,
    config: ml_collections.ConfigDict,
    name: str,
    policy: Policy,
    example: dict[str, Any],
    key: Any,
) -> Iterator[core.ClosedJaxpr]:
    """Trace update, validation and acting of an agent with one setting as an array."""
    seed = jax.ShapeDtypeStruct((), np.int32)
    value = jax.ShapeDtypeStruct((), np.float32)
    agent = jax.eval_shape(
        lambda seed, key, example, value: create_varied(
            agent_class, seed, key, example, config, {name: value}
        ),
        seed,
        key,
        example,
        value,
    )
    yield jax.make_jaxpr(inspect.unwrap(type(agent).update))(agent, example, key)
    yield jax.make_jaxpr(type(agent).evaluate_loss)(agent, example, key)
    explore = functools.partial(type(agent).sample_actions, temperature=1.0)
    yield jax.make_jaxpr(explore)(agent, example["observations"], key)
    single = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), example)
    yield jax.make_jaxpr(policy)(agent, single["observations"], key)


def _same(first: core.ClosedJaxpr, second: core.ClosedJaxpr) -> bool:
    """Whether two traces are one program: the same operations with the same numbers."""
    one, other = (_ADDRESS.sub("", str(program)) for program in (first, second))
    pairs = zip(constants(first), constants(second), strict=False)
    return one == other and all(np.array_equal(a, b) for (a, _), (b, _) in pairs)
