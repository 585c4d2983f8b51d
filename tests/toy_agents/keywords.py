"""A network that takes its noise by keyword."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings

from utils.networks import MLP


class NoisyActor(nn.Module):
    """An MLP on observations and noise."""

    hidden_dims: tuple
    output_dim: int

    @nn.compact
    def __call__(self, observations, *, noise):
        """Map observations (..., o) and noise (..., a) to (..., output_dim)."""
        return MLP(self.hidden_dims, self.output_dim)(observations, noise)


class Keywords(ActorCritic):
    """Its actor is implicit: an action for every noise."""

    def act(self, observations, params=None, noise=None):
        """Return the actor's actions (..., a) in [-1, 1]."""
        if noise is None:
            noise = jnp.zeros((*self.batch_shape(observations), self.config.action_dim))
        return jnp.tanh(self.network.select("actor", params)(observations, noise=noise))

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a); at temperature 0 those of no noise."""
        shape = (*self.batch_shape(observations), self.config.action_dim)
        return self.act(observations, noise=temperature * jax.random.normal(rng, shape))

    @classmethod
    def networks(cls, observations, actions, config):
        """Return actor and critic."""
        actor = NoisyActor(config["hidden_dims"], actions.shape[-1])
        table = super().networks(observations, actions, config)
        return table | {"actor": (actor, (observations,), {"noise": actions})}


def get_config():
    """Return all settings."""
    return settings()
