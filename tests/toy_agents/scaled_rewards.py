"""Rewards that are scaled and shifted, in the data and online."""

from parts.actor_critic import ActorCritic, settings


class ScaledRewards(ActorCritic):
    """Learns from scale * r + shift."""

    @classmethod
    def scale_rewards(cls, rewards, config):
        """Return rewards (...) as it learns from them."""
        return config["reward_scale"] * rewards + config["reward_shift"]


def get_config():
    """Return all settings."""
    return settings(reward_scale=10.0, reward_shift=-1.0)
