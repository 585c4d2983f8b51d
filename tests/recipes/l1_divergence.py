"""A changed loss: DeFlow's divergence is the mean absolute residual. One line is another.

The other way is a copy: `cp agents/deflow.py my_agent.py`, and edit that line there.

python main.py --env_name=./my_task.py --agent=./l1_divergence.py
"""

import jax
import jax.numpy as jnp

from agents import deflow

get_config = deflow.get_config
PUBLISHED = deflow.PUBLISHED


class L1Agent(deflow.DeFlowAgent):
    """DeFlow with another divergence."""

    def refinement_loss(self, batch, params, base_actions):
        """Return -Q / sg[mean |Q|] + sg[alpha] * D, D, and metrics."""
        residual = self.network.select("refinement", params)(batch["observations"], base_actions)
        actions = base_actions + residual  # (b, a), before clipping
        q = self.network.select("critic")(batch["observations"], jnp.clip(actions, -1, 1)).mean(0)
        q_abs = jnp.abs(q).mean()
        q_loss = -q.mean()
        if self.config.normalize_q_loss:
            q_loss = q_loss / jax.lax.stop_gradient(q_abs)
        divergence = jnp.mean(jnp.abs(residual))  # the line: it was residual**2
        alpha = jax.lax.stop_gradient(self.alpha(params))
        metrics = {
            "actor/q_loss": q_loss,
            "actor/divergence": divergence,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 1.0),
            "critic/q_abs": q_abs,
            "alpha/alpha": alpha,
        }
        return q_loss + alpha * divergence, divergence, metrics
