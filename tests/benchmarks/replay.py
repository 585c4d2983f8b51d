"""Seconds to save and restore a replay of two million transitions of antmaze's size.

Online training saves by increments: what is timed is one save of 100,000 new transitions beside all
the others, and reading a million back.
"""

import tempfile
import time
from statistics import median

import jax.numpy as jnp

from tests.benchmarks.throughput import random_transitions
from utils.replay import Replay, ReplayLog

ROWS, INCREMENT = 1_000_000, 100_000


def main():
    """Measure and print."""
    dataset = {key: jnp.asarray(x) for key, x in random_transitions(ROWS, 29, 8).items()}
    ring = {key: x[None] for key, x in dataset.items()}
    replay = Replay(dataset, capacity=2 * ROWS, batch_size=1, num_members=1, max_inserts=ROWS)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        log = ReplayLog(f"{folder}/replay")
        for inserted in range(INCREMENT, ROWS + 1, INCREMENT):
            started = time.perf_counter()
            log.save(replay, ring, inserted, needed=log.saved)
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        ReplayLog(log.folder).restore(replay, ROWS)
        restored = time.perf_counter() - started
    print(
        f"saving {INCREMENT} transitions: {median(seconds):.2f} s (median of {len(seconds)}, "
        f"{min(seconds):.2f} to {max(seconds):.2f}); restoring {ROWS}: {restored:.2f} s"
    )


if __name__ == "__main__":
    main()
