import numpy as np
import pytest

from tests.report.run_folders import grid_of, make_grid, make_run
from utils.report import statistics
from utils.report.aggregates import compare, group_scores
from utils.report.grid import task_groups


def test_methods_are_compared_with_the_one_of_the_greatest_iqm(tmp_path):
    make_grid(tmp_path, methods=3, tasks=5, seeds=4)
    grid = grid_of(tmp_path)
    (group,) = task_groups(grid)
    found = compare(grid, group, "last")
    assert found.reference == "agent2"
    assert list(found.improvements) == ["agent0", "agent1"]
    scores = {label: group_scores(grid, group, label, "last") for label in grid.labels}
    assert np.allclose(scores["agent1"], 5 * [[30, 32, 34, 36]])
    assert found.means["agent1"].value == pytest.approx(33)
    assert found.iqms["agent1"].value == pytest.approx(33)
    low, high = statistics.bootstrap_interval(statistics.iqm, scores["agent1"])
    assert found.iqms["agent1"].interval == (low, high)
    assert found.improvements["agent1"].value == 1.0
    assert found.doubts == {"agent0": [], "agent1": [], "agent2": []}


def test_one_seed_has_no_interval(tmp_path):
    make_grid(tmp_path, methods=2, tasks=2, seeds=1)
    grid = grid_of(tmp_path)
    found = compare(grid, task_groups(grid)[0], "last")
    assert found.means["agent0"].interval is None
    assert found.improvements["agent0"].interval is None


def test_what_a_mean_lacks_is_said(tmp_path):
    make_grid(tmp_path, methods=1, tasks=3, seeds=2)
    make_run(
        tmp_path / "0-1", agent="agent0", task="scene-play-singletask-task1-v0", finished=False
    )
    grid = grid_of(tmp_path)
    (group,) = [group for group in task_groups(grid) if len(group.tasks) == 2]
    assert compare(grid, group, "last").doubts == {"agent0": []}
    (tmp_path / "0-2" / "score.json").unlink()
    grid = grid_of(tmp_path)
    assert compare(grid, group, "last").doubts == {
        "agent0": ["from unfinished runs on 1 of 2 tasks"]
    }
    run = {"agent": "agent0", "task": group.tasks[1], "offline_steps": 300}
    make_run(tmp_path / "more", success=(0.1,), seed=2, seeds=1, finished=False, **run)
    assert compare(grid_of(tmp_path), group, "last").doubts["agent0"][0] == (
        "without some seeds on 1 of 2 tasks"
    )
