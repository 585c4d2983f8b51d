"""Every task's environment and dataset, whichever suite it belongs to.

Suites are imported when they are asked for: what one of them needs, the others do without.
"""

import os

import gymnasium
import numpy as np

from utils.envs import names


def make_env(full_name: str) -> gymnasium.Env:
    """Makes a task's environment, whose episodes are functions of the seed and the actions alone.

    Args:
        full_name: Full name, see `utils.envs.names.resolve`.

    Returns:
        The environment, with its official time limit and unshifted rewards.

    Raises:
        UserError: Something that the environment needs is missing or has the wrong version.
    """
    if names.is_d4rl(full_name):
        from utils.envs.d4rl import suite
    else:
        from utils.envs import ogbench as suite
    return suite.make_env(full_name)


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loads the training and validation transitions of a task, downloading files when missing.

    Args:
        full_name: Full name, see `utils.envs.names.resolve`.
        dataset_dir: Folder of the files; the suite's own by default.

    Returns:
        Two dictionaries of arrays with n rows each: `observations` and `next_observations`
        (float32, images uint8), `actions` (float32, within +-(1 - 1e-5)), `rewards` (as agents
        train on them), `masks` and `terminals` (float32, (n,)).

    Raises:
        UserError: A file can neither be found nor downloaded, or is not a valid dataset.
    """
    if names.is_d4rl(full_name):
        from utils.envs.d4rl import data as suite
    else:
        from utils.envs import ogbench as suite
    return suite.load_datasets(full_name, dataset_dir)
