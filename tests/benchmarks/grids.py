"""What a grid of settings costs beside one run, and beside as many seeds of one setting.

All three train in one process in alternating rounds, by the program that a run has. The grid's
points are learning rates, one seed each, since which numbers they are is nothing to the program.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.throughput import (
    DISPATCH_SECONDS,
    LibraryLoop,
    add_settings,
    configure,
    machine,
    measure_rounds,
    random_transitions,
    summary,
    updates_within,
)
from utils.files import write_atomically


def run(options):
    """Measure, and return what --output writes."""
    transitions = random_transitions(options.dataset_size, options.obs_dim, options.action_dim)
    subject = configure(options.agent, options, transitions)
    points = options.points
    rates = {"lr": np.geomspace(1e-4, 1e-3, points).astype(np.float32)}
    loops = {
        "one run": LibraryLoop(subject, 1),
        f"{points} seeds": LibraryLoop(subject, points),
        f"grid of {points}": LibraryLoop(subject, points, varied=rates),
    }
    members = []
    for loop in loops.values():
        loop.advance(1 + loop.chunk)  # warms all of its programs
        updates = updates_within(loop.advance, DISPATCH_SECONDS)
        members.append((loop, updates, updates))
    seconds = measure_rounds(members, options.rounds, time.perf_counter() + options.budget_seconds)
    per_update = {
        name: wall[:, 0] for name, wall in zip(loops, seconds, strict=True)
    }  # of all members
    alone = per_update["one run"]
    return machine() | {
        "options": vars(options),
        "updates_per_second": {name: summary(1 / taken) for name, taken in per_update.items()},
        "cost_in_runs": {name: summary(taken / alone) for name, taken in per_update.items()},
        "compile_seconds": {name: loop.compile_seconds for name, loop in loops.items()},
    }


def print_table(results):
    """Print what `run` returned."""
    print(f"{results['device']}, {results['cores_allowed']} cores, {results['options']['agent']}")
    print("| trained together | updates/s | time, in runs (min to max) | compiling, s |")
    print("|---|---|---|---|")
    for name, cost in results["cost_in_runs"].items():
        rate = results["updates_per_second"][name]["median"]
        print(
            f"| {name} | {rate:.1f} | {cost['median']:.2f} ({cost['min']:.2f} to "
            f"{cost['max']:.2f}) | {results['compile_seconds'][name]:.1f} |"
        )


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.grids",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--agent", default="deflow", help="agent here, or path of an agent's file")
    add("--points", type=int, default=12, help="points of the grid")
    add("--obs_dim", type=int, default=29, help="size of an observation")
    add("--action_dim", type=int, default=8, help="size of an action")
    add_settings(parser)
    add("--rounds", type=int, default=5, help="alternating rounds")
    add("--budget_seconds", type=float, default=600.0, help="begin no further round after so long")
    add("--output", metavar="PATH", help="JSON file to write")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    results = run(options)
    print_table(results)
    if options.output:
        write_atomically(Path(options.output), (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
