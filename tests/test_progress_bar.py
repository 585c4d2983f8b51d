"""A bar in a terminal, and lines that stand alone everywhere else."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
import types

import pytest

from tests.processes import REPOSITORY
from utils import progress_bar as module
from utils.progress_bar import progress_bar

TRAINING = """
from utils.runs.logs import say
from utils.runs.progress import Progress
from utils.runs.schedule import Intervals, Phase, Schedule
for stop in Schedule(Intervals(1, 0, 9, 9.0), Progress()).stops(Phase(0, 2)):
    say(f"at {stop.step}")
"""


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_lines_come_at_most_once_a_minute_and_stand_alone(clock, capsys):
    with progress_bar(1000, "training", unit="update", initial=100) as bar:
        for _ in range(25):
            clock.now += 10.0
            bar.update(20)
    out, err = capsys.readouterr()
    assert err == ""
    assert "\r" not in out
    assert out.splitlines() == [
        "training: 220 of 1000 updates,  2.00update/s, 06:30 left",
        "training: 340 of 1000 updates,  2.00update/s, 05:30 left",
        "training: 460 of 1000 updates,  2.00update/s, 04:30 left",
        "training: 580 of 1000 updates,  2.00update/s, 03:30 left",
    ]


def test_an_unknown_total_has_lines_too(clock, capsys):
    with progress_bar(None, "data.npz", unit="byte", unit_scale=True) as bar:
        clock.now += 100.0
        bar.update(3_000_000)
    assert capsys.readouterr().out.startswith("data.npz: 3.00M of ? bytes, 30.0kbyte/s")


def test_the_merged_output_of_training_has_no_carriage_return():
    merged = subprocess.run(
        [sys.executable, "-c", TRAINING],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    assert merged.stdout == b"at 0\nat 1\nat 2\n"


def test_a_terminal_has_a_bar_unless_the_output_goes_to_a_file(tmp_path):
    code = (
        "from utils.progress_bar import progress_bar\n"
        "with progress_bar(2, 'training', unit='update') as bar:\n"
        "    bar.update(2)\n"
    )
    for redirected in (False, True):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        with open(tmp_path / "log", "w+b") as log:
            stdout = log if redirected else theirs
            process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=REPOSITORY, stdout=stdout, stderr=theirs
            )
            os.close(theirs)
            shown = b""
            with process, contextlib.suppress(OSError):  # raised when nobody has the terminal open
                while part := os.read(ours, 65536):
                    shown += part
            os.close(ours)
            assert process.returncode == 0, shown
            log.seek(0)
            assert log.read() == b""
        assert (b"training: 100%" in shown) is not redirected
