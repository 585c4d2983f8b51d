import re

import matplotlib.image
import numpy as np
import pytest

from utils.collect.maze_maps import MazeMap
from utils.collect.statistics import main, maze_statistics

FREE = np.array([[c == "." for c in row] for row in ("####", "#..#", "#.##", "####")])
MAP = MazeMap(FREE, 4.0, (-4.0, -4.0))
LARGE = "antmaze-large-navigate-v0.npz"


def ant_rows(cells, upside_down):
    """`qpos` of ants in cells (row, column), some of them on their backs."""
    qpos = np.zeros((len(cells), 15), np.float32)
    qpos[:, :2] = [(4.0 * j - 4, 4.0 * i - 4) for i, j in cells]
    qpos[:, 2] = 0.5
    # Half a turn about x, or a sixth of one about z.
    qpos[:, 3:7] = np.where(np.array(upside_down)[:, None], (0, 1, 0, 0), (0.866, 0, 0, 0.5))
    return qpos


def write_dataset(path, **changes):
    cells = [(1, 1), (1, 2), (1, 3), (1, 2), (7, 10), (7, 9)]
    data = {
        "qpos": ant_rows(cells, [False] * 6),
        "actions": np.full((6, 8), 0.5, np.float32),
        "terminals": np.array([0, 0, 0, 1, 0, 1], bool),
    }
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **(data | changes))
    return str(path)


def test_statistics_of_two_episodes():
    qpos = ant_rows([(1, 1), (1, 1), (1, 2), (1, 2), (2, 1), (2, 1)], [0, 0, 0, 1, 0, 1])
    qpos[1, 0] += 0.6
    qpos[5, 1] += 0.4
    actions = np.zeros((6, 8), np.float32)
    actions[0, :6], actions[1] = (1, -1, 0.995, -0.995, 0.98, -0.98), 1
    stats = maze_statistics(MAP, qpos, actions, np.array([0, 0, 0, 1, 0, 1], bool))
    assert (stats.episodes, stats.rows) == (2, 3)
    assert stats.cells_per_episode == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert stats.cells == 1
    assert stats.paths == 0.5
    # 0.6 m, a teleport that is left out, 0 m; 0.4 m. Between episodes nobody walks.
    assert stats.speed == pytest.approx((0.6 + 0 + 0.4) / 3)
    assert stats.saturation == pytest.approx(12 / 48)
    assert stats.overturned == pytest.approx(2 / 6)
    assert (stats.overturned_episodes, stats.overturned_ends) == (2, 2)


def test_an_ant_may_get_up_again():
    qpos = ant_rows([(1, 1)] * 4, [0, 1, 0, 0])
    stats = maze_statistics(MAP, qpos, np.zeros((4, 8)), np.array([0, 0, 0, 1], bool))
    assert (stats.overturned_episodes, stats.overturned_ends) == (1, 0)


def test_points_cannot_overturn():
    qpos = np.zeros((3, 2), np.float32)
    stats = maze_statistics(MAP, qpos, np.zeros((3, 2)), np.array([0, 0, 1], bool))
    assert np.isnan([stats.overturned, stats.overturned_ends]).all()


def test_command_prints_a_row_per_file_and_draws_both(tmp_path, capsys):
    ours = write_dataset(tmp_path / "ours" / LARGE)
    flat = ant_rows([(1, 1)] * 6, [True] * 6)
    theirs = write_dataset(tmp_path / "theirs" / LARGE, qpos=flat)
    point = write_dataset(
        tmp_path / "ours" / "pointmaze-medium-stitch-v0-val.npz",
        qpos=np.zeros((6, 2), np.float32),
        actions=np.zeros((6, 2), np.float32),
    )
    picture = tmp_path / "maps.png"
    assert main([ours, theirs, point, f"--output={picture}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    assert [row[0] for row in cells[2:]] == [ours, theirs, point]
    assert cells[2][1:] == ["2 x 3", "5%", "11%", "1.50", "0.000", "0 (0)", "0.0%", "0.0%"]
    assert cells[3][6:8] == ["2 (2)", "100.0%"]
    assert cells[4][6:8] == ["-", "-"]
    first = picture.read_bytes()
    image = matplotlib.image.imread(picture)
    assert image.shape[1] > 1000
    assert main([ours, theirs, point, f"--output={picture}"]) == 0
    assert picture.read_bytes() == first


def last_in(cell):
    """`qpos` of six rows, the last in that cell."""
    return ant_rows([(1, 1)] * 5 + [cell], [False] * 6)


OUTSIDE = "positions outside the maze that its name says, or in its walls; give it its official"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("large.npz", {}, "is named like no dataset of a maze with a point or an ant"),
        ("cube-single-play-v0.npz", {}, "is named like no dataset of a maze"),
        (LARGE, {"qpos": np.zeros((6, 2), np.float32)}, "'qpos' in .* has shape"),
        (LARGE, {"terminals": np.zeros(6, bool)}, "ends within an episode"),
        (LARGE, {"qpos": last_in((9, 1))}, OUTSIDE),  # of a larger maze
        (LARGE, {"qpos": last_in((1, -1))}, OUTSIDE),
        (LARGE, {"qpos": last_in((2, 2))}, OUTSIDE),  # a wall, as of a smaller maze
    ],
)
def test_files_that_are_no_datasets_of_mazes(tmp_path, capsys, name, changes, message):
    path = write_dataset(tmp_path / name, **changes)
    assert main([path]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_missing_file(tmp_path, capsys):
    assert main([str(tmp_path / LARGE)]) == 1
    assert "cannot read" in capsys.readouterr().err
