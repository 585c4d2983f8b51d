"""A sweep on this machine: workers, tries, logs, signals."""

import os
import signal
import threading
import time
from pathlib import Path

import filelock
import pytest

from tests.sweep.fake_main import STEPS
from utils.errors import UserError
from utils.files import LOCK
from utils.sweep.local import LocalRun, environments


def logs():
    return {path.name: path.read_text() for path in Path("sweep.jobs").glob("*/logs/*.log")}


def test_one_command_makes_runs_and_reports(sweep, capfd):
    assert sweep("--local=2") == 0
    out = capfd.readouterr().out
    assert "sweep.txt: 2 runs, 4 seeds" in out
    assert out.splitlines()[-2:] == ["2 runs: 2 done", "report"]
    assert {name: text.count("training") for name, text in logs().items()} == {
        "1.log": 1,
        "2.log": 1,
    }
    assert all(text.splitlines()[-1] == "== exit 0" for text in logs().values())
    folders = Path("sweep.jobs/folders.txt").read_text().splitlines()
    assert all((Path(folder) / "score.json").exists() for folder in folders)


def test_finished_runs_are_not_started_again(sweep, capfd):
    assert sweep("--local=1") == 0
    before = logs()
    assert sweep("run", "sweep.txt") == 0
    assert logs() == before
    assert capfd.readouterr().out.splitlines()[-1] == "report"


def test_a_run_that_crashes_is_tried_a_number_of_times_and_shown(sweep, capfd):
    assert sweep("--local=2", "--tries=2", passed=["--behave=crash"]) == 1
    assert {text.count("boom") for text in logs().values()} == {2}
    assert capfd.readouterr().out.count("given up after 2 tries") == 2
    assert sweep("status", "sweep.txt") == 0
    out = capfd.readouterr().out
    assert "exit code 1, sweep.jobs/001/logs/1.log" in out
    assert "    boom" in out
    assert "2 runs: 2 failed" in out
    assert sweep("run", "sweep.txt", "--tries=1") == 1
    assert sweep("status", "sweep.txt") == 0
    assert "exit code 1, sweep.jobs/002/logs/1.log" in capfd.readouterr().out


def test_tries_count_anew_after_progress(sweep):
    assert sweep("--local=1", "--tries=1", passed=["--behave=crash_twice"]) == 0
    assert {text.count("boom") for text in logs().values()} == {2}


@pytest.mark.parametrize(("behave", "step"), [("diverge", 4), ("all_diverge", 3)])
def test_a_run_with_diverged_seeds_is_final(sweep, capfd, behave, step):
    assert sweep("--local=1", passed=[f"--behave={behave}"]) == 3
    assert {text.count("training") for text in logs().values()} == {1}
    assert sweep("run", "sweep.txt") == 3
    assert len(logs()) == 2
    assert sweep("status", "sweep.txt") == 0
    assert f"seed 1 diverged at step {step}" in capfd.readouterr().out


def folders():
    return [Path(line) for line in Path("sweep.jobs/folders.txt").read_text().splitlines()]


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_is_handed_on_once_and_the_same_command_goes_on(sweep, capfd, number, code):
    def stop_both():
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not both_train():
            time.sleep(0.02)
        for _ in range(3):
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    arguments = ("--tasks=scene-play", "--local=2")
    thread = threading.Thread(target=stop_both)
    thread.start()
    assert sweep(*arguments, passed=["--behave=wait"]) == code
    thread.join()
    assert "waiting for 2 runs to save" in capfd.readouterr().out
    assert len(logs()) == 2  # the other runs are left for the next time
    assert all("saved, told 1 times\n\n== exit 75" in text for text in logs().values())
    for folder in folders()[2:]:
        (folder / "checkpoints/2").mkdir(parents=True)  # these do not wait either
    assert sweep(*arguments, passed=["--behave=wait"]) == 0
    assert "5 runs: 5 done" in capfd.readouterr().out


def both_train():
    return len(list(Path().glob("exp/*/*/*/checkpoints/1"))) == 2


@pytest.mark.usefixtures("signals_restored")
def test_an_error_of_the_sweep_leaves_no_program_behind(sweep, capfd, monkeypatch):
    def collect(run):
        if both_train():
            raise UserError("no log can be written")

    monkeypatch.setattr(LocalRun, "_collect", collect)
    assert sweep("--local=2", passed=["--behave=wait"]) == 1
    out, err = capfd.readouterr()
    assert "waiting for 2 runs to save" in out
    assert err == "error: no log can be written\n"
    assert all("saved, told 1 times" in text for text in logs().values())


def test_what_another_process_runs_is_left_to_it(sweep, capfd):
    assert sweep() == 0
    assert sweep("run", "sweep.txt") == 0
    folder = folders()[0]
    (folder / "score.json").unlink()
    with filelock.FileLock(folder / LOCK):
        assert sweep("run", "sweep.txt") == 1
        assert "is run by another process, and left to it" in capfd.readouterr().out
        sweep("status", "sweep.txt")
    out = capfd.readouterr().out
    assert "1  running" in out
    assert f"0/{STEPS}" in out


def test_workers_share_the_gpus():
    assert environments(2, []) == [{}, {}]
    assert environments(1, ["0", "1"]) == [{"CUDA_VISIBLE_DEVICES": "0,1"}]
    assert environments(2, ["0", "1", "2"]) == [
        {"CUDA_VISIBLE_DEVICES": "0,2"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]
    assert environments(3, ["4", "7"]) == [
        {"CUDA_VISIBLE_DEVICES": gpu, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}
        for gpu in ("4", "7", "4")
    ]
