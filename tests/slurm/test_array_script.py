"""The script of a job array, run by bash; `python` is a stub that notes what it is asked."""

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import REPOSITORY
from tests.slurm.private_slurm import wait_until
from utils.runs.meaning import Meaning
from utils.sweep.commands import Command
from utils.sweep.jobs import new_submission

SCRIPT = REPOSITORY / "utils/sweep/array.sbatch"
# Stands for utils.sweep.array_task. Before it says what to start it waits until it may.
PYTHON = """#!/bin/sh
shift 2
for word in "$@"; do printf '<%s>' "$word"; done >>asked
echo " $FIRST $PER_JOB" >>asked
[ "$1" = begin ] || exit 4
touch begun
while [ -e wait ]; do sleep 0.02; done
cat start
"""
# What a trainer does with TERM: it saves and exits with 75. The handler counts signals.
TRAINER = """
trap 'echo $1 >> told; exit 75' TERM
touch $1.ready
while true; do sleep 0.05; done
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of an array, in a folder of its own."""

    folder: Path
    processes: list[subprocess.Popen] = dataclasses.field(default_factory=list)

    def start(self, *commands, lines=(1,), index=0, **environment):
        """Start the script, as a leader of its own group of processes.

        Args:
            commands: Those of the submission.
            lines: Which of them the stub says are to be started.
            index: Of the task.
            environment: Variables.
        """
        submission = new_submission(
            self.folder / "sweep.txt",
            [Command(text, "", "", ()) for text in commands],
            [Meaning("", "", f"run{i}", 1, 9, 0, 9) for i in range(len(commands))],
        )
        (self.folder / "start").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / "trainer.sh").write_text(TRAINER)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SUBMISSION": str(submission.folder.relative_to(self.folder)),
            "OFFSET": "0",
            "PER_JOB": str(len(commands)),
            "TRIES": "3",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": str(index),
            "SLURMD_NODENAME": "n1",
        }
        process = subprocess.Popen(
            ["bash", str(SCRIPT)],
            cwd=self.folder,
            env=clean | given | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def stub(self, name, text):
        """Put a program first into the path."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def end(self):
        """Kill what a failed test has left."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def run(self, *commands, **kwargs):
        """Run the script to its end; returns the exit status and what it printed."""
        process = self.start(*commands, **kwargs)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def wait_for(self, *names):
        """Wait until there are these files."""
        wait_until(lambda: all((self.folder / name).exists() for name in names), 20, names)

    def lines(self, name):
        """The lines of a file, none where it is missing."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def log(self, number):
        """What a command printed."""
        return self.lines(f"sweep.jobs/001/logs/{number}.log")


@pytest.fixture
def task(tmp_path):
    task = Task(tmp_path)
    task.stub("python", PYTHON)
    yield task
    task.end()


def test_a_task_runs_its_own_lines_each_with_a_log_and_hands_on_how_they_ended(task):
    commands = [f"sh -c 'echo {number}; exit {number}'" for number in range(8)]
    status = task.run(*commands, lines=(6, 7), index=2, PER_JOB="2", OFFSET="1")
    assert status == (4, "")
    assert [task.log(number) for number in range(1, 9)] == [*5 * [[]], ["5"], ["6"], []]
    assert task.lines("asked") == ["<begin> 6 2", "<end><><6=5><7=6> 6 2"]


def test_values_arrive_as_they_were_quoted(task):
    command = "A='x  y' printf '<%s>\\n' '--agent.dims=(1, 2)' \"it's\" '$HOME' '*'"
    task.run(command)
    assert task.log(1) == ["<--agent.dims=(1, 2)>", "<it's>", "<$HOME>", "<*>"]


@pytest.mark.parametrize(("per_job", "share"), [("1", ".90"), ("10", ".09"), ("4", ".22")])
def test_programs_share_the_memory_of_the_gpu(task, per_job, share):
    task.run("printenv XLA_PYTHON_CLIENT_MEM_FRACTION", PER_JOB=per_job)
    assert task.log(1) == [share]


def test_a_share_of_the_memory_that_is_given_is_kept(task):
    task.run("printenv XLA_PYTHON_CLIENT_MEM_FRACTION", XLA_PYTHON_CLIENT_MEM_FRACTION=".5")
    assert task.log(1) == [".5"]


def test_term_reaches_every_program_once(task):
    """Slurm sends it to the script alone before time is up."""
    process = task.start("bash trainer.sh run1", "bash trainer.sh run2", lines=(1, 2))
    task.wait_for("run1.ready", "run2.ready")
    process.terminate()
    process.communicate(timeout=30)
    assert sorted(task.lines("told")) == ["run1", "run2"]
    assert task.lines("asked")[1:] == ["<end><1><1=75><2=75> 1 2"]


def test_a_second_term_to_all_processes_changes_nothing(task):
    """But for the exit code of what ends at once: bash 5.2 may say -1 then."""
    process = task.start("bash trainer.sh run")
    task.wait_for("run.ready")
    for _ in range(3):
        os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert re.fullmatch(r"<end><1><1=(75|143|-1)> 1 1", task.lines("asked")[1])


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_nothing_is_started_after_a_term(task, kill):
    """It comes while Python looks for what is to be started, and may end that."""
    (task.folder / "wait").touch()
    process = task.start("touch started")
    task.wait_for("begun")
    kill(process.pid, signal.SIGTERM)
    (task.folder / "wait").unlink()
    process.communicate(timeout=30)
    assert task.lines("asked") == ["<begin> 1 1", "<end><1> 1 1"]
    assert not (task.folder / "started").exists()


@pytest.mark.parametrize(
    ("command", "started"),
    [
        ("mapfile -t -O 1", []),
        ("pids[n]=", [1]),  # the first is started, and the script does not know it yet
        ("trap 'trap", [1, 2]),
        ('for n in "${!pids', [1, 2]),
    ],
)
def test_no_term_is_lost_while_programs_are_started(task, command, started):
    """It comes right before the given command of the script."""
    hook = f"[[ $BASH_COMMAND != {shlex.quote(command)}* ]] || kill -TERM $$"
    (task.folder / "hook").write_text(f"trap {shlex.quote(hook)} DEBUG\n")
    trainers = ("bash trainer.sh run1", "bash trainer.sh run2")
    task.run(*trainers, lines=(1, 2), BASH_ENV="hook")
    _, ended = task.lines("asked")
    assert re.fullmatch(r"<end><1>(<\d=\d+>)* 1 2", ended)
    assert re.findall(r"<(\d)=(?:75|143)>", ended) == [str(line) for line in started]


def test_where_nothing_can_be_asked_nothing_is_started(task):
    task.stub("python", "#!/bin/sh\necho error: no log can be written >&2\necho 1\nexit 1\n")
    assert task.run("touch started") == (1, "error: no log can be written\n")
    assert not (task.folder / "started").exists()


def test_the_script_and_its_module_requeue_a_task(task):
    task.stub("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    state = "JobState=RUNNING Reason=None Restarts=0"
    task.stub("scontrol", f'#!/bin/sh\necho "$@" >> asked\necho "{state}"\n')
    process = task.start("bash trainer.sh run1", lines=(), PYTHONPATH=str(REPOSITORY))
    task.wait_for("run1.ready")
    process.terminate()
    process.communicate(timeout=30)
    assert task.lines("asked") == ["show job -o 7_0", "requeue 7_0"]
    assert task.log(1)[-2:] == ["== exit 75", "== requeue from 0"]


def test_bash_substitutes_no_command():
    """In the midst of that, bash 5.2 now and then fails to run a trap."""
    _, _, after = SCRIPT.read_text().partition("\ntrap told=1 TERM")
    assert "wait" in after
    assert not re.search(r"\$\((?!\()|`|<\(", re.sub("#.*", "", after))
