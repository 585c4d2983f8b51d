"""Evaluations of finished runs: by the run's own policy, by others, from a shell."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.analysis.conftest import ON_THE_LINE
from tests.small_runs import rows_of, train
from utils.analysis import __main__, evaluate, policy_episodes
from utils.analysis.entries import parse_entries
from utils.analysis.policy_episodes import evaluate_run
from utils.errors import UserError
from utils.report.csv_log import read_csv

SAMPLE = parse_entries("sample", {})
ARGUMENTS = (
    "--eval_policy=best_of_n,iterated_refinement",
    "--samples=1,2",
    "--steps=1",
    "--eval_workers=1",
)


@pytest.fixture(scope="module")
def results(line_run, tmp_path_factory):
    """Folder of the results of three policies."""
    folder = tmp_path_factory.mktemp("results")
    arguments = [str(line_run.folder.path), *ARGUMENTS, f"--output={folder}"]
    assert evaluate.main(arguments) == 0
    return folder


@pytest.fixture
def copied(results, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(results, tmp_path / "results")


def again(run, folder, *arguments):
    return evaluate.main([str(run.folder.path), *ARGUMENTS, f"--output={folder}", *arguments])


def last_rows(run):
    """Metrics of the last evaluation by seed."""
    rows = [row for row in rows_of(run, "eval") if row["step"] == 40]
    return {
        row["seed"]: {name: row[name] for name in row if name not in ("step", "seed")}
        for row in rows
    }


def means(rows):
    """Means over the episodes by seed, of the metrics that eval.csv has."""
    names = ("return", "length", "success")
    return {
        seed: {name: np.mean([row[name] for row in rows if row["seed"] == seed]) for name in names}
        for seed in sorted({row["seed"] for row in rows})
    }


def by(entry, rows):
    return [row for row in rows if row["policy"] == entry.name]


@pytest.mark.parametrize("workers", [1, 3])
def test_its_own_policy_gives_the_last_row_of_its_csv(line_run, tmp_path, workers):
    expected = last_rows(line_run)
    assert set(expected) == {3, 4}
    assert expected[3] != expected[4]
    rows = evaluate_run(line_run.folder.path, SAMPLE, tmp_path / "a.csv", num_workers=workers)
    assert means(rows) == expected


def test_another_policy_and_other_episodes_give_other_numbers(line_run, tmp_path):
    still, log = tmp_path / "still.py", tmp_path / "a.csv"
    still.write_text("def policy(agent, observation, key):\n    return 0 * observation\n")
    entries = parse_entries(f"{still},sample", {})
    rows = evaluate_run(line_run.folder.path, entries, log, num_workers=1)
    stood, moved = (means(by(one, rows)) for one in entries)
    assert moved == last_rows(line_run)
    assert stood != moved
    for metrics in stood.values():  # it stays where it began: there in one step, or never
        count = 4 * metrics["success"]
        assert metrics["length"] == pytest.approx((count + 10 * (4 - count)) / 4)
    rows = evaluate_run(line_run.folder.path, SAMPLE, log, num_episodes=7, num_workers=1)
    assert means(rows) != last_rows(line_run)
    # A file may have changed under its name; a name has not.
    still.write_text("def policy(agent, observation, key):\n    return 0 * observation + 1\n")
    entries = parse_entries(str(still), {})
    rows = evaluate_run(line_run.folder.path, entries, log, num_workers=1)
    assert means(rows) != stood


def test_a_policy_during_training_changes_evaluations_alone(
    line_run, results, tmp_path, dataset_dir
):
    """They are what the finished run's are by that policy."""
    other = train(tmp_path, dataset_dir, eval_policy="best_of_n:samples=2", **ON_THE_LINE)
    logs = [run.folder.path / "train.csv" for run in (line_run, other)]
    assert logs[0].read_bytes() == logs[1].read_bytes()
    assert last_rows(other) != last_rows(line_run)
    rows = [row for row in read_csv(results / "episodes.csv") if row["budget"] == 2]
    assert means(rows) == last_rows(other)


def test_every_policy_plays_the_same_episodes(line_run, results):
    """With one sample it is the run's own policy, episode by episode."""
    rows = read_csv(results / "episodes.csv")
    assert len(rows) == 3 * 2 * 4
    one = [row for row in rows if row["policy"] == "best_of_n" and row["budget"] == 1]
    own = [row for row in rows_of(line_run, "eval_episodes") if row["step"] == 40]
    for row, expected in zip(one, own, strict=True):
        assert all(row[name] == expected[name] for name in expected)
    assert all(row["milliseconds"] > 0 for row in rows)


def test_what_was_played_is_not_played_again(line_run, copied, capsys, monkeypatch):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    assert set(before) == {"episodes.csv", "policies.md", "policies.csv", "policies.png"}
    with monkeypatch.context() as patch:
        patch.setattr(policy_episodes, "Evaluator", None)
        assert again(line_run, copied) == 0
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert before["policies.md"].decode() in capsys.readouterr().out
    again(line_run, copied, "--eval_episodes=2")
    assert capsys.readouterr().out.count("played: ") == 3


def test_what_a_kill_has_torn_is_played_again(line_run, copied, capsys):
    log = copied / "episodes.csv"
    whole = read_csv(log)
    log.write_bytes(log.read_bytes()[:-30])
    assert again(line_run, copied) == 0
    assert capsys.readouterr().out.count("played: ") == 1
    final = {(row["policy"], row["budget"], row["seed"], row["episode"]): row for row in whole}
    for row in read_csv(log):
        expected = final[row["policy"], row["budget"], row["seed"], row["episode"]]
        assert row["return"] == expected["return"]


def test_a_seed_that_failed_is_left_out(line_run, tmp_path, capsys, monkeypatch):
    original = policy_episodes.load_agents

    def load_agents(*arguments):
        return dataclasses.replace(original(*arguments), failed={3: 20})

    monkeypatch.setattr(policy_episodes, "load_agents", load_agents)
    rows = evaluate_run(line_run.folder.path, SAMPLE, tmp_path / "a.csv", num_workers=1)
    assert means(rows) == {4: last_rows(line_run)[4]}
    assert "left out: seed 3 of" in capsys.readouterr().out


def test_an_agent_that_lacks_a_method_is_refused_before_anything_is_played(loaded_as, tmp_path):
    loaded_as(policy_episodes, "bc")
    entries = parse_entries("sample,best_of_n", {})
    with pytest.raises(UserError) as caught:
        evaluate_run("exp/bc", entries, tmp_path / "a.csv")
    assert str(caught.value) == (
        "exp/bc cannot be evaluated by best_of_n: BCAgent does not define "
        "value(observations, actions), which is needed here"
    )
    assert not list(tmp_path.iterdir())


def test_a_runs_folder_takes_no_results(line_run):
    with pytest.raises(UserError, match="is a run's folder; give another --output"):
        again(line_run, line_run.folder.path)


def test_the_command_gives_one_line_for_what_is_wrong(tmp_path, capsys):
    for arguments, start in (
        (["evaluate", str(tmp_path / "none"), f"--output={tmp_path}"], f"{tmp_path / 'none'} is"),
        (["evaluate", "run", "--eval_policy=no_such"], "--eval_policy=no_such is not one of"),
        (["no_such"], "unknown program 'no_such'; it is one of evaluate,"),
    ):
        assert __main__.main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith(f"error: {start}")


def test_every_program_explains_itself(capsys):
    assert __main__.main([]) == 0
    text = capsys.readouterr().out
    for program in __main__.PROGRAMS:
        assert f"python -m utils.analysis {program} " in text
        with pytest.raises(SystemExit) as ended:
            __main__.main([program, "--help"])
        assert ended.value.code == 0
        assert f"usage: python -m utils.analysis {program}" in capsys.readouterr().out
