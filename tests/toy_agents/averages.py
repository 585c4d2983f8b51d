"""Moving averages of two networks, at rates of their own, that follow the step just taken."""

import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings


class Averages(ActorCritic):
    """Acts by the average of its actor."""

    TARGETS_AFTER_STEP = True

    @classmethod
    def targets(cls, config):
        """Return the critic with tau, and the actor with a rate of its own."""
        return {"critic": config["tau"], "actor": config["average_rate"]}

    def act(self, observations, params=None):
        """Return actions (..., a) of the actor that learns, or else of its average."""
        if params is not None:
            return super().act(observations, params)
        return jnp.tanh(self.network.select_target("actor")(observations))


def get_config():
    """Return all settings."""
    return settings(average_rate=0.02)
