"""What every agent shares and no paper is about: the update step, loading a file, its checks."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from utils.errors import UserError
from utils.train_state import Metrics, Params, TrainState

Batch = dict[str, jax.Array]
Noise = Any

# |Q| of OGBench and D4RL tasks stays below 1 / (1 - discount) times the largest reward, well
# under this bound.
Q_EXPLODED = 1e6


class Agent(flax.struct.PyTreeNode):
    """Pure functions over a TrainState.

    A subclass defines `networks`, `draw_noise`, `total_loss` and `sample_actions`. It knows nothing
    of loops, seeds or devices: those are put around `update` from outside.
    """

    network: TrainState
    config: ml_collections.FrozenConfigDict = flax.struct.field(pytree_node=False)

    TARGETS: ClassVar[tuple[str, ...]] = ("critic",)
    """Networks that get a target copy, where the agent has them."""

    @classmethod
    def networks(
        cls, observations: jax.Array, actions: jax.Array, config: Mapping[str, Any]
    ) -> dict[str, tuple[nn.Module, tuple[jax.Array, ...]]]:
        """Table of the agent's networks: by name, the module and example inputs."""
        raise NotImplementedError

    @classmethod
    def create(
        cls,
        rng: jax.Array,
        observations: jax.Array,
        actions: jax.Array,
        config: Mapping[str, Any],
    ) -> Self:
        """Build the agent from a key, example batches (b, o) and (b, a), and its settings."""
        chex.assert_rank([observations, actions], 2)
        networks = cls.networks(observations, actions, config)
        network = TrainState.from_networks(
            rng,
            networks,
            optax.adam(config["lr"]),
            targets=[name for name in cls.TARGETS if name in networks],
        )
        frozen = ml_collections.FrozenConfigDict(dict(config, action_dim=actions.shape[-1]))
        return cls(network=network, config=frozen)

    @staticmethod
    def check_config(config: Mapping[str, Any]) -> None:
        """Raise UserError for settings that cannot work, before data are loaded."""
        require_choice(config, "q_agg", ("mean", "min"))
        for key in ("batch_size", "num_critics", "flow_steps"):
            require_range(config, key, 1, jnp.inf)
        for key in ("discount", "tau"):
            require_range(config, key, 0.0, 1.0)

    def draw_noise(self, rng: jax.Array, batch: Batch) -> Noise:
        """Draw all random numbers that one evaluation of `total_loss` needs."""
        raise NotImplementedError

    def total_loss(self, batch: Batch, params: dict[str, Params], noise: Noise):
        """Return the scalar that the optimiser minimises, and a dictionary of metrics."""
        raise NotImplementedError

    def sample_actions(self, observations: jax.Array, rng: jax.Array) -> jax.Array:
        """Draw actions (..., a) in [-1, 1] for observations (..., o)."""
        raise NotImplementedError

    def update(self, batch: Batch, rng: jax.Array) -> tuple[Self, Metrics]:
        """Take one gradient step and move the targets.

        Args:
            batch: observations and next_observations (b, o), actions (b, a), rewards and
                masks (b,).
            rng: Key of this step's noise.

        Returns:
            The updated agent and scalar metrics.
        """
        noise = self.draw_noise(rng, batch)
        network, metrics = self.network.apply_loss(
            lambda params: self.total_loss(batch, params, noise)
        )
        # The targets follow the parameters from before this step, as in FQL and the release.
        network = network.update_targets(self.network.params, self.config.tau)
        return self.replace(network=network), metrics

    def evaluate_loss(self, batch: Batch, rng: jax.Array) -> Metrics:
        """Metrics of `total_loss` on a held-out batch, and the policy's distance from its actions.

        Called at logging time only: nothing in it costs an update anything.
        """
        loss_key, action_key = jax.random.split(rng)
        noise = self.draw_noise(loss_key, batch)
        _, metrics = self.total_loss(batch, self.network.params, noise)
        actions = self.sample_actions(batch["observations"], action_key)
        return metrics | {"actor/mse": jnp.mean((actions - batch["actions"]) ** 2)}

    def start_online(self) -> Self:
        """The agent as it enters online training: the same, where an agent does not say else."""
        return self

    def freeze(self, *networks: str) -> Self:
        """The agent with networks, by name, whose parameters no update changes any more."""
        return self.replace(network=self.network.replace(frozen=networks))

    @staticmethod
    def failure_signatures(metrics: Mapping[str, float], config: Mapping[str, Any]):
        """Name the failures that show in one row of logged metrics.

        Args:
            metrics: Means over a logging interval, of one seed.
            config: The agent's settings.

        Returns:
            By signature, the remedy. The run reports a signature that persists.
        """
        del config
        if metrics.get("critic/q_abs", 0.0) > Q_EXPLODED:
            return {
                f"|Q| above {Q_EXPLODED:.0e} (unstable critic)": "lower --agent.lr or "
                "--agent.discount, or set --agent.q_agg=min"
            }
        return {}


def aggregate(q: jax.Array, how: str) -> jax.Array:
    """Reduce ensemble Q-values (ensemble, b) to (b,) by their 'mean' or 'min'."""
    return q.min(axis=0) if how == "min" else q.mean(axis=0)


def require_choice(config: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless `config[key]` is one of `choices`."""
    if config[key] not in choices:
        raise UserError(f"--agent.{key}={config[key]} is not one of {', '.join(choices)}")


def require_range(config: Mapping[str, Any], key: str, low: float, high: float) -> None:
    """Raise UserError unless low <= `config[key]` <= high; an agent may lack the setting."""
    if key in config and not low <= config[key] <= high:
        limits = f"at least {low}" if high == jnp.inf else f"between {low} and {high}"
        raise UserError(f"--agent.{key}={config[key]} must be {limits}")
