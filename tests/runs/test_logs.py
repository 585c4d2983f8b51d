"""Rows of a run's evaluations: what is kept, printed and mirrored."""

import types

import numpy as np
import pytest

from utils.evaluation import EpisodeStats
from utils.report.csv_log import CsvLog, read_csv
from utils.runs.logs import Logs
from utils.runs.progress import Progress

RETURNS = {3: [1.0, 2.0, 4.5], 7: [-1.0, 0.25, 0.5]}
SUCCESSES = {3: [1.0, 0.0, 1.0], 7: [0.0, 0.0, 1.0]}


@pytest.fixture
def mirrored():
    """What is sent to Weights & Biases: (numbers by name, step)."""
    return []


@pytest.fixture
def logs(tmp_path, mirrored):
    return open_logs(tmp_path, mirrored, Progress())


def open_logs(folder, mirrored, progress, seeds=(3, 7)):
    wandb = types.SimpleNamespace(log=lambda row, step: mirrored.append((dict(row), step)))
    return Logs(folder, seeds, (), wandb, progress)


def results(seeds=(3, 7)):
    return [
        EpisodeStats({"return": np.array(RETURNS[seed]), "success": np.array(SUCCESSES[seed])})
        for seed in seeds
    ]


def test_every_episode_of_an_evaluation_is_kept(tmp_path, logs):
    logs.evaluation(100, results())
    rows = read_csv(tmp_path / "eval_episodes.csv")
    assert [(row["seed"], row["episode"]) for row in rows] == [
        (s, e) for s in (3, 7) for e in range(3)
    ]
    assert all(row["step"] == 100 for row in rows)
    assert [row["return"] for row in rows] == RETURNS[3] + RETURNS[7]
    assert [row["success"] for row in rows] == SUCCESSES[3] + SUCCESSES[7]
    for evaluation in read_csv(tmp_path / "eval.csv"):
        assert evaluation["return"] == np.mean(RETURNS[evaluation["seed"]])


def test_a_kill_leaves_no_evaluation_without_its_episodes_and_a_resumed_run_writes_them_again(
    tmp_path, logs, mirrored, monkeypatch
):
    def killed(log, row):
        assert log.path.name == "eval.csv"
        raise KeyboardInterrupt

    logs.evaluation(100, results())
    progress = Progress(last_evaluated=100)
    files = [tmp_path / "eval.csv", tmp_path / "eval_episodes.csv"]
    before = [file.read_bytes() for file in files]
    with monkeypatch.context() as patch:
        patch.setattr(CsvLog, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            logs.evaluation(200, results())
    assert len(read_csv(files[0])) == 2
    assert len(read_csv(files[1])) == 12
    with open(files[1], "ab") as file:
        file.write(b"200,7,")  # a line that the kill tore
    resumed = open_logs(tmp_path, mirrored, progress)
    assert [file.read_bytes() for file in files] == before
    resumed.evaluation(200, results())
    assert [len(read_csv(file)) for file in files] == [4, 12]
