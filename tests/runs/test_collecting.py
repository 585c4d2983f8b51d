"""Runs that collect the data that are missing."""

import subprocess
import sys
import threading

import filelock
import numpy as np
import pytest

from utils.envs import tasks
from utils.errors import UserError
from utils.runs.collecting import collect_missing

MAZE = "pointmaze-medium-navigate-singletask-v0"


@pytest.fixture
def small(monkeypatch):
    """Makes the collection that a run starts a small one."""
    original = tasks.collection_command

    def command(*arguments):
        found, duration = original(*arguments)
        return [*found, "--episodes=3", "--episode_length=20"], duration

    monkeypatch.setattr(tasks, "collection_command", command)


def test_missing_data_are_collected_once(small, tmp_path, capfd):
    collect_missing(MAZE, str(tmp_path))
    out = capfd.readouterr().out
    assert "no data yet: collecting them takes about" in out
    assert len(tasks.load_datasets(MAZE, tmp_path)[0]["actions"]) == 60
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(before) == 2
    collect_missing(MAZE, str(tmp_path))
    assert capfd.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == before


def test_of_two_runs_one_collects_and_the_other_waits(small, tmp_path, capfd):
    lock = filelock.FileLock(tmp_path / ".pointmaze-medium-navigate-v0.collecting.lock")
    with lock:
        waiting = threading.Thread(target=collect_missing, args=(MAZE, str(tmp_path)))
        waiting.start()
        waiting.join(timeout=8)
        assert waiting.is_alive()
        for name in ("pointmaze-medium-navigate-v0", "pointmaze-medium-navigate-v0-val"):
            np.savez(tmp_path / f"{name}.npz", of=np.array("the other"))
    waiting.join(timeout=60)
    out = capfd.readouterr().out
    assert "waiting for another process that collects" in out
    assert "there are" in out
    assert {np.load(path)["of"].item() for path in tmp_path.glob("*.npz")} == {"the other"}


@pytest.mark.parametrize("name", ["pen-cloned-v1", "humanoidmaze-medium-navigate-singletask-v0"])
def test_what_cannot_be_collected_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="cannot be collected locally"):
        collect_missing(name, str(tmp_path))


def test_a_collection_that_fails_ends_the_run(small, tmp_path):
    (tmp_path / "pointmaze-medium-navigate-v0.npz").write_bytes(b"mine")
    with pytest.raises(UserError, match="could not be collected, see above"):
        collect_missing(MAZE, str(tmp_path))
    assert (tmp_path / "pointmaze-medium-navigate-v0.npz").read_bytes() == b"mine"


@pytest.mark.slow
def test_from_an_empty_disk_to_an_evaluation(tmp_path):
    """A maze of official size: the data are there afterwards, and the run has its score."""
    flags = {
        "env_name": "pointmaze-medium-navigate",
        "agent": "agents/bc.py",
        "agent.actor_hidden_dims": "(8,)",
        "dataset_dir": tmp_path / "data",
        "save_dir": tmp_path / "runs",
        "offline_steps": 20,
        "eval_interval": 20,
        "eval_episodes": 1,
        "wandb_mode": "disabled",
    }
    command = [sys.executable, "main.py", "--collect_missing"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data").glob("*.npz"))) == 2
    assert list((tmp_path / "runs").rglob("score.json"))
