"""Settings from the data: the scale of observations, and the range of rewards."""

import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings


class FromData(ActorCritic):
    """Its actor sees standardised observations, and its target keeps to what rewards allow."""

    @classmethod
    def settings_from_data(cls, data, config):
        """Return mean and deviation (o,) of observations, and the range of rewards."""
        observations = data["observations"]
        return {
            "mean": tuple(observations.mean(0).tolist()),
            "deviation": tuple((observations.std(0) + 1e-3).tolist()),
            "reward_range": (float(data["rewards"].min()), float(data["rewards"].max())),
        }

    def act(self, observations, params=None):
        """Return the actor's actions (..., a) in [-1, 1]."""
        mean, deviation = (jnp.array(self.config[key]) for key in ("mean", "deviation"))
        return super().act((observations - mean) / deviation, params)

    def target(self, batch):
        """Return the target (b,), within the range of endless episodes."""
        low, high = (reward / (1 - self.config.discount) for reward in self.config.reward_range)
        return jnp.clip(super().target(batch), min(low, 0.0), max(high, 0.0))


def get_config():
    """Return all settings; those of the data are empty until these are there."""
    return settings(mean=(), deviation=(), reward_range=())
