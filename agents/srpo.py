"""SRPO: a deterministic policy that climbs Q, held to the data by the score of a diffusion model.

"Score Regularized Policy Optimization through Diffusion Behavior", arXiv 2310.07297. V and Q are
learned as in IQL (arXiv 2110.06169, equations 5 and 6), and a diffusion model, the prior, imitates
the data. The policy never samples from it: the noise that the prior predicts in the policy's own
noised action is the gradient that leads back to the data, against the gradient of Q.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from ml_collections import config_dict

from utils import agent, diffusion, losses
from utils.metrics import Panel, unstable_critic
from utils.networks import MLP, EnsembleCritic, Value, fan_in_uniform_init
from utils.recorded_settings import freeze

RELU = {"activation": nn.relu, "kernel_init": fan_in_uniform_init}


class SRPOAgent(agent.Agent):
    """SRPO as in its authors' code, in one run.

    By default prior, V, Q and policy learn in every update. With `pretrain_steps`, the policy
    stands still for so many updates and then learns alone, as in the authors' three programs.
    Online the prior stands still, and V, Q and policy learn.

    Metrics: `prior/prior_loss` is the squared error of the predicted noise, summed over action
    dimensions; `value/v` is the mean of V; `actor/q` is the mean Q' of the policy's actions;
    `actor/score` and `actor/guidance` are the mean squares, per action dimension, of the two
    gradients that pull at them, the prior's and, by `beta`, that of Q; `actor/actor_loss` has no
    meaning but its gradient.
    """

    BANDIT = {  # noqa: RUF012
        "prior_lr": 1e-3,
        "critic_lr": 1e-3,
        "value_lr": 1e-3,
        "actor_lr": 1e-3,
        "prior_hidden_dim": 64,
        "beta": 0.1,
    }
    UNCONSTRAINED = BANDIT | {"beta": 10.0}
    TARGETS_AFTER_STEP = True
    PANELS = (
        Panel("diffusion loss", "prior/prior_loss"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("mean Q of the policy", "actor/q"),
        Panel("square of the prior's gradient", "actor/score", "log"),
        Panel("square of Q's gradient", "actor/guidance", "log"),
    )
    SIGNATURES = (
        unstable_critic(
            "value/v_abs", "lower --agent.critic_lr, --agent.discount or --agent.expectile"
        ),
    )

    def prior_loss(self, batch, params, noise):
        """Return the squared error of the noise that the prior predicts."""
        t, z = 0.001 + 0.999 * noise["prior_u"], noise["prior_z"]
        masks = diffusion.dropout_masks(noise, self.config.prior_dropout)
        data = batch["observations"], batch["actions"]
        predicted = self.predicted_noise(*data, t, z, params, *masks)
        chex.assert_equal_shape([predicted, z])
        loss = jnp.mean(jnp.sum((predicted - z) ** 2, axis=-1))
        return loss, {"prior/prior_loss": loss}

    def predicted_noise(self, observations, actions, t, z, params=None, *masks):
        """Return the prior's noise (b, a) in actions (b, a) noised by z until times t (b,)."""
        alpha, sigma = diffusion.vp_marginal(t[..., None])  # (b, 1)
        prior = self.network.select("prior", params)
        return prior(observations, alpha * actions + sigma * z, t[..., None], *masks)

    def value_loss(self, batch, params):
        """Regress V on an expectile of Q' over the data's actions (IQL, equation 5)."""
        v = self.network.select("value", params)(batch["observations"])
        difference = self.value(batch["observations"], batch["actions"]) - v
        chex.assert_shape(difference, v.shape)  # (b,)
        loss = losses.expectile_loss(difference, self.config.expectile)
        return loss, {"value/value_loss": loss, "value/v": v.mean(), "value/v_abs": abs(v).mean()}

    def critic_loss(self, batch, params):
        """Return the squared TD error against V(s') from before its step (IQL, equation 6)."""
        next_v = self.network.select("value")(batch["next_observations"])
        target_q = losses.td_target(batch, next_v, self.config.discount)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = losses.ensemble_mse(q, target_q)
        return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}

    def actor_loss(self, batch, params, noise):
        """Return a loss whose gradient by an action is w(t) * noise - beta * dQ'/da, and metrics.

        The noise is what the prior predicts in that action after it was noised until a time t.
        """
        observations = batch["observations"]
        actions = self.act(observations, params)  # (b, a)
        fixed = jax.lax.stop_gradient(actions)
        t = 0.02 + 0.96 * noise["u"]
        score = self.predicted_noise(observations, fixed, t, noise["z"])
        if self.config.subtract_noise:
            score = score - noise["z"]
        score = self.weight(t)[..., None] * score
        q, gradient = self.guidance(observations, fixed)
        guidance = self.config.beta * gradient
        chex.assert_equal_shape([score, guidance, actions])
        loss = jnp.mean(jnp.sum((score - guidance) * actions, axis=-1))
        return loss, {
            "actor/actor_loss": loss,
            "actor/q": q,
            "actor/score": jnp.mean(score**2),
            "actor/guidance": jnp.mean(guidance**2),
        }

    def weight(self, t):
        """Return w(t) (...) of times (...)."""
        alpha, sigma = diffusion.vp_marginal(t)
        by_name = {"VDS": sigma**2, "stable": jnp.ones_like(t), "score": alpha / sigma}
        return by_name[self.config.weighting]

    def guidance(self, observations, actions):
        """Return the mean of Q' (), that of the ensemble's mean, and its gradient by actions."""

        def total(actions):
            return self.network.select_target("critic")(observations, actions).mean(axis=0).sum()

        q, gradient = jax.value_and_grad(total)(actions)
        if self.config.normalize_guidance:
            size = jnp.sqrt(jnp.mean(gradient**2, axis=-1, keepdims=True))
            gradient = gradient / jnp.maximum(size, 1e-8)
        return q / len(actions), gradient

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, of which those that learn have a gradient, and metrics."""

        def loss(params, actor_params):
            parts = (
                self.prior_loss(batch, params, noise),
                self.value_loss(batch, params),
                self.critic_loss(batch, params),
                self.actor_loss(batch, actor_params, noise),
            )
            metrics = {name: value for _, found in parts for name, value in found.items()}
            return sum(part for part, _ in parts), metrics

        if self.config.pretrain_steps is None:
            return loss(params, params)
        constant = self.network.params
        return jax.lax.cond(
            self.learns(self.config, "actor", self.network.step),
            lambda params: loss(constant, params),
            lambda params: loss(params, constant),
            params,
        )

    def sample_noise(self, rng, batch):
        """Sample u (b,) and z (b, a), times and noise, for prior and policy; and dropout's."""
        keys = jax.random.split(rng, 5)
        shape = batch["actions"].shape
        size = (shape[0], self.config.prior_hidden_dim)
        rate, num_blocks = self.config.prior_dropout, self.config.prior_num_blocks
        return {
            "prior_u": jax.random.uniform(keys[0], shape[:1]),
            "prior_z": jax.random.normal(keys[1], shape),
            "u": jax.random.uniform(keys[2], shape[:1]),
            "z": jax.random.normal(keys[3], shape),
        } | diffusion.sample_dropout(keys[4], rate, size, num_blocks)

    def act(self, observations, params=None):
        """Return the policy's actions (..., a)."""
        return jnp.tanh(self.network.select("actor", params)(observations))

    def sample_actions(self, observations, rng, temperature=1.0):
        """Return the policy's actions (..., a) in [-1, 1], alike at 0 and 1."""
        return self.act(observations)

    def value(self, observations, actions):
        """Return Q-values (...), the minimum of the target critics, of actions (..., a)."""
        return self.network.select_target("critic")(observations, actions).min(axis=0)

    def start_online(self):
        """Return the agent for online training, in which all but the prior learns."""
        settings = freeze(self.config, pretrain_steps=None, decay_steps=0)
        return self.replace(config=settings).freeze("prior")

    def target_rates(self):
        """Return the critic's rate, 0 while the policy learns alone."""
        learns = self.learns(self.config, "critic", self.network.step)
        return {name: jnp.where(learns, rate, 0.0) for name, rate in super().target_rates().items()}

    @classmethod
    def learns(cls, config, network, step):
        """Return whether a network moves in the update after `step` others."""
        steps = config["pretrain_steps"]
        if steps is None:
            return True
        return step >= steps if network == "actor" else step < steps

    @classmethod
    def optimizer(cls, config, network):
        """Return AdamW for the prior, Adam for V and Q, and for the policy with a schedule.

        What stands still keeps its moments, and the schedule begins with the policy's first step.
        """
        rate = config[f"{network}_lr"]
        if network == "actor":
            steps = config["decay_steps"]
            constant = optax.constant_schedule(rate)
            rate = optax.cosine_decay_schedule(rate, steps) if steps else constant
        optimizer = optax.adam(rate)
        if network == "prior":

            def decays(params):  # all but the random frequencies
                return {name: name != "time" for name in params}

            optimizer = optax.adamw(rate, weight_decay=config["weight_decay"], mask=decays)
        return optax.conditionally_mask(optimizer, lambda step: cls.learns(config, network, step))

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_choice(config, "weighting", ("VDS", "stable", "score"))
        for key, high in (("expectile", 1.0), ("prior_dropout", 0.99)):
            agent.require_range(config, key, 0.0, high)
        for key in ("beta", "decay_steps", "weight_decay", "time_scale"):
            agent.require_range(config, key, 0, float("inf"))
        for key in ("prior_hidden_dim", "prior_num_blocks"):
            agent.require_range(config, key, 1, float("inf"))
        agent.require_range(config, "time_dim", 2, float("inf"))
        if config["pretrain_steps"] is not None:
            agent.require_range(config, "pretrain_steps", 0, float("inf"))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return prior, V, critic and policy."""
        prior = diffusion.Denoiser(
            config["prior_hidden_dim"],
            config["prior_num_blocks"],
            diffusion.RandomFourierTime(config["time_dim"], config["time_scale"]),
            config["time_hidden_dims"],
            activation=jax.nn.mish,
            kernel_init=fan_in_uniform_init,
            block_init=fan_in_uniform_init,
            epsilon=1e-5,
        )
        critic = EnsembleCritic(
            config["value_hidden_dims"], config["num_critics"], layer_norm=False, **RELU
        )
        value = Value(config["value_hidden_dims"], layer_norm=False, **RELU)
        actor = MLP(config["actor_hidden_dims"], actions.shape[-1], **RELU)
        return {
            "prior": (prior, (observations, actions, actions[..., :1])),
            "value": (value, (observations,)),
            "critic": (critic, (observations, actions)),
            "actor": (actor, (observations,)),
        }


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of SRPO with its default."""
    return ml_collections.ConfigDict(
        {
            "prior_lr": 3e-4,  # of AdamW for the diffusion model
            "critic_lr": 3e-4,  # of Adam for the critic
            "value_lr": 3e-4,  # of Adam for V
            "actor_lr": 3e-4,  # of Adam for the policy, at the start
            "decay_steps": 1_000_000,  # in which actor_lr falls to 0, along a cosine; 0 keeps it
            "weight_decay": 0.01,  # of all parameters of the diffusion model
            "batch_size": 256,  # rows of the data per update
            "pretrain_steps": config_dict.placeholder(
                int
            ),  # updates before the policy learns, and then alone; None has all learn in all
            "actor_hidden_dims": (256, 256),  # policy
            "value_hidden_dims": (256, 256),  # critic and V
            "num_critics": 2,  # Q-functions in the ensemble
            "prior_hidden_dim": 256,  # width of the diffusion model's blocks
            "prior_num_blocks": 3,  # residual blocks
            "prior_dropout": 0.1,  # in the blocks, while learning
            "time_dim": 64,  # Fourier features of the diffusion's time
            "time_scale": 30.0,  # standard deviation of their frequencies
            "time_hidden_dims": (128, 128),  # MLP on these features
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "expectile": 0.7,  # of Q that V is; 0.5 is the mean
            "beta": 0.05,  # weight of Q against the data; to be set for each task
            "weighting": "VDS",  # w(t): sigma^2 ('VDS'), 1 ('stable') or alpha / sigma ('score')
            "subtract_noise": False,  # take z from the predicted noise, a baseline without bias
            "normalize_guidance": False,  # divide dQ/da by its root mean square over dimensions
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters: beta, on IDQL's expectile and widths. A row without a
# task's number holds for all five; antsoccer's beta is not known, nor whether guidance was
# normalised there. The code of these results has not been released. D4RL's antmazes are as in
# SRPO's own code, from which their printed numbers come. It was not run on pixels.
PUBLISHED = """
task                          discount  beta   expectile  value_hidden_dims  actor_hidden_dims  normalize_guidance
antmaze-large-navigate        0.99      0.3    0.7        (512,512)          -                  -
antmaze-giant-navigate        0.995     0.3    0.7        (512,512)          -                  -
humanoidmaze-medium-navigate  0.995     0.3    0.7        (512,512)          -                  -
humanoidmaze-large-navigate   0.995     0.3    0.7        (512,512)          -                  -
antsoccer-arena-navigate      0.995     -      0.7        (512,512)          -                  -
cube-single-play              0.99      0.03   0.9        (256,256)          -                  -
cube-double-play              0.99      0.1    0.9        (256,256)          -                  -
scene-play                    0.99      0.1    0.9        (256,256)          -                  -
puzzle-3x3-play               0.99      0.1    0.9        (256,256)          -                  -
puzzle-4x4-play               0.99      0.1    0.9        (256,256)          -                  -
antmaze-umaze-v2              0.99      0.02   0.9        (256,256)          (256,256,256,256)  True
antmaze-umaze-diverse-v2      0.99      0.04   0.9        (256,256)          (256,256,256,256)  True
antmaze-medium-play-v2        0.99      0.08   0.9        (256,256)          (256,256,256,256)  True
antmaze-medium-diverse-v2     0.99      0.05   0.9        (256,256)          (256,256,256,256)  True
antmaze-large-play-v2         0.99      0.06   0.9        (256,256)          (256,256,256,256)  True
antmaze-large-diverse-v2      0.99      0.05   0.9        (256,256)          (256,256,256,256)  True
pen-human-v1                  0.99      0.03   0.7        -                  -                  -
pen-cloned-v1                 0.99      0.1    0.7        -                  -                  -
pen-expert-v1                 0.99      0.1    0.7        -                  -                  -
door-human-v1                 0.99      0.01   0.7        -                  -                  -
door-cloned-v1                0.99      0.03   0.7        -                  -                  -
door-expert-v1                0.99      0.01   0.7        -                  -                  -
hammer-human-v1               0.99      0.1    0.7        -                  -                  -
hammer-cloned-v1              0.99      0.1    0.7        -                  -                  -
hammer-expert-v1              0.99      0.03   0.7        -                  -                  -
relocate-human-v1             0.99      0.03   0.7        -                  -                  -
relocate-cloned-v1            0.99      0.03   0.7        -                  -                  -
relocate-expert-v1            0.99      0.01   0.7        -                  -                  -
"""  # noqa: E501
