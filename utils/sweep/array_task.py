"""What the script of a job array, `array.sbatch`, asks before and after it runs its commands.

  python -m utils.sweep.array_task begin               prints the lines that are to be started
  python -m utils.sweep.array_task end TOLD 1=0 2=75   requeues the task, or exits as they did

TOLD is empty unless the task was told to stop; what follows are exit codes by line. The submission,
the task's lines and the tries come from the script's variables.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.runs.signals import AGAIN
from utils.sweep.jobs import Submission, read_log
from utils.sweep.states import STOPPED
from utils.sweep.tries import Tries

_LAST_LINES = 10  # of a command that is given up

Commands = Mapping[int, Tries]
"""The commands of a task by their lines in the submission, from 1."""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    environment = os.environ
    restarts = environment.get("SLURM_RESTART_COUNT", "0")
    task = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        commands = read_commands(
            Submission(Path(environment["SUBMISSION"])),
            int(environment["FIRST"]),
            int(environment["PER_JOB"]),
            int(environment["TRIES"]),
        )
        if arguments[0] == "begin":
            where = f"{environment['SLURMD_NODENAME']}, {task} restart {restarts}"
            for line in begin(commands, where):
                print(line)
            return 0
        codes = (text.split("=") for text in arguments[2:])
        ended = {int(number): int(code) for number, code in codes}
        return end(commands, ended, told=bool(arguments[1]), task=task, restarts=restarts)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def read_commands(submission: Submission, first: int, number: int, tries: int) -> Commands:
    """Return the commands of a task.

    Args:
        submission: The frozen commands.
        first: The line of the first.
        number: How many there are, at most.
        tries: How often each is tried from one checkpoint.

    Raises:
        UserError: What they mean cannot be read.
    """
    meanings = submission.read_meanings()
    last = min(first + number - 1, len(meanings))
    return {
        line: Tries(submission.log(line), meanings[line - 1], tries)
        for line in range(first, last + 1)
    }


def to_start(commands: Commands) -> list[int]:
    """Return the lines of the commands that have neither ended nor been given up."""
    return [line for line, tries in commands.items() if not tries.ended and tries.left]


def begin(commands: Commands, where: str) -> list[int]:
    """Mark the start of what is to be started; return its lines.

    Args:
        commands: The commands.
        where: Where they are started.

    Raises:
        UserError: A log cannot be written.
    """
    lines = to_start(commands)
    for line in lines:
        commands[line].note_start(where)
    return lines


def end(commands: Commands, codes: Mapping[int, int], told: bool, task: str, restarts: str) -> int:
    """Mark how commands have ended, and requeue the task if one is to be started again.

    Args:
        commands: The commands.
        codes: The exit codes of those that were started, by line.
        told: Whether the task was told to stop.
        task: Slurm's name of it, 7_0 for instance.
        restarts: How often Slurm had started it before.

    Returns:
        The exit code of the last command that failed; 1 if any was given up.

    Raises:
        UserError: A log cannot be written.
    """
    if told:  # perhaps before everything was started
        codes = dict.fromkeys(to_start(commands), AGAIN) | codes
    for line, code in codes.items():
        commands[line].note_exit(code)
    left = [line for line in codes if not commands[line].ended]
    # A run may be told to stop when it is complete already, which is no failure.
    failures = [code for line, code in codes.items() if line in left or code not in (0, *STOPPED)]
    result = failures[-1] if failures else 0
    again = left if left and may_requeue(task, restarts) else []
    for line in again:
        if told or codes[line] != AGAIN:  # else another process has the run's folder
            commands[line].note_try()
    for line, tries in commands.items():
        if not (tries.left or tries.ended):
            said = read_log(tries.log, _LAST_LINES).last_lines
            print(f"line {line}, given up after {tries.made} tries:", *said, sep="\n", flush=True)
            result = 1
    if any(commands[line].left for line in again):
        return subprocess.run(["scontrol", "requeue", task], check=False).returncode
    return result


def may_requeue(task: str, restarts: str) -> bool:
    """Return whether a task may requeue itself.

    It may while Slurm has it as running, or as out of time. A cancelled one must not come back, and
    one that was preempted or whose node is lost is started again by Slurm itself.

    Args:
        task: Slurm's name of it.
        restarts: How often Slurm had started it before.
    """
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["scontrol", "show", "job", "-o", task], stdout=subprocess.PIPE, text=True, check=False
        )
        words = done.stdout.split()
        running = "JobState=RUNNING" in words or "Reason=TimeLimit" in words
        return running and f"Restarts={restarts}" in words
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
