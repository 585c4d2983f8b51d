"""Environment steps per second of the D4RL tasks on one core, with random actions.

Tasks of one family (`-human`, `-cloned` and `-expert`, or `-play` and `-diverse`) are the same
environment, so one of each is measured. An environment runs in one thread, whose own time is what
is measured, so what else the machine does counts little; the rounds of all tasks alternate.
"""

import argparse
import os
import time
from statistics import median

import numpy as np

from utils.envs import tasks

TASKS = (
    "antmaze-umaze-v2",
    "antmaze-medium-play-v2",
    "antmaze-large-play-v2",
    "pen-human-v1",
    "door-human-v1",
    "hammer-human-v1",
    "relocate-human-v1",
)


def measure(env, steps):
    """Return steps per second over `steps` steps, resets included."""
    random = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    actions = random.uniform(low, high, (steps, *low.shape)).astype(np.float32)
    env.reset(seed=0)
    start = time.thread_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return steps / (time.thread_time() - start)


def main(arguments=None):
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.env_speed")
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all tasks")
    parser.add_argument("--steps", type=int, default=2000, help="steps per round and task")
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    envs = {name: tasks.make_env(name) for name in TASKS}
    rates = {name: [] for name in TASKS}
    for _ in range(options.rounds):
        for name, env in envs.items():
            rates[name].append(measure(env, options.steps))
    print("| task | steps/s (median) | min | max |\n|---|---:|---:|---:|")
    for name, values in rates.items():
        print(f"| {name} | {median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")


if __name__ == "__main__":
    main()
