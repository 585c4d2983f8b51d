"""Compare datasets of mazes by what can be seen in their files.

Official files of OGBench and those of utils.collect have the same columns, so the same is said of
both. A file keeps its dataset's name, antmaze-large-navigate-v0.npz or ...-val.npz.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils import files
from utils.collect.maze_maps import MazeMap, count_shortest_paths
from utils.collect.visits import Visits, draw_visits
from utils.envs import rendering
from utils.envs.ogbench import names
from utils.envs.ogbench.environments import make_registered
from utils.errors import UserError
from utils.output import guard_stdout
from utils.report.rendering import Table, markdown

_SATURATED = 0.99
_MOST_IN_WALLS = 0.01  # of the rows; of another maze's file it is a quarter or more
_REMEDY = "pass a dataset of one of OGBench's mazes"


@dataclass(frozen=True)
class MazeStatistics:
    """What a maze's dataset shows.

    Attributes:
        episodes: Number of episodes.
        rows: Rows of an episode, the mean.
        cells_per_episode: Share of the free cells that an episode visits, the mean.
        cells: Share of the free cells that are visited at all.
        paths: Shortest paths that make up an episode, the mean; see `count_shortest_paths`.
        speed: Metres per step, whatever the direction and without teleports.
        saturation: Share of the actions' components beyond 0.99.
        overturned: Share of the rows in which the torso's upper side points down; NaN for points.
        overturned_episodes: Number of episodes with such a row; NaN for points.
        overturned_ends: Number of episodes that end with such a row; NaN for points.
    """

    episodes: int
    rows: float
    cells_per_episode: float
    cells: float
    paths: float
    speed: float
    saturation: float
    overturned: float
    overturned_episodes: float
    overturned_ends: float


def maze_statistics(
    maze: MazeMap, qpos: np.ndarray, actions: np.ndarray, terminals: np.ndarray
) -> MazeStatistics:
    """Return the statistics of a dataset.

    Args:
        maze: Where it was collected.
        qpos: Positions of the joints, (n, 2) of points and (n, 15) of ants.
        actions: (n, d) within [-1, 1].
        terminals: (n,) bool, true in the last row of each episode.
    """
    ends = np.flatnonzero(terminals) + 1
    positions = qpos[:, :2].astype(np.float64)
    cells, distances = maze.cells(positions), maze.distances()
    walks, visited = np.split(positions, ends[:-1]), np.split(cells, ends[:-1])
    coverage = [len(np.unique(own[own >= 0])) / maze.free.sum() for own in visited]
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    steps = steps[~terminals[:-1] & (steps < maze.unit / 2)]
    overturned = _overturned(qpos)
    return MazeStatistics(
        episodes=len(ends),
        rows=len(qpos) / len(ends),
        cells_per_episode=float(np.mean(coverage)),
        cells=len(np.unique(cells[cells >= 0])) / maze.free.sum(),
        paths=float(np.mean([count_shortest_paths(maze.route(walk), distances) for walk in walks])),
        speed=float(steps.sum()) / max(1, len(steps)),
        saturation=float(np.mean(np.abs(actions) > _SATURATED)),
        overturned=float(overturned.mean()),
        overturned_episodes=float(sum(own.max() for own in np.split(overturned, ends[:-1]))),
        overturned_ends=float(overturned[ends - 1].sum()),
    )


def _overturned(qpos: np.ndarray) -> np.ndarray:
    """Return by row whether an ant lies on its back, as 0, 1 or, for points, NaN."""
    if qpos.shape[1] == 2:
        return np.full(len(qpos), np.nan)
    _, x, y, _ = qpos[:, 3:7].T  # The torso's quaternion.
    return (1 - 2 * (x**2 + y**2) < 0).astype(float)


def read_maze_dataset(path: str | Path) -> tuple[MazeMap, dict[str, np.ndarray]]:
    """Return a dataset's maze and its `qpos`, `actions` and `terminals`.

    Raises:
        UserError: It is no dataset of a maze with a point or an ant, by its name or its content.
    """
    stem = Path(path).name.removesuffix(".npz").removesuffix("-val")
    dataset = stem.removesuffix("-v0")
    if dataset not in names.DATASETS or not re.match("(visual-)?(point|ant)maze-", dataset):
        raise UserError(
            f"{path} is named like no dataset of a maze with a point or an ant "
            "(antmaze-large-navigate-v0.npz for instance); give it its official name"
        )
    # Positions are the same with images, which would need OpenGL.
    full_name = names.resolve(dataset.removeprefix("visual-"))
    rendering.choose_gl()
    env = make_registered(names.collection_id(full_name))
    try:
        columns = {
            "terminals": files.Column((), "biuf"),
            "qpos": files.Column((env.unwrapped.model.nq,), "f"),
            "actions": files.Column(env.action_space.shape, "f"),
        }
        arrays = files.read_arrays(path, columns, _REMEDY)
        maze = MazeMap.of(env.unwrapped)
    finally:
        env.close()
    arrays["terminals"] = arrays["terminals"].astype(bool)
    if not arrays["terminals"][-1]:
        raise UserError(f"{path} ends within an episode (its last row is not terminal); {_REMEDY}")
    if not _fits(maze, arrays["qpos"][:, :2].astype(np.float64)):
        raise UserError(
            f"{path} has positions outside the maze that its name says, or in its walls; give it "
            "its official name"
        )
    return maze, arrays


def _fits(maze: MazeMap, positions: np.ndarray) -> bool:
    """Return whether positions (n, 2) are those of a walk in the maze."""
    left, right, bottom, top = maze.extent
    x, y = positions.T
    inside = np.all((left <= x) & (x < right) & (bottom <= y) & (y < top))
    return bool(inside) and np.mean(maze.cells(positions) < 0) <= _MOST_IN_WALLS


def statistics_table(by_path: dict[str, MazeStatistics]) -> Table:
    """Return a row per dataset."""
    header = (
        "file",
        "episodes x rows",
        "cells per episode",
        "cells",
        "paths per episode",
        "m per step",
        "overturned (at the end)",
        "overturned rows",
        "saturation",
    )
    return Table(header, tuple((path, *_texts(stats)) for path, stats in by_path.items()))


def _texts(stats: MazeStatistics) -> tuple[str, ...]:
    walks = not np.isnan(stats.overturned)
    return (
        f"{stats.episodes} x {stats.rows:.0f}",
        f"{stats.cells_per_episode:.0%}",
        f"{stats.cells:.0%}",
        f"{stats.paths:.2f}",
        f"{stats.speed:.3f}",
        f"{stats.overturned_episodes:.0f} ({stats.overturned_ends:.0f})" if walks else "-",
        f"{stats.overturned:.1%}" if walks else "-",
        f"{stats.saturation:.1%}",
    )


def _title(path: str) -> str:
    """Return a file's name without its ending, and its folder's, which tells files apart."""
    path = Path(path).resolve()
    return f"{path.parent.name}/{path.stem}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, draw a picture, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect.statistics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a dataset of a maze")
    parser.add_argument(
        "--output",
        metavar="PICTURE",
        help="PNG file for maps of where the rows are (default: none)",
    )
    options = parser.parse_args(arguments)
    try:
        statistics, visits = {}, []
        for path in options.files:
            maze, arrays = read_maze_dataset(path)
            statistics[path] = maze_statistics(maze, **arrays)
            if options.output:
                visits.append(Visits.of(_title(path), maze, arrays["qpos"][:, :2]))
        print(markdown(statistics_table(statistics)))
        if options.output:
            draw_visits(visits, options.output)
            print(f"\nwritten: {options.output}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
