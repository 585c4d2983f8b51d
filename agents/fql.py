"""FQL: a one-step policy distilled from a flow policy of the data while it climbs Q.

"Flow Q-Learning", arXiv 2502.02538. The policy is a = clip(mu(s, z)), z ~ N(0, I), where the
one-step actor mu is pulled by alpha towards the base flow solved from the same z.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils import agent, flow, losses
from utils.metrics import Panel, unstable_critic
from utils.networks import MLP, EnsembleCritic


class FQLAgent(agent.Agent):
    """Flow Q-learning.

    Metrics: `actor/distill_loss` is the mean square distance of the one-step actor from the base
    flow; `actor/saturation` is the share of action components at their bound; `critic/q_abs` is
    the mean |Q| of the policy's actions.
    """

    MULTIMODAL = True
    BANDIT = {"alpha": 30.0, "lr": 3e-3, "normalize_q_loss": True}  # noqa: RUF012
    UNCONSTRAINED = {"alpha": 0.1}  # noqa: RUF012
    PANELS = (
        Panel("distillation loss", "actor/distill_loss", "log"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("flow loss", "flow/flow_loss"),
        Panel("actor Q loss", "actor/q_loss"),
    )
    SIGNATURES = (
        unstable_critic(
            "critic/q_abs", "lower --agent.lr or --agent.discount, or set --agent.q_agg=min"
        ),
    )

    def critic_loss(self, batch, params, noise):
        """Return the squared TD error of every critic against r + gamma * mask * Q'(s', a')."""
        next_actions = self.actions(batch["next_observations"], noise["next_z"])
        next_q = self.network.select_target("critic")(batch["next_observations"], next_actions)
        next_q = agent.aggregate(next_q, self.config.q_agg)  # (b,)
        target_q = losses.td_target(batch, next_q, self.config.discount)  # (b,)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = losses.ensemble_mse(q, target_q)
        metrics = {"critic/critic_loss": loss, "critic/q_mean": q.mean(), "critic/q_max": q.max()}
        return loss, metrics

    def flow_loss(self, batch, params, noise):
        """Match the velocity of straight paths from noise to data (arXiv 2210.02747)."""
        velocity = partial(self.network.select("base_flow", params), batch["observations"])
        errors = flow.matching_errors(velocity, noise["x0"], batch["actions"], noise["t"])
        loss = errors.mean()  # over (b, a)
        return loss, {"flow/flow_loss": loss}

    def actor_loss(self, batch, params, noise):
        """Return alpha times the distillation of the base flow, minus Q, and metrics."""
        base_actions = self.propose(batch["observations"], noise["z"])
        actor = self.network.select("onestep_actor", params)
        actions = actor(batch["observations"], noise["z"])  # (b, a), before clipping
        chex.assert_equal_shape([actions, base_actions])
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
        """Return the sum of all losses, minimised by one optimiser step, and metrics."""
        critic_loss, critic_metrics = self.critic_loss(batch, params, noise)
        flow_loss, flow_metrics = self.flow_loss(batch, params, noise)
        actor_loss, actor_metrics = self.actor_loss(batch, params, noise)
        return critic_loss + flow_loss + actor_loss, critic_metrics | flow_metrics | actor_metrics

    def sample_noise(self, rng, batch):
        """Sample flow matching's x0 (b, a) and t (b, 1), and the policy's z, next_z (b, a)."""
        keys = jax.random.split(rng, 4)
        shape = batch["actions"].shape
        return {
            "x0": jax.random.normal(keys[0], shape),
            "t": jax.random.uniform(keys[1], (*shape[:-1], 1)),
            "z": jax.random.normal(keys[2], shape),
            "next_z": jax.random.normal(keys[3], shape),
        }

    def velocity(self, observations, x, t):
        """Return the base flow's velocity (..., a) at x (..., a) and time (..., 1)."""
        return self.network.select("base_flow")(observations, x, t)

    def propose(self, observations, z):
        """Solve the base flow from z (..., a) at observations (..., o); return (..., a)."""
        velocity = partial(self.velocity, observations)
        return jnp.clip(flow.euler(velocity, z, self.config.flow_steps), -1, 1)

    def actions(self, observations, z):
        """Return the one-step policy's actions (..., a) in [-1, 1] from noise z (..., a)."""
        return jnp.clip(self.network.select("onestep_actor")(observations, z), -1, 1)

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o), alike at 0 and 1."""
        z = jax.random.normal(rng, (*self.batch_shape(observations), self.config.action_dim))
        return self.actions(observations, z)

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's mean, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).mean(axis=0)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return base flow, one-step actor and critic."""
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
    """Return every setting of FQL with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and one-step actor
            "value_hidden_dims": (512, 512, 512, 512),  # critic
            "actor_layer_norm": False,  # in the networks of actor_hidden_dims
            "layer_norm": True,  # in the critic
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "q_agg": "mean",  # 'mean' or 'min' over the ensemble in the TD target
            "alpha": 10.0,  # weight of the distillation (the BC coefficient)
            "flow_steps": 10,  # Euler steps of the base flow
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
            "normalize_q_loss": False,  # divide the actor's Q by its mean magnitude
        }
    )


# arXiv 2502.02538, tables of hyperparameters. A row without a task's number holds for all five.
PUBLISHED = """
task                                         discount  q_agg  alpha
antmaze-large-navigate                       0.99      min    10.0
antmaze-giant-navigate                       0.995     min    10.0
humanoidmaze-medium-navigate                 0.995     mean   30.0
humanoidmaze-large-navigate                  0.995     mean   30.0
antsoccer-arena-navigate                     0.995     mean   10.0
cube-single-play                             0.99      mean   300.0
cube-double-play                             0.99      mean   300.0
scene-play                                   0.99      mean   300.0
puzzle-3x3-play                              0.99      mean   1000.0
puzzle-4x4-play                              0.99      mean   1000.0
visual-cube-single-play-singletask-task1-v0  0.99      mean   300.0
visual-cube-double-play-singletask-task1-v0  0.99      mean   100.0
visual-scene-play-singletask-task1-v0        0.99      mean   100.0
visual-puzzle-3x3-play-singletask-task1-v0   0.99      mean   300.0
visual-puzzle-4x4-play-singletask-task1-v0   0.99      mean   300.0
antmaze-umaze-v2                             0.99      mean   10.0
antmaze-umaze-diverse-v2                     0.99      mean   10.0
antmaze-medium-play-v2                       0.99      mean   10.0
antmaze-medium-diverse-v2                    0.99      mean   10.0
antmaze-large-play-v2                        0.99      mean   3.0
antmaze-large-diverse-v2                     0.99      mean   3.0
pen-human-v1                                 0.99      min    10000.0
pen-cloned-v1                                0.99      min    10000.0
pen-expert-v1                                0.99      min    3000.0
door-human-v1                                0.99      min    30000.0
door-cloned-v1                               0.99      min    30000.0
door-expert-v1                               0.99      min    30000.0
hammer-human-v1                              0.99      min    30000.0
hammer-cloned-v1                             0.99      min    10000.0
hammer-expert-v1                             0.99      min    30000.0
relocate-human-v1                            0.99      min    10000.0
relocate-cloned-v1                           0.99      min    30000.0
relocate-expert-v1                           0.99      min    30000.0
"""

# The same paper's table of offline-to-online settings, of the tasks whose are others online. It has
# nine tasks more, with those above.
PUBLISHED_ONLINE = """
task                          alpha
humanoidmaze-medium-navigate  100.0
antsoccer-arena-navigate      30.0
pen-cloned-v1                 1000.0
door-cloned-v1                1000.0
hammer-cloned-v1              1000.0
relocate-cloned-v1            10000.0
"""
