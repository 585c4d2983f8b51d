"""A folder to make sweeps in, of an entry point that trains for milliseconds."""

from pathlib import Path

import pytest

from utils.sweep import slurm
from utils.sweep.__main__ import main

FAKE = Path(__file__).parent / "fake_main.py"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Calls the command line in a folder of its own, with the fake entry point; no report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "report_command", lambda *_: ["echo", "report"])

    def call(*arguments, passed=()):
        if not arguments or arguments[0].startswith("-"):
            arguments = ("--agents=fql", "--seeds=2", f"--main={FAKE}", *arguments, "--", *passed)
            if not any(argument.startswith("--tasks") for argument in arguments):
                arguments = ("--tasks=scene-play-task1,scene-play-task2", *arguments)
        return main(list(arguments))

    return call
