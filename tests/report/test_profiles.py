import numpy as np
import pytest

import utils.report.profiles
from tests.report.cells import CUBE, make_cell
from tests.report.pictures import chunks, record_figures
from utils.report.profiles import FEWEST_TASKS, draw_profiles
from utils.report.statistics import bootstrap_interval, performance_profile


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    return record_figures(monkeypatch, utils.report.profiles)


def make_cells(tasks=FEWEST_TASKS, labels=("deflow", "fql"), **settings):
    """Cells of a random last score for each task and method."""
    scores = np.random.default_rng(0).uniform(10, 80, (tasks, len(labels)))
    return [
        make_cell(f"/tasks/t{i}.py", label, values=(0.0, scores[i, j]), seeds=3, **settings)
        for i in range(tasks)
        for j, label in enumerate(labels)
    ]


def test_a_profile_is_the_share_of_runs_with_a_higher_score(tmp_path, figures):
    cells = make_cells()
    assert draw_profiles(cells, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "success (%)"
    assert axes.get_title(loc="left") == "10 tasks"
    for line, band, label in zip(axes.lines, axes.collections, ("deflow", "fql"), strict=True):
        scores = [cell.scores() for cell in cells if cell.label == label]
        thresholds = line.get_xdata()
        assert (thresholds[0], thresholds[-1]) == (0, 100)
        np.testing.assert_allclose(line.get_ydata(), performance_profile(scores, thresholds))
        assert (line.get_ydata()[0], line.get_ydata()[-1]) == (1, 0)
        _, high = bootstrap_interval(lambda x: performance_profile(x, np.array([40.0])), scores)
        edge = band.get_paths()[0].vertices
        assert edge[edge[:, 0] == 40, 1].max() == pytest.approx(high[0])
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["deflow", "fql"]


def test_there_is_no_profile_of_fewer_tasks_that_all_methods_have(tmp_path):
    cells = make_cells()
    assert not draw_profiles([], tmp_path / "a.png")
    assert not draw_profiles(cells[:-1], tmp_path / "a.png")
    assert not draw_profiles(cells, tmp_path / "a.png", which="offline")
    assert not list(tmp_path.iterdir())


def test_each_metric_has_its_own_axes_as_wide_as_its_scores(tmp_path, figures):
    cells = make_cells(metric="normalized_return", labels=("deflow",))
    cells += [make_cell(CUBE.format(i), "fql") for i in range(FEWEST_TASKS)]
    draw_profiles(cells, tmp_path / "a.png")
    first, second = figures[0].axes
    scores = np.concatenate([cell.scores() for cell in cells[:FEWEST_TASKS]])
    assert first.get_xlabel() == "normalized return"
    assert first.lines[0].get_xdata()[[0, -1]].tolist() == [scores.min(), scores.max()]
    assert second.get_xlabel() == "success (%)"
    assert first.lines[0].get_color() != second.lines[0].get_color()


def test_the_same_cells_give_the_same_bytes_without_time_or_version(tmp_path):
    for name in ("a.png", "b.png"):
        draw_profiles(make_cells(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert chunks(tmp_path / "a.png") == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
