"""FQL: a one-step policy distilled from a flow policy of the data while it climbs Q.

"Flow Q-Learning", arXiv 2502.02538. The policy is a = clip(mu(s, z)), z ~ N(0, I), where the
one-step actor mu is pulled by alpha towards the base flow solved from the same z.
"""

import jax
import jax.numpy as jnp
import ml_collections

from utils import agent as base
from utils import flow
from utils.networks import MLP, EnsembleCritic


class FQLAgent(base.Agent):
    """Flow Q-learning."""

    def critic_loss(self, batch, params, noise):
        """Squared TD error of every ensemble member against r + gamma * mask * Q'(s', a')."""
        next_actions = self.actions(batch["next_observations"], noise["next_z"])
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

    def actor_loss(self, batch, params, noise):
        """Distillation of the base flow, and -Q of the one-step actor."""
        base_actions = self.base_actions(batch["observations"], noise["z"])
        actor = self.network.select("onestep_actor", params)
        actions = actor(batch["observations"], noise["z"])  # (b, a), before clipping
        distill_loss = jnp.mean((actions - base_actions) ** 2)

        q = self.network.select("critic")(batch["observations"], jnp.clip(actions, -1, 1)).mean(0)
        q_abs = jnp.abs(q).mean()
        q_loss = -q.mean()
        if self.config.normalize_q_loss:
            q_loss = q_loss / jax.lax.stop_gradient(q_abs)
        return self.config.alpha * distill_loss + q_loss, {
            "actor/q_loss": q_loss,
            "actor/distill_loss": distill_loss,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 1.0),
            "critic/q_abs": q_abs,
        }

    def total_loss(self, batch, params, noise):
        """Sum of all losses, minimised by one optimiser step."""
        critic_loss, critic_metrics = self.critic_loss(batch, params, noise)
        flow_loss, flow_metrics = self.flow_loss(batch, params, noise)
        actor_loss, actor_metrics = self.actor_loss(batch, params, noise)
        return critic_loss + flow_loss + actor_loss, critic_metrics | flow_metrics | actor_metrics

    def draw_noise(self, rng, batch):
        """Flow matching's x0 (b, a) and t (b, 1); the inputs z, next_z (b, a) of the policy."""
        keys = jax.random.split(rng, 4)
        shape = batch["actions"].shape
        return {
            "x0": jax.random.normal(keys[0], shape),
            "t": jax.random.uniform(keys[1], (*shape[:-1], 1)),
            "z": jax.random.normal(keys[2], shape),
            "next_z": jax.random.normal(keys[3], shape),
        }

    def base_actions(self, observations, z):
        """Solve the base flow from z (..., a) at observations (..., o); returns (..., a)."""
        base_flow = self.network.select("base_flow")
        actions = flow.euler(lambda x, t: base_flow(observations, x, t), z, self.config.flow_steps)
        return jnp.clip(actions, -1, 1)

    def actions(self, observations, z):
        """One-step policy's actions (..., a) in [-1, 1] at observations (..., o), z (..., a)."""
        return jnp.clip(self.network.select("onestep_actor")(observations, z), -1, 1)

    def sample_actions(self, observations, rng):
        """Draw actions (..., a) in [-1, 1] for observations (..., o) of any batch shape."""
        z = jax.random.normal(rng, (*observations.shape[:-1], self.config.action_dim))
        return self.actions(observations, z)

    @classmethod
    def networks(cls, observations, actions, config):
        """Base flow, one-step actor and critic."""
        actor = MLP(config["actor_hidden_dims"], actions.shape[-1], config["actor_layer_norm"])
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], config["layer_norm"]
        )
        return {
            "base_flow": (actor, (observations, actions, actions[..., :1])),
            "onestep_actor": (actor, (observations, actions)),
            "critic": (critic, (observations, actions)),
        }


def get_config() -> ml_collections.ConfigDict:
    """Every setting of FQL with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and one-step actor
            "value_hidden_dims": (512, 512, 512, 512),
            "actor_layer_norm": False,
            "layer_norm": True,  # in the critic
            "num_critics": 2,
            "discount": 0.99,
            "tau": 0.005,  # rate of the target critic
            "q_agg": "mean",  # 'mean' or 'min' over the ensemble in the TD target
            "alpha": 10.0,  # weight of the distillation (the BC coefficient)
            "flow_steps": 10,  # Euler steps of the base flow
            "normalize_q_loss": False,  # divide the actor's Q by its mean magnitude
        }
    )


def _published(alpha: float, q_agg: str, discount: float, offline_steps: int, **other) -> dict:
    return {
        "alpha": alpha,
        "q_agg": q_agg,
        "discount": discount,
        "normalize_q_loss": False,
        "offline_steps": offline_steps,
        **other,
    }


_PIXELS = {"encoder": "impala_small", "p_aug": 0.5, "frame_stack": 3}

# Settings of the paper's 73 tasks. An OGBench row without a task holds for its five tasks.
PUBLISHED = {
    "antmaze-large-navigate": _published(10.0, "min", 0.99, 1_000_000),
    "antmaze-giant-navigate": _published(10.0, "min", 0.995, 1_000_000),
    "humanoidmaze-medium-navigate": _published(30.0, "mean", 0.995, 1_000_000),
    "humanoidmaze-large-navigate": _published(30.0, "mean", 0.995, 1_000_000),
    "antsoccer-arena-navigate": _published(10.0, "mean", 0.995, 1_000_000),
    "cube-single-play": _published(300.0, "mean", 0.99, 1_000_000),
    "cube-double-play": _published(300.0, "mean", 0.99, 1_000_000),
    "scene-play": _published(300.0, "mean", 0.99, 1_000_000),
    "puzzle-3x3-play": _published(1000.0, "mean", 0.99, 1_000_000),
    "puzzle-4x4-play": _published(1000.0, "mean", 0.99, 1_000_000),
    **{
        f"visual-{name}-play-singletask-task1-v0": _published(
            alpha, "mean", 0.99, 500_000, **_PIXELS
        )
        for name, alpha in {
            "cube-single": 300.0,
            "cube-double": 100.0,
            "scene": 100.0,
            "puzzle-3x3": 300.0,
            "puzzle-4x4": 300.0,
        }.items()
    },
    **{
        f"antmaze-{maze}-v2": _published(alpha, "mean", 0.99, 500_000)
        for maze, alpha in {
            "umaze": 10.0,
            "umaze-diverse": 10.0,
            "medium-play": 10.0,
            "medium-diverse": 10.0,
            "large-play": 3.0,
            "large-diverse": 3.0,
        }.items()
    },
    **{
        f"{task}-v1": _published(alpha, "min", 0.99, 500_000)
        for task, alpha in {
            "pen-human": 10000.0,
            "pen-cloned": 10000.0,
            "pen-expert": 3000.0,
            "door-human": 30000.0,
            "door-cloned": 30000.0,
            "door-expert": 30000.0,
            "hammer-human": 30000.0,
            "hammer-cloned": 10000.0,
            "hammer-expert": 30000.0,
            "relocate-human": 10000.0,
            "relocate-cloned": 30000.0,
            "relocate-expert": 30000.0,
        }.items()
    },
}
