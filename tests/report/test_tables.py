import json
import os

import pytest
from matplotlib.image import imread

from tests.report.run_folders import make_run
from utils.report.__main__ import main
from utils.report.tables import comparison_table, summarise, wilson_interval


def test_wilson_interval_against_known_values():
    # Newcombe 1998, table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1.0


def test_summary_of_a_run(tmp_path):
    run = summarise(make_run(tmp_path / "run", seeds=2))
    assert run.config.agent == "deflow"
    assert run.steps == run.config.steps_wanted == 400
    assert run.updates_per_second == 141
    assert run.score["mean"] == pytest.approx(71.0)
    expected = wilson_interval(0.71 * 300, 300)  # 50 episodes, 3 evaluations, 2 seeds
    assert run.interval == pytest.approx([100 * end for end in expected])


def test_a_table_has_the_scores_of_both_phases(tmp_path):
    run = make_run(tmp_path / "run", success=(0.1, 0.5, 0.7), online_steps=100, online_start=200)
    table = comparison_table([run])
    assert "| 50 52 -> 70 72 " in table
    assert "| 51.0 ± 1.0 -> 71.0 ± 1.0 |" in table
    assert summarise(run).config.steps_wanted == 300


def test_a_table_follows_the_protocol_of_the_run(tmp_path):
    run = make_run(tmp_path / "run", protocol={"metric": "success", "evaluations": 1})
    assert "| success % | 90 92    | 91.0 ± 1.0 |" in comparison_table([run])
    run = make_run(tmp_path / "run", protocol={"metric": "return", "evaluations": 2})
    summary = summarise(run)
    assert (summary.score["metric"], summary.score["mean"]) == ("return", -9.0)
    assert summary.interval is None  # a return is no rate


def test_table_and_picture_of_two_runs(tmp_path, capsys):
    deflow = make_run(tmp_path / "one")
    bc = make_run(tmp_path / "two", success=(0.04,), seeds=1, offline_steps=400)
    os.remove(bc / "timing.csv")
    output = tmp_path / "curves.png"
    assert main([str(deflow), str(bc), f"--output={output}", "--labels=DeFlow, BC"]) == 0
    head, rule, *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"curves: {output}"
    assert len({len(line) for line in (head, rule, *lines)}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    task = "cube-single-play-singletask-v0"
    assert cells[0][:8] == [
        *("DeFlow", task, "deflow", "2", "400", "success %, last 3", "70 72", "71.0 ± 1.0")
    ]
    assert cells[1][:8] == ["BC", task, "deflow", "1", "100 of 400", "success %", "4", "4.0"]
    assert [line[-1] for line in cells] == ["141", "-"]
    assert imread(output).ndim == 3


def test_labels_default_to_what_tells_the_runs_apart(tmp_path):
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", agent="fql")]
    table = comparison_table(runs)
    assert "| deflow | cube" in table
    assert "| fql    | cube" in table
    make_run(tmp_path / "two")
    assert "| two | cube" in comparison_table(runs)
    settings = [make_run(tmp_path / name / "sd000") for name in ("a_hash", "b_hash")]
    assert "| b_hash/sd000 | cube" in comparison_table(settings)


def test_run_without_rows_yet_is_a_line_of_dashes(tmp_path):
    run = make_run(tmp_path / "run", success=(), offline_steps=7)
    cells = [cell.strip() for cell in comparison_table([run]).splitlines()[2].split("|")]
    assert cells[5] == "0 of 7"
    assert cells[7:10] == ["-", "-", "-"]


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
        (lambda run: os.remove(run / "config.json"), "is not a run folder"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text('{"flags": {}}'), "config.json is damaged"),
        (lambda run: change(run, panels=[{"name": "x"}]), "config.json is damaged"),
        (lambda run: change(run, panels=[{"title": "x", "key": "x", "scale": "?"}]), "is damaged"),
        (lambda run: change(run, protocol={"metric": "luck", "evaluations": 1}), "is damaged"),
        (lambda run: change(run, protocol={"metric": "success", "evaluations": 0}), "is damaged"),
        (lambda run: change(run, protocol={"metric": "success"}), "config.json is damaged"),
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
    assert main([str(run), f"--output={tmp_path / 'a.png'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_wrong_number_of_labels_is_one_error_line(tmp_path, capsys):
    assert main([str(make_run(tmp_path / "run")), "--labels=a,b"]) == 1
    assert capsys.readouterr().err == "error: 2 labels for 1 runs; give one for each\n"
