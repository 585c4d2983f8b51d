"""Environments that show stacks of frames, as the data do."""

import gymnasium
import numpy as np

from tests.recipes import my_images
from utils.envs import tasks
from utils.envs.frame_stack import FrameStack
from utils.frames import FrameStacks, stack_frames


class Counter(gymnasium.Env):
    """Shows the number of the step in one buffer, and counts how often its space is asked for."""

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.buffer, self.asked = np.zeros((2, 2, 1), np.uint8), 0

    @property
    def observation_space(self):
        self.asked += 1
        return gymnasium.spaces.Box(0, 255, (2, 2, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        self.buffer[:] = 10
        return self.buffer, {"seed": seed}

    def step(self, action):
        self.buffer += 1
        return self.buffer, 1.0, False, self.buffer[0, 0, 0] == 14, {"success": True}


def test_an_episode_looks_as_it_does_in_the_data():
    env = FrameStack(Counter(), 3)
    for seed in (0, 1):
        first, info = env.reset(seed=seed)
        assert info == {"seed": seed}
        seen, ended = [first], False
        while not ended:
            observation, reward, _, ended, info = env.step(np.zeros(1))
            seen.append(observation)
        assert (reward, info) == (1.0, {"success": True})
        frames = np.arange(10, 15, dtype=np.uint8)[:, None, None, None] * np.ones(
            (1, 2, 2, 1), np.uint8
        )
        data = stack_frames(FrameStacks.of_steps(frames, np.arange(5) == 4), 3)
        np.testing.assert_array_equal(seen[:-1], np.asarray(data["observations"]))
        np.testing.assert_array_equal(seen[1:], np.asarray(data["next_observations"]))
    assert env.unwrapped.asked == 0  # rendering answers it
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (2, 2, 3), np.uint8)


def test_a_task_is_made_with_its_stacks():
    path = my_images.__file__
    shapes = [tasks.make_env(path, n).observation_space.shape for n in (None, 1, 3)]
    assert shapes == [(8, 8, 1), (8, 8, 1), (8, 8, 3)]
