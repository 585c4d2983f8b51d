"""BC: behaviour cloning with a Gaussian policy, the simplest baseline.

The policy maximises the likelihood of the data's actions; with its standard deviation of 1 that is
regression on them. It is the Gaussian BC of FQL's tables (arXiv 2502.02538, appendix E), whose code
has not been released: layers, activation and the small last layer are those of IQL's actor there.
"""

import jax
import jax.numpy as jnp
import ml_collections
from ml_collections import config_dict

from utils.agent import Agent
from utils.metrics import Panel
from utils.networks import GaussianActor


class BCAgent(Agent):
    """Behaviour cloning.

    Metrics: `actor/actor_loss` is the negative log density of the data's actions, its constant
    included; `actor/mse` is the squared distance from them, per action dimension.
    """

    IMPROVES = False
    PANELS = (
        Panel("negative log density", "actor/actor_loss"),
        Panel("negative log density, held out", "validation/actor/actor_loss"),
    )

    def total_loss(self, batch, params, noise):
        """Return -E log pi(a | s), and metrics."""
        policy = self.network.select("actor", params)(batch["observations"])
        loss = -policy.log_prob(batch["actions"]).mean()
        mse = jnp.mean((policy.mode() - batch["actions"]) ** 2)  # over (b, a)
        return loss, {"actor/actor_loss": loss, "actor/mse": mse}

    def sample_noise(self, rng, batch):
        """Return nothing: the loss is deterministic."""
        return {}

    def sample_actions(self, observations, rng, temperature=1.0):
        """Sample actions (..., a) in [-1, 1] for observations (..., o); at 0 the mean."""
        policy = self.network.select("actor")(observations)
        noise = jax.random.normal(rng, policy.mean.shape)
        return jnp.clip(policy.sample(noise, temperature), -1, 1)

    @classmethod
    def networks(cls, observations, actions, config):
        """Return the actor."""
        actor = GaussianActor(
            config["actor_hidden_dims"],
            actions.shape[-1],
            config["actor_layer_norm"],
            std="one" if config["const_std"] else "vector",
        )
        return {"actor": (actor, (observations,))}


def get_config() -> ml_collections.ConfigDict:
    """Return every setting of BC with its default."""
    return ml_collections.ConfigDict(
        {
            "lr": 3e-4,  # of Adam
            "batch_size": 256,  # rows of the data per update
            "actor_hidden_dims": (512, 512, 512, 512),  # actor
            "actor_layer_norm": False,  # in the actor
            "const_std": True,  # standard deviation 1; False learns one per action dimension
            "encoder": config_dict.placeholder(
                str
            ),  # of images: a name in utils/encoders.py, or a file
        }
    )


# arXiv 2502.02538 has nothing to tune: the defaults hold for all of its tasks. Its numbers for
# D4RL come from another codebase (CORL).
