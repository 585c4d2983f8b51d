"""States of the dataset that a run was trained on."""

from typing import Any

import numpy as np

from utils.envs import tasks
from utils.frames import stack_frames
from utils.load_agent import LoadedAgents


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
    flags: dict[str, Any] = loaded.settings["flags"]
    folder = dataset_dir or flags["dataset_dir"]
    data, _ = tasks.load_datasets(loaded.settings["env_name"], folder)
    if frames := flags.get("frame_stack"):
        data = stack_frames(data, frames)
    observations = data["observations"]
    size = min(count, len(observations))
    rows = np.random.default_rng(seed).choice(len(observations), size, replace=False)
    return np.asarray(observations[np.sort(rows)])
