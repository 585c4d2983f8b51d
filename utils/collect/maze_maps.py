"""Mazes as maps: which cells are free, where positions lie, how far apart cells are."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

# Positions this near to a cell's centre, in cells, are on a route through it. Nearer to its border
# a walker may sway to and fro.
_INSIDE = 0.375

# Whoever is further off, in cells, has been teleported. Around a corner one may miss a cell.
_LONGEST_STEP = 2


@dataclass(frozen=True)
class MazeMap:
    """The cells of one of OGBench's mazes.

    Attributes:
        free: Which cells are no walls, (rows, columns) bool.
        unit: Width of a cell in metres.
        origin: Position (x, y) of the centre of the first row's first cell, in metres.
    """

    free: np.ndarray
    unit: float
    origin: tuple[float, float]

    @classmethod
    def of(cls, maze) -> "MazeMap":
        """Return the map of an unwrapped maze of the ogbench package."""
        origin, neighbour = maze.ij_to_xy((0, 0)), maze.ij_to_xy((0, 1))
        return cls(maze.maze_map == 0, neighbour[0] - origin[0], origin)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """The borders in metres: left, right, bottom and top."""
        rows, columns = self.free.shape
        left, bottom = (start - self.unit / 2 for start in self.origin)
        return left, left + columns * self.unit, bottom, bottom + rows * self.unit

    def cells(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers (n,) of the free cells of positions (n, 2) in metres; -1 in walls.

        Positions must be within `extent`.
        """
        column, row = np.floor(self._in_cells(positions) + 0.5).astype(int).T
        return self._numbers()[row, column]

    def route(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers (m,) of the free cells that a walk (n, 2) leads through, in order."""
        place = self._in_cells(positions)
        inside = np.abs(place - np.rint(place)).max(axis=1) <= _INSIDE
        cells = self.cells(positions[inside])
        cells = cells[cells >= 0]
        return cells[np.flatnonzero(np.diff(cells, prepend=-1))]

    def distances(self) -> np.ndarray:
        """Return the steps between all pairs of free cells, (cells, cells)."""
        numbers = self._numbers()
        ones = np.concatenate([numbers[1:].ravel(), numbers[:, 1:].ravel()])
        others = np.concatenate([numbers[:-1].ravel(), numbers[:, :-1].ravel()])
        free = (ones >= 0) & (others >= 0)
        count = numbers.max() + 1
        graph = coo_array((np.ones(free.sum()), (ones[free], others[free])), shape=(count, count))
        return shortest_path(graph.tocsr(), directed=False, unweighted=True)

    def _in_cells(self, positions: np.ndarray) -> np.ndarray:
        return (positions - np.array(self.origin)) / self.unit

    def _numbers(self) -> np.ndarray:
        """Return the number of each free cell, and -1 for walls."""
        numbers = np.full(self.free.shape, -1)
        numbers[self.free] = np.arange(self.free.sum())
        return numbers


def count_shortest_paths(route: np.ndarray, distances: np.ndarray) -> int:
    """Return the least number of shortest paths that make up a route.

    Whoever takes a shortest path to one goal after another has at least as many goals. Those that
    lie straight on cannot be told from the ones before.

    Args:
        route: Numbers of cells, see `MazeMap.route`.
        distances: Steps between all cells.
    """
    if len(route) < 2:
        return 0
    paths, start, length = 1, route[0], 0
    for before, here in itertools.pairwise(route):
        step = distances[before, here]
        if step > _LONGEST_STEP:
            start, length = here, 0
        elif distances[start, here] < length + step:
            paths, start, length = paths + 1, before, step
        else:
            length += step
    return paths
