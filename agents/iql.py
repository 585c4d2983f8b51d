"""IQL: values of the best actions in the data, and a policy that imitates those actions.

"Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169. V is an expectile of Q
over the data's actions (equation 5), Q bootstraps from it (equation 6), so that no action outside
the data is ever valued. A Gaussian policy imitates the data's actions, weighted by their advantages
(equation 7).
"""

import chex
import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils import agent, losses
from utils.metrics import Panel, Signature
from utils.networks import EnsembleCritic, GaussianActor, Value


class IQLAgent(agent.Agent):
    """Implicit Q-learning, as the baseline of FQL (arXiv 2502.02538).

    Deviations from the paper that are FQL's and kept: advantages come from the critic that learns
    instead of its target; the standard deviation is 1; the policy may also climb Q (`ddpgbc`).

    Metrics: `value/v` is the mean of V; `value/above` is the share of the batch whose Q lies above
    V, and small where the expectile is high; `actor/adv` is the mean advantage of the data's
    actions; `actor/clipped` is the share of their weights that the cap holds, at which the policy
    turns into plain cloning; `actor/bc_log_prob` is the mean log density of the data's actions.
    """

    PANELS = (
        Panel("advantage", "actor/adv"),
        Panel("log density of the data", "actor/bc_log_prob"),
        Panel("mean V", "value/v"),
        Panel("value loss", "value/value_loss", "log"),
        Panel("critic loss", "critic/critic_loss", "log"),
    )
    SIGNATURES = (
        Signature(
            "most advantage weights at their cap (plain cloning)",
            "lower --agent.alpha, the inverse temperature, or scale the rewards",
            above={"actor/clipped": 0.9},
        ),
    )
    MAX_WEIGHT = 100.0
    """Cap of the advantage weights, as in the paper's code."""

    def value_loss(self, batch, params):
        """Regress V on an expectile of Q' over the data's actions (equation 5)."""
        target_q = self.network.select_target("critic")(batch["observations"], batch["actions"])
        v = self.network.select("value", params)(batch["observations"])
        difference = target_q.min(axis=0) - v
        chex.assert_shape(difference, v.shape)  # (b,)
        loss = losses.expectile_loss(difference, self.config.expectile)
        above = jnp.mean(difference > 0)
        return loss, {"value/value_loss": loss, "value/v": v.mean(), "value/above": above}

    def critic_loss(self, batch, params):
        """Return the squared TD error against r + gamma * mask * V(s') (equation 6).

        It is a sum over the critics, where other agents take their mean.
        """
        next_v = self.network.select("value")(batch["next_observations"])
        target_q = losses.td_target(batch, next_v, self.config.discount)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        chex.assert_shape(target_q, q.shape[1:])  # q is (ensemble, b)
        loss = jnp.mean(jnp.sum((q - target_q) ** 2, axis=0))
        return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}

    def actor_loss(self, batch, params, noise):
        """Return the loss of the policy and metrics; 'awr' is equation 7."""
        policy = self.network.select("actor", params)(batch["observations"])
        log_prob = policy.log_prob(batch["actions"])  # (b,)
        metrics = {"actor/bc_log_prob": log_prob.mean()}
        if self.config.actor_loss == "ddpgbc":
            actions = policy.mode() if self.config.const_std else policy.sample(noise["eps"])
            q_loss = self.q_loss(batch, actions)
            bc_loss = -self.config.alpha * log_prob.mean()
            loss = q_loss + bc_loss
            metrics |= {"actor/q_loss": q_loss, "actor/bc_loss": bc_loss}
        else:
            advantage = self.advantage(batch)
            weight = jnp.exp(self.config.alpha * advantage)
            chex.assert_equal_shape([weight, log_prob])
            loss = -jnp.mean(jnp.minimum(weight, self.MAX_WEIGHT) * log_prob)
            metrics |= {
                "actor/adv": advantage.mean(),
                "actor/clipped": jnp.mean(weight > self.MAX_WEIGHT),
            }
        return loss, metrics | {"actor/actor_loss": loss}

    def q_loss(self, batch, actions):
        """Return -Q / sg[mean |Q|] of actions (b, a), Q being the smallest of the ensemble."""
        q = self.network.select("critic")(batch["observations"], jnp.clip(actions, -1, 1)).min(0)
        return -q.mean() / jax.lax.stop_gradient(jnp.abs(q).mean())

    def advantage(self, batch):
        """Return min Q(s, a) - V(s) (b,) of the data's actions."""
        q = self.network.select("critic")(batch["observations"], batch["actions"]).min(axis=0)
        return q - self.network.select("value")(batch["observations"])

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, minimised by one optimiser step, and metrics."""
        value_loss, value_metrics = self.value_loss(batch, params)
        critic_loss, critic_metrics = self.critic_loss(batch, params)
        actor_loss, actor_metrics = self.actor_loss(batch, params, noise)
        metrics = value_metrics | critic_metrics | actor_metrics
        return value_loss + critic_loss + actor_loss, metrics

    def sample_noise(self, rng, batch):
        """Sample the policy's eps (b, a), if its loss takes any."""
        if self.config.actor_loss == "awr" or self.config.const_std:
            return {}
        return {"eps": jax.random.normal(rng, batch["actions"].shape)}

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o); at 0 the mean."""
        policy = self.network.select("actor")(observations)
        noise = jax.random.normal(rng, policy.mean.shape)
        return jnp.clip(policy.sample(noise, temperature), -1, 1)

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's minimum, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).min(axis=0)

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_choice(config, "actor_loss", ("awr", "ddpgbc"))
        agent.require_range(config, "expectile", 0.0, 1.0)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return V, critic and actor."""
        value = Value(config["value_hidden_dims"], config["layer_norm"])
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], config["layer_norm"]
        )
        actor = GaussianActor(
            config["actor_hidden_dims"],
            actions.shape[-1],
            config["actor_layer_norm"],
            std="one" if config["const_std"] else "vector",
        )
        return {
            "value": (value, (observations,)),
            "critic": (critic, (observations, actions)),
            "actor": (actor, (observations,)),
        }


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of IQL with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # actor
            "value_hidden_dims": (512, 512, 512, 512),  # critic and V
            "actor_layer_norm": False,  # in the actor
            "layer_norm": True,  # in critic and V
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "expectile": 0.9,  # of Q that V is; 0.5 is the mean
            "actor_loss": "awr",  # 'awr' weights the data, 'ddpgbc' climbs Q beside the data
            "alpha": 10.0,  # inverse temperature of the weights; of 'ddpgbc' the weight of the data
            "const_std": True,  # standard deviation 1; False learns one per action dimension
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters. A row without a task's number holds for all five.
# antsoccer's alpha is from a later paper that reuses these settings. D4RL's tasks have no rows: the
# numbers printed for them come from another codebase (CORL), with settings of its own.
PUBLISHED = """
task                                         discount  alpha  actor_hidden_dims  value_hidden_dims
antmaze-large-navigate                       0.99      10.0   -                  -
antmaze-giant-navigate                       0.995     10.0   -                  -
humanoidmaze-medium-navigate                 0.995     10.0   -                  -
humanoidmaze-large-navigate                  0.995     10.0   -                  -
antsoccer-arena-navigate                     0.995     1.0    -                  -
cube-single-play                             0.99      1.0    (256,256,256,256)  (256,256,256,256)
cube-double-play                             0.99      0.3    (256,256,256,256)  (256,256,256,256)
scene-play                                   0.99      10.0   (256,256,256,256)  (256,256,256,256)
puzzle-3x3-play                              0.99      10.0   (256,256,256,256)  (256,256,256,256)
puzzle-4x4-play                              0.99      3.0    (256,256,256,256)  (256,256,256,256)
visual-cube-single-play-singletask-task1-v0  0.99      1.0    -                  -
visual-cube-double-play-singletask-task1-v0  0.99      0.3    -                  -
visual-scene-play-singletask-task1-v0        0.99      10.0   -                  -
visual-puzzle-3x3-play-singletask-task1-v0   0.99      10.0   -                  -
visual-puzzle-4x4-play-singletask-task1-v0   0.99      3.0    -                  -
"""
