"""Dropout while learning, with a key per call; and a keyword that leaves it out when acting."""

import flax.linen as nn
import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings

from utils.networks import MLP


class DropoutActor(nn.Module):
    """An MLP on observations of which some components are dropped."""

    hidden_dims: tuple
    output_dim: int

    @nn.compact
    def __call__(self, observations, *, training=False):
        """Map observations (..., o) to (..., output_dim)."""
        dropped = nn.Dropout(0.3, deterministic=not training)(observations)
        return MLP(self.hidden_dims, self.output_dim)(dropped)


class Dropout(ActorCritic):
    """Clones the data's actions."""

    IMPROVES = False

    def sample_noise(self, rng, batch):
        """Return the key of the dropout."""
        return rng

    def total_loss(self, batch, params, noise):
        """Return the squared distance from the data, and metrics."""
        actor = self.network.select("actor", params)
        actions = actor(batch["observations"], training=True, rngs={"dropout": noise})
        loss = jnp.mean((jnp.tanh(actions) - batch["actions"]) ** 2)
        return loss, {"actor/actor_loss": loss}

    @classmethod
    def networks(cls, observations, actions, config):
        """Return the actor."""
        actor = DropoutActor(config["hidden_dims"], actions.shape[-1])
        return {"actor": (actor, (observations,), {"training": True})}


def get_config():
    """Return all settings."""
    return settings()
