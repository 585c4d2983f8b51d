"""FBRAC: a flow policy that climbs Q through all of its Euler steps while it imitates the data.

The form of Diffusion-QL (arXiv 2208.06193) with a flow, from "Flow Q-Learning" (arXiv 2502.02538,
appendix E). The policy is a = clip(mu(s, z)), z ~ N(0, I), where mu is the solution of one velocity
field. It is trained by alpha times flow matching minus Q of its own actions.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils import agent, flow, losses
from utils.encoders import encode_once
from utils.metrics import Panel, unstable_critic
from utils.networks import MLP, EnsembleCritic


class FBRACAgent(agent.Agent):
    """Flow behaviour-regularised actor-critic.

    FQL's authors have not released theirs. This is the analogue of FQL's agent that the code of
    Value Flows (arXiv 2510.07650) has; that of QAM (arXiv 2601.14234) puts 1 / alpha before Q
    instead, which has the same optimum.

    Metrics: `flow/flow_loss` is that of flow matching, without alpha; `actor/saturation` is the
    share of action components at their bound, where no gradient passes; `critic/q_abs` is the mean
    |Q| of the policy's actions.
    """

    MULTIMODAL = True
    BANDIT = {"alpha": 5.0, "lr": 2e-3, "batch_size": 512, "actor_layer_norm": True}  # noqa: RUF012
    UNCONSTRAINED = {"alpha": 0.1}  # noqa: RUF012
    PANELS = (
        Panel("flow loss", "flow/flow_loss"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("actor Q loss", "actor/q_loss"),
        Panel("actions at their bound", "actor/saturation"),
    )
    SIGNATURES = (
        unstable_critic(
            "critic/q_abs", "raise --agent.alpha, lower --agent.lr, or set --agent.q_agg=min"
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
        return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}

    def flow_loss(self, batch, velocity, noise):
        """Match the velocity of straight paths from noise to data (arXiv 2210.02747)."""
        errors = flow.matching_errors(velocity, noise["x0"], batch["actions"], noise["t"])
        loss = errors.mean()  # over (b, a)
        return loss, {"flow/flow_loss": loss}

    def q_loss(self, batch, velocity, noise):
        """Return -Q of the policy's actions, whose gradient passes all Euler steps."""
        actions = self.solve(velocity, noise["z"])
        q = self.network.select("critic")(batch["observations"], actions).mean(axis=0)  # (b,)
        q_abs = jnp.abs(q).mean()
        loss = -q.mean()
        if self.config.normalize_q_loss:
            loss = loss / jax.lax.stop_gradient(q_abs)
        return loss, {
            "actor/q_loss": loss,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 1.0),
            "critic/q_abs": q_abs,
        }

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, minimised by one optimiser step, and metrics."""
        critic_loss, critic_metrics = self.critic_loss(batch, params, noise)
        # For both losses, so that images are encoded once and their encoder has one backward pass.
        velocity = encode_once(self.network.select("actor_flow", params), batch["observations"])
        q_loss, q_metrics = self.q_loss(batch, velocity, noise)
        flow_loss, flow_metrics = self.flow_loss(batch, velocity, noise)
        loss = critic_loss + q_loss + self.config.alpha * flow_loss
        return loss, critic_metrics | q_metrics | flow_metrics

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
        """Return the policy's velocity (..., a) at x (..., a) and time (..., 1)."""
        return self.network.select("actor_flow")(observations, x, t)

    def solve(self, velocity, z):
        """Follow a velocity from z (..., a); return actions (..., a) in [-1, 1]."""
        return jnp.clip(flow.euler(velocity, z, self.config.flow_steps), -1, 1)

    def actions(self, observations, z):
        """Return the policy's actions (..., a) in [-1, 1] from noise z (..., a)."""
        return self.solve(partial(self.velocity, observations), z)

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o), alike at 0 and 1."""
        z = jax.random.normal(rng, (*self.batch_shape(observations), self.config.action_dim))
        return self.actions(observations, z)

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's mean, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).mean(axis=0)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return critic and the policy's flow."""
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], config["layer_norm"]
        )
        flow = MLP(config["actor_hidden_dims"], actions.shape[-1], config["actor_layer_norm"])
        return {
            "critic": (critic, (observations, actions)),
            "actor_flow": (flow, (observations, actions, actions[..., :1])),
        }


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of FBRAC with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # the policy's flow
            "value_hidden_dims": (512, 512, 512, 512),  # critic
            "actor_layer_norm": False,  # in the policy's flow
            "layer_norm": True,  # in the critic
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "q_agg": "mean",  # 'mean' or 'min' over the ensemble in the TD target
            "alpha": 10.0,  # weight of flow matching (the BC coefficient)
            "flow_steps": 10,  # Euler steps of the policy's flow
            "normalize_q_loss": False,  # divide the actor's Q by its mean magnitude
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters, read from a machine's transcription. A row without a
# task's number holds for all five. antsoccer's alpha is missing there and open (-);
# relocate-cloned's has lost zeros, perhaps, and may be 30000. q_agg is that of FQL.
PUBLISHED = """
task                                         discount  q_agg  alpha
antmaze-large-navigate                       0.99      min    3.0
antmaze-giant-navigate                       0.995     min    10.0
humanoidmaze-medium-navigate                 0.995     mean   30.0
humanoidmaze-large-navigate                  0.995     mean   30.0
antsoccer-arena-navigate                     0.995     mean   -
cube-single-play                             0.99      mean   100.0
cube-double-play                             0.99      mean   100.0
scene-play                                   0.99      mean   100.0
puzzle-3x3-play                              0.99      mean   100.0
puzzle-4x4-play                              0.99      mean   300.0
visual-cube-single-play-singletask-task1-v0  0.99      mean   100.0
visual-cube-double-play-singletask-task1-v0  0.99      mean   100.0
visual-scene-play-singletask-task1-v0        0.99      mean   100.0
visual-puzzle-3x3-play-singletask-task1-v0   0.99      mean   100.0
visual-puzzle-4x4-play-singletask-task1-v0   0.99      mean   300.0
antmaze-umaze-v2                             0.99      mean   10.0
antmaze-umaze-diverse-v2                     0.99      mean   10.0
antmaze-medium-play-v2                       0.99      mean   10.0
antmaze-medium-diverse-v2                    0.99      mean   10.0
antmaze-large-play-v2                        0.99      mean   1.0
antmaze-large-diverse-v2                     0.99      mean   1.0
pen-human-v1                                 0.99      min    30000.0
pen-cloned-v1                                0.99      min    10000.0
pen-expert-v1                                0.99      min    30000.0
door-human-v1                                0.99      min    30000.0
door-cloned-v1                               0.99      min    10000.0
door-expert-v1                               0.99      min    30000.0
hammer-human-v1                              0.99      min    30000.0
hammer-cloned-v1                             0.99      min    10000.0
hammer-expert-v1                             0.99      min    30000.0
relocate-human-v1                            0.99      min    30000.0
relocate-cloned-v1                           0.99      min    3000.0
relocate-expert-v1                           0.99      min    30000.0
"""
