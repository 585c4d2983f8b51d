import fcntl
import os

import numpy as np
import pytest

from tests.report.run_folders import make_run
from utils.errors import UserError
from utils.files import LOCK
from utils.report.paths import load
from utils.report.records import find_runs, read_run, score


def test_runs_are_found_in_and_below_folders_and_by_patterns(tmp_path):
    runs = [make_run(tmp_path / f"exp/group/task_{name}/sd000") for name in "ab"]
    (runs[0] / "source").mkdir()
    (runs[0] / "source/config.json").write_text("{}")  # of a run, and no run
    (tmp_path / "exp/notes").mkdir()
    assert find_runs([tmp_path / "exp"]) == (runs, [])
    assert find_runs([f"{tmp_path}/exp/group/*_b/*", runs[0], tmp_path]) == (runs[::-1], [])
    missing = [f"{tmp_path}/exp/notes", f"{tmp_path}/nowhere"]
    assert find_runs([*missing, runs[1]]) == ([runs[1]], missing)


def test_links_are_followed_and_a_run_that_several_lead_to_is_found_once(tmp_path):
    run = make_run(tmp_path / "elsewhere/run")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "exp")
    assert find_runs([tmp_path / "exp"]) == ([tmp_path / "exp/link/run"], [])
    assert find_runs([run, tmp_path / "exp"]) == ([run], [])


def test_an_evaluation_that_is_not_finite_is_none(tmp_path):
    run = make_run(tmp_path / "run", seeds=1, success=(0.5, float("nan"), float("inf")))
    (record,) = read_run(run)
    assert record.evaluations == {100: 50}
    assert record.not_finite == (200, 300)


def test_a_record_per_seed(tmp_path):
    run = make_run(tmp_path / "run", seeds=2, seed=3, success=(0.1, 0.5, 0.7, 0.9), episodes=True)
    first, second = read_run(run)
    assert (first.seed, second.seed) == (3, 4)
    assert first.evaluations == pytest.approx({100: 10, 200: 50, 300: 70, 400: 90})
    assert second.evaluations[400] == pytest.approx(92)
    assert list(first.episodes) == [100, 200, 300, 400]
    assert first.episodes[200].shape == (50,)
    assert np.mean(second.episodes[400]) == pytest.approx(92)
    assert (first.state, first.steps, first.updates_per_second) == ("done", 400, 141)


def test_scores_of_a_seed(tmp_path):
    (record,) = read_run(make_run(tmp_path / "a", seeds=1, success=(0.1, 0.9, 0.7, 0.2)))
    assert score(record) == score(record, "last3") == pytest.approx(60)
    assert score(record, "last") == pytest.approx(20)
    assert score(record, "best") == pytest.approx(90)
    assert score(record, "last", until=350) == pytest.approx(70)
    assert score(record, "offline") is None
    with pytest.raises(ValueError, match="no score 'mean'"):
        score(record, "mean")


def test_scores_of_a_seed_that_goes_online(tmp_path):
    run = make_run(
        tmp_path / "a",
        seeds=1,
        success=(0.1, 0.5, 0.9),
        online_start=200,
        online_steps=100,
        offline_steps=200,
    )
    (record,) = read_run(run)
    assert record.state == "done"
    assert score(record, "offline") == pytest.approx(50)
    assert score(record) == pytest.approx(90)


def test_states_of_a_seed(tmp_path):
    assert read_run(make_run(tmp_path / "a", finished=False))[0].state == "unfinished"
    assert read_run(make_run(tmp_path / "b", offline_steps=9000))[0].state == "unfinished"
    run = make_run(tmp_path / "c", finished=False)
    (run / LOCK).touch()
    assert read_run(run)[0].state == "unfinished"
    with open(run / LOCK, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_run(run)[0].state == "running"
    with open(run / "eval.csv") as file:
        header = file.readline()
    (run / "eval.csv").write_text(
        header.replace("\n", ",failed\n") + "100,0,0.5,-9.0,\n200,0,,,1\n100,1,0.5,-9.0,\n"
    )
    diverged, other = read_run(run)
    assert (diverged.state, diverged.failed, diverged.steps) == ("diverged", 200, 200)
    assert other.state == "unfinished"


def test_a_notebook_gets_a_row_per_evaluation(tmp_path, monkeypatch):
    make_run(tmp_path / "a", seeds=1, success=(0.5, 0.75), settings={"agent.lr": 0.1})
    make_run(tmp_path / "b", seeds=1, success=(0.5,), online_start=0, online_steps=100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rows = load(tmp_path)
    assert [(row["step"], row["phase"]) for row in rows] == [
        (100, "offline"),
        (200, "offline"),
        (100, "online"),
    ]
    assert rows[1]["value"] == 75
    assert rows[1]["agent.lr"] == 0.1
    assert rows[1]["episodes"] == 50
    with pytest.raises(UserError, match="no run in"):
        load(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    run = make_run(tmp_path / "exp/a/run")
    (tmp_path / "exp/b").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    assert find_runs([tmp_path]) == ([run], [str(tmp_path / "exp/b")])
