"""DeFlow whose trust region has the shape of the base flow's samples at the state.

A variant of DeFlow (`agents/deflow.py`, arXiv 2601.10471), which holds the mean square of the
residual at delta in every direction alike. Here a residual is measured by the covariance C(s) of
base actions at the same state, scaled to the trace of the identity,

    D = mean over s of r^T S(s)^-1 r / action_dim,  S = (1 - w) action_dim C / tr C + w I,

so that it costs less where the data's actions vary and more where they do not. A residual that is
distributed as N(0, delta S) has D = delta and a mean square of delta per dimension, which keeps
delta's meaning; where base actions do not vary at all, D is DeFlow's.
"""

import jax
import jax.numpy as jnp
import ml_collections

from agents import deflow
from utils import agent

# Those of DeFlow, none of which was chosen for this variant.
PUBLISHED = deflow.PUBLISHED


class DeFlowAnisotropicAgent(deflow.DeFlowAgent):
    """DeFlow with an anisotropic trust region.

    Metrics are those of DeFlow, whose divergence is D here; `actor/mean_square` is the mean square
    of the residual per dimension.
    """

    def refinement_loss(self, batch, params, base_actions):
        """Return -Q / sg[mean |Q|] + sg[alpha] * D, D, and metrics."""
        loss, mean_square, metrics = super().refinement_loss(batch, params, base_actions)
        residual = self.network.select("refinement", params)(batch["observations"], base_actions)
        factor = jnp.linalg.cholesky(self.shape(batch["observations"]))  # (b, a, a)
        whitened = jax.scipy.linalg.solve_triangular(factor, residual[..., None], lower=True)
        divergence = jnp.mean(whitened**2)  # over (b, a)
        alpha = jax.lax.stop_gradient(self.alpha(params))
        metrics |= {"actor/divergence": divergence, "actor/mean_square": mean_square}
        return loss + alpha * (divergence - mean_square), divergence, metrics

    def shape(self, observations):
        """Return S (b, a, a) at observations (b, o), from samples of the base flow.

        Their noise is a function of the number of the update alone, the same for all members.
        """
        count, action_dim = self.config.covariance_samples, self.config.action_dim
        key = jax.random.fold_in(jax.random.key(0), self.network.step)
        z = jax.random.normal(key, (len(observations), count, action_dim))
        samples = self.propose(agent.repeat(observations, count, 1), z)  # (b, K, a)
        centred = samples - samples.mean(axis=1, keepdims=True)
        identity = jnp.eye(action_dim)
        # The little that is added makes equal samples the identity.
        covariance = jnp.einsum("bki,bkj->bij", centred, centred) / (count - 1) + 1e-8 * identity
        scale = action_dim / jnp.trace(covariance, axis1=1, axis2=2)[:, None, None]
        weight = self.config.isotropic_weight
        return (1 - weight) * scale * covariance + weight * identity

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "covariance_samples", 2, float("inf"))
        agent.require_range(config, "isotropic_weight", 1e-3, 1.0)


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of DeFlow, and those of the trust region's shape."""
    config = deflow.get_config()
    config.update(
        {
            "covariance_samples": 16,  # K, base actions per state of a batch
            "isotropic_weight": 0.2,  # w, of the identity; 1 is DeFlow
        }
    )
    return config
