"""Random crops: their pixels, and what shares them."""

import jax
import jax.numpy as jnp
import numpy as np

from utils.augmentation import PADDING, crop, random_crop

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 7, 5, 4), np.uint8)


def test_a_crop_is_a_window_of_the_image_with_its_border_repeated():
    offsets = np.random.default_rng(1).integers(0, 2 * PADDING + 1, (30, 2))
    padded = np.pad(IMAGES, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    expected = [
        image[row : row + 7, column : column + 5]
        for image, (row, column) in zip(padded, offsets, strict=True)
    ]
    found = crop(jnp.asarray(IMAGES), jnp.asarray(offsets))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def all_offsets():
    return np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), -1).reshape(-1, 2)


def offset_of(image, cropped):
    """The offset by which a crop was made; None if there is none."""
    for offset in all_offsets():
        if np.array_equal(crop(image[None], offset[None])[0], cropped):
            return tuple(offset)
    return None


def test_a_rows_images_share_their_offset_and_rows_do_not():
    batch = {
        "observations": IMAGES[:12],
        "next_observations": IMAGES[12:24],
        "rewards": IMAGES[:12, 0, 0, 0],
    }
    found = random_crop(jax.random.key(0), jax.tree.map(jnp.asarray, batch), 1.0)
    offsets = [
        [offset_of(image, cropped) for image, cropped in zip(batch[name], found[name], strict=True)]
        for name in ("observations", "next_observations")
    ]
    assert offsets[0] == offsets[1]
    assert None not in offsets[0]
    assert len(set(offsets[0])) > 6
    np.testing.assert_array_equal(found["rewards"], batch["rewards"])


def test_one_coin_decides_for_the_batch():
    image = jnp.asarray(IMAGES[:1].repeat(40, 0))
    keys = jax.random.split(jax.random.key(0), 200)
    cropped = jax.jit(jax.vmap(lambda key: random_crop(key, {"x": image}, 0.3)["x"]))(keys)
    changed = (cropped != image).any(axis=(2, 3, 4)).mean(axis=1)  # 48 of 49 offsets do
    assert set(changed[changed < 0.8].tolist()) == {0.0}
    assert 0.2 < (changed > 0.8).mean() < 0.4


def test_offsets_are_uniform():
    ramp = np.arange(7, dtype=np.uint8)[:, None, None] * np.ones((1, 7, 1), np.uint8)
    images = jnp.asarray(np.broadcast_to(ramp, (7000, 7, 7, 1)))
    found = random_crop(jax.random.key(0), {"x": images}, 1.0)["x"][:, 3, 3, 0]  # the row's offset
    counts = np.bincount(np.asarray(found), minlength=7)
    assert abs(counts - 1000).max() < 150
