"""Names of OGBench's tasks: short forms, full names, files.

A full name is `<family>-<kind>-singletask[-task<n>]-v0`, where the family is an environment
(`cube-single`), the kind says how its dataset was collected (`play`) and a missing task number
means the family's default task. Importing this module costs nothing: no NumPy, no MuJoCo.
"""

import re

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

DATASETS = tuple(f"{family}-{kind}" for family, kinds in FAMILIES.items() for kind in kinds)
"""Every dataset; its name is also the short name of the family's default task."""

# Which of its tasks is a family's default, by what the family begins with.
_DEFAULT_TASKS = {
    "pointmaze": 1,
    "antmaze": 1,
    "humanoidmaze": 1,
    "antsoccer": 4,
    "cube": 2,
    "scene": 2,
    "puzzle-3x3": 4,
    "puzzle-4x4": 4,
    "puzzle": 2,
}

_PATTERN = re.compile(r"(?P<dataset>.+?)(?:-singletask)?(?:-task(?P<task>\d+))?(?:-v0)?")


def resolve(env_name: str) -> str | None:
    """Return the full name of a task, or None for a name of no dataset here.

    `antmaze-large-navigate` becomes `antmaze-large-navigate-singletask-v0` and
    `cube-double-play-task3` becomes `cube-double-play-singletask-task3-v0`; the suffix `-v0` is
    optional and full names pass through.

    Raises:
        UserError: The dataset has no such task.
    """
    match = _PATTERN.fullmatch(env_name)
    if match is None or match["dataset"] not in DATASETS:
        return None
    dataset, task = match["dataset"], match["task"]
    if task is None:
        return f"{dataset}-singletask-v0"
    if not 1 <= int(task) <= NUM_TASKS or task != str(int(task)):
        raise UserError(
            f"unknown environment '{env_name}': the tasks of {dataset} are "
            f"{dataset}-task1 to {dataset}-task{NUM_TASKS}"
        )
    return f"{dataset}-singletask-task{task}-v0"


def short_name(full_name: str) -> str:
    """Return the shortest form that `resolve` maps to a full name."""
    family, kind, task = split(full_name)
    return f"{family}-{kind}" + ("" if task is None else f"-task{task}")


def split(full_name: str) -> tuple[str, str, int | None]:
    """Split a full name into family, kind and task (None: the default)."""
    match = _PATTERN.fullmatch(full_name)
    family, _, kind = match["dataset"].rpartition("-")
    return family, kind, None if match["task"] is None else int(match["task"])


def numbered(full_name: str) -> str:
    """Return a task's full name with its number, that of its family's default task too."""
    family, kind, task = split(full_name)
    if task is None:
        stem = family.removeprefix("visual-")
        task = next(n for prefix, n in _DEFAULT_TASKS.items() if stem.startswith(prefix))
    return f"{family}-{kind}-singletask-task{task}-v0"


def is_visual(full_name: str) -> bool:
    """Return whether a task's observations are images."""
    return full_name.startswith("visual-")


def dataset_name(full_name: str) -> str:
    """Return the stem of the dataset's file, `cube-single-play-v0` for instance."""
    family, kind, _ = split(full_name)
    return f"{family}-{kind}-v0"


def environment_id(full_name: str) -> str:
    """Return the id under which the environment is registered with gymnasium."""
    family, _, task = split(full_name)
    return f"{family}-singletask" + ("" if task is None else f"-task{task}") + "-v0"


def collection_id(full_name: str) -> str:
    """Return the id of the environment that the data come from."""
    return f"{split(full_name)[0]}-v0"


def all_names() -> list[str]:
    """Return every full name: default task and tasks 1 to 5 of each dataset."""
    tasks = ("", *(f"-task{n}" for n in range(1, NUM_TASKS + 1)))
    return [f"{dataset}-singletask{task}-v0" for dataset in DATASETS for task in tasks]
