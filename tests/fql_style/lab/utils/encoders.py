"""Encoders of images of the lab's agents. This library has a module of the same name."""

import flax.linen as nn
import jax.numpy as jnp


class OneConvolution(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 2))(x.astype(jnp.float32) / 255.0))
        return nn.Dense(8)(x.reshape((*x.shape[:-3], -1)))


encoder_modules = {"one_convolution": OneConvolution}
