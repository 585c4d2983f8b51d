"""D4RL's datasets: files, and how their rows become transitions.

A file holds trajectories one after the other, one row per step: the observation, the action taken
there, the reward for it, whether the step ended in a terminal state (`terminals`) and whether the
episode was cut off after it (`timeouts`, which some files lack). The rows become transitions as in
D4RL's own function for Q-learning, whose every choice shows in published results:

- The next observation is the next row's. The file's last row has none and is dropped.
- A row that was cut off is dropped, because the next row belongs to another episode. Without
  `timeouts`, cut off is the row at which a count of steps reaches the task's horizon. The count
  starts anew after such a row and after a terminal one; after a terminal one it starts at one,
  so that a full episode there is cut off a step early.
- A terminal row is kept, although its next observation may be another episode's first: its mask of
  zero keeps that out of every target.

Files are downloaded from `D4RL_DATASET_URL` if that environment variable is set, else or when that
fails from D4RL's own server or a mirror, see `utils.envs.origins`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils import downloads, files
from utils.envs.d4rl import names
from utils.envs.origins import ORIGINS
from utils.errors import UserError

DEFAULT_DATASET_DIR = "~/.d4rl/datasets"
"""D4RL's own folder, where the environment variable D4RL_DATASET_DIR names no other."""

_ACTION_LIMIT = 1 - 1e-5
_OPTIONAL = ("timeouts",)
_JUMP = 1e-6  # Observations farther apart than this do not follow one another.


def dataset_path(full_name: str, dataset_dir: str | os.PathLike | None = None) -> Path:
    """Return where a task's file is looked for and put.

    Args:
        full_name: Id of a D4RL task.
        dataset_dir: Folder of the files; $D4RL_DATASET_DIR or `DEFAULT_DATASET_DIR` by default.
    """
    directory = dataset_dir or os.environ.get("D4RL_DATASET_DIR") or DEFAULT_DATASET_DIR
    return Path(directory).expanduser() / f"{names.dataset_name(full_name)}.hdf5"


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load a task's transitions, downloading its file when missing.

    D4RL has no validation data, and what is published was trained on all there are. The second
    dictionary holds the very arrays of the first: losses on it are losses on a fresh batch of the
    training data.

    Args:
        full_name: Id of a D4RL task, see `utils.envs.tasks.resolve`.
        dataset_dir: Folder of the files, see `dataset_path`.

    Returns:
        Two dictionaries of the same float32 arrays with n rows: `observations`,
        `next_observations`, `actions` (within +-(1 - 1e-5)), `rewards` (shifted, see
        `utils.envs.d4rl.names.reward_shift`), `masks` (0 at terminal states) and `terminals` (1
        where a trajectory ends), the latter three (n,).

    Raises:
        UserError: The file can neither be found nor downloaded, or is not a valid dataset.
    """
    task = names.TASKS[full_name]
    columns = {
        "observations": files.Column((task.observation_size,), "f"),
        "actions": files.Column((task.action_size,), "f"),
        "rewards": files.Column((), "biuf"),
        "terminals": files.Column((), "biuf"),
        "timeouts": files.Column((), "biuf"),
    }
    (path,) = downloads.ensure(
        ORIGINS["D4RL"],
        (task.dataset_path,),
        dataset_path(full_name, dataset_dir).parent,
        lambda path: _problem(path, columns),
    )
    remedy = "delete it to have it downloaded again"
    arrays = _read_arrays(path, columns, remedy, _OPTIONAL)
    terminal = arrays["terminals"] != 0
    if "timeouts" in arrays:
        cut_off = arrays["timeouts"] != 0
    else:
        cut_off = _count_to_horizon(terminal, task.horizon)
    start = np.flatnonzero(~cut_off[:-1])
    if not len(start):
        raise UserError(f"{path} holds no transition (no row continues in the next); {remedy}")
    train = _transitions(full_name, arrays, terminal, start)
    return train, dict(train)


def _problem(path: Path, columns: dict[str, files.Column]) -> str:
    """Return what is wrong with the layout of a file, or an empty string."""
    import h5py

    layouts = {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            for key, column in columns.items():
                if isinstance(item := file.get(key), h5py.Dataset):
                    single = column.shape == () and item.shape[1:] == (1,)
                    layouts[key] = (item.shape[:1] if single else item.shape, item.dtype)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        return f"is no complete HDF5 file ({error})"
    return downloads.layout_problem(layouts, columns, _OPTIONAL)


def _read_arrays(
    path: Path, columns: dict[str, files.Column], remedy: str, optional: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read and check arrays with one number of rows; floats become float32.

    Columns of single numbers may have the shape (n, 1) in the file.
    """
    import h5py  # Which nobody needs who only asks for a name.

    arrays = {}
    try:
        # Files appear complete and never change, and not every network drive can lock.
        with h5py.File(path, "r", locking=False) as file:
            items = {key: file.get(key) for key in columns}
            items = {key: item for key, item in items.items() if isinstance(item, h5py.Dataset)}
            missing = [key for key in columns if key not in items and key not in optional]
            if missing:
                raise UserError(f"{path} lacks {' and '.join(missing)}; {remedy}")
            for key, item in items.items():
                files.require_memory(item.size * item.dtype.itemsize if item.shape else 0)
                array = np.asarray(item[()])
                if columns[key].shape == () and array.shape[1:] == (1,):
                    array = array[:, 0]
                if array.dtype.kind == "f":
                    with np.errstate(over="ignore"):  # Infinities are refused below.
                        array = array.astype(np.float32, copy=False)
                arrays[key] = array
    except MemoryError as error:
        raise files.too_large(path, error, remedy) from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if getattr(error, "errno", None):
            raise UserError(f"cannot read {path}: {os.strerror(error.errno)}; {remedy}") from error
        raise UserError(
            f"{path} is truncated or damaged, or no HDF5 file ({error}); {remedy}"
        ) from error
    rows = arrays["observations"].shape[:1]
    for key, array in arrays.items():
        if found := files.problem(array, columns[key], *rows or (0,)):
            raise UserError(f"'{key}' in {path} {found}; {remedy}")
    return arrays


def _count_to_horizon(terminal: np.ndarray, horizon: int) -> np.ndarray:
    """Return which rows are cut off (n,) in a file without `timeouts`.

    Args:
        terminal: Which rows are terminal, (n,).
        horizon: The task's time limit.
    """
    cut_off = np.zeros(len(terminal), bool)
    first = horizon - 1
    for row in np.flatnonzero(terminal).tolist():
        cut_off[first : row + 1 : horizon] = True
        first = row + (horizon if cut_off[row] else horizon - 1)
    cut_off[first::horizon] = True
    return cut_off


def _transitions(
    full_name: str, arrays: dict[str, np.ndarray], terminal: np.ndarray, start: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the transitions that begin in the rows `start`, emptying `arrays`."""
    observations, actions = arrays.pop("observations"), arrays.pop("actions")[start]
    terminal = terminal[start]
    data = {
        "observations": observations[start],
        "actions": np.clip(actions, -_ACTION_LIMIT, _ACTION_LIMIT, out=actions),
        "next_observations": observations[start + 1],
        "rewards": arrays.pop("rewards")[start].astype(np.float32),
        "masks": 1 - terminal.astype(np.float32),
    }
    data["rewards"] += names.reward_shift(full_name)
    # Rows that follow one another in the file share an observation.
    gap = np.flatnonzero(np.diff(start) != 1)
    with np.errstate(over="ignore"):
        jump = np.linalg.norm(
            data["observations"][gap + 1] - data["next_observations"][gap], axis=1
        )
    last = np.zeros(len(start), bool)
    last[gap] = jump > _JUMP
    last[-1] = True
    if not names.is_antmaze(full_name):  # Whose terminal rows mark the goal in mid-trajectory.
        last |= terminal
    return data | {"terminals": last.astype(np.float32)}
