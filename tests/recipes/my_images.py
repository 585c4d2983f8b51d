"""A task with images as observations: find the bright column among eight.

python main.py --env_name=./my_images.py --agent.encoder=./my_encoder.py
"""

import gymnasium
import numpy as np


def image(column):
    """Return a black image (8, 8, 1) with one bright column."""
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[:, column] = 255
    return pixels


class Columns(gymnasium.Env):
    """The action names a column, from -1 at the left to 1; the farther off, the less reward."""

    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 1), np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Light a column."""
        super().reset(seed=seed)
        self.column = int(self.np_random.integers(8))
        return image(self.column), {}

    def step(self, action):
        """End the episode, which is one step long."""
        distance = abs(float(action[0]) - (self.column / 3.5 - 1))
        return image(self.column), -distance, True, False, {"success": distance < 0.15}


def make_env():
    """Return the environment that agents are evaluated in."""
    return Columns()


def load_datasets():
    """Return random guesses."""
    generator = np.random.default_rng(0)
    columns = generator.integers(8, size=400)
    actions = generator.uniform(-1, 1, (400, 1))
    images = np.stack([image(column) for column in columns])
    return {
        "observations": images,
        "actions": actions,
        "next_observations": images,
        "rewards": -np.abs(actions[:, 0] - (columns / 3.5 - 1)),
        "masks": np.zeros(400),
    }
