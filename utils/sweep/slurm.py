"""A sweep as plain `sbatch --array`: what is called, how often, and what is in the queue."""

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import read_json
from utils.sweep.jobs import Submission
from utils.sweep.slurm_options import Options

SCRIPT = Path(__file__).parent / "array.sbatch"
"""The script of a task of an array."""

_ARRAY_SIZE = 1001
_REPORT_MINUTES = 30
# What a job for the report takes over of the further options for sbatch: who pays for it.
_REPORT_TAKES = ("--account", "-A", "--qos", "-q", "--reservation")


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


def require_slurm() -> None:
    """Raise UserError if there is no Slurm here."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "there is no sbatch here; submit where Slurm is, or run the sweep on this machine by "
            "--local=N"
        )


def max_array_size() -> int:
    """Return how many tasks an array of this cluster may have, Slurm's default if unknown."""
    try:
        config = _call(["scontrol", "show", "config"])
    except (OSError, UserError):  # sbatch will say what is wrong
        return _ARRAY_SIZE
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", config)
    return int(found[1]) if found else _ARRAY_SIZE


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
        "SUBMISSION": submission.folder,
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
    options: Options,
    plan: Sequence[Array],
    name: str,
    folders: Path,
    report: Path,
    sbatch: Callable[[Sequence[str], Mapping[str, str]], str],
) -> Iterator[str]:
    """Submit frozen commands and a job for the report; yield a line on each job.

    Args:
        submission: The frozen commands.
        options: What is asked of Slurm.
        plan: The arrays.
        name: Name of the jobs.
        folders: The run folders of the whole sweep.
        report: Where the report goes.
        sbatch: Submits a command with variables and returns the job's id.

    Raises:
        UserError: Slurm refuses. What was submitted before stays.
    """
    ids: list[str] = []
    for array in plan:
        after = ids[-1] if ids and options.jobs_at_a_time else None  # together they keep the limit
        ids.append(sbatch(*array_call(submission, array, options, name, after)))
        yield f"array {ids[-1]} offset {array.offset} tasks 0-{array.tasks - 1}"
    yield f"report {sbatch(report_call(folders, report, ids, options, name), {})}"


def call_sbatch(words: Sequence[str], variables: Mapping[str, str]) -> str:
    """Submit a job; return its id.

    Raises:
        UserError: Slurm refuses.
    """
    return _call(words, variables).strip().split(";")[0]  # behind it may be the cluster's name


def print_sbatch(words: Sequence[str], variables: Mapping[str, str]) -> str:
    """Print the command that would submit a job, as a user would type it; return a stand-in."""
    values = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    print(" ".join([*values, shlex.join(words)]))
    return "ID"


def _call(words: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        words, env=os.environ | dict(variables or {}), capture_output=True, text=True, check=False
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
