"""D4RL as a suite, see `utils.envs.tasks`."""

import os
from pathlib import Path
from typing import Any

from utils.envs.d4rl.data import dataset_path, load_datasets
from utils.envs.d4rl.environments import make_env
from utils.envs.d4rl.names import TASKS, is_antmaze, resolve, reward_shift, short_name
from utils.errors import UserError

__all__ = [
    "HELP",
    "NAMES",
    "collection_command",
    "dataset_files",
    "groups",
    "has_env",
    "load_datasets",
    "make_env",
    "numbered",
    "prescribed",
    "protocol",
    "resolve",
    "reward_shift",
    "short_name",
]

NAMES = tuple(TASKS)

HELP = f"D4RL's {', '.join(TASKS)}"


def numbered(full_name: str) -> str:
    """Return the id: a task has no other name."""
    return full_name


def has_env(full_name: str) -> bool:
    """Return True: every task has an environment."""
    return True


def dataset_files(full_name: str, dataset_dir: str | os.PathLike | None = None) -> list[Path]:
    """Return the task's one file."""
    return [dataset_path(full_name, dataset_dir)]


def collection_command(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[list[str], str]:
    """Raise UserError: people and trained policies made these data."""
    raise UserError(
        f"the dataset of {full_name} cannot be collected locally, only OGBench's can; leave out "
        "--collect_missing to have it downloaded"
    )


def prescribed(full_name: str) -> dict[str, Any]:
    """Return the number of updates."""
    return {"offline_steps": 500_000}


def protocol(full_name: str) -> dict[str, Any]:
    """Return D4RL's protocol: the normalized return of the last evaluation."""
    return {"metric": "normalized_return", "evaluations": 1}


def groups() -> dict[str, list[str]]:
    """Return all ids, those of the mazes and of the hand, and those that are trained online."""
    mazes = [name for name in TASKS if is_antmaze(name)]
    hand = [name for name in TASKS if not is_antmaze(name)]
    return {
        "d4rl": [*mazes, *hand],
        "d4rl-antmaze": mazes,
        "d4rl-adroit": hand,
        "d4rl-online": [*mazes, *(name for name in hand if "-cloned-" in name)],
    }
