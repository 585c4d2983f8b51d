"""DeFlow that learns delta, as far as the base flow explains the refined actions.

A variant of DeFlow (`agents/deflow.py`, arXiv 2601.10471), whose delta is set by task. Here delta
is the largest at which the base flow explains refined actions nearly as well as its own: a second
dual variable, log delta, rises while the ratio of its velocity-matching errors

    rho = E[|v(s, x_t, t) - (a_refined - x0)|^2] / E[|v(s, x_t, t) - (a_base - x0)|^2]

is below 1 + epsilon and falls while it is above. Epsilon has no dimension and no unit: for data
N(m(s), sigma^2) and their exact flow, rho is 1 + r^2 / (2 sigma^2) at actions shifted by r, for any
sigma, so that delta settles at 2 epsilon sigma^2. The paper's rule, delta = 0.1 of the intrinsic
action variance, is epsilon = 0.05 in this case.

The error at the data's actions is no such measure. A flow's own samples are narrower than the data
that it is still learning, so that it explains them better (0.82 of the error on collected
cube-single data), and the difference would all be spent on the refinement.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from agents import deflow
from utils import agent, flow
from utils.errors import UserError
from utils.metrics import Panel
from utils.networks import Scalar

# DeFlow's, but for the last column, delta, which is learned.
PUBLISHED = "\n".join(row.rpartition(" ")[0] for row in deflow.PUBLISHED.strip().splitlines())


class DeFlowLearnedDeltaAgent(deflow.DeFlowAgent):
    """DeFlow with a learned delta.

    Metrics are those of DeFlow, whose `actor/divergence_ratio` is over the present delta;
    `delta/delta` is that, `delta/error_ratio` is rho, which settles at 1 + epsilon, and
    `delta/base_error_ratio` is the error at base actions over that at the data's.
    """

    BANDIT = {"excess_error": 2.0}  # noqa: RUF012
    UNCONSTRAINED = {"excess_error": 1e6, "target_divergence": 1.0}  # noqa: RUF012
    PANELS = (
        *deflow.DeFlowAgent.PANELS,
        Panel("delta", "delta/delta", "log"),
        Panel("error at refined / at base actions", "delta/error_ratio", "log", reference=1.0),
    )
    SIGNATURES = tuple(
        dataclasses.replace(one, remedy=one.remedy.replace("target_divergence", "excess_error"))
        for one in deflow.DeFlowAgent.SIGNATURES
    )

    def refinement_loss(self, batch, params, base_actions):
        """Return DeFlow's loss plus that of delta, D, and metrics."""
        loss, divergence, metrics = super().refinement_loss(batch, params, base_actions)
        delta_loss, delta_metrics = self.delta_loss(batch, params, base_actions)
        return loss + delta_loss, divergence, metrics | delta_metrics

    def delta_loss(self, batch, params, base_actions):
        """Ascend the dual: delta grows while the base flow explains the refined actions."""
        refined_actions = self.refine(batch["observations"], base_actions)
        data_error, base_error, refined_error = (
            self.matching_error(batch["observations"], actions)
            for actions in (batch["actions"], base_actions, refined_actions)
        )
        log_delta = self.network.select("log_delta", params)()
        excess = refined_error / base_error - (1.0 + self.config.excess_error)
        return log_delta * excess, {
            "delta/delta": jnp.exp(log_delta),
            "delta/error_ratio": refined_error / base_error,
            "delta/base_error_ratio": base_error / data_error,
        }

    def matching_error(self, observations, actions):
        """Return the base flow's velocity-matching error at actions (b, a), shape ().

        Its noise is a function of the number of the update alone: the same for all that is
        compared, and for all members.
        """
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), self.network.step))
        x0 = jax.random.normal(keys[0], actions.shape)
        t = jax.random.uniform(keys[1], (len(actions), 1))
        velocity = partial(self.velocity, observations)
        return flow.matching_errors(velocity, x0, actions, t).mean()

    def dual_loss(self, params, divergence):
        """Ascend alpha's dual: it grows while the divergence exceeds the present delta."""
        excess = jax.lax.stop_gradient(divergence) - self.trust_region()
        loss = -self.network.select("log_alpha", params)() * excess
        return loss, {
            "alpha/alpha_loss": loss,
            "actor/divergence_ratio": divergence / self.trust_region(),
        }

    def trust_region(self):
        """Return delta as it is now, the mean square per dimension."""
        return jnp.exp(self.network.select("log_delta")())

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "excess_error", 1e-6, float("inf"))
        if not config["use_lagrange"]:
            raise UserError(
                "--agent.use_lagrange=False fixes alpha, and delta is learned by alpha's keeping "
                "to it: take agents/deflow.py for a fixed alpha"
            )

    @classmethod
    def networks(cls, observations, actions, config):
        """Return DeFlow's networks and log delta."""
        networks = super().networks(observations, actions, config)
        if not config["bc_only"]:
            networks["log_delta"] = (Scalar(math.log(config["target_divergence"])), ())
        return networks


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of DeFlow, and epsilon."""
    config = deflow.get_config()
    config.update(
        {
            "target_divergence": 0.001,  # where delta begins
            "excess_error": 0.05,  # epsilon, by which the error may be larger than at base actions
        }
    )
    return config
