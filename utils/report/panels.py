"""The picture of many tasks: a panel for each, and their mean."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.report.panel_axes import Looks, draw_panel
from utils.report.panel_backgrounds import Background, Level
from utils.report.panel_contents import Panel, aggregate_panels, group_panels, task_panels
from utils.report.panel_legend import make_legend
from utils.report.pooling import Cell
from utils.report.style import STYLE, grey_looks, looks, steps_label, write_png

_STYLE = STYLE | {"font.size": 7.5, "axes.titlesize": 8.0, "axes.labelsize": 8.0}
_DPI = 150
_LETTER = 0.0083  # width of a letter in inches, per point of its size


def draw(
    cells: Sequence[Cell],
    output: str | os.PathLike,
    *,
    backgrounds: Sequence[Background] = (),
    levels: Sequence[Level] = (),
) -> None:
    """Draw the evaluations of all tasks into one PNG file.

    Each task has a panel: every scored seed as a thin line, their mean as a bold one in its 95 %
    bootstrap interval, other groups' curves in grey behind them, published scores as horizontal
    lines and the step of going online as a vertical one. Diverged seeds end in a cross and are in
    no mean; unfinished ones are drawn as far as they are, and are in the mean where no seed of
    their cell has finished. From two tasks on the mean over tasks and their IQM come first,
    followed by the means over those groups of a benchmark that are complete. The same cells give
    the same bytes.

    Args:
        cells: What is drawn, in the order of the legend and of the panels.
        output: The picture; replaced in one go.
        backgrounds: Curves of other groups.
        levels: Published scores.

    Raises:
        UserError: The picture cannot be written.
    """
    panels = group_panels(cells, backgrounds, levels) + task_panels(cells, backgrounds, levels)
    means = aggregate_panels(cells, backgrounds, levels)
    chosen = _choose_looks(cells, backgrounds, levels)
    with matplotlib.rc_context(_STYLE):
        write_png(_figure(means, panels, chosen), output)


def _choose_looks(
    cells: Sequence[Cell], backgrounds: Sequence[Background], levels: Sequence[Level]
) -> Looks:
    labels = list(dict.fromkeys(cell.label for cell in cells))
    own = dict(zip(labels, looks(len(labels)), strict=True))
    names = list(dict.fromkeys(background.name for background in backgrounds))
    agents = {cell.agent: own[cell.label] for cell in reversed(cells)}
    return Looks(
        methods=own,
        backgrounds=dict(zip(names, grey_looks(len(names)), strict=True)),
        levels={level.name: agents.get(level.agent, grey_looks(1)[0]) for level in levels},
    )


@dataclass(frozen=True)
class _Layout:
    """Where panels are, and how large.

    Attributes:
        columns: Of tasks.
        width: Of a task's panel, in inches.
        height: Of it.
        scale: Height of a mean over tasks, in that of a task.
        title_size: In points.
    """

    columns: int
    width: float
    height: float
    scale: float = 1.0
    title_size: float = 8.0


def _layout(number: int) -> _Layout:
    """Return the layout for a number of tasks."""
    if number == 1:
        return _Layout(1, 6.0, 3.6)
    if number <= 4:
        return _Layout(number, 3.2, 2.4)
    if number <= 16:
        columns = min((4, 3), key=lambda columns: (-number % columns, -columns))
        return _Layout(columns, 2.6, 1.9)
    return _Layout(5, 2.0, 1.35, scale=1.5, title_size=7.0)


def _figure(means: Sequence[Panel], panels: Sequence[Panel], chosen: Looks) -> Figure:
    """Draw means over tasks, two a row, and the tasks below them."""
    figure = Figure(dpi=_DPI, layout="constrained")
    if not panels:
        figure.set_size_inches(6.0, 1.0)
        figure.text(0.5, 0.5, "no evaluations to draw yet", ha="center", va="center")
        return figure
    layout = _layout(len(panels))
    columns = layout.columns
    top, rows = -(-len(means) // 2), -(-len(panels) // columns)
    legend = make_legend([*means, *panels], chosen, columns * layout.width)
    width, height = columns * layout.width + 0.3, (layout.scale * top + rows) * layout.height + 0.3
    figure.set_size_inches(width, height + legend.height)
    legend.draw(figure)
    figure.get_layout_engine().set(rect=(0, 0, 1, height / (height + legend.height)))
    ratios = [layout.scale] * top + [1.0] * rows
    grid = figure.add_gridspec(top + rows, 2 * columns, height_ratios=ratios)
    one_metric = len({panel.metric for panel in panels}) == 1
    for number, panel in enumerate(means):
        row, column = divmod(number, 2)
        axes = figure.add_subplot(grid[row, column * columns : (column + 1) * columns])
        draw_panel(axes, panel, chosen)
        axes.set_title(panel.title, loc="left", pad=3.0)
        axes.set_ylabel("" if one_metric else panel.metric.title)
    letters = int(0.82 * layout.width / (layout.title_size * _LETTER))
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        axes = figure.add_subplot(grid[top + row, 2 * column : 2 * column + 2])
        draw_panel(axes, panel, chosen)
        title = textwrap.fill(panel.title, letters)
        axes.set_title(title, loc="left", pad=3.0, fontsize=layout.title_size)
        _label(axes, number, panels, columns)
    if one_metric:
        figure.supylabel(panels[0].metric.title, fontsize=8.0)
    online = any(panel.boundaries for panel in panels)
    figure.supxlabel(steps_label(online), fontsize=8.0)
    return figure


def _label(axes: Axes, number: int, panels: Sequence[Panel], columns: int) -> None:
    """Label the axes of a panel as far as those below it and to its left do not say the same."""
    panel = panels[number]
    one_metric = len({other.metric for other in panels}) == 1
    same_values = one_metric and np.isfinite(panel.metric.bounds).all()
    same_steps = len({other.last_step for other in panels}) == 1
    lowest, first = number + columns >= len(panels), number % columns == 0
    axes.tick_params(labelbottom=lowest or not same_steps, labelleft=first or not same_values)
    if not one_metric and (first or panel.metric != panels[number - 1].metric):
        axes.set_ylabel(panel.metric.title)
