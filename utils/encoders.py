"""Encoders of image observations, by name or by the path of a file.

The names are those of FQL's codebase. An encoder maps uint8 images (..., height, width, channels)
to features (..., d). Every network gets one of its own, which learns by that network's loss.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from utils.errors import UserError
from utils.python_files import named_or_from_file
from utils.train_state import Networks


class ResidualStack(nn.Module):
    """A convolution, a pooling that halves the image, and residual blocks.

    Attributes:
        channels: Of every convolution.
        num_blocks: Number of residual blocks.
    """

    channels: int
    num_blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (..., h, w, c) to (..., ceil(h / 2), ceil(w / 2), channels)."""
        convolution = partial(
            nn.Conv, self.channels, (3, 3), kernel_init=nn.initializers.xavier_uniform()
        )
        x = convolution()(x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for _ in range(self.num_blocks):
            residual = convolution()(nn.relu(x))
            x = x + convolution()(nn.relu(residual))
        return x


class ImpalaEncoder(nn.Module):
    """Residual convolutional encoder of IMPALA (Espeholt et al., 2018, arXiv 1802.01561).

    Attributes:
        channels: Of each stack.
        num_blocks: Residual blocks per stack.
        output_dim: Width of the features.
    """

    channels: Sequence[int] = (16, 32, 32)
    num_blocks: int = 2
    output_dim: int = 512

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map uint8 images (..., h, w, c) to features (..., output_dim)."""
        x = images.astype(jnp.float32) / 255.0
        for channels in self.channels:
            x = ResidualStack(channels, self.num_blocks)(x)
        x = nn.relu(x)
        x = x.reshape(*x.shape[:-3], -1)
        kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        x = nn.Dense(self.output_dim, kernel_init=kernel_init)(x)
        return nn.gelu(x, approximate=True)


ENCODERS = {
    "impala": ImpalaEncoder,
    "impala_small": partial(ImpalaEncoder, num_blocks=1),
    "impala_debug": partial(ImpalaEncoder, channels=(4, 4), num_blocks=1),
    "impala_large": partial(ImpalaEncoder, channels=(64, 128, 128), output_dim=1024),
}


def make_encoder(name: str) -> nn.Module:
    """Return an encoder by its name, or from a Python file that defines `make_encoder()`.

    Raises:
        UserError: There is no such encoder, or the file does not give one.
    """
    return named_or_from_file(name, ENCODERS, "--agent.encoder", "make_encoder()")()


class Encoded(nn.Module):
    """A network behind an encoder of its first input.

    Attributes:
        encoder: Maps observations to features.
        head: The network, of the features and the other inputs.
    """

    encoder: nn.Module
    head: nn.Module

    def __call__(self, observations: jax.Array, *inputs: jax.Array, **keywords: Any) -> jax.Array:
        """Return what the head makes of the features."""
        return self.decode(self.encode(observations), *inputs, **keywords)

    def encode(self, observations: jax.Array) -> jax.Array:
        """Return the features (..., d)."""
        return self.encoder(observations)

    def decode(self, features: jax.Array, *inputs: jax.Array, **keywords: Any) -> jax.Array:
        """Return what the head makes of features (..., d)."""
        return self.head(features, *inputs, **keywords)


def encode_once(network: Callable, observations: jax.Array) -> Callable:
    """Return a network as a function of its other inputs.

    An image is encoded now, and not in every call: in a loop that a gradient passes, the encoder
    would be passed backwards in each round.

    Args:
        network: What `select` returned.
        observations: Its first input, (..., o) or uint8 images (..., height, width, channels).
    """
    if observations.dtype != jnp.uint8:
        return partial(network, observations)
    return partial(network, network(observations, method="encode"), method="decode")


def encode_images(networks: Networks, config: Mapping[str, Any]) -> Networks:
    """Put every network whose first input is a batch of images behind an encoder of its own.

    Args:
        networks: An agent's table of networks.
        config: Its settings, of which `encoder` is a name or path.

    Raises:
        UserError: There are images and no encoder.
    """
    table = {}
    for name, (module, inputs, *keywords) in networks.items():
        if inputs and jnp.ndim(inputs[0]) == 4:
            if not config.get("encoder"):
                raise UserError(
                    f"observations are images {jnp.shape(inputs[0])[1:]}, and the agent has no "
                    f"encoder for them: give --agent.encoder, one of {', '.join(ENCODERS)} or the "
                    "path of a Python file (an agent needs a setting `encoder` for that)"
                )
            module = Encoded(make_encoder(config["encoder"]), module)
        table[name] = (module, inputs, *keywords)
    return table
