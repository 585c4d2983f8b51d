"""Signals: how a run is asked to stop."""

import contextlib
import signal
from types import FrameType
from typing import Self

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""Exit code after a signal, once the state is saved; 75 tells a scheduler to start it again."""


class Signals:
    """Notes signals for the length of a with-block.

    Attributes:
        received: The first signal that was noted.
        noted: Whether signals are noted. They are while there is something to save; else they end
            the process at once.
    """

    def __init__(self):
        self.received: int | None = None
        self.noted = False
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in EXIT_CODES:
            previous = signal.signal(number, self._on_signal)
            self._handlers.callback(signal.signal, number, previous)
        return self

    def __exit__(self, *exception: object) -> None:
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
        if not self.noted:
            raise SystemExit(EXIT_CODES[number])
        self.received = self.received or number
