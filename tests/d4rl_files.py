"""Files in D4RL's format, from real environments with random actions."""

from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np

from utils.envs import tasks
from utils.envs.d4rl.data import dataset_path


def write_random(
    full_name: str,
    directory: Path,
    episodes: int,
    episode_length: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a task's file of random actions, a row per step, and return its path.

    Args:
        full_name: Id of the task.
        directory: Folder for the file.
        episodes: Number of episodes, which end at the goal, unlike those of D4RL's antmaze files.
        episode_length: Bound on their length; the task's horizon by default.
        seed: Seed of resets and actions.
    """
    env = tasks.make_env(full_name)
    random = np.random.default_rng(seed)
    columns = defaultdict(list)
    for _ in range(episodes):
        observation, _ = env.reset(seed=int(random.integers(2**31)))
        done, steps = False, 0
        while not done:
            action = random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            row = {"observations": observation, "actions": action}
            state = env.unwrapped.get_state()
            row |= {f"infos/{name}": value for name, value in state.items()}
            observation, row["rewards"], terminal, truncated, _ = env.step(action)
            steps += 1
            done = terminal or truncated or steps == episode_length
            row |= {"terminals": terminal, "timeouts": done and not terminal}
            for key, value in row.items():
                columns[key].append(value)
    env.close()
    path = dataset_path(full_name, directory)
    with h5py.File(path, "w") as file:
        for key, rows in columns.items():
            dtype = np.bool_ if key in ("terminals", "timeouts") else np.float32
            file.create_dataset(key, data=np.array(rows, dtype), compression="gzip")
    return path
