"""Learning curves as one picture."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.errors import UserError
from utils.metrics import Panel
from utils.report.csv_log import read_csv
from utils.report.folders import RunConfig, read_config
from utils.report.scores import METRICS, by_seed, failed_seeds, scored_metric
from utils.report.style import STYLE, Look, format_log, format_steps, looks, steps_label, write_png

Table = dict[int, dict[int, float]]
"""Values of one run by seed and step."""


@dataclass(frozen=True)
class _Plot:
    """A panel and what is drawn in it.

    Attributes:
        panel: How it is drawn.
        runs: Its values, one table per run; empty for a run without the column.
        failed: Per run, the seeds that failed; their curves end, and are in no mean.
        bounds: The least and the greatest value possible.
        is_evaluation: Whether the values come from eval.csv.
    """

    panel: Panel
    runs: list[Table]
    failed: list[Collection[int]]
    bounds: tuple[float, float] = (-math.inf, math.inf)
    is_evaluation: bool = False


def plot_curves(
    run_folders: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    labels: Sequence[str] | None = None,
    online_start: int | None = None,
    training: bool = True,
) -> None:
    """Draw the curves of one or several runs into one PNG file.

    First the evaluation, then the panels that the runs' config.json name, as far as their columns
    exist. The same rows give the same bytes.

    Args:
        run_folders: One run folder or several; any of eval.csv, train.csv and config.json may be
            missing.
        output: The picture; replaced in one go.
        labels: Names of the runs in the legend; by default the folders' names.
        online_start: Step at which the runs go online, to be marked by a vertical line.
        training: Whether to draw more than the evaluation.

    Raises:
        UserError: A CSV file is malformed, the picture cannot be written, or labels and folders
            differ in number.
    """
    if isinstance(run_folders, (str, os.PathLike)):
        run_folders = [run_folders]
    folders = [Path(folder) for folder in run_folders]
    labels = [folder.resolve().name for folder in folders] if labels is None else list(labels)
    if len(labels) != len(folders):
        raise UserError(f"{len(labels)} labels for {len(folders)} runs; give one for each")
    configs = [_config(folder) for folder in folders]
    plots = _evaluation_plots(folders, configs)
    if training:
        plots += _training_plots(folders, configs)
    with matplotlib.rc_context(STYLE):
        figure = _figure([plot for plot in plots if any(plot.runs)], labels, online_start)
        write_png(figure, output)


def _config(folder: Path) -> RunConfig | None:
    """Return a run's config, None where it cannot be read: rows alone are drawn too."""
    try:
        return read_config(folder)
    except UserError:
        return None


def _evaluation_plots(folders: Sequence[Path], configs: Sequence[RunConfig | None]) -> list[_Plot]:
    """Return one plot per metric that runs are scored by, each run in that of its own."""
    runs = [read_csv(folder / "eval.csv") for folder in folders]
    failed = [failed_seeds(rows) for rows in runs]
    scored = [
        scored_metric(rows, config and config.protocol)
        for rows, config in zip(runs, configs, strict=True)
    ]
    return [
        _Plot(
            Panel(metric.title, key, factor=metric.factor),
            [
                by_seed(rows, key) if key == own else {}
                for rows, own in zip(runs, scored, strict=True)
            ],
            failed,
            metric.bounds,
            is_evaluation=True,
        )
        for key, metric in METRICS.items()
    ]


def _training_plots(folders: Sequence[Path], configs: Sequence[RunConfig | None]) -> list[_Plot]:
    """Return one plot per column that a run's agent wants drawn, with all runs that have it."""
    runs = [read_csv(folder / "train.csv") for folder in folders]
    panels: dict[str, Panel] = {}
    for config in configs:
        for panel in config.panels if config else ():
            panels.setdefault(panel.key, panel)
    failed = [failed_seeds(rows) for rows in runs]
    return [
        _Plot(panel, [by_seed(rows, key) for rows in runs], failed) for key, panel in panels.items()
    ]


def _grid(cells: int) -> tuple[int, int]:
    """Return rows and columns for a number of cells, with as few empty ones as possible."""
    if cells <= 4:
        return 1, cells
    columns = min((4, 3), key=lambda width: (-cells % width, -width))
    return -(-cells // columns), columns


def _figure(plots: Sequence[_Plot], labels: Sequence[str], online_start: int | None) -> Figure:
    # The first panel, the evaluation, is twice as wide as the others.
    wide = len(plots) > 1 and plots[0].is_evaluation
    cells = max(1, len(plots) + wide)
    height, width = _grid(cells)
    figure = Figure(
        figsize=(3.1 * width + 0.2 if width > 1 else 6.0, 2.6 * height + 0.4 if width > 1 else 4.0),
        dpi=130,
        layout="constrained",
    )
    grid = figure.add_gridspec(height, width)
    if not plots:
        axes = figure.add_subplot(grid[0, 0])
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no rows to draw yet", ha="center", va="center")
        return figure
    # All panels span the same steps, from the first update on, so that they can be read together.
    drawn = [run for plot in plots for run in plot.runs]
    last_step = max(
        1, online_start or 0, *(step for run in drawn for seed in run.values() for step in seed)
    )
    for number, plot in enumerate(plots):
        cell = number + (wide and number > 0)
        row, column = divmod(cell, width)
        axes = figure.add_subplot(grid[row, column : column + (2 if wide and number == 0 else 1)])
        _draw_plot(axes, plot, labels, online_start)
        axes.set_xlim(-0.02 * last_step, 1.02 * last_step)
        if number == 0:
            axes.legend(loc="best", fontsize=8.0)
    return figure


def _draw_plot(axes: Axes, plot: _Plot, labels: Sequence[str], online_start: int | None) -> None:
    panel = plot.panel
    values = [value for run in plot.runs for seed in run.values() for value in seed.values()]
    if panel.scale == "log" and any(0 < value < np.inf for value in values):
        axes.set_yscale("log")
        format_log(axes.yaxis)
    if panel.reference is not None:
        axes.axhline(panel.reference, color="#555555", linewidth=0.9, linestyle="--")
    if online_start is not None:
        axes.axvline(online_start, color="#555555", linewidth=0.9, linestyle=":")
    runs = zip(plot.runs, plot.failed, labels, looks(len(labels)), strict=True)
    for table, failed, label, look in runs:
        if table:
            seeds = len(table)
            whole = sum(seed not in failed for seed in table)
            lost = f", {seeds - whole} failed" if whole < seeds else ""
            text = f"{label} (mean ± std of {whole} seeds{lost})" if seeds > 1 else label
            _draw_run(axes, plot, table, failed, look, text)
    if np.isfinite(plot.bounds).all():
        low, high = plot.bounds
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_title(panel.title, loc="left")
    format_steps(axes)
    axes.set_xlabel(steps_label(online_start is not None))


def _draw_run(
    axes: Axes, plot: _Plot, table: Table, failed: Collection[int], look: Look, label: str
) -> None:
    """Draw one run: a thin line per seed and, for several, their mean in a band of one std."""
    panel, colour, line = plot.panel, look.colour, look.line
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
            linestyle=line,
            linewidth=0.7 if several else 1.8,
            alpha=0.45 if several else 1.0,
            marker=marker,
            markersize=2.0 if several else 3.5,
            label=None if several else label,
        )
    if several:
        whole = curves[[seed not in failed for seed in table]]
        whole = whole if len(whole) else np.full_like(curves, np.nan)
        mean, std = whole.mean(axis=0), whole.std(axis=0)
        # No part of the band lies where no value can be or, on a logarithmic axis, where none is.
        low, high = plot.bounds
        if panel.scale == "log":
            low = np.nanmin(curves, initial=np.inf)
        band = np.clip(mean - std, low, None), np.clip(mean + std, None, high)
        axes.fill_between(steps, *band, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, mean, color=colour, linestyle=line, linewidth=2.0, label=label)
