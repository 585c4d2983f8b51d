"""A table of texts as Markdown and as LaTeX."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}


MANY = 6
"""More columns than these are too many to be read side by side."""

Beside = Mapping[tuple[str, str], str]
"""Texts for further columns, by (row, column)."""


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns.

    Attributes:
        header: Names of the columns; the first column names the rows.
        rows: Texts by row, as many in each as there are columns.
        best: (row, column) of what is best; LaTeX sets it in bold.
        rule: Row above which LaTeX draws a line; None for no such row.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    rule: int | None = None


@dataclass
class Notes:
    """Footnotes in order of their first mark; equal ones have one number.

    Attributes:
        texts: The notes.
    """

    texts: list[str] = field(default_factory=list)

    def mark(self, texts: Sequence[str]) -> str:
        """Return the superscript that refers to notes, empty for none."""
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        numbers = sorted(self.texts.index(text) + 1 for text in set(texts))
        return ",".join(_superscript(number) for number in numbers)

    def lines(self) -> list[str]:
        """Return one line per note, with its number."""
        return [f"{_superscript(number)} {text}" for number, text in enumerate(self.texts, 1)]


def _superscript(number: int) -> str:
    return "".join(_SUPERSCRIPTS[int(digit)] for digit in str(number))


def cross_table(
    rows: Sequence[str],
    columns: Sequence[str],
    text: Callable[[str, str], str],
    beside: Beside,
    first: str,
    title: Callable[[str], str],
) -> Table:
    """Return a table of rows by columns, turned if there are more columns than rows and than six.

    Args:
        rows: Keys of the rows.
        columns: Keys of the columns.
        text: The text of (row, column).
        beside: Texts by (row, column); a column that has any has one more column for them.
        first: What the rows are.
        title: Title of a row.
    """
    turned = is_turned(rows, columns)
    outer, inner = (columns, rows) if turned else (rows, columns)

    def key(line: str, column: str) -> tuple[str, str]:
        return (column, line) if turned else (line, column)

    with_beside = {column for column in inner if any(key(line, column) in beside for line in outer)}
    header, lines = ["method" if turned else first], [[o if turned else title(o)] for o in outer]
    for column in inner:
        name = title(column) if turned else column
        header.append(name)
        for line, cells in zip(outer, lines, strict=True):
            cells.append(text(*key(line, column)))
        if column in with_beside:
            header.append(f"{name}, published")
            for line, cells in zip(outer, lines, strict=True):
                cells.append(beside.get(key(line, column), ""))
    return Table(tuple(header), tuple(map(tuple, lines)))


def is_turned(rows: Sequence[str], columns: Sequence[str]) -> bool:
    """Return whether `cross_table` has a line per column."""
    return len(columns) > max(len(rows), MANY)


def markdown(table: Table) -> str:
    """Return a table in Markdown, its columns as wide as their longest text."""
    lines = [table.header, *table.rows]
    lines = [[text.replace("|", r"\|").replace("\n", " ") for text in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def latex(table: Table, notes: Sequence[str] = ()) -> str:
    """Return a table as a LaTeX tabular for the package booktabs.

    Args:
        table: The table.
        notes: Lines below it.
    """
    rows = [
        [
            rf"\textbf{{{escape_latex(text)}}}" if (i, j) in table.best else escape_latex(text)
            for j, text in enumerate(row)
        ]
        for i, row in enumerate(table.rows)
    ]
    body = [" & ".join(row) + r" \\" for row in rows]
    if table.rule is not None:
        body.insert(table.rule, r"\midrule")
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, table.header)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes:
        lines += [
            "",
            r"{\footnotesize",
            *(rf"\noindent {escape_latex(note)}\par" for note in notes),
            "}",
        ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return a text as LaTeX prints it."""
    parts = text.replace("\n", " ").split("->")
    text = r"$\to$".join("".join(_LATEX.get(c, c) for c in part) for part in parts)
    return re.sub(
        f"[{_SUPERSCRIPTS}]+",
        lambda found: (
            rf"\textsuperscript{{{''.join(str(_SUPERSCRIPTS.index(c)) for c in found[0])}}}"
        ),
        text,
    )
