"""Random crops of images, as in FQL's codebase (Park et al., 2025, arXiv 2502.02538)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

PADDING = 3
"""Most pixels that an image is shifted by."""


def crop(images: jax.Array, offsets: jax.Array) -> jax.Array:
    """Crop images to their own size after their borders have been repeated `PADDING` times.

    Args:
        images: (b, height, width, channels).
        offsets: Row and column of each crop in the padded image, (b, 2) in 0 .. 2 * PADDING;
            PADDING leaves the image as it is.

    Returns:
        The crops, (b, height, width, channels).
    """
    height, width = images.shape[1:3]

    def one(image: jax.Array, offset: jax.Array) -> jax.Array:
        rows = jnp.clip(jnp.arange(height) + offset[0] - PADDING, 0, height - 1)
        columns = jnp.clip(jnp.arange(width) + offset[1] - PADDING, 0, width - 1)
        return image[rows[:, None], columns]

    return jax.vmap(one)(images, offsets)


def random_crop(
    key: jax.Array, batch: Mapping[str, jax.Array], probability: float
) -> dict[str, jax.Array]:
    """Crop all images of a batch at random, or none of them.

    One coin decides for the batch. A row's images share its offset: all frames of a stack, and the
    next observation.

    Args:
        key: Of coin and offsets.
        batch: Columns (b, ...) by name; those with four dimensions are images.
        probability: Of cropping.
    """
    coin_key, offset_key = jax.random.split(key)
    size = len(next(iter(batch.values())))
    offsets = jax.random.randint(offset_key, (size, 2), 0, 2 * PADDING + 1)
    heads = jax.random.uniform(coin_key) < probability
    offsets = jnp.where(heads, offsets, PADDING)
    return {name: crop(x, offsets) if x.ndim == 4 else x for name, x in batch.items()}
