"""Agents of other repositories in FQL's style, in their own loop and in this library's, and ours.

    python -m tests.parity fql_style PATH ...

Each PATH is a clone of a repository or one agent's file. On the same batches, of random
transitions, an agent takes its own updates one by one, and those that this library puts into one
dispatch. A Markdown table says which files run, how far the parameters are apart then, and the
updates per second. This library's agent of the same algorithm is timed beside them, in the same
rounds and with the same settings. With --runs whole runs are executed instead, see
`tests.parity.whole_runs`; with --learn the agents are trained, see `tests.parity.twin`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests import toys
from tests.benchmarks.throughput import updates_within
from tests.parity import twin, whole_runs
from tests.parity.ours import our_file, our_settings
from tests.parity.own_loop import own_update
from utils.agent_files import load_agent_file
from utils.datasets import DeviceDataset
from utils.errors import UserError
from utils.fql_style import is_fql_style
from utils.training import Trainer, TrainingState, create_agents

ROOT = Path(__file__).resolve().parents[2]
ROWS, OBSERVATION, ACTION = 10_000, 28, 5  # as in a task of OGBench's cube
EPISODE = 200
SEEDS = 8
ROUNDS = 5


class Subject:
    """An agent's file on random transitions.

    Args:
        path: The file.
        settings: Settings that differ from its own.
        rows: Transitions.
    """

    def __init__(self, path, settings, rows=ROWS):
        self.file = load_agent_file(path)
        self.agent_class = self.file.agent_class
        self.config = self.file.config.copy_and_resolve_references()
        self.config.update({key: value for key, value in settings.items() if key in self.config})
        self.file.check(self.config)
        data = toys.transitions(rows, OBSERVATION, ACTION)
        data["terminals"] = (np.arange(rows) % EPISODE == EPISODE - 1).astype(np.float32)
        self.data, self.example = toys.prepared(self.agent_class, self.config, data)
        self.columns = self.agent_class.columns(self.config)
        self.source = DeviceDataset(self.data, self.config.batch_size, columns=self.columns)

    def start(self, *seeds):
        """A trainer and its state at step 0."""
        agents = create_agents(self.agent_class, np.array(seeds), self.example, self.config)
        state = TrainingState.create(agents, np.array(seeds), self.example)
        return Trainer(self.source, len(seeds)), state


def own_loop(trainer, state, member, updates, update=own_update):
    """Train one member by its own update, batch by batch.

    Returns:
        Its agent, and the metrics of each update.
    """
    agent = jax.tree.map(lambda leaf: jnp.copy(leaf[member]), state.agents.network.agent)
    metrics = []
    for step in range(updates):
        batch, _ = trainer.next_batch(state.replace(step=jnp.int32(step)), member)
        agent, info = update(agent, batch, step + 1)
        metrics.append(info)
    return agent, metrics


def difference(first, second):
    """The largest difference between the arrays of two agents."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    apart = [np.abs(np.float64(a) - np.float64(b)).max() for a, b in pairs if np.size(a)]
    return float(max(apart))


def updates_per_second(runs, seconds):
    """The best rate of each of `runs`, in turns, since other jobs can only slow them down."""
    counts = {}
    for name, run in runs.items():
        run(1)  # compiles
        counts[name] = updates_within(run, seconds / ROUNDS)
    best = dict.fromkeys(runs, 0.0)
    for i in range(ROUNDS):
        for name, run in runs.items() if i % 2 else reversed(runs.items()):
            started = time.perf_counter()
            run(counts[name])
            best[name] = max(best[name], counts[name] / (time.perf_counter() - started))
    return best


class Together:
    """Members in one program; called with a number of updates."""

    def __init__(self, trainer, state):
        self.trainer, self.state = trainer, state

    def __call__(self, updates):
        self.state = self.trainer.update(self.state, updates)


class Own:
    """An agent in its own loop: a batch from the host, and a dispatch per update."""

    def __init__(self, subject, agent):
        self.subject, self.agent = subject, agent
        self.rng, self.number = np.random.default_rng(0), 0

    def __call__(self, updates):
        for _ in range(updates):
            rows = self.rng.integers(0, ROWS, self.subject.config.batch_size)
            batch = {name: self.subject.data[name][rows] for name in self.subject.example}
            self.number += 1
            self.agent, _ = own_update(self.agent, batch, self.number)
        jax.block_until_ready(self.agent)


def size(agents):
    """The number of parameters of agents, those of targets included."""
    network = agents.network
    return sum(
        map(jnp.size, jax.tree.leaves([network.params, getattr(network, "target_params", ())]))
    )


def compare(path, settings, updates, seconds, ours=None):
    """Compare the two loops on one agent, and this library's agent with it.

    Args:
        path: The agent's file.
        settings: Settings that differ from its own.
        updates: Updates after which parameters are compared.
        seconds: For each rate.
        ours: The file of this library's agent, if there is one of the same algorithm.

    Returns:
        What the table shows: the largest `difference`, and `rates` by name of the loop. Those of
        `ours` are missing if its networks have other sizes.
    """
    subject = Subject(path, settings)
    beside = ours and Subject(ours, our_settings(ours, subject.config.to_dict()))
    apart, runs = 0.0, {}
    for count in (1, SEEDS):
        trainer, state = subject.start(*range(count))
        members = sorted({0, count - 1})
        expected = {i: own_loop(trainer, state, i, updates)[0] for i in members}
        state = trainer.update(state, updates)
        for i, agent in expected.items():
            here = jax.tree.map(lambda leaf, i=i: leaf[i], state.agents.network.agent)
            apart = max(apart, difference(agent, here))
        runs |= {"own": Own(subject, expected[0]), str(count): Together(trainer, state)}
        if beside:
            together = Together(*beside.start(*range(count)))
            if size(together.state.agents) == size(state.agents):
                runs[f"ours {count}"] = together
    return {"difference": apart, "rates": updates_per_second(runs, seconds)}


# --- The table ------------------------------------------------------------------------------------


def agent_files(paths):
    """The agents' files among paths, which may be folders of repositories."""
    for path in map(Path, paths):
        inside = sorted(path.glob("agents/*.py")) if path.is_dir() else [path]
        yield from (file.resolve() for file in inside if is_fql_style(file.resolve()))


def table_row(path, found):
    """A row of the Markdown table."""
    name = "/".join(path.parts[-3:])
    if "refused" in found:
        return f"| {name} | {found['refused'].replace(str(path), path.name)} | | | | | | |"
    rates = found["rates"]
    cells = [name, "yes", f"{found['difference']:.0e}", f"{rates['own']:.1f}"]
    for count, loop in ((n, f"{who}{n}") for who in ("", "ours ") for n in (1, SEEDS)):
        ratio = count * rates[loop] / rates["own"] if loop in rates else None
        cells.append("-" if ratio is None else f"{rates[loop]:.1f} ({ratio:.2f})")
    return f"| {' | '.join(cells)} |"


def learning_curves(options, settings):
    """Train the twins, and return the lines of the table of their curves."""
    (path,) = agent_files(options.paths)
    names = ("env_name", "dataset_dir", "online", "steps", "interval", "episodes")
    given = {name: getattr(options, name) for name in names}
    settings = settings | widths(path, options.hidden_dims)
    with tempfile.TemporaryDirectory() as folder:
        sides = twin.learn(
            path, settings, options.seeds, given, Path(folder), options.workers, options.sides
        )
    return twin.table(sides)


def widths(path, hidden_dims):
    """Settings that give all networks of an agent's file these widths, if any are given."""
    names = [n for n in load_agent_file(path).config if n.endswith("hidden_dims")]
    return dict.fromkeys(names if hidden_dims else (), tuple(hidden_dims or ()))


def parse_settings(pairs):
    """Settings from `name=value`."""
    return {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def main(arguments):
    """Print a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity fql_style", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a repository's folder, or an agent's file")
    add("--updates", type=int, default=50, help="updates that are compared")
    add("--seconds", type=float, default=5.0, help="measure each rate for about so long")
    add("--hidden_dims", type=int, nargs="+", help="widths of all networks, instead of the file's")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings, for files with them")
    add("--ours", metavar="FILE", help="agent beside them, instead of ours of the same algorithm")
    add("--runs", action="store_true", help="execute whole runs, stopped and resumed ones too")
    add("--one", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    learn = parser.add_argument_group("the twin")
    add = learn.add_argument
    add("--learn", action="store_true", help="train one file in its own way and here")
    add("--sides", nargs="+", choices=twin.SIDES, default=twin.SIDES, help="which are trained")
    add("--online", action="store_true", help="online from nothing, half of a batch from data")
    add("--env_name", default="cube-single-play", help="task, whose data are collected")
    add("--dataset_dir", default="demo/data", help="folder of the data")
    add("--seeds", type=int, default=8, help="seeds on each side")
    add("--steps", type=int, default=20_000, help="updates")
    add("--interval", type=int, default=4_000, help="updates between evaluations")
    add("--episodes", type=int, default=20, help="episodes per evaluation and seed")
    add("--workers", type=int, default=2, help="processes of its own loop at a time")
    options = parser.parse_args(arguments)
    settings = parse_settings(options.set)
    if options.learn:
        print("\n".join(learning_curves(options, settings)))
        return 0
    if options.runs:
        for line in whole_runs.table(
            agent_files(options.paths), lambda path: settings | widths(path, options.hidden_dims)
        ):
            print(line, flush=True)
        return 0
    if options.one:
        (path,) = options.paths
        settings |= widths(path, options.hidden_dims)
        ours = Path(options.ours) if options.ours else our_file(Path(path))
        print(json.dumps(compare(path, settings, options.updates, options.seconds, ours)))
        return 0
    seeds = f"1 seed | {SEEDS} seeds"
    print(f"| file | runs | largest difference | own loop | here, {seeds} | ours, {seeds} |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    flags = [argument for argument in arguments if argument not in options.paths]
    for path in agent_files(options.paths):
        command = [sys.executable, "-m", "tests.parity.fql_style", str(path), "--one", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or "it ended without a word").splitlines()[-1]
            found = {"refused": reason.removeprefix("error: ").removeprefix("utils.errors.")}
        else:
            found = json.loads(done.stdout.splitlines()[-1])
        print(table_row(path, found), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
