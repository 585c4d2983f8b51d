"""Names of OGBench and D4RL tasks: short forms, full names, files and suggestions.

A full name of OGBench is `<family>-<kind>-singletask[-task<n>]-v0`, where the family is an
environment (`cube-single`), the kind says how its dataset was collected (`play`) and a missing task
number means the family's default task. A full name of D4RL is its id, `antmaze-large-play-v2` for
instance. Importing this module costs nothing: no NumPy, no MuJoCo.
"""

import difflib
import os
import re
import shlex
from typing import NamedTuple

from utils.errors import UserError

NUM_TASKS = 5

_MAZE_KINDS = ("navigate", "stitch")
_ANT_KINDS = ("navigate", "stitch", "explore")
_ARM_KINDS = ("play", "noisy")

# (prefix, variants, kinds). Each line stands for a block of ogbench's registrations.
_TABLE = (
    ("pointmaze", ("medium", "large", "giant", "teleport"), _MAZE_KINDS),
    ("antmaze", ("medium", "large", "teleport"), _ANT_KINDS),
    ("antmaze", ("giant",), _MAZE_KINDS),
    ("humanoidmaze", ("medium", "large", "giant", "teleport"), _MAZE_KINDS),
    ("antsoccer", ("arena", "medium"), _MAZE_KINDS),
    ("cube", ("single", "double", "triple", "quadruple", "octuple"), _ARM_KINDS),
    ("scene", (None,), _ARM_KINDS),
    ("puzzle", ("3x3", "4x4", "4x5", "4x6"), _ARM_KINDS),
    ("visual-antmaze", ("medium", "large", "teleport"), _ANT_KINDS),
    ("visual-antmaze", ("giant",), _MAZE_KINDS),
    ("visual-humanoidmaze", ("medium", "large", "giant", "teleport"), _MAZE_KINDS),
    ("visual-cube", ("single", "double", "triple", "quadruple"), _ARM_KINDS),
    ("visual-scene", (None,), _ARM_KINDS),
    ("visual-puzzle", ("3x3", "4x4", "4x5", "4x6"), _ARM_KINDS),
)

FAMILIES: dict[str, tuple[str, ...]] = {
    prefix if variant is None else f"{prefix}-{variant}": kinds
    for prefix, variants, kinds in _TABLE
    for variant in variants
}
"""Every single-task family with the kinds of dataset it comes with."""


class D4RLTask(NamedTuple):
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
_D4RL_MAZES = {
    "umaze": ("u-maze", 700),
    "medium": ("big-maze", 1000),
    "large": ("hardest-maze", 1000),
}
# Suffix of the id: maze, and whether the data start anywhere and have many goals.
_D4RL_MAZE_DATA = {
    "umaze": ("umaze", False, False),
    "umaze-diverse": ("umaze", True, True),
    "medium-play": ("medium", True, False),
    "medium-diverse": ("medium", True, True),
    "large-play": ("large", True, False),
    "large-diverse": ("large", True, True),
}
# Hand: horizon, widths of observations and actions.
_D4RL_HANDS = {
    "pen": (100, 45, 24),
    "door": (200, 39, 28),
    "hammer": (200, 46, 26),
    "relocate": (200, 39, 30),
}

D4RL_TASKS: dict[str, D4RLTask] = {
    f"antmaze-{data}-v2": D4RLTask(
        _D4RL_MAZES[maze][1],
        29,
        8,
        f"ant_maze_v2/Ant_maze_{_D4RL_MAZES[maze][0]}_noisy_multistart_{starts}_multigoal_{goals}"
        "_sparse_fixed.hdf5",
    )
    for data, (maze, starts, goals) in _D4RL_MAZE_DATA.items()
} | {
    f"{hand}-{data}-v1": D4RLTask(*sizes, f"hand_dapg_v1/{hand}-{data}-v1.hdf5")
    for hand, sizes in _D4RL_HANDS.items()
    for data in ("human", "cloned", "expert")
}
"""The tasks of D4RL by id."""

_DATASETS = [f"{family}-{kind}" for family, kinds in FAMILIES.items() for kind in kinds]
_PATTERN = re.compile(r"(?P<dataset>.+?)(?:-singletask)?(?:-task(?P<task>\d+))?(?:-v0)?")
_VERSION = re.compile(r"-v\d+$")
_D4RL_SHORT = {_VERSION.sub("", name): name for name in D4RL_TASKS}


def is_d4rl(full_name: str) -> bool:
    """Returns whether a full name is one of D4RL's."""
    return full_name in D4RL_TASKS


def reward_shift(full_name: str) -> float:
    """Returns what is added to every reward that an agent trains on, offline and online.

    It is -1 for D4RL's antmazes, whose reward is 1 at the goal and 0 elsewhere. Scores are those of
    the unshifted reward.
    """
    return -1.0 if is_d4rl(full_name) and full_name.startswith("antmaze-") else 0.0


def resolve(env_name: str) -> str:
    """Returns the full name for a short or full name of a task.

    `antmaze-large-navigate` becomes `antmaze-large-navigate-singletask-v0` and
    `cube-double-play-task3` becomes `cube-double-play-singletask-task3-v0`; the suffix `-v0` is
    optional and full names pass through. D4RL's `pen-cloned` becomes `pen-cloned-v1`; another
    version than the known one is refused, because its data and rewards are others.

    Args:
        env_name: Name as the user typed it.

    Returns:
        The full name.

    Raises:
        UserError: The name is unknown; the message lists the nearest ones.
    """
    if is_d4rl(env_name) or env_name in _D4RL_SHORT:
        return _D4RL_SHORT.get(env_name, env_name)
    match = _PATTERN.fullmatch(env_name)
    if match is None or match["dataset"] not in _DATASETS:
        raise UserError(_unknown(env_name))
    dataset, task = match["dataset"], match["task"]
    if task is None:
        return f"{dataset}-singletask-v0"
    if not 1 <= int(task) <= NUM_TASKS or task != str(int(task)):
        raise UserError(
            f"unknown environment '{env_name}': the tasks of {dataset} are "
            f"{dataset}-task1 to {dataset}-task{NUM_TASKS}."
        )
    return f"{dataset}-singletask-task{task}-v0"


def split(full_name: str) -> tuple[str, str, int | None]:
    """Splits a full OGBench name into family, kind of dataset and task (None: the default one)."""
    match = _PATTERN.fullmatch(full_name)
    family, _, kind = match["dataset"].rpartition("-")
    return family, kind, None if match["task"] is None else int(match["task"])


def dataset_name(full_name: str) -> str:
    """Returns the stem of the dataset's file, `cube-single-play-v0` for instance."""
    if is_d4rl(full_name):
        return os.path.basename(D4RL_TASKS[full_name].dataset_path).removesuffix(".hdf5")
    family, kind, _ = split(full_name)
    return f"{family}-{kind}-v0"


def short_name(full_name: str) -> str:
    """Returns the shortest form that `resolve` maps to `full_name`."""
    if is_d4rl(full_name):
        return _VERSION.sub("", full_name)
    family, kind, task = split(full_name)
    return f"{family}-{kind}" + ("" if task is None else f"-task{task}")


def environment_id(full_name: str) -> str:
    """Returns the id under which the environment is registered with gymnasium."""
    if is_d4rl(full_name):
        return full_name
    family, _, task = split(full_name)
    return f"{family}-singletask" + ("" if task is None else f"-task{task}") + "-v0"


def collection_id(full_name: str) -> str:
    """Returns the id of the goal-conditioned environment that OGBench's data come from."""
    return f"{split(full_name)[0]}-v0"


def all_names() -> list[str]:
    """Returns every full OGBench name, each dataset with its default task and tasks 1 to 5."""
    tasks = ("", *(f"-task{n}" for n in range(1, NUM_TASKS + 1)))
    return [f"{dataset}-singletask{task}-v0" for dataset in _DATASETS for task in tasks]


def is_collectable(full_name: str) -> bool:
    """Returns whether the oracle that made an OGBench dataset ships in the ogbench package."""
    family = split(full_name)[0].removeprefix("visual-")
    return family.startswith(("pointmaze", "cube", "scene", "puzzle"))


def collection_command(full_name: str, dataset_dir: str | os.PathLike | None = None) -> str | None:
    """Returns the shell command that collects an OGBench dataset locally, or None where none can.

    Args:
        full_name: Full OGBench name; the task does not matter.
        dataset_dir: Folder for the files, where it is not OGBench's own.
    """
    if not is_collectable(full_name):
        return None
    family, kind, _ = split(full_name)
    command = (
        f"python -m utils.collect.workers --env_name={family}-{kind} --workers={os.cpu_count()}"
    )
    return command + (f" --dataset_dir={shlex.quote(str(dataset_dir))}" if dataset_dir else "")


def _unknown(env_name: str) -> str:
    """Says that a name is unknown and which known ones are nearest."""
    typed = re.sub(r"[\s_-]+", "-", env_name.lower()).strip("-")
    known = [*_DATASETS, *_D4RL_SHORT]
    if typed.endswith(("-v1", "-v2")):  # OGBench's have -v0.
        known = [*_D4RL_SHORT, *_DATASETS]
    match = _PATTERN.fullmatch(_VERSION.sub("", typed))
    typed, task = (match["dataset"], match["task"]) if match else ("", None)
    # A family without its kind (`antmaze-large`) is the most common slip, and other datasets are
    # closer to it in length than its own.
    nearest = [typed] if typed in known else []
    nearest += [name for name in known if typed and name.startswith(f"{typed}-")]
    nearest += difflib.get_close_matches(typed, known, n=4, cutoff=0.6)
    nearest = list(dict.fromkeys(nearest))[:5]
    if nearest:
        valid_task = task in {str(n) for n in range(1, NUM_TASKS + 1)}
        suffix = f"-task{task}" if valid_task else ""
        nearest = [_D4RL_SHORT.get(name, f"{name}{suffix}") for name in nearest]
        return f"unknown environment '{env_name}'; did you mean {' or '.join(nearest)}?"
    return (
        f"unknown environment '{env_name}'; names look like cube-single-play, "
        f"antmaze-large-navigate-task2 or puzzle-3x3-play, with the families "
        f"{', '.join(FAMILIES)}, or are D4RL's {', '.join(D4RL_TASKS)}."
    )
