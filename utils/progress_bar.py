"""How far something long has come: a bar in a terminal, and plain lines in a log."""

import sys
import time
from typing import Any, Self

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 60.0
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left"


class _Lines:
    """Prints a line now and then, which stands alone in a file."""

    def __init__(self, total: int | None, initial: int, **words: Any):
        self._n = initial
        self._options = {"total": total, "initial": initial, **words}
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Count n more."""
        self._n += n
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            elapsed = now - self._began
            line = tqdm.format_meter(self._n, elapsed=elapsed, bar_format=_LINE, **self._options)
            print(line, flush=True)


def progress_bar(
    total: int | None,
    desc: str,
    *,
    unit: str,
    unit_scale: bool = False,
    initial: int = 0,
    leave: bool = True,
) -> tqdm | _Lines:
    """Return a context manager whose `update(n=1)` counts.

    Where output is redirected there is no bar, which would put its parts between the lines of a
    log, but a line on stdout at most once a minute.

    Args:
        total: What is counted to, if known.
        desc: What is done, in a word or two.
        unit: What is counted, in the singular.
        unit_scale: Whether to shorten large numbers, as in 1.2M.
        initial: What has been counted before.
        leave: Whether a bar stays once it is over.
    """
    options = {"total": total, "initial": initial, "unit": unit, "unit_scale": unit_scale}
    if sys.stdout.isatty() and sys.stderr.isatty():
        return tqdm(desc=desc, leave=leave, dynamic_ncols=True, mininterval=0.5, **options)
    return _Lines(prefix=desc, **options)
