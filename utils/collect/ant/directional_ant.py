"""The ant that is to walk in a given direction, as OGBench's expert was trained.

The sources are the ogbench package's `online-ant-v0` and its `GymXYWrapper` (arXiv 2410.20092).
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from utils.envs import rendering

SECONDS_PER_STEP = 0.1
STEPS_PER_DIRECTION = 100

_QUATERNION = slice(1, 5)  # of the torso: w, x, y, z
_VELOCITY = slice(13, 15)  # of the torso in the world, horizontally


class DirectionalAnt(gymnasium.Wrapper):
    """`online-ant-v0`, rewarded for the distance walked in a direction.

    The direction is uniform, and sampled anew every 100 steps; the observation after the hundredth
    already belongs to the new one. What is observed is the ant's state as `rotate` has it, which
    leaves nothing to know of the direction. An episode is terminated when the torso's height leaves
    [0.2, 1.0] m, which an overturned ant's does not, and truncated after 1,000 steps.

    After `reset(seed=...)` an episode is a function of the seed and the actions.

    Attributes:
        direction: Unit vector (2,).
    """

    def __init__(self):
        rendering.require_import()
        import ogbench.online_locomotion  # noqa: F401  (registers it)

        super().__init__(gymnasium.make("online-ant-v0", disable_env_checker=True))
        self.observation_space = Box(-np.inf, np.inf, (27,), np.float64)
        self.direction = np.array([1.0, 0.0])
        self._steps = 0

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in a new direction."""
        observation, info = self.env.reset(**kwargs)
        self._steps = 0
        self._sample_direction()
        return rotate(observation, self.direction), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step.

        Args:
            action: Torques (8,) in [-1, 1].

        Returns:
            The observation (27,); the metres that the torso moved in the direction; whether
            the ant has fallen; whether the time is over; and `info`.
        """
        before = self._position()
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = float((self._position() - before) @ self.direction)
        self._steps += 1
        if self._steps % STEPS_PER_DIRECTION == 0:
            self._sample_direction()
        return rotate(observation, self.direction), reward, terminated, truncated, info

    def is_overturned(self) -> bool:
        """Whether the torso's upper side points down."""
        return bool(self.unwrapped.data.body("torso").xmat[8] < 0)

    def _position(self) -> np.ndarray:
        """Return a copy of where the torso is, (2,), in metres."""
        return self.unwrapped.data.qpos[:2].copy()

    def _sample_direction(self) -> None:
        direction = self.unwrapped.np_random.standard_normal(2)
        self.direction = direction / np.linalg.norm(direction)


def rotate(observations: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Rotate the world about the vertical so that the direction becomes +x.

    Ant and floor are the same in every direction: states that differ by a rotation alone become
    one. Of the two quaternions of an orientation the one with w >= 0 is taken. There are only sums,
    products, quotients and square roots, which IEEE 754 defines to the last digit.

    Args:
        observations: The ant's without its position, (..., 27): height, quaternion (w, x, y, z), 8
            joint angles, velocity in the world, angular velocity in the torso's frame, 8 joint
            velocities.
        directions: Unit vectors (..., 2).

    Returns:
        Observations (..., 27) as they would be if all had been rotated.
    """
    cos, sin = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    half_cos, half_sin = _half_angle(cos, sin)
    w, x, y, z = np.moveaxis(observations[..., _QUATERNION], -1, 0)
    quaternion = np.stack(
        [
            half_cos * w + half_sin * z,
            half_cos * x + half_sin * y,
            half_cos * y - half_sin * x,
            half_cos * z - half_sin * w,
        ],
        axis=-1,
    )
    velocity_x, velocity_y = np.moveaxis(observations[..., _VELOCITY], -1, 0)
    result = np.array(observations, np.float64)
    result[..., _QUATERNION] = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    result[..., 13] = cos * velocity_x + sin * velocity_y
    result[..., 14] = cos * velocity_y - sin * velocity_x
    return result


def _half_angle(cos: np.ndarray, sin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine (...) of half an angle, up to a common sign, from its own (...)."""
    ahead = cos >= 0  # the other form would lose digits
    half_cos, half_sin = np.where(ahead, 1 + cos, sin), np.where(ahead, sin, 1 - cos)
    length = np.sqrt(half_cos * half_cos + half_sin * half_sin)
    return half_cos / length, half_sin / length
