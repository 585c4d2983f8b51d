"""A critic of the data's policy, from a column that says what the data did next."""

from parts.actor_critic import ActorCritic, settings

from utils import columns


class NextActions(ActorCritic):
    """The critic learns by SARSA."""

    @classmethod
    def columns(cls, config):
        """Return the actions that follow."""
        return {"next_actions": columns.next_actions}

    def target(self, batch):
        """Return r + gamma * mask * Q'(s', a') with the data's a'."""
        critic = self.network.select_target("critic")
        next_q = critic(batch["next_observations"], batch["next_actions"]).min(0)
        return batch["rewards"] + self.config.discount * batch["masks"] * next_q


def get_config():
    """Return all settings."""
    return settings()
