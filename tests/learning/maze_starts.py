"""The task of antmaze-large-navigate from starts nearer to its goal."""

from collections import deque

import gymnasium
import numpy as np

from utils.envs import tasks
from utils.errors import UserError

Cell = tuple[int, int]

TASK = "antmaze-large-navigate-singletask-task1-v0"


def shortest_path(walls: np.ndarray, start: Cell, goal: Cell) -> list[Cell]:
    """Return the cells of a shortest path through a maze (rows, columns), 0 where it is free."""
    before, queue = {goal: goal}, deque([goal])
    while start not in before:
        i, j = cell = queue.popleft()
        for following in ((i, j + 1), (i + 1, j), (i, j - 1), (i - 1, j)):
            if walls[following] == 0 and following not in before:
                before[following] = cell
                queue.append(following)
    path = [start]
    while path[-1] != goal:
        path.append(before[path[-1]])
    return path


def make_env(cells: int) -> gymnasium.Env:
    """Return the task's environment with a start so many cells from the goal, on its own path.

    Raises:
        UserError: The path is shorter.
    """
    env = tasks.make_env(TASK)
    maze, task = env.unwrapped, env.unwrapped.task_infos[0]
    path = shortest_path(np.array(maze.maze_map), task["init_ij"], task["goal_ij"])
    if not 0 < cells < len(path):
        raise UserError(f"--cells: the goal is 1 to {len(path) - 1} cells away, not {cells}")
    task["init_ij"] = path[-1 - cells]
    task["init_xy"] = maze.ij_to_xy(task["init_ij"])
    return env
