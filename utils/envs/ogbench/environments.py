"""OGBench's environments, made reproducible."""

import contextlib
import dataclasses

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from utils.envs import rendering
from utils.envs.ogbench import names

SUCCESS_TIMING = "post"
"""A step's reward and success belong to the state it leads to, as in OGBench before 1.2.0."""


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


class _Arm:
    """Mixin that keeps an arm to one seeded action space.

    Its own is a new one, unseeded, at every access, and resets sample from it.
    """

    action_space = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Reset the environment; with a seed, its action space too."""
        if seed is not None:
            self.action_space.seed(seed)
        return super().reset(seed=seed, options=options)

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
