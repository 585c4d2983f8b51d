"""Scores against a setting: which cells make a line, and where its points are."""

import dataclasses

import pytest

import utils.report.sensitivity
from tests.report.cells import CUBE, make_cell
from tests.report.pictures import record_figures
from utils.report.sensitivity import draw_sensitivity

RATES = (1e-4, 1e-3, 1e-2)


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    return record_figures(monkeypatch, utils.report.sensitivity)


def cell(score, task=1, seeds=3, **settings):
    """A cell whose last scores are the score and, for further seeds, one more each."""
    made = make_cell(CUBE.format(task), "mine", values=(0.0, score), seeds=seeds)
    named = {f"agent.{name}": value for name, value in settings.items()}
    records = tuple(
        dataclasses.replace(record, config=dataclasses.replace(record.config, settings=named))
        for record in made.records
    )
    return dataclasses.replace(made, records=records)


def test_a_setting_of_three_values_is_a_line_of_means_and_intervals(tmp_path, figures):
    cells = [cell(score, lr=rate) for rate, score in zip(RATES[::-1], (30, 20, 10), strict=True)]
    assert draw_sensitivity(cells, tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "lr"
    assert (axes.get_xscale(), axes.get_ylabel()) == ("log", "success (%)")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    line = axes.lines[0]
    assert line.get_xdata().tolist() == list(RATES)
    assert line.get_ydata().tolist() == [11, 21, 31]
    (bars,) = axes.collections
    low, high = bars.get_segments()[0][:, 1]
    assert 10 <= low < 11 < high <= 12
    draw_sensitivity(cells, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_other_settings_make_further_lines_and_tasks_further_panels(tmp_path, figures):
    cells = [
        cell(10 * task, task, lr=rate, tau=tau)
        for task in (1, 2)
        for rate in RATES
        for tau in (0.1, 0.2)
    ]
    assert draw_sensitivity(cells, tmp_path / "a.png")
    assert [axes.get_title(loc="left") for axes in figures[0].axes] == [
        "cube-double-play-task1",
        "cube-double-play-task2",
    ]
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert labels == ["mine, tau=0.1", "mine, tau=0.2"]


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [cell(10, lr=rate) for rate in RATES[:2]],
        [cell(10, lr=rate, tau=rate) for rate in RATES],
        [cell(10, how=how) for how in ("a", "b", "c")],
        [cell(10, wide=wide) for wide in (True, False)],
    ],
    ids=["none", "two values", "two settings at once", "texts", "choices"],
)
def test_elsewhere_there_is_no_picture(tmp_path, cells):
    assert not draw_sensitivity(cells, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
