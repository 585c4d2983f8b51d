"""Members with their own values of settings: order, repetition and company do not show."""

import chex
import jax
import numpy as np
import pytest

from tests import toys
from tests.test_devices import with_devices
from tests.test_toy_agents import TOYS
from utils.checkpoints import Checkpoints, to_arrays
from utils.datasets import DeviceDataset, example_batch
from utils.devices import member_mesh
from utils.training import Trainer, TrainingState, create_agents

DATA = toys.transitions(size=100)
BATCH_SIZE = 8
VARIED = {
    "lr": [1e-3, 3e-3, 1e-3],
    "tau": [0.05, 0.05, 0.5],
    "discount": [0.9, 0.8, 0.7],
    "average_rate": [0.1, 0.2, 0.3],
}
SEEDS = [3, 4, 3]


def start(seeds=SEEDS, varied=None, **settings):
    agent_file = toys.load(TOYS / "averages.py")
    config = agent_file.config.copy_and_resolve_references()
    config.update({"batch_size": BATCH_SIZE, "hidden_dims": (8,)} | settings)
    example = example_batch(DATA, BATCH_SIZE)
    varied = {name: np.float32(values) for name, values in (varied or {}).items()}
    agents = create_agents(agent_file.agent_class, np.array(seeds), example, config, varied)
    return TrainingState.create(agents, np.array(seeds), example)


def trained(*arguments, updates=5, **keywords):
    state = start(*arguments, **keywords)
    source = DeviceDataset(DATA, BATCH_SIZE)
    return Trainer(source, len(state.data_keys)).update(state, updates)


def member(state, number):
    arrays = to_arrays((state.agents, state.metric_sums))
    return jax.tree.map(lambda leaf: np.asarray(leaf[number]), arrays)


@pytest.fixture(scope="module")
def together():
    """Three members of other settings each, trained. To be read only."""
    return trained(varied=VARIED)


def test_each_is_as_if_it_were_trained_alone_with_these_settings(together):
    for number, seed in enumerate(SEEDS):
        alone = trained([seed], **{name: values[number] for name, values in VARIED.items()})
        chex.assert_trees_all_close(member(together, number), member(alone, 0), rtol=1e-3)
    actor = together.agents.network.params["actor"]["Dense_0"]["kernel"]
    assert np.abs(actor[0] - actor[2]).max() > 1e-6  # of one seed


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 1, 0)], ids=["reordered", "repeated"])
def test_order_and_repetition_do_not_show_in_a_bit(together, order):
    varied = {name: [values[i] for i in order] for name, values in VARIED.items()}
    other = trained([SEEDS[i] for i in order], varied=varied)
    for number, i in enumerate(order):
        chex.assert_trees_all_equal(member(other, number), member(together, i))


def test_the_values_are_in_the_settings_and_in_no_checkpoint(tmp_path, together):
    config = together.agents.config
    for name, values in VARIED.items():
        np.testing.assert_array_equal(config[name], np.float32(values))
        assert config.get(name) is getattr(config, name) is dict(config.items())[name]
    assert config.batch_size == BATCH_SIZE
    assert set(to_arrays(together.agents)) == {"network"}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, together, {})
    other = start(varied=VARIED | {"tau": [0.1, 0.2, 0.3]})
    restored, _ = checkpoints.restore(other)
    checkpoints.close()
    chex.assert_trees_all_equal(restored.agents.network.params, together.agents.network.params)
    np.testing.assert_array_equal(restored.agents.config.tau, np.float32([0.1, 0.2, 0.3]))


def test_what_a_parameter_begins_with_can_be_varied():
    """A module that is built from a traced number leaves none of it behind."""
    agent_class, config = toys.tiny("deflow", batch_size=BATCH_SIZE, **toys.SHALLOW, flow_steps=1)
    starts, example = np.float32([-1.0, 0.0, 2.5]), example_batch(DATA, BATCH_SIZE)
    agents = create_agents(
        agent_class, np.zeros(3, int), example, config, {"log_alpha_init": starts}
    )
    (log_alpha,) = jax.tree.leaves(agents.network.params["log_alpha"])
    np.testing.assert_array_equal(log_alpha, starts)
    np.testing.assert_allclose(jax.vmap(lambda agent: agent.alpha())(agents), np.exp(starts))


def check_over_devices():
    """Called in a program that has two devices."""
    varied = {name: [*values, values[0]] for name, values in VARIED.items()}
    mesh = member_mesh(4)
    assert mesh.size == 2
    source = DeviceDataset(DATA, BATCH_SIZE, mesh)
    trainer, state = Trainer(source, 4), start([*SEEDS, 3], varied=varied)
    state = trainer.update(trainer.compile(state), 5)
    assert all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(state))
    expected = trained([*SEEDS, 3], varied=varied)
    for number in range(4):
        one, other = (member(found, number) for found in (state, expected))
        chex.assert_trees_all_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_members_over_devices_keep_their_values():
    with_devices(2, "from tests.test_varied_agents import check_over_devices as check; check()")
