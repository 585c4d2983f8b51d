"""Stand-ins for `mujoco_py` and `mjrl` over the modern bindings, as much as d4rl calls of them.

They have what the documentation of the two packages says. Nothing here knows a task.
"""

import importlib
import sys
import types
from collections import namedtuple
from pathlib import Path

import mujoco
import numpy as np

MjSimState = namedtuple("MjSimState", "time qpos qvel act udd_state")


class Model:
    """`mujoco_py.PyMjModel`: MuJoCo's arrays, and ids by name."""

    def __init__(self, path):
        self.modern = mujoco.MjModel.from_xml_path(str(path))

    def __getattr__(self, name):
        kind, separator, _ = name.partition("_name2id")
        if separator:
            return lambda wanted: getattr(self.modern, kind)(wanted).id
        return getattr(self.modern, name)


class Data:
    """`mujoco_py.PyMjData`: MuJoCo's arrays, with the names that some had then."""

    def __init__(self, modern_model):
        self.modern_model = modern_model
        self.modern = mujoco.MjData(modern_model)

    def __getattr__(self, name):
        return getattr(self.modern, {"body_xpos": "xpos", "body_xquat": "xquat"}.get(name, name))

    def get_body_xpos(self, name):
        return self.modern.body(name).xpos


class MjSim:
    """`mujoco_py.MjSim`."""

    def __init__(self, model):
        self.model, self.data = model, Data(model.modern)

    def reset(self):
        mujoco.mj_resetData(self.model.modern, self.data.modern)

    def forward(self):
        mujoco.mj_forward(self.model.modern, self.data.modern)

    def step(self):
        mujoco.mj_step(self.model.modern, self.data.modern)

    def get_state(self):
        data = self.data.modern
        return MjSimState(data.time, data.qpos.copy(), data.qvel.copy(), None, {})

    def set_state(self, state):
        data = self.data.modern
        data.time, data.qpos[:], data.qvel[:] = state.time, state.qpos, state.qvel


def _mujoco_env(gym):
    """Return the class `mjrl.envs.mujoco_env.MujocoEnv`."""

    class MujocoEnv(gym.Env):
        def __init__(self, model_path, frame_skip):
            self.frame_skip = frame_skip
            self.model = Model(model_path)
            self.sim = MjSim(self.model)
            self.data = self.sim.data
            self.init_qpos, self.init_qvel = self.data.qpos.copy(), self.data.qvel.copy()
            observation, _, done, _ = self.step(np.zeros(self.model.nu))
            assert not done
            low, high = self.model.actuator_ctrlrange.T
            self.action_space = gym.spaces.Box(low, high, dtype=np.float32)
            bound = np.full(observation.shape, np.inf)
            self.observation_space = gym.spaces.Box(-bound, bound)
            self.seed()

        def seed(self, seed=None):
            self.np_random, seed = gym.utils.seeding.np_random(seed)
            return [seed]

        def reset(self):
            self.sim.reset()
            self.sim.forward()
            return self.reset_model()

        def set_state(self, qpos, qvel):
            self.sim.set_state(self.sim.get_state()._replace(qpos=qpos, qvel=qvel))
            self.sim.forward()

        def do_simulation(self, control, steps):
            self.data.ctrl[:] = control
            for _ in range(steps):
                self.sim.step()

    return MujocoEnv


def install(folder: Path) -> types.ModuleType:
    """Make the original's environments importable and registers them.

    Args:
        folder: Where d4rl and gym are.

    Returns:
        The original's gym.
    """
    sys.path.insert(0, str(folder))
    mujoco_py = types.ModuleType("mujoco_py")
    mujoco_py.load_model_from_path = Model
    mujoco_py.MjSim, mujoco_py.MjSimState, mujoco_py.MjViewer = MjSim, MjSimState, None
    mujoco_py.get_version = lambda: "2.0.2.13"
    sys.modules["mujoco_py"] = mujoco_py
    gym = importlib.import_module("gym")
    for name in ("mjrl", "mjrl.envs", "mjrl.envs.mujoco_env"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["mjrl.envs"].mujoco_env = sys.modules["mjrl.envs.mujoco_env"]
    sys.modules["mjrl.envs.mujoco_env"].MujocoEnv = _mujoco_env(gym)
    # The package's own __init__ would import every suite, and those need much else.
    package = types.ModuleType("d4rl")
    package.__path__ = [str(folder / "d4rl")]
    sys.modules["d4rl"] = package
    for suite in ("locomotion", "hand_manipulation_suite"):
        importlib.import_module(f"d4rl.{suite}")
    return gym
