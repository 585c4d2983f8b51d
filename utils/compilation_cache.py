"""JAX's cache of compiled programs: where it lies, its size, and entries that are damaged."""

import contextlib
import glob
import os
import re
import sys
import warnings
import zlib
from pathlib import Path

import jax

# JAX's own default is 1 s. A run compiles dozens of programs that take less.
_WORTH_KEEPING_SECONDS = 0.1

# Some thousands of programs on a CPU, and hundreds on a GPU.
_MAX_BYTES = 2 << 30

_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '(.+?)'")


def enable_compilation_cache() -> None:
    """Have JAX keep compiled programs from one run to the next, unless it is told otherwise.

    They go to deflow/jax in the user's cache folder ($XDG_CACHE_HOME or ~/.cache), of which this
    call deletes those that were not used for longest, beyond 2 GiB in all. Or they go where
    JAX_COMPILATION_CACHE_DIR says, which is left to its owner. JAX_ENABLE_COMPILATION_CACHE=0
    turns it off. A folder that cannot be used costs a warning by JAX. An entry that is damaged
    costs a line, and is replaced. To be called before anything is compiled.
    """
    if jax.config.jax_compilation_cache_dir is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deflow" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        limit_size(folder, _MAX_BYTES)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_SECONDS)
    _replace_damaged_entries()


def limit_size(folder: Path, max_bytes: int) -> None:
    """Delete the files that were not used for longest until the others fit.

    JAX can do this itself (jax_compilation_cache_max_size), but takes a lock for every program that
    it reads, goes through the whole folder for every one that it writes, and fails for ever once a
    process was killed between an entry and its time stamp. Here processes need not wait for one
    another: what one of them misses is compiled again.

    Args:
        folder: The cache, which need not exist; files in folders within it count too.
        max_bytes: How much the files that stay may have in all.
    """
    files = []
    for parent, _, names in os.walk(folder):  # which passes over what cannot be read
        for path in (Path(parent, name) for name in names):
            with contextlib.suppress(OSError):  # Another process may have deleted it.
                status = path.stat()
                # Many file systems note only the first reading of a day, and some none at all.
                used = max(status.st_atime_ns, status.st_mtime_ns)
                files.append((used, status.st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > max_bytes:
            with contextlib.suppress(OSError):
                path.unlink()


def _replace_damaged_entries() -> None:
    """Have JAX's warning of an entry that it cannot read delete the entry, if it is damaged.

    A process that was killed while it wrote leaves half an entry, which JAX neither reads nor
    replaces. Once it is gone, JAX writes the program that it goes on to compile.
    """
    show = warnings.showwarning

    def showwarning(message, *details, **keywords):
        match = _UNREADABLE.match(str(message))
        folder = jax.config.jax_compilation_cache_dir
        if match and folder and (deleted := _delete_damaged(Path(folder), match[1])):
            print(
                f"deleted damaged entries of the cache of compiled programs: {', '.join(deleted)}",
                file=sys.stderr,
            )
        else:
            show(message, *details, **keywords)

    warnings.showwarning = showwarning


def _delete_damaged(folder: Path, program: str) -> list[str]:
    """Delete the entries of a program's name that are incomplete; return their names."""
    deleted = []
    for path in folder.glob(f"{glob.escape(program)}-*-cache"):
        with contextlib.suppress(OSError):
            if not _is_complete(path.read_bytes()):
                path.unlink()
                deleted.append(path.name)
    return deleted


def _is_complete(entry: bytes) -> bool:
    """Return whether an entry, which JAX compresses by zlib, has its end and the right checksum."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(entry)
    except zlib.error:
        return False
    return stream.eof
