"""Online learning from several environments of one agent, as one program per round of steps."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from utils.agent import Agent
from utils.datasets import Batch
from utils.errors import UserError
from utils.networks import GaussianActor
from utils.recorded_settings import freeze
from utils.replay import Replay, Ring
from utils.training import (
    TrainingState,
    compiler_options,
    create_agents,
    repeat_update,
    seed_keys,
    vmap_members,
)

ACTOR = "actor"
"""Name of the network that acts."""


class Learner:
    """Inserts the transitions of all environments, updates the agent, and acts.

    Args:
        agent_class: The agent.
        config: Its settings.
        example: A batch of any values, whose rows have the transitions' shapes.
        seed: Of all its randomness.
        capacity: Transitions of the whole training.

    Raises:
        UserError: The agent acts by no network that `actor_layers` can read, or learns from
            columns of whole episodes.
    """

    def __init__(
        self,
        agent_class: type[Agent],
        config: ml_collections.ConfigDict,
        example: Mapping[str, np.ndarray],
        *,
        seed: int,
        capacity: int,
    ):
        example = {name: jnp.asarray(array) for name, array in example.items()}
        _require_fitting(agent_class, config, example)
        seeds = np.array([seed])
        agents = create_agents(agent_class, seeds, example, config)
        self._state = TrainingState.create(agents, seeds, example)
        self._replay = Replay(
            example,
            capacity=capacity,
            batch_size=config.batch_size,
            num_members=1,
            max_inserts=capacity,
            from_dataset=False,
        )
        self._ring = self._replay.empty()
        self._inserted = 0
        self._exploration_key = seed_keys(seeds, "exploration")[0]
        self._step = jax.jit(
            self._insert_update_act, donate_argnums=(0, 1), compiler_options=compiler_options()
        )

    @property
    def agent(self) -> Agent:
        """The agent as it is now; the next step takes its arrays away."""
        return jax.tree.map(lambda leaf: leaf[0], self._state.agents)

    def step(
        self, transitions: Mapping[str, np.ndarray], observations: np.ndarray, num_updates: int
    ) -> np.ndarray:
        """Learn from one step of every environment and choose the next actions.

        Args:
            transitions: Columns of a batch, (environments, ...).
            observations: To act on, (environments, o).
            num_updates: Updates, after the transitions have been inserted.

        Returns:
            Actions (environments, a).
        """
        self._state, self._ring, actions = self._step(
            self._state, self._ring, dict(transitions), observations, self._inserted, num_updates
        )
        self._inserted += len(observations)
        return np.asarray(actions)

    def read_metrics(self) -> dict[str, float]:
        """Return the means of the agent's metrics since the last call; none of no updates."""
        means = self._state.mean_metrics()
        self._state = self._state.reset_metrics()
        return {name: float(value[0]) for name, value in means.items()}

    def _insert_update_act(
        self,
        state: TrainingState,
        ring: Ring,
        transitions: Batch,
        observations: jax.Array,
        inserted: jax.Array,
        num_updates: jax.Array,
    ) -> tuple[TrainingState, Ring, jax.Array]:
        num_envs = len(observations)

        def insert(i: jax.Array, ring: Ring) -> Ring:
            one = {name: array[i][None] for name, array in transitions.items()}
            return self._replay.insert(ring, one, inserted + i)

        ring = jax.lax.fori_loop(0, num_envs, insert, ring)

        def learn(agent, data_key, noise_key, metric_sums):
            def update(i, agent):
                step = state.step + i
                batch = self._replay.batch(
                    self._replay.dataset, ring, data_key, step, 0, inserted + num_envs
                )
                return agent.update(batch, jax.random.fold_in(noise_key, step))

            agent, metric_sums = repeat_update(update, num_updates, agent, metric_sums)
            key = jax.random.fold_in(self._exploration_key, inserted)
            return agent, metric_sums, agent.sample_actions(observations, key, 1.0)

        agents, metric_sums, actions = vmap_members(learn, 1)(
            state.agents, state.data_keys, state.noise_keys, state.metric_sums
        )
        state = state.replace(
            agents=agents,
            step=state.step + num_updates,
            metric_sums=metric_sums,
            metric_count=state.metric_count + num_updates,
        )
        return state, ring, actions[0]


def _require_fitting(
    agent_class: type[Agent], config: ml_collections.ConfigDict, example: Batch
) -> None:
    """Raise UserError for an agent that cannot learn here, or makes no walker."""
    if columns := agent_class.columns(config):
        raise UserError(
            f"{agent_class.__name__} learns from {' and '.join(columns)}, which single transitions "
            "lack; give another agent, a soft actor-critic for instance"
        )
    observations, actions = example["observations"], example["actions"]
    frozen = freeze(config, action_dim=actions.shape[-1], ob_dims=observations.shape[1:])
    actor = agent_class.networks(observations, actions, frozen).get(ACTOR, (None,))[0]
    if not (isinstance(actor, GaussianActor) and actor.tanh and not actor.layer_norm):
        raise UserError(
            f"a walker is a network {ACTOR!r} that is a GaussianActor with tanh and without "
            f"LayerNorm; {agent_class.__name__} has none with these settings"
        )


def actor_layers(agent: Agent) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the dense layers, kernel and bias, of the mode of an agent's `GaussianActor`."""
    params = jax.tree.map(np.asarray, agent.network.params[ACTOR])
    hidden = params["hidden"]
    dense = [hidden[f"Dense_{i}"] for i in range(len(hidden))] + [params["mean"]]
    return [(layer["kernel"], layer["bias"]) for layer in dense]
