"""Network building blocks: a plain MLP, critics, a Gaussian actor, and a learnable scalar."""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from utils.distributions import Gaussian, TanhGaussian

gelu = partial(nn.gelu, approximate=True)
uniform_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
small_uniform_init = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
"""Kernels of an actor's last layer, whose first actions are then close to 0."""
fan_in_uniform_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Kernels within +-1/sqrt(fan_in), PyTorch's default."""


class MLP(nn.Module):
    """Multi-layer perceptron on the concatenation of its inputs, with a linear last layer.

    Attributes:
        hidden_dims: Width of each hidden layer.
        output_dim: Width of the output; None returns the last hidden layer.
        layer_norm: Whether each hidden layer ends with LayerNorm, after the activation.
        activation: Of the hidden layers.
        kernel_init: Of the hidden layers.
        output_init: Of the last layer; by default `kernel_init`.
    """

    hidden_dims: Sequence[int]
    output_dim: int | None
    layer_norm: bool = False
    activation: Callable = gelu
    kernel_init: Callable = uniform_init
    output_init: Callable | None = None

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Map arrays (..., d_1), (..., d_2), ... to (..., output_dim)."""
        x = jnp.concatenate(inputs, axis=-1)  # (..., d_1 + d_2 + ...)
        for width in self.hidden_dims:
            x = nn.Dense(width, kernel_init=self.kernel_init)(x)
            x = self.activation(x)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
        if self.output_dim is None:
            return x
        return nn.Dense(self.output_dim, kernel_init=self.output_init or self.kernel_init)(x)


class EnsembleCritic(nn.Module):
    """Independent Q-functions evaluated together; parameters carry the ensemble axis first.

    Attributes:
        hidden_dims: Width of each hidden layer of one member.
        num_critics: Number of members.
        layer_norm: Whether the members use LayerNorm.
        activation: As of `MLP`, like the two that follow.
        kernel_init: Of the hidden layers.
        output_init: Of the last layer.
    """

    hidden_dims: Sequence[int]
    num_critics: int = 2
    layer_norm: bool = True
    activation: Callable = gelu
    kernel_init: Callable = uniform_init
    output_init: Callable | None = None

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Return Q-values (num_critics, ...) of observations (..., o) and actions (..., a)."""
        ensemble = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=0,
            axis_size=self.num_critics,
        )
        members = ensemble(
            self.hidden_dims,
            1,
            self.layer_norm,
            self.activation,
            self.kernel_init,
            self.output_init,
            name="members",
        )
        q = members(observations, actions)
        return q.squeeze(-1)  # (num_critics, ...)


class Value(nn.Module):
    """State-value function.

    Attributes:
        hidden_dims: Width of each hidden layer.
        layer_norm: Whether it uses LayerNorm.
        activation: As of `MLP`, like the one that follows.
        kernel_init: Of all layers.
    """

    hidden_dims: Sequence[int]
    layer_norm: bool = True
    activation: Callable = gelu
    kernel_init: Callable = uniform_init

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Return values (...) of observations (..., o)."""
        mlp = MLP(self.hidden_dims, 1, self.layer_norm, self.activation, self.kernel_init)
        return mlp(observations).squeeze(-1)


class GaussianActor(nn.Module):
    """Gaussian policy, with tanh or without, whose first actions are close to 0.

    Attributes:
        hidden_dims: Width of each hidden layer.
        action_dim: Width of the actions.
        layer_norm: Whether it uses LayerNorm.
        std: 'one', 'vector' (learnt, the same in all states) or 'state' (a second head).
        tanh: Whether actions are squashed.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    layer_norm: bool = False
    std: str = "one"
    tanh: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> Gaussian | TanhGaussian:
        """Return the distribution of actions (..., action_dim) at observations (..., o)."""
        head = partial(nn.Dense, self.action_dim, kernel_init=small_uniform_init)
        features = MLP(self.hidden_dims, None, self.layer_norm, name="hidden")(observations)
        mean = head(name="mean")(features)
        if self.std == "state":
            log_std = head(name="log_std")(features)
        elif self.std == "vector":
            log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        else:
            log_std = jnp.zeros(())
        gaussian = Gaussian(mean, jnp.broadcast_to(jnp.clip(log_std, -5.0, 2.0), mean.shape))
        return TanhGaussian(gaussian) if self.tanh else gaussian


class Scalar(nn.Module):
    """One learnable number, such as the logarithm of a Lagrange multiplier."""

    initial_value: float

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return the number, shape ()."""
        return self.param("value", nn.initializers.constant(self.initial_value), ())
