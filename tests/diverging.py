"""An agent that makes a NaN in a known update and line, with some seeds only."""

import jax
import jax.numpy as jnp

from tests.toy_agents import cloning


class Diverging(cloning.Cloning):
    """Regresses on the data's actions, until a logarithm is taken of a negative number."""

    def total_loss(self, batch, params, noise):
        """Return the loss, which is NaN in and after update `bad_update`, and metrics."""
        loss, metrics = super().total_loss(batch, params, noise)
        weight = jax.tree.leaves(self.network.params["actor"])[-1].ravel()[0]
        left = jnp.minimum(self.config.bad_update - self.network.step - 0.5, 1.0)
        margin = jnp.where(weight > self.config.threshold, left, 1.0)
        penalty = jnp.log(margin)  # here it fails
        return loss * (1 + penalty), metrics | {"actor/penalty": penalty}


def get_config():
    """Return all settings."""
    config = cloning.get_config()
    config.update({"lr": 1e-5, "bad_update": 25, "threshold": -1e9})
    return config
