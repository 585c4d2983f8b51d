"""The dataset that a run was trained on, and states of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from utils.envs import tasks
from utils.frames import stack_frames
from utils.load_agent import LoadedAgents


def training_data(settings: Mapping[str, Any], dataset_dir: str | None = None) -> Mapping[str, Any]:
    """Return the training transitions of a run, observations as its agent gets them.

    Args:
        settings: Those of the run.
        dataset_dir: Folder of the data; by default that of the run.

    Raises:
        UserError: The data cannot be found.
    """
    flags = settings["flags"]
    data, _ = tasks.load_datasets(settings["env_name"], dataset_dir or flags["dataset_dir"])
    frames = flags.get("frame_stack")
    return stack_frames(data, frames) if frames else data


def dataset_states(
    loaded: LoadedAgents, count: int, dataset_dir: str | None = None, seed: int = 0
) -> np.ndarray:
    """Return states at random rows of a run's training data.

    Args:
        loaded: The run's agents.
        count: How many; all, if there are fewer.
        dataset_dir: Folder of the data; by default that of the run.
        seed: Of the choice.

    Returns:
        Observations (count, ...) of different rows, in the order of the data.

    Raises:
        UserError: The data cannot be found.
    """
    observations = training_data(loaded.settings, dataset_dir)["observations"]
    size = min(count, len(observations))
    rows = np.random.default_rng(seed).choice(len(observations), size, replace=False)
    return np.asarray(observations[np.sort(rows)])
