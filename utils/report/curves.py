"""Learning curves as one picture, and the score that the evaluation protocol defines."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from utils.errors import UserError
from utils.files import write_atomically
from utils.metrics import Panel
from utils.report.csv_log import read_csv
from utils.report.scores import METRICS, by_seed, run_metric

# Drawn where train.csv has the column.
TRAINING_PANELS = (
    Panel("divergence / delta", "train.csv", "actor/divergence_ratio", "log", reference=1.0),
    Panel("alpha", "train.csv", "alpha/alpha", "log"),
    Panel("mean |Q|", "train.csv", "critic/q_abs"),
    Panel("critic loss", "train.csv", "critic/critic_loss", "log"),
    Panel("flow loss", "train.csv", "flow/flow_loss"),
    Panel("actor Q loss", "train.csv", "actor/q_loss"),
)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.usetex": False,
}


def _draw_run(
    axes: Axes, panel: Panel, table: dict[int, dict[int, float]], colour: str, label: str | None
) -> None:
    """Draws one run: a thin line per seed and, for several, their mean in a band of one std."""
    steps = np.array(sorted({step for values in table.values() for step in values}))
    curves = panel.factor * np.array(  # (seeds, steps), nan where a seed has no value
        [[values.get(int(step), np.nan) for step in steps] for values in table.values()]
    )
    curves[~np.isfinite(curves)] = np.nan
    if panel.scale == "log":
        curves[curves <= 0] = np.nan
    # A point between gaps shows in no line, a few points look better as such.
    marker = "o" if len(steps) <= 40 else None
    several = len(curves) > 1
    for curve in curves:
        axes.plot(
            steps,
            curve,
            color=colour,
            linewidth=0.7 if several else 1.8,
            alpha=0.45 if several else 1.0,
            marker=marker,
            markersize=2.0 if several else 3.5,
            label=None if several else label,
        )
    if several:
        mean, std = curves.mean(axis=0), curves.std(axis=0)
        # No part of the band lies where no value can be or, on a logarithmic axis, where none is.
        low, high = panel.bounds
        if panel.scale == "log":
            low = np.nanmin(curves, initial=np.inf)
        band = np.clip(mean - std, low, None), np.clip(mean + std, None, high)
        axes.fill_between(steps, *band, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, mean, color=colour, linewidth=2.0, label=label)


def _grid(cells: int) -> tuple[int, int]:
    """Returns rows and columns for a number of cells, with as few empty ones as possible."""
    if cells <= 4:
        return 1, cells
    columns = min((4, 3), key=lambda width: (-cells % width, -width))
    return -(-cells // columns), columns


def plot_curves(
    run_folders: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    labels: Sequence[str] | None = None,
    boundary: int | None = None,
    training: bool = True,
) -> None:
    """Draws the curves of one or several runs into one PNG file.

    Panels: the evaluation, then those of `TRAINING_PANELS` whose columns exist. The same rows give
    the same bytes.

    Args:
        run_folders: One run folder or several, with eval.csv and train.csv (either may be missing).
        output: The picture; replaced in one go.
        labels: Names of the runs in the legend; by default the folders' names.
        boundary: A step to mark with a vertical line, where one phase ends and the next begins.
        training: Whether to draw more than the evaluation.

    Raises:
        UserError: If a CSV file is malformed or the picture cannot be written.
    """
    if isinstance(run_folders, (str, os.PathLike)):
        run_folders = [run_folders]
    folders = [Path(folder) for folder in run_folders]
    labels = [folder.resolve().name for folder in folders] if labels is None else list(labels)
    if len(labels) != len(folders):
        raise UserError(f"{len(labels)} labels for {len(folders)} runs; give one for each")
    names = ("eval.csv", "train.csv") if training else ("eval.csv",)
    rows = {name: [read_csv(folder / name) for folder in folders] for name in names}

    metrics = [run_metric(run) for run in rows["eval.csv"]]
    panels = [panel for key, panel in METRICS.items() if key in metrics]
    panels += [panel for panel in TRAINING_PANELS if training]
    tables = {panel: [by_seed(run, panel.key) for run in rows[panel.file]] for panel in panels}
    # Each run appears in the panel of its own metric only, also where others share a column.
    for key, panel in METRICS.items():
        if panel in tables:
            pairs = zip(tables[panel], metrics, strict=True)
            tables[panel] = [table if metric == key else {} for table, metric in pairs]
    panels = [panel for panel in panels if any(tables[panel])]

    with matplotlib.rc_context(_STYLE):
        figure = _figure(panels, tables, labels, boundary)
        buffer = io.BytesIO()
        # The default metadata name matplotlib's version.
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_atomically(output, buffer.getvalue())


def _figure(
    panels: Sequence[Panel],
    tables: dict[Panel, list[dict[int, dict[int, float]]]],
    labels: Sequence[str],
    boundary: int | None,
) -> Figure:
    # The first panel, the evaluation, is twice as wide as the others.
    wide = len(panels) > 1 and panels[0].file == "eval.csv"
    cells = max(1, len(panels) + wide)
    height, width = _grid(cells)
    figure = Figure(
        figsize=(3.1 * width + 0.2 if width > 1 else 6.0, 2.6 * height + 0.4 if width > 1 else 4.0),
        dpi=130,
        layout="constrained",
    )
    grid = figure.add_gridspec(height, width)
    if not panels:
        axes = figure.add_subplot(grid[0, 0])
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no rows to draw yet", ha="center", va="center")
        return figure
    # All panels span the same steps, from the first update on, so that they can be read together.
    drawn = [run for panel in panels for run in tables[panel]]
    last_step = max(
        1, boundary or 0, *(step for run in drawn for seed in run.values() for step in seed)
    )
    for number, panel in enumerate(panels):
        cell = number + (wide and number > 0)
        row, column = divmod(cell, width)
        axes = figure.add_subplot(grid[row, column : column + (2 if wide and number == 0 else 1)])
        _draw_panel(axes, panel, tables[panel], labels, boundary, last_step, number == 0)
    return figure


def _draw_panel(
    axes: Axes,
    panel: Panel,
    runs: Sequence[dict[int, dict[int, float]]],
    labels: Sequence[str],
    boundary: int | None,
    last_step: int,
    legend: bool,
) -> None:
    values = [value for run in runs for seed in run.values() for value in seed.values()]
    if panel.scale == "log" and any(0 < value < np.inf for value in values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))
    if panel.reference is not None:
        axes.axhline(panel.reference, color="#555555", linewidth=0.9, linestyle="--")
    if boundary is not None:
        axes.axvline(boundary, color="#555555", linewidth=0.9, linestyle=":")
    for number, (table, label) in enumerate(zip(runs, labels, strict=True)):
        if table:
            seeds = len(table)
            text = f"{label} (mean ± std of {seeds} seeds)" if seeds > 1 else label
            _draw_run(axes, panel, table, _COLOURS[number % len(_COLOURS)], text)
    if np.isfinite(panel.bounds).all():
        low, high = panel.bounds
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_xlim(-0.02 * last_step, 1.02 * last_step)
    axes.set_title(panel.title, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("updates" if boundary is None else "updates, then environment steps")
    if legend:
        axes.legend(loc="best", fontsize=8.0)
