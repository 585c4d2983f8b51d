"""Tries of a command: when it is started again, and when it is given up.

All of it is told by marks in the command's log: `== start ... from STEP`, that of the newest
checkpoint, `== exit CODE` and, where the start counts as a try, `== requeue from STEP`.
"""

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from utils.runs.meaning import Meaning
from utils.runs.signals import SEED_FAILED
from utils.sweep.jobs import append, read_log
from utils.sweep.states import newest_checkpoint, read_state

_START = re.compile(rb"^== start .* from (\d+)$", re.MULTILINE)
_REQUEUE = re.compile(rb"^== requeue from (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Tries:
    """The tries of a command, on this machine or by Slurm.

    Attributes:
        log: The command's log.
        meaning: What the command means.
        most: How often it is tried from one checkpoint.
    """

    log: Path
    meaning: Meaning
    most: int

    @property
    def made(self) -> int:
        """How often the command was tried from its newest checkpoint."""
        return self._steps(_REQUEUE).count(newest_checkpoint(self.meaning.folder))

    @property
    def left(self) -> bool:
        """Whether the command may be tried once more."""
        return self.made < self.most

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: the run is complete, or all of its seeds have diverged."""
        log = read_log(self.log)
        if log is not None and log.exit_code in (0, SEED_FAILED):
            return True
        return read_state(self.meaning).final

    def note_start(self, where: str) -> None:
        """Mark a start.

        Args:
            where: Machine, and what else identifies the start.

        Raises:
            UserError: The log cannot be written; so for all marks.
        """
        step = newest_checkpoint(self.meaning.folder)
        append(self.log, f"\n== start {time.strftime('%FT%T%z')} on {where}, from {step}\n")

    def note_exit(self, code: int) -> None:
        """Mark how the last start ended."""
        append(self.log, f"\n== exit {code}\n")

    def note_try(self) -> None:
        """Count the last start as a try, from the checkpoint that it began at."""
        step = (self._steps(_START) or [newest_checkpoint(self.meaning.folder)])[-1]
        append(self.log, f"== requeue from {step}\n")

    def _steps(self, mark: re.Pattern[bytes]) -> list[int]:
        """Return the steps in marks of one kind, in their order."""
        with contextlib.suppress(OSError):
            return [int(step) for step in mark.findall(self.log.read_bytes())]
        return []
