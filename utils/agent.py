"""What every agent shares and no paper is about: how it is built, its update step, its checks."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from utils import encoders
from utils.errors import UserError
from utils.metrics import Panel, Signature
from utils.recorded_settings import freeze
from utils.train_state import Metrics, Networks, Params, TrainState

Batch = dict[str, jax.Array]
Noise = Any
Config = Mapping[str, Any]


class Agent(flax.struct.PyTreeNode):
    """Pure functions over a TrainState.

    A subclass defines `networks`, `sample_noise`, `total_loss` and `sample_actions`. Everything
    else has a default here. It knows nothing of loops, seeds or devices: those are put around
    `update` from outside.

    In a loss, `self.network.select(name, params)` is a network that learns from it,
    `self.network.select(name)` and `select_target(name)` are constants, and `self.network.step` is
    the number of updates so far.
    """

    network: TrainState
    config: ml_collections.FrozenConfigDict = flax.struct.field(pytree_node=False)

    PANELS: ClassVar[tuple[Panel, ...]] = ()
    """How columns of train.csv are drawn."""

    SIGNATURES: ClassVar[tuple[Signature, ...]] = ()
    """Failures as they show in logged metrics. A run reports one that persists."""

    MULTIMODAL: ClassVar[bool] = False
    """Whether the policy can keep several modes of the data; for the common tests."""

    IMPROVES: ClassVar[bool] = True
    """Whether the policy becomes better than the data; for the common tests."""

    BANDIT: ClassVar[Mapping[str, Any]] = {}
    """Settings with which it solves a bandit; for the common tests.

    Rewards are of order 1; there are 2,000 updates of batch 128, at `lr` 1e-3 if it states none.
    """

    UNCONSTRAINED: ClassVar[Mapping[str, Any]] = {}
    """Settings that leave it free to find the best of uniform actions; for the common tests."""

    PAIRWISE: ClassVar[bool] = False
    """Whether a loss compares all pairs in a batch; else that is taken for a mistake in shapes."""

    TARGETS_AFTER_STEP: ClassVar[bool] = False
    """Whether targets follow the parameters from after the step, not from before it."""

    # --- What an agent must define ----------------------------------------------------------------

    @classmethod
    def networks(cls, observations: jax.Array, actions: jax.Array, config: Config) -> Networks:
        """Return the table of networks: by name, the module and its example inputs.

        A third entry holds keyword inputs, if the module has any. A network whose first input is
        a batch of images is put behind the encoder that the setting `encoder` names.

        Args:
            observations: Example batch (b, ...).
            actions: Example batch (b, a).
            config: The settings.
        """
        raise _lacks(cls, "networks(observations, actions, config)")

    def sample_noise(self, rng: jax.Array, batch: Batch) -> Noise:
        """Sample all random numbers that one evaluation of `total_loss` needs."""
        raise _lacks(type(self), "sample_noise(rng, batch)")

    def total_loss(
        self, batch: Batch, params: dict[str, Params], noise: Noise
    ) -> tuple[jax.Array, Metrics]:
        """Return the scalar that the optimisers minimise, and scalar metrics by name."""
        raise _lacks(type(self), "total_loss(batch, params, noise)")

    def sample_actions(
        self, observations: jax.Array, rng: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """Sample actions (..., a) in [-1, 1] for observations (..., o).

        Args:
            observations: Of any batch shape.
            rng: Key.
            temperature: 1 explores, 0 is evaluated. A policy whose noise is no exploration, such
                as a flow, acts the same at both.
        """
        raise _lacks(type(self), "sample_actions(observations, rng, temperature)")

    # --- What it may state ------------------------------------------------------------------------

    @classmethod
    def optimizer(cls, config: Config, network: str) -> optax.GradientTransformation:
        """Return the optimiser of a network, by default Adam with the setting `lr`."""
        del network
        return optax.adam(config["lr"])

    @classmethod
    def targets(cls, config: Config) -> dict[str, float]:
        """Return rates by networks with a target copy; by default `critic` has one, of `tau`."""
        return {"critic": config["tau"]} if "tau" in config else {}

    @classmethod
    def learns(cls, config: Config, network: str, step: int | jax.Array) -> bool | jax.Array:
        """Return whether a network is to move in the update after `step` others."""
        return True

    @classmethod
    def columns(cls, config: Config) -> dict[str, Callable]:
        """Return further columns of its batches, by name, with what computes them.

        See `utils.columns` for functions that are ready: `next_actions`, `mc_returns(discount)`.
        """
        del config
        return {}

    @classmethod
    def settings_from_data(cls, data: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
        """Return settings that follow from the data, computed once before it is created.

        Args:
            data: The training transitions, each (n, ...), rewards scaled.
            config: The other settings; those returned must be among them.

        Returns:
            Numbers and tuples of numbers by name.
        """
        del data, config
        return {}

    @classmethod
    def scale_rewards(cls, rewards: Any, config: Config) -> Any:
        """Return rewards (...) as it learns from them, offline and online."""
        del config
        return rewards

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise UserError for settings that cannot work, before data are loaded."""
        _check_shared_settings(config)

    def start_online(self) -> Self:
        """Return the agent as it enters online training."""
        return self

    def value(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return Q-values (...) of actions (..., a) at observations (..., o)."""
        raise _lacks(type(self), "value(observations, actions)")

    def propose(self, observations: jax.Array, z: jax.Array) -> jax.Array:
        """Return actions (..., a) of its model of the data from noise (..., a)."""
        raise _lacks(type(self), "propose(observations, z)")

    def refine(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return the policy's actions (..., a) from proposed ones (..., a)."""
        raise _lacks(type(self), "refine(observations, actions)")

    def velocity(self, observations: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
        """Return the velocity (..., a) of its flow at x (..., a) and time (..., 1)."""
        raise _lacks(type(self), "velocity(observations, x, t)")

    def trust_region(self) -> jax.Array:
        """Return how far `refine` may move an action: mean square per dimension, shape ()."""
        raise _lacks(type(self), "trust_region()")

    # --- What is the same for all -----------------------------------------------------------------

    @classmethod
    def create(
        cls, rng: jax.Array, observations: jax.Array, actions: jax.Array, config: Config
    ) -> Self:
        """Build the agent.

        Args:
            rng: Key of the initialisation.
            observations: Example batch (b, ...).
            actions: Example batch (b, a).
            config: The settings.

        Raises:
            UserError: `targets` names a network that is not in the table.
        """
        frozen = freeze(config, action_dim=actions.shape[-1], ob_dims=observations.shape[1:])
        networks = encoders.encode_images(cls.networks(observations, actions, frozen), frozen)
        optimizers = {name: cls.optimizer(frozen, name) for name in networks}
        targets = _targets(cls, frozen, networks)
        return cls(TrainState.create(rng, networks, optimizers, targets), frozen)

    @classmethod
    def create_member(cls, seed: jax.Array, rng: jax.Array, example: Batch, config: Config) -> Self:
        """Build the agent of a seed (), from a key of it and an example batch, by `create`."""
        del seed
        return cls.create(rng, example["observations"], example["actions"], config)

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Return the optimiser of every network."""
        return {name: self.optimizer(self.config, name) for name in self.network.params}

    def target_rates(self) -> dict[str, float]:
        """Return the rate of every target."""
        rates = self.targets(self.config)
        return {name: rates[name] for name in self.network.target_params}

    @functools.partial(jax.jit, inline=True)
    def update(self, batch: Batch, rng: jax.Array) -> tuple[Self, Metrics]:
        """Take one update.

        Args:
            batch: observations and next_observations (b, ...), actions (b, a), rewards and masks
                (b,), and the columns that the agent adds.
            rng: Key of this update's noise.

        Returns:
            The updated agent and scalar metrics.
        """
        agent, metrics = self._update(batch, rng)
        return agent.replace(network=agent.network.replace(step=self.network.step + 1)), metrics

    def _update(self, batch: Batch, rng: jax.Array) -> tuple[Self, Metrics]:
        """Take one gradient step on `total_loss` and move the targets.

        An agent with several losses, each of which sees what the one before has changed, writes
        this anew. A setting `grad_norms` that is true logs the gradients' norms.
        """
        noise = self.sample_noise(rng, batch)
        network, metrics = self.network.apply_loss_fn(
            lambda params: self.total_loss(batch, params, noise),
            self.optimizers(),
            grad_norms=self.config.get("grad_norms", False),
        )
        # As in FQL and in the release, targets follow the parameters from before this step.
        followed = network.params if self.TARGETS_AFTER_STEP else self.network.params
        return self.replace(network=network.update_targets(followed, self.target_rates())), metrics

    def evaluate_loss(self, batch: Batch, rng: jax.Array) -> Metrics:
        """Return metrics of `total_loss` on a held-out batch, and the distance from its actions.

        Norms of its gradient, `grad_norm/<network>`, are among them: here, at logging time, they
        cost no update. An agent that has no `total_loss` has the distance alone.
        """
        loss_key, action_key = jax.random.split(rng)
        actions = self.sample_actions(batch["observations"], action_key, 0.0)
        distance = {"actor/mse": jnp.mean((actions - batch["actions"]) ** 2)}
        if type(self).total_loss is Agent.total_loss:
            return distance
        noise = self.sample_noise(loss_key, batch)
        _, metrics = self.total_loss(batch, self.network.params, noise)
        return metrics | _grad_norms(self, batch, noise) | distance

    def batch_shape(self, observations: jax.Array) -> tuple[int, ...]:
        """Return the shape in front of single observations, which may be images."""
        return observations.shape[: observations.ndim - len(self.config["ob_dims"])]

    def freeze(self, *networks: str) -> Self:
        """Return the agent with these networks standing still, and all others learning."""
        require_networks("freeze()", networks, self.network.params)
        return self.replace(network=self.network.replace(frozen=networks))


def _lacks(agent_class: type[Agent], method: str) -> UserError:
    return UserError(f"{agent_class.__name__} does not define {method}, which is needed here")


def _check_shared_settings(config: Config) -> None:
    """Raise UserError for settings that many agents have and that are out of their range."""
    for key in ("batch_size", "num_critics", "flow_steps"):
        require_range(config, key, 1, np.inf)
    for key in ("discount", "tau"):
        require_range(config, key, 0.0, 1.0)
    if "q_agg" in config:
        require_choice(config, "q_agg", ("mean", "min"))


def _targets(agent_class: type[Agent], config: Config, networks: Networks) -> list[str]:
    """Return the names of an agent's targets; those that it states itself must be networks."""
    targets = agent_class.targets(config)
    stated = set(targets) - set(Agent.targets(config))  # there may be no critic
    require_networks("targets(config)", sorted(stated), networks)
    return [name for name in targets if name in networks]


def _grad_norms(agent: Agent, batch: Batch, noise: Noise) -> Metrics:
    """Return the norms of `total_loss`'s gradient, changing no digit of what is beside them."""
    agent, batch, noise = jax.lax.optimization_barrier((agent, batch, noise))
    grads = jax.grad(lambda params: agent.total_loss(batch, params, noise)[0])(agent.network.params)
    return {f"grad_norm/{name}": optax.tree.norm(grads[name]) for name in grads}


def derived_settings(
    agent_class: type[Agent], data: Mapping[str, np.ndarray], config: Config
) -> dict[str, Any]:
    """Return an agent's `settings_from_data`.

    Raises:
        UserError: Its `get_config()` lacks one of them.
    """
    derived = agent_class.settings_from_data(data, config)
    if unknown := [key for key in derived if key not in config]:
        raise UserError(
            f"settings_from_data returns {', '.join(unknown)}, but get_config() has no such "
            "setting; add it there"
        )
    return derived


def aggregate(q: jax.Array, how: str) -> jax.Array:
    """Reduce Q-values (ensemble, b) to (b,) by their 'mean' or 'min'."""
    return q.min(axis=0) if how == "min" else q.mean(axis=0)


def critic_values(agent: Agent, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """Return the Q-values (critics, ...) of every critic.

    They are those of the agent's `values(observations, actions)`, if it defines that, and else of
    its network `critic`.

    Args:
        agent: The agent.
        observations: (..., o).
        actions: (..., a).

    Raises:
        UserError: It has neither.
    """
    if hasattr(agent, "values"):
        return agent.values(observations, actions)
    if "critic" not in agent.network.params:
        raise _lacks(type(agent), "values(observations, actions)")
    return agent.network.select("critic")(observations, actions)


def repeat(observations: jax.Array, count: int, axis: int) -> jax.Array:
    """Repeat every observation along a new axis, behind the batch's: (..., count, o)."""
    return jnp.repeat(jnp.expand_dims(observations, axis), count, axis)


def best_of(candidates: jax.Array, values: jax.Array) -> jax.Array:
    """Return, of candidates (..., n, a), those (..., a) with the highest of the values (..., n)."""
    best = jnp.argmax(values, axis=-1)[..., None, None]
    return jnp.take_along_axis(candidates, best, axis=-2).squeeze(-2)


def require_networks(where: str, names: Iterable[str], networks: Mapping[str, Any]) -> None:
    """Raise UserError unless all names are those of networks."""
    for name in names:
        if name not in networks:
            raise UserError(
                f"{where} names the network {name}, which is not in networks(); "
                f"there are {', '.join(networks)}"
            )


def require_choice(config: Config, key: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless `config[key]` is one of `choices`."""
    if config[key] not in choices:
        raise UserError(f"--agent.{key}={config[key]} is not one of {', '.join(choices)}")


def require_range(config: Config, key: str, low: float, high: float) -> None:
    """Raise UserError unless low <= `config[key]` <= high; an agent may lack the setting."""
    if key in config and not low <= config[key] <= high:
        limits = f"at least {low}" if high == np.inf else f"between {low} and {high}"
        raise UserError(f"--agent.{key}={config[key]} must be {limits}")
