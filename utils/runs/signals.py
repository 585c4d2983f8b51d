"""Signals and exit codes: how a run is asked to stop, and how it says what became of it."""

import contextlib
import os
import signal
from types import FrameType
from typing import NoReturn, Self

AGAIN = 75
"""Exit code that tells a scheduler to give the same command again."""

SEED_FAILED = 3
"""Exit code of a run that came to its end with other seeds than it began with."""

EXIT_CODES = {
    signal.SIGTERM: AGAIN,
    signal.SIGUSR1: AGAIN,  # a scheduler's early warning
    signal.SIGHUP: AGAIN,  # a closed terminal
    signal.SIGINT: 130,
}
"""Exit code after a signal, once the state is saved."""


class Signals:
    """Notes the first signal of a with-block; further ones change nothing.

    A SIGHUP that was ignored before, as under nohup, stays ignored.

    Attributes:
        received: The first signal.
        noted: Whether a signal is noted. It is while there is something to save; else it ends the
            with-block at once.
        final: Whether the process ends after the block: signals stay ignored then, once one was
            received, so that none disturbs the end or changes the exit code.
    """

    def __init__(self):
        self.received: int | None = None
        self.noted = False
        self.final = False
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in _heeded():
            previous = signal.signal(number, self._on_signal)
            self._handlers.callback(signal.signal, number, previous)
        return self

    def __exit__(self, *exception: object) -> None:
        if not (self.final and self.received is not None):
            self._handlers.close()

    @property
    def name(self) -> str:
        """Name of the signal received."""
        return signal.Signals(self.received).name

    @property
    def exit_code(self) -> int:
        """Exit code for the signal received."""
        return EXIT_CODES[self.received]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        _ignore_all()
        if self.received is None:
            self.received = number
            if not self.noted:
                _say_nothing_to_save(number)
                raise SystemExit(EXIT_CODES[number])


def end_at_once() -> None:
    """Have signals end the process with a line, from now on, as long as nothing is to be saved."""
    for number in _heeded():
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _ignore_all()
    _say_nothing_to_save(number)
    # An exception would pass through whatever is being imported, which may catch or wrap it.
    os._exit(EXIT_CODES[number])


def _say_nothing_to_save(number: int) -> None:
    name = signal.Signals(number).name
    # Not by sys.stderr, in which the signal may have come.
    with contextlib.suppress(OSError):
        os.write(2, f"{name}: nothing to save; the same command goes on from here\n".encode())


def _heeded() -> list[int]:
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in EXIT_CODES if not (nohup and number == signal.SIGHUP)]


def _ignore_all() -> None:
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
