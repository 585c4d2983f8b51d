"""Scores against the values of a setting, as a picture."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from utils.report.estimates import episodes_interval, estimate
from utils.report.grid import short_name
from utils.report.panel_axes import mean_line
from utils.report.panel_legend import Legend
from utils.report.pooling import Cell, value_text
from utils.report.records import differing_settings
from utils.report.scores import METRICS
from utils.report.style import STYLE, Look, looks, write_png

FEWEST_VALUES = 3
_COLUMNS = 3
_WIDTH, _HEIGHT = 3.4, 2.8  # of one pair of axes, in inches
_LOGARITHMIC = 10.0  # the ratio of values from which on


@dataclass(frozen=True)
class _Line:
    """Cells that differ in one setting alone.

    Attributes:
        task: Full name of the task.
        setting: Name of the setting.
        label: The agent, with what tells its lines apart.
        values: Of the setting, ascending.
        cells: In that order.
    """

    task: str
    setting: str
    label: str
    values: tuple[float, ...]
    cells: tuple[Cell, ...]


def draw_sensitivity(
    cells: Sequence[Cell], output: str | os.PathLike, *, which: str = "protocol"
) -> bool:
    """Draw how scores depend on settings that are numbers, as one PNG file.

    There is a pair of axes per task and setting of which an agent has `FEWEST_VALUES` values with
    all else equal. The same cells give the same bytes.

    Args:
        cells: Own results.
        output: The picture; replaced in one go.
        which: Kind of score, see `utils.report.records.score`.

    Returns:
        Whether there was such a setting; otherwise nothing is written.

    Raises:
        UserError: The picture cannot be written.
    """
    lines = list(_lines([cell for cell in cells if len(cell.scores(which))]))
    if not lines:
        return False
    labels = list(dict.fromkeys(line.label for line in lines))
    chosen = dict(zip(labels, looks(len(labels)), strict=True))
    panels: dict[tuple[str, str], list[_Line]] = {}
    for line in lines:
        panels.setdefault((line.task, line.setting), []).append(line)
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    width, height = max(_WIDTH * columns, 5.0), _HEIGHT * rows
    legend = Legend(
        "Mean over seeds with its 95 % bootstrap interval; of one seed, with that over episodes.",
        tuple((label, mean_line(look)) for label, look in chosen.items()),
        (),
        width,
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height + legend.height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, height / (height + legend.height)))
        legend.draw(figure)
        for number, own in enumerate(panels.values(), start=1):
            _draw_panel(figure.add_subplot(rows, columns, number), own, chosen, which)
        write_png(figure, output)
    return True


def _lines(cells: Sequence[Cell]) -> Iterator[_Line]:
    """Yield the lines of all tasks, agents and settings."""
    subjects: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        subjects.setdefault((cell.task, cell.agent), []).append(cell)
    for (task, agent), own in subjects.items():
        settings = [cell.records[0].config.settings for cell in own]
        differing = differing_settings([cell.records[0].config for cell in own])
        for name in differing:
            if not all(_is_number(values.get(name)) for values in settings):
                continue
            alike: dict[str, dict[float, Cell]] = {}
            for cell, values in zip(own, settings, strict=True):
                others = [
                    f"{other.removeprefix('agent.')}={value_text(values.get(other))}"
                    for other in differing
                    if other != name
                ]
                alike.setdefault(", ".join([agent, *others]), {})[values[name]] = cell
            for label, found in alike.items():
                if len(found) >= FEWEST_VALUES:
                    values, chosen = zip(*sorted(found.items()), strict=True)
                    yield _Line(task, name, label, values, chosen)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _draw_panel(axes: Axes, lines: Sequence[_Line], chosen: dict[str, Look], which: str) -> None:
    every = sorted({value for line in lines for value in line.values})
    for line in lines:
        means, ends = [], []
        for cell in line.cells:
            found = estimate(cell.scores(which))
            means.append(found.value)
            interval = found.interval or episodes_interval(cell, which)
            ends.append(interval or (found.value, found.value))
        spread = np.abs(np.array(ends).T - np.array(means))
        axes.errorbar(line.values, means, spread, **mean_line(chosen[line.label]), capsize=2.5)
    if every[0] > 0 and every[-1] / every[0] >= _LOGARITHMIC:
        axes.set_xscale("log")
    axes.margins(x=0.07)
    axes.set_xticks(every, [value_text(value) for value in every])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    metric = METRICS[lines[0].cells[0].records[0].metric]
    if np.isfinite(metric.bounds).all():
        low, high = metric.bounds
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_xlabel(lines[0].setting.removeprefix("agent."))
    axes.set_ylabel(metric.title)
    axes.set_title(short_name(lines[0].task), loc="left")
