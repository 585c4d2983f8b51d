"""An agent with no critic, no target and no tau, in full."""

import jax
import jax.numpy as jnp
import ml_collections

from utils.agent import Agent
from utils.networks import MLP


class Cloning(Agent):
    """Regresses on the data's actions."""

    IMPROVES = False

    def total_loss(self, batch, params, noise):
        """Return the squared distance from the data's actions, and metrics."""
        actions = jnp.tanh(self.network.select("actor", params)(batch["observations"]))
        loss = jnp.mean((actions - batch["actions"]) ** 2)
        return loss, {"actor/actor_loss": loss}

    def sample_noise(self, rng, batch):
        """Return nothing: the loss is deterministic."""
        return ()

    def sample_actions(self, observations, rng, temperature=1.0):
        """Return actions (..., a), with Gaussian noise at temperature 1."""
        actions = jnp.tanh(self.network.select("actor")(observations))
        noise = jax.random.normal(rng, actions.shape)
        return jnp.clip(actions + 0.1 * temperature * noise, -1, 1)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return the actor."""
        return {"actor": (MLP(config["hidden_dims"], actions.shape[-1]), (observations,))}


def get_config():
    """Return all settings."""
    return ml_collections.ConfigDict({"lr": 1e-3, "batch_size": 32, "hidden_dims": (32, 32)})
