"""Names of D4RL's tasks, and what each is known by.

A full name is D4RL's id, `antmaze-large-play-v2` for instance, and its short form has no version.
Importing this module costs nothing: no NumPy, no MuJoCo.
"""

import os
import re
from typing import NamedTuple


class Task(NamedTuple):
    """A task of D4RL.

    Attributes:
        horizon: Time limit of an episode, in steps.
        observation_size: Width of an observation.
        action_size: Width of an action.
        dataset_path: Path of the dataset's file below D4RL's server.
    """

    horizon: int
    observation_size: int
    action_size: int
    dataset_path: str


# Maze: its name in the files and its horizon.
_MAZES = {
    "umaze": ("u-maze", 700),
    "medium": ("big-maze", 1000),
    "large": ("hardest-maze", 1000),
}
# Suffix of the id: maze, and whether the data start anywhere and have many goals.
_MAZE_DATA = {
    "umaze": ("umaze", False, False),
    "umaze-diverse": ("umaze", True, True),
    "medium-play": ("medium", True, False),
    "medium-diverse": ("medium", True, True),
    "large-play": ("large", True, False),
    "large-diverse": ("large", True, True),
}
# Hand: horizon, widths of observations and actions.
_HANDS = {
    "pen": (100, 45, 24),
    "door": (200, 39, 28),
    "hammer": (200, 46, 26),
    "relocate": (200, 39, 30),
}

TASKS: dict[str, Task] = {
    f"antmaze-{data}-v2": Task(
        _MAZES[maze][1],
        29,
        8,
        f"ant_maze_v2/Ant_maze_{_MAZES[maze][0]}_noisy_multistart_{starts}_multigoal_{goals}"
        "_sparse_fixed.hdf5",
    )
    for data, (maze, starts, goals) in _MAZE_DATA.items()
} | {
    f"{hand}-{data}-v1": Task(*sizes, f"hand_dapg_v1/{hand}-{data}-v1.hdf5")
    for hand, sizes in _HANDS.items()
    for data in ("human", "cloned", "expert")
}
"""The tasks by id."""

_VERSION = re.compile(r"-v\d+$")
_BY_SHORT_NAME = {_VERSION.sub("", name): name for name in TASKS}


def resolve(env_name: str) -> str | None:
    """Return the id of a task, or None for a name of none here.

    `pen-cloned` becomes `pen-cloned-v1`. Another version than the known one is no task here,
    because its data and rewards are others.
    """
    return env_name if env_name in TASKS else _BY_SHORT_NAME.get(env_name)


def short_name(full_name: str) -> str:
    """Return the id without its version."""
    return _VERSION.sub("", full_name)


def is_antmaze(full_name: str) -> bool:
    """Return whether a task is one of the mazes."""
    return full_name.startswith("antmaze-")


def dataset_name(full_name: str) -> str:
    """Return the stem of the dataset's file."""
    return os.path.basename(TASKS[full_name].dataset_path).removesuffix(".hdf5")


def reward_shift(full_name: str) -> float:
    """Return what is added to every reward that an agent trains on.

    It is -1 for the antmazes, whose reward is 1 at the goal and 0 elsewhere.
    """
    return -1.0 if is_antmaze(full_name) else 0.0
