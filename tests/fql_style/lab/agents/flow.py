"""A flow of the data, of which the best of some samples is taken."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax
from utils.states import State, static

from agents.critic import td_loss
from utils.encoders import encoder_modules
from utils.networks import Perceptron, Value


class FlowAgent(flax.struct.PyTreeNode):
    rng: Any
    network: Any
    config: Any = static()

    @jax.jit
    def total_loss(self, batch, grad_params, rng=None):
        from utils.late import squared

        rng = rng if rng is not None else self.rng
        act_rng, x_rng, t_rng = jax.random.split(rng, 3)
        next_actions = self.sample_actions(batch["next_observations"], seed=act_rng)
        loss, info = td_loss(
            self.network, batch, grad_params, next_actions, self.config["discount"]
        )
        noise = jax.random.normal(x_rng, batch["actions"].shape)
        t = jax.random.uniform(t_rng, (*batch["rewards"].shape, 1))
        x = (1 - t) * noise + t * batch["actions"]
        velocity = self.network.select("flow")(batch["observations"], x, t, params=grad_params)
        flow_loss = squared(velocity - (batch["actions"] - noise))
        return loss + flow_loss, info | {"actor/flow_loss": flow_loss}

    @jax.jit
    def update(self, batch):
        new_rng, rng = jax.random.split(self.rng)
        network, info = self.network.apply_loss_fn(lambda p: self.total_loss(batch, p, rng))
        network.move_target("critic", self.network.params, self.config["tau"])
        return self.replace(rng=new_rng, network=network), info

    @jax.jit
    def sample_actions(self, observations, seed=None, temperature=1.0):
        shape = observations.shape[: -len(self.config["ob_dims"])]
        actions = jax.random.normal(seed, (*shape, self.config["action_dim"]))
        if self.config["encoder"] is not None:
            observations = self.network.select("flow_encoder")(observations)
        for i in range(self.config["flow_steps"]):
            t = jnp.full((*shape, 1), i / self.config["flow_steps"])
            velocity = self.network.select("flow")(observations, actions, t, is_encoded=True)
            actions = actions + velocity / self.config["flow_steps"]
        return jnp.clip(actions, -1, 1)

    @classmethod
    def create(cls, seed, ex_observations, ex_actions, config):
        rng, init_rng = jax.random.split(jax.random.PRNGKey(seed))
        encoders = {}
        if config["encoder"] is not None:
            encoders = {name: encoder_modules[config["encoder"]]() for name in ("critic", "flow")}
        value = Value(config["value_hidden_dims"], encoders.get("critic"))
        flow = Perceptron(config["actor_hidden_dims"], ex_actions.shape[-1], encoders.get("flow"))
        table = {
            "critic": (value, (ex_observations, ex_actions)),
            "target_critic": (value.copy(), (ex_observations, ex_actions)),
            "flow": (flow, (ex_observations, ex_actions, ex_actions[..., :1])),
        }
        if encoders:  # which the flow has too; its parameters are stored once
            table["flow_encoder"] = (encoders["flow"], (ex_observations,))
        network = State.create(init_rng, table, optax.adam(config["lr"]), ["critic"])
        config["ob_dims"] = ex_observations.shape[1:]
        config["action_dim"] = ex_actions.shape[-1]
        return cls(rng, network, flax.core.FrozenDict(**config))


def get_config():
    return ml_collections.ConfigDict(
        {
            "agent_name": "flow",
            "ob_dims": ml_collections.config_dict.placeholder(list),
            "action_dim": ml_collections.config_dict.placeholder(int),
            "lr": 3e-4,  # Learning rate.
            "batch_size": 256,  # Rows per batch.
            "actor_hidden_dims": (32, 32),
            "value_hidden_dims": (32, 32),
            "discount": 0.99,  # Discount factor.
            "tau": 0.005,  # Rate of the target.
            "flow_steps": 10,  # Steps of the flow.
            "encoder": ml_collections.config_dict.placeholder(str),  # Of images.
        }
    )
