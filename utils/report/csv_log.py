"""CSV files with growing columns, which survive a kill.

The columns of a file are ``step``, ``seed`` and then every key in order of its first value, so the
bytes depend on the rows alone: a file cut back to a checkpoint and continued is the same as one
that was never interrupted.
"""

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import cannot_write, write_atomically

Number = int | float
Row = dict[str, Number | str]

LEADING_COLUMNS = ("step", "seed")


def _format(key: str, value: Any) -> str:
    """Return the text of one cell, empty for None. Takes NumPy and JAX scalars too."""
    if value is None:
        return ""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        if "\n" in value or "\r" in value:
            raise ValueError(f"a line break cannot be logged: {key} = {value!r}")
        return value
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, float):
        return repr(value)
    raise TypeError(f"only numbers and strings can be logged, not {key} = {value!r}")


def _parse(cell: str) -> Number | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell


def _encode(lines: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()


def _ordered(columns: Iterable[str]) -> list[str]:
    """Move the leading columns to the front, and keep the order of the others."""
    columns = list(columns)
    leading = [column for column in LEADING_COLUMNS if column in columns]
    return leading + [column for column in columns if column not in LEADING_COLUMNS]


def _read_cells(path: Path) -> tuple[list[str], list[list[str]], int]:
    """Read a file up to its last complete line.

    A last line without a line break was torn by a kill in the middle of a write and is left out.

    Returns:
        The header, the cells of each row, and the number of bytes read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], [], 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    size = data.rfind(b"\n") + 1
    damaged = f"{path} is damaged ({{}}); fix that line, or remove the file to do without its rows"
    try:
        lines = list(csv.reader(io.StringIO(data[:size].decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(damaged.format(error)) from error
    if not lines:
        return [], [], 0
    header, *rows = lines
    if detail := _damage(header, rows):
        raise UserError(damaged.format(detail))
    return header, rows, size


def _damage(header: list[str], rows: list[list[str]]) -> str:
    """Return what is wrong with a file's cells, or an empty string."""
    if "step" not in header:
        return "line 1 has no column step"
    if twice := [name for i, name in enumerate(header) if name in header[:i]]:
        return f"line 1 has the column {twice[0]!r} twice"
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            return f"line {number} has {len(row)} cells, the header {len(header)}"
        for name, cell in zip(header, row, strict=True):
            wanted = name == "step" or (name == "seed" and cell)
            if wanted and not (cell.isascii() and cell.isdigit()):
                return f"line {number} has {cell!r} as {name}, where an integer belongs"
    return ""


def _as_dict(header: list[str], cells: list[str]) -> Row:
    return {key: _parse(cell) for key, cell in zip(header, cells, strict=True) if cell}


def read_csv(path: str | os.PathLike) -> list[Row]:
    """Read the rows of a log.

    It may be being written, or its writer have been killed: a torn last line is left out.

    Args:
        path: The file; one that does not exist has no rows.

    Returns:
        A dict per row: ints, floats (nan and inf included) and strings; empty cells are left out.

    Raises:
        UserError: A line is malformed or the file cannot be read.
    """
    header, rows, _ = _read_cells(Path(path))
    return [_as_dict(header, row) for row in rows]


class CsvLog:
    """A CSV file of rows with growing columns.

    It is complete on disk after each `append` and `extend`. Floats are written with the fewest
    digits that give the same float64 again. The file begins to exist with its first row. Opening an
    existing file continues it and removes a torn last line. One process at a time may write to a
    file.

    Raises:
        UserError: An existing file is malformed, or a write fails (a full disk); rows that were
            written before stay readable.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._columns, _, size = _read_cells(self.path)
        try:
            self.path.with_name(self.path.name + ".tmp").unlink(missing_ok=True)
            if self._columns:
                os.truncate(self.path, size)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns so far, in the order of the file."""
        return tuple(self._columns)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; see `extend`."""
        self.extend([row])

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, in one write unless there are new columns.

        Args:
            rows: Numbers (also NumPy or JAX scalars) or one-line strings by column name; None is an
                empty cell, and a column of nothing else does not exist.

        Raises:
            UserError: The disk is full; the file then ends with the row before the first of them.
        """
        cells = [{key: _format(key, value) for key, value in row.items()} for row in rows]
        cells = [{key: cell for key, cell in row.items() if cell} for row in cells]
        cells = [row for row in cells if row]
        columns = _ordered(dict.fromkeys(itertools.chain(self._columns, *cells)))
        if columns != self._columns:
            header, before, _ = _read_cells(self.path)
            earlier = [dict(zip(header, old, strict=True)) for old in before]
            self._rewrite(columns, [*earlier, *cells])
        elif cells:
            lines = [[row.get(column, "") for column in columns] for row in cells]
            self._append_lines(_encode(lines))

    def truncate_after(self, step: int) -> int:
        """Drop the rows after `step`.

        A run that resumes at `step` writes them again. Columns that no remaining row has a value in
        go too: what remains is byte for byte the file as it was before the first dropped row.

        Returns:
            The number of rows dropped.
        """
        header, rows, _ = _read_cells(self.path)
        kept = [row for row in rows if _as_dict(header, row)["step"] <= step]
        if len(kept) == len(rows):
            return 0
        if kept:
            used = [column for i, column in enumerate(header) if any(row[i] for row in kept)]
            self._rewrite(used, [dict(zip(header, row, strict=True)) for row in kept])
        else:
            self.path.unlink()
            self._columns = []
        return len(rows) - len(kept)

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        lines = [[row.get(column, "") for column in columns] for row in rows]
        write_atomically(self.path, _encode([columns, *lines]))
        self._columns = columns

    def _append_lines(self, lines: bytes) -> None:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(self.path, "ab", buffering=0))
                size = file.tell()
                try:
                    written = 0
                    while written < len(lines):
                        written += file.write(lines[written:])
                except OSError:
                    file.truncate(size)
                    raise
            except OSError as error:
                raise cannot_write(self.path, error) from error
