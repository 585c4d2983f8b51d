"""Performance profiles as a picture."""

import functools
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.report.mean_curves import common_tasks
from utils.report.panel_axes import mean_line
from utils.report.panel_legend import Legend
from utils.report.pooling import Cell
from utils.report.scores import METRICS
from utils.report.statistics import bootstrap_interval, performance_profile
from utils.report.style import STYLE, Look, looks, write_png

FEWEST_TASKS = 10
_THRESHOLDS = 101
_MARKERS = 10  # on a curve
_WIDTH, _HEIGHT = 5.0, 3.2  # of one pair of axes, in inches


def draw_profiles(
    cells: Sequence[Cell], output: str | os.PathLike, *, which: str = "protocol"
) -> bool:
    """Draw which share of runs scores above each threshold (arXiv 2108.13264), as one PNG file.

    There is one pair of axes per metric that all methods have `FEWEST_TASKS` tasks of, and the
    shares are over these. Bands are 95 % bootstrap intervals, seeds being drawn within each task.
    The same cells give the same bytes.

    Args:
        cells: Own results.
        output: The picture; replaced in one go.
        which: Kind of score, see `utils.report.records.score`.

    Returns:
        Whether there were tasks enough; otherwise nothing is written.

    Raises:
        UserError: The picture cannot be written.
    """
    scored = [cell for cell in cells if len(cell.scores(which))]
    labels = list(dict.fromkeys(cell.label for cell in cells))
    chosen = dict(zip(labels, looks(len(labels)), strict=True))
    drawn = {}
    for metric in METRICS:
        own = [cell for cell in scored if cell.scored[0].metric == metric]
        tasks = common_tasks(own)
        if len(tasks) >= FEWEST_TASKS:
            drawn[metric] = [cell for cell in own if cell.task in tasks]
    if not drawn:
        return False
    shown = {cell.label for own in drawn.values() for cell in own}
    width = _WIDTH * len(drawn)
    legend = Legend(
        "Share of runs with a higher score, mean over tasks, in its 95 % bootstrap interval.",
        tuple((label, mean_line(look)) for label, look in chosen.items() if label in shown),
        (),
        width,
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, _HEIGHT + legend.height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, _HEIGHT / (_HEIGHT + legend.height)))
        legend.draw(figure)
        for number, (metric, own) in enumerate(drawn.items(), start=1):
            axes = figure.add_subplot(1, len(drawn), number)
            _draw_metric(axes, metric, own, chosen, which)
        write_png(figure, output)
    return True


def _draw_metric(
    axes: Axes, metric: str, cells: Sequence[Cell], chosen: Mapping[str, Look], which: str
) -> None:
    scores: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        scores.setdefault(cell.label, []).append(cell.scores(which))
    low, high = METRICS[metric].bounds
    if not np.isfinite([low, high]).all():
        every = np.concatenate([task for own in scores.values() for task in own])
        low, high = every.min(), every.max()
    thresholds = np.linspace(low, high, _THRESHOLDS)
    profile = functools.partial(performance_profile, thresholds=thresholds)
    for number, (label, look) in enumerate(chosen.items()):
        if label not in scores:
            continue
        band = bootstrap_interval(profile, scores[label])
        if band is not None:
            axes.fill_between(thresholds, *band, color=look.colour, alpha=0.18, linewidth=0)
        stride = _THRESHOLDS // _MARKERS
        markers = (stride * number // len(chosen), stride)
        axes.plot(thresholds, profile(scores[label]), **mean_line(look), markevery=markers)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("share of runs")
    axes.set_xlabel(METRICS[metric].title)
    tasks = len({cell.task for cell in cells})
    axes.set_title(f"{tasks} tasks", loc="left")
