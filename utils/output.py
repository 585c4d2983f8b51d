"""Standard output that may be closed: `| head -1`, a pager that was quit, `>&-`."""

import contextlib
import os
import sys
from typing import Any, TextIO


class Output:
    """A text stream whose reader may go away; what is written after that is lost.

    A run of hours does not end because nobody reads its lines. That is said once, on standard
    error.

    Args:
        stream: The stream; None where there is none.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        if stream is None:
            self._replace("there is none")

    def write(self, text: str) -> int:
        """Write text, and return its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._replace(error.strerror)
            return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._replace(error.strerror)

    def _replace(self, reason: str) -> None:
        """Go on without a reader; the number of the closed file does not go to another one."""
        null = open(os.devnull, "w")  # noqa: SIM115
        if self._stream is None:
            self._stream = null
        else:
            os.dup2(null.fileno(), self._stream.fileno())  # for what is left in its buffer, too
            null.close()
        with contextlib.suppress(OSError):
            print(f"standard output: {reason}; going on without it", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_stdout() -> None:
    """Let the program's standard output be closed."""
    if not isinstance(sys.stdout, Output):
        sys.stdout = Output(sys.stdout)
