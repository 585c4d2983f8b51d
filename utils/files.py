"""Files: atomic writes, and arrays that are checked before use."""

import contextlib
import errno
import fcntl
import json
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

SOURCES = "source"
"""In a run's folder, that of the agent's file and of all else that it and the settings name."""

LOCK = ".lock"
"""In a run's folder, what the process that trains there holds."""

ERROR = "error.txt"
"""In a run's folder, what its last start ended with, if that was an error."""

_CHECK_ROWS = 1 << 16
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Column:
    """What one array of a dataset file has to look like.

    Attributes:
        shape: Shape of one row.
        kinds: Accepted NumPy kinds of dtype, `"f"` or `"biu"` for instance.
    """

    shape: tuple[int, ...]
    kinds: str


def read_arrays(
    path: str | os.PathLike,
    columns: Mapping[str, Column],
    remedy: str,
    rows: int | None = None,
) -> dict[str, np.ndarray]:
    """Read and check arrays with one number of rows from an npz file.

    Args:
        path: The file.
        columns: The arrays to read and what they have to look like; others are ignored.
        remedy: What the user can do about a bad file, the end of a sentence.
        rows: Number of rows that the arrays must have; by default that of the first.

    Returns:
        The arrays by name.

    Raises:
        UserError: The file is truncated or damaged, needs unpickling, lacks an array, or holds one
            with a wrong shape, dtype or number of rows, or with values that are not finite.
    """
    try:
        # An object array, or a file that is a pickle and no archive at all, raises ValueError.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [key for key in columns if key not in archive.files]
            if missing:
                raise UserError(f"{path} lacks {' and '.join(missing)}; {remedy}")
            arrays = {key: archive[key] for key in columns}
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}; {remedy}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); {remedy}") from error
    except MemoryError as error:
        raise too_large(path, error, remedy) from error
    except (
        ValueError,
        OverflowError,
        AttributeError,
        NotImplementedError,
        tokenize.TokenError,
    ) as error:
        raise UserError(
            f"{path} is not an npz file of plain arrays, and pickled data is refused ({error}); "
            f"{remedy}"
        ) from error
    if rows is None:
        rows = next((len(array) for array in arrays.values() if array.ndim), 0)
    for key, column in columns.items():
        if found := problem(arrays[key], column, rows):
            raise UserError(f"'{key}' in {path} {found}; {remedy}")
    return arrays


def problem(array: np.ndarray, column: Column, rows: int) -> str:
    """Return what is wrong with an array of `rows` rows, or an empty string."""
    if array.dtype.kind not in column.kinds:
        return f"has dtype {array.dtype}"
    if array.ndim == 0 or array.shape[1:] != column.shape:
        expected = ", ".join(["rows", *map(str, column.shape)])
        return f"has shape {array.shape} where this task has ({expected})"
    if not len(array):
        return "is empty"
    if len(array) != rows:
        return f"has {len(array)} rows where the first array has {rows}"
    for start in range(0, rows if array.dtype.kind == "f" else 0, _CHECK_ROWS):
        with np.errstate(over="ignore"):  # What overflows is infinite in training.
            finite = np.isfinite(array[start : start + _CHECK_ROWS].astype(np.float32, copy=False))
        if not finite.all():
            row = start + int(np.argwhere(~finite)[0][0])
            return f"has a value that is not finite in row {row}, as float32"
    return ""


def too_large(path: str | os.PathLike, error: MemoryError, remedy: str) -> UserError:
    """Return the error to show for a file that asks for more memory than there is."""
    return UserError(f"{path} is damaged, or too large for the memory here ({error}); {remedy}")


def require_memory(num_bytes: int) -> None:
    """Raise MemoryError for an array that no memory of this machine can hold.

    Where the system promises more memory than it has, reading such an array would not fail but
    have the process killed.
    """
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > there_is:
        raise MemoryError(f"an array of {num_bytes:.1e} bytes, where there are {there_is:.1e}")


def npz_bytes(path: str | os.PathLike) -> int:
    """Return the bytes of all arrays in an npz file, without reading them.

    Of a file that is no archive it is 0; `read_arrays` says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return 0


def read_json(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: The file.
        remedy: What the user can do about a bad file, the end of a sentence.

    Raises:
        UserError: It cannot be read, or is damaged.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it holds no object); {remedy}")
    return content


def _reason(error: Exception) -> str:
    """Return an exception's cause in words."""
    return str(error) or type(error).__name__


# --- Writing --------------------------------------------------------------------------------------


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error to show for a failed write to `path`."""
    if error.errno in _FULL:
        remedy = "free some space or raise the quota, then start the same command again to resume"
    else:
        remedy = "check that the folder exists and is writable, then start the same command again"
    return UserError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def output_folder(path: str | os.PathLike) -> Path:
    """Return a folder for results, made if need be.

    Raises:
        UserError: It is a run's folder, which has results of its own, or cannot be made.
    """
    folder = Path(path)
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is a run's folder; give another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write a file that at any moment is either the old or the new one.

    Args:
        path: The file; its folder must exist. ``<path>.tmp`` is used on the way.
        data: The whole content.

    Raises:
        UserError: The disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def is_held(lock: str | os.PathLike) -> bool:
    """Return whether a process holds a lock file; False where there is none.

    For the moment of the look the lock cannot be taken, so whoever takes it must try for longer.
    """
    with contextlib.suppress(FileNotFoundError), open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
