"""OGBench as a suite, see `utils.envs.tasks`."""

import os
from pathlib import Path
from typing import Any

from utils.envs.ogbench import collection
from utils.envs.ogbench.data import DEFAULT_DATASET_DIR, load_datasets
from utils.envs.ogbench.environments import make_env
from utils.envs.ogbench.names import (
    DATASETS,
    FAMILIES,
    NUM_TASKS,
    dataset_name,
    is_visual,
    numbered,
    resolve,
    short_name,
)

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

NAMES = DATASETS

# The tasks of published comparisons: all five of each of ten datasets, one of each of five with
# images, and the default ones of five that are also trained online.
_STATES = (
    "antmaze-large-navigate",
    "antmaze-giant-navigate",
    "humanoidmaze-medium-navigate",
    "humanoidmaze-large-navigate",
    "antsoccer-arena-navigate",
    "cube-single-play",
    "cube-double-play",
    "scene-play",
    "puzzle-3x3-play",
    "puzzle-4x4-play",
)
_PIXELS = (
    "visual-cube-single-play",
    "visual-cube-double-play",
    "visual-scene-play",
    "visual-puzzle-3x3-play",
    "visual-puzzle-4x4-play",
)
_ONLINE = (
    "humanoidmaze-medium-navigate",
    "antsoccer-arena-navigate",
    "cube-double-play",
    "scene-play",
    "puzzle-4x4-play",
)

HELP = (
    "OGBench's, which look like cube-single-play or antmaze-large-navigate-task2, with the "
    f"families {', '.join(FAMILIES)}"
)


def has_env(full_name: str) -> bool:
    """Return True: every task has an environment."""
    return True


def dataset_files(full_name: str, dataset_dir: str | os.PathLike | None = None) -> list[Path]:
    """Return the file of the training data and that of the validation data."""
    directory, stem = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser(), dataset_name(full_name)
    return [directory / f"{stem}.npz", directory / f"{stem}-val.npz"]


def collection_command(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[list[str], str]:
    """Return the arguments of `utils.collect`, and about how long it takes.

    Raises:
        UserError: The dataset cannot be collected, or one of its files is there without the other.
    """
    found = collection.arguments(full_name, dataset_dir), collection.expected_time(full_name)
    collection.refuse_one_of_two(*dataset_files(full_name, dataset_dir))
    return found


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
    """Return the five tasks of each dataset, by its name, and those of published comparisons."""
    numbers = range(1, NUM_TASKS + 1)
    datasets = {
        dataset: [f"{dataset}-singletask-task{number}-v0" for number in numbers]
        for dataset in DATASETS
    }
    return datasets | {
        "ogbench-states": [name for dataset in _STATES for name in datasets[dataset]],
        "ogbench-pixels": [datasets[dataset][0] for dataset in _PIXELS],
        "ogbench-online": [numbered(f"{dataset}-singletask-v0") for dataset in _ONLINE],
    }
