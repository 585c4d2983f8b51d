"""DeFlowVF: DeFlow whose critic is a flow from noise to the return.

The variant with a value flow of "DeFlow: Decoupling Manifold Modeling and Value Maximization for
Offline Policy Extraction", arXiv 2601.10471. Base flow, refinement and the dual ascent of alpha are
DeFlow's, in `agents/deflow.py`; the field of returns and the critic distilled from it are floq's
(arXiv 2509.06863), in `agents/floq.py`. The refinement climbs the distilled critic.
"""

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from agents.deflow import DeFlowAgent
from agents.floq import FloqAgent, check_flow_critic, flow_critic, repetitions
from utils import agent
from utils.metrics import Panel


class DeFlowVFAgent(DeFlowAgent):
    """DeFlow with a flow critic, and with DeFlow's ablations.

    Metrics are those of DeFlow, and floq's of its critic.
    """

    UNCONSTRAINED = {"target_divergence": 1.0, "discount": 0.0}  # noqa: RUF012
    PANELS = (
        Panel("divergence / delta", "actor/divergence_ratio", "log", reference=1.0),
        Panel("alpha", "alpha/alpha", "log"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("flow critic loss", "critic/flow_critic_loss", "log"),
        Panel("distilled critic loss", "critic/distill_critic_loss", "log"),
        Panel("spread of returns over noise", "critic/spread", "log"),
        Panel("flow loss", "flow/flow_loss"),
        Panel("Q gained by the refinement", "validation/actor/q_gain", reference=0.0),
    )

    # The critic is floq's, method by method.
    flow_critic_loss = FloqAgent.flow_critic_loss
    target_returns = FloqAgent.target_returns
    next_returns = FloqAgent.next_returns
    returns = FloqAgent.returns
    noise_range = FloqAgent.noise_range
    settings_from_data = FloqAgent.settings_from_data

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, minimised by one optimiser step, and metrics."""
        loss, metrics = self.flow_loss(batch, params, noise)
        if self.config.bc_only:
            return loss, metrics

        base_actions, next_base_actions = self.base_actions(batch, noise)
        refinement_loss, divergence, refinement_metrics = self.refinement_loss(
            batch, params, base_actions
        )
        critic_loss, critic_metrics = self.critic_loss(batch, params, noise, next_base_actions)
        loss, metrics = loss + refinement_loss + critic_loss, metrics | refinement_metrics
        if self.config.use_lagrange:
            dual_loss, dual_metrics = self.dual_loss(params, divergence)
            loss, metrics = loss + dual_loss, metrics | dual_metrics
        return loss, metrics | critic_metrics

    def critic_loss(self, batch, params, noise, next_base_actions):
        """Return the losses of both critics, with the policy's actions at s'."""
        observations = agent.repeat(batch["next_observations"], self.config.noise_samples, 1)
        next_actions = self.refine(observations, next_base_actions)  # (b, R, a)
        return self.flow_critic_loss(batch, params, noise, next_actions)

    def base_actions(self, batch, noise):
        """Return base actions (b, a) at s, and (b, R, a) at s', by one pass of the flow."""
        current, following = batch["observations"][:, None], batch["next_observations"]
        observations = jnp.concatenate(
            [current, agent.repeat(following, self.config.noise_samples, 1)], axis=1
        )
        z = jnp.concatenate([noise["z"][:, None], noise["next_z"]], axis=1)  # (b, 1 + R, a)
        actions = self.propose(observations, z)
        return actions[:, 0], actions[:, 1:]

    def sample_noise(self, rng, batch):
        """Sample DeFlow's noise, and for the R repetitions next_z (b, R, a) and three (b, R, 1)."""
        keys = jax.random.split(rng, 5)
        return super().sample_noise(keys[0], batch) | repetitions(keys[1:], batch, self.config)

    @classmethod
    def targets(cls, config):
        """Return the field; the distilled critic needs no target."""
        return {} if config["bc_only"] else {"flow_critic": config["tau"]}

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        check_flow_critic(config)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return DeFlow's networks, its critic being the distilled one, and the field."""
        networks = super().networks(observations, actions, config)
        if config["bc_only"]:
            return networks
        inputs = (observations, actions, actions[..., :1], actions[..., :1])
        return networks | {"flow_critic": (flow_critic(config), inputs)}


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of DeFlowVF with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and refinement
            "value_hidden_dims": (512, 512, 512, 512),  # distilled critic
            "flow_critic_hidden_dims": (512, 512, 512, 512),  # field of returns
            "actor_layer_norm": False,  # in the networks of actor_hidden_dims
            "layer_norm": True,  # in both critics
            "num_critics": 2,  # distilled critics in the ensemble
            "num_flow_critics": 2,  # fields in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target field
            "q_agg": "mean",  # 'mean' or 'min' over the fields in the TD target
            "flow_steps": 10,  # Euler steps of the base flow
            "normalize_q_loss": False,  # divide the refinement's Q by its mean magnitude
            "use_lagrange": True,  # tune alpha by dual ascent; False keeps it at `alpha`
            "target_divergence": 0.001,  # delta, mean square of the residual per action dimension
            "log_alpha_init": 1.0,  # log(alpha) at the start of dual ascent
            "alpha": 1.0,  # the fixed multiplier, used with use_lagrange=False
            "critic_flow_steps": 8,  # K, Euler steps of the field
            "noise_samples": 8,  # R, repetitions of each row in the critic's loss
            "noise_coverage": 0.1,  # share of the range of returns in which the flow starts
            "r_min": -1.0,  # smallest reward; from the data unless it is given
            "r_max": 0.0,  # largest reward; from the data unless it is given
            "reward_offset": 0.01,  # by which the histogram's range of rewards is wider
            "use_prob_embed": True,  # returns as histograms; False gives one scaled number
            "num_bins": 51,  # edges of the histogram
            "sigma": 16.0,  # standard deviation in the histogram, in widths of a bin
            "time_embedding": "cos",  # 'cos' of t, 'fourier' (cos of pi k t), or 'raw'
            "time_embed_dim": 64,  # features of time_embedding=fourier
            "train_at_zero_only": False,  # learn the field at t = 0 only, with critic_flow_steps=1
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
            "bc_only": False,  # base flow alone: no critic, no refinement
            "fix_bc_flow_online": False,  # keep the base flow as it is, in online training only
        }
    )


# The paper's code has no settings by task for it, and no results: delta, q_agg and discount are
# open, and DeFlow's or floq's are where to begin.
