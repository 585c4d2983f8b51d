"""Network building blocks: a plain MLP, an ensemble of it, and a learnable scalar."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """Multi-layer perceptron on the concatenation of its inputs, with a linear last layer.

    Attributes:
        hidden_dims: Width of each hidden layer.
        output_dim: Width of the output.
        layer_norm: Whether each hidden layer ends with LayerNorm, after the activation.
    """

    hidden_dims: Sequence[int]
    output_dim: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Map arrays (..., d_1), (..., d_2), ... to (..., output_dim)."""
        kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        x = jnp.concatenate(inputs, axis=-1)  # (..., d_1 + d_2 + ...)
        for width in self.hidden_dims:
            x = nn.Dense(width, kernel_init=kernel_init)(x)
            x = nn.gelu(x, approximate=True)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
        return nn.Dense(self.output_dim, kernel_init=kernel_init)(x)


class EnsembleCritic(nn.Module):
    """Independent Q-functions evaluated together; parameters carry the ensemble axis first.

    Attributes:
        hidden_dims: Width of each hidden layer of one member.
        num_critics: Number of members.
        layer_norm: Whether the members use LayerNorm.
    """

    hidden_dims: Sequence[int]
    num_critics: int = 2
    layer_norm: bool = True

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
        q = ensemble(self.hidden_dims, 1, self.layer_norm, name="members")(observations, actions)
        return q.squeeze(-1)  # (num_critics, ...)


class Scalar(nn.Module):
    """One learnable number, such as the logarithm of a Lagrange multiplier."""

    initial_value: float

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return the number, shape ()."""
        return self.param("value", nn.initializers.constant(self.initial_value), ())
