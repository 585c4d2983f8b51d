"""An actor, and targets, that move in every second update and stand still in between."""

import jax
import jax.numpy as jnp
from parts.actor_critic import ActorCritic, settings


class DelayedActor(ActorCritic):
    """The critic moves in every update."""

    def _is_due(self):
        return self.network.step % self.config.delay == 0

    def target_rates(self):
        """Return rates that are 0 where nothing is due."""
        return {
            name: jnp.where(self._is_due(), rate, 0.0)
            for name, rate in super().target_rates().items()
        }

    def _update(self, batch, rng):
        optimizers = self.optimizers()
        network, metrics = self.network.apply_loss_fn(
            lambda params: self.critic_loss(batch, params), optimizers, ["critic"]
        )
        agent = self.replace(network=network)

        def move(network):
            return network.apply_loss_fn(
                lambda params: agent.actor_loss(batch, params), optimizers, ["actor"]
            )

        def keep(network):
            return network, agent.actor_loss(batch, network.params)[1]

        network, found = jax.lax.cond(self._is_due(), move, keep, network)
        network = network.update_targets(self.network.params, self.target_rates())
        return self.replace(network=network), metrics | found


def get_config():
    """Return all settings."""
    return settings(delay=2)
