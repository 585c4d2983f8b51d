"""A TrainState over a table of named networks, with target copies outside the optimisers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from utils.errors import UserError

Params = Any
Metrics = dict[str, jax.Array]
Optimizers = Mapping[str, optax.GradientTransformation]
Networks = Mapping[str, tuple]
"""By name, a module, its example inputs and, if it has any, its keyword inputs."""


class TrainState(flax.struct.PyTreeNode):
    """Parameters, optimiser states and target parameters of the networks of one agent.

    All are dictionaries by network name. The optimisers themselves are not kept: they are functions
    of settings, which may be arrays, and are built inside the update. Target networks have neither
    gradients nor moments.

    Attributes:
        step: Number of updates so far, shape ().
        params: Parameters.
        opt_state: States of the optimisers, one per network.
        target_params: Parameters of the target copies.
        apply_fn: Takes a network's name, its parameters and its inputs.
        frozen: Networks that keep their parameters and moments, whatever the loss says.
    """

    step: jax.Array
    params: dict[str, Params]
    opt_state: dict[str, optax.OptState]
    target_params: dict[str, Params]
    apply_fn: Callable = flax.struct.field(pytree_node=False)
    frozen: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def create(
        cls,
        rng: jax.Array,
        networks: Networks,
        optimizers: Optimizers,
        targets: Sequence[str] = (),
    ) -> Self:
        """Initialise every network of a table.

        Args:
            rng: Key of the initialisation.
            networks: The table.
            optimizers: By network.
            targets: Names of the networks that get a target copy.
        """
        modules: dict[str, nn.Module] = {name: row[0] for name, row in networks.items()}
        keys = dict(zip(networks, jax.random.split(rng, len(networks)), strict=True))
        params = {}
        for name, (module, inputs, *keywords) in networks.items():
            rngs = {"params": keys[name], "dropout": keys[name]}
            params[name] = module.init(rngs, *inputs, **dict(*keywords)).get("params", {})

        def apply(name: str, params: Params, *inputs: jax.Array, **keywords: Any) -> jax.Array:
            return modules[name].apply({"params": params}, *inputs, **keywords)

        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state={name: optimizers[name].init(params[name]) for name in params},
            # Copied, because donation needs parameters and targets in buffers of their own.
            target_params={name: jax.tree.map(jnp.copy, params[name]) for name in targets},
            apply_fn=apply,
        )

    def select(self, name: str, params: Mapping[str, Params] | None = None) -> Callable:
        """Return network `name` as a function of its inputs.

        Without `params` it uses the stored parameters, which are constants to a gradient; with
        `params` (the argument of the loss) gradients reach them. Keyword inputs go to the module,
        and `rngs={"dropout": key}` to flax.

        Raises:
            UserError: There is no such network.
        """
        params = self.params if params is None else params
        return partial(self.apply_fn, name, _of("network", name, params))

    def select_target(self, name: str) -> Callable:
        """Return the target copy of network `name` as a function of its inputs.

        Raises:
            UserError: It has none.
        """
        return partial(self.apply_fn, name, _of("target network", name, self.target_params))

    def apply_loss_fn(
        self,
        loss_fn: Callable[[dict[str, Params]], tuple[jax.Array, Metrics]],
        optimizers: Optimizers,
        networks: Sequence[str] | None = None,
        grad_norms: bool = False,
    ) -> tuple[Self, Metrics]:
        """Take one optimiser step on `loss_fn(params) -> (scalar, metrics)`.

        Args:
            loss_fn: The loss, of the parameters of all networks.
            optimizers: By network.
            networks: Those that are moved; by default all. Others are constants to the loss, and
                frozen ones are never moved.
            grad_norms: Add the Euclidean norm of each network's gradient to the metrics, as
                `grad_norm/<network>`, 0 for a frozen one. Costs a pass over all gradients.

        Returns:
            The state after the step, and the metrics.
        """
        named = self.params if networks is None else networks
        moved = [name for name in named if name not in self.frozen]
        kept = {name: params for name, params in self.params.items() if name not in moved}
        grads, metrics = jax.grad(lambda params: loss_fn(params | kept), has_aux=True)(
            {name: self.params[name] for name in moved}
        )
        params, opt_state = dict(self.params), dict(self.opt_state)
        for name in moved:
            updates, opt_state[name] = optimizers[name].update(
                grads[name], opt_state[name], params[name]
            )
            params[name] = optax.apply_updates(params[name], updates)
        if grad_norms:
            # Frozen ones too: the names of the metrics may not change in the midst of a run.
            norms = {name: optax.tree.norm(grads[name]) for name in moved}
            metrics = metrics | {
                f"grad_norm/{name}": norms.get(name, jnp.zeros(())) for name in named
            }
        return self.replace(params=params, opt_state=opt_state), metrics

    def update_targets(
        self, params: Mapping[str, Params], rates: Mapping[str, float | jax.Array]
    ) -> Self:
        """Move targets towards parameters: target <- rate * params + (1 - rate) * target.

        Args:
            params: Parameters by network.
            rates: By network, those of the targets to be moved.
        """
        moved = {
            name: optax.incremental_update(params[name], self.target_params[name], rate)
            for name, rate in rates.items()
        }
        return self.replace(target_params=self.target_params | moved)


def own_buffers(tree: Any) -> Any:
    """Copy arrays, and make arrays of numbers.

    Loops need them of fixed types, and donation each in a buffer of its own, which targets share
    with what they follow until then.
    """
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.result_type(leaf)), tree)


def delayed_update(
    every: int, number: jax.Array, update: Callable[[bool], tuple[Any, Metrics]]
) -> tuple[Any, Metrics]:
    """Update in full in each update whose number `every` divides, and else in part.

    Args:
        every: A number above 1.
        number: The number of this update, from 1, shape ().
        update: Takes whether it is in full; returns an agent and metrics, of which a part may lack
            some.

    Returns:
        The agent and the metrics of a full update. Those that parts lack are 0 there and count
        `every` times in full, so that their means over updates are those over full updates.
    """
    shared = jax.eval_shape(lambda: update(False))[1]

    def full() -> tuple[Any, Metrics]:
        agent, metrics = update(True)
        return agent, {name: x if name in shared else every * x for name, x in metrics.items()}

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(full)[1])

    def part() -> tuple[Any, Metrics]:
        agent, metrics = update(False)
        return agent, zeros | metrics

    return jax.lax.cond(number % every == 0, full, part)


def _of(what: str, name: str, params: Mapping[str, Params]) -> Params:
    """Return the parameters of one network, or say which ones there are."""
    if name not in params:
        raise UserError(f"there is no {what} {name}; there are {', '.join(params) or 'none'}")
    return params[name]
