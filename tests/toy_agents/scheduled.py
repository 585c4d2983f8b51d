"""A learning rate that falls to 0 over the run's length, and clipped gradients."""

import optax
from parts.actor_critic import ActorCritic, settings


class Scheduled(ActorCritic):
    """Adam on clipped gradients, with a cosine schedule."""

    @classmethod
    def optimizer(cls, config, network):
        """Return the optimiser."""
        rate = optax.cosine_decay_schedule(config["lr"], config["offline_steps"])
        return optax.chain(optax.clip_by_global_norm(config["max_norm"]), optax.adam(rate))


def get_config():
    """Return all settings; `offline_steps` becomes the run's."""
    return settings(offline_steps=1000, max_norm=1.0)
