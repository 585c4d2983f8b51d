"""Networks behind encoders: how often an update encodes, what trains an encoder, its target."""

import functools
import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils import encoders
from utils.datasets import DeviceDataset, example_batch
from utils.encoders import encode_once
from utils.flops import products
from utils.frames import FrameStacks, stack_frames
from utils.policies import BestOfN, sample
from utils.training import Trainer, TrainingState, create_agents

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 4, 4, 3), np.uint8)
BATCH = toys.batch(size=16) | {"observations": IMAGES[0], "next_observations": IMAGES[1]}
BATCH = jax.tree.map(jnp.asarray, BATCH)
KEY = jax.random.key(0)


class OneConvolution(nn.Module):
    """An encoder with one convolution forwards, and one backwards."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(2, (3, 3))(images.astype(jnp.float32) / 255.0))
        return features.reshape(*features.shape[:-3], -1)


@pytest.fixture(autouse=True)
def one_convolution(monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "one_convolution", OneConvolution)


def make(name):
    agent_class, config = toys.tiny(name, encoder="one_convolution", **toys.SHALLOW)
    create = jax.jit(functools.partial(agent_class.create, config=config))
    return create(KEY, BATCH["observations"], BATCH["actions"])


def batch_of(agent):
    return BATCH | dict.fromkeys(agent.columns(agent.config), BATCH["actions"])


def convolutions(function, *arguments):
    """Images of every convolution of a compiled program, by how often it is computed."""
    return [
        (product.times, product.equation.invars[0].aval.shape[0])
        for product in products(function, *arguments)
        if product.equation.primitive.name == "conv_general_dilated"
    ]


# DeFlow solves its flow for s and s' in one pass, in which s is encoded a second time. In ReBRAC's
# other updates the actor encodes s for the log.
@pytest.mark.parametrize(
    ("name", "forward", "backward", "batches", "in_another_branch"),
    [
        ("deflow", 6, 3, 7, 0),
        ("fql", 5, 3, 5, 0),
        ("iql", 5, 3, 5, 0),
        ("ifql", 5, 3, 5, 0),
        ("rebrac", 4, 2, 4, 1),
        ("fbrac", 4, 2, 4, 0),
    ],
)
def test_an_update_encodes_no_image_twice_in_one_network(
    name, forward, backward, batches, in_another_branch
):
    agent = make(name)
    arguments = inspect.unwrap(type(agent).update), agent, batch_of(agent), KEY
    text = jax.jit(arguments[0]).lower(*arguments[1:]).compile().as_text()
    compiled = len(re.findall(r"= \S+ convolution\(", text))
    assert compiled == forward + backward + in_another_branch
    counted = convolutions(*arguments)
    assert len(counted) == forward + backward
    assert {times for times, _ in counted} == {1}  # none is in a flow's loop
    assert sum(images for _, images in counted) == 16 * (batches + backward)


@pytest.mark.parametrize(
    ("name", "policy", "networks"),
    [("deflow", sample, 2), ("deflow", BestOfN(), 3), ("ifql", sample, 2), ("rebrac", sample, 1)],
)
def test_acting_encodes_an_image_once_in_each_network(name, policy, networks):
    agent = make(name)
    counted = convolutions(policy, agent, BATCH["observations"][0], KEY)
    assert counted == networks * [(1, 1)]
    text = jax.jit(policy).lower(agent, BATCH["observations"][0], KEY).compile().as_text()
    assert re.findall(r"= f32\[(\d+),\S+ convolution\(", text) == networks * ["1"]


def deflow_losses(agent, batch, noise):
    base_actions = agent.propose(batch["observations"], noise["z"])
    next_base_actions = agent.propose(batch["next_observations"], noise["next_z"])
    return [
        ("base_flow", lambda params: agent.flow_loss(batch, params, noise)[0]),
        ("critic", lambda params: agent.critic_loss(batch, params, next_base_actions)[0]),
        ("refinement", lambda params: agent.refinement_loss(batch, params, base_actions)[0]),
    ]


def fql_losses(agent, batch, noise):
    return [
        ("base_flow", lambda params: agent.flow_loss(batch, params, noise)[0]),
        ("critic", lambda params: agent.critic_loss(batch, params, noise)[0]),
        ("onestep_actor", lambda params: agent.actor_loss(batch, params, noise)[0]),
    ]


def fbrac_losses(agent, batch, noise):
    def velocity(params):
        return encode_once(agent.network.select("actor_flow", params), batch["observations"])

    return [
        ("actor_flow", lambda params: agent.q_loss(batch, velocity(params), noise)[0]),
        ("actor_flow", lambda params: agent.flow_loss(batch, velocity(params), noise)[0]),
        ("critic", lambda params: agent.critic_loss(batch, params, noise)[0]),
    ]


def iql_losses(agent, batch, noise):
    return [
        ("value", lambda params: agent.value_loss(batch, params)[0]),
        ("critic", lambda params: agent.critic_loss(batch, params)[0]),
        ("actor", lambda params: agent.actor_loss(batch, params, noise)[0]),
    ]


def ifql_losses(agent, batch, noise):
    flow_loss = ("base_flow", lambda params: agent.flow_loss(batch, params, noise)[0])
    return [*iql_losses(agent, batch, noise)[:2], flow_loss]


def rebrac_losses(agent, batch, noise):
    critic = functools.partial(agent.network.select("critic"), batch["observations"])
    return [
        ("actor", lambda params: agent.actor_loss(batch, params, critic)[0]),
        ("critic", lambda params: agent.critic_loss(batch, params, noise)[0]),
    ]


@pytest.mark.parametrize(
    "losses",
    [deflow_losses, fql_losses, iql_losses, ifql_losses, rebrac_losses, fbrac_losses],
    ids=lambda losses: losses.__name__.removesuffix("_losses"),
)
def test_a_loss_trains_the_encoder_of_its_own_network_alone(losses):
    agent = make(losses.__name__.removesuffix("_losses"))
    batch = batch_of(agent)
    for network, loss in losses(agent, batch, agent.sample_noise(KEY, batch)):
        grads = jax.jit(jax.grad(loss))(agent.network.params)
        assert all(np.any(leaf) for leaf in jax.tree.leaves(grads[network]["encoder"]))
        del grads[network]
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("name", "targets"), [("fql", {"critic"}), ("rebrac", {"critic", "actor"})]
)
def test_the_encoders_of_targets_follow_by_tau(name, targets):
    agent = make(name)
    zeros = jax.tree.map(jnp.zeros_like, agent.network.target_params)
    step = agent.config.get("actor_freq", 1) - 1  # an update in which the actor moves too
    network = agent.network.replace(target_params=zeros, step=jnp.asarray(step))
    after, _ = agent.replace(network=network).update(batch_of(agent), KEY)
    assert set(after.network.target_params) == targets
    for target in targets:
        found = after.network.target_params[target]["encoder"]
        expected = agent.network.params[target]["encoder"]
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, agent.config.tau * other, rtol=1e-5)


def test_frames_count_once_in_the_memory_that_training_takes():
    agent_class, config = toys.tiny("bc", encoder="one_convolution", **toys.SHALLOW)
    rows = 100_000
    frames = np.zeros((rows, 4, 4, 3), np.uint8)
    data = {
        **stack_frames(FrameStacks.of_steps(frames, np.arange(rows) == rows - 1), 1),
        **{name: np.zeros(rows - 1, np.float32) for name in ("rewards", "masks")},
        "actions": np.zeros((rows - 1, 3), np.float32),
    }
    seeds, example = np.arange(1), example_batch(data, 16)
    agents = create_agents(agent_class, seeds, example, config)
    trainer = Trainer(DeviceDataset(data, 16), 1)
    needed = trainer.memory(TrainingState.create(agents, seeds, example))
    assert frames.nbytes < needed < 2 * frames.nbytes


def test_encoding_once_changes_nothing():
    network = make("fql").network.select("base_flow")
    actions, t = BATCH["actions"], BATCH["actions"][:, :1]
    velocity = encode_once(network, BATCH["observations"])
    expected = network(BATCH["observations"], actions, t)
    np.testing.assert_allclose(velocity(actions, t), expected, rtol=1e-6)
    states = toys.make("fql").network.select("base_flow")
    observations = toys.batch(size=16)["observations"]
    np.testing.assert_array_equal(
        encode_once(states, observations)(actions, t), states(observations, actions, t)
    )
