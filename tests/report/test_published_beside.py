import dataclasses

import pytest

from tests.report.run_folders import make_run
from utils.envs import tasks
from utils.report.pooling import pool
from utils.report.published.beside import beside_groups, beside_tasks, text
from utils.report.records import find_runs, read_run

CUBES = tasks.groups()["cube-double-play"]
SETTINGS = {
    "sampling": "uniform",
    "eval_policy": "sample",
    "restore_path": None,
    "agent.batch_size": 256,
    "agent.actor_hidden_dims": [512] * 4,
    "agent.value_hidden_dims": [512] * 4,
}


def cells(*folders):
    return pool(record for folder in find_runs(folders)[0] for record in read_run(folder))


@pytest.fixture
def evaluations(monkeypatch):
    """Let runs that are made be evaluated every 100,000 steps instead of 100."""
    from tests.report import run_folders

    write = run_folders.write
    monkeypatch.setattr(
        run_folders,
        "write",
        lambda path, rows: write(path, [row | {"step": 1000 * row["step"]} for row in rows]),
    )


def make(folder, **changes):
    rates = [0.1] * 7 + [0.3, 0.4, 0.5]
    usual = {"success": rates, "settings": SETTINGS, "offline_steps": 1_000_000}
    return make_run(folder, **usual | changes)


def test_a_group_of_tasks_is_compared_with_the_mean_of_all_of_them(tmp_path, evaluations):
    names = [CUBES[0], tasks.resolve("cube-double-play"), *CUBES[2:]]  # one by its other name
    for i, name in enumerate(names):
        make(tmp_path / str(i), task=name)
    make(tmp_path / "other", task="my_task.py")
    found = beside_groups(cells(tmp_path))
    (comparison,) = found["cube-double-play", "deflow"]
    assert comparison.difference == pytest.approx(40 + 1 - 40)  # the second seed has 2 % more
    assert comparison.standard_errors == pytest.approx(1 / (1 / 5 + 25 / 8) ** 0.5)
    assert text(found["cube-double-play", "deflow"]) == (
        "40 ± 5 (8 seeds), arXiv 2601.10471; +1.0 = +0.5 SE; data not verified as the official file"
    )
    assert beside_tasks(cells(tmp_path)) == {}


def test_a_part_of_a_group_is_not_compared_with_its_mean(tmp_path, evaluations):
    scene = "scene-play-singletask-task1-v0"
    for i, name in enumerate([*CUBES[2:], scene]):
        make(tmp_path / str(i), task=name)
    expected = "40 ± 5 (8 seeds), arXiv 2601.10471; not comparable: {}"
    own = cells(tmp_path)
    groups, single = beside_groups(own), beside_tasks(own)
    assert text(groups["cube-double-play", "deflow"]) == expected.format("3 of 5 tasks")
    assert text(single.pop((scene, "deflow"))).startswith("51 ± 3 (8 seeds)")
    assert {key: text(found) for key, found in single.items()} == {
        (name, "deflow"): expected.format("the mean of 5 tasks") for name in CUBES[2:]
    }


def test_runs_of_another_protocol_are_not_compared(tmp_path, evaluations):
    for i, name in enumerate(CUBES):
        make(tmp_path / str(i), task=name, success=[0.1, 0.2], eval_episodes=10)
    (comparison,) = beside_groups(cells(tmp_path))["cube-double-play", "deflow"]
    assert comparison.text == "not comparable: 200K of 1M steps; 10 episodes, published 50"
    # The same runs, scored by another kind of score than the protocol's.
    for i, name in enumerate(CUBES):
        make(tmp_path / str(i), task=name)
    (comparison,) = beside_groups(cells(tmp_path), "last")["cube-double-play", "deflow"]
    assert comparison.text == "not comparable: scored at 1M, published 800K, 900K, 1M"


def test_a_run_that_goes_online_is_compared_at_both_ends(tmp_path, evaluations):
    usual = {"task": CUBES[1], "online_start": 1_000_000, "online_steps": 1_000_000}
    make(tmp_path / "a", success=[0.4] * 10 + [0.9] * 10, **usual)
    found = beside_tasks(cells(tmp_path))[CUBES[1], "deflow"]
    assert beside_groups(cells(tmp_path)) == {}
    assert [one.difference for one in found] == pytest.approx([41 - 48, 91 - 93])
    assert text(found) == (
        "48 (8 seeds) -> 93 (8 seeds), arXiv 2601.10471; -7.0, no standard error -> -2.0, no "
        "standard error; no published standard deviation; data not verified as the official file"
    )


def test_a_run_without_an_evaluation_and_an_agent_of_ones_own_are_no_obstacle(tmp_path):
    make(tmp_path / "a", task="pen-cloned-v1", success=[], online_start=1_000_000, online_steps=5)
    make(tmp_path / "b", agent="my_agent")
    first, second = beside_tasks(cells(tmp_path))["pen-cloned-v1", "deflow"]
    assert "no score" in first.text
    assert "no score" in second.text
    assert not [key for key in beside_tasks(cells(tmp_path)) if key[1] == "my_agent"]


def test_seeds_without_an_evaluation_in_common_have_no_score(tmp_path, evaluations):
    make(tmp_path / "a", task="pen-cloned-v1", online_start=1_000_000, online_steps=5)
    (cell,) = cells(tmp_path)
    first, second = cell.records
    second = dataclasses.replace(second, evaluations={5: 1.0})
    found = beside_tasks([dataclasses.replace(cell, records=(first, second))])
    assert all("no score" in one.text for one in found["pen-cloned-v1", "deflow"])
