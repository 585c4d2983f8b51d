import shutil

import pytest

from tests.report.run_folders import TASK, grid_of, make_grid, make_run
from utils.errors import UserError
from utils.report.grid import short_name, task_groups


def test_tasks_of_a_group_stand_side_by_side_and_methods_as_they_come(tmp_path):
    make_run(tmp_path / "a", agent="zeta", task="scene-play-singletask-task2-v0")
    make_run(tmp_path / "b", agent="alpha", task=TASK.format(5))
    make_run(tmp_path / "c", agent="alpha", task=TASK.format(2))
    make_run(tmp_path / "d", agent="alpha", task=TASK.format(1).replace("-task1", ""))
    grid = grid_of(tmp_path)
    assert [short_name(task) for task in grid.tasks] == [
        *("cube-double-play", "cube-double-play-task2", "cube-double-play-task5"),
        "scene-play-task2",
    ]
    assert grid.labels == ("zeta", "alpha")


def test_labels_name_the_methods_in_their_order(tmp_path):
    make_grid(tmp_path, methods=2, tasks=2)
    assert grid_of(tmp_path, ["One", "Two"]).labels == ("One", "Two")
    with pytest.raises(UserError, match="3 labels for 2 methods; give one for each of agent0; ag"):
        grid_of(tmp_path, ["a", "b", "c"])
    with pytest.raises(UserError, match="two methods cannot have one label"):
        grid_of(tmp_path, ["a", "a"])


def test_a_group_is_averaged_over_the_tasks_that_all_methods_have(tmp_path):
    make_grid(tmp_path, methods=2, tasks=5)
    (group,) = task_groups(grid_of(tmp_path))
    assert group.title == "cube-double-play (5 tasks)"
    make_run(tmp_path / "x", agent="agent0", task="scene-play-singletask-task1-v0")
    shutil.rmtree(tmp_path / "1-3")
    titles = [group.title for group in task_groups(grid_of(tmp_path))]
    assert titles == ["cube-double-play (4 of 5 tasks)"]


def test_one_task_is_no_group_and_equal_groups_are_one(tmp_path):
    make_grid(tmp_path, methods=2, tasks=1)
    assert task_groups(grid_of(tmp_path)) == []
    make_grid(tmp_path, methods=2, tasks=2)
    assert [group.title for group in task_groups(grid_of(tmp_path))] == ["all (2 tasks)"]


def test_all_tasks_are_a_group_besides_those_of_the_benchmark(tmp_path):
    make_grid(tmp_path, methods=1, tasks=5)
    for task in (1, 2):
        make_run(tmp_path / f"x{task}", agent="agent0", task=f"scene-play-singletask-task{task}-v0")
    titles = [group.title for group in task_groups(grid_of(tmp_path))]
    assert titles[0] == "cube-double-play (5 tasks)"
    assert "all (7 tasks)" in titles or "ogbench-states (7 of 50 tasks)" in titles


def test_tasks_with_different_metrics_are_not_averaged(tmp_path):
    make_grid(tmp_path, methods=1, tasks=2)
    make_run(
        tmp_path / "x",
        agent="agent0",
        task="pen-cloned-v1",
        protocol={"metric": "return", "evaluations": 1},
    )
    (group,) = task_groups(grid_of(tmp_path))
    assert group.tasks == (TASK.format(1), TASK.format(2))


def test_a_task_file_that_is_gone_is_called_by_its_name():
    assert short_name("/no/such/my_task.py") == "my_task"
    assert short_name("cube-double-play-singletask-task2-v0") == "cube-double-play-task2"


def test_means_of_different_metrics_have_different_names(tmp_path):
    for i, task in enumerate(("cube-single-play", "puzzle-3x3-play")):
        make_run(tmp_path / f"o{i}", agent="fql", task=f"{task}-singletask-task1-v0")
    for task in ("antmaze-umaze-v2", "pen-human-v1"):
        run = make_run(tmp_path / task, agent="fql", task=task)
        (run / "eval.csv").write_text("step,seed,normalized_return\n400,0,1\n400,1,2\n")
    titles = [group.title for group in task_groups(grid_of(tmp_path))]
    assert titles == ["all by success (2 tasks)", "all by normalized return (2 tasks)"]
