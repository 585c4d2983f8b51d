"""The one door to tasks: names, environments, datasets, what benchmarks prescribe.

A suite is one module and one row of `SUITES`, imported when it is first asked. It has the functions
of this module, with three differences: its `resolve` returns None for a name that is none of its
own, its `groups` are its own, and its `make_env` stacks no frames. It also has `NAMES`, the names
that may be suggested for a mistyped one, and `HELP`, which names go, for someone who typed another.
"""

import difflib
import importlib
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np

from utils.envs.frame_stack import FrameStack
from utils.errors import UserError

SUITES: dict[str, str] = {
    "OGBench": "utils.envs.ogbench.suite",
    "D4RL": "utils.envs.d4rl.suite",
    "task files": "utils.envs.task_files",
}
"""The module of each suite; the first that knows a name has it."""


def resolve(env_name: str) -> str:
    """Return a task's full name for a short or full one.

    `cube-double-play-task3` becomes `cube-double-play-singletask-task3-v0`, `pen-cloned` becomes
    `pen-cloned-v1`, and the path of a task file (`my_task.py`) becomes absolute. Full names pass
    through.

    Args:
        env_name: Name as the user typed it.

    Raises:
        UserError: The name is unknown; the message lists the nearest ones.
    """
    return _find(env_name)[1]


def short_name(full_name: str) -> str:
    """Return a short form, for the names of folders.

    It is the shortest that `resolve` maps to the full name, or the stem of a task file.
    """
    return _suite(full_name).short_name(full_name)


def numbered(full_name: str) -> str:
    """Return the one name of a task that has two.

    OGBench's default tasks are also tasks by number: `cube-double-play-singletask-v0` becomes
    `cube-double-play-singletask-task2-v0`, and other names stay as they are.
    """
    return _suite(full_name).numbered(full_name)


def has_env(full_name: str) -> bool:
    """Return whether a task has an environment, and not only data."""
    return _suite(full_name).has_env(full_name)


def make_env(full_name: str, frame_stack: int | None = None) -> gymnasium.Env:
    """Make a task's environment.

    Its episodes are functions of the reset's seed and of the actions alone, as far as the suite is
    one of the named ones.

    Args:
        full_name: Full name, see `resolve`.
        frame_stack: Frames per observation, which are images then; None leaves them single.

    Returns:
        The environment, with its official time limit and unshifted rewards.

    Raises:
        UserError: Something that the environment needs is missing or has the wrong version, or the
            task has none.
    """
    env = _suite(full_name).make_env(full_name)
    return env if frame_stack is None else FrameStack(env, frame_stack)


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load a task's training and validation transitions, downloading missing files.

    Args:
        full_name: Full name, see `resolve`.
        dataset_dir: Folder of the files; the suite's own by default.

    Returns:
        Two dictionaries of arrays with n rows each: `observations` and `next_observations`
        (float32; images uint8, as arrays or as `utils.frames.FrameStacks`), `actions` (float32,
        within +-(1 - 1e-5)), `rewards` (as agents train on them), `masks` and `terminals` (float32,
        (n,)), the latter 1 at the last row of each episode.

    Raises:
        UserError: A file can neither be found nor downloaded, or is not a valid dataset.
    """
    return _suite(full_name).load_datasets(full_name, dataset_dir)


def dataset_files(full_name: str, dataset_dir: str | os.PathLike | None = None) -> list[Path]:
    """Return the files that `load_datasets` reads, whether they are there or not.

    None for a task file, whose own affair it is.
    """
    return _suite(full_name).dataset_files(full_name, dataset_dir)


def collection_command(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[list[str], str]:
    """Return how a task's data are collected here.

    Returns:
        The arguments of `python -m utils.collect`, and about how long it takes, in words.

    Raises:
        UserError: They cannot be collected, or something is in the way.
    """
    return _suite(full_name).collection_command(full_name, dataset_dir)


def reward_shift(full_name: str) -> float:
    """Return what is added to every reward that agents train on.

    It is so offline and online. Scores are those of the unshifted reward.
    """
    return _suite(full_name).reward_shift(full_name)


def prescribed(full_name: str) -> dict[str, Any]:
    """Return the settings that a task's benchmark prescribes, by name.

    They are `offline_steps` and, for images, `encoder`, `p_aug` and `frame_stack`; nothing for a
    task file.
    """
    return _suite(full_name).prescribed(full_name)


def protocol(full_name: str) -> dict[str, Any]:
    """Return how a run on a task is scored.

    Returns:
        `metric`, which is "success", "normalized_return" or None (the first known one that
        evaluations have), and `evaluations`, the number of last evaluations that are averaged.
    """
    return _suite(full_name).protocol(full_name)


def groups() -> dict[str, list[str]]:
    """Return the groups that benchmarks report on, full names by group; some hold others."""
    return {group: names for suite in _suites() for group, names in suite.groups().items()}


def _suites() -> list[ModuleType]:
    """Import all suites, which is cheap as long as only names are asked for."""
    return [importlib.import_module(module) for module in SUITES.values()]


def _find(env_name: str) -> tuple[ModuleType, str]:
    """Return the suite that knows a name, and the full name.

    Raises:
        UserError: None does.
    """
    for suite in _suites():
        full_name = suite.resolve(env_name)
        if full_name is not None:
            return suite, full_name
    raise UserError(_unknown(env_name))


def _suite(full_name: str) -> ModuleType:
    return _find(full_name)[0]


def _unknown(env_name: str) -> str:
    """Return the message on an unknown name, with the nearest known ones."""
    typed = re.sub(r"[\s_-]+", "-", env_name.lower()).strip("-")
    stem, task, version = re.fullmatch(r"(.*?)(-task\d+)?(-v\d+)?", typed).groups(default="")
    suites = _suites()
    names = {re.sub(r"-v\d+$", "", name): name for suite in suites for name in suite.NAMES}
    # Those of the version that was typed come first; OGBench's names need none and are of v0.
    known = sorted(names, key=lambda name: bool(version) and not names[name].endswith(version))
    # A name without its end (`antmaze-large`) is the most common slip, and other names are closer
    # to it in length than those that continue it.
    nearest = [stem] if stem in names else []
    nearest += [name for name in known if stem and name.startswith(f"{stem}-")]
    nearest += difflib.get_close_matches(stem, known, n=4, cutoff=0.6)
    nearest = list(dict.fromkeys(nearest))[:5]
    if nearest:
        shown = [_with_task(names[name], task) for name in nearest]
        return f"unknown environment '{env_name}'; did you mean {' or '.join(shown)}?"
    return f"unknown environment '{env_name}'; known are {'; or '.join(s.HELP for s in suites)}"


def _with_task(name: str, task: str) -> str:
    """Return a suggested name, with the task that was typed if there is one."""
    for suite in _suites():
        try:
            if suite.resolve(name + task) is not None:
                return name + task
        except UserError:
            continue
    return name
