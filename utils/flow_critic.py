"""Velocity fields over returns: critics whose value is where a flow ends (arXiv 2509.06863)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from utils import flow
from utils.networks import MLP


@dataclasses.dataclass(frozen=True)
class ReturnRange:
    """Interval of returns.

    Attributes:
        low: Smallest return.
        high: Largest return.
    """

    low: float
    high: float

    @classmethod
    def of_rewards(cls, low: float, high: float, discount: float) -> Self:
        """Return the range of endless episodes that have rewards from `low` to `high`."""
        return cls(low / (1.0 - discount), high / (1.0 - discount))

    def at(self, ratio: jax.Array) -> jax.Array:
        """Return the points at ratios in [0, 1] of the way from low to high, of any shape."""
        return (1.0 - ratio) * self.low + ratio * self.high

    def ratio(self, x: jax.Array) -> jax.Array:
        """Return the ratios at which points lie, of any shape."""
        return (x - self.low) / (self.high - self.low)


def hl_gauss(x: jax.Array, returns: ReturnRange, num_bins: int, sigma: float) -> jax.Array:
    """Embed scalars as a histogram of a Gaussian around them (HL-Gauss, arXiv 2403.03950).

    Differences of the distribution function are taken in the tail where they are exact, and x
    outside the range by more than 8 standard deviations is taken for the point there. Both keep
    the histogram from 0 / 0.

    Args:
        x: Scalars (..., 1).
        returns: Where the bins are.
        num_bins: Number of their edges.
        sigma: Standard deviation, in widths of a bin.

    Returns:
        Probabilities (..., num_bins - 1) that sum to 1.
    """
    edges = jnp.linspace(returns.low, returns.high, num_bins)
    deviation = sigma * (returns.high - returns.low) / (num_bins - 1)
    x = jnp.clip(x, returns.low - 8.0 * deviation, returns.high + 8.0 * deviation)
    z = (edges - x) / deviation  # (..., num_bins)
    left, right = z[..., :-1], z[..., 1:]
    side = jnp.where(left > 0, -1.0, 1.0)  # a bin on the right is mirrored to the exact tail
    cdf = jax.scipy.special.ndtr
    mass = side * (cdf(side * right) - cdf(side * left))
    return mass / mass.sum(axis=-1, keepdims=True)


def fourier_features(t: jax.Array, count: int) -> jax.Array:
    """Return cos(pi k t) (..., count) for k = 1 to `count` of times (..., 1)."""
    return jnp.cos(jnp.pi * jnp.arange(1, count + 1) * t)


class FlowCritic(nn.Module):
    """Independent velocity fields over scalar returns; parameters carry the ensemble axis first.

    Attributes:
        hidden_dims: Width of each hidden layer of one member.
        embed_return: Maps points (..., 1) to features.
        embed_time: Maps times (..., 1) to features.
        num_members: Number of members.
        layer_norm: Whether the members use LayerNorm.
    """

    hidden_dims: Sequence[int]
    embed_return: Callable
    embed_time: Callable
    num_members: int = 2
    layer_norm: bool = True

    @nn.compact
    def __call__(
        self, observations: jax.Array, actions: jax.Array, x: jax.Array, t: jax.Array
    ) -> jax.Array:
        """Return velocities (members, ..., 1).

        Args:
            observations: (..., o).
            actions: (..., a).
            x: Points (..., 1) that all members share, or those of each, (members, ..., 1).
            t: Times, the same.
        """
        shape = (self.num_members, *actions.shape[:-1], 1)
        members = nn.vmap(
            MLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(None, None, 0, 0),
            out_axes=0,
            axis_size=self.num_members,
        )(self.hidden_dims, 1, self.layer_norm, name="members")
        x, t = jnp.broadcast_to(x, shape), jnp.broadcast_to(t, shape)
        return members(observations, actions, self.embed_return(x), self.embed_time(t))


def solve(critic: flow.Velocity, x0: jax.Array, num_members: int, num_steps: int) -> jax.Array:
    """Return the returns (members, ...) at which every member's flow ends.

    Args:
        critic: The members' velocities (members, ..., 1) at points and times of that shape.
        x0: Start, which all members share, (..., 1).
        num_members: Number of members.
        num_steps: Number of Euler steps.
    """
    start = jnp.broadcast_to(x0, (num_members, *x0.shape))
    return flow.euler(critic, start, num_steps).squeeze(-1)
