"""OGBench as a suite, see `utils.envs.tasks`."""

from typing import Any

from utils.envs.ogbench.data import load_datasets
from utils.envs.ogbench.environments import make_env
from utils.envs.ogbench.names import (
    DATASETS,
    FAMILIES,
    NUM_TASKS,
    is_visual,
    resolve,
    short_name,
)

__all__ = [
    "HELP",
    "NAMES",
    "groups",
    "has_env",
    "load_datasets",
    "make_env",
    "prescribed",
    "protocol",
    "resolve",
    "reward_shift",
    "short_name",
]

NAMES = DATASETS

HELP = (
    "OGBench's, which look like cube-single-play or antmaze-large-navigate-task2, with the "
    f"families {', '.join(FAMILIES)}"
)


def has_env(full_name: str) -> bool:
    """Return True: every task has an environment."""
    return True


def reward_shift(full_name: str) -> float:
    """Return 0: agents train on the rewards as they are."""
    return 0.0


def prescribed(full_name: str) -> dict[str, Any]:
    """Return the number of updates and the settings for images."""
    if is_visual(full_name):
        return {
            "offline_steps": 500_000,
            "encoder": "impala_small",
            "p_aug": 0.5,
            "frame_stack": 3,
        }
    return {"offline_steps": 1_000_000}


def protocol(full_name: str) -> dict[str, Any]:
    """Return the protocol: success, the mean of three evaluations."""
    return {"metric": "success", "evaluations": 3}


def groups() -> dict[str, list[str]]:
    """Return the five tasks of each dataset, by its name."""
    numbers = range(1, NUM_TASKS + 1)
    return {
        dataset: [f"{dataset}-singletask-task{number}-v0" for number in numbers]
        for dataset in DATASETS
    }
