"""Updates per second on images, and whether the data keep up with the device.

One agent's update is timed in three loops, in one process and in alternating rounds: a plain one in
the manner of FQL, whose batches are sampled, stacked and cropped on the host, one update per
dispatch; this library's with the frames on the device; and with the frames in host memory. All
three run the same update, so that the ratios are those of the loops and the data alone.

Whether a host keeps up with a device is told for devices of any speed by an update that only
sleeps: the share of the time in which it does not is the device's idle share. Batches are of
published size there.

The defaults suit a CPU. On a GPU, the published shapes are

    python -m tests.benchmarks.pixels --image_size=64 --batch_size=256 --encoder=impala_small \
        --rows=1000000 --hidden_dims 512 512 512 512
"""

import argparse
import dataclasses
import functools
import inspect
import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from tests import toys
from tests.benchmarks.throughput import (
    DISPATCH_SECONDS,
    LibraryLoop,
    Subject,
    gflop,
    machine,
    measure_rounds,
    summary,
    timed,
    updates_within,
)
from utils.augmentation import PADDING, crop
from utils.columns import TRANSITION_COLUMNS
from utils.datasets import DeviceDataset, make_source
from utils.files import write_atomically
from utils.flops import products
from utils.frames import stack_frames
from utils.sampling import SamplingRule
from utils.training import Trainer

FRAMES, P_AUG = 3, 0.5  # as published
IDLE_IMAGE_SIZE, IDLE_BATCH_SIZE = 64, 256  # likewise
_EPISODE = 100  # rows
_IDLE_ROWS = 5000


def random_images(rows, size):
    """Return random transitions of OGBench's arm, whose observations are images, by key."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, size, size, 3), np.uint8)
    ends = np.arange(rows) % _EPISODE == _EPISODE - 1
    following = np.roll(images, -1, axis=0)
    return {
        "observations": images,
        "actions": rng.uniform(-1, 1, (rows, 5)).astype(np.float32),
        "next_observations": following,
        "rewards": rng.uniform(size=rows).astype(np.float32),
        "masks": np.ones(rows, np.float32),
        "terminals": ends.astype(np.float32),
    }


class PlainLoop:
    """A loop in the manner of FQL: images are stored twice, and a batch is made on the host.

    Rows are sampled, their frames gathered and put together by NumPy; crops are made on the device
    and fetched, as in FQL, before the batch is sent to the update.
    """

    agent_name, seeds, devices, chunk, memory = "plain loop", 1, 1, 1, None

    def __init__(self, data, agent, batch_size, update=None):
        self.data, self.agent, self.batch_size = data, agent, batch_size
        self.random = np.random.default_rng(0)
        ends = np.flatnonzero(data["terminals"])
        self.starts = np.concatenate([[0], ends[:-1] + 1])
        self.update = update or jax.jit(self._update)
        self.crop = jax.jit(crop)
        self.compile_seconds = timed(self.advance, 1)[0]

    def advance(self, num_updates, dispatch=1):
        """Do updates, one dispatch each whatever is asked for, and wait for the last."""
        del dispatch
        for _ in range(num_updates):
            self.agent = self.update(self.agent, self.batch())
        jax.block_until_ready(self.agent)

    @staticmethod
    def _update(agent, batch):
        key = jax.random.fold_in(jax.random.key(0), agent.network.step)
        return agent.update(batch, key)[0]

    def batch(self):
        """Return the next batch."""
        rows = self.random.integers(len(self.data["actions"]), size=self.batch_size)
        batch = {name: self.data[name][rows] for name in TRANSITION_COLUMNS}
        first = self.starts[np.searchsorted(self.starts, rows, "right") - 1]
        past = [np.maximum(rows - age, first) for age in range(FRAMES - 1, 0, -1)]
        images, following = self.data["observations"], batch["next_observations"]
        stack = [*(images[row] for row in past), images[rows]]
        batch["observations"] = np.concatenate(stack, axis=-1)
        batch["next_observations"] = np.concatenate([*stack[1:], following], axis=-1)
        if self.random.uniform() < P_AUG:
            offsets = self.random.integers(0, 2 * PADDING + 1, (self.batch_size, 2))
            for name in ("observations", "next_observations"):
                batch[name] = np.array(self.crop(batch[name], offsets))
        return batch


def configure(options, transitions):
    """Return the agent that is timed, with these transitions and its columns."""
    file = toys.load(toys.AGENTS / f"{options.agent}.py")
    config = file.config.copy_and_resolve_references()
    config.update({"batch_size": options.batch_size, "encoder": options.encoder})
    widths = [setting for setting in config if setting.endswith("hidden_dims")]
    config.update(dict.fromkeys(widths, tuple(options.hidden_dims)))
    data, example = toys.prepared(file.agent_class, config, stack_frames(transitions, FRAMES))
    return Subject(options.agent, file, config, data, example)


def encoded(update, agent, batch, key):
    """Return how many images an update encodes, and through how many a gradient passes back."""
    size, forward, backward = batch["observations"].shape[1:], 0, 0
    for product in products(inspect.unwrap(update), agent, batch, key):
        images = product.equation.invars[0].aval.shape
        if product.equation.primitive.name != "conv_general_dilated" or images[1:] != size:
            continue  # no encoder's first layer
        # The gradient of its kernel is a convolution whose channels are the batch.
        if product.equation.params["dimension_numbers"].lhs_spec[0] == 0:
            forward += product.times * images[0]
        else:
            backward += product.times * images[0]
    return forward, backward


def host_source(data, batch_size, rule):
    """Return the source that a run has where the device's memory is too small."""
    with mock.patch("utils.datasets.device_memory", return_value=0):
        return make_source(data, batch_size, rule=rule)


def measure_updates(options, deadline):
    """Time the three loops, and return what is known of the update and of each loop."""
    transitions = random_images(options.rows, options.image_size)
    subject = configure(options, transitions)
    config, rule, key = subject.config, SamplingRule(p_aug=P_AUG), jax.random.key(0)
    sources = {
        "frames on the device": DeviceDataset(subject.data, config.batch_size, rule=rule),
        "frames on the host": host_source(subject.data, config.batch_size, rule),
    }
    loops = {name: LibraryLoop(subject, 1, source) for name, source in sources.items()}
    first = loops["frames on the device"].first_agent
    loops = {"plain loop": PlainLoop(transitions, first, config.batch_size)} | loops
    for loop in loops.values():
        loop.advance(1 + loop.chunk)  # warms all of its programs
    updates = options.updates or updates_within(loops["plain loop"].advance, DISPATCH_SECONDS)
    seconds = measure_rounds(
        [(loop, updates, updates) for loop in loops.values()], options.rounds, deadline
    )
    rates = {name: 1 / taken[:, 0] for name, taken in zip(loops, seconds, strict=True)}
    update = subject.agent_class.update
    forward, backward = encoded(update, first, subject.example, key)
    return {
        "agent": options.agent,
        "encoder": options.encoder,
        "image_size": options.image_size,
        "batch_size": config.batch_size,
        "gflop_per_update": gflop(update, first, subject.example, key),
        "images_encoded_per_update": forward,
        "images_with_a_gradient_per_update": backward,
        "loops": {
            name: {
                "updates_per_second": summary(rates[name]),
                "ratio_to_plain_loop": summary(rates[name] / rates["plain loop"]),
                "memory_bytes": loop.trainer.memory(loop.state) if name in sources else None,
            }
            for name, loop in loops.items()
        },
    }


# --- Idle share -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pending:
    """A training state that the stand-in of a device is about to bring forth.

    Attributes:
        done: Of the device's work up to it.
        step: Number of updates up to it.
        data_keys: As those of a TrainingState.
    """

    done: Future
    step: int
    data_keys: jax.Array

    def block_until_ready(self):
        """Wait for it, as JAX waits for an array."""
        self.done.result()
        return self


class Device:
    """A stand-in for a device of any speed: what it is given to do, it sleeps through in order."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.busy = 0.0
        self._thread = ThreadPoolExecutor(1)

    def first_state(self):
        """Return a state that is there."""
        done = self._thread.submit(int)
        return Pending(done, 0, jax.random.split(jax.random.key(0), 1))

    def run(self, state, batches, num_updates=1):
        """Begin updates of a state on batches, and return what comes of them."""
        done = self._thread.submit(self._sleep, batches, num_updates)
        return dataclasses.replace(state, done=done, step=state.step + num_updates)

    def _sleep(self, batches, num_updates):
        jax.block_until_ready(batches)
        started = time.perf_counter()
        time.sleep(num_updates * self.seconds)
        self.busy += time.perf_counter() - started


def measure_devices(options):
    """Return what there is to know of devices, by milliseconds of their update and by loop.

    It is the share of the time in which a device is idle, and the milliseconds of CPU that an
    update takes of the host, which tell what device it could keep busy if it did nothing else.
    """
    transitions, rule = random_images(_IDLE_ROWS, IDLE_IMAGE_SIZE), SamplingRule(p_aug=P_AUG)
    data = stack_frames(transitions, FRAMES)
    sources = {
        "frames on the device": DeviceDataset(data, IDLE_BATCH_SIZE, rule=rule),
        "frames on the host": host_source(data, IDLE_BATCH_SIZE, rule),
    }
    found = {}
    for milliseconds in options.device_ms:
        loops = found[f"{milliseconds:g}"] = {}
        for name in ("plain loop", *sources):
            device = Device(milliseconds / 1000)
            advance = _loop_on(device, sources.get(name), transitions)
            wall, cpu = timed(advance, options.idle_updates)
            host = 1000 * cpu / options.idle_updates
            loops[name] = {"idle_share": 1 - device.busy / wall, "host_cpu_ms": host}
    return found


def _loop_on(device, source, transitions):
    """Return a function that does updates on a device, warmed; without a source the plain loop."""
    seconds, device.seconds = device.seconds, 0.0
    state = device.first_state()
    if source is None:
        advance = PlainLoop(transitions, state, IDLE_BATCH_SIZE, device.run).advance
    else:
        trainer = Trainer(source, 1, chunk=1)
        trainer._run_any = device.run
        advance = functools.partial(trainer.update, state)
    advance(3 * (1 if source is None else source.max_updates or 1))
    device.seconds, device.busy = seconds, 0.0
    return advance


# --- The command ----------------------------------------------------------------------------------


def run(options):
    """Measure all, and return what --output writes."""
    started = time.perf_counter()
    deadline = started + (options.budget_seconds or math.inf)
    return machine() | {
        "options": vars(options),
        "devices_by_ms": measure_devices(options),
        **measure_updates(options, deadline),
        "seconds": time.perf_counter() - started,
    }


def print_tables(results):
    """Print what `run` returned as two Markdown tables."""
    print(
        f"{results['agent']} on {results['device']}, {results['image_size']} x "
        f"{results['image_size']} pixels, {results['encoder']}, batch {results['batch_size']}: "
        f"{results['images_encoded_per_update']} images encoded per update, "
        f"{results['images_with_a_gradient_per_update']} of them with a gradient; "
        f"{results['gflop_per_update']:.3g} GFLOP\n\n"
        "| loop | updates/s (min to max) | ratio | memory, GiB |\n|---|---:|---:|---:|"
    )
    for name, found in results["loops"].items():
        rates, memory = found["updates_per_second"], found["memory_bytes"]
        print(
            f"| {name} | {rates['median']:.1f} ({rates['min']:.1f} to {rates['max']:.1f}) | "
            f"{found['ratio_to_plain_loop']['median']:.2f} | "
            f"{'-' if memory is None else format(memory / 2**30, '.2f')} |"
        )
    devices = results["devices_by_ms"]
    titles = [f"idle at {milliseconds} ms an update" for milliseconds in devices]
    print(
        f"\nDevices that sleep, batch {IDLE_BATCH_SIZE} of {IDLE_IMAGE_SIZE} x {IDLE_IMAGE_SIZE} "
        f"pixels:\n\n| loop | ms of CPU on the host an update | {' | '.join(titles)} |\n"
        f"|---|---:{'|---:' * len(titles)}|"
    )
    for name in results["loops"]:
        found = [loops[name] for loops in devices.values()]
        host = min(one["host_cpu_ms"] for one in found)
        cells = (f"{100 * one['idle_share']:.0f} %" for one in found)
        print(f"| {name} | {host:.2f} | {' | '.join(cells)} |")


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.pixels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--agent", default="deflow", help="agent here")
    add("--encoder", default="impala_debug", help="a name in utils/encoders.py")
    add("--image_size", type=int, default=24, help="height and width of the images")
    add("--batch_size", type=int, default=32, help="transitions per update")
    add("--hidden_dims", type=int, nargs="+", default=[128, 128], help="widths of all heads")
    add("--rows", type=int, default=20_000, help="random transitions to sample from")
    add("--rounds", type=int, default=7, help="alternating rounds")
    add("--updates", type=int, help="updates per round and loop; a second's worth by default")
    add("--device_ms", type=float, nargs="+", default=[5, 20, 80], help="updates that sleep")
    add("--idle_updates", type=int, default=60, help="of those, each")
    add("--budget_seconds", type=float, help="end after about so long, with fewer rounds")
    add("--output", metavar="PATH", help="JSON file to write")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    results = run(options)
    print_tables(results)
    if options.output:
        write_atomically(Path(options.output), (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
