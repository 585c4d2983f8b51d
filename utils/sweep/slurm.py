"""A sweep as plain `sbatch --array`: what is called, how often, and what is in the queue."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import read_json, write_atomically
from utils.sweep.jobs import Submission

SCRIPT = Path(__file__).parent / "array.sbatch"
"""The script of a task of an array."""

_MOST_WARNING_SECONDS = 120
_REPORT_MINUTES = 30
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
# What a job for the report takes over of the further options for sbatch: who pays for it.
_REPORT_TAKES = ("--account", "-A", "--qos", "-q", "--reservation")


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
        script: The script, if another than `SCRIPT`.
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
        """Whether one is given."""
        return self != Options()

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


# --- Submitting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    """An array to be submitted.

    Attributes:
        offset: Commands before its first one.
        tasks: Number of its tasks, which count from 0.
    """

    offset: int
    tasks: int


def arrays(commands: int, per_job: int, largest: int) -> list[Array]:
    """Split commands into arrays.

    Args:
        commands: Number of commands.
        per_job: Commands of one task.
        largest: Most tasks of one array.
    """
    tasks = -(-commands // per_job)
    return [
        Array(first * per_job, min(largest, tasks - first)) for first in range(0, tasks, largest)
    ]


def max_array_size() -> int:
    """Return how many tasks an array of this cluster may have.

    Raises:
        UserError: There is no Slurm here.
    """
    for program in ("sbatch", "scontrol"):
        if shutil.which(program) is None:
            raise UserError(
                f"there is no {program} here; submit where Slurm is, or run the sweep on this "
                "machine by --local=N"
            )
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]))
    return int(found[1]) if found else 1001  # Slurm's own default


def array_call(
    submission: Submission, array: Array, options: Options, name: str, after: str | None
) -> tuple[list[str], dict[str, str]]:
    """Return the sbatch command of an array, and the variables that its script reads.

    Args:
        submission: The frozen commands.
        array: The array.
        options: What is asked of Slurm.
        name: Name of the job.
        after: Id of a job that has to end before.
    """
    limit = f"%{options.jobs_at_a_time}" if options.jobs_at_a_time else ""
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={name}",
        f"--array=0-{array.tasks - 1}{limit}",
        f"--output={submission.logs}/%A_%a.out",
        "--open-mode=append",
        "--requeue",
        "--export=ALL",
        *([f"--dependency=afterany:{after}"] if after else []),
        *options.resources(),
        str(submission.script),
    ]
    variables = {
        "COMMANDS": submission.commands,
        "FOLDERS": submission.folders,
        "LOGS": submission.logs,
        "OFFSET": array.offset,
        "PER_JOB": options.commands_per_job or 1,
        "TRIES": options.tries or 3,
    }
    return words, {key: str(value) for key, value in variables.items()}


def report_call(
    folders: Path, output: Path, ids: Sequence[str], options: Options, name: str
) -> list[str]:
    """Return the sbatch command of the report, which starts when all tasks have ended, however.

    Args:
        folders: The file of all run folders.
        output: Where the report goes.
        ids: The arrays.
        options: What was asked of Slurm for these.
        name: Name of the job.
    """
    report = shlex.join(report_command(folders, output))
    paying = [option for option in options.sbatch if option.startswith(_REPORT_TAKES)]
    return [
        "sbatch",
        "--parsable",
        f"--job-name={name}-report",
        f"--dependency=afterany:{':'.join(ids)}",
        f"--output={output}.out",
        "--open-mode=append",
        "--export=ALL",
        f"--time={_REPORT_MINUTES}",
        *([f"--partition={options.partition}"] if options.partition else []),
        *paying,
        f"--wrap=exec {report}",
    ]


def report_command(folders: Path, output: Path) -> list[str]:
    """Return the command that reports on run folders."""
    return [sys.executable, "-m", "utils.report", str(folders), f"--output={output}"]


def submit(
    submission: Submission,
    commands: int,
    options: Options,
    name: str,
    folders: Path,
    report: Path,
) -> list[str]:
    """Submit the frozen commands and a job for the report; return a line on each.

    Args:
        submission: The frozen commands.
        commands: Their number.
        options: What is asked of Slurm.
        name: Name of the jobs.
        folders: The run folders of the whole sweep.
        report: Where the report goes.

    Raises:
        UserError: Slurm refuses. What was submitted before stays.
    """
    largest = max_array_size()
    submission.freeze_script(Path(options.script or SCRIPT))
    write_atomically(submission.options, (json.dumps(vars(options), indent=2) + "\n").encode())
    ids, lines = [], []
    for array in arrays(commands, options.commands_per_job or 1, largest):
        after = ids[-1] if ids and options.jobs_at_a_time else None  # together they keep the limit
        words, variables = array_call(submission, array, options, name, after)
        ids.append(_sbatch(words, variables))
        lines.append(f"array {ids[-1]} offset {array.offset} tasks 0-{array.tasks - 1}")
        write_atomically(submission.jobs, "".join(f"{line}\n" for line in lines).encode())
    lines.append(f"report {_sbatch(report_call(folders, report, ids, options, name), {})}")
    write_atomically(submission.jobs, "".join(f"{line}\n" for line in lines).encode())
    return lines


def shown(words: Sequence[str], variables: dict[str, str]) -> str:
    """Return a command as a user would type it."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in variables.items()), shlex.join(words)])


def _sbatch(words: Sequence[str], variables: dict[str, str]) -> str:
    """Return the id of a new job."""
    return _call(words, variables).strip().split(";")[0]  # behind it may be the cluster's name


def _call(words: Sequence[str], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words, env=os.environ | (variables or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"{words[0]} refuses: {said}; the command was: {shlex.join(words)}")
    return done.stdout


# --- The queue ------------------------------------------------------------------------------------


def last_options(submissions: Sequence[Submission]) -> Options:
    """Return the options of the last submission to Slurm, none if there was none."""
    for submission in reversed(submissions):
        if submission.options.exists():
            stored = read_json(submission.options, "remove it and give all options again")
            known = {field.name for field in dataclasses.fields(Options)}
            values = {name: value for name, value in stored.items() if name in known}
            return Options(**values | {"sbatch": tuple(values.get("sbatch", ()))})
    return Options()


def queued(submissions: Sequence[Submission]) -> set[str]:
    """Return the lines of all commands whose tasks are in Slurm's queue, waiting or running."""
    found: set[str] = set()
    if shutil.which("squeue") is None:
        return found
    for submission in submissions:
        texts, per_job = submission.texts(), last_options([submission]).commands_per_job or 1
        for job, offset in _arrays_of(submission):
            with contextlib.suppress(UserError):  # Slurm has forgotten the job
                for index in _call(["squeue", "-h", "-r", "-j", job, "-o", "%K"]).split():
                    first = offset + int(index) * per_job
                    found.update(texts[first : first + per_job])
    return found


def _arrays_of(submission: Submission) -> list[tuple[str, int]]:
    """Return id and offset of each array of a submission."""
    with contextlib.suppress(OSError):
        words = map(str.split, submission.jobs.read_text().splitlines())
        return [(row[1], int(row[3])) for row in words if row[:1] == ["array"]]
    return []
