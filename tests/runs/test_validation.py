"""Held-out batches of images, which are cropped as those of training are."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from utils.runs.validation import Validation


class Sums:
    """In the place of an agent's class: its loss is what it sees of each image's first pixel."""

    @staticmethod
    def evaluate_loss(agent, batch, key):
        """Return sums over the batch."""
        images = {"observations": batch["observations"], "next": batch["next_observations"]}
        return {name: jnp.sum(x[:, 0, 0, 0], dtype=jnp.int32) for name, x in images.items()}


def test_held_out_images_are_cropped_with_their_probability():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 6, 3), np.uint8)
    val = {"observations": images, "next_observations": images, "actions": np.zeros((50, 2))}
    val |= {"rewards": np.zeros(50), "masks": np.zeros(50)}
    data = SimpleNamespace(val=val, columns=())

    def sums(p_aug):
        validation = Validation(Sums, data, 8, p_aug, np.arange(2), None)
        return [validation.losses(jnp.zeros(2), step) for step in range(10)]

    as_they_are, sometimes, always = map(sums, (0.0, 0.5, 1.0))
    for found in (*as_they_are, *sometimes, *always):  # a row's images share their crop
        np.testing.assert_array_equal(found["observations"], found["next"])

    def cropped(found):
        pairs = zip(found, as_they_are, strict=True)
        return np.mean([one["next"] != other["next"] for one, other in pairs])

    assert cropped(always) > 0.9
    assert 0.2 < cropped(sometimes) < 0.8
