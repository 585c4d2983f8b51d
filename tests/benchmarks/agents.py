"""Updates per second of every agent, one seed and eight seeds in one program.

    python -m tests.benchmarks.agents [PATH ...]

Each PATH is an agent's file, or a folder of them; by default it is `agents/`, whatever is in it.
An agent has its own settings, and random transitions of antmaze's sizes with the columns that it
asks for. A dispatch has about a second's worth of updates, as runs have it. The numbers of seeds
are timed in alternating rounds, one agent after another, and in a bounded time.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import jax

import agents
from tests.benchmarks.throughput import (
    DISPATCH_SECONDS,
    LibraryLoop,
    add_shapes,
    configure,
    describe,
    gflop,
    hours_table,
    machine,
    matrix_rate,
    measure_rounds,
    random_transitions,
    updates_within,
)
from utils.errors import UserError
from utils.files import write_atomically

FOLDER = Path(agents.__file__).parent


def agent_files(paths):
    """Return the agents' files among paths, and those in the folders among them, in order."""
    found = []
    for path in map(Path, paths):
        found += sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
    return found


def measure(path, transitions, options, deadline, ceiling):
    """Time one agent, and return what is known of it with each number of seeds.

    `deadline` is a value of time.perf_counter(), `ceiling` is from `matrix_rate`.
    """
    subject = configure(path, options, transitions)
    loops = [LibraryLoop(subject, seeds) for seeds in options.seeds]
    key, first = jax.random.key(0), loops[0].first_agent
    flops = gflop(subject.agent_class.update, first, subject.example, key)
    cases = []
    for loop in loops:
        loop.advance(1 + loop.chunk)  # warms all of its programs
        updates = updates_within(loop.advance, options.round_seconds)
        cases.append((loop, updates, updates))
    seconds = measure_rounds(cases, options.rounds, deadline)
    return [
        describe(loop, dispatch, taken, flops, None, ceiling)
        | {"agent": path.stem, "settings": subject.config.to_dict()}
        for (loop, dispatch, _), taken in zip(cases, seconds, strict=True)
    ]


def run(options):
    """Measure all agents, and return what --output writes."""
    started = time.perf_counter()
    end = started + (options.budget_seconds or math.inf)
    files = agent_files(options.paths)
    ceiling = matrix_rate()
    transitions = random_transitions(options.dataset_size, options.obs_dim, options.action_dim)
    cases, skipped, longest = [], [], 0.0
    for number, path in enumerate(files):
        now = time.perf_counter()
        if number and now + 1.2 * longest > end:
            skipped.append(path.stem)
            continue
        deadline = now + (end - now) / (len(files) - number)
        cases += measure(path, transitions, options, deadline, ceiling)
        longest = max(longest, time.perf_counter() - now)
    return machine() | {
        "options": vars(options),
        "matrix_gflop_per_second": ceiling,
        "cases": cases,
        "skipped": skipped,
        "seconds": time.perf_counter() - started,
    }


def table(results):
    """Return the lines of a Markdown table of what `run` returned."""
    seeds = results["options"]["seeds"]
    columns = ["agent", "batch", "GFLOP per update"]
    columns += [f"updates/s, {n} seed{'s' * (n > 1)} (min to max)" for n in seeds]
    columns += ["gain", "% of a large product", "compile s"]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    by_agent = {}
    for case in results["cases"]:
        by_agent.setdefault(case["agent"], []).append(case)
    for name, cases in by_agent.items():
        rates = [case["updates_per_second"] for case in cases]
        cells = [name, str(cases[0]["settings"]["batch_size"])]
        cells.append(f"{cases[0]['gflop_per_update']:.3g}")
        cells += [f"{r['median']:.1f} ({r['min']:.1f} to {r['max']:.1f})" for r in rates]
        cells.append(f"{rates[-1]['median'] / rates[0]['median']:.2f}")
        cells.append(", ".join(f"{100 * case['share_of_matrix_rate']:.0f}" for case in cases))
        cells.append(", ".join(f"{case['compile_seconds']:.0f}" for case in cases))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.agents",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", default=[str(FOLDER)], help="agents' files, or folders")
    add_shapes(parser)
    add("--seeds", type=int, nargs="+", default=[1, 8], help="seeds trained together")
    add("--rounds", type=int, default=5, help="alternating rounds")
    add("--round_seconds", type=float, default=DISPATCH_SECONDS, help="length of a dispatch")
    add(
        "--budget_seconds",
        type=float,
        help="end after about so long: with fewer rounds, then without the last agents",
    )
    add("--output", metavar="PATH", help="JSON file to write")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    results = run(options)
    print(
        f"{results['device']}, {results['cores_allowed']} cores, jax {results['jax']}; a large "
        f"product of matrices: {results['matrix_gflop_per_second']:.0f} GFLOP/s"
    )
    print("\n".join(table(results)))
    for name in results["skipped"]:
        print(f"{name}: no time left for it")
    print(f"\n{hours_table(results)}")
    if options.output:
        write_atomically(Path(options.output), (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
