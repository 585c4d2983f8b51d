"""What a task of a job array does before and after its commands; `scontrol` is a stub."""

import pytest

from utils.errors import UserError
from utils.runs.meaning import Meaning
from utils.sweep import array_task
from utils.sweep.array_task import begin, end, may_requeue, read_commands
from utils.sweep.commands import Command
from utils.sweep.jobs import new_submission

RUNNING = "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobState=RUNNING Reason=None Restarts=0 BatchFlag=1"


class Task:
    """A task of an array, in a folder of its own, with a `scontrol` that notes what it is asked.

    Args:
        folder: The folder.

    Attributes:
        folder: The folder.
        submission: Of seven commands.
    """

    def __init__(self, folder):
        self.folder = folder
        texts = [f"python main.py --seed={i}" for i in range(7)]
        meanings = [Meaning("t", "fql", str(folder / f"run{i}"), 1, 9, 0, 9) for i in range(7)]
        commands = [Command(text, "", "main.py", ()) for text in texts]
        self.submission = new_submission(folder / "sweep.txt", commands, meanings)
        self.slurm_says(RUNNING)

    def slurm_says(self, state):
        """Set what Slurm says of the task."""
        stub = self.folder / "bin/scontrol"
        stub.parent.mkdir(exist_ok=True)
        show = f"[ \"$1\" = requeue ] || echo '{state}'"
        stub.write_text(f'#!/bin/sh\necho "$@" >>"{self.folder}/asked"\n{show}\n')
        stub.chmod(0o755)

    def commands(self, number=1, tries=2, first=1):
        """Read the commands of the task."""
        return read_commands(self.submission, first, number, tries)

    def once(self, *codes, told=False, tries=2):
        """Begin, end with these codes; returns the exit code."""
        commands = self.commands(len(codes), tries)
        ended = {line: codes[line - 1] for line in begin(commands, "n1")}
        return end(commands, ended, told, "7_0", "0")

    def log(self, line=1):
        """The marks in a command's log; of a start its word alone."""
        path = self.submission.log(line)
        text = path.read_text() if path.exists() else ""
        marks = [mark for mark in text.splitlines() if mark]
        return ["== start" if mark.startswith("== start") else mark for mark in marks]

    @property
    def asked(self):
        """What `scontrol` was asked."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def requeued(self):
        """How often the task was requeued."""
        return self.asked.count("requeue 7_0")


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return Task(tmp_path)


def test_a_task_has_its_own_lines(task):
    assert list(task.commands(2, first=3)) == [3, 4]
    assert list(task.commands(4, first=5)) == [5, 6, 7]
    assert list(task.commands(2, first=9)) == []
    assert task.commands(2, first=3)[4].meaning.folder.endswith("run3")


def test_what_the_commands_mean_must_be_readable(task):
    for text in ("{", '{"1": {"task": "t"}}', '{"1": 3}'):
        task.submission.meanings.write_text(text)
        with pytest.raises(UserError, match=r"meanings.json is damaged .*; submit the sweep again"):
            task.commands()


@pytest.mark.parametrize("code", [0, 3])
def test_what_has_ended_is_not_started_again(task, code):
    assert task.once(code) == code
    assert task.log() == ["== start", f"== exit {code}"]
    assert begin(task.commands(), "n1") == []
    assert task.once(code) == 0
    assert task.asked == []


def test_a_run_of_which_all_seeds_have_diverged_is_not_started_again(task):
    (task.folder / "run0").mkdir()
    (task.folder / "run0/train.csv").write_text("step,seed,failed\n3,0,1\n")
    assert begin(task.commands(), "n1") == []
    (task.folder / "run0/train.csv").rename(task.folder / "run0/later")
    commands = task.commands()
    assert begin(commands, "n1") == [1]
    (task.folder / "run0/later").rename(task.folder / "run0/train.csv")
    assert end(commands, {1: 1}, False, "7_0", "0") == 1
    assert task.asked == []


def test_a_task_that_was_told_to_stop_is_requeued(task):
    """Whether its programs have saved, did not come to that, or bash does not know."""
    codes = (75, 143, -1)
    assert task.once(*codes, told=True) == 0
    for line, code in enumerate(codes, start=1):
        assert task.log(line) == ["== start", f"== exit {code}", "== requeue from 0"]
    assert task.asked == ["show job -o 7_0", "requeue 7_0"]


@pytest.mark.parametrize(("code", "result"), [(75, 0), (143, 0), (1, 1)])
def test_a_run_that_is_complete_when_it_is_told_to_stop_is_not_started_again(task, code, result):
    (task.folder / "run0").mkdir()
    commands = task.commands()
    begin(commands, "n1")
    (task.folder / "run0/score.json").write_text('{"line": "", "step": 9}')
    assert end(commands, {1: code}, True, "7_0", "0") == result
    assert task.log() == ["== start", f"== exit {code}"]
    assert task.asked == []


def test_a_task_that_was_told_before_it_started_anything_is_requeued(task):
    """That is a try, or a task that is always told at once would be requeued for ever."""
    for _ in range(3):
        end(task.commands(), {}, True, "7_0", "0")
    assert task.log() == 2 * ["== exit 75", "== requeue from 0"]
    assert task.requeued == 1


@pytest.mark.parametrize(
    ("state", "may"),
    [
        (RUNNING, True),
        (RUNNING.replace("RUNNING Reason=None", "COMPLETING Reason=TimeLimit"), True),
        (RUNNING.replace("RUNNING Reason=None", "CANCELLED Reason=None"), False),
        (RUNNING.replace("RUNNING Reason=None", "COMPLETING Reason=None"), False),  # preempted
        (RUNNING.replace("Restarts=0", "Restarts=1"), False),  # of a lost node: runs elsewhere now
        ("", False),
    ],
)
def test_only_what_slurm_has_not_ended_is_requeued(task, state, may):
    task.slurm_says(state)
    assert may_requeue("7_0", "0") == may
    assert task.once(75, told=True) == (0 if may else 75)
    assert task.requeued == may
    assert task.log()[-1] == ("== requeue from 0" if may else "== exit 75")


def test_without_scontrol_nothing_is_requeued(task, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not may_requeue("7_0", "0")


def test_a_command_without_progress_is_given_up_and_shown(task, capsys):
    with task.submission.log(1).open("w") as log:
        log.write("what came before\n")
    assert task.once(7) == 0
    commands = task.commands()
    begin(commands, "n1")
    with task.submission.log(1).open("a") as log:
        log.write("the reason")
    assert end(commands, {1: 7}, False, "7_0", "0") == 1
    shown = "line 1, given up after 2 tries:\nthe reason\n"
    assert capsys.readouterr().out == shown
    assert task.requeued == 1
    assert task.once(0) == 1  # it is not started
    assert capsys.readouterr().out == shown
    assert task.log().count("== start") == 2


def test_a_held_folder_is_no_try(task):
    """Another process is running there, and this one was not told to stop."""
    for _ in range(5):
        assert task.once(75) == 0
    assert task.log() == 5 * ["== start", "== exit 75"]
    assert task.requeued == 5


def test_a_command_given_up_keeps_no_other_from_going_on(task, capsys):
    task.submission.log(1).write_text("== requeue from 0\n")
    task.submission.log(3).write_text("== requeue from 0\n== exit 0\n")
    commands = task.commands(3, tries=1)
    assert begin(commands, "n1") == [2]
    (task.folder / "run1/checkpoints/9").mkdir(parents=True)
    assert end(commands, {2: 75}, True, "7_0", "0") == 0
    assert capsys.readouterr().out == "line 1, given up after 1 tries:\n"
    assert task.log(2) == ["== start", "== exit 75", "== requeue from 0"]
    assert task.log(3) == ["== requeue from 0", "== exit 0"]
    assert task.requeued == 1


def test_the_module_takes_what_the_script_gives_it(task, capsys, monkeypatch):
    values = {
        "SUBMISSION": task.submission.folder,
        "FIRST": 2,
        "PER_JOB": 2,
        "TRIES": 2,
        "SLURM_ARRAY_JOB_ID": 7,
        "SLURM_ARRAY_TASK_ID": 0,
        "SLURM_RESTART_COUNT": 4,
        "SLURMD_NODENAME": "n1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    task.slurm_says(RUNNING.replace("Restarts=0", "Restarts=4"))
    assert array_task.main(["begin"]) == 0
    assert capsys.readouterr().out == "2\n3\n"
    assert " on n1, 7_0 restart 4, from 0\n" in task.submission.log(2).read_text()
    assert array_task.main(["end", "1", "2=0", "3=75"]) == 0
    assert task.log(2)[-1] == "== exit 0"
    assert task.log(3)[-1] == "== requeue from 0"
    assert array_task.main(["end", "", "3=75"]) == 0
    assert task.log(3)[-1] == "== exit 75"
    assert task.requeued == 2
    task.submission.meanings.unlink()
    assert array_task.main(["begin"]) == 1
    assert capsys.readouterr().err.startswith("error: cannot read ")
