"""Pictures of where the rows of datasets lie in their mazes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from utils.collect.maze_maps import MazeMap
from utils.report.style import STYLE, write_png

_SQUARES_PER_CELL = 8
_WIDTH = 5.0  # inches, of a map
_COLUMNS = 2
_WALLS = ListedColormap([(1, 1, 1, 0), "#4d4d4d"])


@dataclass(frozen=True)
class Visits:
    """How often each place of a maze is visited.

    Attributes:
        title: What the dataset is called.
        maze: The maze.
        rows: Number of rows in each square, (squares, squares), with y first.
    """

    title: str
    maze: MazeMap
    rows: np.ndarray

    @classmethod
    def of(cls, title: str, maze: MazeMap, positions: np.ndarray) -> Self:
        """Count positions (n, 2) in metres in squares of an eighth of a cell."""
        left, right, bottom, top = maze.extent
        squares = [size * _SQUARES_PER_CELL for size in maze.free.shape]
        x, y = positions.T
        rows, _, _ = np.histogram2d(y, x, squares, range=[(bottom, top), (left, right)])
        return cls(title, maze, rows)


def draw_visits(visits: Sequence[Visits], output: str | os.PathLike) -> None:
    """Draw a map per dataset, walls grey and places the darker the more rows lie there.

    Args:
        visits: The datasets.
        output: The PNG file.

    Raises:
        UserError: The picture cannot be written.
    """
    columns = min(_COLUMNS, len(visits))
    lines = -(-len(visits) // columns)
    ratio = max(one.maze.free.shape[0] / one.maze.free.shape[1] for one in visits)
    with matplotlib.rc_context(STYLE):
        size = (_WIDTH * columns, (_WIDTH * ratio + 0.9) * lines)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        for number, one in enumerate(visits, start=1):
            axes = figure.add_subplot(lines, columns, number)
            image = axes.imshow(
                np.ma.masked_equal(one.rows, 0),
                cmap="viridis_r",
                norm=LogNorm(1, max(10, one.rows.max())),
                origin="lower",
                extent=one.maze.extent,
            )
            axes.imshow(~one.maze.free, cmap=_WALLS, origin="lower", extent=one.maze.extent)
            axes.set_title(one.title, loc="left", wrap=True)
            axes.set_axis_off()
            bar = figure.colorbar(
                image, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02
            )
            bar.ax.xaxis.set_major_formatter(EngFormatter(sep=""))
            bar.set_label(f"rows in {one.maze.unit / _SQUARES_PER_CELL:g} m squares")
        write_png(figure, output)
