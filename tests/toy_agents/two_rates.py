"""A learning rate of its own for each network."""

import optax
from parts.actor_critic import ActorCritic, settings


class TwoRates(ActorCritic):
    """The actor learns more slowly than the critic."""

    @classmethod
    def optimizer(cls, config, network):
        """Return Adam with the network's rate."""
        return optax.adam(config["actor_lr"] if network == "actor" else config["lr"])


def get_config():
    """Return all settings."""
    return settings(actor_lr=3e-4)
