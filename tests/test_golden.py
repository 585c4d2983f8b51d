"""Both agents against recorded update steps of the published implementations.

Step by step, with what leads to a loss; and all steps in one dispatch of the training loop.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from utils.agent_files import load_agent_file
from utils.training import Trainer, TrainingState

REPOSITORY = Path(__file__).parents[1]
FILES = sorted(Path(os.environ.get("GOLDEN_DIR", REPOSITORY / "tests/golden")).glob("*.npz"))


def to_params(arrays, prefix, network):
    """Parameters of one network as flax names them, from `<prefix>/<network>/<layer>/...`."""
    names = [name for name in arrays if name.startswith(f"{prefix}/{network}/")]
    depth = 1 + max(int(name.split("/")[2]) for name in names)

    def layer(i, what):
        return jnp.asarray(arrays[f"{prefix}/{network}/{i}/{what}"])

    params = {}
    for i in range(depth):
        params[f"Dense_{i}"] = {"kernel": layer(i, "kernel"), "bias": layer(i, "bias")}
        if f"{prefix}/{network}/{i}/ln_scale" in arrays:
            params[f"LayerNorm_{i}"] = {"scale": layer(i, "ln_scale"), "bias": layer(i, "ln_bias")}
    return {"members": params} if network.endswith("critic") else params


def all_params(arrays, prefix):
    """Online and target parameters of all networks in the file."""
    networks = {name.split("/")[1] for name in arrays if name.startswith(f"{prefix}/")}
    params = {
        name: to_params(arrays, prefix, name) for name in networks if name not in ("log_alpha",)
    }
    if "log_alpha" in networks:
        params["log_alpha"] = {"value": jnp.asarray(arrays[f"{prefix}/log_alpha"])}
    targets = {"critic": params.pop("target_critic")}
    return params, targets


def hidden_dims(arrays, network):
    """Widths of the hidden layers, from the biases."""
    depth = len({n for n in arrays if n.startswith(f"init/{network}/") and n.endswith("/bias")})
    return tuple(arrays[f"init/{network}/{i}/bias"].shape[-1] for i in range(depth - 1))


def assert_close(actual, expected, what):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=what)


def build(arrays):
    """The agent of a file at its initial parameters, its noise fed as a part of the batch."""
    settings = json.loads(bytes(arrays["config_json"]).decode())
    agent_file = load_agent_file(REPOSITORY / "agents" / f"{settings.pop('agent')}.py")
    settings.pop("hidden_dims", None)
    config = ml_collections.ConfigDict(agent_file.config)
    with config.unlocked():
        config.update(
            settings,
            actor_hidden_dims=hidden_dims(arrays, "base_flow"),
            value_hidden_dims=hidden_dims(arrays, "critic"),
            actor_layer_norm="init/base_flow/0/ln_scale" in arrays,
            layer_norm="init/critic/0/ln_scale" in arrays,
            num_critics=arrays["init/critic/0/bias"].shape[0],
        )
    assert set(settings) <= set(agent_file.config), "the file has a setting the agent lacks"

    class Fed(agent_file.agent_class):
        def sample_noise(self, rng, batch):
            return batch["noise"]

    # Shapes are enough: every value is replaced.
    agent = jax.eval_shape(
        lambda key, *example: Fed.create(key, *example, ml_collections.ConfigDict(config)),
        jax.random.key(0),
        jnp.asarray(arrays["step0/batch/observations"]),
        jnp.asarray(arrays["step0/batch/actions"]),
    )
    params, targets = all_params(arrays, "init")
    shapes = jax.tree.map(lambda leaf: leaf.shape, agent.network.params)
    assert jax.tree.map(jnp.shape, params) == shapes
    opt_state = {name: tx.init(params[name]) for name, tx in agent.optimizers().items()}
    network = agent.network.replace(
        step=0, params=params, target_params=targets, opt_state=opt_state
    )
    return agent.replace(network=network)


def intermediates(agent, batch, noise):
    """Values before the update, computed by the agent's own parts."""
    observations = batch["observations"]
    q = agent.network.select("critic")(observations, batch["actions"])
    values = {"base_actions": agent.propose(observations, noise["z"]), "q": q}
    params = agent.network.params
    if "refinement" in params:
        refinement = agent.network.select("refinement")
        values["refinement"] = refinement(observations, values["base_actions"])
    if "onestep_actor" in params:
        values["onestep_actions"] = agent.network.select("onestep_actor")(observations, noise["z"])
    return values


def test_there_are_golden_files():
    assert FILES


def read(path):
    """The arrays of a file, and by recorded step the parts `batch`, `noise`, `before`, `loss`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    steps = sorted({int(n[4 : n.index("/")]) for n in arrays if n.startswith("step")})
    assert steps == list(range(len(steps)))
    parts = ("batch", "noise", "before", "loss")
    return arrays, [
        {
            part: {
                name.split("/")[2]: jnp.asarray(value)
                for name, value in arrays.items()
                if name.startswith(f"step{step}/{part}/")
            }
            for part in parts
        }
        for step in steps
    ]


def assert_final(network, arrays):
    """Compare online and target parameters with those after the last recorded step."""
    params, targets = all_params(arrays, "final")
    expected = {"online": params, "target": targets}
    actual = {"online": network.params, "target": network.target_params}
    flat_expected = jax.tree_util.tree_leaves_with_path(expected)
    flat_actual = dict(jax.tree_util.tree_leaves_with_path(actual))
    assert len(flat_actual) == len(flat_expected)
    for key, value in flat_expected:
        assert_close(flat_actual[key], value, jax.tree_util.keystr(key))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path):
    arrays, steps = read(path)
    with jax.default_matmul_precision("highest"):
        agent = build(arrays)
        update = jax.jit(type(agent).update)
        for step, parts in enumerate(steps):
            computed = intermediates(agent, parts["batch"], parts["noise"])
            assert set(parts["before"]) <= set(computed)
            for name, value in parts["before"].items():
                assert_close(computed[name], value, f"{name} before step {step}")
            agent, metrics = update(
                agent, parts["batch"] | {"noise": parts["noise"]}, jax.random.key(0)
            )
            by_name = {key.split("/")[1]: value for key, value in metrics.items()}
            for name, value in parts["loss"].items():
                if name == "alpha_loss" and not agent.config.use_lagrange:
                    assert name not in by_name
                    continue
                assert_close(by_name[name], value, f"{name} of step {step}")
    assert_final(agent.network, arrays)


class Recorded:
    """A source whose batches are the recorded ones."""

    max_updates, mesh, spec = None, None, PartitionSpec()

    def __init__(self, steps):
        batches = [parts["batch"] | {"noise": parts["noise"]} for parts in steps]
        self.batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

    def prefetch(self, keys, step, num_updates):
        return self.batches

    def batch(self, prefetched, i, key, step, member):
        return jax.tree.map(lambda array: array[i], prefetched)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_in_one_dispatch(path):
    arrays, steps = read(path)
    source = Recorded(steps)
    with jax.default_matmul_precision("highest"):
        agents = jax.tree.map(lambda x: jnp.asarray(x)[None], build(arrays))
        example = source.batch(source.batches, 0, None, None, None)
        state = TrainingState.create(agents, np.arange(1), example)
        state = Trainer(source, num_members=1).update(state, len(steps))
    assert_final(jax.tree.map(lambda x: x[0], state.agents.network), arrays)
    loss = sum(parts["loss"]["critic_loss"] for parts in steps)
    assert_close(state.metric_sums["critic/critic_loss"], loss[None], "sum of critic losses")
