"""Rows of a run's evaluations: what is kept, printed and mirrored."""

import types

import numpy as np
import pytest

from utils.evaluation import EpisodeStats
from utils.report.csv_log import CsvLog, read_csv
from utils.runs.logs import Logs
from utils.runs.members import Member
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
    return Logs([folder], [Member(seed) for seed in seeds], (), wandb, progress)


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


def test_the_mean_and_spread_of_several_seeds_are_printed(tmp_path, logs, mirrored, capsys):
    logs.evaluation(100, results())
    seeds, lines = [np.mean(RETURNS[seed]) for seed in (3, 7)], capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "step 100, seed 3: return 2.5, success 0.667",
        "step 100, seed 7: return -0.0833, success 0.333",
    ]
    assert lines[2:] == [
        f"step 100, mean ± std of 2 seeds: return {np.mean(seeds):.3g} ± {np.std(seeds):.3g}, "
        "success 0.5 ± 0.167"
    ]
    open_logs(tmp_path, mirrored, Progress(), seeds=(3,)).evaluation(100, results((3,)))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_one_seeds_rows_are_mirrored_under_fqls_names(tmp_path, mirrored):
    progress = Progress(step=50, seconds=2.0)
    logs = open_logs(tmp_path, mirrored, progress, seeds=(3,))
    columns = {"critic/q_abs": 4.0, "validation/flow/flow_loss": 0.5}
    logs.training({name: np.array([x]) for name, x in columns.items()}, updates=50)
    logs.evaluation(50, results((3,)))
    episode = {"return": -5.0, "length": 7.0, "success": 0.0, "normalized_return": 9.0}
    logs.episodes(50, [episode])
    assert {step for _, step in mirrored} == {50}
    assert [row for row, _ in mirrored] == [
        {"training/critic/q_abs": 4.0, "validation/flow/flow_loss": 0.5},
        {"time/updates_per_second": 25.0, "time/seconds": 2.0},
        {"evaluation/episode.return": 2.5, "evaluation/success": 2 / 3},
        {
            "exploration/episode.return": -5.0,
            "exploration/episode.length": 7.0,
            "exploration/success": 0.0,
            "exploration/episode.normalized_return": 9.0,
        },
    ]
    (row,) = read_csv(tmp_path / "train.csv")  # whose names are its own
    assert {"critic/q_abs", "validation/flow/flow_loss"} < set(row)


def test_several_seeds_are_mirrored_with_their_mean_and_standard_deviation(logs, mirrored):
    logs.training({"critic/q_abs": np.array([1.0, 3.0])}, updates=50)
    logs.episodes(60, [None, {"return": -5.0}])
    assert mirrored[0][0] == {
        "seed_3/training/critic/q_abs": 1.0,
        "seed_7/training/critic/q_abs": 3.0,
        "training/critic/q_abs": 2.0,
        "std/training/critic/q_abs": 1.0,
    }
    assert mirrored[-1] == ({"seed_7/exploration/episode.return": -5.0}, 60)
    logs.evaluation(100, results())
    row, step = mirrored[-1]
    assert step == 100
    assert row["evaluation/success"] == pytest.approx(0.5)
    assert row["std/evaluation/success"] == pytest.approx(1 / 6)
    assert row["seed_7/evaluation/episode.return"] == pytest.approx(-1 / 12)


def test_each_point_of_a_grid_has_its_own_files_names_and_share_of_the_time(
    tmp_path, mirrored, capsys
):
    members = [
        Member(seed, point, values)
        for point, values in enumerate(("tau=0.1", "tau=0.2"))
        for seed in (3, 7)
    ]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    wandb = types.SimpleNamespace(log=lambda row, step: mirrored.append((dict(row), step)))
    logs = Logs(folders, members, (), wandb, Progress(step=50, seconds=4.0))
    logs.training({"x": np.arange(4.0)}, updates=50)
    logs.evaluation(50, [*results(), *results()], failed=[False, False, True, False])
    for number, folder in enumerate(folders):
        rows = read_csv(folder / "train.csv")
        assert [(row["seed"], row["x"]) for row in rows] == [(3, 2 * number), (7, 2 * number + 1)]
        (row,) = read_csv(folder / "timing.csv")
        assert (row["updates_per_second"], row["seconds"]) == (25.0, 2.0)
        failed = [row.get("failed") for row in read_csv(folder / "eval.csv")]
        assert failed == ([None, None], [1, None])[number]
        assert len(read_csv(folder / "eval_episodes.csv")) == (6, 3)[number]
    assert mirrored[0][0] == {
        "tau=0.1/seed_3/training/x": 0.0,
        "tau=0.1/seed_7/training/x": 1.0,
        "tau=0.1/training/x": 0.5,
        "tau=0.1/std/training/x": 0.5,
        "tau=0.2/seed_3/training/x": 2.0,
        "tau=0.2/seed_7/training/x": 3.0,
        "tau=0.2/training/x": 2.5,
        "tau=0.2/std/training/x": 0.5,
    }
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "step 50, seed 3 of tau=0.1: return 2.5, success 0.667"
    assert said[-1].startswith("step 50, mean ± std of 2 seeds of tau=0.1: return ")
