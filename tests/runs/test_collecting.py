"""Runs that collect the data that are missing."""

import subprocess
import sys
import threading
import time
import types

import filelock
import numpy as np
import pytest

from utils.envs import tasks
from utils.errors import UserError
from utils.runs import collecting, setup
from utils.runs.collecting import collect_missing, is_needed

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
    assert "data are missing: collecting them takes about" in out
    assert len(tasks.load_datasets(MAZE, tmp_path)[0]["actions"]) == 60
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(before) == 2
    collect_missing(MAZE, str(tmp_path))
    assert capfd.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == before


def test_of_two_runs_one_collects_and_the_other_waits(small, tmp_path, capfd):
    lock = filelock.FileLock(tmp_path / ".pointmaze-medium-navigate-v0.collecting.lock")
    waiting = threading.Thread(target=collect_missing, args=(MAZE, str(tmp_path)))
    said = ""
    with lock:
        waiting.start()
        deadline = time.monotonic() + 60
        while "waiting for another process that collects" not in said:
            assert waiting.is_alive(), said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
            said += capfd.readouterr().out
        for path in tasks.dataset_files(MAZE, tmp_path):
            np.savez(path, of=np.array("the other"))
    waiting.join(timeout=60)
    assert not waiting.is_alive()
    assert "there are" in capfd.readouterr().out
    assert {np.load(path)["of"].item() for path in tmp_path.glob("*.npz")} == {"the other"}


@pytest.mark.parametrize(
    "name", ["pen-cloned-v1", "humanoidmaze-medium-navigate-singletask-v0", "my_task.py"]
)
@pytest.mark.parametrize("function", [is_needed, collect_missing])
def test_what_cannot_be_collected_is_refused(name, function, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text("")
    with pytest.raises(UserError, match=r"cannot be collected locally.*out --collect_missing"):
        function(tasks.resolve(name), str(tmp_path))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("function", [is_needed, collect_missing])
def test_one_file_of_two_is_refused_before_anything_is_started(function, tmp_path, capfd):
    train, val = tasks.dataset_files(MAZE, tmp_path)
    val.write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"{val} is there without {train.name}; move it away"):
        function(MAZE, str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_a_collection_that_died_while_it_moved_its_files_goes_on(tmp_path):
    train, _ = tasks.dataset_files(MAZE, tmp_path)
    train.write_bytes(b"moved")
    moving = tmp_path / ".pointmaze-medium-navigate-v0.collecting" / "merged-1000-100" / "val.npz"
    moving.parent.mkdir(parents=True)
    moving.write_bytes(b"not yet")
    assert is_needed(MAZE, str(tmp_path))


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Has another program collect, whose code it takes."""

    def write(code):
        package = tmp_path / "library" / "utils" / "collect"
        package.mkdir(parents=True)
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
        (package / "__main__.py").write_text(f"import os, signal, sys\n{code}\n")
        monkeypatch.setattr(collecting, "_LIBRARY", tmp_path / "library")

    return write


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("sys.exit(75)", 75),
        ("sys.exit(130)", 130),
        ("os.kill(os.getpid(), signal.SIGTERM)", 75),
        ("os.kill(os.getpid(), signal.SIGUSR1)", 75),
    ],
)
def test_a_collection_that_a_signal_ended_ends_the_run_as_one(child, tmp_path, code, exit_code):
    child(code)
    with pytest.raises(SystemExit) as stop:
        collect_missing(MAZE, str(tmp_path))
    assert stop.value.code == exit_code


@pytest.mark.parametrize("code", ["sys.exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_collection_that_fails_ends_the_run_with_an_error(child, tmp_path, code):
    child(code)
    with pytest.raises(UserError, match=r"could not be collected, see above$") as error:
        collect_missing(MAZE, str(tmp_path))
    assert error.value.exit_code == 1


def test_utils_of_the_working_directory_are_not_in_the_way(child, tmp_path, monkeypatch):
    child("print(*sys.argv[1:], file=open('arguments.txt', 'w'))")
    own = tmp_path / "own" / "utils"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("raise RuntimeError('of another project')")
    monkeypatch.chdir(tmp_path / "own")
    collect_missing(MAZE, str(tmp_path))
    arguments = (tmp_path / "own" / "arguments.txt").read_text()
    assert arguments.startswith("--env_name=pointmaze-medium-navigate --workers=")
    assert arguments.endswith(f" --dataset_dir={tmp_path} --if_missing\n")


@pytest.mark.parametrize("flag", [False, True])
def test_a_run_collects_before_it_loads_if_it_is_told_to(flag, tmp_path, monkeypatch):
    calls = []
    for module, name in ((setup, "collect_missing"), (tasks, "load_datasets")):

        def call(*arguments, name=name):
            calls.append((name, *arguments))
            return "train", "val"

        monkeypatch.setattr(module, name, call)
    monkeypatch.setattr(setup, "prepare_data", lambda *arguments: arguments[-2:])
    flags = {"collect_missing": flag, "dataset_dir": str(tmp_path)}
    settings = types.SimpleNamespace(env_name=MAZE, flags=flags)
    assert setup.load_data(settings, agent_class=None) == ("train", "val")
    collected = [("collect_missing", MAZE, str(tmp_path))]
    assert calls == collected * flag + [("load_datasets", MAZE, str(tmp_path))]


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
