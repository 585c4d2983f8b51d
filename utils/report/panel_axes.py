"""How one panel of the picture of many tasks is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from utils.report.mean_curves import MeanCurve, curves_of
from utils.report.panel_contents import Panel
from utils.report.pooling import Cell
from utils.report.style import Look, format_steps

_MARKERS = 5  # on a curve, about
_SIZES = {"P": 5.0, "*": 6.5}  # of markers that are slimmer than others
_LINE = "#333333"


@dataclass(frozen=True)
class Looks:
    """How everything is drawn, in all panels alike.

    Attributes:
        methods: Look by label.
        backgrounds: Look by name.
        levels: Look by name.
    """

    methods: Mapping[str, Look]
    backgrounds: Mapping[str, Look]
    levels: Mapping[str, Look]


def mean_line(look: Look) -> dict[str, Any]:
    """Return matplotlib's properties of a method's mean: bold, with filled markers."""
    return {
        "color": look.colour,
        "linestyle": look.line,
        "linewidth": 1.5,
        "marker": look.marker,
        "markersize": _SIZES.get(look.marker, 4.0),
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def background_line(look: Look) -> dict[str, Any]:
    """Return the properties of another group's curve: thinner, with hollow markers."""
    return mean_line(look) | {
        "linewidth": 1.0,
        "markerfacecolor": "white",
        "markeredgecolor": look.colour,
        "markeredgewidth": 0.8,
    }


def level_line(look: Look) -> dict[str, Any]:
    """Return the properties of a published score: long dashes, with a hollow marker."""
    return background_line(look) | {"linestyle": (0, (9, 3)), "linewidth": 0.8}


def draw_panel(axes: Axes, panel: Panel, looks: Looks) -> None:
    """Draw a panel without its heading: means above seeds above other groups' curves."""
    for step in panel.boundaries:
        axes.axvline(step, color=_LINE, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1.5)
    for name, look in looks.backgrounds.items():
        if name in panel.backgrounds:
            _draw_mean(axes, panel.backgrounds[name], background_line(look), 0.5, 1.8)
    for (name, online), value in panel.levels.items():
        start = panel.boundaries[0] if online else 0
        end = panel.boundaries[0] if panel.boundaries and not online else panel.last_step
        line = level_line(looks.levels[name])
        axes.plot([start, end], [value, value], **line, markevery=[1], clip_on=False, zorder=2.0)
    for cell in panel.cells:
        _draw_seeds(axes, cell, looks.methods[cell.label], 0.4 if len(panel.cells) < 4 else 0.25)
    for number, (label, look) in enumerate(looks.methods.items()):
        if label in panel.means:
            _draw_mean(axes, panel.means[label], mean_line(look), number / len(looks.methods), 3.0)
    low, high = panel.metric.bounds
    if np.isfinite([low, high]).all():
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(-0.02 * panel.last_step, 1.02 * panel.last_step)
    format_steps(axes)


def _draw_seeds(axes: Axes, cell: Cell, look: Look, alpha: float) -> None:
    """Draw each seed of a cell as a thin line, with a cross where it diverged."""
    curves = [curves_of([record]) for record in cell.records]
    axes.plot(
        # One line with gaps: hundreds take their time.
        np.concatenate([np.append(curve.steps, np.nan) for curve in curves]),
        np.concatenate([np.append(curve.values[0], np.nan) for curve in curves]),
        color=look.colour,
        linewidth=0.6,
        alpha=alpha,
        # A single point shows in no line.
        marker="." if any(len(curve.steps) == 1 for curve in curves) else None,
        markersize=3.0,
        zorder=2.2,
    )
    for record, curve in zip(cell.records, curves, strict=True):
        if record.failed is not None:
            # Without an evaluation there is no curve: a cross on the axis of steps.
            known = len(curve.steps) > 0
            axes.plot(
                curve.steps[-1] if known else record.failed,
                curve.values[0, -1] if known else 0.0,
                transform=axes.transData if known else axes.get_xaxis_transform(),
                color=look.colour,
                marker="x",
                markersize=5.0,
                markeredgewidth=1.3,
                clip_on=False,
                zorder=3.5,
            )


def _draw_mean(
    axes: Axes, curve: MeanCurve, line: Mapping[str, Any], offset: float, zorder: float
) -> None:
    """Draw a mean and its band.

    Args:
        axes: Where.
        curve: The mean.
        line: Properties of its line.
        offset: In [0, 1), where between two markers those of other curves are not.
        zorder: Its layer.
    """
    if curve.band is not None:
        axes.fill_between(
            curve.steps, *curve.band, color=line["color"], alpha=0.18, linewidth=0, zorder=zorder
        )
    stride = max(1, len(curve.steps) // _MARKERS)
    markers = (int(offset * stride), stride)
    axes.plot(curve.steps, curve.values, **line, markevery=markers, zorder=zorder + 0.1)
