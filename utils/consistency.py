"""Consistency models (Song et al., 2023, arXiv 2303.01469): data from any noise in one step.

The noise at a time t has the standard deviation t. A model f maps noised data at every time to the
data, so that it agrees with itself along a path, and f(x, 0.002) = x.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from utils.networks import MLP, fan_in_uniform_init

FIRST_TIME, LAST_TIME = 0.002, 80.0
FEWEST, MOST = 2, 150


def num_scales(iteration: jax.Array, iterations: int) -> jax.Array:
    """Return N (), the number of times that training distinguishes, which grows from 2 to 150.

    It is the square root of what grows linearly, rounded up, in whole numbers.

    Args:
        iteration: Updates so far, in 0 to iterations - 1, shape ().
        iterations: Length of the schedule.
    """
    counts = np.arange(FEWEST, MOST, dtype=np.int64)
    last = (counts**2 - FEWEST**2) * iterations // (MOST**2 - FEWEST**2)  # iteration with each
    return FEWEST + jnp.sum(iteration > last)


@functools.cache
def boundaries() -> np.ndarray:
    """Return the times of Karras et al., 2022 (arXiv 2206.00364), (149, 150).

    Row N - 2 has N of them, ascending, and repeats the last.
    """
    low, high = FIRST_TIME ** (1 / 7), LAST_TIME ** (1 / 7)
    share = np.arange(MOST) / (np.arange(FEWEST, MOST + 1)[:, None] - 1)
    return ((low + np.minimum(share, 1.0) * (high - low)) ** 7).astype(np.float32)


def neighbours(index: jax.Array, scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return neighbouring times, the earlier and the later, each (..., 1).

    Args:
        index: Of the earlier one, in 0 to N - 2, integers (...).
        scales: N, shape ().
    """
    times = jnp.asarray(boundaries())[scales - FEWEST]  # (150,)
    return times[index][..., None], times[index + 1][..., None]


def sample(model: Callable, z: jax.Array) -> jax.Array:
    """Sample by evaluating a model at times from 80 down to 2, with new noise between.

    Args:
        model: Maps x (..., d) and times (..., 1) to data (..., d).
        z: Standard normal (T, ..., d), the start first, for T evaluations.

    Returns:
        Samples (..., d), clipped to [-1, 1].
    """
    x = jnp.zeros_like(z[0])
    for noise, t in zip(z, np.linspace(LAST_TIME, 2.0, len(z), dtype=np.float32), strict=True):
        size = t if t == LAST_TIME else np.sqrt(t**2 - FIRST_TIME**2)
        x = model(x + size * noise, jnp.full((*x.shape[:-1], 1), t))
    return jnp.clip(x, -1.0, 1.0)


def sinusoidal_features(t: jax.Array, dim: int) -> jax.Array:
    """Map times (..., 1) to sines and cosines (..., dim) at frequencies from 1 to 1 / 10000."""
    half = dim // 2
    angle = t * np.exp(-np.log(10000.0) / (half - 1) * np.arange(half)).astype(np.float32)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class ConsistencyModel(nn.Module):
    """Consistency function of actions on an MLP, whose output vanishes at time 0.002.

    Attributes:
        hidden_dims: Width of each hidden layer.
        time_dim: Number of features of time.
    """

    hidden_dims: Sequence[int]
    time_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
        """Return the actions (..., a) that noised ones x (..., a) at times t (..., 1) come from.

        Observations are (..., o).
        """
        kind = {"activation": jax.nn.mish, "kernel_init": fan_in_uniform_init}
        features = sinusoidal_features(t, self.time_dim)
        features = MLP((2 * self.time_dim,), self.time_dim, name="time", **kind)(features)
        output = MLP(self.hidden_dims, x.shape[-1], name="hidden", **kind)(
            x, features, observations
        )
        after = t - FIRST_TIME
        of_x, of_output = 0.25 / (after**2 + 0.25), 0.5 * after / jnp.sqrt(t**2 + 0.25)
        return of_x * x + of_output * output
