"""What is asked of Slurm for the jobs of a sweep."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

_MOST_WARNING_SECONDS = 120
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Options:
    """What is asked of Slurm; None is left to the script or to the cluster.

    Attributes:
        partition: Partition of all jobs.
        time: Time limit of a task, as sbatch takes it.
        gpus: GPUs of a task.
        cpus: Cores of a task.
        memory: Memory of a task, as sbatch takes it.
        commands_per_job: Commands that one task runs side by side.
        jobs_at_a_time: Tasks that may run at a time.
        warning: Seconds before its time limit at which a task is told to save.
        tries: How often a command is started from one checkpoint.
        script: The script, if another than that of the library.
        sbatch: Further options for sbatch.
    """

    partition: str | None = None
    time: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    commands_per_job: int | None = None
    jobs_at_a_time: int | None = None
    warning: int | None = None
    tries: int | None = None
    script: str | None = None
    sbatch: tuple[str, ...] = ()

    def over(self, other: "Options") -> "Options":
        """Return these options, and the other's where these are not given."""
        given = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return dataclasses.replace(other, **given)

    @property
    def any(self) -> bool:
        """Whether one is given that is for Slurm alone."""
        return self != Options(tries=self.tries)

    def require_possible(self) -> None:
        """Raise UserError if the script is no file, or see `signal`."""
        if self.script is not None and not Path(self.script).is_file():
            raise UserError(f"--script={self.script} is no file; give a script for sbatch")
        self.signal()

    def signal(self) -> str:
        """Return when the script is told to save, as sbatch takes it.

        Raises:
            UserError: The time limit is none, or the warning would come in its first half. Slurm
                may send it a minute early, and a short job would do nothing but save.
        """
        warning = self.warning
        if self.time is not None:
            limit = seconds(self.time)
            warning = min(_MOST_WARNING_SECONDS, limit // 4) if warning is None else warning
            if 2 * warning >= limit:
                raise UserError(
                    f"--warning={warning} leaves a job of --time={self.time} less than half of its "
                    "time; give a lower --warning or a longer --time"
                )
        return f"--signal=B:TERM@{_MOST_WARNING_SECONDS if warning is None else warning}"

    def resources(self) -> list[str]:
        """Return the options for sbatch that every task of the array gets."""
        named = {
            "--partition": self.partition,
            "--time": self.time,
            "--gpus": self.gpus,
            "--cpus-per-task": self.cpus,
            "--mem": self.memory,
        }
        own = [f"{name}={value}" for name, value in named.items() if value is not None]
        signal = [] if any(o.startswith("--signal") for o in self.sbatch) else [self.signal()]
        return [*signal, *own, *self.sbatch]


def seconds(time: str) -> int:
    """Return the seconds of a time limit as Slurm writes it: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    Raises:
        UserError: It is none.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise UserError(
            f"--time={time} is no time limit; give minutes, hours:minutes:seconds or days-hours"
        )
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is not None:
        hours, minutes, secs = [*numbers, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + secs
    hours, minutes, secs = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
    return (hours * 60 + minutes) * 60 + secs
