"""The loop around an agent: dispatches, seeds and data sources do not show in the results."""

import functools
import itertools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils import training
from utils.checkpoints import to_arrays
from utils.datasets import DeviceDataset, HostDataset, example_batch, make_source
from utils.sampling import sample_rows
from utils.training import Trainer, TrainingState, create_agents, seed_keys

DATA = toys.transitions(size=300)
KEYS = jax.random.split(jax.random.key(0), 1)
BATCH_SIZE = 16


def start(seeds, name="deflow", source=None):
    agent_class, config = toys.tiny(name, batch_size=BATCH_SIZE, **toys.SHALLOW)
    example = example_batch(DATA, BATCH_SIZE)
    seeds = np.asarray(seeds)
    agents = create_agents(agent_class, seeds, example, config)
    state = TrainingState.create(agents, seeds, example)
    return Trainer(source or DeviceDataset(DATA, BATCH_SIZE), len(seeds)), state


def results_of(state):
    """Every array but the keys, without the functions that a TrainState refers to."""
    results = to_arrays((state.agents.network, state.metric_sums, state.step))
    return jax.tree.map(np.asarray, results)


def network_of(state, seed=0):
    return jax.tree.map(lambda x: np.asarray(x[seed]), to_arrays(state.agents.network))


@pytest.mark.parametrize("name", ["deflow", pytest.param("fql", marks=pytest.mark.slow)])
def test_one_dispatch_of_k_updates_equals_k_updates(name):
    trainer, state = start([3], name)
    agent = jax.tree.map(lambda x: x[0], state.agents)
    data_key = seed_keys(np.array([3]), "data")[0]
    noise_key = seed_keys(np.array([3]), "noise")[0]
    update = jax.jit(type(agent).update)
    sums = {}
    for step in range(5):
        rows = sample_rows(jax.random.fold_in(data_key, step), BATCH_SIZE, 300)
        batch = {key: jnp.asarray(array)[rows] for key, array in DATA.items()}
        agent, metrics = update(agent, batch, jax.random.fold_in(noise_key, step))
        sums = {key: sums.get(key, 0.0) + float(value) for key, value in metrics.items()}
    state = trainer.update(state, 5)
    assert int(state.step) == int(state.metric_count) == 5
    for key, value in state.mean_metrics().items():
        np.testing.assert_allclose(value[0], sums[key] / 5, rtol=1e-4, atol=1e-6, err_msg=key)
    expected = jax.tree.map(np.asarray, to_arrays(agent.network))
    chex.assert_trees_all_close(network_of(state), expected, rtol=1e-4, atol=1e-6)


def test_how_training_is_cut_into_dispatches_does_not_show_in_a_bit():
    results = []
    for cuts in ([12], [1] * 12, [5, 1, 4, 2]):
        trainer, state = start([0])
        for count in cuts:
            state = trainer.update(state, count)
        results.append(results_of(state))
    for other in results[1:]:
        chex.assert_trees_all_equal(other, results[0])


class Counted:
    """A source that counts what is prefetched."""

    def __init__(self, source):
        self.counts = []
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def prefetch(self, keys, step, num_updates):
        self.counts.append(num_updates)
        return self.source.prefetch(keys, step, num_updates)


@functools.cache
def trained_without_chunks(seeds, updates):
    trainer, state = start(seeds)
    assert trainer.chunk == 1  # what a CPU gets
    return results_of(trainer.update(state, updates))


@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
@pytest.mark.parametrize("seeds", [(0,), pytest.param((0, 1, 2), marks=pytest.mark.slow)])
def test_chunks_of_known_length_do_not_show_in_a_bit(seeds, host):
    dataset = HostDataset(DATA, BATCH_SIZE, max_updates=7) if host else None
    source = Counted(dataset or DeviceDataset(DATA, BATCH_SIZE))
    trainer, state = start(seeds, source=source)
    trainer = Trainer(source, len(seeds), chunk=5)
    for count in (3, 5, 12, 1, 10):  # below, at and above the chunk
        state = trainer.update(state, count)
    assert source.counts == [3, 5, 5, 5, 2, 1, 5, 5]
    chex.assert_trees_all_equal(results_of(state), trained_without_chunks(seeds, 31))


@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_updates_on_images_are_each_dispatched_by_themselves_on_a_cpu(host):
    dataset = HostDataset(DATA, BATCH_SIZE, max_updates=7) if host else None
    source = Counted(dataset or DeviceDataset(DATA, BATCH_SIZE))
    _, state = start((0,))
    trainer = Trainer(source, 1, images=True)
    state = trainer.update(trainer.compile(state), 2)
    assert trainer.memory(state) > 0
    state = trainer.update(state, 1)
    assert source.counts[-3:] == [1, 1, 1]
    looped = Trainer(source, 1)
    loops, others = (
        one._lower(state, one._prefetch(state, 1)).compile().as_text().count(" while(")
        for one in (trainer, looped)
    )
    assert loops == others - 1  # but for that of the flow
    expected = results_of(looped.update(start((0,))[1], 3))
    chex.assert_trees_all_close(results_of(state), expected, rtol=1e-4, atol=1e-6)


def test_a_chunk_is_no_longer_than_what_is_prefetched():
    assert Trainer(HostDataset(DATA, BATCH_SIZE, max_updates=4), 1, chunk=50).chunk == 4
    assert Trainer(DeviceDataset(DATA, BATCH_SIZE), 1, chunk=50).chunk == 50


def test_programs_are_compiled_when_they_are_needed(caplog):
    """Ahead the one for chunks alone, without a dispatch, and no program twice."""
    trainer, state = start([0])
    trainer = Trainer(trainer.source, 1, chunk=5)

    def compiled(function, *arguments):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
            result = function(*arguments)
        names = [record.getMessage() for record in caplog.records]
        return result, sum("Finished XLA compilation of jit(_update)" in name for name in names)

    before = results_of(state)
    state, count = compiled(trainer.compile, state)
    assert count == 1
    chex.assert_trees_all_equal(results_of(state), before)
    for updates, expected in ((5, 0), (2, 1), (8, 0)):
        state, count = compiled(trainer.update, state, updates)
        assert count == expected


@pytest.mark.parametrize("name", ["deflow", pytest.param("fql", marks=pytest.mark.slow)])
def test_seeds_trained_together_equal_separate_runs(name):
    trainer, together = start([5, 6, 7], name)
    together = trainer.update(together, 10)
    assert together.metric_sums["flow/flow_loss"].shape == (3,)
    for i, seed in enumerate((5, 6, 7)):
        trainer, alone = start([seed], name)
        alone = network_of(trainer.update(alone, 10))
        chex.assert_trees_all_close(network_of(together, i), alone, rtol=1e-3, atol=1e-5)
    kernels = together.agents.network.params["base_flow"]["Dense_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize("seeds", [[0], pytest.param([0, 1], marks=pytest.mark.slow)])
def test_data_in_host_memory_give_the_same_results(seeds):
    trainer, state = start(seeds)
    expected = trainer.update(state, 10)
    host = HostDataset(DATA, BATCH_SIZE, max_updates=4)
    trainer, state = start(seeds, source=host)
    chex.assert_trees_all_close(
        results_of(trainer.update(state, 10)), results_of(expected), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("source", [None, HostDataset(DATA, BATCH_SIZE, max_updates=4)])
def test_compiling_ahead_changes_nothing(source):
    trainer, state = start([0], source=source)
    before = results_of(state)
    state = trainer.compile(state)
    chex.assert_trees_all_equal(results_of(state), before)


def test_data_that_would_crowd_the_device_stay_in_host_memory(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": memory}

    size = sum(array.nbytes for array in DATA.values())
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    memory = size
    assert isinstance(make_source(DATA, BATCH_SIZE), HostDataset)
    memory = 3 * size
    assert isinstance(make_source(DATA, BATCH_SIZE), DeviceDataset)


def test_every_transition_is_sampled_about_equally_often():
    key = jax.random.key(0)
    rows = jax.vmap(lambda step: sample_rows(jax.random.fold_in(key, step), 100, 50))(
        jnp.arange(200)
    )
    counts = np.bincount(np.asarray(rows).ravel(), minlength=50)
    assert len(counts) == 50
    assert np.abs(counts - 400).max() < 100  # five standard deviations


def test_the_state_is_donated():
    trainer, state = start([0])
    kernel = state.agents.network.params["base_flow"]["Dense_0"]["kernel"]
    trainer.update(state, 1)
    assert kernel.is_deleted()


def test_streams_differ_by_purpose_and_seed():
    seeds = np.arange(3)
    streams = ("init", "data", "noise", "evaluation", "validation")
    keys = [jax.random.key_data(seed_keys(seeds, stream)) for stream in streams]
    assert len({tuple(np.asarray(key)) for group in keys for key in group}) == 15


def test_compile_options_that_this_xla_lacks_are_left_out(monkeypatch):
    training.compiler_options.cache_clear()
    monkeypatch.setitem(training._CPU_OPTIONS, "xla_cpu_no_such_option", 1)
    options = training.compiler_options()
    training.compiler_options.cache_clear()
    assert "xla_cpu_no_such_option" not in options
    assert options == training.compiler_options()


def test_host_data_are_prefetched_while_a_dispatch_runs_and_no_further():
    events, source = [], HostDataset(DATA, BATCH_SIZE, max_updates=2)
    prefetch = source.prefetch
    source.prefetch = lambda *arguments: events.append("prefetch") or prefetch(*arguments)
    trainer = Trainer(source, 1, chunk=1)

    def state_after(step):
        wait = functools.partial(events.append, f"wait for {step}")
        return SimpleNamespace(step=step, data_keys=KEYS, block_until_ready=wait)

    def run(state, prefetched, count):
        events.append("run")
        return state_after(state.step + count)

    trainer._run_any = run
    trainer.update(state_after(0), 5)
    expected = [("prefetch", f"wait for {step}", "run") for step in (0, 2, 4)]
    assert events == [*itertools.chain(*expected), "wait for 5"]
