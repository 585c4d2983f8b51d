"""OGBench's datasets: files, and how their rows become transitions.

Files are downloaded from `OGBENCH_DATASET_URL` if that environment variable is set, else or when
that fails from OGBench's own server or its mirror, see `utils.envs.origins`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np

from utils import downloads, files
from utils.envs.ogbench import collection, names
from utils.envs.ogbench.environments import SUCCESS_TIMING, make_registered
from utils.envs.origins import ORIGINS
from utils.errors import UserError
from utils.frames import FrameStacks
from utils.host_memory import available_memory

DEFAULT_DATASET_DIR = "~/.ogbench/data"
"""OGBench's own folder."""

_ACTION_LIMIT = 1 - 1e-5
_IMAGE_SHAPE = (64, 64, 3)


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Load a task's transitions, downloading files when missing.

    Args:
        full_name: Full OGBench name, see `utils.envs.tasks.resolve`.
        dataset_dir: Folder of the npz files; OGBench's own by default.

    Returns:
        Two dictionaries of arrays with n rows each: `observations` and `next_observations`
        (float32; images as `FrameStacks` of single ones, uint8), `actions` (float32, within
        +-(1 - 1e-5)), `rewards`, `masks` and `terminals` (float32, (n,)). Rewards and masks are
        those of the task, by ogbench's own code.

    Raises:
        UserError: A file can neither be found nor downloaded, or is not a valid dataset.
    """
    directory = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser()
    how_to_collect = collection.advice(full_name, dataset_dir)
    stem = names.dataset_name(full_name)
    # Rewards need the task, which is the same for the environment with images and the one without.
    # No OpenGL is needed and none is looked for.
    env_id = names.environment_id(full_name).removeprefix("visual-")
    env = make_registered(env_id, success_timing=SUCCESS_TIMING)
    try:
        columns = dataset_columns(full_name, env)
        paths = downloads.ensure(
            ORIGINS["OGBench"],
            (f"{stem}.npz", f"{stem}-val.npz"),
            directory,
            lambda path: downloads.npz_problem(path, columns),
            how_to_collect and f", or {how_to_collect}",
        )
        _require_memory(full_name, paths)
        # Both, since one is not collected beside another of unknown origin.
        remedy = "delete it to have it downloaded again" + (
            how_to_collect and f", or delete both files and {how_to_collect}"
        )
        train, val = (_transitions(full_name, path, columns, env, remedy) for path in paths)
    finally:
        env.close()
    return train, val


def _require_memory(full_name: str, paths: Sequence[Path]) -> None:
    """Refuse data that do not fit into memory, before the system kills who reads them."""
    copies = 1 if names.is_visual(full_name) else 2  # of observations; frames are stored once
    needed, there_is = copies * sum(map(files.npz_bytes, paths)), available_memory()
    if needed > there_is:
        raise UserError(
            f"reading {' and '.join(path.name for path in paths)} takes {needed / 2**30:.1f} GiB "
            f"of memory, and {there_is / 2**30:.1f} GiB can be had here: ask for more, or collect "
            "fewer episodes into another --dataset_dir"
        )


def dataset_columns(full_name: str, env: gymnasium.Env) -> dict[str, files.Column]:
    """Return what the arrays of a dataset have to look like."""
    env.reset(seed=0)  # An arm has no model before.
    visual = names.is_visual(full_name)
    model = env.unwrapped.model
    columns = {
        "observations": files.Column(
            _IMAGE_SHAPE if visual else env.observation_space.shape, "u" if visual else "f"
        ),
        "actions": files.Column(env.action_space.shape, "f"),
        "terminals": files.Column((), "biuf"),
        "qpos": files.Column((model.nq,), "f"),
        "qvel": files.Column((model.nv,), "f"),
    }
    if hasattr(env.unwrapped, "_num_buttons"):
        columns["button_states"] = files.Column((env.unwrapped._num_buttons,), "biuf")
    return columns


def _transitions(
    full_name: str,
    path: Path,
    columns: dict[str, files.Column],
    env: gymnasium.Env,
    remedy: str,
) -> dict[str, np.ndarray]:
    """Read a file's rows as transitions with the task's rewards and masks."""
    from ogbench.relabel_utils import relabel_dataset

    # In three parts, so that no more of the file is in memory than what is being turned into
    # transitions.
    terminals = {"terminals": columns["terminals"]}
    last = files.read_arrays(path, terminals, remedy)["terminals"].astype(bool)
    if not last[-1]:
        raise UserError(f"{path} ends within an episode (its last row is not terminal); {remedy}")
    # The last row of an episode has no successor: it is only the row before's next observation.
    start = np.flatnonzero(~last)
    if not len(start):
        raise UserError(f"{path} holds no transition (every row is terminal); {remedy}")

    def read(*keys: str) -> dict[str, np.ndarray]:
        wanted = {key: columns[key] for key in keys}
        return files.read_arrays(path, wanted, remedy, rows=len(last))

    data = {"terminals": last[start + 1].astype(np.float32)}
    state = read(*(key for key in columns if key not in (*terminals, "actions", "observations")))
    state = {key: array[start] for key, array in state.items()}
    relabel_dataset(names.environment_id(full_name), env, state)
    data |= {"rewards": state["rewards"], "masks": state["masks"]}
    del state
    actions = read("actions")["actions"][start].astype(np.float32, copy=False)
    data["actions"] = np.clip(actions, -_ACTION_LIMIT, _ACTION_LIMIT, out=actions)
    observations = read("observations")["observations"]
    if names.is_visual(full_name):
        return data | FrameStacks.of_steps(observations, last)
    observations = observations.astype(np.float32, copy=False)
    return data | {
        "observations": observations[start],
        "next_observations": observations[start + 1],
    }
