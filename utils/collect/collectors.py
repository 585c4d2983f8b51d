"""Episodes of OGBench's datasets, by the oracles in its package."""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import gymnasium
import numpy as np

from utils.collect.config import SPLITS, CollectionConfig
from utils.envs.ogbench.environments import make_registered

_MAZE_NOISE = 0.5
_STITCH_CELLS = 4
_PLAN_NOISE = 0.1
_PLAN_SMOOTHING = 0.5
_MARKOV_MIN_NORM = 0.4
_MARKOV_NOISE = 0.1
# Standard deviations of the five action dimensions as multiples of the episode's noise level.
_MARKOV_NOISE_SCALE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
    "cube-octuple": (0.0, 0.35),
}
_STACKING_ELSEWHERE = (0.5, 0.5)
_SCENE_CUBE = slice(14, 17)  # The cube's position within qpos.


def make_collector(config: CollectionConfig) -> "ArmCollector | MazeCollector":
    """Return what collects in a worker process."""
    maze = config.family.startswith("pointmaze")
    return MazeCollector(config) if maze else ArmCollector(config)


def collect_episode(
    collector, config: CollectionConfig, split: str, episode: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return an episode's arrays, and the environment steps they took."""
    for attempt in itertools.count():
        data = collect_attempt(collector, config, split, episode, attempt)
        if data is not None:
            break
    return data, (attempt + 1) * config.rows


def collect_attempt(
    collector, config: CollectionConfig, split: str, episode: int, attempt: int
) -> dict[str, np.ndarray] | None:
    """Collect one episode, or return None where OGBench discards it.

    Args:
        collector: Collector made for `config`.
        config: Settings.
        split: `train` or `val`.
        episode: Number of the episode in its split.
        attempt: Number of discarded attempts before this one.

    Returns:
        Arrays with `config.rows` rows: `observations`, `actions`, `terminals`, `qpos`, `qvel` and,
        for scene and puzzle, `button_states`.
    """
    entropy = [config.seed, SPLITS.index(split), episode, attempt]
    reset_seed, *global_seed = np.random.SeedSequence(entropy).generate_state(9).tolist()
    # ogbench's oracles and mazes sample from NumPy's global generator.
    np.random.seed(global_seed)
    columns = defaultdict(list)
    for row in collector.steps(reset_seed):
        for key, value in row.items():
            columns[key].append(value)
    dtypes = {"terminals": np.bool_, "button_states": np.int64}
    if config.visual:
        dtypes["observations"] = np.uint8
    data = {key: np.array(rows, dtypes.get(key, np.float32)) for key, rows in columns.items()}
    if config.family == "scene" and not _cube_stays_visible(data["qpos"][:, _SCENE_CUBE]):
        return None
    return data


def _cube_stays_visible(positions: np.ndarray) -> bool:
    """Return whether the cube is on the table or in the drawer in all rows (n, 3)."""
    y, z = positions[:, 1], positions[:, 2]
    in_drawer = (z >= 0.06) & (z <= 0.08)
    return not np.any((y >= 0.29) | ((y <= -0.3) & ~in_drawer))


class ArmCollector:
    """Collector with the oracles of the manipulation environments."""

    def __init__(self, config: CollectionConfig):
        self.env = _make(config, mode="data_collection")
        self.noisy = config.kind == "noisy"
        self.oracles = _arm_oracles(self.env, config.family, self.noisy)
        self.p_random = 0.0
        if self.noisy:
            self.p_random = 0.2 if config.family.startswith("puzzle") else 0.1
        self.stacking = _STACKING.get(config.family, _STACKING_ELSEWHERE)

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Run an episode, sampling from NumPy's global generator; yield its rows."""
        env = self.env
        observation, info = env.reset(seed=reset_seed)
        p_stack = np.random.uniform(*self.stacking)
        scale = np.random.uniform(0, _MARKOV_NOISE) * _MARKOV_NOISE_SCALE
        oracle = self.oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        done = False
        while not done:
            if self.noisy and np.random.uniform() < self.p_random:
                action = np.random.uniform(-1, 1, size=env.action_space.shape)
            else:
                action = np.array(oracle.select_action(observation, info))
                if self.noisy:
                    action += np.random.normal(0, scale)
            action = np.clip(action, -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if oracle.done:
                target_observation, target_info = env.unwrapped.set_new_target(p_stack=p_stack)
                oracle = self.oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
            row = {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
            }
            if "prev_button_states" in info:
                row["button_states"] = info["prev_button_states"]
            yield row
            observation = next_observation


class MazeCollector:
    """Collector with the mazes' path finding, enough for the point."""

    def __init__(self, config: CollectionConfig):
        self.env = _make(config)
        self.kind = config.kind
        free = self.env.unwrapped.maze_map == 0
        self.free = [tuple(cell) for cell in np.argwhere(free).tolist()]
        self.corners = [cell for cell in self.free if not _is_corridor(free, *cell)]

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Run an episode, sampling from NumPy's global generator; yield its rows."""
        env, maze = self.env, self.env.unwrapped
        start = _choose(self.free)
        if self.kind == "stitch":
            goal = _choose(cells_at_distance(self.free, start, _STITCH_CELLS) or [start])
        else:
            goal = _choose(self.corners)
        task = {"init_ij": start, "goal_ij": goal}
        observation, _ = env.reset(seed=reset_seed, options={"task_info": task})
        done = False
        while not done:
            position = maze.get_xy()
            subgoal, _ = maze.get_oracle_subgoal(position, maze.cur_goal_xy)
            direction = subgoal - position
            direction = direction / (np.linalg.norm(direction) + 1e-6)
            action = np.clip(direction + np.random.normal(0, _MAZE_NOISE, direction.shape), -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if info["success"] and self.kind == "navigate":
                maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(_choose(self.corners))))
            yield {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
            }
            observation = next_observation


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


def _make(config: CollectionConfig, **kwargs) -> gymnasium.Env:
    """Make the environment that data are collected in."""
    return make_registered(
        config.environment, max_episode_steps=config.rows, terminate_at_goal=False, **kwargs
    )


def _arm_oracles(env, family: str, noisy: bool) -> dict:
    """Return the oracle of each kind of target task of an arm."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    if noisy:
        settings = {"env": env, "min_norm": _MARKOV_MIN_NORM}
        classes = (CubeMarkovOracle, ButtonMarkovOracle, DrawerMarkovOracle, WindowMarkovOracle)
    else:
        settings = {"env": env, "noise": _PLAN_NOISE, "noise_smoothing": _PLAN_SMOOTHING}
        classes = (CubePlanOracle, ButtonPlanOracle, DrawerPlanOracle, WindowPlanOracle)
    cube, button, drawer, window = classes
    if family.startswith("cube"):
        return {"cube": cube(**settings)}
    if family.startswith("puzzle"):
        return {"button": button(**settings, gripper_always_closed=True)}
    limit = {"max_step": 100} if noisy else {}
    return {
        "cube": cube(**settings, **limit),
        "button": button(**settings),
        "drawer": drawer(**settings),
        "window": window(**settings),
    }
