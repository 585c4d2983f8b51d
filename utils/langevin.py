"""Langevin dynamics on actions: steps along a drift, with noise, projected after each."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def chain(
    drift: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    key: jax.Array,
    steps: int,
    step_size: float,
    project: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
    """Run the unadjusted Langevin algorithm, x <- project(x + eta drift(x) + sqrt(2 eta) noise).

    With drift = grad log p and without a projection its stationary distribution is p up to a bias
    in proportion to eta: the variance s^2 of a Gaussian becomes s^2 / (1 - eta / (2 s^2)). It
    diverges from eta = 2 s^2 on. With a projection it is projected Langevin Monte Carlo (Bubeck,
    Eldan and Lehec, 2015, arXiv 1507.02564), and p is restricted to the set.

    Args:
        drift: Maps (..., d) to (..., d).
        start: Where it begins, (..., d).
        key: Of the noise.
        steps: Number of steps; 0 returns the start.
        step_size: eta.
        project: Applied after each step.

    Returns:
        The state after the last step, (..., d).
    """

    def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        noise = jax.random.normal(key, x.shape, x.dtype)
        return project(x + step_size * drift(x) + jnp.sqrt(2 * step_size) * noise), None

    return jax.lax.scan(step, start, jax.random.split(key, steps))[0]
