"""OGBench's environments, made reproducible."""

import contextlib
import copy
import dataclasses
import functools
import os
import tempfile
import types
from collections.abc import Iterator
from typing import Self

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from utils.envs import rendering, sharing
from utils.envs.ogbench import names

SUCCESS_TIMING = "post"
"""A step's reward and success belong to the state it leads to, as in OGBench before 1.2.0."""

# All that arms write to in their models: colours, a scene's targets and the locks of its handles.
_WRITTEN_BY_ARMS = ("geom_rgba", "mat_rgba", "site_pos", "dof_damping")


def make_env(full_name: str) -> gymnasium.Env:
    """Make a single-task environment.

    After `reset(seed=...)` an episode is a function of the seed and the actions, whatever the
    process did before and whatever else draws from NumPy's global generator.

    Args:
        full_name: Full OGBench name, see `utils.envs.tasks.resolve`.

    Returns:
        The environment, with its official time limit.

    Raises:
        UserError: Observations are images and nothing here can render.
    """
    if names.is_visual(full_name):
        rendering.require_gl("pixel observations")
    else:
        rendering.choose_gl()
    return make_registered(names.environment_id(full_name), success_timing=SUCCESS_TIMING)


def make_registered(env_id: str, **kwargs) -> gymnasium.Env:
    """Make an environment that ogbench registers, reproducible as `make_env` says.

    Within `sharing.shared_models`, arms share their models. Mazes do not: theirs take 1.4 MB, where
    an arm's two take 84.

    Args:
        env_id: Gymnasium id.
        **kwargs: Passed on to `gymnasium.make`.

    Returns:
        The environment.

    Raises:
        UserError: MuJoCo cannot be imported with what `MUJOCO_GL` is set to.
    """
    rendering.require_import()
    import ogbench  # noqa: F401  (registers its environments)

    spec = gymnasium.spec(env_id)
    creator = load_env_creator(spec.entry_point)
    if not isinstance(creator, type):
        with _passing_file():
            return _Maze(gymnasium.make(spec, disable_env_checker=True, **kwargs))
    arm = type(f"Reproducible{creator.__name__}", (_Arm, creator), {})
    spec = dataclasses.replace(spec, entry_point=functools.partial(_make_arm, arm))
    return gymnasium.make(spec, disable_env_checker=True, **kwargs)


@contextlib.contextmanager
def _passing_file() -> Iterator[None]:
    """Have ogbench hand a maze to MuJoCo in a file that is gone afterwards.

    Its own would stay, and stay open. On Linux this one has no name, so it is gone too if the
    process is killed meanwhile.
    """
    from ogbench.locomaze import maze

    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file = stack.enter_context(open(os.memfd_create("maze"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
        else:
            path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "maze.xml")
        maze.tempfile = types.SimpleNamespace(mkstemp=lambda **_: (None, path))
        stack.callback(setattr, maze, "tempfile", tempfile)
        yield


def _make_arm(arm: type, **kwargs) -> gymnasium.Env:
    """Make an arm, or one that shares the models of another of the same settings."""
    if not sharing.is_sharing():
        return arm(**kwargs)
    settings = arm.__name__, repr(sorted(kwargs.items()))
    return sharing.once(settings, lambda: arm(**kwargs).prepare()).twin()


class _Arm:
    """Mixin that keeps an arm to one seeded action space, and lets arms share their models.

    Its own action space is a new one, unseeded, at every access, and resets sample from it.
    """

    action_space = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.action_space = self._seedable_actions()
        self._turns: sharing.Turns | None = None

    def prepare(self) -> Self:
        """Do what the first reset would do once and for all; the original of twins stays there."""
        self._mjcf_model = self.modify_mjcf_model(self.build_mjcf_model())
        self.compile_model_and_data()
        self._never_compiled = False
        self._turns = sharing.Turns([getattr(self._model, name) for name in _WRITTEN_BY_ARMS])
        return self

    def twin(self) -> Self:
        """Return an arm with the same models and all else of its own, not reset yet."""
        import mujoco

        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(twin, name, value.copy())
        twin._data = mujoco.MjData(self._model)
        twin._scene_option, twin._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        twin.action_space = self._seedable_actions()
        return twin

    @staticmethod
    def _seedable_actions() -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)

    def compile_model_and_data(self):
        """Compile the model."""
        import mujoco

        super().compile_model_and_data()
        # MuJoCo keeps the last XML that it has read, with all meshes, until it reads another.
        mujoco.MjModel.from_xml_string("<mujoco/>")

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Reset the environment; with a seed, its action space too."""
        self._take_turn()
        if seed is not None:
            self.action_space.seed(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        """Take a step."""
        self._take_turn()
        return super().step(action)

    def render(self, *args, **kwargs):
        """Return an image."""
        self._take_turn()
        return super().render(*args, **kwargs)

    def _take_turn(self) -> None:
        if self._turns is not None:
            self._turns.take(self)

    def close(self):
        """Free the renderer, which complains when the interpreter's end does it."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        super().close()


class _Maze(gymnasium.Wrapper):
    """Wrapper that keeps a maze off NumPy's global generator."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._generator = np.random.MT19937()

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Reset the environment; with a seed, all that it samples from."""
        if seed is not None:
            self._generator = np.random.MT19937(seed)
            self.env.action_space.seed(seed)
        with self._own_generator():
            return self.env.reset(seed=seed, options=options)

    def step(self, action):
        """Take a step."""
        with self._own_generator():
            return self.env.step(action)

    def close(self):
        """Free the renderer, which complains when the interpreter's end does it."""
        if self.unwrapped.custom_renderer is not None:
            self.unwrapped.custom_renderer.close()
            self.unwrapped.custom_renderer = None
        super().close()

    @contextlib.contextmanager
    def _own_generator(self):
        """Make this environment's generator the global one for a while."""
        outside = np.random.get_bit_generator()
        np.random.set_bit_generator(self._generator)
        try:
            yield
        finally:
            np.random.set_bit_generator(outside)
