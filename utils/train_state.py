"""A flax TrainState over a table of named networks, with target copies outside the optimiser."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

Params = Any
Metrics = dict[str, jax.Array]


class TrainState(train_state.TrainState):
    """Parameters, optimiser state and target parameters of the networks of one agent.

    `params` and `target_params` are dictionaries by network name. The optimiser knows `params`
    only: target networks have neither gradients nor moments.
    """

    target_params: dict[str, Params]
    frozen: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    """Names of networks that keep their parameters, whatever the loss and the optimiser's moments
    say."""

    @classmethod
    def from_networks(
        cls,
        rng: jax.Array,
        networks: Mapping[str, tuple[nn.Module, Sequence[jax.Array]]],
        tx: optax.GradientTransformation,
        targets: Sequence[str] = (),
    ) -> Self:
        """Initialise every network of a table.

        Args:
            rng: Key of the initialisation.
            networks: By name, the module and example inputs to initialise it with.
            tx: Optimiser of all parameters together.
            targets: Names of the networks that get a target copy.
        """
        modules = {name: module for name, (module, _) in networks.items()}
        keys = dict(zip(networks, jax.random.split(rng, len(networks)), strict=True))
        params = {
            name: module.init(keys[name], *inputs).get("params", {})
            for name, (module, inputs) in networks.items()
        }

        def apply(name: str, params: Params, *inputs: jax.Array) -> jax.Array:
            return modules[name].apply({"params": params}, *inputs)

        # Copied, because donation needs parameters and targets in buffers of their own.
        target_params = {name: jax.tree.map(jnp.copy, params[name]) for name in targets}
        return cls.create(apply_fn=apply, params=params, tx=tx, target_params=target_params)

    def select(self, name: str, params: dict[str, Params] | None = None) -> Callable:
        """Network `name` as a function of its inputs.

        Without `params` it uses the stored parameters, which are constants to a gradient; with
        `params` (the argument of the loss) gradients reach them.
        """
        params = self.params if params is None else params
        return partial(self.apply_fn, name, params[name])

    def select_target(self, name: str) -> Callable:
        """Target copy of network `name` as a function of its inputs."""
        return partial(self.apply_fn, name, self.target_params[name])

    def apply_loss(
        self, loss: Callable[[dict[str, Params]], tuple[jax.Array, Metrics]]
    ) -> tuple[Self, Metrics]:
        """Take one optimiser step on `loss(params) -> (scalar, metrics)`."""
        kept = {name: self.params[name] for name in self.frozen}
        moving = {name: self.params[name] for name in self.params if name not in kept}
        grads, metrics = jax.grad(lambda params: loss(params | kept), has_aux=True)(moving)
        moved = self.apply_gradients(grads=grads | jax.tree.map(jnp.zeros_like, kept))
        return moved.replace(params=moved.params | kept), metrics

    def update_targets(self, online: dict[str, Params], tau: float) -> Self:
        """Move every target by target <- tau * online + (1 - tau) * target."""
        target_params = {
            name: optax.incremental_update(online[name], target, tau)
            for name, target in self.target_params.items()
        }
        return self.replace(target_params=target_params)
