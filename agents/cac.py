"""CAC: Diffusion-QL with a consistency model as the policy, which acts after two evaluations.

"Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning", arXiv
2309.16984. The policy is trained to agree with its own average along the paths from noise to the
data's actions, and to climb Q, whose gradient flows through all evaluations that sample an action.
"""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import optax
from ml_collections import config_dict

from utils import agent, consistency, losses
from utils.consistency import ConsistencyModel
from utils.metrics import Panel, unstable_critic
from utils.networks import EnsembleCritic, fan_in_uniform_init

BACKUP_ACTIONS = 10  # at each next state, with max_q_backup


class CACAgent(agent.Agent):
    """CAC as in its authors' code (its offline class `Consistency_QL`).

    One update moves the critics, then the policy with the new critics, then the policy's moving
    average and the target critics, which follow the parameters from after the step. The average
    stands still for `ema_start` updates, and then moves in every `ema_every`-th.

    Metrics: `consistency/consistency_loss` is the disagreement of neighbouring times, weighted by
    100 over their distance (`scale_consistency`); `consistency/error` is the same as a plain mean
    square; `consistency/num_scales` is N, the number of times, which grows over each `iterations`
    updates; `actor/q_loss` is minus one critic's Q over the other's mean |Q|, without eta;
    `critic/q_abs` is the mean |Q| of the policy's actions; `actor/saturation` is the share of their
    components at the bound, where Q has no gradient; `grad_norm/<network>` is from before clipping.
    """

    BANDIT = {  # noqa: RUF012
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "ema_start": 0,
        "eta": 3.0,
    }
    UNCONSTRAINED = BANDIT | {"eta": 10.0}
    TARGETS_AFTER_STEP = True
    PANELS = (
        Panel("consistency error", "consistency/error", "log"),
        Panel("number of times", "consistency/num_scales"),
        Panel("mean |Q| of the policy", "critic/q_abs"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("gradient of the policy", "grad_norm/actor", "log"),
        Panel("actions at their bound", "actor/saturation"),
    )
    SIGNATURES = (
        unstable_critic("critic/q_abs", "lower --agent.eta, --agent.critic_lr or --agent.discount"),
    )

    def critic_loss(self, batch, params, noise):
        """Return the squared TD error, summed over the two critics."""
        target_q = losses.td_target(batch, self.next_q(batch, noise), self.config.discount)
        if self.config.q_norm:
            target_q = target_q / (jnp.std(target_q, ddof=1) + 1e-6)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = len(q) * losses.ensemble_mse(q, target_q)
        return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}

    def next_q(self, batch, noise):
        """Return the minimum of Q' (b,) at s', each of them the best of its actions there."""
        observations, actions = self.next_actions(batch, noise)
        q = self.network.select_target("critic")(observations, actions)
        if self.config.max_q_backup:
            q = q.max(axis=-1)
        return q.min(axis=0)

    def next_actions(self, batch, noise):
        """Return s' and the average policy's actions there, (b, ...) or (b, 10, ...)."""
        observations = batch["next_observations"]
        if self.config.max_q_backup:
            observations = agent.repeat(observations, BACKUP_ACTIONS, 1)
        average = self.network.select_target("actor")
        return observations, self.act(average, observations, noise["next_z"])

    def act(self, model, observations, z):
        """Return actions (..., a) in [-1, 1] of a policy, from noise z (T, ..., a)."""
        return consistency.sample(lambda x, t: model(observations, x, t), z)

    def actor_loss(self, batch, params, noise):
        """Return the consistency loss plus eta times the loss of Q, and metrics."""
        consistency_loss, metrics = self.consistency_loss(batch, params, noise)
        q_loss, q_metrics = self.q_loss(batch, params, noise)
        loss = consistency_loss + self.config.eta * q_loss
        return loss, metrics | q_metrics | {"actor/actor_loss": loss}

    def consistency_loss(self, batch, params, noise):
        """Return the disagreement of policy and average at neighbouring times, and metrics."""
        errors, distance = self.consistency_errors(batch, params, noise)
        weight = 100.0 / distance if self.config.scale_consistency else 1.0
        loss = jnp.mean(weight * errors)
        return loss, {
            "consistency/consistency_loss": loss,
            "consistency/error": errors.mean(),
            "consistency/num_scales": noise["num_scales"].astype(jnp.float32),
        }

    def consistency_errors(self, batch, params, noise):
        """Return squared errors (b, a) of neighbouring times, and the times' distance (b, 1)."""
        earlier, later = consistency.neighbours(noise["index"], noise["num_scales"])
        observations, actions = batch["observations"], batch["actions"]
        z = noise["consistency_z"]
        predicted = self.network.select("actor", params)(observations, actions + later * z, later)
        average = self.network.select_target("actor")
        target = average(observations, actions + earlier * z, earlier)
        chex.assert_equal_shape([predicted, target, actions])
        return (predicted - target) ** 2, later - earlier

    def q_loss(self, batch, params, noise):
        """Return minus the mean of one critic over sg[mean |Q|] of the other, by a coin."""
        policy = self.network.select("actor", params)
        actions = self.act(policy, batch["observations"], noise["z"])
        q = self.network.select("critic")(batch["observations"], actions)  # (2, b)
        size = jax.lax.stop_gradient(jnp.abs(q).mean(axis=1))
        both = -q.mean(axis=1) / size[::-1]
        loss = jnp.where(noise["coin"] > 0.5, both[0], both[1])
        return loss, {
            "actor/q_loss": loss,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 0.99),
            "critic/q_abs": size.mean(),
        }

    def total_loss(self, batch, params, noise):
        """Return the sum of both losses at the same parameters, for validation, and metrics."""
        critic_loss, critic_metrics = self.critic_loss(batch, params, noise)
        actor_loss, actor_metrics = self.actor_loss(batch, params, noise)
        return critic_loss + actor_loss, critic_metrics | actor_metrics

    def _update(self, batch, rng):
        noise, optimizers, clips = self.sample_noise(rng, batch), self.optimizers(), self.clips()
        network, critic_metrics = self.network.apply_loss_fn(
            lambda params: self.critic_loss(batch, params, noise), optimizers, ["critic"], clips
        )
        learner = self.replace(network=network)
        network, actor_metrics = network.apply_loss_fn(
            lambda params: learner.actor_loss(batch, params, noise), optimizers, ["actor"], clips
        )
        network = network.update_targets(network.params, self.target_rates())
        return self.replace(network=network), critic_metrics | actor_metrics

    def clips(self):
        """Return whether gradients are clipped, and their norms then logged."""
        return self.config.grad_clip > 0

    def sample_noise(self, rng, batch):
        """Sample what the losses need.

        Returns:
            next_z and z, the noise of sampled actions at s' and s, (T, b, a), and next_z (T, b,
            10, a) with max_q_backup; coin (); consistency_z (b, a); index (b,), which of the
            num_scales () times is a pair's earlier one.
        """
        keys = jax.random.split(rng, 5)
        size, action_dim = batch["actions"].shape
        backup = (BACKUP_ACTIONS,) if self.config.max_q_backup else ()
        steps, iterations = self.config.sampling_steps, self.config.iterations
        scales = consistency.num_scales(self.network.step % iterations, iterations)
        return {
            "next_z": jax.random.normal(keys[0], (steps, size, *backup, action_dim)),
            "z": jax.random.normal(keys[1], (steps, size, action_dim)),
            "coin": jax.random.uniform(keys[2]),
            "consistency_z": jax.random.normal(keys[3], (size, action_dim)),
            "index": jax.random.randint(keys[4], (size,), 0, scales - 1),
            "num_scales": scales,
        }

    def sample_actions(self, observations, rng, temperature=1.0):
        """Draw one of N sampled actions, with probabilities softmax(Q'), alike at 0 and 1.

        Returns:
            Actions (..., a) in [-1, 1].
        """
        keys, shape = jax.random.split(rng), self.batch_shape(observations)
        count = self.config.num_samples
        size = (*shape, self.config.sampling_steps, count, self.config.action_dim)
        z = jnp.moveaxis(jax.random.normal(keys[0], size), len(shape), 0)  # (T, ..., N, a)
        repeated = agent.repeat(observations, count, len(shape))  # (..., N, o)
        candidates = self.act(self.network.select("actor"), repeated, z)
        gumbel = jax.random.gumbel(keys[1], (*shape, count))
        return agent.best_of(candidates, self.value(repeated, candidates) + gumbel)

    def value(self, observations, actions):
        """Return Q-values (...), the minimum of the target critics, of actions (..., a)."""
        return self.network.select_target("critic")(observations, actions).min(axis=0)

    @classmethod
    def targets(cls, config):
        """Return the critic, and the policy, whose average has a rate of its own."""
        return {"critic": config["tau"], "actor": 1.0 - config["ema_decay"]}

    def target_rates(self):
        """Return the rates, 0 of an average that is not due."""
        rates, step = super().target_rates(), self.network.step
        due = (step >= self.config.ema_start) & (step % self.config.ema_every == 0)
        return rates | {"actor": jnp.where(due, rates["actor"], 0.0)}

    @classmethod
    def optimizer(cls, config, network):
        """Return Adam at a rate of the network's own, after clipping."""
        adam = optax.adam(config[f"{network}_lr"])
        clip = config["grad_clip"]
        return optax.chain(optax.clip_by_global_norm(clip), adam) if clip > 0 else adam

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "ema_decay", 0.0, 1.0)
        for key in ("eta", "grad_clip", "ema_start"):
            agent.require_range(config, key, 0.0, float("inf"))
        for key in ("ema_every", "iterations", "sampling_steps", "num_samples"):
            agent.require_range(config, key, 1, float("inf"))
        agent.require_range(config, "time_dim", 4, float("inf"))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return critic and policy."""
        critic = EnsembleCritic(
            config["value_hidden_dims"],
            layer_norm=False,
            activation=jax.nn.mish,
            kernel_init=fan_in_uniform_init,
        )
        policy = ConsistencyModel(config["actor_hidden_dims"], config["time_dim"])
        return {
            "critic": (critic, (observations, actions)),
            "actor": (policy, (observations, actions, actions[..., :1])),
        }


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of CAC with its default."""
    return ml_collections.ConfigDict(
        {
            "actor_lr": 3e-4,  # of Adam for the policy
            "critic_lr": 3e-4,  # of Adam for the critics
            "grad_clip": 5.0,  # greatest norm of each network's gradient; 0 does not clip
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (256, 256, 256),  # policy
            "value_hidden_dims": (256, 256, 256),  # both critics
            "time_dim": 16,  # features of the consistency model's time
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critics
            "ema_decay": 0.995,  # share of the policy's average that one of its steps keeps
            "ema_start": 1000,  # updates before the average moves
            "ema_every": 5,  # updates per step of the average
            "eta": 1.0,  # weight of Q against the data; to be set for each task
            "max_q_backup": True,  # take the best of 10 actions at the next state, per critic
            "q_norm": False,  # divide the TD target by its standard deviation in the batch
            "scale_consistency": True,  # weigh consistency by 100 over the distance of the times
            "iterations": 50_000,  # updates in which their number grows from 2 to 150, and anew
            "sampling_steps": 2,  # evaluations of the policy per sampled action
            "num_samples": 50,  # N, actions of which one is drawn by Q when acting
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538, tables of hyperparameters. A row without a task's number holds for all five;
# max_q_backup, q_norm, scale_consistency and grad_clip are there, for OGBench, as the defaults are
# here. What they were for D4RL is not said, nor antsoccer's eta. It was not run on pixels.
PUBLISHED = """
task                          discount  eta
antmaze-large-navigate        0.99      1.0
antmaze-giant-navigate        0.995     1.0
humanoidmaze-medium-navigate  0.995     0.03
humanoidmaze-large-navigate   0.995     1.0
antsoccer-arena-navigate      0.995     -
cube-single-play              0.99      0.003
cube-double-play              0.99      0.3
scene-play                    0.99      0.3
puzzle-3x3-play               0.99      0.01
puzzle-4x4-play               0.99      0.01
antmaze-umaze-v2              0.99      0.01
antmaze-umaze-diverse-v2      0.99      0.01
antmaze-medium-play-v2        0.99      0.01
antmaze-medium-diverse-v2     0.99      0.01
antmaze-large-play-v2         0.99      4.5
antmaze-large-diverse-v2      0.99      3.5
pen-human-v1                  0.99      0.003
pen-cloned-v1                 0.99      0.003
pen-expert-v1                 0.99      0.03
door-human-v1                 0.99      0.03
door-cloned-v1                0.99      0.03
door-expert-v1                0.99      0.03
hammer-human-v1               0.99      0.03
hammer-cloned-v1              0.99      0.003
hammer-expert-v1              0.99      0.03
relocate-human-v1             0.99      0.01
relocate-cloned-v1            0.99      0.01
relocate-expert-v1            0.99      0.003
"""
