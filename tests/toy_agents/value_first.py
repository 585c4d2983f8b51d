"""Losses in order: V, then Q with the new V, then the actor with the new Q."""

import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings

from utils.networks import MLP


class ValueFirst(ActorCritic):
    """V is an expectile of the target critic, and Q bootstraps from it."""

    def value_loss(self, batch, params):
        """Return the expectile loss of V, and metrics."""
        observations = batch["observations"]
        q = self.network.select_target("critic")(observations, batch["actions"]).min(0)  # (b,)
        v = self.network.select("value", params)(observations).squeeze(-1)
        weight = jnp.where(q > v, self.config.expectile, 1 - self.config.expectile)
        loss = jnp.mean(weight * (q - v) ** 2)
        return loss, {"value/value_loss": loss}

    def target(self, batch):
        """Return r + gamma * mask * V(s')."""
        next_v = self.network.select("value")(batch["next_observations"]).squeeze(-1)
        return batch["rewards"] + self.config.discount * batch["masks"] * next_v

    def total_loss(self, batch, params, noise):
        """Return the sum of all losses, for validation."""
        value_loss, value_metrics = self.value_loss(batch, params)
        loss, metrics = super().total_loss(batch, params, noise)
        return value_loss + loss, value_metrics | metrics

    def _update(self, batch, rng):
        agent, metrics = self, {}
        for name, loss_of in (
            ("value", ValueFirst.value_loss),
            ("critic", ValueFirst.critic_loss),
            ("actor", ValueFirst.actor_loss),
        ):

            def loss(params, agent=agent, loss_of=loss_of):
                return loss_of(agent, batch, params)

            network, found = agent.network.apply_loss_fn(loss, self.optimizers(), [name])
            agent, metrics = agent.replace(network=network), metrics | found
        network = agent.network.update_targets(self.network.params, self.target_rates())
        return agent.replace(network=network), metrics

    @classmethod
    def networks(cls, observations, actions, config):
        """Return actor, critic and V."""
        value = (MLP(config["hidden_dims"], 1), (observations,))
        return super().networks(observations, actions, config) | {"value": value}


def get_config():
    """Return all settings."""
    return settings(expectile=0.7)
