"""Parts of losses that several agents share and none of them is about."""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp


def expectile_loss(difference: jax.Array, expectile: float) -> jax.Array:
    """Return the mean asymmetric squared difference (Kostrikov et al., 2021, arXiv 2110.06169).

    Args:
        difference: Target minus prediction, of any shape.
        expectile: Weight of positive differences; negative ones get 1 - expectile.

    Returns:
        The mean over all elements, shape ().
    """
    weight = jnp.where(difference >= 0, expectile, 1.0 - expectile)
    return jnp.mean(weight * difference**2)


def td_target(batch: Mapping[str, jax.Array], next_value: jax.Array, discount: float) -> jax.Array:
    """Return the one-step target r + discount * mask * next_value.

    Args:
        batch: rewards and masks (b,).
        next_value: Value of the next states, (b,).
        discount: Factor per step.

    Returns:
        The target (b,).
    """
    return batch["rewards"] + discount * batch["masks"] * next_value


def ensemble_mse(q: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean squared error of all members.

    Args:
        q: Values (ensemble, b).
        target: What each of them regresses on, (b,).

    Returns:
        The mean over members and batch, shape ().
    """
    chex.assert_shape(target, q.shape[1:])
    return jnp.mean((q - target) ** 2)
