"""Names of OGBench single-task environments: short forms, full names, files and suggestions.

A full name is `<family>-<kind>-singletask[-task<n>]-v0`, where the family is an environment
(`cube-single`), the kind says how its dataset was collected (`play`) and a missing task number
means the family's default task. Importing this module costs nothing: no NumPy, no MuJoCo.
"""

import difflib
import os
import re
import shlex

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

_DATASETS = [f"{family}-{kind}" for family, kinds in FAMILIES.items() for kind in kinds]
_PATTERN = re.compile(r"(?P<dataset>.+?)(?:-singletask)?(?:-task(?P<task>\d+))?(?:-v0)?")


def resolve(env_name: str) -> str:
    """Returns the full OGBench name for a short or full single-task name.

    `antmaze-large-navigate` becomes `antmaze-large-navigate-singletask-v0` and
    `cube-double-play-task3` becomes `cube-double-play-singletask-task3-v0`; the suffix `-v0` is
    optional and full names pass through.

    Args:
        env_name: Name as the user typed it.

    Returns:
        The full name.

    Raises:
        UserError: The name is unknown; the message lists the nearest ones.
    """
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
    """Splits a full name into family, kind of dataset and task (None: the default task)."""
    match = _PATTERN.fullmatch(full_name)
    family, _, kind = match["dataset"].rpartition("-")
    return family, kind, None if match["task"] is None else int(match["task"])


def dataset_name(full_name: str) -> str:
    """Returns the stem of the dataset's file, `cube-single-play-v0` for instance."""
    family, kind, _ = split(full_name)
    return f"{family}-{kind}-v0"


def short_name(full_name: str) -> str:
    """Returns the shortest form that `resolve` maps to `full_name`."""
    family, kind, task = split(full_name)
    return f"{family}-{kind}" + ("" if task is None else f"-task{task}")


def environment_id(full_name: str) -> str:
    """Returns the id under which ogbench registers the environment with gymnasium."""
    family, _, task = split(full_name)
    return f"{family}-singletask" + ("" if task is None else f"-task{task}") + "-v0"


def collection_id(full_name: str) -> str:
    """Returns the gymnasium id of the goal-conditioned environment that data come from."""
    return f"{split(full_name)[0]}-v0"


def all_names() -> list[str]:
    """Returns every full name, each dataset with its default task and tasks 1 to 5."""
    tasks = ("", *(f"-task{n}" for n in range(1, NUM_TASKS + 1)))
    return [f"{dataset}-singletask{task}-v0" for dataset in _DATASETS for task in tasks]


def is_collectable(full_name: str) -> bool:
    """Returns whether the oracle that made this dataset ships in the ogbench package."""
    family = split(full_name)[0].removeprefix("visual-")
    return family.startswith(("pointmaze", "cube", "scene", "puzzle"))


def collection_command(full_name: str, dataset_dir: str | os.PathLike | None = None) -> str | None:
    """Returns the shell command that collects a dataset locally, or None where none can.

    Args:
        full_name: Full name; the task does not matter.
        dataset_dir: Folder for the files, where it is not OGBench's own.
    """
    if not is_collectable(full_name):
        return None
    family, kind, _ = split(full_name)
    command = f"python -m utils.envs.collect --env_name={family}-{kind} --workers={os.cpu_count()}"
    return command + (f" --dataset_dir={shlex.quote(str(dataset_dir))}" if dataset_dir else "")


def _unknown(env_name: str) -> str:
    """Says that a name is unknown and which known ones are nearest."""
    match = _PATTERN.fullmatch(re.sub(r"[\s_-]+", "-", env_name.lower()).strip("-"))
    typed, task = (match["dataset"], match["task"]) if match else ("", None)
    # A family without its kind (`antmaze-large`) is the most common slip, and other datasets are
    # closer to it in length than its own.
    nearest = [name for name in _DATASETS if typed and name.startswith(f"{typed}-")]
    nearest += difflib.get_close_matches(typed, _DATASETS, n=4, cutoff=0.6)
    nearest = list(dict.fromkeys(nearest))[:4]
    if nearest:
        valid_task = task in {str(n) for n in range(1, NUM_TASKS + 1)}
        nearest = [f"{name}-task{task}" if valid_task else name for name in nearest]
        return f"unknown environment '{env_name}'; did you mean {' or '.join(nearest)}?"
    return (
        f"unknown environment '{env_name}'; names look like cube-single-play, "
        f"antmaze-large-navigate-task2 or puzzle-3x3-play, with the families {', '.join(FAMILIES)}."
    )
