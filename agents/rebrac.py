"""ReBRAC: TD3 with separate penalties on actor and critic for leaving the data.

"Revisiting the Minimalist Approach to Offline Reinforcement Learning", arXiv 2305.09836. The policy
is deterministic and climbs Q, while its squared distance from the data's action is subtracted from
Q, by `alpha_actor` in the actor's loss and by `alpha_critic` in the TD target.
"""

import chex
import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils import agent, columns, losses
from utils.encoders import encode_once
from utils.metrics import Panel, unstable_critic
from utils.networks import MLP, EnsembleCritic, small_uniform_init


class ReBRACAgent(agent.Agent):
    """ReBRAC, as the baseline of FQL (arXiv 2502.02538).

    The actor and both targets move in every second update. The optimiser sees the actor's zero
    gradient in between, so that its momentum moves it then too, as in FQL's code.

    Metrics: `actor/bc_loss` is the actor's penalty, its coefficient included; `critic/penalty` is
    what the TD target loses, per next state; `critic/q_abs` is the mean |Q| of the policy's
    actions; `actor/saturation` is the share of their components at the bound.
    """

    PANELS = (
        Panel("actor's penalty", "actor/bc_loss", "log"),
        Panel("critic's penalty", "critic/penalty"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("actions at their bound", "actor/saturation"),
    )
    SIGNATURES = (
        unstable_critic(
            "critic/q_abs", "raise --agent.alpha_actor or --agent.alpha_critic, or lower --agent.lr"
        ),
    )

    def critic_loss(self, batch, params, noise):
        """Return the squared TD error against the penalised value of the target actor's action."""
        next_actions = self.next_actions(batch, noise)
        next_q = self.network.select_target("critic")(batch["next_observations"], next_actions)
        distance = jnp.sum((next_actions - batch["next_actions"]) ** 2, axis=-1)  # (b,)
        penalty = self.config.alpha_critic * distance
        target_q = losses.td_target(batch, next_q.min(axis=0) - penalty, self.config.discount)

        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = losses.ensemble_mse(q, target_q)
        return loss, {
            "critic/critic_loss": loss,
            "critic/q_mean": q.mean(),
            "critic/penalty": penalty.mean(),
        }

    def next_actions(self, batch, noise):
        """Return the target actor's actions (b, a) at s', with TD3's clipped noise."""
        actions = self.squash(self.network.select_target("actor")(batch["next_observations"]))
        return jnp.clip(actions + self.exploration(noise["next_eps"]), -1, 1)

    def actor_loss(self, batch, params, critic):
        """Return -Q / sg[mean |Q|] plus the penalty, and metrics.

        The critic is a function of actions at s.
        """
        actions = self.squash(self.network.select("actor", params)(batch["observations"]))
        q = critic(actions).min(axis=0)  # (b,)
        q_abs = jnp.abs(q).mean()
        q_loss = -q.mean() / jax.lax.stop_gradient(q_abs)
        chex.assert_equal_shape([actions, batch["actions"]])
        distance = jnp.sum((actions - batch["actions"]) ** 2, axis=-1)  # (b,)
        bc_loss = self.config.alpha_actor * distance.mean()
        return q_loss + bc_loss, {
            "actor/q_loss": q_loss,
            "actor/bc_loss": bc_loss,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 0.99),
            "critic/q_abs": q_abs,
        }

    def total_loss(self, batch, params, noise):
        """Return the critic's loss, in a full update with the actor's, and metrics of both."""
        # Before the choice, because the critic's loss encodes the same images.
        critic = encode_once(self.network.select("critic"), batch["observations"])

        def with_gradient(params):
            return self.actor_loss(batch, params, critic)

        def without(params):
            _, metrics = self.actor_loss(batch, self.network.params, critic)
            return jnp.zeros(()), metrics

        critic_loss, critic_metrics = self.critic_loss(batch, params, noise)
        actor_loss, actor_metrics = jax.lax.cond(
            self.is_full_update(), with_gradient, without, params
        )
        return critic_loss + actor_loss, critic_metrics | actor_metrics

    def is_full_update(self):
        """Return whether the update in progress, counted from 1, moves actor and targets."""
        return (self.network.step + 1) % self.config.actor_freq == 0

    def target_rates(self):
        """Return the rates of both targets, 0 outside full updates."""
        rates = super().target_rates()
        return {name: jnp.where(self.is_full_update(), rates[name], 0.0) for name in rates}

    def evaluate_loss(self, batch, rng):
        """Return metrics of a full update on held-out data."""
        last = self.network.replace(step=jnp.full_like(self.network.step, -1))
        return super(ReBRACAgent, self.replace(network=last)).evaluate_loss(batch, rng)

    def sample_noise(self, rng, batch):
        """Sample next_eps (b, a), the noise of the target actor."""
        return {"next_eps": jax.random.normal(rng, batch["actions"].shape)}

    def squash(self, outputs):
        """Return actions (..., a) from the actor's outputs (..., a)."""
        return jnp.tanh(outputs) if self.config.tanh_squash else outputs

    def exploration(self, eps):
        """Return TD3's clipped noise (..., a) from standard normal noise (..., a)."""
        limit = self.config.actor_noise_clip
        return jnp.clip(self.config.actor_noise * eps, -limit, limit)

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o); at 0 without noise."""
        actions = self.squash(self.network.select("actor")(observations))
        noise = self.exploration(jax.random.normal(rng, actions.shape))
        return jnp.clip(actions + temperature * noise, -1, 1)

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's minimum, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).min(axis=0)

    @classmethod
    def columns(cls, config):
        """Return the data's next actions, which the critic's penalty is about."""
        return {"next_actions": columns.next_actions}

    @classmethod
    def targets(cls, config):
        """Return critic and actor, which follow at the same rate."""
        return {"critic": config["tau"], "actor": config["tau"]}

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "actor_freq", 1, float("inf"))
        for key in ("alpha_actor", "alpha_critic", "actor_noise", "actor_noise_clip"):
            agent.require_range(config, key, 0.0, float("inf"))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return critic and actor."""
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], config["layer_norm"]
        )
        actor = MLP(
            config["actor_hidden_dims"],
            actions.shape[-1],
            config["actor_layer_norm"],
            output_init=small_uniform_init,
        )
        return {"critic": (critic, (observations, actions)), "actor": (actor, (observations,))}


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of ReBRAC with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # actor
            "value_hidden_dims": (512, 512, 512, 512),  # critic
            "actor_layer_norm": False,  # in the actor
            "layer_norm": True,  # in the critic
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the targets of critic and actor
            "alpha_actor": 0.0,  # penalty in the actor's loss; to be set for each task
            "alpha_critic": 0.0,  # penalty in the TD target; to be set for each task
            "actor_freq": 2,  # updates of the critic per update of actor and targets
            "actor_noise": 0.2,  # standard deviation, of target actions and of exploration
            "actor_noise_clip": 0.5,  # bound of that noise
            "tanh_squash": True,  # end the actor with tanh
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters. A row without a task's number holds for all five.
# antsoccer's row is from a later paper that reuses these settings, which prints 0.001 for the
# alpha_actor of both antmazes. D4RL's tasks have no rows: the numbers printed for them come from
# another codebase (CORL), with settings of its own.
PUBLISHED = """
task                                         discount  alpha_actor  alpha_critic
antmaze-large-navigate                       0.99      0.003        0.01
antmaze-giant-navigate                       0.995     0.003        0.01
humanoidmaze-medium-navigate                 0.995     0.01         0.01
humanoidmaze-large-navigate                  0.995     0.01         0.01
antsoccer-arena-navigate                     0.995     0.01         0.01
cube-single-play                             0.99      1.0          0.0
cube-double-play                             0.99      0.1          0.0
scene-play                                   0.99      0.1          0.01
puzzle-3x3-play                              0.99      0.3          0.01
puzzle-4x4-play                              0.99      0.3          0.01
visual-cube-single-play-singletask-task1-v0  0.99      1.0          0.0
visual-cube-double-play-singletask-task1-v0  0.99      0.1          0.0
visual-scene-play-singletask-task1-v0        0.99      0.1          0.01
visual-puzzle-3x3-play-singletask-task1-v0   0.99      0.3          0.01
visual-puzzle-4x4-play-singletask-task1-v0   0.99      0.3          0.01
"""
