import json

import numpy as np
import pytest

from tests.report.run_folders import TASK, make_run
from utils.report.pooling import pool
from utils.report.records import find_runs, read_run

OTHER = "scene-play-singletask-v0"


def cells(*folders):
    return pool(record for folder in find_runs(folders)[0] for record in read_run(folder))


def test_seeds_with_equal_settings_are_pooled_over_folders(tmp_path):
    make_run(tmp_path / "a", seeds=2)
    make_run(tmp_path / "b", seeds=3, seed=2)
    make_run(tmp_path / "c", task=OTHER, seeds=5)
    first, other = cells(tmp_path)
    assert [record.seed for record in first.records] == [0, 1, 2, 3, 4]
    assert (first.label, other.label, other.task) == ("deflow", "deflow", OTHER)
    assert first.remarks == other.remarks == ()
    np.testing.assert_allclose(first.scores(), [70, 72, 70, 72, 74])


def test_cells_are_labelled_by_the_settings_that_differ_on_a_task(tmp_path):
    for name, rate, agent, task in (
        ("a", 0.1, "deflow", None),
        ("b", 0.2, "deflow", None),
        ("c", 0.1, "deflow", OTHER),
        ("d", 0.3, "fql", OTHER),
    ):
        settings = {"agent.lr": rate, "agent.delta": 0.5 if task else 1.0}
        make_run(
            tmp_path / name,
            agent=agent,
            settings=settings,
            **({"task": task} if task else {}),
        )
    labels = [cell.label for cell in cells(tmp_path)]
    assert labels == ["deflow, lr=0.1", "deflow, lr=0.2", "deflow, lr=0.1", "fql"]


def test_runs_of_other_files_or_data_or_phases_are_not_pooled(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", dataset="e1")
    online = {"online_start": 300, "online_steps": 100, "offline_steps": 300}
    make_run(tmp_path / "c", settings={"utd": 1}, **online)
    run = make_run(tmp_path / "d")
    (run / "source/agent").mkdir(parents=True)
    (run / "source/agent/deflow.py").write_text("x = 1\n")
    labels = [cell.label for cell in cells(tmp_path)]
    assert labels[0] == "deflow, offline, files unknown, data d0"
    assert labels[1] == "deflow, offline, files unknown, data e1"
    assert labels[2] == "deflow, online"
    assert labels[3].startswith("deflow, offline, files ")
    assert len(set(labels)) == 4


def test_no_cell_has_the_label_of_another_on_its_task(tmp_path):
    for i in range(3):
        make_run(tmp_path / f"rate{i}", settings={"agent.lr": 0.123456789 + i * 1e-9})
        make_run(tmp_path / f"name{i}", agent="fql", settings={"agent_name": i})
    labels = [cell.label for cell in cells(tmp_path)]
    assert len(set(labels)) == 6
    assert "deflow, lr=0.123456789" in labels
    assert f"fql, {tmp_path / 'name0'}" in labels


def test_runs_of_other_phases_are_other_methods_on_other_tasks_too(tmp_path):
    make_run(tmp_path / "a", task=TASK.format(1))
    make_run(tmp_path / "b", task=TASK.format(2), online_start=200, online_steps=200)
    assert [cell.label for cell in cells(tmp_path)] == ["deflow, offline", "deflow, online"]


def test_runs_that_do_not_say_their_settings_are_pooled_by_their_folders(tmp_path):
    for name in ("cube_a_1/sd000", "cube_a_1/sd001", "cube_a_2/sd000"):
        run = make_run(tmp_path / name, seeds=1, seed=int(name[-1]))
        config = json.loads((run / "config.json").read_text())
        del config["identity"], config["command"], config["dataset"]
        (run / "config.json").write_text(json.dumps(config))
    found = {cell.label: len(cell.records) for cell in cells(tmp_path)}
    assert found == {"deflow, folder=cube_a_1": 2, "deflow, folder=cube_a_2": 1}


def test_evaluations_that_are_not_finite_are_remarked(tmp_path):
    make_run(tmp_path / "a", success=(0.1, 0.3, float("nan")))
    (cell,) = cells(tmp_path)
    assert cell.scores("last").tolist() == pytest.approx([30, 32])
    assert cell.remarks == ("seeds 0, 1 with an evaluation that is not finite, at step 300",)


def test_comments_do_not_make_other_files(tmp_path):
    for name, text in (("a", "x = 1\n"), ("b", "x = 1  # one\n")):
        run = make_run(tmp_path / name, seeds=1, seed=ord(name))
        (run / "source").mkdir()
        (run / "source/agent.py").write_text(text)
    (cell,) = cells(tmp_path)
    assert [record.seed for record in cell.records] == [97, 98]


def test_what_is_wrong_with_seeds_is_remarked_and_not_averaged(tmp_path):
    make_run(tmp_path / "a", seeds=1, success=(0.1, 0.2))
    make_run(tmp_path / "b", seeds=1, seed=1, success=(0.9,), finished=False, offline_steps=200)
    make_run(tmp_path / "c", seeds=3, success=(0.4, 0.4), task=OTHER)
    first, other = cells(tmp_path)
    np.testing.assert_allclose(first.scores("last"), [20])
    assert first.remarks == (
        "seed 1 unfinished at step 100 of 200",
        "no seed 2, which others have",
    )
    assert other.remarks == ()
    assert other.complete


def test_seeds_on_their_way_are_scored_where_all_of_them_have_been(tmp_path):
    for seed, success in ((0, (0.1, 0.2, 0.3)), (1, (0.5, 0.6))):
        make_run(
            tmp_path / f"{seed}",
            seeds=1,
            seed=seed,
            success=success,
            finished=False,
            offline_steps=900,
        )
    (cell,) = cells(tmp_path)
    assert not cell.complete
    assert cell.at_step == 200
    np.testing.assert_allclose(cell.scores("last"), [20, 60])


def test_what_is_mixed_is_remarked(tmp_path):
    make_run(tmp_path / "a", seeds=1)
    make_run(tmp_path / "b", seeds=1, seed=1, versions={"jax": "0.11", "git": "fed"})
    make_run(tmp_path / "c", seeds=1, seed=2, versions={"devices": ["NVIDIA H200"]})
    (cell,) = cells(tmp_path)
    assert cell.remarks == (
        "mixed devices (cpu: seeds 0, 1; NVIDIA H200: seeds 2)",
        "mixed commits (abc: seeds 0, 2; fed: seeds 1)",
        "mixed versions (jax 0.10: seeds 0, 2; jax 0.11: seeds 1)",
    )


def test_of_a_seed_that_is_there_twice_the_farther_one_counts(tmp_path):
    make_run(tmp_path / "a", seeds=1, success=(0.5,), offline_steps=200, finished=False)
    make_run(tmp_path / "b", seeds=1, success=(0.1, 0.2))
    (cell,) = cells(tmp_path)
    assert cell.scores("last") == pytest.approx([20])
    assert cell.remarks == (f"seed 0 is there twice; that of {tmp_path / 'b'} counts",)


def test_a_run_that_an_error_has_ended_is_named_with_it(tmp_path):
    run = make_run(tmp_path / "a", seeds=1, success=(0.5,), offline_steps=200, finished=False)
    (run / "error.txt").write_text("Traceback (most recent call last):\n  ...\nOSError: no disk\n")
    (cell,) = cells(tmp_path)
    assert cell.remarks == ("seed 0 crashed at step 100 of 200 (OSError: no disk)",)
    make_run(run, seeds=1, success=(0.5, 0.6))
    (cell,) = cells(tmp_path)
    assert cell.remarks == ()
