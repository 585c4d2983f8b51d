"""Floq: FQL whose critic is a flow from noise to the return.

"floq: Training Critics via Flow-Matching for Scaling Compute in Value-Based RL", arXiv 2509.06863.
A velocity field over scalar returns is trained by flow matching towards TD targets, which K Euler
steps of its target copy give. An ordinary critic is distilled from the field, and that one alone
gives the policy its gradient. Policy, base flow and their losses are FQL's, in `agents/fql.py`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from agents.fql import FQLAgent
from utils import agent, flow, losses
from utils.errors import UserError
from utils.flow_critic import FlowCritic, ReturnRange, fourier_features, hl_gauss, solve
from utils.metrics import Panel


class FloqAgent(FQLAgent):
    """FQL with a flow critic.

    Metrics, beside FQL's: `critic/flow_critic_loss` is flow matching's squared error, summed over
    the repetitions; `critic/distill_critic_loss` is the distance of the distilled critic from the
    field; `critic/spread` is the standard deviation of a state's returns over the starts of the
    flow, near 0 where the field has learned that all of them lead to one number.
    """

    UNCONSTRAINED = {"alpha": 0.1, "discount": 0.0}  # noqa: RUF012  # the range is that of rewards
    PANELS = (
        Panel("distillation loss", "actor/distill_loss", "log"),
        Panel("mean |Q|", "critic/q_abs"),
        Panel("flow critic loss", "critic/flow_critic_loss", "log"),
        Panel("distilled critic loss", "critic/distill_critic_loss", "log"),
        Panel("spread of returns over noise", "critic/spread", "log"),
        Panel("flow loss", "flow/flow_loss"),
    )

    def critic_loss(self, batch, params, noise):
        """Return the losses of both critics, with FQL's actions at s'."""
        next_observations = agent.repeat(batch["next_observations"], self.config.noise_samples, 1)
        next_actions = self.actions(next_observations, noise["next_z"])  # (b, R, a)
        return self.flow_critic_loss(batch, params, noise, next_actions)

    def flow_critic_loss(self, batch, params, noise, next_actions):
        """Return the losses of the field and of the critic distilled from it, and metrics.

        Each of R repetitions has an action (b, R, a) at s', a start and a time of its own; all go
        towards one target.
        """
        target = self.target_returns(batch, noise, next_actions)[:, None, None]  # (b, 1, 1)
        observations = agent.repeat(batch["observations"], self.config.noise_samples, 1)
        actions = agent.repeat(batch["actions"], self.config.noise_samples, 1)  # (b, R, a)
        velocity = partial(self.network.select("flow_critic", params), observations, actions)
        x0 = self.noise_range().at(noise["u"])  # (b, R, 1)
        t = jnp.zeros_like(x0) if self.config.train_at_zero_only else noise["critic_t"]
        errors = flow.matching_errors(velocity, x0, target, t)  # (ensemble, b, R, 1)
        field_loss = errors.sum(axis=(2, 3)).mean()

        returns = self.returns(
            self.network.select("flow_critic"), observations, actions, noise["u"]
        )  # (ensemble, b, R)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        distill_loss = losses.ensemble_mse(q, returns.mean(axis=(0, 2)))
        return field_loss + distill_loss, {
            "critic/critic_loss": field_loss + distill_loss,
            "critic/flow_critic_loss": field_loss,
            "critic/distill_critic_loss": distill_loss,
            "critic/spread": returns.std(axis=2).mean(),
            "critic/q_mean": q.mean(),
        }

    def target_returns(self, batch, noise, next_actions):
        """Return r + gamma * mask * Z'(s', a'), over the repetitions' mean, (b,)."""
        next_returns = self.next_returns(batch, noise, next_actions).mean(axis=1)
        return losses.td_target(batch, next_returns, self.config.discount)

    def next_returns(self, batch, noise, next_actions):
        """Return where the target field ends at s' and actions (b, R, a), (b, R)."""
        observations = agent.repeat(batch["next_observations"], self.config.noise_samples, 1)
        target = self.network.select_target("flow_critic")
        returns = self.returns(target, observations, next_actions, noise["next_u"])
        return agent.aggregate(returns, self.config.q_agg)

    def returns(self, field, observations, actions, u):
        """Solve a field at (b, R, ...) from ratios u (b, R, 1); return (ensemble, b, R)."""
        velocity, start = partial(field, observations, actions), self.noise_range().at(u)
        return solve(velocity, start, self.config.num_flow_critics, self.config.critic_flow_steps)

    def noise_range(self):
        """Return where the flow of returns starts: a part of the range of returns."""
        rewards = (self.config.noise_coverage * r for r in (self.config.r_min, self.config.r_max))
        return ReturnRange.of_rewards(*rewards, self.config.discount)

    def sample_noise(self, rng, batch):
        """Sample FQL's noise, and for the R repetitions next_z (b, R, a) and three (b, R, 1)."""
        keys = jax.random.split(rng, 5)
        return super().sample_noise(keys[0], batch) | repetitions(keys[1:], batch, self.config)

    @classmethod
    def settings_from_data(cls, data, config):
        """Return the smallest and the largest reward."""
        rewards = data["rewards"]
        return {"r_min": float(rewards.min()), "r_max": float(rewards.max())}

    @classmethod
    def targets(cls, config):
        """Return the field; the distilled critic needs no target."""
        return {"flow_critic": config["tau"]}

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        check_flow_critic(config)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return FQL's networks, its critic being the distilled one, and the field."""
        field = flow_critic(config), (observations, actions, actions[..., :1], actions[..., :1])
        return super().networks(observations, actions, config) | {"flow_critic": field}


def flow_critic(config):
    """Return the network of the field, whose inputs are embedded as the settings say."""
    margin = config["reward_offset"]
    low, high = config["r_min"] - margin, config["r_max"] + margin
    returns = ReturnRange.of_rewards(low, high, config["discount"])
    if config["use_prob_embed"]:
        embed_return = partial(
            hl_gauss, returns=returns, num_bins=config["num_bins"], sigma=config["sigma"]
        )
    else:
        embed_return = returns.ratio
    if config["time_embedding"] == "fourier":
        embed_time = partial(fourier_features, count=config["time_embed_dim"])
    else:
        embed_time = jnp.cos if config["time_embedding"] == "cos" else jnp.asarray
    return FlowCritic(
        config["flow_critic_hidden_dims"],
        embed_return,
        embed_time,
        config["num_flow_critics"],
        config["layer_norm"],
    )


def repetitions(keys, batch, config):
    """Sample the noise of the R repetitions from four keys."""
    shape = (len(batch["actions"]), config["noise_samples"])
    names = ("next_u", "u", "critic_t")  # uniform
    return {"next_z": jax.random.normal(keys[0], (*shape, config["action_dim"]))} | {
        name: jax.random.uniform(key, (*shape, 1))
        for name, key in zip(names, keys[1:], strict=True)
    }


def check_flow_critic(config):
    """Raise UserError for settings of the flow critic that cannot work."""
    for key in ("num_flow_critics", "noise_samples", "critic_flow_steps", "time_embed_dim"):
        agent.require_range(config, key, 1, float("inf"))
    agent.require_range(config, "num_bins", 2, float("inf"))
    for key in ("sigma", "reward_offset"):
        agent.require_range(config, key, 1e-6, float("inf"))
    agent.require_range(config, "discount", 0.0, 0.9999)  # returns are in units of 1 / (1 - it)
    agent.require_choice(config, "time_embedding", ("cos", "fourier", "raw"))
    if config["train_at_zero_only"] and config["critic_flow_steps"] > 1:
        raise UserError(
            "--agent.train_at_zero_only=True learns the field at time 0 alone; give "
            "--agent.critic_flow_steps=1 with it"
        )


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of floq with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # base flow and one-step actor
            "value_hidden_dims": (512, 512, 512, 512),  # distilled critic
            "flow_critic_hidden_dims": (512, 512, 512, 512),  # field of returns
            "actor_layer_norm": False,  # in the networks of actor_hidden_dims
            "layer_norm": True,  # in both critics
            "num_critics": 2,  # distilled critics in the ensemble
            "num_flow_critics": 2,  # fields in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target field
            "q_agg": "mean",  # 'mean' or 'min' over the fields in the TD target
            "alpha": 10.0,  # weight of the distillation (the BC coefficient)
            "flow_steps": 10,  # Euler steps of the base flow
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
            "normalize_q_loss": False,  # divide the actor's Q by its mean magnitude
        }
    )


# The released code's commands, the first of two settings where it has two; the second, which the
# paper calls best, has critic_flow_steps=4 on antmaze-giant and noise_coverage=0.25 on puzzle-4x4.
# A row without a task's number holds for all five. There are none for D4RL and pixels.
PUBLISHED = """
task                          discount  q_agg  alpha   batch_size  flow_critic_hidden_dims
antmaze-large-navigate        0.99      mean   10.0    256         -
antmaze-giant-navigate        0.995     min    10.0    512         -
humanoidmaze-medium-navigate  0.995     mean   30.0    256         -
humanoidmaze-large-navigate   0.995     mean   20.0    512         -
antsoccer-arena-navigate      0.995     mean   10.0    256         -
cube-single-play              0.99      mean   300.0   256         (512,512)
cube-double-play              0.99      mean   300.0   256         (512,512)
scene-play                    0.99      mean   300.0   256         -
puzzle-3x3-play               0.99      mean   1000.0  256         -
puzzle-4x4-play               0.99      mean   1000.0  256         -
"""

# The same, where the commands of fine-tuning differ.
PUBLISHED_ONLINE = """
task                         alpha  critic_flow_steps  noise_coverage
antmaze-giant-navigate       -      4                  -
humanoidmaze-large-navigate  -      16                 -
antsoccer-arena-navigate     30.0   -                  -
puzzle-4x4-play              -      -                  0.25
"""
