"""Train a walker: ``python -m utils.collect.ant.train --agent=AGENT.py --seed=0 --output=FOLDER``.

An agent learns to walk in a given direction by online reinforcement learning, in `DirectionalAnt`.
The folder gets the best walker of all evaluations, `walker.npz`, and `evaluations.csv`.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from utils.agent_files import AgentFile, load_agent_file
from utils.collect import config as collect_config
from utils.collect.ant.episodes import Ants, evaluate
from utils.collect.ant.learner import Learner, actor_layers
from utils.collect.ant.walker import Walker
from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.errors import UserError
from utils.files import cannot_write, read_json
from utils.output import guard_stdout
from utils.report.csv_log import CsvLog
from utils.runs.signals import Signals

SETTINGS = Path(__file__).with_name("settings.json")
"""The agent's settings that the shipped walker was trained with; the others are its defaults."""

NUM_ENVS = 16
UPDATES_PER_ROUND = 2
RANDOM_STEPS = 10_000

WALKER = "walker.npz"
EVALUATIONS = "evaluations.csv"
PACKAGES = ("jax", *collect_config.PACKAGES)
"""Packages whose versions a walker's file names."""


def train(
    agent_path: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 400_000,
    eval_interval: int = 50_000,
    settings: str | Path = SETTINGS,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> bool:
    """Train an agent, and keep the best walker of the evaluations.

    Args:
        agent_path: The agent's file.
        output: Folder of the results; it must not hold any.
        seed: Of everything random.
        steps: Environment steps, the random ones included; rounded down to whole rounds.
        eval_interval: Steps between evaluations; the last step is evaluated too.
        settings: JSON file of the agent's settings that differ from its defaults.
        is_interrupted: Asked between steps; the training ends early where it says so.

    Returns:
        Whether the training came to its end.

    Raises:
        UserError: A file cannot be read or written, or the agent or its settings do not fit.
    """
    _check_numbers(steps, eval_interval, seed)
    folder = Path(output).expanduser()
    if any((folder / name).exists() for name in (WALKER, EVALUATIONS)):
        raise UserError(f"{folder} holds results already; remove them, or give another --output")
    agent_file = load_agent_file(agent_path)
    chosen = read_json(settings, "give a JSON object of settings of the agent")
    config = _config(agent_file, chosen, settings)
    _make(folder)
    facts = _facts(agent_file, config, seed, steps)
    rounds = steps // NUM_ENVS
    learner = Learner(
        agent_file.agent_class, config, _example(), seed=seed, capacity=rounds * NUM_ENVS
    )
    log = CsvLog(folder / EVALUATIONS)
    ants, rng = Ants(NUM_ENVS, seed), np.random.default_rng((seed, 1))
    best, began, actions = -np.inf, time.process_time(), np.zeros((NUM_ENVS, 8))
    for number in range(1, rounds + 1):
        if is_interrupted():
            return False
        step = number * NUM_ENVS
        updates = UPDATES_PER_ROUND
        if step <= RANDOM_STEPS:
            actions, updates = rng.uniform(-1, 1, (NUM_ENVS, 8)), 0
        actions = learner.step(ants.step(actions), ants.observations, updates)
        if step % eval_interval < NUM_ENVS or number == rounds:
            minutes = round((time.process_time() - began) / 60, 1)
            walker = Walker(actor_layers(learner.agent), facts | {"step": step})
            found = evaluate(walker)
            print(
                f"{step} steps, {minutes} core-minutes: {found.speed:.2f} m/s, {found.falls:.2f} "
                f"falls per 1,000 steps, {found.overturned:.0%} overturned",
                flush=True,
            )
            row = {"step": step, "core_minutes": minutes, **dataclasses.asdict(found)}
            log.append(row | learner.read_metrics())
            if found.speed > best:
                best = found.speed
                walker.save(folder / WALKER)
    return True


def _check_numbers(steps: int, eval_interval: int, seed: int) -> None:
    for name, value, least in (
        ("steps", steps, NUM_ENVS),
        ("eval_interval", eval_interval, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{name}={value} is too small; give at least {least}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _config(
    agent_file: AgentFile, chosen: dict[str, Any], settings: str | Path
) -> ml_collections.ConfigDict:
    """Return an agent's settings, checked, with those chosen in a file."""
    config = agent_file.config.copy_and_resolve_references()
    if unknown := sorted(set(chosen) - set(config)):
        raise UserError(
            f"{settings} sets {', '.join(unknown)}, which {agent_file.path} does not have; give "
            "the agent's own settings in a file (--settings)"
        )
    config.update({key: tuple(v) if isinstance(v, list) else v for key, v in chosen.items()})
    agent_file.check(config, online=True)
    return config


def _facts(
    agent_file: AgentFile, config: ml_collections.ConfigDict, seed: int, steps: int
) -> dict[str, Any]:
    """Return all that a walker depends on but the step that it was taken at."""
    return {
        "agent": agent_file.path.name,
        "settings": config.to_dict(),
        "seed": seed,
        "steps": steps,
        "num_envs": NUM_ENVS,
        "updates_per_round": UPDATES_PER_ROUND,
        "random_steps": RANDOM_STEPS,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _example() -> dict[str, np.ndarray]:
    """Return a batch of one row, of zeros."""
    observations, row = np.zeros((1, 27), np.float32), np.zeros(1, np.float32)
    return {
        "observations": observations,
        "actions": np.zeros((1, 8), np.float32),
        "next_observations": observations,
        "rewards": row,
        "masks": row,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect.ant.train",
        description=__doc__.split("\n\n", 1)[1],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--agent", required=True, help="the agent's file: a soft actor-critic that acts by tanh"
    )
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=400_000, help="environment steps (default: 400000)"
    )
    parser.add_argument(
        "--eval_interval", type=int, default=50_000, help="steps between them (default: 50000)"
    )
    parser.add_argument(
        "--settings",
        default=SETTINGS,
        help="JSON file of the agent's settings that differ from its defaults (default: those of "
        "the shipped walker)",
    )
    options = vars(parser.parse_args(arguments))
    enable_cpu_backend()
    enable_compilation_cache()
    folder = Path(options["output"]).expanduser()
    with Signals() as signals:
        signals.noted = signals.final = True
        try:
            finished = train(
                options.pop("agent"),
                options.pop("output"),
                is_interrupted=lambda: signals.received is not None,
                **options,
            )
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0 if finished else _say_interrupted(signals, folder)


def _say_interrupted(signals: Signals, folder: Path) -> int:
    """Say what is left of an interrupted training; return the exit code."""
    if not (folder / WALKER).exists():
        print(f"{signals.name}: nothing to save; the same command begins anew", file=sys.stderr)
        return signals.exit_code
    print(
        f"{signals.name}: interrupted; {folder} keeps the best walker so far. A training "
        "cannot be continued, and a new one needs another --output",
        file=sys.stderr,
    )
    # As a signal's end, not the code on which a scheduler gives the same command again.
    return 128 + signals.received


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
