"""How far a policy of evaluation may move an action from the base action.

An agent's trust region is no ball: training holds a mean over the batch, of the residual's square
per dimension, at delta, and single states exceed delta many times over. A budget at evaluation
therefore begins with what the agent's own refinement spends, and is measured from the base action:

- `state`: in every state by itself, the distance from the base action stays within
  max(sqrt(action_dim * delta), distance of the refined action);
- `batch`: as in training, the mean over the batch of the squared distance stays within
  max(action_dim * delta, mean for the refined actions). The batch are the episodes of one agent
  that are played side by side, so that the actions of one depend on the others; outside an
  evaluation it is the one state;
- `none`: actions stay within their bounds and nothing else.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

Budget = Literal["state", "batch", "none"]
Projection = Callable[[jax.Array], jax.Array]

BATCH = "batch"
"""Name of the axis of the episodes that are played side by side."""


def base_and_refined(agent: Any, observation: jax.Array, key: jax.Array) -> tuple:
    """Return the base action (a,) and the refined action (a,), from the noise that a key gives.

    The refined one is what an agent acts by that samples its noise as a whole from its key.
    """
    z = jax.random.normal(key, (agent.config["action_dim"],))
    base = agent.propose(observation, z)
    return base, agent.refine(observation, base)


def projection(budget: Budget, base: jax.Array, refined: jax.Array, delta: jax.Array) -> Projection:
    """Return a function that moves an action (a,) back into its bounds and into a budget.

    It shortens the way from the base action, so that an action within [-1, 1] stays within.

    Args:
        budget: See the module.
        base: Base action (a,) in [-1, 1].
        refined: What the agent's own refinement makes of it, (a,).
        delta: The agent's `trust_region()`, mean square per dimension, ().
    """
    if budget == "none":
        return clip

    def spent(action: jax.Array) -> jax.Array:
        square = jnp.sum((action - base) ** 2)
        return _batch_mean(square) if budget == "batch" else square

    allowed = jnp.maximum(base.size * delta, spent(refined))

    def project(action: jax.Array) -> jax.Array:
        action = clip(action)
        square = spent(action)
        shortened = base + jnp.sqrt(allowed / jnp.maximum(square, allowed)) * (action - base)
        return jnp.where(square > allowed, shortened, action)

    return project


def clip(action: jax.Array) -> jax.Array:
    """Return an action within its bounds, [-1, 1]."""
    return jnp.clip(action, -1, 1)


def _batch_mean(x: jax.Array) -> jax.Array:
    try:
        return jax.lax.pmean(x, BATCH)
    except NameError:  # there is no such axis
        return x
