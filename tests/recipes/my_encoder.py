"""An encoder of images, for any agent that has a setting `encoder`; its file stays as it is.

python main.py --env_name=./my_images.py --agent.encoder=./my_encoder.py
"""

import flax.linen as nn
import jax.numpy as jnp


class TinyEncoder(nn.Module):
    """One convolution and one dense layer."""

    @nn.compact
    def __call__(self, images):
        """Map uint8 images (..., h, w, c) to features (..., 16)."""
        x = images.astype(jnp.float32) / 255.0
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 2))(x))
        return nn.relu(nn.Dense(16)(x.reshape(*x.shape[:-3], -1)))


def make_encoder():
    """Return a flax module; every network gets one of its own."""
    return TinyEncoder()
