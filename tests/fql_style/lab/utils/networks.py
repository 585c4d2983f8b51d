"""Networks of the lab's agents. This library has a module of the same name."""

import flax.linen as nn
import jax.numpy as jnp


class Perceptron(nn.Module):
    widths: tuple
    outputs: int
    encoder: nn.Module = None

    @nn.compact
    def __call__(self, observations, *inputs, is_encoded=False):
        if self.encoder is not None and not is_encoded:
            observations = self.encoder(observations)
        x = jnp.concatenate([observations, *inputs], axis=-1)
        for width in self.widths:
            x = nn.gelu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


class Value(nn.Module):
    widths: tuple
    encoder: nn.Module = None

    @nn.compact
    def __call__(self, *inputs):
        return Perceptron(self.widths, 1, self.encoder)(*inputs)[..., 0]
