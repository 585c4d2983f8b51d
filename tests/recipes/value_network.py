"""A further network: V has its own learning rate and target, and stands in the critic's target.

python main.py --env_name=./my_task.py --agent=./value_network.py --agent.value_lr=1e-3
"""

import chex
import jax.numpy as jnp
import optax

from agents import deflow
from utils.networks import MLP

PUBLISHED = deflow.PUBLISHED


class ValueAgent(deflow.DeFlowAgent):
    """DeFlow whose critic learns from the target copy of V instead of its own."""

    @classmethod
    def networks(cls, observations, actions, config):
        """Return DeFlow's networks and V."""
        value = MLP(config["value_hidden_dims"], 1, config["layer_norm"])
        return super().networks(observations, actions, config) | {"value": (value, (observations,))}

    @classmethod
    def optimizer(cls, config, network):
        """Return Adam, with a rate of its own for V."""
        return optax.adam(config["value_lr"] if network == "value" else config["lr"])

    @classmethod
    def targets(cls, config):
        """Return V as the one network with a target copy, and the rate at which that moves."""
        return {"value": config["value_tau"]}

    def critic_loss(self, batch, params, next_base_actions):
        """Return (Q - r - gamma * mask * V'(s'))^2 + (V(s') - Q(s', a'))^2 and metrics."""
        following = batch["next_observations"]
        next_v = self.network.select_target("value")(following).squeeze(-1)  # (b,)
        target_q = batch["rewards"] + self.config.discount * batch["masks"] * next_v
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        chex.assert_shape(target_q, q.shape[1:])  # q is (ensemble, b)
        critic_loss = jnp.mean((q - target_q) ** 2)  # over (ensemble, b)

        next_actions = self.refine(following, next_base_actions)
        next_q = self.network.select("critic")(following, next_actions).mean(0)  # (b,)
        v = self.network.select("value", params)(following).squeeze(-1)
        chex.assert_equal_shape([v, next_q])
        value_loss = jnp.mean((v - next_q) ** 2)
        metrics = {"critic/critic_loss": critic_loss, "value/value_loss": value_loss}
        return critic_loss + value_loss, metrics


def get_config():
    """Return DeFlow's settings and V's."""
    config = deflow.get_config()
    config.value_lr = 1e-3
    config.value_tau = 0.01
    return config
