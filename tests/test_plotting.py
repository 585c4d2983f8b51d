import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from utils.logging import CsvLog

import utils.report.curves
from utils.errors import UserError
from utils.report.curves import TRAINING_PANELS, plot_curves, protocol_score, score_line
from utils.report.tables import comparison_table, main, summarise, wilson_interval

KEYS = [panel.key for panel in TRAINING_PANELS]


def write(path, rows):
    path.unlink(missing_ok=True)
    log = CsvLog(path)
    for row in rows:
        log.append(row)


def make_run(
    folder,
    *,
    success=(0.1, 0.5, 0.7, 0.9),
    seeds=2,
    keys=KEYS,
    agent="deflow",
    boundary=None,
    **flags,
):
    """A run folder; seed i has i / 50 more success than seed 0."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = {
        "seed": 0,
        "num_seeds": seeds,
        "offline_steps": 100 * len(success),
        "eval_episodes": 50,
        **flags,
    }
    config = {
        "env_name": "cube-single-play-singletask-v0",
        "agent_path": f"/somewhere/agents/{agent}.py",
        "flags": flags,
        "boundary": boundary,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write(
        folder / "eval.csv",
        [
            {"step": 100 * (i + 1), "seed": s, "success": rate + s / 50, "return": -9.0}
            for i, rate in enumerate(success)
            for s in range(seeds)
        ],
    )
    write(
        folder / "train.csv",
        [
            {"step": 50 * (i + 1), "seed": s, **dict.fromkeys(keys, 1.0 + i + s)}
            for i in range(2 * len(success))
            for s in range(seeds)
        ],
    )
    write(folder / "timing.csv", [{"step": 50, "updates_per_second": v} for v in (20, 141, 142)])
    return folder


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    drawn = []

    def record(*arguments, **keywords):
        drawn.append(Figure(*arguments, **keywords))
        return drawn[-1]

    monkeypatch.setattr(utils.report.curves, "Figure", record)
    return drawn


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


# --- Score ----------------------------------------------------------------------------------------


def test_ogbench_score_is_the_mean_of_the_last_three_evaluations_per_seed():
    rows = [
        {"step": step, "seed": seed, "success": rate + seed / 10, "return": 5.0}
        for step, rate in [(1, 0.0), (2, 0.9), (3, 0.3), (4, 0.6), (5, 0.9)]
        for seed in (0, 1)
    ]
    rows = rows[::-1]  # the order of the rows does not matter
    score = protocol_score(rows)
    assert score["evaluations_used"] == [3, 4, 5]
    assert score["per_seed"] == pytest.approx({0: 60.0, 1: 70.0})
    assert score["mean"] == pytest.approx(65.0)
    assert score["std"] == pytest.approx(5.0)
    assert score_line(score) == (
        "score: success 65.0 % (mean of the last 3 evaluations at 3, 4, 5; 2 seeds, std 5.0)"
    )


def test_d4rl_score_is_the_last_evaluation():
    rows = [{"step": i, "seed": 0, "normalized_return": 10.0 * i, "success": 0.0} for i in (1, 2)]
    score = protocol_score(rows)
    assert (score["metric"], score["mean"], score["std"]) == ("normalized_return", 20.0, None)
    assert score_line(score) == "score: normalized return 20.0 (last evaluation, at 2; 1 seed)"


def test_offline_to_online_scores_are_those_of_both_phases_ends(tmp_path):
    rows = [
        {"step": step, "seed": seed, "success": rate + seed / 10}
        for step, rate in [(1, 0.1), (2, 0.3), (3, 0.8), (4, 0.9)]
        for seed in (0, 1)
    ]
    score = protocol_score(rows, boundary=2)
    assert score["offline"]["per_seed"] == pytest.approx({0: 30.0, 1: 40.0})
    assert score["per_seed"] == pytest.approx({0: 90.0, 1: 100.0})
    assert score_line(score) == (
        "score: success 35.0 -> 95.0 % (offline at 2 -> online at 4; 2 seeds, std 5.0 -> 5.0)"
    )
    # Without an offline phase the evaluation before the first step is the score before.
    rows = [{"step": step, "success": rate} for step, rate in [(0, 0.0), (5, 0.5)]]
    assert score_line(protocol_score(rows, boundary=0)) == (
        "score: success 0.0 -> 50.0 % (offline at 0 -> online at 5; 1 seed)"
    )


def test_a_table_has_the_scores_of_both_phases(tmp_path):
    run = make_run(tmp_path / "run", success=(0.1, 0.5, 0.7), online_steps=100, boundary=200)
    table = comparison_table([run])
    assert "| 50 52 -> 70 72 " in table
    assert "| 51.0 ± 1.0 -> 71.0 ± 1.0 |" in table
    assert summarise(run)["steps_wanted"] == 300


def test_fewer_evaluations_than_the_protocol_has_are_told():
    rows = [{"step": 10, "success": 0.2}, {"step": 20, "success": 0.4}]
    assert score_line(protocol_score(rows)) == (
        "score: success 30.0 % (mean of the last 2 evaluations at 10, 20, "
        "where the protocol has 3; 1 seed)"
    )
    assert score_line(protocol_score(rows[:1])) == (
        "score: success 20.0 % (evaluation at 10, where the protocol has 3; 1 seed)"
    )
    assert score_line(protocol_score([])) == "score: no evaluation yet"
    assert protocol_score([])["mean"] is None


def test_untrained_and_incomplete_evaluations_do_not_count():
    rows = [{"step": step, "seed": s, "success": 0.5} for step in (0, 10, 20) for s in (0, 1)]
    rows.append({"step": 30, "seed": 0, "success": 1.0})  # a run that was killed in between
    score = protocol_score(rows)
    assert score["evaluations_used"] == [10, 20]
    assert score["mean"] == 50.0
    assert protocol_score(rows[:2])["evaluations_used"] == [0]


def test_diverged_seed_shows_in_the_score():
    rows = [{"step": 1, "seed": s, "success": v} for s, v in enumerate([0.5, math.nan])]
    assert math.isnan(protocol_score(rows)["mean"])
    assert "nan" in score_line(protocol_score(rows))


# --- Curves ---------------------------------------------------------------------------------------


def test_picture_has_the_panels_whose_columns_exist(tmp_path, figures):
    run = make_run(tmp_path / "run")
    plot_curves(run, tmp_path / "all.png", boundary=200)
    assert titles(figures[0]) == ["success (%)", *(panel.title for panel in TRAINING_PANELS)]
    plot_curves(run, tmp_path / "evaluation.png", training=False)
    assert titles(figures[1]) == ["success (%)"]
    run = make_run(tmp_path / "bc", keys=["flow/flow_loss"])
    plot_curves(run, tmp_path / "bc.png")
    assert titles(figures[2]) == ["success (%)", "flow loss"]
    image = imread(tmp_path / "all.png")
    assert image.shape[0] > 400
    assert image.std() > 0.05


def test_seeds_are_thin_lines_under_a_bold_mean_in_a_band(tmp_path, figures):
    plot_curves(make_run(tmp_path / "run", seeds=3), tmp_path / "a.png", labels=["DeFlow"])
    axes = figures[0].axes[0]
    *thin, bold = axes.lines
    assert len(thin) == 3
    assert all(line.get_linewidth() < bold.get_linewidth() for line in thin)
    np.testing.assert_array_equal(bold.get_xdata(), [100, 200, 300, 400])
    np.testing.assert_allclose(bold.get_ydata(), [12, 52, 72, 92])
    np.testing.assert_allclose(thin[2].get_ydata(), [14, 54, 74, 94])
    band = axes.collections[0].get_paths()[0].get_extents()
    assert band.y1 == pytest.approx(92 + np.std([0, 2, 4]))
    assert axes.get_legend().get_texts()[0].get_text() == "DeFlow (mean ± std of 3 seeds)"


def test_single_seed_has_no_band(tmp_path, figures):
    plot_curves(make_run(tmp_path / "run", seeds=1), tmp_path / "a.png")
    assert len(figures[0].axes[0].lines) == 1
    assert not figures[0].axes[0].collections


def test_runs_share_panels_and_differ_in_colour(tmp_path, figures):
    runs = [make_run(tmp_path / "a", seeds=1), make_run(tmp_path / "b", seeds=1, success=[0.3])]
    plot_curves(runs, tmp_path / "a.png")
    lines = figures[0].axes[0].lines
    assert [line.get_label() for line in lines] == ["a", "b"]
    assert lines[0].get_color() != lines[1].get_color()
    with pytest.raises(UserError, match="1 labels for 2 runs"):
        plot_curves(runs, tmp_path / "a.png", labels=["a"])


def test_same_rows_give_the_same_bytes_without_time_or_version(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("a.png", "b.png"):
        plot_curves(run, tmp_path / name)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))
    kinds, position = [], 8
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        kinds.append(kind)
        position += size + 12
    assert set(kinds) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("evaluations", "training"),
    [
        ([], []),
        ([], [{"step": 1, "critic/q_abs": 2.0}]),
        ([{"step": 1, "success": 0.5}], []),
        ([{"step": 1, "seed": 0, "return": -3.0}], [{"step": 1, "seed": 0, "alpha/alpha": 1.0}]),
        (
            [{"step": 1, "success": NAN}],
            [{"step": 1, "seed": s, "alpha/alpha": NAN} for s in (0, 1)],
        ),
        ([{"step": 0, "success": 0.0}], [{"step": 0, "alpha/alpha": 0.0, "critic/q_abs": INF}]),
        (
            [{"step": i, "seed": s, "success": [NAN, 0.5][s]} for i in (1, 2) for s in (0, 1)],
            [
                {"step": i, "seed": s, "alpha/alpha": [INF, -1.0, 2.0][i - s]}
                for i in (1, 2)
                for s in (0, 1)
            ],
        ),
        ([{"step": 1, "seed": 0, "success": 0.1}, {"step": 2, "seed": 1, "success": 0.1}], []),
    ],
)
def test_odd_runs_are_drawn_without_a_warning(tmp_path, evaluations, training):
    write(tmp_path / "eval.csv", evaluations)
    write(tmp_path / "train.csv", training)
    plot_curves(tmp_path, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").ndim == 3


def test_pyplot_is_not_imported():
    code = "import sys, utils.report.curves; sys.exit('matplotlib.pyplot' in sys.modules)"
    folder = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0


# --- Comparison -----------------------------------------------------------------------------------


def test_wilson_interval_against_known_values():
    # Newcombe 1998, table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1.0


def test_summary_of_a_run(tmp_path):
    run = summarise(make_run(tmp_path / "run", seeds=2))
    assert run["agent"] == "deflow"
    assert run["steps"] == run["steps_wanted"] == 400
    assert run["updates_per_second"] == 141
    assert run["score"]["mean"] == pytest.approx(71.0)
    expected = wilson_interval(0.71 * 300, 300)  # 50 episodes, 3 evaluations, 2 seeds
    assert run["interval"] == pytest.approx([100 * end for end in expected])


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


def test_run_without_rows_yet_is_a_line_of_dashes(tmp_path):
    run = make_run(tmp_path / "run", success=(), offline_steps=7)
    cells = [cell.strip() for cell in comparison_table([run]).splitlines()[2].split("|")]
    assert cells[5] == "0 of 7"
    assert cells[7:10] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: os.remove(run / "config.json"), "is not a run folder"),
        (lambda run: (run / "config.json").write_text("{"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda run: (run / "config.json").write_text('{"flags": {}}'), "config.json is damaged"),
        (lambda run: (run / "eval.csv").write_text("a,b\n1\n"), "eval.csv is damaged"),
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
