"""The base of D4RL's environments: a checked model, state, camera."""

import hashlib
import importlib.util
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from utils.envs import rendering, sharing
from utils.errors import UserError

rendering.choose_gl()  # MuJoCo looks at it while it is imported.

import mujoco  # noqa: E402

_FIRST_MUJOCO, _END_MUJOCO = (3, 1, 6), (3, 2, 0)

# What the models come from, at the versions that were compared with D4RL's own.
_PACKAGES = {
    "ogbench": ("ogbench", "ogbench==1.2.2"),
    "gymnasium_robotics": ("gymnasium-robotics", "gymnasium-robotics==1.4.2"),
}

# All that decides how a model moves and where its sites are; of the options, and of the model's
# arrays by the beginning of their names. Geoms that nothing can touch do not count.
_OPTIONS = """
timestep integrator cone jacobian solver iterations tolerance ls_iterations ls_tolerance
noslip_iterations noslip_tolerance mpr_iterations mpr_tolerance impratio gravity wind magnetic
density viscosity disableflags enableflags disableactuator o_margin o_solref o_solimp o_friction
"""
_FIELDS = {
    "qpos": "0 _spring",
    "body": "_parentid _pos _quat _ipos _iquat _mass _inertia _gravcomp _mocapid",
    "jnt": "_type _bodyid _pos _axis _range _limited _stiffness _margin _solref _solimp "
    "_actfrclimited _actfrcrange _actgravcomp",
    "dof": "_armature _damping _frictionloss _solref _solimp",
    "geom": "_type _bodyid _contype _conaffinity _condim _pos _quat _size _friction _margin _gap "
    "_priority _solmix _solref _solimp _fluid",
    "site": "_bodyid _type _pos _quat _size",
    "exclude": "_signature",
    "pair": "_dim _geom1 _geom2 _friction _margin _gap _solref _solreffriction _solimp",
    "eq": "_type _obj1id _obj2id _data _active0 _solref _solimp",
    "tendon": "_adr _num _stiffness _damping _frictionloss _lengthspring _limited _range _margin "
    "_solref_lim _solimp_lim _solref_fri _solimp_fri",
    "wrap": "_type _objid _prm",
    "actuator": "_trntype _trnid _gear _dyntype _dynprm _gaintype _gainprm _biastype _biasprm "
    "_ctrllimited _ctrlrange _forcelimited _forcerange _actlimited _actrange _cranklength",
    "sensor": "_type _objtype _objid _reftype _refid _cutoff _noise _adr",
}

# All that the environments write to in their models, when they draw a placement.
_WRITTEN = ("body_pos", "body_quat", "site_pos")


def asset_path(package: str, relative: str) -> Path:
    """Find a file that a package ships, without importing the package.

    Args:
        package: Import name, `ogbench` or `gymnasium_robotics`.
        relative: Path of the file below the package's folder.

    Returns:
        The file's path.

    Raises:
        UserError: The package is not installed, or does not have the file.
    """
    name, tested = _PACKAGES[package]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the models of this D4RL task come with the package {name}, which is not installed: "
            f'run `pip install "{tested}"`'
        )
    path = Path(spec.submodule_search_locations[0], relative)
    if not path.is_file():
        raise UserError(
            f"the package {name} lacks {relative}, the model of this D4RL task: run "
            f'`pip install --force-reinstall --no-deps "{tested}"`'
        )
    return path


def require_version() -> None:
    """Make sure that MuJoCo moves these models as D4RL's did.

    Raises:
        UserError: It is older than 3.1.6, or 3.2 or later.
    """
    version = tuple(map(int, re.findall(r"\d+", mujoco.__version__)[:3]))
    if not _FIRST_MUJOCO <= version < _END_MUJOCO:
        raise UserError(
            "D4RL tasks need MuJoCo 3.1.6 or a later 3.1, because contacts differ in others, and "
            f'{mujoco.__version__} is installed: run `pip install "mujoco>=3.1.6,<3.2"`'
        )


def physical_fields(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Return all that decides how a model moves and where sites are."""
    fields = {name: np.array(getattr(model.opt, name)) for name in _OPTIONS.split()}
    for group, suffixes in _FIELDS.items():
        fields |= {group + suffix: getattr(model, group + suffix) for suffix in suffixes.split()}
    solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return {
        name: value[solid] if name.startswith("geom_") else value for name, value in fields.items()
    }


def fingerprint(model: mujoco.MjModel) -> str:
    """Return a platform-independent hash of a model's physical fields.

    Numbers are rounded to single precision, and to zero below 1e-12, because what the compiler
    computes rather than copies depends on the platform in its last bits.
    """
    digest = hashlib.sha256()
    for name, value in physical_fields(model).items():
        if value.dtype.kind == "f":
            # Adding zero makes negative zeros positive.
            value = np.where(np.abs(value) < 1e-12, 0, value).astype("<f4") + np.float32(0)
        else:
            value = value.astype("<i8")
        digest.update(f"{name}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


def require_fingerprint(model: mujoco.MjModel, expected: str, package: str) -> None:
    """Make sure that a model is the one compared with D4RL's.

    Args:
        model: The model as it was compiled.
        expected: Its fingerprint.
        package: Import name of the package that it came with.

    Raises:
        UserError: It has been changed.
    """
    found = fingerprint(model)
    if found != expected:
        name, tested = _PACKAGES[package]
        raise UserError(
            f"the model that the package {name} ships is not that of this D4RL task (fingerprint "
            f"{found} instead of {expected}): run "
            f'`pip install --force-reinstall --no-deps "{tested}"`'
        )


def load_model(
    key: Hashable, compile_model: Callable[[], mujoco.MjModel]
) -> tuple[mujoco.MjModel, sharing.Turns]:
    """Return a compiled model and the turns in which environments use it.

    Args:
        key: What the model depends on; within `sharing.shared_models` it is compiled once for each.
        compile_model: Compiles it.
    """

    def load() -> tuple[mujoco.MjModel, sharing.Turns]:
        model = compile_model()
        return model, sharing.Turns([getattr(model, name) for name in _WRITTEN])

    return sharing.once(key, load)


def norm(vector: np.ndarray) -> float:
    """Return the Euclidean norm of a vector (n,), faster than `np.linalg.norm`."""
    return math.sqrt(vector.dot(vector))


class Simulation(gymnasium.Env):
    """An environment over a MuJoCo model.

    An episode is a function of the reset's seed and the actions alone. `info` holds `success`
    (bool) at every step.

    A subclass gives the observation, the outcome of a step, the control that an action means, and
    what a reset samples; it fills `placement`, the views of arrays of the model that it writes to
    then, by name.

    Args:
        model: The compiled model.
        turns: Those in which it is used, see `load_model`.
        observation_size: Width of an observation.
        camera: Camera of the model by name, or one of the viewer's.
        reference_scores: Returns that stand for normalised scores of 0 and 100.
        render_mode: None or "rgb_array".
        width: Width of images, in pixels.
        height: Height of images, in pixels.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    frame_skip = 5
    """Steps of the simulation in one of the environment."""

    def __init__(
        self,
        model: mujoco.MjModel,
        turns: sharing.Turns,
        observation_size: int,
        camera: str | mujoco.MjvCamera,
        reference_scores: tuple[float, float],
        render_mode: str | None,
        width: int,
        height: int,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is None or 'rgb_array', not {render_mode!r}")
        self.render_mode = render_mode
        self.model, self.data, self._turns = model, mujoco.MjData(model), turns
        turns.take(self)
        self.placement: dict[str, np.ndarray] = {}
        bound = np.full(observation_size, np.inf)
        self.observation_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (model.nu,), np.float32)
        self._action_shape = (model.nu,)
        self._camera, self._size, self._renderer = camera, (height, width), None
        self._worst, self._best = reference_scores
        # Views that stay valid as long as the data do; looking them up costs more than using them.
        self._qpos, self._qvel, self._ctrl = self.data.qpos, self.data.qvel, self.data.ctrl

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode, which depends on a given seed alone."""
        super().reset(seed=seed)
        self._turns.take(self)
        mujoco.mj_resetData(self.model, self.data)
        self._sample_start()
        mujoco.mj_forward(self.model, self.data)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Args:
            action: Within +-1, (action_size,).

        Returns:
            Observation, reward, whether the episode has ended by itself, False, and `info`.
        """
        if action.shape != self._action_shape:
            raise ValueError(f"an action has shape {self._action_shape}, not {action.shape}")
        self._turns.take(self)
        self._ctrl[:] = self._control(action)
        mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)
        return self.outcome()

    def outcome(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return what a `step` into the present state would."""
        self._turns.take(self)
        observation = self._observe()
        reward, terminated, success = self._judge(observation)
        return observation, reward, terminated, False, {"success": success}

    def get_state(self) -> dict[str, np.ndarray]:
        """Return `qpos`, `qvel` and the entries of `placement`, as copies."""
        self._turns.take(self)
        state = {"qpos": self._qpos, "qvel": self._qvel} | self.placement
        return {name: value.copy() for name, value in state.items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Put the simulation into a state, whatever came before.

        Args:
            state: As `get_state` returns it; what is absent from it stays.

        Returns:
            The observation.
        """
        state = self.get_state() | dict(state)
        mujoco.mj_resetData(self.model, self.data)
        for name, view in ({"qpos": self._qpos, "qvel": self._qvel} | self.placement).items():
            view[:] = state[name]
        mujoco.mj_forward(self.model, self.data)
        return self._observe()

    def get_normalized_score(self, episode_return: float) -> float:
        """Return the score in percent of an episode with this return."""
        return 100 * (episode_return - self._worst) / (self._best - self._worst)

    def render(self) -> np.ndarray | None:
        """Return an image (height, width, 3) uint8, or None without a render mode.

        Raises:
            UserError: Nothing here can render.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            rendering.require_gl("images")
            self._renderer = mujoco.Renderer(self.model, *self._size)
        self._turns.take(self)
        self._renderer.update_scene(self.data, self._camera)
        return self._renderer.render()

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    @abstractmethod
    def _sample_start(self) -> None:
        """Sample the initial state into freshly reset data, and the placement."""

    @abstractmethod
    def _control(self, action: np.ndarray) -> np.ndarray:
        """Return the actuators' inputs (action_size,) that an action means."""

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """Return the observation as a new array (observation_size,)."""

    @abstractmethod
    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        """Return reward, whether the episode ends here, and success."""
