"""Environment steps per second of online training, beside the plain order of acting and learning.

Both sides train DeFlow from the same parameters and keys, on the same task with the same seeds of
its episodes, and sample the same rows of the same transitions, so that they compute the same
numbers in the same order; that is checked before anything is timed. One step, with one update, is

- in the plain order: a key is made and a dispatch acts with it, the environment steps in this
  process, the transition is written into a preallocated NumPy ring that begins with the dataset,
  rows are sampled and NumPy gathers a batch of them, and a dispatch updates the donated agent.
  Nothing is logged: what a training loop does besides is free of charge here;
- in this library: `utils.online.TrainingEnvs` steps the environment, and one dispatch of
  `utils.online.OnlineTrainer` inserts, samples, updates and chooses the next action.

On a CPU the library compiles with options of its own (`utils.training.compiler_options`). The
plain order is measured with XLA's defaults, as it would be written, and with the library's options,
which leaves the order alone as the difference.

All sides are timed in one process in alternating rounds, so that whatever else the machine does
hits all alike.
"""

import argparse
import functools
import json
import os
import time
from statistics import median

import jax
import ml_collections
import numpy as np

from agents import deflow
from tests.benchmarks.throughput import random_transitions, timed
from utils.columns import TRANSITION_COLUMNS
from utils.cores import available_cores
from utils.datasets import DeviceDataset, example_batch
from utils.envs import tasks
from utils.online import OnlineState, OnlineTrainer, TrainingEnvs, episode_seeds
from utils.replay import Replay
from utils.sampling import sample_rows
from utils.training import Trainer, TrainingState, compiler_options, create_agents, seed_keys

SEEDS = np.arange(1)


class Problem:
    """What all sides share: the task, the data to begin with, and the agent's settings."""

    def __init__(self, options, hidden_dims):
        self.make_env = functools.partial(tasks.make_env, tasks.resolve(options.env_name))
        env = self.make_env()
        sizes = env.observation_space.shape[0], env.action_space.shape[0]
        self.batch_size = options.batch_size
        self.transitions = random_transitions(options.dataset_size, *sizes)
        self.example = example_batch(self.transitions, options.batch_size)
        settings = deflow.get_config()
        settings.update(
            batch_size=options.batch_size,
            actor_hidden_dims=hidden_dims,
            value_hidden_dims=hidden_dims,
            flow_steps=options.flow_steps,
        )
        self.config = ml_collections.FrozenConfigDict(settings)
        self.dataset_size = options.dataset_size
        # One more round, the first, is not counted.
        self.num_steps = options.check_steps + (1 + options.rounds) * options.steps
        # The first episode begins so late in itself that its end falls into the check.
        length = max(env.spec.max_episode_steps - options.check_steps // 2, 0)
        random = np.random.default_rng(0)
        self.first_actions = random.uniform(-1, 1, (length, sizes[1])).astype(np.float32)

    def agents(self):
        """Create the agent, in buffers of its own, with the member axis."""
        return create_agents(deflow.DeFlowAgent, SEEDS, self.example, self.config)

    def online(self):
        """Make trainer, state and ring of the library."""
        replay = Replay(
            DeviceDataset(self.transitions, self.batch_size).arrays,
            capacity=self.dataset_size + self.num_steps,
            batch_size=self.batch_size,
            num_members=1,
            max_inserts=self.num_steps,
        )
        state = OnlineState.create(self.agents(), SEEDS, self.example)
        return OnlineTrainer(replay, start=0), state, replay.empty()


class PlainLoop:
    """The plain order: one dispatch to act and one to update."""

    def __init__(self, problem, name, options):
        self.name = name
        self.agent = jax.tree.map(lambda leaf: leaf[0], problem.agents())
        self.data_key, self.noise_key, self.exploration_key = (
            seed_keys(SEEDS, stream)[0] for stream in ("data", "noise", "exploration")
        )
        self.batch_size = problem.batch_size
        self.size = problem.dataset_size
        self.capacity = self.size + problem.num_steps
        self.ring = {}
        for key in TRANSITION_COLUMNS:
            array = problem.transitions[key]
            self.ring[key] = np.zeros((self.capacity, *array.shape[1:]), array.dtype)
            self.ring[key][: self.size] = array

        @functools.partial(jax.jit, compiler_options=options)
        def act(agent, observation, key):
            return agent.sample_actions(observation, key)

        @jax.jit
        def sample(key, step, size):
            return sample_rows(jax.random.fold_in(key, step), self.batch_size, size)

        @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
        def update(agent, batch, key, step):
            return agent.update(batch, jax.random.fold_in(key, step))

        self.act, self.sample, self.update = act, sample, update
        self.step = self.episode = 0
        self.environment_seconds = 0.0
        self.env = problem.make_env()
        self.reset()
        for action in problem.first_actions:
            self.observation = self.env.step(action)[0].astype(np.float32)

    def reset(self):
        """Begin an episode."""
        (seed,) = episode_seeds(seed_keys(SEEDS, "environment"), np.array([self.episode]))
        self.observation = self.env.reset(seed=int(seed))[0].astype(np.float32)

    def advance(self, num_steps):
        """Take environment steps and wait for the last update."""
        ring = self.ring
        for _ in range(num_steps):
            key = jax.random.fold_in(self.exploration_key, self.step)
            action = np.asarray(self.act(self.agent, self.observation, key))
            started = time.perf_counter()
            observation, reward, terminated, truncated, _ = self.env.step(action)
            self.environment_seconds += time.perf_counter() - started
            observation = observation.astype(np.float32)

            slot = self.size % self.capacity
            ring["observations"][slot] = self.observation
            ring["actions"][slot] = action
            ring["next_observations"][slot] = observation
            ring["rewards"][slot] = reward
            ring["masks"][slot] = 1.0 - terminated
            self.size += 1
            self.observation = observation
            if terminated or truncated:
                self.episode += 1
                self.reset()

            rows = np.asarray(self.sample(self.data_key, self.step, self.size))
            batch = {key: array[rows] for key, array in ring.items()}
            self.agent, self.metrics = self.update(self.agent, batch, self.noise_key, self.step)
            self.step += 1
        self.last = action, reward
        jax.block_until_ready(self.agent)

    def record(self):
        """Return action, reward and losses of the last step."""
        return *self.last, {name: float(value) for name, value in self.metrics.items()}


class LibraryLoop:
    """This library, as `online_main.py` runs it."""

    name = "library"

    def __init__(self, problem):
        self.trainer, self.state, self.ring = problem.online()
        self.environment_seconds = 0.0
        self.envs = TrainingEnvs(problem.make_env, seed_keys(SEEDS, "environment"))
        observations = self.envs.reset(actions=[problem.first_actions])
        self.state = self.trainer.reset(self.state, observations)

    def advance(self, num_steps):
        """Take environment steps and wait for the last update."""
        for _ in range(num_steps):
            actions = np.asarray(self.state.actions)
            started = time.perf_counter()
            outcome, _ = self.envs.step(actions)
            self.environment_seconds += time.perf_counter() - started
            self.state, self.ring = self.trainer.step(self.state, self.ring, outcome)
        self.last = actions[0], outcome["rewards"][0]
        jax.block_until_ready(self.state)

    def record(self):
        """Return action, reward and losses of the last step; to be called at every step."""
        losses = {name: float(value[0]) for name, value in self.state.mean_metrics().items()}
        self.state = self.state.reset_metrics()
        return *self.last, losses


class IdleLoop:
    """The library's dispatch with the insertion and the next action, but no update."""

    name = "library without updates"

    def __init__(self, problem):
        self.trainer, self.state, self.ring = problem.online()
        self.trainer.utd = 0
        observations = np.zeros(self.state.observations.shape, np.float32)
        numbers = np.ones(1, np.float32)
        self.outcome = {"rewards": numbers, "masks": numbers, "terminals": 1 - numbers}
        self.outcome |= {"observations": observations, "next_observations": observations}
        self.state = self.trainer.reset(self.state, observations)

    def advance(self, num_steps):
        """Do dispatches, each waited for."""
        for _ in range(num_steps):
            np.asarray(self.state.actions)
            self.state, self.ring = self.trainer.step(self.state, self.ring, self.outcome)
        jax.block_until_ready(self.state)


class UpdateLoop:
    """The updates alone, on the data to begin with, all of a round in one dispatch."""

    name = "updates alone"

    def __init__(self, problem):
        self.state = TrainingState.create(problem.agents(), SEEDS, problem.example)
        self.trainer = Trainer(DeviceDataset(problem.transitions, problem.batch_size), 1)

    def advance(self, num_steps):
        """Do as many updates and wait for them."""
        self.state = self.trainer.update(self.state, num_steps)


def compare(library, plain_loops, num_steps):
    """Take steps on all sides and compare what they did.

    Returns:
        By loop of the plain order, the largest differences between its actions, rewards, and losses
        (relative to 1 + |loss|) and the library's.

    Raises:
        AssertionError: They are not the same but for rounding.
    """
    largest = {
        plain.name: dict.fromkeys(("actions", "rewards", "losses"), 0.0) for plain in plain_loops
    }
    for _ in range(num_steps):
        for loop in (library, *plain_loops):
            loop.advance(1)
        action, reward, losses = library.record()
        for plain in plain_loops:
            plain_action, plain_reward, plain_losses = plain.record()
            assert losses.keys() == plain_losses.keys()
            differences = {
                "actions": np.abs(action - plain_action).max(),
                "rewards": abs(reward - plain_reward),
                "losses": max(
                    abs(losses[name] - loss) / (1 + abs(loss))
                    for name, loss in plain_losses.items()
                ),
            }
            so_far = largest[plain.name]
            for name, difference in differences.items():
                so_far[name] = max(so_far[name], float(difference))
            assert max(so_far.values()) < 1e-3, f"{plain.name} and {library.name} differ: {so_far}"
    return largest


def measure(options, hidden_dims):
    """Check and time all sides for networks of one size; return one entry of what --json has."""
    problem = Problem(options, hidden_dims)
    library = LibraryLoop(problem)
    plain = PlainLoop(problem, "plain order", None)
    plain_loops = [plain]
    if compiler_options():
        name = "plain order, the library's compiler options"
        plain_loops.append(PlainLoop(problem, name, compiler_options()))
    agreement = compare(library, plain_loops, options.check_steps)
    episodes = int(library.envs.episodes[0])
    loops = [*plain_loops, library, IdleLoop(problem), UpdateLoop(problem)]

    seconds = {loop.name: [] for loop in loops}
    for i in range(options.rounds + 1):
        if i == 1:  # the first round compiled, and is not counted
            plain.environment_seconds = library.environment_seconds = 0.0
        for loop in loops if i % 2 else reversed(loops):
            wall, _ = timed(loop.advance, options.steps)
            seconds[loop.name].append(wall / options.steps)
    library.envs.close()

    seconds = {name: values[1:] for name, values in seconds.items()}
    sides = {}
    for loop in loops:
        ratios = np.divide(seconds[plain.name], seconds[loop.name])
        sides[loop.name] = {
            "seconds_per_step": {
                "median": median(seconds[loop.name]),
                "min": min(seconds[loop.name]),
                "max": max(seconds[loop.name]),
                "rounds": seconds[loop.name],
            },
            "ratio_of_medians": median(seconds[plain.name]) / median(seconds[loop.name]),
            "median_of_ratios": median(ratios.tolist()),
        }
    total = options.rounds * options.steps
    environment = plain.environment_seconds / total
    exploration = library.environment_seconds / total
    medians = {name: side["seconds_per_step"]["median"] for name, side in sides.items()}
    whole, update = medians[LibraryLoop.name], medians[UpdateLoop.name]
    idle = medians[IdleLoop.name]
    return {
        "hidden_dims": hidden_dims,
        "largest_differences": agreement,
        "episodes_ended_in_check": episodes,
        "sides": sides,
        "library_step": {
            "whole": whole,
            "update": update,
            "environment": environment,
            "TrainingEnvs beside it": exploration - environment,
            "insertion, action and dispatch": idle,
            "rest": whole - update - exploration - idle,
        },
    }


def print_table(result):
    """Print what `measure` returned."""
    sizes = "x".join(map(str, result["hidden_dims"]))
    print(f"\nhidden layers {sizes}; largest differences from the library before the timing:")
    for side, differences in result["largest_differences"].items():
        listed = ", ".join(f"{name} {value:.0e}" for name, value in differences.items())
        print(f"  {side}: {listed}")
    columns = ("steps/s", "min", "max", "ms/step", "ratio of medians", "median ratio")
    rows = [("", *columns)]
    for name, side in result["sides"].items():
        times = side["seconds_per_step"]
        rates = [1 / times[key] for key in ("median", "max", "min")]
        ratios = [side[key] for key in ("ratio_of_medians", "median_of_ratios")]
        rows.append(
            (
                name,
                *(f"{rate:.0f}" for rate in rates),
                f"{1e3 * times['median']:.3f}",
                *(f"{ratio:.2f}" for ratio in ratios),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    parts = {name: 1e3 * value for name, value in result["library_step"].items()}
    whole, update = parts.pop("whole"), parts.pop("update")
    listed = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
    print(
        f"a step of the library takes {whole:.3f} ms, {whole - update:.3f} ms "
        f"({100 * (whole / update - 1):.0f}%) more than its update alone: {listed}"
    )


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.online",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(name, text, **kwargs):
        default = kwargs.get("default")
        parser.add_argument(name, help=text if default is None else f"{text} ({default})", **kwargs)

    add("--env_name", "task", default="pointmaze-medium-navigate")
    add("--networks", "widths of all networks", nargs="+", default=["64x64", "256x256x256"])
    add("--batch_size", "transitions per update", type=int, default=256)
    add("--flow_steps", "Euler steps of the base flow", type=int, default=10)
    add("--dataset_size", "random transitions to begin with", type=int, default=100_000)
    add("--check_steps", "steps over which the sides are compared", type=int, default=100)
    add("--rounds", "alternating rounds", type=int, default=11)
    add("--steps", "environment steps per round", type=int, default=100)
    add("--cores", "restrict the process to this many cores (Linux)", type=int)
    add("--json", "also write the results to this file", metavar="PATH")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    if options.cores:
        # JAX sizes its thread pool by this when it first computes, which is later than here.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    print(
        f"{jax.default_backend()} ({jax.devices()[0].device_kind}), {available_cores()} core(s) "
        f"allowed, jax {jax.__version__}; {options.env_name}, batches of {options.batch_size}, "
        f"{options.rounds} alternating rounds of {options.steps} steps"
    )
    results = []
    for network in options.networks:
        results.append(measure(options, tuple(map(int, network.split("x")))))
        print_table(results[-1])
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"options": vars(options), "networks": results}, file, indent=2)


if __name__ == "__main__":
    main()
