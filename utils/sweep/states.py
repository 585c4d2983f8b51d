"""Where the runs of a sweep stand, from their folders alone and, if there are any, from logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import ERROR, LOCK, is_held, read_json
from utils.report.csv_log import Row, read_csv
from utils.report.scores import failed_seeds
from utils.runs.meaning import Meaning
from utils.runs.signals import EXIT_CODES
from utils.sweep.commands import Command
from utils.sweep.jobs import Log

STOPPED = {*EXIT_CODES.values(), *(128 + number for number in EXIT_CODES)}
"""Exit codes of a program that a signal has ended, from 128 on before it could answer it."""

_LINES = 3  # of error.txt that are shown
_ROWS = 20  # of timing.csv, that tell how fast a run is now


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        name: `done`; `diverged`, if seeds of it have; `running`; `failed`, if it has crashed; or
            `waiting`, to begin or to go on.
        step: Updates, or offline updates plus environment steps, that it has done.
        steps: How many it is to do.
        rate: Of them per second of training, of late; None if that was not logged.
        note: More about it, a line or several.
    """

    name: str
    step: int
    steps: int
    rate: float | None = None
    note: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing is left to do: starting the command again would change nothing."""
        return self.name in ("done", "diverged")


def read_states(
    commands: Sequence[Command], meanings: Sequence[Meaning], logs: Mapping[str, Log]
) -> list[State]:
    """Return where the run of each command stands.

    Args:
        commands: The commands.
        meanings: Their meanings.
        logs: Logs by the commands' lines, see `utils.sweep.jobs.logs`.
    """
    return [
        read_state(meaning, logs.get(command.text))
        for command, meaning in zip(commands, meanings, strict=True)
    ]


def read_state(meaning: Meaning, log: Log | None = None) -> State:
    """Return where a run stands.

    A file in its folder that is damaged makes it a failed one.
    """
    try:
        return _read_state(meaning, log)
    except UserError as error:
        return State("failed", 0, _steps(meaning, None), note=str(error))


def _read_state(meaning: Meaning, log: Log | None) -> State:
    """Raise UserError if a file is damaged."""
    folders = [Path(folder) for folder in meaning.run_folders]
    folder = folders[0]  # all points of a grid are at one step
    config = folder / "config.json"
    begun = read_json(config, "remove it to resume") if config.exists() else {}
    steps = _steps(meaning, begun.get("online_start"))
    rate = _rate(read_csv(folder / "timing.csv"))
    rate = rate and rate / len(folders)  # each has its share of the seconds
    scores = [_score(point) for point in folders]
    if all(isinstance(score.get("step"), int) and score["step"] >= steps for score in scores):
        failed = [score.get("failed", {}) for score in scores]
        return State("diverged" if any(failed) else "done", steps, steps, rate, _diverged(failed))
    rows = [read_csv(point / "train.csv") for point in folders]
    step = max((int(row["step"]) for row in rows[0]), default=0)
    failed = [failed_seeds(own) for own in rows]
    if is_held(folder / LOCK):
        return State("running", step, steps, rate, _diverged(failed))
    if sum(map(len, failed)) == meaning.num_seeds * len(folders):
        return State("diverged", step, steps, rate, _diverged(failed))
    if log is not None and log.exit_code and log.exit_code not in STOPPED:
        said = "\n".join([f"exit code {log.exit_code}, {log.path}", *log.last_lines])
        return State("failed", step, steps, rate, said)
    if (error := folder / ERROR).exists():
        lines = error.read_text(errors="replace").splitlines()[-_LINES:]
        return State("failed", step, steps, rate, "\n".join([str(error), *lines]))
    return State("waiting", step, steps, rate, _diverged(failed))


def _rate(timing: Sequence[Row]) -> float | None:
    """Return steps per second of training over the last rows of timing.csv."""
    rows = [row for row in timing if isinstance(row.get("seconds"), (int, float))]
    if not rows:
        return None
    first, last = ([{"step": 0, "seconds": 0.0}, *rows])[-_ROWS:][0], rows[-1]
    elapsed = last["seconds"] - first["seconds"]
    return (last["step"] - first["step"]) / elapsed if elapsed > 0 else None


def _steps(meaning: Meaning, online_start: int | None) -> int:
    """Return the step at which a run ends; one that took agents over begins where these were."""
    if not meaning.online_steps:
        return meaning.offline_steps
    return (meaning.offline_steps if online_start is None else online_start) + meaning.online_steps


def _score(folder: Path) -> dict[str, Any]:
    path = folder / "score.json"
    return read_json(path, "remove it to make it anew") if path.exists() else {}


def _diverged(points: Sequence[Mapping[int | str, int]]) -> str:
    """Say which seeds have diverged; of a grid, at which of its points."""
    return "; ".join(
        f"seed {seed} diverged at step {step}" + (f" (point {number})" if len(points) > 1 else "")
        for number, failed in enumerate(points, start=1)
        for seed, step in failed.items()
    )


def newest_checkpoint(folder: str) -> int:
    """Return the step of a run's newest checkpoint, 0 before the first.

    It tells whether a run that was started again has made progress.
    """
    names = (path.name for path in Path(folder, "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)
