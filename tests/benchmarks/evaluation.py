"""What an evaluation costs training: nothing beside it, before it, or in the background of it.

An interval of training is timed alone, with an evaluation in the background as runs have it, and
after an evaluation that it waits for. Data are random and the agent untrained, so that episodes
have their full length. All three are timed in one process in alternating rounds. An evaluation that
outlasts the interval is waited for, and counts in full.
"""

import argparse
import concurrent.futures
import functools
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.throughput import (
    DISPATCH_SECONDS,
    LibraryLoop,
    add_settings,
    configure,
    random_transitions,
    summary,
    updates_within,
)
from utils.cores import available_cores
from utils.envs import tasks
from utils.evaluation import Evaluator
from utils.files import write_atomically
from utils.policies import sample
from utils.training import seed_keys


class Interval:
    """Training from one evaluation to the next."""

    def __init__(self, loop, evaluator, options):
        self.loop, self.evaluator, self.updates = loop, evaluator, options.updates
        self.keys = seed_keys(np.arange(options.num_seeds), "evaluation")
        self.background = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        loop.advance(1 + loop.chunk)  # warms all of its programs
        self.dispatch = updates_within(loop.advance, DISPATCH_SECONDS)

    def evaluate(self, agents):
        """Return the seconds that an evaluation takes."""
        started = time.perf_counter()
        self.evaluator.evaluate(agents, self.keys)
        return time.perf_counter() - started

    def alone(self):
        """Train without an evaluation."""
        self.loop.advance(self.updates, self.dispatch)

    def waiting(self):
        """Train after an evaluation."""
        self.evaluate(self.loop.state.agents)
        self.alone()

    def beside(self):
        """Train beside an evaluation; return the seconds that it takes."""
        agents = jax.tree.map(jnp.copy, self.loop.state.agents)
        evaluation = self.background.submit(self.evaluate, agents)
        self.alone()
        return evaluation.result()


def run(options):
    """Measure, and return what --output writes."""
    make_env = functools.partial(tasks.make_env, tasks.resolve(options.env_name))
    env = make_env()
    sizes = env.observation_space.shape[0], env.action_space.shape[0]
    env.close()
    subject = configure(options.agent, options, random_transitions(options.dataset_size, *sizes))
    seeds = options.num_seeds
    with Evaluator(make_env, sample, num_episodes=options.episodes, num_members=seeds) as evaluator:
        loop = LibraryLoop(subject, seeds)
        interval = Interval(loop, evaluator, options)
        lone = [interval.evaluate(loop.state.agents) for _ in range(2)][1:]  # the first compiles
        seconds = {"alone": [], "beside": [], "waiting": []}
        in_background = []
        end, longest = time.perf_counter() + (options.budget_seconds or math.inf), 0.0
        for i in range(options.rounds):
            round_started = time.perf_counter()
            if i and round_started + longest > end:
                break
            for name in seconds if i % 2 else reversed(seconds):
                started = time.perf_counter()
                evaluated = getattr(interval, name)()
                seconds[name].append(time.perf_counter() - started)
                if name == "beside":
                    in_background.append(evaluated)
            longest = max(longest, time.perf_counter() - round_started)
    alone = np.array(seconds["alone"])
    return {
        "device": jax.devices()[0].device_kind,
        "cores_allowed": available_cores(),
        "options": vars(options),
        "interval_seconds": {name: summary(values) for name, values in seconds.items()},
        "evaluation_seconds": {"alone": summary(lone), "beside": summary(in_background)},
        "cost": {name: summary(np.array(seconds[name]) / alone - 1) for name in seconds},
    }


def print_table(results):
    """Print what `run` returned."""
    options = results["options"]
    print(
        f"{results['device']}, {results['cores_allowed']} cores: {options['episodes']} episodes of "
        f"{options['env_name']} per seed ({options['num_seeds']}) every {options['updates']} "
        f"updates; an evaluation takes {results['evaluation_seconds']['alone']['median']:.1f} s "
        f"alone, {results['evaluation_seconds']['beside']['median']:.1f} s beside training"
    )
    print("| an interval | seconds (min to max) | evaluation's cost |\n|---|---|---|")
    titles = {"alone": "without", "beside": "in the background", "waiting": "waited for"}
    for name, title in titles.items():
        taken, cost = results["interval_seconds"][name], results["cost"][name]
        print(
            f"| {title} | {taken['median']:.1f} ({taken['min']:.1f} to {taken['max']:.1f}) | "
            f"{100 * cost['median']:.1f} % |"
        )


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.evaluation",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--env_name", default="cube-single-play", help="task whose environments are stepped")
    add("--agent", default="deflow", help="agent here, or path of an agent's file")
    add("--num_seeds", type=int, default=1, help="seeds trained together")
    add("--updates", type=int, default=100_000, help="updates from one evaluation to the next")
    add("--episodes", type=int, default=50, help="episodes per seed")
    add_settings(parser)
    add("--rounds", type=int, default=3, help="alternating rounds")
    add("--budget_seconds", type=float, help="begin no further round after about so long")
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
