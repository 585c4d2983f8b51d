"""Episodes of OGBench's datasets, each a function of its number and the settings."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from utils.collect import episode_files
from utils.collect.ant.walker import Walker
from utils.collect.arms import ArmCollector
from utils.collect.config import SPLITS, CollectionConfig
from utils.collect.mazes import MazeCollector, PointWalker
from utils.collect.tallies import TRACES, Tally

_SCENE_CUBE = slice(14, 17)  # The cube's position within qpos.


def make_collector(config: CollectionConfig) -> ArmCollector | MazeCollector:
    """Return what collects in a worker process.

    Raises:
        UserError: The ant's walker cannot be read.
    """
    if config.has_ant:
        return MazeCollector(config, Walker.load(config.walker))
    if config.family.startswith("pointmaze"):
        return MazeCollector(config, PointWalker())
    return ArmCollector(config)


class EpisodeWorker:
    """Collects episodes, and writes their files.

    Args:
        config: Settings.
        folder: Folder of the finished episodes.
        columns: What becomes of an episode's arrays in its file.
    """

    def __init__(
        self,
        config: CollectionConfig,
        folder: Path,
        columns: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    ):
        self._config = config
        self._folder = folder
        self._columns = columns
        self._collector = make_collector(config)

    def __call__(self, split: str, episode: int) -> Tally:
        """Collect and save one episode; return its tally."""
        data, tally = collect_episode(self._collector, self._config, split, episode)
        episode_files.save(self._folder, split, episode, self._columns(data))
        return tally


def collect_episode(
    collector: ArmCollector | MazeCollector, config: CollectionConfig, split: str, episode: int
) -> tuple[dict[str, np.ndarray], Tally]:
    """Return an episode's arrays for the dataset, and its tally."""
    for attempt in itertools.count():
        data = collect_attempt(collector, config, split, episode, attempt)
        if data is not None:
            break
    traces = {key: data.pop(key) for key in TRACES if key in data}
    return data, Tally.of_episode((attempt + 1) * config.rows, traces)


def collect_attempt(
    collector: ArmCollector | MazeCollector,
    config: CollectionConfig,
    split: str,
    episode: int,
    attempt: int,
) -> dict[str, np.ndarray] | None:
    """Collect one episode, or return None where OGBench discards it.

    Args:
        collector: Collector made for `config`.
        config: Settings.
        split: `train` or `val`.
        episode: Number of the episode in its split.
        attempt: Number of discarded attempts before this one.

    Returns:
        Arrays with `config.rows` rows: `observations`, `actions`, `terminals`, `qpos`, `qvel`, for
        scene and puzzle `button_states`, and for mazes `TRACES`. Their dtypes are the
        environment's: float64 where it computes in it.
    """
    entropy = [config.seed, SPLITS.index(split), episode, attempt]
    reset_seed, *global_seed = np.random.SeedSequence(entropy).generate_state(9).tolist()
    # ogbench's oracles and mazes sample from NumPy's global generator.
    np.random.seed(global_seed)
    columns = defaultdict(list)
    for row in collector.steps(reset_seed):
        for key, value in row.items():
            columns[key].append(value)
    data = {key: np.array(rows) for key, rows in columns.items()}
    if config.family == "scene" and not _cube_stays_visible(data["qpos"][:, _SCENE_CUBE]):
        return None
    return data


def file_columns(data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an episode's arrays with the dtypes of OGBench's files, whose floats are float32."""
    return {
        key: array.astype(np.float32) if array.dtype.kind == "f" else array
        for key, array in data.items()
    }


def exact_states(data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an episode's arrays as they are, without its observations."""
    return {key: array for key, array in data.items() if key != "observations"}


def _cube_stays_visible(positions: np.ndarray) -> bool:
    """Return whether the cube is on the table or in the drawer in all rows (n, 3)."""
    y, z = positions[:, 1], positions[:, 2]
    in_drawer = (z >= 0.06) & (z <= 0.08)
    return not np.any((y >= 0.29) | ((y <= -0.3) & ~in_drawer))
