"""A critic of returns to go, which are known when an episode has ended."""

from parts.actor_critic import ActorCritic, settings

from utils.columns import mc_returns


class MonteCarlo(ActorCritic):
    """The critic regresses on the episodes' returns, and has no target."""

    @classmethod
    def columns(cls, config):
        """Return the discounted returns to go."""
        return {"returns": mc_returns(config["discount"])}

    @classmethod
    def targets(cls, config):
        """Return none."""
        return {}

    def target(self, batch):
        """Return the episode's return."""
        return batch["returns"]


def get_config():
    """Return all settings."""
    return settings()
