"""The legend of the picture of many tasks."""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.report.panel_axes import Looks, background_line, level_line, mean_line
from utils.report.panel_contents import Panel

_FONT = 8.0
_LETTER = 0.060  # inches, of a letter of that size on average
_LINE = 0.170  # inches, from line to line
_HANDLE = 0.55  # inches, the sample before a text
_MARGIN = 0.1  # inches

Entry = tuple[str, dict[str, Any]]
"""A text, and matplotlib's properties of the line before it."""


@dataclass(frozen=True)
class Legend:
    """What the panels of a picture have in common, above them.

    Attributes:
        caption: How to read them.
        methods: Of own results.
        published: Of other groups' curves and published scores.
        width: In inches.
    """

    caption: str
    methods: tuple[Entry, ...]
    published: tuple[Entry, ...]
    width: float

    @property
    def height(self) -> float:
        """Return what it takes, in inches."""
        lines = self._caption().count("\n") + bool(self.caption)
        lines += sum(self._lines(entries) for entries in (self.methods, self.published))
        return lines * _LINE + _MARGIN

    def draw(self, figure: Figure) -> None:
        """Draw it at the top of a figure that has room for it there."""
        height = figure.get_figheight()
        left, y = _MARGIN / figure.get_figwidth(), height - _MARGIN / 2
        if self.caption:
            figure.text(left, y / height, self._caption(), fontsize=_FONT, va="top")
            y -= (self._caption().count("\n") + 1) * _LINE
        for entries in (self.methods, self.published):
            if entries:
                figure.legend(
                    [Line2D([], [], **line) for _, line in entries],
                    [textwrap.fill(text, self._letters) for text, _ in entries],
                    loc="upper left",
                    bbox_to_anchor=(left, y / height),
                    ncols=self._columns(entries),
                    fontsize=_FONT,
                    handlelength=3.4,
                    borderpad=0.0,
                    borderaxespad=0.0,
                )
                y -= self._lines(entries) * _LINE

    @property
    def _letters(self) -> int:
        """How many fit into a line behind a sample."""
        return int((self.width - _HANDLE) / _LETTER)

    def _caption(self) -> str:
        return textwrap.fill(self.caption, int(self.width / _LETTER))

    def _columns(self, entries: Sequence[Entry]) -> int:
        longest = min(self._letters, max(len(text) for text, _ in entries))
        return max(1, min(len(entries), int(self.width / (longest * _LETTER + _HANDLE + 0.2))))

    def _lines(self, entries: Sequence[Entry]) -> int:
        """Return how many lines some entries take in their columns."""
        if not entries:
            return 0
        rows = -(-len(entries) // self._columns(entries))
        heights = [len(textwrap.wrap(text, self._letters)) for text, _ in entries]
        columns = [heights[i : i + rows] for i in range(0, len(heights), rows)]
        return max(map(sum, columns))


def make_legend(panels: Sequence[Panel], looks: Looks, width: float) -> Legend:
    """Return the legend of what panels show.

    Args:
        panels: All of a picture.
        looks: How everything is drawn.
        width: What it may take, in inches.
    """
    methods, published = [], []
    for label, look in looks.methods.items():
        cells = [cell for panel in panels for cell in panel.cells if cell.label == label]
        if cells:
            seeds = _seeds([len(cell.scored) for cell in cells])
            methods.append((f"{label} ({seeds})", mean_line(look)))
    for name, look in looks.backgrounds.items():
        if any(name in panel.backgrounds for panel in panels):
            published.append((name, background_line(look)))
    for name, look in looks.levels.items():
        if any(name == shown for panel in panels for shown, _ in panel.levels):
            published.append((name, level_line(look)))
    return Legend(_caption(panels), tuple(methods), tuple(published), width)


def _seeds(numbers: Collection[int]) -> str:
    """Return how many seeds means are of: 1 seed, 8 seeds, 3 to 8 seeds."""
    low, high = min(numbers), max(numbers)
    text = str(high) if low == high else f"{low} to {high}"
    return f"{text} seed" if high == 1 else f"{text} seeds"


def _caption(panels: Sequence[Panel]) -> str:
    """Return how to read what is drawn."""
    cells = [cell for panel in panels for cell in panel.cells]
    parts = []
    if any(len(cell.records) > 1 for cell in cells):
        parts.append("Thin: one seed. Bold: mean over seeds, in its 95 % bootstrap interval.")
    if any(record.failed is not None for cell in cells for record in cell.records):
        parts.append("Cross: the seed diverged and is in no mean.")
    if any(panel.boundaries for panel in panels):
        parts.append("Dotted vertical line: online from there.")
    return " ".join(parts)
