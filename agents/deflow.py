"""DeFlow: a multi-step flow policy of the data, refined by a small MLP inside a trust region.

"DeFlow: Decoupling Manifold Modeling and Value Maximization for Offline Policy Extraction",
arXiv 2601.10471. The policy is

    a = clip(mu(s, z) + f(s, mu(s, z))),  z ~ N(0, I),

where the base flow mu imitates the data by flow matching and the refinement f climbs Q while the
mean square of its residual is held at delta by a Lagrange multiplier alpha.
"""

import jax
import jax.numpy as jnp
import ml_collections

from utils import agent as base
from utils import flow
from utils.errors import UserError
from utils.networks import MLP, EnsembleCritic, Scalar


class DeFlowAgent(base.Agent):
    """DeFlow with automatic alpha, with a fixed alpha, or reduced to behaviour cloning."""

    def critic_loss(self, batch, params, next_base_actions):
        """Squared TD error of every ensemble member against r + gamma * mask * Q'(s', a')."""
        next_actions = self.refine(batch["next_observations"], next_base_actions)
        next_q = self.network.select_target("critic")(batch["next_observations"], next_actions)
        next_q = base.aggregate(next_q, self.config.q_agg)  # (b,)
        target_q = batch["rewards"] + self.config.discount * batch["masks"] * next_q

        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = jnp.mean((q - target_q) ** 2)  # over (ensemble, b)
        metrics = {"critic/critic_loss": loss, "critic/q_mean": q.mean(), "critic/q_max": q.max()}
        return loss, metrics

    def flow_loss(self, batch, params, noise):
        """Velocity matching of the base flow on straight paths from noise to data."""
        x_t, velocity = flow.straight_path(noise["x0"], batch["actions"], noise["t"])
        predicted = self.network.select("base_flow", params)(batch["observations"], x_t, noise["t"])
        loss = jnp.mean((predicted - velocity) ** 2)  # over (b, a)
        return loss, {"flow/flow_loss": loss}

    def refinement_loss(self, batch, params, base_actions):
        """-Q / sg[mean |Q|] + sg[alpha] * D, where D is the mean square of the residual."""
        residual = self.network.select("refinement", params)(batch["observations"], base_actions)
        actions = base_actions + residual  # (b, a), before clipping
        q = self.network.select("critic")(batch["observations"], jnp.clip(actions, -1, 1)).mean(0)
        q_abs = jnp.abs(q).mean()
        q_loss = -q.mean()
        if self.config.normalize_q_loss:
            q_loss = q_loss / jax.lax.stop_gradient(q_abs)
        divergence = jnp.mean(residual**2)  # over (b, a)
        alpha = jax.lax.stop_gradient(self.alpha(params))
        return q_loss + alpha * divergence, {
            "actor/q_loss": q_loss,
            "actor/divergence": divergence,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 1.0),
            "critic/q_abs": q_abs,
            "alpha/alpha": alpha,
        }

    def dual_loss(self, params, divergence):
        """Dual ascent: alpha grows while the divergence exceeds its target and shrinks below."""
        log_alpha = self.network.select("log_alpha", params)()
        excess = jax.lax.stop_gradient(divergence) - self.config.target_divergence
        loss = -log_alpha * excess
        return loss, {
            "alpha/alpha_loss": loss,
            "actor/divergence_ratio": divergence / self.config.target_divergence,
        }

    def total_loss(self, batch, params, noise):
        """Sum of all losses, minimised by one optimiser step."""
        loss, metrics = self.flow_loss(batch, params, noise)
        if self.config.bc_only:
            return loss, metrics

        # One pass of the flow with the stored parameters serves s and s': no gradient enters it.
        both_base_actions = self.base_actions(
            jnp.concatenate([batch["observations"], batch["next_observations"]]),
            jnp.concatenate([noise["z"], noise["next_z"]]),
        )  # (2 b, a)
        base_actions, next_base_actions = jnp.split(both_base_actions, 2)

        critic_loss, critic_metrics = self.critic_loss(batch, params, next_base_actions)
        refinement_loss, refinement_metrics = self.refinement_loss(batch, params, base_actions)
        loss = loss + critic_loss + refinement_loss
        metrics |= critic_metrics | refinement_metrics
        if self.config.use_lagrange:
            dual_loss, dual_metrics = self.dual_loss(params, metrics["actor/divergence"])
            loss = loss + dual_loss
            metrics |= dual_metrics
        return loss, metrics

    def draw_noise(self, rng, batch):
        """Flow matching's x0 (b, a) and t (b, 1); the starts z, next_z (b, a) of the base flow."""
        keys = jax.random.split(rng, 4)
        shape = batch["actions"].shape
        return {
            "x0": jax.random.normal(keys[0], shape),
            "t": jax.random.uniform(keys[1], (*shape[:-1], 1)),
            "z": jax.random.normal(keys[2], shape),
            "next_z": jax.random.normal(keys[3], shape),
        }

    def alpha(self, params=None):
        """The multiplier of the divergence, shape ()."""
        if self.config.use_lagrange:
            return jnp.exp(self.network.select("log_alpha", params)())
        return jnp.asarray(self.config.alpha)

    def base_actions(self, observations, z):
        """Solve the base flow from z (..., a) at observations (..., o); returns (..., a)."""
        base_flow = self.network.select("base_flow")
        actions = flow.euler(lambda x, t: base_flow(observations, x, t), z, self.config.flow_steps)
        return jnp.clip(actions, -1, 1)

    def refine(self, observations, base_actions):
        """Policy's actions (..., a) in [-1, 1] from base actions (..., a), stored parameters."""
        residual = self.network.select("refinement")(observations, base_actions)
        return jnp.clip(base_actions + residual, -1, 1)

    def sample_actions(self, observations, rng):
        """Draw actions (..., a) in [-1, 1] for observations (..., o) of any batch shape."""
        z = jax.random.normal(rng, (*observations.shape[:-1], self.config.action_dim))
        actions = self.base_actions(observations, z)
        return actions if self.config.bc_only else self.refine(observations, actions)

    def start_online(self):
        """The base flow may stay as it is online, while everything else learns."""
        return self.freeze("base_flow") if self.config.fix_bc_flow_online else self

    @staticmethod
    def failure_signatures(metrics, config):
        """The failures of arXiv 2601.10471 as they show in one row of logged metrics."""
        found = base.Agent.failure_signatures(metrics, config)
        ratio = metrics.get("actor/divergence_ratio")
        if ratio is None:  # without dual ascent nothing holds the divergence at a target
            return found
        if ratio > 2.0:
            found["divergence above twice its target (off-manifold drift)"] = (
                "raise --agent.target_divergence, or start with a larger --agent.log_alpha_init"
            )
        if metrics["alpha/alpha"] > 1e4 and ratio < 0.1:
            found["alpha above 1e4 with the divergence far below its target (over-regularised)"] = (
                "check the dual loss's sign in a fork; else raise --agent.target_divergence"
            )
        return found

    @staticmethod
    def check_config(config):
        """As every agent's, and the trust region needs a size."""
        base.Agent.check_config(config)
        base.require_range(config, "target_divergence", 1e-12, jnp.inf)
        if config["bc_only"] and config["fix_bc_flow_online"]:
            raise UserError(
                "--agent.bc_only=True leaves the base flow alone to learn, and "
                "--agent.fix_bc_flow_online=True keeps it from that: give one of them"
            )

    @classmethod
    def networks(cls, observations, actions, config):
        """Base flow, refinement, critic and log alpha, as far as the ablation has them."""
        actor = MLP(config["actor_hidden_dims"], actions.shape[-1], config["actor_layer_norm"])
        networks = {"base_flow": (actor, (observations, actions, actions[..., :1]))}
        if config["bc_only"]:
            return networks
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], config["layer_norm"]
        )
        networks["refinement"] = (actor, (observations, actions))
        networks["critic"] = (critic, (observations, actions))
        if config["use_lagrange"]:
            networks["log_alpha"] = (Scalar(config["log_alpha_init"]), ())
        return networks


def get_config() -> ml_collections.ConfigDict:
    """Every setting of DeFlow with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and refinement
            "value_hidden_dims": (512, 512, 512, 512),
            "actor_layer_norm": False,
            "layer_norm": True,  # in the critic
            "num_critics": 2,
            "discount": 0.99,
            "tau": 0.005,  # rate of the target critic
            "q_agg": "mean",  # 'mean' or 'min' over the ensemble in the TD target
            "flow_steps": 10,  # Euler steps of the base flow
            "normalize_q_loss": True,  # divide the refinement's Q by its mean magnitude
            "use_lagrange": True,  # tune alpha by dual ascent; False keeps it at `alpha`
            "target_divergence": 0.01,  # delta, mean square of the residual per action dimension
            "log_alpha_init": 1.0,  # log(alpha) at the start of dual ascent
            "alpha": 1.0,  # the fixed multiplier, used with use_lagrange=False
            "bc_only": False,  # base flow alone: no critic, no refinement
            "fix_bc_flow_online": False,  # keep the base flow as it is, in online training only
        }
    )


def _published(discount: float, q_agg: str, delta: float, offline_steps: int, **other) -> dict:
    return {
        "discount": discount,
        "q_agg": q_agg,
        "target_divergence": delta,
        "normalize_q_loss": True,
        "offline_steps": offline_steps,
        **other,
    }


_PIXELS = {"encoder": "impala_small", "p_aug": 0.5, "frame_stack": 3}

# Settings of the paper's 73 tasks. An OGBench row without a task holds for its five tasks.
PUBLISHED = {
    "antmaze-large-navigate": _published(0.99, "min", 0.01, 1_000_000),
    "antmaze-giant-navigate": _published(0.995, "min", 0.01, 1_000_000),
    "humanoidmaze-medium-navigate": _published(0.995, "mean", 0.001, 1_000_000),
    "humanoidmaze-large-navigate": _published(0.995, "mean", 0.001, 1_000_000),
    "antsoccer-arena-navigate": _published(0.995, "mean", 0.01, 1_000_000),
    "cube-single-play": _published(0.99, "mean", 0.001, 1_000_000),
    "cube-double-play": _published(0.99, "mean", 0.001, 1_000_000),
    "scene-play": _published(0.99, "mean", 0.001, 1_000_000),
    "puzzle-3x3-play": _published(0.99, "mean", 0.005, 1_000_000),
    "puzzle-4x4-play": _published(0.99, "mean", 0.005, 1_000_000),
    **{
        f"visual-{name}-play-singletask-task1-v0": _published(
            0.99, "mean", delta, 500_000, **_PIXELS
        )
        for name, delta in {
            "cube-single": 0.001,
            "cube-double": 0.001,
            "scene": 0.001,
            "puzzle-3x3": 0.0005,
            "puzzle-4x4": 0.0005,
        }.items()
    },
    **{
        f"antmaze-{maze}-v2": _published(0.99, "mean", 0.015, 500_000)
        for maze in (
            "umaze",
            "umaze-diverse",
            "medium-play",
            "medium-diverse",
            "large-play",
            "large-diverse",
        )
    },
    **{
        f"{hand}-{data}-v1": _published(0.99, "min", delta, 500_000)
        for hand, delta in {"pen": 0.01, "door": 0.001, "hammer": 0.001, "relocate": 0.001}.items()
        for data in ("human", "cloned", "expert")
    },
}
