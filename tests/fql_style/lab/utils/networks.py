"""Networks of the lab's agents. This library has a module of the same name."""

import flax.linen as nn
import jax.numpy as jnp


class Perceptron(nn.Module):
    widths: tuple
    outputs: int

    @nn.compact
    def __call__(self, *inputs):
        x = jnp.concatenate(inputs, axis=-1)
        for width in self.widths:
            x = nn.gelu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


class Value(nn.Module):
    widths: tuple

    @nn.compact
    def __call__(self, *inputs):
        return Perceptron(self.widths, 1)(*inputs)[..., 0]
