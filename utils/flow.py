"""Flow matching on straight paths (Lipman et al., 2023, arXiv 2210.02747) and its Euler solver."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

Velocity = Callable[[jax.Array, jax.Array], jax.Array]


def straight_path(x0: jax.Array, x1: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Point at time `t` of the straight path from noise to data, and its constant velocity.

    Args:
        x0: Noise, shape (..., d).
        x1: Data, shape (..., d).
        t: Time in [0, 1], shape (..., 1).

    Returns:
        x_t = (1 - t) x0 + t x1 and the regression target x1 - x0, each (..., d).
    """
    return (1.0 - t) * x0 + t * x1, x1 - x0


def matching_errors(velocity: Velocity, x0: jax.Array, x1: jax.Array, t: jax.Array) -> jax.Array:
    """Return the squared errors of flow matching, whose mean over all elements is its loss.

    Args:
        velocity: Maps x (..., d) and t (..., 1) to dx/dt (..., d), or for several members to
            (members, ..., d).
        x0: Noise, shape (..., d).
        x1: Data, shape (..., d).
        t: Time in [0, 1], shape (..., 1).

    Returns:
        What `velocity` returns minus the path's velocity, squared.
    """
    x_t, target = straight_path(x0, x1, t)
    predicted = velocity(x_t, t)
    chex.assert_shape(target, predicted.shape[predicted.ndim - target.ndim :])
    return (predicted - target) ** 2


def euler(velocity: Velocity, x0: jax.Array, num_steps: int) -> jax.Array:
    """Integrate dx/dt = velocity(x, t) from t = 0 to 1 in equal explicit Euler steps.

    Args:
        velocity: Maps x (..., d) and t (..., 1) to dx/dt (..., d).
        x0: Start at t = 0, shape (..., d).
        num_steps: Number of steps; step i evaluates the velocity at t = i / num_steps.

    Returns:
        The state at t = 1, shape (..., d).
    """

    def step(i: jax.Array, x: jax.Array) -> jax.Array:
        t = jnp.full((*x.shape[:-1], 1), i / num_steps, x.dtype)
        return x + velocity(x, t) / num_steps

    return jax.lax.fori_loop(0, num_steps, step, x0)
