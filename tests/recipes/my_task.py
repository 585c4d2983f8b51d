"""A task in one file: walk on a line to 0.5. Data and environment are all that a task is.

python main.py --env_name=./my_task.py
"""

import gymnasium
import numpy as np


class Line(gymnasium.Env):
    """Reach 0.5 within 10 steps; every step costs 1."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin anywhere."""
        super().reset(seed=seed)
        self.position, self.time = self.np_random.uniform(-1, 1, 1).astype(np.float32), 0
        return self.position, {}

    def step(self, action):
        """Move by a fifth of the action."""
        self.position, self.time = np.clip(self.position + 0.2 * action, -1, 1), self.time + 1
        reached = bool(abs(self.position[0] - 0.5) < 0.1)
        return self.position, -1.0, reached, self.time == 10, {"success": reached}


def make_env():
    """Return the environment that agents are evaluated in."""
    return Line()


def load_datasets():
    """Return transitions of random walks."""
    env, generator = Line(), np.random.default_rng(0)
    names = ("observations", "actions", "next_observations", "rewards", "masks")
    rows = []
    for episode in range(40):
        observation, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = generator.uniform(-1, 1, 1).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, following, reward, 1.0 - terminated))
            observation, done = following, terminated or truncated
    return {
        name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
