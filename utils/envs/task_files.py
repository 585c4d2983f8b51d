"""Task files as a suite, see `utils.envs.tasks`.

A task file is a Python file of the user's, and its path is the task's name. It defines

- `load_datasets()`, which returns the training and the validation transitions, or the former alone,
  as dictionaries of arrays with n rows: `observations` and `next_observations` (n, size) of floats
  or (n, height, width, channels) of uint8, `actions` (n, size) within [-1, 1], `rewards` and
  `masks` (n,), the latter 0 where the next state is terminal, and perhaps `terminals` (n,), 1 at
  the last row of each episode;
- perhaps `make_env()`, which returns a gymnasium environment with a time limit and actions within
  [-1, 1]. If `info` has `success` at an episode's end, that is logged. Without `make_env` there are
  no evaluations and there is no online training.

It is executed once in every process that needs it, and may import files beside it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np

from utils import files
from utils.errors import UserError
from utils.python_files import load_python_file, user_function

NAMES = ()

HELP = "the path of a task file, ./my_task.py for instance"

_ACTION_LIMIT = 1 - 1e-5
_REQUIRED = ("observations", "actions", "next_observations", "rewards", "masks")


def resolve(env_name: str) -> str | None:
    """Return the absolute path of a task file, or None.

    Raises:
        UserError: There is no such file.
    """
    if not env_name.endswith(".py"):
        return None
    path = os.path.abspath(os.path.expanduser(env_name))
    if os.path.isfile(path):
        return path
    if os.path.basename(env_name) == env_name:
        return None
    raise UserError(f"--env_name={env_name} is not a file; give the path of a task file")


def short_name(full_name: str) -> str:
    """Return the file's name without its ending."""
    return Path(full_name).stem


def numbered(full_name: str) -> str:
    """Return the path: a task has no other name."""
    return full_name


def has_env(full_name: str) -> bool:
    """Return whether the file defines `make_env`.

    Raises:
        UserError: The file cannot be imported.
    """
    return hasattr(_load(full_name), "make_env")


def make_env(full_name: str) -> gymnasium.Env:
    """Make the environment of a task file.

    Raises:
        UserError: The file has none, or fails; the message has file and line.
    """
    env = _call(full_name, "make_env", "evaluations and online training need it")
    if not isinstance(env, gymnasium.Env):
        raise UserError(
            f"make_env() of {full_name} returned {type(env).__name__}; let it return a gymnasium "
            "environment"
        )
    return env


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load and check the transitions of a task file.

    Args:
        full_name: Path of the file.
        dataset_dir: Ignored; the file knows where its data are.

    Returns:
        Training and validation transitions, as `utils.envs.tasks.load_datasets` has them. Where the
        file returns the former alone, the latter are the same arrays.

    Raises:
        UserError: The file fails, or its arrays are not as the module says.
    """
    result = _call(full_name, "load_datasets", "training needs it")
    splits = result if isinstance(result, tuple) else (result,)
    if len(splits) not in (1, 2) or not all(isinstance(split, Mapping) for split in splits):
        raise UserError(
            f"load_datasets() of {full_name} must return the training transitions or (training, "
            "validation), each a dictionary of arrays"
        )
    train = _transitions(splits[0], f"the training data of {full_name}")
    if len(splits) == 1:
        return train, dict(train)
    val = _transitions(splits[1], f"the validation data of {full_name}")
    for key, array in val.items():
        expected = train[key]
        if (array.shape[1:], array.dtype) != (expected.shape[1:], expected.dtype):
            raise UserError(
                f"'{key}' in the validation data of {full_name} has rows {array.shape[1:]} of "
                f"{array.dtype} where the training data have {expected.shape[1:]} of "
                f"{expected.dtype}; make them alike"
            )
    return train, val


def dataset_files(full_name: str, dataset_dir: str | os.PathLike | None = None) -> list[Path]:
    """Return nothing: the file knows where its data are."""
    return []


def collection_command(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[list[str], str]:
    """Raise UserError: the file knows where its data come from."""
    raise UserError(
        f"the data of {full_name} are its own affair and cannot be collected locally; leave out "
        "--collect_missing"
    )


def reward_shift(full_name: str) -> float:
    """Return 0: agents train on the rewards as they are."""
    return 0.0


def prescribed(full_name: str) -> dict[str, Any]:
    """Return nothing: no benchmark prescribes settings."""
    return {}


def protocol(full_name: str) -> dict[str, Any]:
    """Return the protocol: the last evaluation's first known metric."""
    return {"metric": None, "evaluations": 1}


def groups() -> dict[str, list[str]]:
    """Return nothing: a task file stands alone."""
    return {}


def _transitions(split: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Return the checked columns of a split; floats become float32."""
    missing = [key for key in _REQUIRED if key not in split]
    if missing:
        raise UserError(f"{where} lack {' and '.join(missing)}; add what is missing")
    keys = [*_REQUIRED, *(["terminals"] if "terminals" in split else [])]
    data = {key: _array(split[key], key, where) for key in keys}
    columns = _columns(data, where)
    rows = len(data["observations"])
    for key, array in data.items():
        found = files.problem(array, columns[key], rows)
        if not found and array.dtype != np.uint8:
            with np.errstate(over="ignore"):  # Infinities are refused below.
                data[key] = array.astype(np.float32)
            found = files.problem(data[key], files.Column(array.shape[1:], "f"), rows)
        if found:
            raise UserError(f"'{key}' in {where} {found}; correct it in load_datasets()")
    beyond = np.flatnonzero((np.abs(data["actions"]) > 1).any(axis=1))
    if len(beyond):
        raise UserError(
            f"'actions' in {where} leave [-1, 1] in row {beyond[0]}; scale them to [-1, 1], here "
            "and in make_env()"
        )
    np.clip(data["actions"], -_ACTION_LIMIT, _ACTION_LIMIT, out=data["actions"])
    if "terminals" not in data:
        data["terminals"] = _episode_ends(data)
    data["terminals"][-1] = 1.0
    return data


def _array(values: Any, key: str, where: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(
            f"'{key}' in {where} are no array ({error}); correct them in load_datasets()"
        ) from error


def _columns(data: Mapping[str, np.ndarray], where: str) -> dict[str, files.Column]:
    """Return what the arrays have to look like."""
    observations, actions = data["observations"], data["actions"]
    if (observations.ndim, observations.dtype.kind) not in ((2, "f"), (4, "u")):
        raise UserError(
            f"'observations' in {where} have shape {observations.shape} and dtype "
            f"{observations.dtype}; make them (rows, size) of floats or (rows, height, width, "
            "channels) of uint8"
        )
    if actions.ndim != 2:
        raise UserError(
            f"'actions' in {where} have shape {actions.shape}; make them (rows, size) of floats"
        )
    observation = files.Column(observations.shape[1:], observations.dtype.kind)
    number = files.Column((), "biuf")
    return {
        "observations": observation,
        "actions": files.Column(actions.shape[1:], "f"),
        "next_observations": observation,
        "rewards": number,
        "masks": number,
        "terminals": number,
    }


def _episode_ends(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return 1 at the last row of each episode, else 0, (n,)."""
    following, preceding = data["observations"][1:], data["next_observations"][:-1]
    ends = data["masks"] == 0
    ends[:-1] |= (following != preceding).reshape(len(following), -1).any(axis=1)
    return ends.astype(np.float32)


def _load(full_name: str) -> ModuleType:
    """Return a task file as a module; it is executed once.

    Raises:
        UserError: It fails; the message has file and line.
    """
    return load_python_file(full_name, "--env_name")


def _call(full_name: str, name: str, need: str) -> Any:
    """Call a function of a task file.

    Raises:
        UserError: The file has no such function, or fails.
    """
    module = _load(full_name)
    if not callable(getattr(module, name, None)):
        raise UserError(f"{full_name} defines no {name}(), and {need}; add it")
    return user_function(module, name)()
