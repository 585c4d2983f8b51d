"""The agents against recorded update steps of the published implementations.

Step by step, with what leads to a loss; all steps in one dispatch of the training loop; and how the
agents act that come out of it; and the parts for images alone. GOLDEN_DIR names another folder of
such files.
"""

import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.contract import ALWAYS_FULL
from tests.golden_files import REPOSITORY, Golden, kind_of, recorded_parameters
from utils import encoders
from utils.augmentation import PADDING, crop
from utils.frames import FrameStacks, stack_frames
from utils.training import Trainer, TrainingState

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", REPOSITORY / "tests/golden"))
KINDS = {path: kind_of(path) for path in sorted(GOLDEN_DIR.glob("*.npz"))}
FILES = [path for path in KINDS if KINDS[path] == "agent"]

for_every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
read = functools.cache(Golden)


def assert_close(actual, expected, what):
    """Within 1e-5 of what is recorded, relative where that is above 1."""
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape, what
    error = np.abs(np.asarray(actual) - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= 1e-5, f"{what} is off by {error.max()}"


def assert_final(golden, network, agent):
    """Compare online and target parameters with those after the last recorded step."""
    expected = golden.params("final", agent)
    actual = network.params, network.target_params
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(actual), strict=True
    ):
        assert_close(other, one, jax.tree_util.keystr(path))


def files_of(kind):
    """A mark: the test is run for every file of this kind."""
    found = [path for path in KINDS if KINDS[path] == kind]
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem)


def test_there_are_golden_files():
    assert FILES


@files_of("parameters")
@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_golden_features(path, name):
    """Of the named encoders at their own sizes, which are the published numbers of parameters."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    counts = json.loads(bytes(arrays["config_json"]).decode())["parameters"]
    encoder, images = encoders.make_encoder(name), jnp.asarray(arrays["observations"])
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == counts[name]
    parameters = {"params": recorded_parameters(shapes["params"])}
    with jax.default_matmul_precision("highest"):
        features = encoder.apply(parameters, images)
        single = encoder.apply(parameters, images[0])
    largest = np.abs(arrays[f"{name}/features"]).max()  # about 100: sums of numbers of that size
    assert_close(features / largest, arrays[f"{name}/features"] / largest, "features")
    assert_close(single / largest, arrays[f"{name}/single"] / largest, "those of a single image")


@for_every_file
def test_golden(path):
    golden = read(path)
    with jax.default_matmul_precision("highest"):
        agent = golden.build()

        @jax.jit
        def update(agent, batch, noise):
            updated = agent.update(batch | {"noise": noise}, jax.random.key(0))
            return golden.intermediates(agent, batch, noise), *updated

        for step, parts in enumerate(golden.steps):
            before, agent, metrics = update(agent, parts["batch"], parts["noise"])
            assert set(parts["before"]) <= set(before)
            for name, value in parts["before"].items():
                assert_close(before[name], value, f"{name} before step {step}")
            by_name = {key.split("/")[1]: value for key, value in metrics.items()}
            by_name |= {  # recorded as critic_grad_norm
                "_".join(key.split("/")[::-1]): value for key, value in metrics.items()
            }
            for name, value in parts["loss"].items():
                if value.ndim:  # of each critic, where a metric is one number
                    assert_close(before[name], value, f"{name} of step {step}")
                    continue
                if name not in by_name:  # a loss that these settings leave out
                    assert not np.any(value), name
                    continue
                assert_close(by_name[name], value, f"{name} of step {step}")
    assert_final(golden, agent.network, agent)


@for_every_file
def test_golden_actions(path):
    """At temperature 1, and at 0 where that is another thing."""
    golden = read(path)
    agent = golden.build()
    params, targets = golden.params("final", agent)
    agent = agent.replace(network=agent.network.replace(params=params, target_params=targets))
    observations = golden.part("eval").get("observations")
    for name, temperature in (("actions", 1.0), ("mode_actions", 0.0)):
        if name not in golden.part("eval"):
            continue
        act = jax.jit(functools.partial(type(agent).sample_actions, temperature=temperature))
        with jax.default_matmul_precision("highest"), golden.drawn_noise():
            actions = act(agent, observations, jax.random.key(0))
        assert_close(actions, golden.part("eval")[name], name)


@files_of("p_aug")
def test_golden_crops(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    config = json.loads(bytes(arrays["config_json"]).decode())
    assert config["padding"] == PADDING
    for i in range(config["batches"]):
        batch = {name.split("/")[1]: x for name, x in arrays.items() if f"batch{i}/" in name}
        heads = batch["uniform"] < config["p_aug"]
        offsets = jnp.asarray(np.where(heads, batch["offsets"], PADDING))
        for name in ("observations", "next_observations"):
            cropped = crop(jnp.asarray(batch[name]), offsets)
            np.testing.assert_array_equal(cropped, batch[f"augmented_{name}"])


@files_of("frame_stack")
def test_golden_stacks(path):
    """From frames as a file has them, and from images in arrays."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    count = json.loads(bytes(arrays["config_json"]).decode())["frame_stack"]
    last = arrays["terminals"].astype(bool)
    columns = FrameStacks.of_steps(arrays["frames"], last)
    np.testing.assert_array_equal(columns["observations"].current, arrays["transition_rows"])
    terminals = last[arrays["transition_rows"] + 1]
    copied = {name: np.asarray(column) for name, column in columns.items()}
    for transitions in (columns, copied | {"terminals": terminals}):
        stacks = stack_frames(transitions, count)
        for name in ("observations", "next_observations"):
            np.testing.assert_array_equal(np.asarray(stacks[name]), arrays[f"every/{name}"])
            batch = stacks[name][arrays["batch/indices"]]
            np.testing.assert_array_equal(batch, arrays[f"batch/{name}"])


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


def is_slow(path):
    return path.stem.split("_")[0] not in ALWAYS_FULL


@pytest.mark.parametrize(
    "path",
    [pytest.param(x, id=x.stem, marks=[pytest.mark.slow] * is_slow(x)) for x in FILES],
)
def test_golden_in_one_dispatch(path):
    golden = read(path)
    source = Recorded(golden.steps)
    with jax.default_matmul_precision("highest"):
        agent = golden.build()
        agents = jax.tree.map(lambda x: jnp.asarray(x)[None], agent)
        example = source.batch(source.batches, 0, None, None, None)
        state = TrainingState.create(agents, np.arange(1), example)
        state = Trainer(source, num_members=1).update(state, len(golden.steps))
    assert_final(golden, jax.tree.map(lambda x: x[0], state.agents.network), agent)
    assert set(state.metric_sums)
