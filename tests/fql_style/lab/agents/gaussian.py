"""A policy with Gaussian noise, updated in every other update, kept near the data."""

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from utils.states import State, static

from utils.networks import Perceptron, Value

from .critic import td_loss


class GaussianAgent(flax.struct.PyTreeNode):
    rng: Any
    network: Any
    config: Any = static()

    @functools.partial(jax.jit, static_argnames=("full_update",))
    def total_loss(self, batch, grad_params, rng, full_update=True):
        rng = rng if rng is not None else self.rng
        next_actions = self.sample_actions(batch["next_observations"], rng)
        loss, info = td_loss(
            self.network, batch, grad_params, next_actions, self.config["discount"]
        )
        loss += self.config["alpha"] * ((next_actions - batch["next_actions"]) ** 2).mean()
        if full_update:
            mean = jnp.tanh(self.network.select("actor")(batch["observations"], params=grad_params))
            q = self.network.select("critic")(batch["observations"], mean)
            mse = ((mean - batch["actions"]) ** 2).mean()
            loss += self.config["alpha"] * mse - q.mean() / self.config["q_max"]
            info = info | {"actor/mse": mse, "actor/q": q}
        return loss, info

    @functools.partial(jax.jit, static_argnames=("full_update",))
    def update(self, batch, full_update=True):
        new_rng, rng = jax.random.split(self.rng)
        network, info = self.network.apply_loss_fn(
            lambda p: self.total_loss(batch, p, rng, full_update)
        )
        if full_update:
            for name in ("critic", "actor"):
                network.move_target(name, self.network.params, self.config["tau"])
        return self.replace(rng=new_rng, network=network), info

    @jax.jit
    def sample_actions(self, observations, rng):
        mean = jnp.tanh(self.network.select("actor")(observations))
        return jnp.clip(mean + 0.1 * jax.random.normal(rng, mean.shape), -1, 1)

    @classmethod
    def create(cls, seed, example_batch, config):
        rng, init_rng = jax.random.split(jax.random.PRNGKey(seed))
        observations, actions = example_batch["observations"], example_batch["actions"]
        value = Value(config["value_hidden_dims"])
        actor = Perceptron(config["actor_hidden_dims"], actions.shape[-1])
        table = {
            "critic": (value, (observations, actions)),
            "target_critic": (value.copy(), (observations, actions)),
            "actor": (actor, (observations,)),
            "target_actor": (actor.copy(), (observations,)),
        }
        network = State.create(init_rng, table, optax.adam(config["lr"]), ["critic", "actor"])
        reach = max(abs(example_batch["min_reward"]), abs(example_batch["max_reward"]))
        config["q_max"] = reach / (1 - config["discount"])
        return cls(rng, network, flax.core.FrozenDict(**config))


def get_config():
    return ml_collections.ConfigDict(
        {
            "agent_name": "gaussian",
            "lr": 3e-4,
            "batch_size": 256,
            "actor_hidden_dims": (32, 32),
            "value_hidden_dims": (32, 32),
            "discount": 0.99,
            "tau": 0.005,
            "alpha": 1.0,  # Weight of staying near the data.
            "actor_freq": 2,  # Every so many updates are full ones.
            "q_max": ml_collections.config_dict.placeholder(float),
        }
    )
