"""Seconds and memory to load a dataset of official size: a million transitions of antmaze.

The file is written in OGBench's format, compressed, with random numbers, which compress no better
than real ones. A process of its own reads it, and puts it on the device. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from utils.datasets import DeviceDataset
from utils.envs.ogbench import names
from utils.envs.ogbench.data import load_datasets
from utils.files import write_atomically

TASK = "antmaze-large-navigate-singletask-v0"
WIDTHS = {"observations": 29, "actions": 8, "qpos": 15, "qvel": 14}


def write(folder, rows):
    """Write a dataset in OGBench's format."""
    random = np.random.default_rng(0)
    for count, suffix in ((rows, ""), (1000, "-val")):
        arrays = {
            key: random.standard_normal((count, width), np.float32) for key, width in WIDTHS.items()
        }
        arrays["terminals"] = np.arange(count) % 1000 == 999
        np.savez_compressed(Path(folder) / f"{names.dataset_name(TASK)}{suffix}.npz", **arrays)


def memory(name):
    """Return this process's memory in bytes: VmRSS now, VmHWM at the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(name)


def load(folder):
    """Load what `write` wrote and return the figures."""
    load_datasets(TASK, _few(folder))  # imports and environments do not count
    jax.devices()
    before, started = memory("VmRSS"), time.perf_counter()
    train, _ = load_datasets(TASK, folder)
    seconds = time.perf_counter() - started
    peak, size = memory("VmHWM") - before, sum(array.nbytes for array in train.values())
    started = time.perf_counter()
    source = DeviceDataset(train, 256)
    jax.block_until_ready(source.arrays)
    return {
        "device": jax.devices()[0].device_kind,
        "transitions": len(train["actions"]),
        "dataset_bytes": size,
        "seconds": seconds,
        "peak_over_dataset": peak / size,
        "seconds_to_the_device": time.perf_counter() - started,
        "device_bytes": sum(array.nbytes for array in source.arrays.values()),
    }


def _few(folder):
    few = Path(folder) / "few"
    few.mkdir()
    write(few, 1000)
    return few


def main(arguments=None):
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--load", metavar="FOLDER", help="load the file there, print JSON")
    parser.add_argument("--output", metavar="PATH", help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.load:
        print(json.dumps(load(options.load)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(folder, options.rows)
        command = [sys.executable, "-m", "tests.benchmarks.data", f"--load={folder}"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    print(
        f"{found['transitions']} transitions, {found['dataset_bytes'] / 2**20:.0f} MiB: loaded in "
        f"{found['seconds']:.1f} s with at most {found['peak_over_dataset']:.2f} times the "
        f"dataset's memory; {found['device_bytes'] / 2**20:.0f} MiB on {found['device']} after "
        f"{found['seconds_to_the_device']:.2f} s more, for any number of seeds"
    )
    if options.output:
        write_atomically(Path(options.output), (json.dumps(found, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
