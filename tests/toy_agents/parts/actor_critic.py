"""A deterministic actor beside the data, and a critic: each toy changes one thing in them."""

import jax
import jax.numpy as jnp
import ml_collections

from utils import agent
from utils.networks import MLP, EnsembleCritic


class ActorCritic(agent.Agent):
    """Climbs Q, and is pulled towards the data's actions."""

    def act(self, observations, params=None):
        """Return the actor's actions (..., a) in [-1, 1]."""
        return jnp.tanh(self.network.select("actor", params)(observations))

    def target(self, batch):
        """Return the regression target (b,) of the critic."""
        observations = batch["next_observations"]
        next_q = self.network.select_target("critic")(observations, self.act(observations)).min(0)
        return batch["rewards"] + self.config.discount * batch["masks"] * next_q

    def critic_loss(self, batch, params):
        """Return the critic's squared error, and metrics."""
        target = self.target(batch)
        q = self.network.select("critic", params)(batch["observations"], batch["actions"])
        loss = jnp.mean((q - target) ** 2)  # over (ensemble, b)
        return loss, {"critic/critic_loss": loss, "critic/target": target.mean()}

    def actor_loss(self, batch, params):
        """Return the actor's loss, and metrics."""
        actions = self.act(batch["observations"], params)
        q = self.network.select("critic")(batch["observations"], actions).mean(0)
        distance = jnp.mean((actions - batch["actions"]) ** 2)
        loss = distance - q.mean()  # not normalised: Q near 0 at first would saturate the tanh
        return loss, {"actor/actor_loss": loss}

    def total_loss(self, batch, params, noise):
        """Return the sum of both losses, and metrics."""
        critic_loss, critic_metrics = self.critic_loss(batch, params)
        actor_loss, actor_metrics = self.actor_loss(batch, params)
        return critic_loss + actor_loss, critic_metrics | actor_metrics

    def sample_noise(self, rng, batch):
        """Return nothing: the losses are deterministic."""
        return ()

    def sample_actions(self, observations, rng, temperature=1.0):
        """Return the actor's actions (..., a), with Gaussian noise at temperature 1."""
        actions = self.act(observations)
        noise = jax.random.normal(rng, actions.shape)
        return jnp.clip(actions + 0.1 * temperature * noise, -1, 1)

    def value(self, observations, actions):
        """Return Q-values (...) of actions (..., a)."""
        return self.network.select("critic")(observations, actions).mean(0)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return actor and critic."""
        critic = EnsembleCritic(config["hidden_dims"], 2)
        return {
            "actor": (MLP(config["hidden_dims"], actions.shape[-1]), (observations,)),
            "critic": (critic, (observations, actions)),
        }


def settings(**more):
    """Return what all toys have, and more."""
    shared = {"lr": 1e-3, "batch_size": 32, "hidden_dims": (32, 32), "discount": 0.95, "tau": 0.05}
    return ml_collections.ConfigDict(shared | more)
