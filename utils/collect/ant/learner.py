"""Online learning from several environments of one agent, as one program per round of steps."""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from utils.agent import Agent
from utils.errors import UserError
from utils.networks import GaussianActor
from utils.replay import Replay, Ring
from utils.training import compiler_options, repeat_update, seed_keys

ACTOR = "actor"
"""Name of the network that acts."""


class LearnerState(flax.struct.PyTreeNode):
    """What is carried from one round of environment steps to the next.

    Attributes:
        agent: The agent.
        ring: Arrays of the replay.
        inserted: Transitions in it, shape ().
        updates: Updates so far, shape ().
        metric_sums: Sums of the metrics since they were last read, each ().
    """

    agent: Agent
    ring: Ring
    inserted: jax.Array
    updates: jax.Array
    metric_sums: dict[str, jax.Array]


class Learner:
    """Inserts the transitions of all environments, updates the agent, and acts.

    Args:
        agent_class: The agent; its transitions must need no column from whole episodes.
        config: Its settings.
        seed: Of all its randomness.
        num_envs: Environments.
        observation_dim: Width of observations.
        action_dim: Width of actions.
        capacity: Transitions of the whole training.

    Raises:
        UserError: The agent cannot be exported as a walker, or needs whole episodes.
    """

    def __init__(
        self,
        agent_class: type[Agent],
        config: ml_collections.ConfigDict,
        *,
        seed: int,
        num_envs: int,
        observation_dim: int,
        action_dim: int,
        capacity: int,
    ):
        if agent_class.columns(config):
            raise UserError(
                f"{agent_class.__name__} learns from columns of whole episodes, which this program "
                "does not compute; give an agent of single transitions, such as a SAC"
            )
        one = np.zeros(1, np.float32)
        observations = np.zeros((1, observation_dim), np.float32)
        self._example = {
            "observations": observations,
            "actions": np.zeros((1, action_dim), np.float32),
            "next_observations": observations,
            "rewards": one,
            "masks": one,
        }
        require_actor(agent_class, config, self._example)
        self._create = functools.partial(agent_class.create, config=config)
        self._keys = {
            stream: seed_keys(np.array([seed]), stream)[0]
            for stream in ("init", "data", "noise", "exploration")
        }
        self._num_envs = num_envs
        self._replay = Replay(
            {name: jnp.asarray(array) for name, array in self._example.items()},
            capacity=capacity,
            batch_size=config.batch_size,
            num_members=1,
            max_inserts=capacity,
            from_dataset=False,
        )
        self._round = jax.jit(self._step, donate_argnums=0, compiler_options=compiler_options())

    def begin(self) -> LearnerState:
        """Return the state before the first step."""
        example = {name: jnp.asarray(array) for name, array in self._example.items()}
        agent = self._create(self._keys["init"], example["observations"], example["actions"])
        metrics = jax.eval_shape(lambda: agent.update(example, jax.random.key(0))[1])
        return LearnerState(
            agent=agent,
            ring=self._replay.empty(),
            inserted=jnp.zeros((), jnp.int32),
            updates=jnp.zeros((), jnp.int32),
            metric_sums={name: jnp.zeros(()) for name in metrics},
        )

    def step(
        self,
        state: LearnerState,
        transitions: Mapping[str, np.ndarray],
        observations: np.ndarray,
        num_updates: int,
    ) -> tuple[LearnerState, np.ndarray]:
        """Learn from one step of every environment and choose the next actions.

        Args:
            state: Donated.
            transitions: Columns of a batch, (environments, ...).
            observations: To act on, (environments, o).
            num_updates: Updates, after the transitions have been inserted.

        Returns:
            The state and the actions (environments, a).
        """
        state, actions = self._round(state, dict(transitions), observations, num_updates)
        return state, np.asarray(actions)

    def _step(
        self, state: LearnerState, transitions: Any, observations: jax.Array, num_updates: jax.Array
    ) -> tuple[LearnerState, jax.Array]:
        def insert(i: jax.Array, ring: Ring) -> Ring:
            row = {name: array[i][None] for name, array in transitions.items()}
            return self._replay.insert(ring, row, state.inserted + i)

        ring = jax.lax.fori_loop(0, self._num_envs, insert, state.ring)
        inserted = state.inserted + self._num_envs

        def update(i: jax.Array, agent: Agent) -> tuple[Agent, dict[str, jax.Array]]:
            number = state.updates + i
            batch = self._replay.batch(
                self._replay.dataset, ring, self._keys["data"], number, 0, inserted
            )
            return agent.update(batch, jax.random.fold_in(self._keys["noise"], number))

        agent, metric_sums = repeat_update(update, num_updates, state.agent, state.metric_sums)
        key = jax.random.fold_in(self._keys["exploration"], inserted)
        actions = agent.sample_actions(observations, key, 1.0)
        state = state.replace(
            agent=agent,
            ring=ring,
            inserted=inserted,
            updates=state.updates + num_updates,
            metric_sums=metric_sums,
        )
        return state, actions


def require_actor(
    agent_class: type[Agent], config: ml_collections.ConfigDict, example: Mapping[str, np.ndarray]
) -> None:
    """Raise UserError unless the agent acts by a network that `actor_layers` can read."""
    widths = {"action_dim": example["actions"].shape[-1]}
    table = agent_class.networks(
        example["observations"], example["actions"], config.to_dict() | widths
    )
    actor = table.get(ACTOR, (None,))[0]
    if not (isinstance(actor, GaussianActor) and actor.tanh and not actor.layer_norm):
        raise UserError(
            f"a walker is a network {ACTOR!r} that is a GaussianActor with tanh and without "
            f"LayerNorm, and {agent_class.__name__} has none under these settings"
        )


def actor_layers(agent: Agent) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the dense layers, kernel and bias, of the mode of an agent's `GaussianActor`."""
    params = jax.tree.map(np.asarray, agent.network.params[ACTOR])
    params = params.get("params", params)
    hidden = params["hidden"]
    dense = [hidden[f"Dense_{i}"] for i in range(len(hidden))] + [params["mean"]]
    return [(layer["kernel"], layer["bias"]) for layer in dense]
