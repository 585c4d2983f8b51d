import numpy as np
import pytest

from utils.collect.maze_maps import MazeMap, count_shortest_paths
from utils.envs.ogbench.environments import make_registered

# Free cells are numbered row by row:  0 1 2 / 3 . 4 / 5 . 6
FREE = np.array([[c == "." for c in row] for row in ("#####", "#...#", "#.#.#", "#.#.#", "#####")])
MAP = MazeMap(FREE, 4.0, (-4.0, -4.0))


def at(*cells):
    """Positions of the centres of cells (row, column)."""
    return np.array([(4.0 * j - 4, 4.0 * i - 4) for i, j in cells])


@pytest.mark.parametrize("maze_type", ["medium", "teleport"])
def test_cells_are_those_of_the_package(maze_type):
    env = make_registered(f"pointmaze-{maze_type}-v0").unwrapped
    maze = MazeMap.of(env)
    left, right, bottom, top = maze.extent
    rng = np.random.default_rng(0)
    positions = rng.uniform((left, bottom), (right, top), size=(500, 2))
    free = [tuple(cell) for cell in np.argwhere(env.maze_map == 0).tolist()]
    expected = [free.index(cell) if cell in free else -1 for cell in map(env.xy_to_ij, positions)]
    assert maze.cells(positions).tolist() == expected
    assert {-1, 0, len(free) - 1} <= set(expected)


def test_distances_are_those_of_the_package():
    env = make_registered("pointmaze-large-v0").unwrapped
    distances = MazeMap.of(env).distances()
    free = np.argwhere(env.maze_map == 0)
    for goal in (0, 11, len(free) - 1):
        xy = np.array(env.ij_to_xy(free[goal]))
        _, steps = env.get_oracle_subgoal(xy, xy)
        np.testing.assert_array_equal(distances[goal], steps[tuple(free.T)])


def test_cells_that_cannot_be_reached_are_infinitely_far():
    distances = MazeMap(np.array([[True, False, True]]), 4.0, (0.0, 0.0)).distances()
    np.testing.assert_array_equal(distances, [[0, np.inf], [np.inf, 0]])


def test_route_passes_over_what_is_only_touched():
    walk = at((1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (3, 1))
    walk[2, 0] += 2.1
    assert MAP.cells(walk).tolist() == [0, 0, 1, 0, 3, 5]
    assert MAP.route(walk).tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("route", "paths"),
    [
        ([], 0),
        ([3], 0),
        ([5, 3, 0, 1, 2, 4, 6], 1),
        ([5, 3, 5], 2),
        ([3, 5, 3, 0, 1, 0], 3),
        ([5, 3, 1, 2], 1),  # A corner was cut.
        ([5, 3, 6, 4], 1),  # A teleport, after which the goal is the same.
        ([5, 3, 6, 4, 6], 2),
    ],
)
def test_number_of_shortest_paths(route, paths):
    assert count_shortest_paths(np.array(route), MAP.distances()) == paths
