"""OGBench's single-task environments and their datasets.

Files are downloaded from `OGBENCH_DATASET_URL` if that environment variable is set (a mirror), else
from OGBench's own server.
"""

import contextlib
import dataclasses
import os
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from utils import files
from utils.envs import names, rendering
from utils.errors import UserError

SUCCESS_TIMING = "post"
"""A step's reward and success belong to the state it leads to, as in OGBench before 1.2.0."""

DEFAULT_DATASET_DIR = "~/.ogbench/data"
"""OGBench's own folder."""

_ACTION_LIMIT = 1 - 1e-5
_IMAGE_SHAPE = (64, 64, 3)


def make_env(full_name: str) -> gymnasium.Env:
    """Makes a single-task environment.

    After `reset(seed=...)` an episode is a function of the seed and the actions, whatever the
    process did before and whatever else draws from NumPy's global generator.

    Args:
        full_name: Full OGBench name, see `utils.envs.names.resolve`.

    Returns:
        The environment, with its official time limit.

    Raises:
        UserError: Observations are images and nothing here can render.
    """
    if full_name.startswith("visual-"):
        rendering.require_gl("pixel observations")
    else:
        rendering.choose_gl()
    return make_registered(names.environment_id(full_name), success_timing=SUCCESS_TIMING)


def make_registered(env_id: str, **kwargs) -> gymnasium.Env:
    """Makes an environment that ogbench registers, made reproducible as `make_env` says.

    Args:
        env_id: Gymnasium id.
        **kwargs: Passed on to `gymnasium.make`.

    Returns:
        The environment.
    """
    import ogbench  # noqa: F401  (registers its environments)

    spec = gymnasium.spec(env_id)
    creator = load_env_creator(spec.entry_point)
    if not isinstance(creator, type):
        return _Maze(gymnasium.make(spec, disable_env_checker=True, **kwargs))
    arm = type(f"Reproducible{creator.__name__}", (_Arm, creator), {})
    spec = dataclasses.replace(spec, entry_point=arm)
    return gymnasium.make(spec, disable_env_checker=True, **kwargs)


def load_datasets(
    full_name: str, dataset_dir: str | os.PathLike | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loads the training and validation transitions of a task, downloading files when missing.

    Args:
        full_name: Full OGBench name, see `utils.envs.names.resolve`.
        dataset_dir: Folder of the npz files; OGBench's own by default.

    Returns:
        Two dictionaries of arrays with n rows each: `observations` and `next_observations`
        (float32, images uint8), `actions` (float32, within +-(1 - 1e-5)), `rewards`, `masks` and
        `terminals` (float32, (n,)). Rewards and masks are those of the task, by ogbench's own code.

    Raises:
        UserError: A file can neither be found nor downloaded, or is not a valid dataset.
    """
    from ogbench.utils import DATASET_URL

    directory = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser()
    url = os.environ.get("OGBENCH_DATASET_URL", DATASET_URL).rstrip("/")
    command = names.collection_command(full_name, dataset_dir)
    alternative = "" if command is None else f", or collect the dataset locally with `{command}`"
    stem = names.dataset_name(full_name)
    paths = [
        files.ensure(f"{url}/{file}", directory / file, alternative)
        for file in (f"{stem}.npz", f"{stem}-val.npz")
    ]
    # Rewards need the task, which is the same for the environment with images and the one without,
    # and the latter needs no OpenGL.
    env = make_env(full_name.removeprefix("visual-"))
    try:
        columns = _columns(full_name, env)
        remedy = f"Delete it to have it downloaded again{alternative}."
        train, val = (_transitions(full_name, path, columns, env, remedy) for path in paths)
    finally:
        env.close()
    return train, val


def _columns(full_name: str, env: gymnasium.Env) -> dict[str, files.Column]:
    """Returns what the arrays of a dataset have to look like."""
    env.reset(seed=0)  # An arm has no model before.
    visual = full_name.startswith("visual-")
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
    """Reads a file and turns its rows into transitions with the task's rewards and masks."""
    from ogbench.relabel_utils import relabel_dataset

    # In three parts, so that no more of the file is in memory than what is being turned into
    # transitions.
    terminals = {"terminals": columns["terminals"]}
    last = files.read_arrays(path, terminals, remedy)["terminals"].astype(bool)
    if not last[-1]:
        raise UserError(f"{path} ends within an episode (its last row is not terminal). {remedy}")
    # The last row of an episode has no successor: it is only the row before's next observation.
    start = np.flatnonzero(~last)
    if not len(start):
        raise UserError(f"{path} holds no transition (every row is terminal). {remedy}")

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
    if observations.dtype != np.uint8:
        observations = observations.astype(np.float32, copy=False)
    return data | {
        "observations": observations[start],
        "next_observations": observations[start + 1],
    }


class _Arm:
    """Mixin for the arms, whose own action space is a new one, unseeded, at every access.

    They draw from it while they reset.
    """

    action_space = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Resets the environment; with a seed, its action space too."""
        if seed is not None:
            self.action_space.seed(seed)
        return super().reset(seed=seed, options=options)

    def close(self):
        """Frees the renderer, which complains when the interpreter's end does it."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()


class _Maze(gymnasium.Wrapper):
    """Wrapper for the mazes, which draw from NumPy's global generator, so that they do not."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._generator = np.random.MT19937()

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Resets the environment; with a seed, all that it draws from."""
        if seed is not None:
            self._generator = np.random.MT19937(seed)
            self.env.action_space.seed(seed)
        with self._drawing():
            return self.env.reset(seed=seed, options=options)

    def step(self, action):
        """Takes a step."""
        with self._drawing():
            return self.env.step(action)

    def close(self):
        """Frees the renderer, which complains when the interpreter's end does it."""
        if self.unwrapped.custom_renderer is not None:
            self.unwrapped.custom_renderer.close()
            self.unwrapped.custom_renderer = None
        super().close()

    @contextlib.contextmanager
    def _drawing(self):
        """Makes this environment's generator the global one for a while."""
        outside = np.random.get_bit_generator()
        np.random.set_bit_generator(self._generator)
        try:
            yield
        finally:
            np.random.set_bit_generator(outside)
