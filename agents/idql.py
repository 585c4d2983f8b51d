"""IDQL: implicit Q-learning with a diffusion model of the data, the best of whose samples is taken.

"IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies", arXiv 2304.10573. V
and Q are learned as in IQL (arXiv 2110.06169, equations 5 and 6), and a diffusion model imitates
the data. Nothing improves the model: the policy is the best, by Q, of N actions that it proposes.
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from ml_collections import config_dict

from utils import agent, diffusion, losses
from utils.metrics import Panel, unstable_critic
from utils.networks import MLP, EnsembleCritic

KERNEL_INIT = diffusion.kernel_init


class NormalizedValue(nn.Module):
    """State-value function with LayerNorm on its input."""

    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        """Return values (...) of observations (..., o)."""
        value = MLP(self.hidden_dims, 1, False, nn.relu, KERNEL_INIT)
        return value(nn.LayerNorm()(observations)).squeeze(-1)


class IDQLAgent(agent.Agent):
    """IDQL as in its authors' code (its learner `ddpm_iql_simple`).

    One update moves the model, then V, then Q towards the new V; the target critic and the moving
    average of the model, which acts, follow the parameters from after the step. Online, V and Q
    alone learn.

    Metrics: `actor/actor_loss` is the squared error of the predicted noise, summed over action
    dimensions; `value/v` is the mean of V; `value/above` is the share of the batch whose Q lies
    above V, and small where the expectile is high; on held-out data, `actor/q_gain` is the mean Q'
    of the policy's actions minus that of the data's.
    """

    BANDIT = {  # noqa: RUF012
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "value_lr": 1e-3,
        "actor_tau": 0.01,
        "actor_hidden_dim": 64,
        "diffusion_steps": 30,  # of 5, samples are narrower than the data
    }
    UNCONSTRAINED = BANDIT
    TARGETS_AFTER_STEP = True
    PANELS = (
        Panel("diffusion loss", "actor/actor_loss"),
        Panel("mean V", "value/v"),
        Panel("value loss", "value/value_loss", "log"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("Q gained over the data", "validation/actor/q_gain", reference=0.0),
    )
    SIGNATURES = (
        unstable_critic(
            "value/v_abs", "lower --agent.critic_lr, --agent.discount or --agent.expectile"
        ),
    )

    def actor_loss(self, batch, params, noise):
        """Return the squared error of the noise that the model predicts."""
        x_t = diffusion.noised(batch["actions"], noise["eps"], noise["t"], self.betas())
        t = noise["t"][..., None].astype(x_t.dtype)
        masks = diffusion.dropout_masks(noise, self.config.dropout)
        predicted = self.network.select("actor", params)(batch["observations"], x_t, t, *masks)
        chex.assert_equal_shape([predicted, noise["eps"]])
        loss = jnp.mean(jnp.sum((predicted - noise["eps"]) ** 2, axis=-1))
        return loss, {"actor/actor_loss": loss}

    def value_loss(self, batch, params, noise):
        """Regress V on an expectile of Q' over the data's actions (IQL, equation 5)."""
        v = self.network.select("value", params)(batch["observations"])
        difference = self.value(batch["observations"], batch["actions"]) - v
        chex.assert_shape(difference, v.shape)  # (b,)
        loss = losses.expectile_loss(difference, self.config.expectile)
        return loss, {
            "value/value_loss": loss,
            "value/v": v.mean(),
            "value/v_abs": jnp.abs(v).mean(),
            "value/above": jnp.mean(difference > 0),
        }

    def critic_loss(self, batch, params, noise):
        """Return the squared TD error against r + gamma * mask * V(s') (IQL, equation 6)."""
        next_v = self.network.select("value")(batch["next_observations"])
        target_q = losses.td_target(batch, next_v, self.config.discount)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = losses.ensemble_mse(q, target_q)
        return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}

    def losses(self):
        """Return the loss of each network in the order in which an update takes them."""
        return {"actor": self.actor_loss, "value": self.value_loss, "critic": self.critic_loss}

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses at the same parameters, for validation, and metrics."""
        parts = [loss(batch, params, noise) for loss in self.losses().values()]
        metrics = {name: value for _, found in parts for name, value in found.items()}
        return sum(loss for loss, _ in parts), metrics

    def _update(self, batch, rng):
        noise, learner, metrics = self.sample_noise(rng, batch), self, {}
        for name in self.losses():
            loss = learner.losses()[name]
            network, found = learner.network.apply_loss_fn(
                lambda params, loss=loss: loss(batch, params, noise), self.optimizers(), [name]
            )
            learner, metrics = learner.replace(network=network), metrics | found
        network = learner.network.update_targets(learner.network.params, self.target_rates())
        return learner.replace(network=network), metrics

    def evaluate_loss(self, batch, rng):
        """Return metrics on held-out data, and what the choice among samples gains in Q'."""
        actions = self.sample_actions(batch["observations"], jax.random.fold_in(rng, 2))
        gain = self.value(batch["observations"], actions)  # (b,)
        gain -= self.value(batch["observations"], batch["actions"])
        return super().evaluate_loss(batch, rng) | {"actor/q_gain": gain.mean()}

    def sample_noise(self, rng, batch):
        """Sample steps t (b,), eps (b, a), and what dropout keeps, (b, width) per block."""
        keys = jax.random.split(rng, 3)
        shape = batch["actions"].shape
        noise = {
            "t": jax.random.randint(keys[0], shape[:-1], 0, self.config.diffusion_steps),
            "eps": jax.random.normal(keys[1], shape),
        }
        size = (*shape[:-1], self.config.actor_hidden_dim)
        rate, num_blocks = self.config.dropout, self.config.actor_num_blocks
        return noise | diffusion.sample_dropout(keys[2], rate, size, num_blocks)

    def betas(self):
        """Return the variances (T,) of the diffusion's steps."""
        return diffusion.vp_betas(self.config.diffusion_steps)

    def propose(self, observations, z, step_z=None):
        """Denoise z (..., a) at observations (..., o); return actions (..., a) in [-1, 1].

        Args:
            observations: (..., o).
            z: Start.
            step_z: Noise added after each step (T, ..., a); by default none.
        """
        model = self.network.select_target("actor")
        if step_z is None:
            step_z = jnp.zeros((self.config.diffusion_steps, *z.shape))
        return diffusion.ancestral_sample(
            lambda x, t: model(observations, x, t), z, step_z, self.betas()
        )

    def sample_actions(self, observations, rng, temperature=1.0):
        """Return the best of N sampled actions (..., a) in [-1, 1], alike at 0 and 1."""
        keys, shape = jax.random.split(rng), self.batch_shape(observations)
        size = (self.config.num_samples, self.config.action_dim)
        z = jax.random.normal(keys[0], (*shape, *size))
        step_z = jax.random.normal(keys[1], (*shape, self.config.diffusion_steps, *size))
        repeated = agent.repeat(observations, self.config.num_samples, len(shape))  # (..., N, o)
        candidates = self.propose(repeated, z, jnp.moveaxis(step_z, -3, 0))  # (..., N, a)
        return agent.best_of(candidates, self.value(repeated, candidates))

    def value(self, observations, actions):
        """Return Q-values (...), the minimum of the target critics, of actions (..., a)."""
        return self.network.select_target("critic")(observations, actions).min(axis=0)

    def start_online(self):
        """Return the agent for online training, in which the model stays as it is."""
        return self.freeze("actor")

    def target_rates(self):
        """Return the rates, 0 of the average of a model that stands still."""
        rates = super().target_rates()
        return rates | {name: 0.0 for name in self.network.frozen if name in rates}

    @classmethod
    def targets(cls, config):
        """Return the critic, and the model with a rate of its own."""
        return {"critic": config["tau"], "actor": config["actor_tau"]}

    @classmethod
    def optimizer(cls, config, network):
        """Return AdamW with a cosine schedule for the model, Adam for V and Q."""
        if network == "actor":
            rate = optax.cosine_decay_schedule(config["actor_lr"], config["decay_steps"])
            return optax.adamw(rate, weight_decay=config["weight_decay"])
        return optax.adam(config[f"{network}_lr"])

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        for key in ("expectile", "actor_tau"):
            agent.require_range(config, key, 0.0, 1.0)
        agent.require_range(config, "dropout", 0.0, 0.99)
        for key in ("num_samples", "diffusion_steps", "decay_steps", "actor_num_blocks"):
            agent.require_range(config, key, 1, float("inf"))
        for key in ("actor_hidden_dim", "time_dim"):
            agent.require_range(config, key, 2, float("inf"))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return the diffusion model, V and critic."""
        model = diffusion.Denoiser(
            config["actor_hidden_dim"],
            config["actor_num_blocks"],
            diffusion.FourierTime(config["time_dim"]),
            config["time_hidden_dims"],
        )
        critic = EnsembleCritic(
            config["value_hidden_dims"],
            config["num_critics"],
            layer_norm=False,
            activation=nn.relu,
            kernel_init=KERNEL_INIT,
        )
        return {
            "actor": (model, (observations, actions, actions[..., :1])),
            "value": (NormalizedValue(config["value_hidden_dims"]), (observations,)),
            "critic": (critic, (observations, actions)),
        }


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of IDQL with its default."""
    return ml_collections.ConfigDict(
        {
            "actor_lr": 3e-4,  # of AdamW for the diffusion model, at the start
            "critic_lr": 3e-4,  # of Adam for the critic
            "value_lr": 3e-4,  # of Adam for V
            "decay_steps": 3_000_000,  # updates in which actor_lr falls to 0, along a cosine
            "weight_decay": 1e-4,  # of all parameters of the diffusion model
            "batch_size": 512,  # rows of the data per update
            "actor_hidden_dim": 256,  # width of the diffusion model's blocks
            "actor_num_blocks": 3,  # residual blocks
            "time_dim": 128,  # Fourier features of the diffusion's time
            "time_hidden_dims": (256, 256),  # MLP on these features
            "dropout": 0.1,  # in the blocks, while learning
            "value_hidden_dims": (256, 256),  # critic and V
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "actor_tau": 0.001,  # rate of the model's moving average, which acts
            "expectile": 0.7,  # of Q that V is; 0.5 is the mean
            "num_samples": 64,  # N, actions proposed of which the best is taken
            "diffusion_steps": 5,  # T, steps of the diffusion
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters. A row without a task's number holds for all five.
# antsoccer's N is from a later paper that reuses these settings. D4RL's antmazes have no rows: the
# numbers printed for them are IDQL's own. It was not run on pixels. That paper trains for 3M
# updates and scores the mean at 2.5M, 2.75M and 3M.
PUBLISHED = """
task                          discount  expectile  num_samples  value_hidden_dims
antmaze-large-navigate        0.99      0.7        32           (512,512)
antmaze-giant-navigate        0.995     0.7        32           (512,512)
humanoidmaze-medium-navigate  0.995     0.7        32           (512,512)
humanoidmaze-large-navigate   0.995     0.7        32           (512,512)
antsoccer-arena-navigate      0.995     0.7        32           (512,512)
cube-single-play              0.99      0.9        32           (256,256)
cube-double-play              0.99      0.9        32           (256,256)
scene-play                    0.99      0.9        32           (256,256)
puzzle-3x3-play               0.99      0.9        32           (256,256)
puzzle-4x4-play               0.99      0.9        32           (256,256)
pen-human-v1                  0.99      0.7        32           -
pen-cloned-v1                 0.99      0.7        32           -
pen-expert-v1                 0.99      0.7        32           -
door-human-v1                 0.99      0.7        32           -
door-cloned-v1                0.99      0.7        32           -
door-expert-v1                0.99      0.7        32           -
hammer-human-v1               0.99      0.7        128          -
hammer-cloned-v1              0.99      0.7        32           -
hammer-expert-v1              0.99      0.7        32           -
relocate-human-v1             0.99      0.7        32           -
relocate-cloned-v1            0.99      0.7        64           -
relocate-expert-v1            0.99      0.7        32           -
"""
