import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import utils.report.curves
from tests.report.pictures import chunks, record_figures
from tests.report.run_folders import PANELS, make_run, write
from utils.errors import UserError
from utils.metrics import Panel
from utils.report.csv_log import read_csv
from utils.report.curves import plot_curves


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    return record_figures(monkeypatch, utils.report.curves)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_picture_has_the_panels_whose_columns_exist(tmp_path, figures):
    run = make_run(tmp_path / "run")
    plot_curves(run, tmp_path / "all.png", online_start=200)
    assert titles(figures[0]) == ["success (%)", *(panel.title for panel in PANELS)]
    plot_curves(run, tmp_path / "evaluation.png", training=False)
    assert titles(figures[1]) == ["success (%)"]
    run = make_run(tmp_path / "bc", keys=["flow/flow_loss"])
    plot_curves(run, tmp_path / "bc.png")
    assert titles(figures[2]) == ["success (%)", "flow loss"]
    image = imread(tmp_path / "all.png")
    assert image.shape[0] > 400
    assert image.std() > 0.05


@pytest.mark.parametrize("content", [None, "{", '{"panels": [{"title": 1}]}', "[]"])
def test_without_a_readable_config_the_evaluation_alone_is_drawn(tmp_path, figures, content):
    run = make_run(tmp_path / "run")
    (run / "config.json").unlink()
    if content is not None:
        (run / "config.json").write_text(content)
    plot_curves(run, tmp_path / "a.png")
    assert titles(figures[0]) == ["success (%)"]


def test_a_panel_is_drawn_as_the_agent_states_it(tmp_path, figures):
    panel = Panel("quantile loss (%)", "critic/new", "log", reference=2.0, factor=100.0)
    plot_curves(make_run(tmp_path / "run", panels=[panel], seeds=1), tmp_path / "a.png")
    assert titles(figures[0]) == ["success (%)", "quantile loss (%)"]
    axes = figures[0].axes[1]
    assert axes.get_yscale() == "log"
    reference, curve = axes.lines
    assert set(reference.get_ydata()) == {2.0}
    np.testing.assert_allclose(curve.get_ydata(), 100 * np.arange(1.0, 9.0))


def test_runs_of_two_agents_have_the_panels_of_both(tmp_path, figures):
    first, second = Panel("first", "a"), Panel("second", "b")
    runs = [
        make_run(tmp_path / "one", panels=[first], keys=["a", "b"], seeds=1),
        make_run(tmp_path / "two", panels=[second, Panel("other name", "a")], seeds=1),
    ]
    plot_curves(runs, tmp_path / "a.png")
    assert titles(figures[0]) == ["success (%)", "first", "second"]
    assert [len(axes.lines) for axes in figures[0].axes] == [2, 2, 2]


def test_the_protocols_metric_is_the_one_drawn(tmp_path, figures):
    run = make_run(tmp_path / "run", protocol={"metric": "return", "evaluations": 1})
    plot_curves(run, tmp_path / "a.png", training=False)
    assert titles(figures[0]) == ["return"]


def test_going_online_is_marked(tmp_path, figures):
    plot_curves(make_run(tmp_path / "run", seeds=1), tmp_path / "a.png", online_start=200)
    for axes in figures[0].axes:
        assert any(set(line.get_xdata()) == {200} for line in axes.lines)
        assert axes.get_xlabel() == "updates, then environment steps"


def test_the_mean_goes_on_without_a_failed_seed(tmp_path, figures):
    run = make_run(tmp_path / "run", seeds=3)
    rows = [row for row in read_csv(run / "eval.csv") if row["step"] <= 200 or row["seed"] != 1]
    rows += [{"step": step, "seed": 1, "failed": 1} for step in (300, 400)]
    write(run / "eval.csv", rows)
    plot_curves(run, tmp_path / "a.png", labels=["DeFlow"], training=False)
    *thin, bold = figures[0].axes[0].lines
    assert np.isnan(thin[1].get_ydata()).tolist() == [False, False, True, True]
    np.testing.assert_allclose(bold.get_ydata(), [12.0, 52.0, 72.0, 92.0])
    assert bold.get_label() == "DeFlow (mean ± std of 2 seeds, 1 failed)"


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


@pytest.mark.parametrize("number", [7, 8, 20])
def test_no_two_runs_have_a_colour_in_common(tmp_path, figures, number):
    runs = [make_run(tmp_path / f"{i}", seeds=1) for i in range(number)]
    plot_curves(runs, tmp_path / "a.png", training=False)
    lines = figures[0].axes[0].lines
    assert len({line.get_color() for line in lines}) == number
    for line, other in itertools.pairwise(lines if number > 7 else ()):
        assert line.get_linestyle() != other.get_linestyle()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.955, 0.985, {"0.96", "0.97", "0.98"}),
        (1e-6, 1e3, {"1e-06", "0.0001", "0.01", "1", "100"}),
        (8e4, 3e5, {"100000", "200000", "300000"}),
        (0.99999991, 0.99999999, set()),
    ],
)
def test_labels_of_a_logarithmic_axis_tell_its_values_apart(tmp_path, figures, low, high, expected):
    run = make_run(tmp_path / "run", panels=[Panel("ratio", "x", "log")], keys=[])
    write(run / "train.csv", [{"step": i, "x": x} for i, x in enumerate((low, high))])
    plot_curves(run, tmp_path / "a.png")
    axis = figures[0].axes[1].yaxis
    labels = [
        (place, text)
        for ticks, formatter in (
            (axis.get_majorticklocs(), axis.get_major_formatter()),
            (axis.get_minorticklocs(), axis.get_minor_formatter()),
        )
        for place, text in zip(ticks, formatter.format_ticks(ticks), strict=True)
        if text and low <= place <= high
    ]
    assert expected <= {text for _, text in labels}
    assert len({text for _, text in labels}) == len({place for place, _ in labels}) > 0
    for place, text in labels:
        assert float(text) == pytest.approx(place, rel=1e-9)


def test_same_rows_give_the_same_bytes_without_time_or_version(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("a.png", "b.png"):
        plot_curves(run, tmp_path / name)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))
    assert chunks(tmp_path / "a.png") == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


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
    make_run(tmp_path)  # whose config.json names the panels
    write(tmp_path / "eval.csv", evaluations)
    write(tmp_path / "train.csv", training)
    plot_curves(tmp_path, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").ndim == 3


def test_pyplot_is_not_imported():
    modules = "utils.report.curves, utils.report.panels, utils.report.profiles"
    code = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    folder = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0
