"""Toy environments, in a module that worker processes import without JAX."""

import gymnasium
import numpy as np


class Bandit(gymnasium.Env):
    """One action, one reward: the best action is 0.8."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    @staticmethod
    def reward_of(actions):
        return -((actions - 0.8) ** 2).sum(-1)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

    def step(self, action):
        return np.zeros(1), self.reward_of(action), True, False, {}


class Goal(gymnasium.Env):
    """Walk on a square to a corner in 20 steps; -1 per step, and the task ends at the goal."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    limit = 20
    goal = np.array([0.6, 0.6])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.position = self.np_random.uniform(-0.8, 0.2, 2)
        return self.position, {}

    def step(self, action):
        self.t += 1
        self.position = np.clip(self.position + 0.3 * action, -1.0, 1.0)
        reached = bool(np.abs(self.position - self.goal).max() < 0.3)
        truncated = self.t == self.limit and not reached
        return self.position, float(reached) - 1.0, reached, truncated, {"success": reached}


class Beacon(gymnasium.Env):
    """Walk on a square to a light within 10 steps; -1 per step, and the task ends at the light.

    Walker and light are seen in images alone, a channel each, as spots with soft edges; there is a
    margin that random crops may cut off.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 2), np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    limit = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        while True:
            self.position, self.light = self.np_random.uniform(-1.0, 1.0, (2, 2))
            if np.linalg.norm(self.light - self.position) > 0.8:
                return self.image(), {}

    def step(self, action):
        self.t += 1
        self.position = np.clip(self.position + 0.4 * np.asarray(action), -1.0, 1.0)
        reached = bool(np.linalg.norm(self.light - self.position) < 0.3)
        truncated = self.t == self.limit and not reached
        return self.image(), float(reached) - 1.0, reached, truncated, {"success": reached}

    def image(self):
        """The spots, (16, 16, 2)."""
        pixels = (np.indices((16, 16)) - 7.5) / 4.5
        spots = [
            np.exp(-((pixels - at[:, None, None]) ** 2).sum(0) / (2 * 0.3**2))
            for at in (self.position, self.light)
        ]
        return (255 * np.stack(spots, axis=-1)).astype(np.uint8)


def dataset(env, rows, policy, seed=0):
    """Transitions (rows, ...) of a policy from observations to actions, by key."""
    columns = {
        key: [] for key in ("observations", "actions", "next_observations", "rewards", "masks")
    }
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(rows):
        action = np.clip(policy(rng, observation), -1.0, 1.0)
        next_observation, reward, terminated, truncated, _ = env.step(action)
        step = (observation, action, next_observation, reward, 1.0 - terminated)
        for column, value in zip(columns.values(), step, strict=True):
            column.append(value)
        observation = env.reset()[0] if terminated or truncated else next_observation
    return {key: np.array(column, np.float32) for key, column in columns.items()}
