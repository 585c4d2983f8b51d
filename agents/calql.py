"""Cal-QL: a critic that undervalues actions outside the data, but not below the data's returns.

"Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning", arXiv 2303.05479. It
is CQL (arXiv 2006.04779) on SAC, whose critic's loss lowers the Q of the policy's actions against
that of the data's. Here these Q are first raised to the Monte Carlo return of the data (equation
5.1), so that fine-tuning need not unlearn values that are too low.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from ml_collections import config_dict

from utils import agent, columns, losses
from utils.distributions import Gaussian, TanhGaussian
from utils.metrics import Panel, Signature
from utils.networks import MLP, EnsembleCritic, Scalar

HIDDEN = {"activation": nn.relu, "kernel_init": nn.initializers.orthogonal(np.sqrt(2.0))}
OUTPUT_INIT = nn.initializers.orthogonal(0.01)


class CalQLActor(nn.Module):
    """Tanh-Gaussian policy with a learnt scale and shift of its log standard deviation."""

    hidden_dims: tuple[int, ...]
    action_dim: int

    @nn.compact
    def __call__(self, observations: jax.Array) -> TanhGaussian:
        """Return the distribution of actions (..., action_dim) at observations (..., o)."""
        features = MLP(self.hidden_dims, None, name="hidden", **HIDDEN)(observations)
        mean, head = (
            nn.Dense(self.action_dim, kernel_init=OUTPUT_INIT, name=name)(features)
            for name in ("mean", "log_std")
        )
        multiplier = self.param("log_std_multiplier", nn.initializers.constant(1.0), ())
        offset = self.param("log_std_offset", nn.initializers.constant(-1.0), ())
        return TanhGaussian(Gaussian(mean, jnp.clip(multiplier * head + offset, -20.0, 2.0)))


class CalQLAgent(agent.Agent):
    """Cal-QL as in its authors' code.

    Metrics: `conservative/diff` is how far Q of other actions, as a soft maximum, lies above that
    of the data's; `conservative/raised` is the share of the policy's actions whose Q was raised to
    the data's return; `alpha/alpha` is the temperature, the price of entropy;
    `conservative/alpha_prime` is the multiplier that holds `diff` at its target
    (`cql_lagrange`); `critic/q_pi` is the mean Q of the policy's actions.
    """

    BANDIT = {  # noqa: RUF012
        "cql_min_q_weight": 0.1,
        "policy_lr": 1e-3,
        "qf_lr": 1e-3,
        "reward_scale": 1.0,
    }
    UNCONSTRAINED = BANDIT
    TARGETS_AFTER_STEP = True
    PANELS = (
        Panel("Q above the data's", "conservative/diff"),
        Panel("share raised to returns", "conservative/raised"),
        Panel("Q of the policy", "critic/q_pi"),
        Panel("TD loss", "critic/td_loss", "log"),
        Panel("temperature alpha", "alpha/alpha", "log"),
    )
    SIGNATURES = (
        Signature(
            "most Q below the data's returns (too conservative)",
            "lower --agent.cql_min_q_weight, or raise --agent.cql_target_action_gap",
            above={"conservative/raised": 0.99},
            lasting=10_000,  # at the start every Q is near 0
        ),
    )

    def policy_loss(self, batch, params, noise):
        """Return sg[alpha] * log pi - min Q, the mean of log pi, and metrics."""
        policy = self.network.select("actor", params)(batch["observations"])
        actions, log_prob = policy.sample_and_log_prob(noise["eps"])
        q = self.network.select("critic")(batch["observations"], actions).min(axis=0)
        chex.assert_equal_shape([log_prob, q])  # (b,)
        loss = jnp.mean(self.alpha() * log_prob - q)
        metrics = {
            "actor/policy_loss": loss,
            "actor/log_prob": log_prob.mean(),
            "critic/q_pi": q.mean(),
        }
        return loss, log_prob.mean(), metrics

    def temperature_loss(self, params, log_prob):
        """Raise alpha while the entropy -log pi is below its target, and lower it above."""
        log_alpha = self.network.select("log_alpha", params)()
        loss = -log_alpha * jax.lax.stop_gradient(log_prob + self.target_entropy())
        return loss, {"alpha/alpha_loss": loss, "alpha/alpha": jnp.exp(log_alpha)}

    def td_losses(self, batch, params, noise):
        """Return each critic's squared TD error, (ensemble,)."""
        target = losses.td_target(batch, self.next_q(batch, noise), self.config.discount)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        chex.assert_shape(target, q.shape[1:])  # q is (ensemble, b)
        return jnp.mean((q - target) ** 2, axis=1)

    def next_q(self, batch, noise):
        """Return the best Q' (b,) at s' of n actions of the policy, each the critics' minimum."""
        policy = self.network.select("actor")(batch["next_observations"][:, None])
        actions, _ = policy.sample_and_log_prob(noise["next_eps"])  # (b, n, a)
        critic = self.network.select_target("critic")
        return self.q_of_each(critic, batch["next_observations"], actions).min(0).max(-1)

    def q_of_each(self, critic, observations, actions):
        """Return Q (ensemble, b, n) of actions (b, n, a) at observations (b, ...)."""
        shape = (*actions.shape[:2], *observations.shape[1:])
        return critic(jnp.broadcast_to(observations[:, None], shape), actions)

    def other_actions(self, batch, noise):
        """Return n uniform actions, n of the policy at s and n at s', and their log densities.

        They are (b, 3 n, a) and (b, 3 n).
        """
        uniform = noise["random_actions"]  # (b, n, a)
        actions = [uniform]
        log_probs = [jnp.full(uniform.shape[:2], uniform.shape[-1] * jnp.log(0.5))]
        for key, eps in (("observations", "cql_eps"), ("next_observations", "cql_next_eps")):
            policy = self.network.select("actor")(batch[key][:, None])
            sampled, log_prob = policy.sample_and_log_prob(noise[eps])
            actions.append(sampled)
            log_probs.append(log_prob)
        return jnp.concatenate(actions, axis=1), jnp.concatenate(log_probs, axis=1)

    def calibrated_q(self, batch, params, actions):
        """Return Q at s of those actions, the policy's at least the data's return, and metrics.

        Q is (ensemble, b, 3 n).
        """
        q = self.q_of_each(self.network.select("critic", params), batch["observations"], actions)
        returns = batch["mc_returns"][:, None]  # (b, 1)
        is_policys = jnp.arange(q.shape[-1]) >= self.config.cql_n_actions
        raised = is_policys & (q < returns)
        share = raised.mean() / is_policys.mean()
        return jnp.where(raised, returns, q), {"conservative/raised": share}

    def differences(self, batch, params, noise):
        """Return how far Q of others lies above the data's, (ensemble,), and metrics."""
        actions, log_prob = self.other_actions(batch, noise)
        other_q, metrics = self.calibrated_q(batch, params, actions)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        difference = jax.nn.logsumexp(other_q - log_prob, axis=-1) - q  # (ensemble, b)
        return difference.mean(axis=1), metrics | {"conservative/diff": difference.mean()}

    def conservative_losses(self, differences, params=None):
        """Return each critic's conservative loss, (ensemble,), from its mean difference."""
        if not self.config.cql_lagrange:
            return self.config.cql_min_q_weight * differences
        excess = differences - self.config.cql_target_action_gap
        return self.alpha_prime(params) * self.config.cql_min_q_weight * excess

    def multiplier_loss(self, params, differences):
        """Ascend the dual: the multiplier grows while the differences exceed their target."""
        excess = self.conservative_losses(jax.lax.stop_gradient(differences), params)
        loss = -0.5 * excess.sum()
        return loss, {
            "conservative/alpha_prime_loss": loss,
            "conservative/alpha_prime": self.alpha_prime(params),
        }

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, each of which moves its own networks, and metrics."""
        policy_loss, log_prob, policy_metrics = self.policy_loss(batch, params, noise)
        temperature_loss, temperature_metrics = self.temperature_loss(params, log_prob)
        td_loss = self.td_losses(batch, params, noise).sum()
        differences, difference_metrics = self.differences(batch, params, noise)
        conservative_loss = self.conservative_losses(differences).sum()
        metrics = policy_metrics | temperature_metrics | difference_metrics
        metrics |= {"critic/td_loss": td_loss, "critic/conservative_loss": conservative_loss}
        loss = policy_loss + temperature_loss + td_loss + conservative_loss
        if self.config.cql_lagrange:
            multiplier_loss, multiplier_metrics = self.multiplier_loss(params, differences)
            return loss + multiplier_loss, metrics | multiplier_metrics
        return loss, metrics

    def sample_noise(self, rng, batch):
        """Sample the policy's noise at s (b, a), and that of n actions each, (b, n, a)."""
        keys = jax.random.split(rng, 5)
        size, action_dim = batch["actions"].shape
        shape = (size, self.config.cql_n_actions, action_dim)
        return {
            "eps": jax.random.normal(keys[0], batch["actions"].shape),
            "next_eps": jax.random.normal(keys[1], shape),
            "cql_eps": jax.random.normal(keys[2], shape),
            "cql_next_eps": jax.random.normal(keys[3], shape),
            "random_actions": jax.random.uniform(keys[4], shape, minval=-1.0, maxval=1.0),
        }

    def alpha(self):
        """Return the temperature, shape ()."""
        return jnp.exp(self.network.select("log_alpha")())

    def alpha_prime(self, params=None):
        """Return the conservative loss's multiplier, shape ()."""
        return jnp.clip(jnp.exp(self.network.select("log_alpha_prime", params)()), 0.0, 1e6)

    def target_entropy(self):
        """Return the entropy that alpha holds, by default -1 per action dimension."""
        given = self.config.target_entropy
        return -1.0 * self.config.action_dim if given is None else given

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o); at 0 the mode."""
        policy = self.network.select("actor")(observations)
        return policy.sample(jax.random.normal(rng, policy.mode().shape), temperature)

    def value(self, observations, actions):
        """Return Q-values (...), the ensemble's minimum, of actions (..., a)."""
        return self.network.select("critic")(observations, actions).min(axis=0)

    @classmethod
    def scale_rewards(cls, rewards, config):
        """Return rewards (...) as it learns from them."""
        return config["reward_scale"] * rewards + config["reward_bias"]

    @classmethod
    def columns(cls, config):
        """Return the data's returns to go, of rewards as they are scaled."""
        failure = None
        if config["sparse_rewards"]:
            failure = cls.scale_rewards(np.float32(config["failure_reward"]), config)
        return {"mc_returns": columns.mc_returns(config["discount"], failure)}

    @classmethod
    def optimizer(cls, config, network):
        """Return Adam, for policy and temperature with one rate, for the others with another."""
        is_policy = network in ("actor", "log_alpha")
        return optax.adam(config["policy_lr"] if is_policy else config["qf_lr"])

    @classmethod
    def check_config(cls, config):
        """Raise UserError for settings that cannot work."""
        super().check_config(config)
        agent.require_range(config, "cql_n_actions", 1, float("inf"))
        agent.require_range(config, "cql_min_q_weight", 0.0, float("inf"))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return critic, actor, the temperature's logarithm, and that of the multiplier."""
        critic = EnsembleCritic(
            config["value_hidden_dims"],
            config["num_critics"],
            layer_norm=False,
            output_init=OUTPUT_INIT,
            **HIDDEN,
        )
        networks = {
            "critic": (critic, (observations, actions)),
            "actor": (CalQLActor(config["actor_hidden_dims"], actions.shape[-1]), (observations,)),
            "log_alpha": (Scalar(0.0), ()),
        }
        if config["cql_lagrange"]:
            networks["log_alpha_prime"] = (Scalar(1.0), ())
        return networks


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of Cal-QL with its default."""
    return ml_collections.ConfigDict(
        {
            "policy_lr": 1e-4,  # of Adam, for policy and temperature
            "qf_lr": 3e-4,  # of Adam, for the critic and the multiplier of cql_lagrange
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # actor
            "value_hidden_dims": (512, 512, 512, 512),  # critic
            "num_critics": 2,  # Q-functions in the ensemble
            "discount": 0.99,  # of the next state's value, per step
            "tau": 0.005,  # rate of the target critic
            "target_entropy": config_dict.placeholder(
                float
            ),  # that the temperature holds; None is -1 per action dimension
            "cql_n_actions": 10,  # actions of each kind per state, in target and conservative loss
            "cql_min_q_weight": 5.0,  # weight of the conservative loss
            "cql_lagrange": False,  # tune a multiplier of that weight by dual ascent
            "cql_target_action_gap": 0.8,  # difference of Q that it holds, with cql_lagrange=True
            "reward_scale": 10.0,  # factor of the rewards
            "reward_bias": 0.0,  # added to scaled rewards
            "sparse_rewards": True,  # take episodes that failed throughout to go on so for ever
            "failure_reward": -1.0,  # of each step of these, before scaling
        }
    )


# arXiv 2502.02538, tables of fine-tuning: settings of both phases. A row without a task's number
# holds for all five. Whether the returns of failed episodes were taken to go on for
# ever there (sparse_rewards) is not said. D4RL's tasks have no rows: the numbers printed for them
# come from another codebase (CORL), with settings of its own.
PUBLISHED = """
task                          discount  cql_lagrange  cql_target_action_gap  cql_min_q_weight  actor_hidden_dims  value_hidden_dims
humanoidmaze-medium-navigate  0.995     True          0.8                    -                 -                  -
antsoccer-arena-navigate      0.995     True          0.2                    -                 -                  -
cube-double-play              0.99      False         -                      0.01              (256,256,256,256)  (256,256,256,256)
scene-play                    0.99      False         -                      0.01              (256,256,256,256)  (256,256,256,256)
puzzle-4x4-play               0.99      False         -                      0.003             (256,256,256,256)  (256,256,256,256)
"""  # noqa: E501
