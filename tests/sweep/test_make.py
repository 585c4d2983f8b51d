"""The file of a sweep: made, kept, refused."""

from pathlib import Path

import pytest

from tests.sweep.conftest import FAKE
from utils.sweep.__main__ import main


def test_the_file_has_a_command_per_line_and_says_how_it_was_made(sweep, capsys):
    vary = "--vary=agent.x=(5, 5),7"
    assert sweep(vary, "--rate=2", passed=["--note=it's"]) == 0
    lines = Path("sweep.txt").read_text().splitlines()
    (made,) = [line for line in lines if "utils.sweep" in line]
    assert made.endswith(f"""'{vary}' --main={FAKE} --output=sweep.txt -- '--note=it'"'"'s'""")
    commands = [line for line in lines if line and line[0] != "#"]
    assert len(commands) == 4
    assert all(""" '--note=it'"'"'s'""" in line for line in commands)
    assert sum("'--agent.x=(5, 5)'" in line for line in commands) == 2
    assert capsys.readouterr().out == (
        "sweep.txt: 4 runs, 8 seeds, 20 updates, 0.00278 GPU hours, without what evaluations take\n"
    )


def test_the_same_sweep_is_left_as_it_is_and_another_is_not_written_over(sweep, capsys):
    assert sweep() == 0
    edited = Path("sweep.txt").read_text() + "\n# a note\n"
    Path("sweep.txt").write_text(edited)
    assert sweep() == 0
    assert Path("sweep.txt").read_text() == edited
    assert sweep(passed=["--x=1"]) == 1
    assert "sweep.txt has other commands than these" in capsys.readouterr().err
    assert Path("sweep.txt").read_text() == edited
    assert sweep("--overwrite", passed=["--x=1"]) == 0
    assert "--x=1" in Path("sweep.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "passed", "message"),
    [
        ((), ["--agent.wrong=1"], "run 1: agents/fql.py has no setting --agent.wrong (1 more"),
        (["--rate=fast"], [], "'fast' is no positive number of updates per second"),
        (["--rate=deflow:3"], [], "--rate names deflow, of which the sweep has no run"),
        (["--local=2", "--gpus=1"], [], "--local runs the sweep here, without Slurm"),
        (["--main=nowhere.py"], [], "nowhere.py does not say what its commands mean"),
    ],
)
def test_a_sweep_that_cannot_be_made_leaves_no_file(sweep, capsys, arguments, passed, message):
    assert sweep(*arguments, passed=passed) == 1
    error = capsys.readouterr().err
    assert message.replace("agents/", "") in error.replace(str(FAKE.parents[2]) + "/agents/", "")
    assert len(error.splitlines()) == 1
    assert not list(Path().iterdir())


def test_two_commands_for_one_run_are_refused(sweep, capsys):
    assert sweep() == 0
    with open("sweep.txt", "a") as file:
        file.write(Path("sweep.txt").read_text().splitlines()[-1] + "\n")
    assert sweep("status", "sweep.txt") == 1
    assert "sweep.txt, line 7 is the same run as sweep.txt, line 6" in capsys.readouterr().err


def test_a_setting_that_nothing_reads_is_named(sweep, capsys):
    assert sweep(passed=["--agent.unread=1"]) == 0
    assert "warning: nothing in fql reads --agent.unread" in capsys.readouterr().out


def test_without_a_rate_it_is_said_how_to_measure_one(sweep, capsys):
    assert sweep() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("--dry_run")
    assert "--env_name=scene-play-task1" in last


def test_values_that_fit_into_one_program_are_packed(sweep, capsys):
    vary = ["--vary=agent.x=1,2,3", "--vary=agent.count=4,5", "--vary=sampling=a.py,b.py"]
    assert sweep("--pack", *vary, "--rate=2") == 0
    text = Path("sweep.txt").read_text()
    assert " --pack" in text.splitlines()[2]
    commands = [line for line in text.splitlines() if line and line[0] != "#"]
    assert len(commands) == 2 * 2 * 2  # tasks, counts, rules
    for line in commands:
        assert " --vary=agent.x=1,2,3 --agent.count=" in line
        assert " --sampling=" in line
        assert "--agent.x" not in line
    assert "24 runs in 8 programs, 48 seeds, 40 updates" in capsys.readouterr().out
    assert sweep("--pack", *vary, "--rate=2") == 0  # it is the same sweep


def test_an_unknown_action_is_named(capsys):
    assert main(["stat", "sweep.txt"]) == 1
    assert "unknown action 'stat'; it is one of make, run, submit" in capsys.readouterr().err


def test_the_folder_of_a_sweep_is_not_taken_for_its_file(sweep, capsys):
    Path("sweep.jobs").mkdir()
    assert main(["status", "sweep.jobs"]) == 1
    assert "give the sweep's file, sweep.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", "is a folder; give the sweep's file, sweep.txt for instance"),
        ("a.jobs", "is a folder; give the sweep's file, a.txt"),
        ("tau0.005", "the name of a sweep's file ends in .txt"),
    ],
)
def test_what_is_no_name_of_a_sweeps_file_is_refused(sweep, capsys, path, message):
    Path("a.jobs").mkdir()
    assert sweep("status", path) == 1
    assert message in capsys.readouterr().err
