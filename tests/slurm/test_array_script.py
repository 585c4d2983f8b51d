"""The script of a job array, run by bash; `scontrol` is a stub that keeps what it was asked."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import REPOSITORY
from tests.slurm.private_slurm import wait_until

SCRIPT = REPOSITORY / "utils/sweep/array.sbatch"
RUNNING = "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobState=RUNNING Reason=None Restarts=0 BatchFlag=1"
# What a trainer does with TERM: it saves and exits with 75. The handler counts signals.
TRAINER = """
trap 'echo $1 >> told; mkdir -p $1/checkpoints/500; exit 75' TERM
touch $1.ready
while true; do sleep 0.05; done
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of an array, in a folder of its own."""

    folder: Path
    processes: list[subprocess.Popen] = dataclasses.field(default_factory=list)

    def start(self, *commands, state=RUNNING, index=0, **environment):
        """Start the script, as a leader of its own group of processes."""
        (self.folder / "bin").mkdir(exist_ok=True)
        stub = self.folder / "bin/scontrol"
        stub.write_text(f'#!/bin/sh\necho "$@" >> asked\n[ "$1" = requeue ] || echo \'{state}\'\n')
        stub.chmod(0o755)
        (self.folder / "commands.txt").write_text("".join(f"{line}\n" for line in commands))
        folders = ["run" if len(commands) == 1 else f"run{i}" for i in range(len(commands))]
        (self.folder / "folders.txt").write_text("".join(f"{line}\n" for line in folders))
        (self.folder / "logs").mkdir(exist_ok=True)
        (self.folder / "trainer.sh").write_text(TRAINER)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "COMMANDS": "commands.txt",
            "FOLDERS": "folders.txt",
            "LOGS": "logs",
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

    def wait_for_trap(self, process, *runs):
        """Wait until both the script and the trainers of these run folders heed TERM."""
        ready = [self.folder / f"{run}.ready" for run in runs]

        def heeded():
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = int(re.search(r"SigCgt:\t(\w+)", status)[1], 16)
            return caught >> (signal.SIGTERM - 1) & 1 and all(path.exists() for path in ready)

        wait_until(heeded, 20, "the trap")

    def tell(self, process, *runs):
        """Send TERM to the script alone, as Slurm does before time is up; returns its output."""
        self.wait_for_trap(process, *runs)
        process.terminate()
        output, _ = process.communicate(timeout=30)
        return output

    def lines(self, name):
        """The lines of a file, none where it is missing."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def log(self, number=1):
        """What a command printed, without the marks."""
        return [line for line in self.lines(f"logs/{number}.log") if line and line[:2] != "=="]

    @property
    def requeued(self):
        """How often the script had Slurm requeue its own task."""
        return self.lines("asked").count("requeue 7_0")


@pytest.fixture
def task(tmp_path):
    task = Task(tmp_path)
    yield task
    task.end()


def test_a_task_runs_its_own_lines_each_with_a_log(task):
    commands = [f"echo {number}" for number in range(1, 8)]
    for index in range(3):
        assert task.run(*commands, index=index, PER_JOB="2", OFFSET="2") == (0, "")
    assert [task.log(number) for number in range(1, 8)] == [
        [],
        [],
        *([str(n)] for n in range(3, 8)),
    ]
    assert not (task.folder / "logs/8.log").exists()
    assert not task.lines("asked")


def test_values_arrive_as_they_were_quoted(task):
    command = "A='x  y' printf '<%s>\\n' '--agent.dims=(1, 2)' \"it's\" '$HOME' '*'"
    assert task.run(command) == (0, "")
    assert task.log() == ["<--agent.dims=(1, 2)>", "<it's>", "<$HOME>", "<*>"]


@pytest.mark.parametrize(("per_job", "share"), [("1", ".90"), ("10", ".09"), ("4", ".22")])
def test_programs_share_the_memory_of_the_gpu(task, per_job, share):
    command = "printenv XLA_PYTHON_CLIENT_MEM_FRACTION"
    assert task.run(command, PER_JOB=per_job) == (0, "")
    assert task.run(command, PER_JOB=per_job, XLA_PYTHON_CLIENT_MEM_FRACTION=".5") == (0, "")
    assert task.log() == [share]


@pytest.mark.parametrize("code", [0, 3])
def test_what_has_ended_is_not_started_again(task, code):
    command = f"sh -c 'echo once; exit {code}'"
    assert task.run(command) == (code, "")
    assert task.run(command) == (0, "")
    assert task.log() == ["once"]
    assert task.requeued == 0


def test_term_reaches_every_program_once_and_the_task_is_requeued(task):
    process = task.start("bash trainer.sh run0", "bash trainer.sh run1", PER_JOB="2")
    task.tell(process, "run0", "run1")
    assert sorted(task.lines("told")) == ["run0", "run1"]
    for number in (1, 2):
        assert task.lines(f"logs/{number}.log")[-2:] == ["== exit 75", "== requeue from 0"]
    assert task.lines("asked") == ["show job -o 7_0", "requeue 7_0"]


def test_a_second_term_to_all_processes_changes_nothing(task):
    process = task.start("bash trainer.sh run")
    task.wait_for_trap(process, "run")
    for _ in range(3):
        os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert task.requeued == 1


@pytest.mark.parametrize(
    "state",
    [
        RUNNING.replace("RUNNING Reason=None", "CANCELLED Reason=None"),
        RUNNING.replace("RUNNING Reason=None", "COMPLETING Reason=None"),  # preempted
        RUNNING.replace("Restarts=0", "Restarts=1"),  # a lost node's: runs elsewhere by now
        "",
    ],
)
def test_what_slurm_has_ended_is_not_requeued(task, state):
    process = task.start("bash trainer.sh run", state=state)
    task.tell(process, "run")
    assert process.returncode == 75
    assert task.lines("asked") == ["show job -o 7_0"]
    assert task.lines("logs/1.log")[-1] == "== exit 75"


def test_a_task_at_its_time_limit_is_requeued(task):
    state = RUNNING.replace("RUNNING Reason=None", "COMPLETING Reason=TimeLimit")
    process = task.start("bash trainer.sh run", state=state)
    task.tell(process, "run")
    assert task.requeued == 1


def test_a_command_without_progress_is_given_up_and_shown(task):
    for _ in range(3):
        _, output = task.run("sh -c 'echo the reason; exit 7'", TRIES="2")
    assert task.log() == ["the reason"] * 2
    assert task.requeued == 1
    assert output.startswith("line 1, given up after 2 tries:\n== start")
    assert "the reason\n\n== exit 7" in output


def test_tries_count_from_the_last_checkpoint(task):
    """The third of five starts saves; from it on two more are due."""
    command = (
        "sh -c 'echo x >> starts; [ $(wc -l < starts) != 3 ] || mkdir -p run/checkpoints/9; exit 1'"
    )
    (task.folder / "run/checkpoints/0").mkdir(parents=True)
    (task.folder / "run/checkpoints/10.tmp").mkdir()
    for _ in range(7):
        task.run(command, TRIES="3")
    assert len(task.lines("starts")) == 6
    assert task.requeued == 5


def test_a_held_folder_is_no_try(task):
    """Another process is running there, and this one was not told to stop."""
    for _ in range(5):
        task.run("sh -c 'echo held; exit 75'", TRIES="2")
    assert len(task.log()) == 5
    assert task.requeued == 5


def test_a_command_given_up_keeps_no_other_from_going_on(task):
    (task.folder / "logs").mkdir()
    (task.folder / "logs/1.log").write_text("== requeue from 0\n")
    process = task.start("echo no", "bash trainer.sh run1", PER_JOB="2", TRIES="1")
    output = task.tell(process, "run1")
    assert task.log(1) == []
    assert output.startswith("line 1, given up after 1 tries:\n")
    assert task.lines("told") == ["run1"]
    assert task.requeued == 1


def test_bash_substitutes_no_command_while_term_may_come():
    """In the midst of that, bash 5.2 now and then fails to run a trap."""
    _, _, after = SCRIPT.read_text().partition("\ntrap 'trap")
    watched, end, _ = after.partition("\ntrap '' TERM")
    assert end
    assert "wait" in watched
    assert not re.search(r"\$\((?!\()|`|<\(", re.sub("#.*", "", watched))
