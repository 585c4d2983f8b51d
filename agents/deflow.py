"""DeFlow: a multi-step flow policy of the data, refined by a small MLP inside a trust region.

"DeFlow: Decoupling Manifold Modeling and Value Maximization for Offline Policy Extraction",
arXiv 2601.10471. The policy is

    a = clip(mu(s, z) + f(s, mu(s, z))),  z ~ N(0, I),

where the base flow mu imitates the data by flow matching and the refinement f climbs Q while the
mean square of its residual is held at delta by a Lagrange multiplier alpha.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils import agent, flow, losses
from utils.errors import UserError
from utils.metrics import Panel, Signature, unstable_critic
from utils.networks import MLP, EnsembleCritic, Scalar


class DeFlowAgent(agent.Agent):
    """DeFlow with automatic alpha, with a fixed alpha, or reduced to behaviour cloning.

    Metrics: `actor/divergence_ratio` is the divergence over its target delta and settles at 1;
    `alpha/alpha` rises while it is above; `actor/saturation` is the share of action components at
    their bound; `critic/q_abs` is the mean |Q| of the policy's actions; on held-out data,
    `actor/q_gain` is the mean Q of refined actions minus that of the base actions they come from.
    """

    MULTIMODAL = True
    UNCONSTRAINED = {"target_divergence": 1.0}  # noqa: RUF012
    PANELS = (
        Panel("divergence / delta", "actor/divergence_ratio", "log", reference=1.0),
        Panel("alpha", "alpha/alpha", "log"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("critic loss", "critic/critic_loss", "log"),
        Panel("flow loss", "flow/flow_loss"),
        Panel("Q gained by the refinement", "validation/actor/q_gain", reference=0.0),
    )
    SIGNATURES = (
        Signature(
            "divergence above twice its target (off-manifold drift)",
            "raise --agent.target_divergence, or start with a larger --agent.log_alpha_init",
            above={"actor/divergence_ratio": 2.0},
            lasting=10_000,  # alpha takes thousands of updates to get where it holds the divergence
        ),
        Signature(
            "alpha above 1e4 with the divergence far below its target (over-regularised)",
            "check the dual loss's sign in a fork; else raise --agent.target_divergence",
            above={"alpha/alpha": 1e4},
            below={"actor/divergence_ratio": 0.1},
        ),
        unstable_critic(
            "critic/q_abs", "lower --agent.lr or --agent.discount, or set --agent.q_agg=min"
        ),
    )

    def critic_loss(self, batch, params, next_base_actions):
        """Return the squared TD error of every critic against r + gamma * mask * Q'(s', a')."""
        next_actions = self.refine(batch["next_observations"], next_base_actions)
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

    def refinement_loss(self, batch, params, base_actions):
        """Return -Q / sg[mean |Q|] + sg[alpha] * D, D, and metrics.

        D, the divergence, is the mean square of the residual.
        """
        residual = self.network.select("refinement", params)(batch["observations"], base_actions)
        actions = base_actions + residual  # (b, a), before clipping
        q = self.network.select("critic")(batch["observations"], jnp.clip(actions, -1, 1)).mean(0)
        q_abs = jnp.abs(q).mean()
        q_loss = -q.mean()
        if self.config.normalize_q_loss:
            q_loss = q_loss / jax.lax.stop_gradient(q_abs)
        divergence = jnp.mean(residual**2)  # over (b, a)
        alpha = jax.lax.stop_gradient(self.alpha(params))
        metrics = {
            "actor/q_loss": q_loss,
            "actor/divergence": divergence,
            "actor/saturation": jnp.mean(jnp.abs(actions) >= 1.0),
            "critic/q_abs": q_abs,
            "alpha/alpha": alpha,
        }
        return q_loss + alpha * divergence, divergence, metrics

    def dual_loss(self, params, divergence):
        """Ascend the dual: alpha grows while the divergence exceeds its target."""
        log_alpha = self.network.select("log_alpha", params)()
        excess = jax.lax.stop_gradient(divergence) - self.config.target_divergence
        loss = -log_alpha * excess
        return loss, {
            "alpha/alpha_loss": loss,
            "actor/divergence_ratio": divergence / self.config.target_divergence,
        }

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, minimised by one optimiser step, and metrics."""
        loss, metrics = self.flow_loss(batch, params, noise)
        if self.config.bc_only:
            return loss, metrics

        # One pass of the flow with the stored parameters serves s and s': no gradient enters it.
        both_base_actions = self.propose(
            jnp.concatenate([batch["observations"], batch["next_observations"]]),
            jnp.concatenate([noise["z"], noise["next_z"]]),
        )  # (2 b, a)
        base_actions, next_base_actions = jnp.split(both_base_actions, 2)

        critic_loss, critic_metrics = self.critic_loss(batch, params, next_base_actions)
        refinement_loss, divergence, refinement_metrics = self.refinement_loss(
            batch, params, base_actions
        )
        loss = loss + critic_loss + refinement_loss
        metrics |= critic_metrics | refinement_metrics
        if self.config.use_lagrange:
            dual_loss, dual_metrics = self.dual_loss(params, divergence)
            loss = loss + dual_loss
            metrics |= dual_metrics
        return loss, metrics

    def evaluate_loss(self, batch, rng):
        """Return metrics on held-out data, and what refining base actions gains in Q."""
        metrics = super().evaluate_loss(batch, rng)
        if self.config.bc_only:
            return metrics
        observations = batch["observations"]
        key = jax.random.fold_in(rng, 2)  # the others' keys are 0 and 1
        z = jax.random.normal(key, batch["actions"].shape)
        base_actions = self.propose(observations, z)
        actions = self.refine(observations, base_actions)
        gain = self.value(observations, actions) - self.value(observations, base_actions)  # (b,)
        return metrics | {"actor/q_gain": gain.mean()}

    def sample_noise(self, rng, batch):
        """Sample flow matching's x0 (b, a) and t (b, 1), and the flow's starts z, next_z (b, a)."""
        keys = jax.random.split(rng, 4)
        shape = batch["actions"].shape
        return {
            "x0": jax.random.normal(keys[0], shape),
            "t": jax.random.uniform(keys[1], (*shape[:-1], 1)),
            "z": jax.random.normal(keys[2], shape),
            "next_z": jax.random.normal(keys[3], shape),
        }

    def alpha(self, params=None):
        """Return the multiplier of the divergence, shape ()."""
        if self.config.use_lagrange:
            return jnp.exp(self.network.select("log_alpha", params)())
        return jnp.asarray(self.config.alpha)

    def velocity(self, observations, x, t):
        """Return the base flow's velocity (..., a) at x (..., a) and time (..., 1)."""
        return self.network.select("base_flow")(observations, x, t)

    def propose(self, observations, z):
        """Solve the base flow from z (..., a) at observations (..., o); return (..., a)."""
        velocity = partial(self.velocity, observations)
        return jnp.clip(flow.euler(velocity, z, self.config.flow_steps), -1, 1)

    def refine(self, observations, base_actions):
        """Return the policy's actions (..., a) in [-1, 1] from base actions (..., a)."""
        if self.config.bc_only:
            return base_actions
        residual = self.network.select("refinement")(observations, base_actions)
        return jnp.clip(base_actions + residual, -1, 1)

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o), alike at 0 and 1."""
        z = jax.random.normal(rng, (*self.batch_shape(observations), self.config.action_dim))
        return self.refine(observations, self.propose(observations, z))

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's mean, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).mean(axis=0)

    def trust_region(self):
        """Return delta, the mean square per dimension at which the divergence is held."""
        return jnp.asarray(self.config.target_divergence)

    def start_online(self):
        """Return the agent for online training, where the base flow may stay as it is."""
        return self.freeze("base_flow") if self.config.fix_bc_flow_online else self

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "target_divergence", 1e-12, float("inf"))
        if config["bc_only"] and config["fix_bc_flow_online"]:
            raise UserError(
                "--agent.bc_only=True leaves the base flow alone to learn, and "
                "--agent.fix_bc_flow_online=True keeps it from that: give one of them"
            )

    @classmethod
    def networks(cls, observations, actions, config):
        """Return base flow, refinement, critic and log alpha, as far as an ablation has them."""
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
    """Return every setting of DeFlow with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and refinement
            "value_hidden_dims": (512, 512, 512, 512),  # critic
            "actor_layer_norm": False,  # in the networks of actor_hidden_dims
            "layer_norm": True,  # in the critic
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "q_agg": "mean",  # 'mean' or 'min' over the ensemble in the TD target
            "flow_steps": 10,  # Euler steps of the base flow
            "normalize_q_loss": True,  # divide the refinement's Q by its mean magnitude
            "use_lagrange": True,  # tune alpha by dual ascent; False keeps it at `alpha`
            "target_divergence": 0.01,  # delta, mean square of the residual per action dimension
            "log_alpha_init": 1.0,  # log(alpha) at the start of dual ascent
            "alpha": 1.0,  # the fixed multiplier, used with use_lagrange=False
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
            "bc_only": False,  # base flow alone: no critic, no refinement
            "fix_bc_flow_online": False,  # keep the base flow as it is, in online training only
        }
    )


# arXiv 2601.10471, the appendix's tables. A row without a task's number holds for all five.
PUBLISHED = """
task                                         discount  q_agg  target_divergence
antmaze-large-navigate                       0.99      min    0.01
antmaze-giant-navigate                       0.995     min    0.01
humanoidmaze-medium-navigate                 0.995     mean   0.001
humanoidmaze-large-navigate                  0.995     mean   0.001
antsoccer-arena-navigate                     0.995     mean   0.01
cube-single-play                             0.99      mean   0.001
cube-double-play                             0.99      mean   0.001
scene-play                                   0.99      mean   0.001
puzzle-3x3-play                              0.99      mean   0.005
puzzle-4x4-play                              0.99      mean   0.005
visual-cube-single-play-singletask-task1-v0  0.99      mean   0.001
visual-cube-double-play-singletask-task1-v0  0.99      mean   0.001
visual-scene-play-singletask-task1-v0        0.99      mean   0.001
visual-puzzle-3x3-play-singletask-task1-v0   0.99      mean   0.0005
visual-puzzle-4x4-play-singletask-task1-v0   0.99      mean   0.0005
antmaze-umaze-v2                             0.99      mean   0.015
antmaze-umaze-diverse-v2                     0.99      mean   0.015
antmaze-medium-play-v2                       0.99      mean   0.015
antmaze-medium-diverse-v2                    0.99      mean   0.015
antmaze-large-play-v2                        0.99      mean   0.015
antmaze-large-diverse-v2                     0.99      mean   0.015
pen-human-v1                                 0.99      min    0.01
pen-cloned-v1                                0.99      min    0.01
pen-expert-v1                                0.99      min    0.01
door-human-v1                                0.99      min    0.001
door-cloned-v1                               0.99      min    0.001
door-expert-v1                               0.99      min    0.001
hammer-human-v1                              0.99      min    0.001
hammer-cloned-v1                             0.99      min    0.001
hammer-expert-v1                             0.99      min    0.001
relocate-human-v1                            0.99      min    0.001
relocate-cloned-v1                           0.99      min    0.001
relocate-expert-v1                           0.99      min    0.001
"""
