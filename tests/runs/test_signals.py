"""Signals: the first decides, wherever it comes. In processes that import no JAX."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGHUP: 75, signal.SIGINT: 130}

# Signals come to this process itself, one after the other, before and after the block.
WINDING_DOWN = """
import os, signal, sys
from utils.runs.signals import Signals, end_at_once

first, noted = int(sys.argv[1]), sys.argv[2] == "noted"
everything = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)

end_at_once()
signals = Signals()
signals.final = True
try:
    with signals:
        signals.noted = noted
        send(first, *everything)
        print("went on", signals.name)
finally:
    send(*everything)
send(*everything)
sys.exit(signals.exit_code)
"""

IMPORTING = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "numpy":
            os.kill(os.getpid(), number)

number = int(sys.argv[1])
sys.argv = sys.argv[2:]
sys.path.insert(0, "")
sys.meta_path.insert(0, Finder())
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("noted", ["noted", "nothing to save"])
@pytest.mark.parametrize("number", CODES)
def test_the_first_signal_decides_and_none_disturbs_the_end(number, noted):
    done = run(WINDING_DOWN, int(number), noted)
    assert done.returncode == CODES[number], done.stderr
    assert done.stdout == (f"went on {number.name}\n" if noted == "noted" else "")
    assert ("nothing to save" in done.stderr) == (noted != "noted")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize(
    "program", ["main.py", "online_main.py", "utils.collect", "utils.analysis"]
)
def test_a_signal_during_the_imports_is_a_line(program, number):
    done = run(IMPORTING, int(number), program)
    assert done.returncode == CODES[number], done.stderr
    (line,) = done.stderr.splitlines()
    assert line == f"{number.name}: nothing to save; the same command goes on from here"


def test_a_hangup_that_was_ignored_stays_ignored():
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
        "from utils.runs.signals import Signals, end_at_once; end_at_once()\n"
        "with Signals(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "os.kill(os.getpid(), signal.SIGHUP)"
    )
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
