"""Downloads: from a server or its mirrors, by many processes at once, checked before use."""

import contextlib
import hashlib
import http.client
import os
import sys
import tokenize
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import filelock
import numpy as np

from utils.errors import UserError
from utils.files import Column, cannot_write
from utils.progress_bar import progress_bar

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Origin:
    """Where the files of a suite come from.

    Attributes:
        variable: Environment variable with a base address that is tried before all others.
        addresses: What is tried next, in this order. In each `{path}` is the file's path below the
            official server, and `{name}` the end of it.
        sha256: Checksums in hexadecimal by file name; a file that is not named may have any.
    """

    variable: str
    addresses: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)

    def urls(self, path: str) -> list[str]:
        """Return the addresses of a file in the order in which they are tried."""
        base = os.environ.get(self.variable, "").rstrip("/")
        own = [f"{base}/{path}"] if base else []
        return own + [a.format(path=path, name=_name(path)) for a in self.addresses]


def ensure(
    origin: Origin,
    paths: Sequence[str],
    folder: str | os.PathLike,
    check: Callable[[Path], str],
    alternative: str = "",
) -> list[Path]:
    """Make sure that files are there, downloading those that are missing.

    Of several processes that ask for one file, one downloads it while the others wait. A file
    appears under its name only when it is complete and has passed the check; what a killed download
    leaves behind is hidden and written over by the next. Files that are there are not checked.

    Args:
        origin: Where they come from. An address that cannot be reached or has something else costs
            a line, and the next one is tried.
        paths: Paths of the files below the official server.
        folder: Where they are looked for and put, without the folders of their paths.
        check: Returns what is wrong with a file that was downloaded ("lacks qpos"), or "".
        alternative: What else can be done, as the end of a sentence (", or ...").

    Returns:
        The paths of the files in `folder`.

    Raises:
        UserError: A file cannot be had from any address, or `folder` cannot be written.
    """
    folder = Path(folder).expanduser()
    targets = [folder / _name(path) for path in paths]
    for path, target in zip(paths, targets, strict=True):
        failures = [] if os.path.exists(target) else _obtain(origin, path, target, check)
        if failures:
            missing = " and ".join(target.name for target in targets if not os.path.exists(target))
            raise UserError(
                f"cannot download {missing}: {'; '.join(failures)}. Put {missing} into {folder} by "
                f"hand, or set {origin.variable} to the base address of a server that has "
                f"{path}{alternative}"
            )
    return targets


def npz_problem(path: Path, columns: Mapping[str, Column]) -> str:
    """Return what is wrong with an npz file, or an empty string.

    The whole file is read once, and no array is held in memory.

    Args:
        path: The file.
        columns: The arrays that it has to hold; others are ignored.
    """
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    layouts = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key in {f"{key}.npy" for key in columns}.intersection(archive.namelist()):
                with archive.open(key) as file:
                    shape, _, dtype = read_header[np.lib.format.read_magic(file)](file)
                layouts[key.removesuffix(".npy")] = (shape, dtype)
            if found := layout_problem(layouts, columns):
                return found
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return f"is no complete npz file ({error})"
    except (ValueError, KeyError, NotImplementedError, tokenize.TokenError) as error:
        return f"is no npz file of plain arrays ({error})"
    return f"is damaged at {damaged}" if damaged else ""


def layout_problem(
    layouts: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    columns: Mapping[str, Column],
    optional: Sequence[str] = (),
) -> str:
    """Return what is wrong with the shapes and dtypes of a file's arrays, or an empty string.

    Args:
        layouts: Shape and dtype of each array that the file has.
        columns: What the arrays have to look like, with one number of rows.
        optional: Arrays that may be missing.
    """
    if missing := [key for key in columns if key not in layouts and key not in optional]:
        return f"lacks {' and '.join(missing)}"
    rows = {layouts[key][0][:1] for key in columns if key in layouts}
    for key, column in columns.items():
        shape, dtype = layouts.get(key, ((0, *column.shape), np.dtype(column.kinds[0])))
        if not shape or shape[1:] != column.shape or dtype.kind not in column.kinds:
            expected = ", ".join(["rows", *map(str, column.shape)])
            return f"has '{key}' of {dtype} {shape} where this task has ({expected})"
    return "" if len(rows) == 1 else "has arrays of different numbers of rows"


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _obtain(origin: Origin, path: str, target: Path, check: Callable[[Path], str]) -> list[str]:
    """Download a file unless it appears meanwhile; return why each address failed, or nothing."""
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting for another process to download {target}", file=sys.stderr)
            lock.acquire()
    temporary = target.with_name(f".{target.name}.part")
    try:
        return (
            [] if os.path.exists(target) else _try_addresses(origin, path, temporary, target, check)
        )
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        lock.release()


def _try_addresses(
    origin: Origin, path: str, temporary: Path, target: Path, check: Callable[[Path], str]
) -> list[str]:
    """Download from the first address that has the file; the caller holds the lock."""
    failures = []
    for url in origin.urls(path):
        if failures:
            print(f"{failures[-1]}; trying {url}", file=sys.stderr)
        try:
            digest = _download(url, temporary, target)
            expected = origin.sha256.get(target.name, digest)
            wrong_sum = f"has SHA-256 {digest} where {expected} is expected"
            problem = wrong_sum if digest != expected else check(temporary)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"fails: {_reason(error)}"
        if not problem:
            with _writing(target):
                os.replace(temporary, target)
            return []
        failures.append(f"{url} {problem}")
    return failures


def _download(url: str, temporary: Path, target: Path) -> str:
    """Download to `temporary` and return the SHA-256 in hexadecimal.

    Raises:
        UserError: `temporary` cannot be written.
        OSError, http.client.HTTPException, ValueError: Nothing, or not all, comes from `url`.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "deflow"})
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        response = stack.enter_context(urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS))
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length)
        with _writing(target):
            file = stack.enter_context(open(temporary, "wb"))
        progress = progress_bar(total, target.name, unit="byte", unit_scale=True)
        bar = stack.enter_context(progress)
        while chunk := response.read(_CHUNK_BYTES):
            with _writing(target):
                file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
        with _writing(target):
            file.flush()
            os.fsync(file.fileno())
        received = file.tell()
    if total is not None and received != total:
        raise OSError(f"the connection ended after {received} of {total} bytes")
    return digest.hexdigest()


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Have a failure to write end the download: no other address would help."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def _reason(error: Exception) -> str:
    """Return an exception's cause in words."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return str(error) or type(error).__name__
