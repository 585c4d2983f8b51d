"""Real sweeps, from one command to the report."""

import json
import subprocess
import sys

import pytest

from tests import loopback
from tests.small_runs import REPOSITORY, SMALL, TASK, execute
from utils.report.csv_log import read_csv

FLAGS = {
    "offline_steps": 40,
    "log_interval": 10,
    "eval_interval": 20,
    "eval_episodes": 1,
    "eval_workers": 1,
    "wandb_mode": "disabled",
}


def sweep_command(tmp_path, dataset_dir, *arguments):
    passed = {"save_dir": tmp_path / "exp", "dataset_dir": dataset_dir} | FLAGS
    passed |= {f"agent.{key}": value for key, value in SMALL.items()}
    return [
        *(sys.executable, "-m", "utils.sweep", *arguments, f"--output={tmp_path / 'sweep.txt'}"),
        *("--", *(f"--{key}={value}" for key, value in passed.items())),
    ]


def folders_of(tmp_path):
    return (tmp_path / "sweep.jobs/folders.txt").read_text().splitlines()


@pytest.mark.slow
def test_one_command_goes_to_a_finished_report_and_each_command_repeats_its_run(
    tmp_path, dataset_dir
):
    arguments = [f"--tasks={TASK}-task1,{TASK}-task2", "--agents=deflow,fql", "--seeds=3"]
    command = sweep_command(tmp_path, dataset_dir, *arguments, "--local=2")
    output = execute(command)
    assert "4 runs, 12 seeds" in output
    assert "4 runs: 4 done" in output
    assert len(folders_of(tmp_path)) == 4
    report = tmp_path / "sweep.jobs/report"
    assert (report / "report.md").read_text()
    assert list(report.glob("*.png"))
    assert "4 runs: 4 done" in execute(command)  # and nothing is run again
    assert len(list(tmp_path.glob("sweep.jobs/0*"))) == 1

    path = tmp_path / "sweep.txt"
    line = [line for line in path.read_text().splitlines() if line[:1] not in ("", "#")][1]
    again = line.replace(str(tmp_path / "exp"), str(tmp_path / "again"))
    subprocess.run(["bash", "-c", again], cwd=REPOSITORY, check=True, capture_output=True)
    (repeated,) = (tmp_path / "again").glob("*/*/sd*")
    for name in ("train", "eval"):
        first = read_csv(f"{folders_of(tmp_path)[1]}/{name}.csv")
        assert first == read_csv(repeated / f"{name}.csv")


@pytest.mark.slow
def test_eight_runs_that_begin_together_fetch_and_compile_without_harm(tmp_path, dataset_dir):
    """On an empty cache: the data are fetched once, and all runs that are alike end alike."""
    files = {f"/{path.name}": path.read_bytes() for path in dataset_dir.glob("*.npz")}
    assert len(files) == 2
    arguments = [f"--tasks={TASK}-task1", "--agents=deflow", "--seeds=1", "--local=8"]
    vary = "--vary=eval_episodes=1,2,3,4,5,6,7,8"  # by which the folders differ, not the training
    command = sweep_command(tmp_path, tmp_path / "data", *arguments, vary)
    command.remove("--eval_episodes=1")
    with loopback.serve(files) as server:
        server.seconds = 2
        output = execute(
            command,
            OGBENCH_DATASET_URL=server.url,
            JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"),
        )
    assert "8 runs: 8 done" in output
    assert server.requests == dict.fromkeys(files, 1)
    assert any((tmp_path / "cache").iterdir())
    logs = [read_csv(f"{folder}/train.csv") for folder in folders_of(tmp_path)]
    assert all(log == logs[0] for log in logs)
    for folder in folders_of(tmp_path):
        with open(f"{folder}/score.json") as file:
            assert json.load(file)["step"] == 40
