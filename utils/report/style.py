"""How the report's pictures look, and how they become files."""

import io
import os
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from utils.files import write_atomically

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREYS = ("#6e6e6e", "#949494", "#4d4d4d")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "<", ">")  # no cross, which marks a divergence
STYLE = {
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
    "text.parse_math": False,  # names are not formulas
}


class _PlainLogFormatter(LogFormatter):
    """Labels the ticks that its base does, by numbers that tell them apart: 0.96 and not 1e+00."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:.10g}" if super().__call__(x, pos) else ""


@dataclass(frozen=True)
class Look:
    """How one of several curves is told from the others, in black and white too.

    Attributes:
        colour: As a hexadecimal code.
        line: Matplotlib's style of the line.
        marker: Matplotlib's marker.
    """

    colour: str
    line: str
    marker: str


def looks(number: int) -> list[Look]:
    """Return as many looks, no colour twice: beyond those of `COLOURS`, a rainbow's.

    Lines and markers differ too, for up to 36 of them.
    """
    colours = COLOURS[:number]
    if number > len(COLOURS):
        rainbow = matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, number))
        colours = [to_hex(colour) for colour in rainbow]
    return [
        Look(colour, LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i, colour in enumerate(colours)
    ]


def grey_looks(number: int) -> list[Look]:
    """Return as many looks for what stands behind own curves: shades of grey."""
    return [
        Look(GREYS[i % len(GREYS)], LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i in range(number)
    ]


def format_steps(axes: Axes, ticks: int = 4) -> None:
    """Label an axis of steps by a few round numbers: 200k, 1M."""
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def format_log(axis: Axis) -> None:
    """Label a logarithmic axis by plain numbers."""
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(1.0, 0.4)))


def steps_label(online: bool) -> str:
    """Return the name of an axis of steps."""
    return "updates, then environment steps" if online else "updates"


def write_png(figure: Figure, output: str | os.PathLike) -> None:
    """Write a figure as a PNG file, in one go.

    Equal figures give equal bytes.

    Raises:
        UserError: The file cannot be written.
    """
    buffer = io.BytesIO()
    # The default metadata name matplotlib's version.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_atomically(output, buffer.getvalue())
