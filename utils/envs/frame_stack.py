"""Stacks of frames as observations, as `utils.frames` makes them of data."""

import collections
from typing import Any

import gymnasium
import numpy as np


class FrameStack(gymnasium.Wrapper):
    """Wrapper that shows the last frames in the channels of one image, the oldest first.

    Gymnasium's own asks for the observation space at every step, for which OGBench's environments
    render a frame each time.

    Args:
        env: Its observations are images (height, width, channels).
        count: Frames per stack; after a reset the first is repeated.
    """

    def __init__(self, env: gymnasium.Env, count: int):
        super().__init__(env)
        self._frames: collections.deque[np.ndarray] = collections.deque(maxlen=count)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        """Stacks (height, width, count * channels)."""
        space, count = self.env.observation_space, self._frames.maxlen
        low, high = (np.concatenate(count * [bound], -1) for bound in (space.low, space.high))
        return gymnasium.spaces.Box(low, high, dtype=space.dtype)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment, and return its first frame repeated."""
        frame, info = self.env.reset(seed=seed, options=options)
        self._frames.extend(self._frames.maxlen * [np.array(frame)])
        return self._stack(), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        frame, *rest = self.env.step(action)
        self._frames.append(np.array(frame))  # a renderer may reuse its buffer
        return self._stack(), *rest

    def _stack(self) -> np.ndarray:
        return np.concatenate(self._frames, axis=-1)
