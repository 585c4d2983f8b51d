"""Episodes of the mazes, by a walker and the shortest paths of the ogbench package."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from utils.collect.config import CollectionConfig
from utils.envs.ogbench.environments import make_registered

_POINT_NOISE = 0.5
_ANT_NOISE = 0.2
_EXPLORE_NOISE = 1.0
_EXPLORE_STEPS = 10
_STITCH_CELLS = 4


class DirectionPolicy(Protocol):
    """A policy that is told the direction to walk in."""

    def act(self, observation: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return the action (d,) in a state without its position, for a unit direction (2,)."""


class PointWalker:
    """Policy of the point, whose action is the direction."""

    def act(self, observation: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return the direction (2,)."""
        return direction


class SubgoalOracle:
    """The package's oracle, which searches the maze anew at every step, with a memory.

    Its answer depends on two cells alone.

    Args:
        maze: The unwrapped maze.
    """

    def __init__(self, maze):
        self._maze = maze
        self._subgoals = {}

    def subgoal(self, position: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Return the centre (2,) of the next cell on a shortest path, in metres."""
        cells = self._maze.xy_to_ij(position), self._maze.xy_to_ij(goal)
        if cells not in self._subgoals:
            self._subgoals[cells], _ = self._maze.get_oracle_subgoal(position, goal)
        return self._subgoals[cells]


class MazeCollector:
    """Collector with a walker, by OGBench's rules for `navigate`, `stitch` and `explore`.

    Args:
        config: Settings.
        walker: What walks in the maze.
    """

    def __init__(self, config: CollectionConfig, walker: DirectionPolicy):
        self.env = make_registered(
            config.environment, max_episode_steps=config.rows, terminate_at_goal=False
        )
        self.kind = config.kind
        self.walker = walker
        self.noise = _POINT_NOISE if config.family.startswith("pointmaze") else _ANT_NOISE
        if self.kind == "explore":
            self.noise = _EXPLORE_NOISE
        maze = self.env.unwrapped
        self.oracle = SubgoalOracle(maze)
        free = maze.maze_map == 0
        self.free = [tuple(cell) for cell in np.argwhere(free).tolist()]
        self.corners = [cell for cell in self.free if not _is_corridor(free, *cell)]

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Run an episode, sampling from NumPy's global generator; yield its rows.

        Beside a file's columns, a row has `reached`, whether the step reached the goal for the
        first time, and `progress`, how far it led in the walker's direction, in metres.
        """
        env, maze = self.env, self.env.unwrapped
        observation, _ = env.reset(seed=reset_seed, options={"task_info": self._task()})
        step, done, pursued = 0, False, self.kind != "explore"
        while not done:
            position = maze.get_xy()
            if self.kind != "explore":
                subgoal = self.oracle.subgoal(position, maze.cur_goal_xy)
                direction = _normalized(subgoal - position)
            elif step % _EXPLORE_STEPS == 0:
                direction = _normalized(np.random.randn(2))
            action = self.walker.act(maze.get_ob("states")[2:], direction)
            action = np.clip(action + np.random.normal(0, self.noise, action.shape), -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            reached = pursued and bool(info["success"])
            if reached and self.kind == "navigate":
                maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(_choose(self.corners))))
            elif reached:
                pursued = False
            yield {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
                "reached": reached,
                "progress": direction @ (info["qpos"][:2] - position),
            }
            observation = next_observation
            step += 1

    def _task(self) -> dict[str, tuple[int, int]]:
        """Sample the cells of an episode's start and goal."""
        start = _choose(self.free)
        if self.kind == "stitch":
            goals = cells_at_distance(self.free, start, _STITCH_CELLS) or [start]
        else:
            goals = self.corners
        return {"init_ij": start, "goal_ij": _choose(goals)}


def cells_at_distance(
    free: list[tuple[int, int]], start: tuple[int, int], distance: int
) -> list[tuple[int, int]]:
    """Return the cells `distance` steps from `start`, in a fixed order."""
    seen, frontier = {start}, [start]
    for _ in range(distance):
        neighbours = [
            (i + di, j + dj) for i, j in frontier for di, dj in ((-1, 0), (0, -1), (1, 0), (0, 1))
        ]
        frontier = [c for c in dict.fromkeys(neighbours) if c in free and c not in seen]
        seen.update(frontier)
    return frontier


def _is_corridor(free: np.ndarray, i: int, j: int) -> bool:
    """Return whether one can only go straight on through cell (i, j)."""
    vertical, horizontal = (free[i - 1, j], free[i + 1, j]), (free[i, j - 1], free[i, j + 1])
    return (all(vertical) and not any(horizontal)) or (all(horizontal) and not any(vertical))


def _choose(cells: list[tuple[int, int]]) -> tuple[int, int]:
    """Sample a cell with NumPy's global generator."""
    return cells[np.random.randint(len(cells))]


def _normalized(vector: np.ndarray) -> np.ndarray:
    """Return a vector (2,) of length one, or zero for zero."""
    return vector / (np.linalg.norm(vector) + 1e-6)
