"""Whether what a checkpoint holds is damaged, or could only not be read now."""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from utils.errors import UserError

_Read = TypeVar("_Read")

# What reading raises for content that is missing, cut or cannot be parsed. TensorStore has
# ValueError for most of its codes, those of `_REFUSED` among them.
_CONTENT = (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError)
_MISSING = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_REFUSED = re.compile(
    r"os_error_code|Failed to open|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED|"
    r"UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED"
)


class Damaged(Exception):  # noqa: N818 - what it is, and no error of the program
    """What was read is not what was saved; the message is the reason."""


def digest(arrays: Any, host: Any) -> str:
    """Return a checksum of all that a checkpoint holds.

    SHA-256: measured on one core, 50 MB take 0.1 to 0.2 s, where writing them takes 1 s.

    Args:
        arrays: Nested dictionaries of NumPy arrays; their names, types, shapes and bytes count.
        host: What JSON can hold.
    """
    found = hashlib.sha256()
    for path, array in jax.tree_util.tree_leaves_with_path(arrays):
        found.update(repr((jax.tree_util.keystr(path), str(array.dtype), array.shape)).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    found.update(json.dumps(json.loads(json.dumps(host)), sort_keys=True).encode())
    return found.hexdigest()


def read_or_prove(read: Callable[[], _Read], folder: Path) -> _Read:
    """Read a checkpoint, and where that fails find out what it is.

    A library's exception does not tell a bad file from one that the system withholds: TensorStore
    raises ValueError for both, and a file that may not be looked at "does not exist". Damage
    therefore has to be proved. Every file is read to its end, the library aside, and then the
    checkpoint once more. Only if the first can be done, and the second fails at its content (the
    checksum, something missing, cut or not to be parsed), is the checkpoint damaged. Whatever else
    it is may be over the next time.

    Args:
        read: Reads it on the host, so that no device has a part in it; raises `Damaged` for a
            checksum that differs.
        folder: The checkpoint's own.

    Raises:
        Damaged: It is.
        UserError: The operating system refuses, or memory is short, or the reason is unknown.
    """
    with contextlib.suppress(Exception):
        return read()
    try:
        _read_files(folder)
    except OSError as error:
        raise cannot_read(folder, error) from error
    try:
        return read()
    except Damaged:
        raise
    except Exception as error:
        if isinstance(error, _CONTENT) and not any(map(_is_refusal, _causes(error))):
            raise Damaged(f"{type(error).__name__}: {reason(error)}") from error
        raise cannot_read(folder, error) from error


def cannot_read(folder: Path, error: Exception) -> UserError:
    """Return the error to show where nothing is wrong with the files as far as is known."""
    return UserError(
        f"{folder} cannot be read now ({reason(error)}); it may be whole, and nothing has been "
        "changed. Remove the cause, and run the same command again"
    )


def reason(error: BaseException) -> str:
    """Return the first line of what an exception says, in the system's words where it has them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return re.sub(r" \[(tensorstore_spec|os_error_code|source locations)=.*", "", text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_refusal(error: BaseException) -> bool:
    """Whether it came from the operating system or for want of memory, not from the content."""
    if isinstance(error, OSError) and error.errno not in _MISSING:
        return True
    return isinstance(error, MemoryError) or bool(_REFUSED.search(str(error)))


def _read_files(folder: Path) -> None:
    """Read all files below a folder to their ends; raises OSError if one cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            with open(Path(parent, name), "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
