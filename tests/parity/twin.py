"""The twin: one agent trained by its own repository and by this library, on the same data.

What a comparison of updates cannot show passes through here: how rows are sampled, dispatches,
several seeds in one program, and evaluation. The repository's side is its own `Dataset`, its own
`evaluate` and the loop that its main.py has, with the environment and the data from here.
"""

import concurrent.futures
import functools
import inspect
import json
import operator
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from tests.parity.ours import our_file, our_settings
from tests.parity.own_loop import own_update
from utils.agent_files import load_agent_file
from utils.envs import tasks
from utils.isolated import load_isolated
from utils.report.csv_log import read_csv

ROOT = Path(__file__).resolve().parents[2]
RESAMPLES = 10_000
SIDES = ("own", "here", "together", "alone")


class Exploration:
    """Online learning from the first step on, half of each batch from the dataset (RLPD).

    Args:
        datasets: Their module of datasets.
        dataset: Their dataset.
        env: The environment that is explored.
        seed: Of the actions.
        steps: Environment steps that the replay holds.
    """

    def __init__(self, datasets, dataset, env, seed, steps):
        self.dataset, self.env = dataset, env
        example = {name: column[0] for name, column in dataset.items()}
        self.replay = datasets.ReplayBuffer.create(example, size=steps + 1)
        self.rng = jax.random.PRNGKey(seed)
        self.observation = None

    def sample(self, agent, batch_size):
        """Take a step of the environment, and return a batch."""
        if self.observation is None:
            self.observation, _ = self.env.reset()
        self.rng, key = jax.random.split(self.rng)
        action = np.array(agent.sample_actions(self.observation, seed=key, temperature=1))
        following, reward, terminated, truncated, _ = self.env.step(action.copy())
        ended = terminated or truncated
        transition = {
            "observations": self.observation,
            "actions": action,
            "rewards": reward,
            "terminals": float(ended),
            "masks": 1.0 - terminated,
            "next_observations": following,
        }
        self.replay.add_transition(transition)
        self.observation = None if ended else following
        halves = [source.sample(batch_size // 2) for source in (self.dataset, self.replay)]
        return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}


def train_theirs(path, settings, seed, options):
    """Train a repository's agent in its own way.

    Args:
        path: The agent's file.
        settings: Settings that differ from its own.
        seed: The seed.
        options: `env_name`, `dataset_dir`, `online`, `steps`, `interval` and `episodes`.

    Returns:
        Success rate by step.
    """
    import_module = load_isolated(path).import_module
    datasets = import_module("utils.datasets")
    evaluate = import_module("utils.evaluation").evaluate
    file = load_agent_file(path)
    config = file.config.copy_and_resolve_references()
    config.update(settings)
    name = tasks.resolve(options["env_name"])
    data, _ = tasks.load_datasets(name, options["dataset_dir"])
    config.update(file.agent_class.settings_from_data(data, config))
    np.random.seed(seed)
    dataset = datasets.Dataset.create(**data)
    dataset.return_next_actions = "next_actions" in file.agent_class.looked_up
    batch = dataset.sample(1)
    arguments = {"seed": seed, "config": config, "example_batch": batch}
    arguments |= {"ex_observations": batch["observations"], "ex_actions": batch["actions"]}
    create = file.agent_class.theirs.create
    agent = create(**{n: arguments[n] for n in inspect.signature(create).parameters})
    exploration = None
    if options["online"]:
        explored = tasks.make_env(name)
        exploration = Exploration(datasets, dataset, explored, seed, options["steps"])
    env, curve, size = tasks.make_env(name), {}, config["batch_size"]
    for step in range(1, options["steps"] + 1):
        batch = exploration.sample(agent, size) if exploration else dataset.sample(size)
        agent, _ = own_update(agent, batch, step)
        if step % options["interval"] == 0:
            keywords = {"agent": agent, "env": env, "config": config}
            keywords["num_eval_episodes"] = options["episodes"]
            taken = inspect.signature(evaluate).parameters
            found, *_ = evaluate(**{n: keywords[n] for n in taken if n in keywords})
            curve[step] = float(found["success"])
    return curve


def train_ours(path, settings, seeds, options, folder):
    """Train an agent here, for some seeds together; returns success rates by seed and step.

    Args:
        path: The agent's file.
        settings: Its settings.
        seeds: Consecutive seeds.
        options: As in `train_theirs`.
        folder: Where the run goes.
    """
    flags = {
        "env_name": options["env_name"],
        "dataset_dir": options["dataset_dir"],
        "eval_interval": options["interval"],
        "log_interval": options["interval"],
        "eval_episodes": options["episodes"],
        "save_dir": folder,
        "seed": seeds[0],
        "num_seeds": len(seeds),
        "wandb_mode": "disabled",
        "agent": path,
    } | {f"agent.{name}": value for name, value in settings.items()}
    program = "main.py"
    lengths = {"offline_steps": options["steps"]}
    if options["online"]:
        program = "online_main.py"
        lengths = {"offline_steps": 0, "online_steps": options["steps"], "balanced_sampling": True}
    flags |= lengths
    command = [sys.executable, program, *(f"--{name}={value}" for name, value in flags.items())]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (found,) = Path(folder).glob(f"*/*{path.stem}*/sd{seeds[0]:03d}*/eval.csv")
    curves = {seed: {} for seed in seeds}
    for row in read_csv(found):
        if row["step"]:
            curves[row["seed"]][row["step"]] = row["success"]
    return curves


def interval(values, seed=0):
    """The mean of seeds' values in percent, and its bootstrap interval of 95 %."""
    values = 100 * np.asarray(values)
    rows = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    return (values.mean(), *np.percentile(values[rows].mean(axis=1), [2.5, 97.5]))


def apart(first, second, seed=0):
    """The difference of two sets of seeds in percent, and its bootstrap interval of 95 %."""
    rng = np.random.default_rng(seed)
    means = []
    for values in (first, second):
        rows = rng.integers(0, len(values), (RESAMPLES, len(values)))
        means.append(100 * np.asarray(values)[rows].mean(axis=1))
    difference = 100 * (np.mean(first) - np.mean(second))
    return (difference, *np.percentile(means[0] - means[1], [2.5, 97.5]))


def table(sides):
    """The lines of a Markdown table of curves, and of the differences from the first side.

    Args:
        sides: By name, success rates by seed and step.
    """
    names = list(sides)
    lines = [f"| updates | {' | '.join(names)} |", "|---:" * (1 + len(names)) + "|"]

    def shown(numbers):
        mean, low, high = numbers
        return f"{mean:.1f} ({low:.1f} to {high:.1f})"

    steps = sorted(next(iter(sides[names[0]].values())))
    for step in steps:
        cells = [shown(interval([c[step] for c in sides[name].values()])) for name in names]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    scores = {
        name: [np.mean([curve[step] for step in steps[-3:]]) for curve in sides[name].values()]
        for name in names
    }
    cells = [shown(interval(scores[name])) for name in names]
    lines.append(f"| last {len(steps[-3:])} | {' | '.join(cells)} |")
    cells = [shown(apart(scores[name], scores[names[0]])) for name in names[1:]]
    lines.append(f"| less the first | | {' | '.join(cells)} |")
    return lines


def learn(path, settings, seeds, options, folder, workers, wanted=SIDES):
    """Train all sides, and return success rates by name of the side, seed and step.

    Args:
        path: Their agent's file. This library's is the one of the same algorithm, if it has one.
        settings: Settings that both have.
        seeds: Number of seeds.
        options: As in `train_theirs`.
        folder: Where runs go.
        workers: Processes at a time.
        wanted: Of `SIDES`.
    """
    numbers, sides = list(range(seeds)), {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        if "own" in wanted:
            theirs = pool.map(functools.partial(_in_a_process, path, settings, options), numbers)
            sides["its own loop"] = dict(zip(numbers, theirs, strict=True))
        if "here" in wanted:
            sides["its file here"] = train_ours(path, settings, numbers, options, folder)
        if (twin := our_file(path)) is None:
            return sides
        shared = our_settings(twin, load_agent_file(path).config.to_dict() | settings)
        if "together" in wanted:
            sides["ours, together"] = train_ours(
                twin, shared, numbers, options, folder / "together"
            )
        if "alone" in wanted:
            alone = pool.map(
                lambda number: train_ours(twin, shared, [number], options, folder / "alone"),
                numbers,
            )
            sides["ours, one by one"] = functools.reduce(operator.or_, alone)
    return sides


def _in_a_process(path, settings, options, seed):
    """Train one seed of theirs in a process of its own."""
    command = [sys.executable, "-m", "tests.parity.twin"]
    command.append(json.dumps([str(path), settings, seed, options]))
    done = subprocess.run(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
    done.check_returncode()
    return {int(step): rate for step, rate in json.loads(done.stdout.splitlines()[-1]).items()}


if __name__ == "__main__":
    file, changed, number, given = json.loads(sys.argv[1])
    changed = {key: tuple(x) if isinstance(x, list) else x for key, x in changed.items()}
    print(json.dumps(train_theirs(Path(file), changed, number, given)))
