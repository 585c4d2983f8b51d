"""The picture of action landscapes: a panel per state, in a plane of actions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from utils.analysis.action_plane import ActionPlane
from utils.analysis.action_samples import Samples
from utils.report.style import COLOURS, STYLE, write_png

_STYLE = STYLE | {"font.size": 7.5, "axes.titlesize": 8.0, "axes.grid": False}
_SIDE = 2.7  # of a panel, in inches
_COLUMNS = 3
_LEGEND = (1, 3, 4)  # entries side by side, by the number of columns
_BASE, _POLICY, _OTHER = COLOURS[0], COLOURS[1], COLOURS[2]
_LEVELS = 12
_EDGE = "#7a3fa0"


@dataclass(frozen=True)
class Landscape:
    """What a panel shows of a state.

    Attributes:
        row: The state's row in the data.
        percentile: Of its residuals' length among states, between 0 and 1; None without residuals.
        samples: Actions of the agents there.
        nearby: Actions of the data at the nearest states, (m, a).
        plane: What all actions are projected on.
        radius: sqrt(action_dim * delta); None if the agent has no trust region.
        ticks: Coordinates of the values along either axis, (2, g).
        q: Values in the plane, (g, g), the second axis first; beyond the box of actions those of
            the clipped ones.
        largest: Greatest size of the components before that, (g, g): above 1 beyond the box.
    """

    row: int
    percentile: float | None
    samples: Samples
    nearby: np.ndarray
    plane: ActionPlane
    radius: float | None
    ticks: np.ndarray
    q: np.ndarray
    largest: np.ndarray


def draw(
    landscapes: Sequence[Landscape], output: str | os.PathLike, *, title: str, other: str
) -> None:
    """Draw landscapes into one PNG file; the same ones give the same bytes.

    Args:
        landscapes: In the order of the panels.
        output: The picture; replaced in one go.
        title: Above all panels.
        other: Name of the other agent, if there is one.

    Raises:
        UserError: The picture cannot be written.
    """
    columns = min(_COLUMNS, len(landscapes))
    rows = -(-len(landscapes) // columns)
    handles, across = _handles(landscapes[0], other), _LEGEND[columns - 1]
    legend = -(-len(handles) // across) * 0.17 + 0.1  # its height, in inches
    with matplotlib.rc_context(_STYLE):
        size = (columns * (_SIDE + 0.7), rows * (_SIDE + 0.15) + 0.4 + legend)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for one, landscape in zip(axes, landscapes, strict=False):
            _draw_panel(one, landscape)
        for one in axes[len(landscapes) :]:
            one.set_axis_off()
        figure.suptitle(title, fontsize=9.0)
        figure.legend(handles=handles, loc="outside lower center", ncols=across)
        write_png(figure, output)


def _draw_panel(axes: Axes, landscape: Landscape) -> None:
    samples, project = landscape.samples, landscape.plane.project
    base, policy = project(samples.base), project(samples.policy)
    _draw_values(axes, landscape)
    axes.scatter(*project(landscape.nearby).T, s=16, marker="D", fc="none", ec="#000000", lw=0.7)
    if samples.refined:
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "minlength": 0, "alpha": 0.8}
        shape = {"width": 0.003, "headwidth": 5, "headlength": 5}
        axes.quiver(*base.T, *(policy - base).T, color=_POLICY, **arrows, **shape)
    else:
        axes.scatter(*policy.T, s=9, color=_POLICY, marker="^", lw=0)
    axes.scatter(*base.T, s=7, color=_BASE, lw=0, zorder=3)
    if samples.other is not None:
        axes.scatter(*project(samples.other).T, s=9, color=_OTHER, marker="s", lw=0, zorder=3)
    for radius, line in ((landscape.radius, "-"), (samples.moved, ":")):
        if radius:
            centre = project(samples.central)
            axes.add_patch(Circle(centre, radius, fill=False, ls=line, lw=1.0, zorder=4))
    axes.set(xlim=landscape.ticks[0, [0, -1]], ylim=landscape.ticks[1, [0, -1]], aspect="equal")
    axes.set_xlabel(landscape.plane.names[0], fontsize=7.0, labelpad=1.0)
    axes.set_ylabel(landscape.plane.names[1], fontsize=7.0, labelpad=1.0)
    axes.tick_params(labelsize=6.0, length=2)
    axes.set_title(_panel_title(landscape), loc="left", pad=3.0)


def _draw_values(axes: Axes, landscape: Landscape) -> None:
    """Draw contours of Q, their scale, and the edge of the box of actions."""
    lowest, highest = landscape.q.min(), landscape.q.max()
    highest = max(highest, lowest + 1e-6 * max(1.0, abs(lowest)))  # levels have to rise
    levels = np.linspace(lowest, highest, _LEVELS + 1)
    filled = axes.contourf(*landscape.ticks, landscape.q, levels, cmap="Greys_r", alpha=0.55)
    axes.contour(
        *landscape.ticks, landscape.q, levels, colors="#777777", linewidths=0.3, linestyles="-"
    )
    if landscape.largest.max() > 1.0:
        axes.contour(*landscape.ticks, landscape.largest, [1.0], colors=_EDGE, linestyles="--")
    bar = axes.figure.colorbar(filled, ax=axes, shrink=0.85, pad=0.02)
    shown = levels[:: _LEVELS // 3]
    bar.set_ticks(shown, labels=[f"{value:.4g}" for value in shown])
    bar.set_label("Q", fontsize=7.0, labelpad=0.0)
    bar.ax.tick_params(labelsize=6.0, length=2)
    bar.outline.set_visible(False)


def _panel_title(landscape: Landscape) -> str:
    samples, state = landscape.samples, f"row {landscape.row}"
    if landscape.percentile is not None:
        state += f", percentile {100 * landscape.percentile:.0f}"
    gained = f"Q gained {samples.gained:+.3g}"
    if samples.refined and landscape.radius:
        return f"{state}\nmoved {samples.moved / landscape.radius:.2f} radii, {gained}"
    return f"{state}\n{gained}"


def _handles(landscape: Landscape, other: str) -> list[Line2D]:
    """Return what the legend has to show."""

    def marker(label: str, shape: str, colour: str, **more: str) -> Line2D:
        return Line2D([], [], ls="", marker=shape, color=colour, label=label, ms=4, **more)

    def line(label: str, style: str) -> Line2D:
        return Line2D([], [], color="#000000", lw=1.0, ls=style, label=label)

    samples, handles = landscape.samples, [marker("base actions", "o", _BASE)]
    if samples.refined:
        handles.append(Line2D([], [], color=_POLICY, marker=">", ms=4, label="refinement"))
    else:
        handles.append(marker("policy's actions", "^", _POLICY))
    if samples.other is not None:
        handles.append(marker(f"actions of {other}", "s", _OTHER))
    if len(landscape.nearby):
        handles.append(marker("data at the nearest states", "D", "#000000", markerfacecolor="none"))
    if landscape.radius is not None:
        handles.append(line("radius sqrt(action_dim * delta)", "-"))
    if samples.refined:
        handles.append(line("the state's own residual", ":"))
    handles.append(Line2D([], [], color=_EDGE, lw=1.5, ls="--", label="edge of the box of actions"))
    return handles
