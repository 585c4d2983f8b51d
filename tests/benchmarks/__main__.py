"""All that is worth knowing of a machine's speed, in one command and a bounded time.

It needs no internet access, no dataset and no display. One after the other, each in a process of
its own:

- updates per second of DeFlow and FQL, by number of seeds and length of a dispatch, beside the
  yardstick; seconds to the first update with and without a compilation cache; hours per task
  (tests.benchmarks.throughput),
- updates per second of every agent in agents/, with one seed and with eight
  (tests.benchmarks.agents),
- seconds and memory to load a million transitions (tests.benchmarks.data),
- updates per second on images and the idle share of devices (tests.benchmarks.pixels), of small
  ones with a small encoder,
- what an evaluation costs training (tests.benchmarks.evaluation).
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

# The rest of the time is for starting processes and compiling.
SHARES = {"throughput": 0.32, "agents": 0.35, "pixels": 0.06, "evaluation": 0.17}


def main(arguments=None):
    """Run everything and return the exit code, 1 if a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", metavar="FOLDER", default="benchmarks", help="where JSON and PNG files go")
    add("--minutes", type=float, default=14.5, help="end after about so long")
    add("--seeds", nargs="+", default=["1", "2", "4", "8", "16", "32"], help="seeds together")
    add("--updates", nargs="+", default=["20", "200"], help="updates per dispatch")
    add("--interval", default="100000", help="updates from one evaluation to the next")
    add("--episodes", default="50", help="episodes per evaluation")
    add("--hidden_dims", nargs="+", default=[], help="widths of all networks, not the agents' own")
    add("--agents", nargs="+", default=[], metavar="PATH", help="files or folders, not agents/")
    add("--rows", default="1000000", help="transitions to load")
    add("--image_size", default="24", help="height and width of images")
    options = parser.parse_args(arguments)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    shape = ["--hidden_dims", *options.hidden_dims] if options.hidden_dims else []
    together = ["--seeds", *options.seeds, "--updates", *options.updates]
    parts = {
        "throughput": ["--agents", "deflow", "fql", *together, *shape, "--first_update"],
        "agents": [*options.agents, *shape],
        "data": [f"--rows={options.rows}"],
        "pixels": [f"--image_size={options.image_size}", *shape],
        "evaluation": [f"--updates={options.interval}", f"--episodes={options.episodes}", *shape],
    }
    failed = []
    for name, flags in parts.items():
        if name in SHARES:
            flags = [*flags, f"--budget_seconds={60 * options.minutes * SHARES[name]:.0f}"]
        print(f"\n# {name}", flush=True)
        started = time.perf_counter()
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *flags]
        if subprocess.run([*command, f"--output={folder / name}.json"]).returncode:
            failed.append(name)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
