"""Flow matching on straight paths (Lipman et al., 2023, arXiv 2210.02747): loss, solver, score."""

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


def blur(t: float) -> float:
    """Return the standard deviation (1 - t) / t of the noise in x_t / t, see `score`."""
    return (1.0 - t) / t


def score(velocity: Velocity, x: jax.Array, t: float) -> jax.Array:
    """Return the score of the data's density, blurred by noise of deviation (1 - t) / t.

    On a straight path from Gaussian noise, x_t = (1 - t) x0 + t x1, the flow's velocity at x_t is
    E[x1 - x0 | x_t], and x0 = x_t - t (x1 - x0), so that E[x0 | x_t] = x_t - t v(x_t, t). Given x1,
    x_t is Gaussian around t x1 with deviation 1 - t. Hence, by Tweedie's formula, the score of its
    density p_t is -E[x0 | x_t] / (1 - t). The point x = x_t / t is data plus noise of deviation
    (1 - t) / t; its density is proportional to p_t(t x), with the score t grad log p_t(t x), which
    is t^2 (v(t x, t) - x) / (1 - t).

    An error of the velocity is multiplied by t^2 / (1 - t), 8 at t = 0.9 and 98 at t = 0.99: near
    t = 1 the score is ill-conditioned, and far from it the data are blurred beyond recognition.

    Args:
        velocity: Maps x (..., d) and t (..., 1) to dx/dt (..., d), learnt by `matching_errors`.
        x: Where the score is wanted, on the scale of the data, shape (..., d).
        t: Time in (0, 1).

    Returns:
        The gradient of the log density, shape (..., d).
    """
    times = jnp.full((*x.shape[:-1], 1), t, x.dtype)
    return t**2 / (1.0 - t) * (velocity(t * x, times) - x)
