"""What is kept beside a sweep's file: frozen commands, logs, jobs' ids, the report.

`sweep.txt` has its folder `sweep.jobs/`, with `folders.txt`, the run folder of each command, and a
folder `001/`, `002/` and so on for each time that commands were started or submitted, so that
neither an edit of the file nor the next submission disturbs what is under way.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import cannot_write, read_json, write_atomically
from utils.runs.meaning import Meaning
from utils.sweep.commands import Command

_TAIL_BYTES = 1 << 16
_MARK = re.compile(r"== (start|exit) ?(.*)")


@dataclass(frozen=True)
class Submission:
    """A folder of commands that were started or submitted together.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def commands(self) -> Path:
        """The commands, one per line and nothing else."""
        return self.folder / "commands.txt"

    @property
    def meanings(self) -> Path:
        """What the commands mean, as JSON, by their lines from 1."""
        return self.folder / "meanings.json"

    @property
    def logs(self) -> Path:
        """The folder of logs: `1.log` has the output of the first command."""
        return self.folder / "logs"

    @property
    def script(self) -> Path:
        """The script that Slurm was given."""
        return self.folder / "array.sbatch"

    @property
    def jobs(self) -> Path:
        """What was submitted to Slurm, a line per job."""
        return self.folder / "jobs.txt"

    @property
    def options(self) -> Path:
        """The options of the submission to Slurm, as JSON."""
        return self.folder / "options.json"

    def log(self, number: int) -> Path:
        """Return the log of a command, counted from 1."""
        return self.logs / f"{number}.log"

    def freeze_options(self, script: str | Path, options: Mapping[str, Any]) -> None:
        """Keep the options of a submission to Slurm, and a copy of the script that its jobs run.

        Raises:
            UserError: The script cannot be read.
        """
        try:
            content = Path(script).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read --script={script}: {error.strerror}") from error
        write_atomically(self.script, content)
        write_atomically(self.options, (json.dumps(options, indent=2) + "\n").encode())

    def note_job(self, line: str) -> None:
        """Add a line on a job to those that were submitted."""
        before = self.jobs.read_text() if self.jobs.exists() else ""
        write_atomically(self.jobs, f"{before}{line}\n".encode())

    def texts(self) -> list[str]:
        """Return the commands' lines."""
        with contextlib.suppress(OSError):
            return self.commands.read_text().splitlines()
        return []

    def read_meanings(self) -> list[Meaning]:
        """Return what the commands mean, in their order.

        Raises:
            UserError: They cannot be read.
        """
        remedy = "submit the sweep again"
        values = read_json(self.meanings, remedy)
        try:
            return [Meaning.from_json(each) for each in values.values()]
        except (TypeError, KeyError) as error:
            raise UserError(f"{self.meanings} is damaged ({error}); {remedy}") from error


def folder_of(path: Path) -> Path:
    """Return what is kept beside a sweep's file."""
    return path.with_suffix(".jobs")


def report_of(path: Path) -> Path:
    """Return where the report of a sweep goes."""
    return folder_of(path) / "report"


def folders_of(path: Path) -> Path:
    """Return the file of the run folders of all commands of a sweep."""
    return folder_of(path) / "folders.txt"


def write_folders(path: Path, folders: Iterable[str]) -> None:
    """Write the run folders of all commands of a sweep, for the report.

    Raises:
        UserError: They cannot be written.
    """
    target = folders_of(path)
    try:
        target.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error) from error
    write_atomically(target, _lines(folders))


def new_submission(
    path: Path, commands: Sequence[Command], meanings: Sequence[Meaning]
) -> Submission:
    """Freeze commands of a sweep in a new folder.

    Args:
        path: The sweep's file.
        commands: Those to start.
        meanings: What they mean.

    Raises:
        UserError: It cannot be written.
    """
    submission = next_submission(path)
    try:
        submission.logs.mkdir(parents=True)
    except FileExistsError:
        raise UserError(
            f"{submission.folder} has come to be meanwhile: another process works on {path}; see "
            "its status before you go on"
        ) from None
    except OSError as error:
        raise cannot_write(submission.folder, error) from error
    write_atomically(submission.commands, _lines(command.text for command in commands))
    values = {number: vars(meaning) for number, meaning in enumerate(meanings, start=1)}
    write_atomically(submission.meanings, (json.dumps(values, indent=2) + "\n").encode())
    return submission


def next_submission(path: Path) -> Submission:
    """Return the submission that is to be made next."""
    last = max((int(submission.folder.name) for submission in submissions(path)), default=0)
    return Submission(folder_of(path) / f"{last + 1:03d}")


def submissions(path: Path) -> list[Submission]:
    """Return all submissions of a sweep, in their order."""
    folders = sorted(folder_of(path).glob("[0-9]*"), key=lambda folder: folder.name.zfill(9))
    return [Submission(folder) for folder in folders if folder.name.isdigit()]


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


# --- Logs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """How the last start of a command ended, as far as its log tells.

    Attributes:
        path: The log.
        exit_code: None while the command runs, or if it was killed with what had started it.
        last_lines: What it said last.
    """

    path: Path
    exit_code: int | None
    last_lines: tuple[str, ...]


def logs(path: Path) -> dict[str, Log]:
    """Return the newest log of each command of a sweep that has one, by the command's line."""
    found = {}
    for submission in submissions(path):
        for number, text in enumerate(submission.texts(), start=1):
            if log := read_log(submission.log(number)):
                found[text] = log
    return found


def read_log(path: Path, lines: int = 3) -> Log | None:
    """Return what a log tells, None where there is none.

    Args:
        path: The log.
        lines: How many of its last lines are wanted.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    said, code = [], None
    for line in text.replace("\r", "\n").split("\n"):
        mark = _MARK.fullmatch(line)
        if mark is None:
            said.append(line.rstrip())
        elif mark[1] == "start":
            said, code = [], None
        else:
            code = int(mark[2]) if mark[2].isdigit() else None
    said = [line for line in said if line and not line.startswith("== ")]
    return Log(path, code, tuple(said[-lines:]))


def append(log: Path, text: str) -> None:
    """Add to a log.

    Raises:
        UserError: It cannot be written.
    """
    try:
        with open(log, "ab") as file:
            file.write(text.encode())
    except OSError as error:
        raise cannot_write(log, error) from error


def require_sweep(path: Path) -> None:
    """Raise UserError if a path cannot be that of a sweep's file.

    Files that differ in their endings alone would have one folder beside them.
    """
    if path.is_dir():
        name = path.with_suffix(".txt") if path.suffix == ".jobs" else "sweep.txt for instance"
        raise UserError(f"{path} is a folder; give the sweep's file, {name}")
    if path.suffix != ".txt":
        raise UserError(f"{path}: the name of a sweep's file ends in .txt; rename it")
