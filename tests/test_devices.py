"""Seeds over several devices, in programs of their own: here there is one device."""

import os
import sys

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tests import toys
from tests.small_runs import (
    assert_same_end,
    command,
    execute,
    folder_of,
    make_run,
    networks,
    start,
    train,
)
from tests.test_frames import data_in_stacks
from tests.test_training import BATCH_SIZE, DATA, results_of
from utils.checkpoints import Checkpoints
from utils.datasets import DeviceDataset, HostDataset, example_batch
from utils.devices import MEMBERS, member_mesh, put_on_devices, set_matmul_precision
from utils.sampling import SamplingRule
from utils.training import Trainer, TrainingState, create_agents

# Half of the network is compiled in a fraction of the time.
QUICK = {"bc_only": True}
TOY = None


class Toy(flax.struct.PyTreeNode):
    """An agent that is compiled at once."""

    network: jax.Array

    def update(self, batch, rng):
        noise = jax.random.normal(rng, self.network.shape)
        seen = batch["observations"].reshape(len(batch["observations"]), -1)[:, :5]
        network = 0.9 * self.network + seen.astype(jnp.float32).mean(0) + noise
        return self.replace(network=network), {"sum": network.sum()}


def state_of(seeds, settings, data=DATA):
    if settings is TOY:
        networks = np.arange(5.0, dtype=np.float32) + np.asarray(seeds)[:, None]
        agents = Toy(jnp.asarray(networks))
        return TrainingState.create(agents, np.asarray(seeds), example_batch(data, BATCH_SIZE))
    agent_class, config = toys.tiny(batch_size=BATCH_SIZE, **settings)
    example = example_batch(DATA, BATCH_SIZE)
    seeds = np.asarray(seeds)
    return TrainingState.create(create_agents(agent_class, seeds, example, config), seeds, example)


def advanced(source, state, num_members):
    """The state after two dispatches and a log row."""
    trainer = Trainer(source, num_members)
    state = trainer.compile(state)
    return trainer.update(trainer.update(state, 3).reset_metrics(), 4)


def check_seeds_over_devices(count, settings, folder):
    """Called in a program that has `count` devices."""
    assert jax.local_device_count() == count
    mesh = member_mesh(8)
    assert mesh.size == count
    state = advanced(DeviceDataset(DATA, BATCH_SIZE, mesh), state_of(range(8), settings), 8)
    for leaf in jax.tree.leaves(state):
        assert len(leaf.sharding.device_set) == count
        assert leaf.sharding.is_fully_replicated == (leaf.ndim == 0)
    if settings is TOY:
        source = HostDataset(DATA, BATCH_SIZE, max_updates=2, mesh=mesh)
        from_host = results_of(advanced(source, state_of(range(8), settings), 8))
        chex.assert_trees_all_close(from_host, results_of(state), rtol=1e-5, atol=1e-7)
        check_images_over_devices(mesh)
    if count == 8:  # one seed each: the program of a single seed
        alone = results_of(advanced(DeviceDataset(DATA, BATCH_SIZE), state_of([5], settings), 1))
        of_seed = jax.tree.map(lambda x: x[5:6] if x.ndim else x, results_of(state))
        chex.assert_trees_all_equal(of_seed, alone)
    checkpoints = Checkpoints(folder)
    checkpoints.save(7, state, {})
    checkpoints.close()


def check_images_over_devices(mesh):
    """Stacks and crops of every seed's batches are those on one device, from both sources."""
    data, rule = data_in_stacks(), SamplingRule(p_aug=0.5)
    sources = [
        DeviceDataset(data, BATCH_SIZE, rule=rule),
        DeviceDataset(data, BATCH_SIZE, mesh, rule=rule),
        HostDataset(data, BATCH_SIZE, max_updates=2, mesh=mesh, rule=rule),
    ]
    expected, *found = (
        results_of(advanced(source, state_of(range(8), TOY, data), 8)) for source in sources
    )
    for results in found:
        chex.assert_trees_all_close(results, expected, rtol=1e-5, atol=1e-7)


def with_devices(count, script):
    flags = f"--xla_force_host_platform_device_count={count}"
    return execute([sys.executable, "-c", script], XLA_FLAGS=flags)


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (2, TOY),
        pytest.param(4, {}, marks=pytest.mark.slow),
        pytest.param(8, QUICK, marks=pytest.mark.slow),
    ],
)
def test_seeds_over_devices_equal_one_device_and_restore_there(tmp_path, count, settings):
    with_devices(
        count,
        "from tests.test_devices import check_seeds_over_devices as check; "
        f"check({count}, {settings}, {str(tmp_path)!r})",
    )
    template = state_of(range(8), settings)
    checkpoints = Checkpoints(tmp_path)
    restored, _ = checkpoints.restore(template)
    checkpoints.close()
    expected = advanced(DeviceDataset(DATA, BATCH_SIZE), template, 8)
    chex.assert_trees_all_close(results_of(restored), results_of(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_goes_on_on_one(tmp_path, dataset_dir):
    arguments = command(tmp_path, dataset_dir, "--agent.bc_only=True", num_seeds=2)
    execute(arguments, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    (folder_of(tmp_path) / "score.json").unlink()
    with make_run(tmp_path, dataset_dir, num_seeds=2, **QUICK) as run:
        _, state = run.start()
        assert state.step == run.progress.step == 40
    expected = train(tmp_path / "one", dataset_dir, num_seeds=2, **QUICK)
    chex.assert_trees_all_close(networks(run), networks(expected), rtol=1e-3, atol=1e-5)
    for name in ("train.csv", "eval.csv"):
        logs = [
            np.genfromtxt(folder / name, delimiter=",", names=True)
            for folder in (run.folder.path, expected.folder.path)
        ]
        assert logs[0].dtype.names == logs[1].dtype.names
        for column in logs[0].dtype.names:
            np.testing.assert_allclose(logs[0][column], logs[1][column], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_online_run_keeps_to_one_of_two_devices(tmp_path, dataset_dir):
    steps = {"offline_steps": 20, "online_steps": 20, "num_seeds": 2}
    folders = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        arguments = command(folder, dataset_dir, "--agent.bc_only=True", online=True, **steps)
        execute(arguments, XLA_FLAGS=f"--xla_force_host_platform_device_count={count}")
        folders.append(folder_of(folder))
    assert_same_end(*folders)


def test_as_many_devices_are_used_as_divide_the_seeds(monkeypatch):
    devices = [object() for _ in range(4)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr("utils.devices.Mesh", lambda devices, axes: devices)
    used = {seeds: len(mesh) for seeds in range(1, 9) if (mesh := member_mesh(seeds)) is not None}
    assert used == {2: 2, 3: 3, 4: 4, 6: 3, 8: 4}


def test_placing_what_is_in_place_copies_nothing():
    mesh = Mesh(np.array(jax.devices()[:1]), (MEMBERS,))
    state = put_on_devices(state_of([0], TOY), mesh)
    again = put_on_devices(state, mesh)
    for a, b in zip(jax.tree.leaves(state.agents), jax.tree.leaves(again.agents), strict=True):
        assert a.unsafe_buffer_pointer() == b.unsafe_buffer_pointer()


SHOW_PLATFORMS = """
import jax
from utils.devices import enable_cpu_backend
enable_cpu_backend()
print(jax.config.jax_platforms)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("named", "known"), [("cuda", "cuda,cpu"), ("cpu", "cpu"), ("", "")])
def test_the_cpu_is_known_beside_an_accelerator(named, known):
    script = [sys.executable, "-c", SHOW_PLATFORMS]
    output, _ = start(script, env=os.environ | {"JAX_PLATFORMS": named}).communicate(timeout=60)
    assert output.strip() == known


@pytest.mark.parametrize(
    ("name", "in_program"),
    [
        ("default", "DEFAULT"),
        ("bfloat16", "DEFAULT"),
        ("tensorfloat32", "HIGH"),
        ("float32", "HIGHEST"),
    ],
)
def test_the_precision_asked_for_is_that_of_products(name, in_program):
    try:
        set_matmul_precision(name)
        program = jax.jit(lambda x: x @ x).lower(np.ones((2, 2), np.float32)).as_text()
    finally:
        set_matmul_precision("default")
    assert f"precision = [{in_program}, {in_program}]" in program
