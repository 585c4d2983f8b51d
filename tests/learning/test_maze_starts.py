import numpy as np
import pytest

from tests.learning.maze_starts import make_env, shortest_path
from utils.errors import UserError


def test_the_shortest_path_goes_around_walls():
    walls = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert shortest_path(walls, (1, 1), (1, 3)) == [(1, 1), (2, 1), (2, 2), (2, 3), (1, 3)]


def test_the_farthest_start_is_the_task_s_own_and_others_are_nearer():
    positions = []
    for cells in (15, 4):
        env = make_env(cells)
        env.reset(seed=0)
        positions.append(np.linalg.norm(env.unwrapped.get_xy() - env.unwrapped.cur_goal_xy))
        assert env.unwrapped.cur_task_info["goal_ij"] == (7, 10)
        if cells == 15:
            assert env.unwrapped.cur_task_info["init_ij"] == (1, 1)
        env.close()
    assert positions[1] < positions[0] / 2
    with pytest.raises(UserError, match="1 to 15 cells away, not 16"):
        make_env(16)
