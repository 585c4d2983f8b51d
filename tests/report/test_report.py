import csv
import json
import os

import numpy as np
import pytest

from tests.report.run_folders import PROTOCOL, TASK, grid_of, make_grid, make_run
from utils.report.__main__ import main
from utils.report.report import Report, make_report


def output_of(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_the_whole_report_is_printed_without_an_output_folder(tmp_path, capsys):
    make_run(tmp_path / "a", protocol=PROTOCOL)
    text = output_of(capsys, tmp_path)
    titles = [line for line in text.splitlines() if line.startswith("#") and line[1:2] in "# "]
    assert titles[:3] == ["# Report", "## Scores", "## Compute"]
    assert "- commit: abc" in text
    assert "python main.py --env_name=cube-single-play-singletask-v0" in text


def test_the_files_have_what_the_report_shows(tmp_path, capsys):
    make_grid(tmp_path / "exp", methods=2, tasks=4)
    text = output_of(capsys, tmp_path / "exp", f"--output={tmp_path / 'new/report'}")
    folder = tmp_path / "new/report"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"report.md", "report.csv", "records.csv", "report.tex", "report.npz"}
    assert all(str(folder / name) in text.splitlines()[-1] for name in names)
    assert (folder / "report.md").read_text().startswith("# Report\n\n## Scores\n")
    assert text.split("\nwritten")[0].strip() in (folder / "report.md").read_text()
    with open(folder / "report.csv") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert "## Commands" not in text
    with np.load(folder / "report.npz", allow_pickle=False) as archive:
        assert archive["success"].shape == (2, 4, 2, 3)


def test_equal_runs_give_equal_files(tmp_path):
    make_grid(tmp_path / "exp", methods=2, tasks=4, episodes=True)
    for name in ("a", "b"):
        assert main([str(tmp_path / "exp"), f"--output={tmp_path / name}"]) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_one_group_of_tasks_is_a_line_per_method_and_several_a_table_per_statistic(tmp_path):
    make_grid(tmp_path, methods=2, tasks=5)
    text = Report(grid_of(tmp_path), "last").summary
    assert "| method | mean, cube-double-play (5 tasks) | IQM " in text
    assert "| P(agent1 is better) |" in text
    for task in (1, 2):
        for agent in (0, 1):
            make_run(
                tmp_path / f"x{task}{agent}",
                agent=f"agent{agent}",
                task=f"scene-play-singletask-task{task}-v0",
                success=(0.1, 0.2, 0.9),
            )
    text = Report(grid_of(tmp_path), "last").summary
    assert "| mean " in text
    assert "| IQM  " in text
    assert "| P(best is better) " in text
    assert "- scene-play: over the 2 of 5 tasks that all methods have scores of" in text


def test_what_is_missing_and_mixed_and_passed_over_is_listed(tmp_path, capsys):
    make_grid(tmp_path, methods=2, tasks=2)
    (tmp_path / "1-2" / "config.json").write_text("{")
    make_run(tmp_path / "0-1", agent="agent0", task=TASK.format(1), versions={"git": "fed"})
    text = output_of(capsys, tmp_path, tmp_path / "none")
    assert "- not run: agent1 on cube-double-play-task2" in text
    assert "- mixed commit: fed: agent0 on cube-double-play-task1; abc: " in text
    assert f"- {tmp_path / 'none'}: no run is there" in text
    assert "- " + str(tmp_path / "1-2" / "config.json is damaged") in text


def test_published_numbers_stand_beside_tasks_and_groups(tmp_path):
    for task in range(1, 6):
        make_run(tmp_path / f"{task}", task=TASK.format(task), protocol=PROTOCOL)
        make_run(tmp_path / f"{task}x", agent="other", task=TASK.format(task), protocol=PROTOCOL)
    text = make_report(grid_of(tmp_path)).summary
    (line,) = [line for line in text.splitlines() if line.startswith("| deflow | 71.0")]
    assert "| DeFlow 40 ± 5 (8 seeds); not comparable: 400 of 1M steps¹ |" in line
    assert "- ¹ published: arXiv 2601.10471; networks not known, published (512, " in text


def test_runs_stand_among_the_seeds_of_published_curves(tmp_path, capsys):
    run = {"success": (0.0, 0.99), "protocol": PROTOCOL, "eval_interval": 50_000}
    for name, task in (("a", 2), ("b", 3)):
        folder = make_run(tmp_path / name, task=TASK.format(task), **run)
        for log in ("eval.csv", "train.csv"):
            text = (folder / log).read_text()
            (folder / log).write_text(
                text.replace("\n100,", "\n50000,").replace("\n200,", "\n100000,")
            )
    text = output_of(capsys, tmp_path / "a", "--with=QAM:fql")
    (line,) = [line for line in text.splitlines() if line.startswith("- deflow on cube-double")]
    assert "your mean at 100K, 100.0, stands at the 100th percentile of the 12 published" in line
    assert main([str(tmp_path), "--with=nobody:FQL"]) == 1
    assert "unknown release" in capsys.readouterr().err


def test_labels_and_scores_are_options(tmp_path, capsys):
    make_grid(tmp_path, methods=2, tasks=1)
    text = output_of(capsys, tmp_path, "--labels=One, Two", "--score=best")
    assert "| Two " in text
    assert "best evaluation, which is chosen after the fact" in text
    assert main([str(tmp_path), "--labels=One"]) == 1
    assert capsys.readouterr().err.startswith("error: 1 labels for 2 methods; ")


def change(run, **entries):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def spoil(run, name, old, new):
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: os.remove(run / "config.json"), "no run is there"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text('{"flags": {}}'), "config.json is damaged"),
        (lambda run: change(run, panels=[{"name": "x"}]), "config.json is damaged"),
        (lambda run: change(run, panels=[{"title": "x", "key": "x", "scale": "?"}]), "is damaged"),
        (lambda run: change(run, protocol={"metric": "luck", "evaluations": 1}), "is damaged"),
        (lambda run: change(run, protocol={"metric": "success", "evaluations": 0}), "is damaged"),
        (lambda run: change(run, protocol={"metric": "success"}), "config.json is damaged"),
        (lambda run: (run / "versions.json").write_text("{"), "versions.json is damaged"),
        (lambda run: (run / "versions.json").write_text('{"devices": 1}'), "its devices are 1"),
        (lambda run: (run / "config.json").write_bytes(b"\xff"), "config.json is damaged"),
        (lambda run: change(run, protocol={"metric": "success", "evaluations": 1.5}), "1.5 eval"),
        (lambda run: (run / "error.txt").mkdir(), "error.txt: Is a directory"),
        (lambda run: (run / "source/agent.py").mkdir(parents=True), "agent.py: Is a directory"),
        (lambda run: (run / "eval.csv").write_text("a,b\n1\n"), "eval.csv is damaged"),
        (lambda run: spoil(run, "eval.csv", "100,0", "1e2,0"), "line 2 has '1e2' as step"),
        (lambda run: spoil(run, "eval.csv", "100,0", ",0"), "line 2 has '' as step"),
        (lambda run: spoil(run, "eval.csv", "100,0", "100,x"), "line 2 has 'x' as seed"),
        (lambda run: spoil(run, "eval.csv", "return", "success"), "column 'success' twice"),
        (lambda run: spoil(run, "eval.csv", "step", "stop"), "no column step"),
        (lambda run: spoil(run, "eval.csv", "100,0,", "100,0,l"), "as success, where a number"),
        (lambda run: spoil(run, "timing.csv", "141", "l41"), "has 'l41' as updates_per_second"),
    ],
)
def test_broken_run_is_one_error_line(tmp_path, capsys, break_it, message):
    run = make_run(tmp_path / "run")
    break_it(run)
    assert main([str(run), f"--output={tmp_path / 'report'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(run) in error
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_an_output_that_is_a_file_is_one_error_line(tmp_path, capsys):
    make_run(tmp_path / "run")
    (tmp_path / "report").write_text("mine")
    assert main([str(tmp_path / "run"), f"--output={tmp_path / 'report'}"]) == 1
    assert capsys.readouterr().err.startswith(f"error: cannot write {tmp_path / 'report'}: ")
    assert (tmp_path / "report").read_text() == "mine"


def test_the_curves_of_a_run_are_not_replaced_by_those_of_a_report(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (run / "curves.png").write_text("mine")
    assert main([str(run), f"--output={run}"]) == 1
    assert "is a run's folder; give another --output" in capsys.readouterr().err
    assert (run / "curves.png").read_text() == "mine"


def test_a_report_says_how_much_the_intervals_of_few_seeds_cover(tmp_path):
    make_run(tmp_path / "few", seeds=3)
    assert "it covers the mean in about 50 % of cases with 2" in Report(grid_of(tmp_path)).summary
    make_run(tmp_path / "many", seeds=9)
    assert "covers" not in Report(grid_of(tmp_path / "many")).summary
