"""--dry_run: what a run needs and takes, said without beginning it."""

import re

import pytest

from tests import toys
from tests.small_runs import command, execute, make_run
from utils.errors import UserError
from utils.runs.dry_run import dry_run

LINES = ("folder", "data", "parameters", "GFLOP", "memory", "speed", "hours")


def found(output):
    """What is said, by name; of several lines of one name the last."""
    lines = output[output.index("dry run: ") :].splitlines()[1:]
    return dict(line.strip().split(maxsplit=1) for line in lines)


def test_data_that_are_there_are_loaded(tmp_path, dataset_dir, capsys):
    run = make_run(tmp_path, dataset_dir, num_seeds=2, offline_steps=3_600_000)
    assert dry_run(run.grid, toys.load(toys.AGENTS / "deflow.py")) == 0
    output = capsys.readouterr().out
    said = found(output)
    assert set(LINES) <= set(said)
    assert re.search(r"-val\.npz \(found, \d+ MiB(, \d+ MiB unpacked)?\)", said["data"])
    assert re.search(r"300 transitions to train on, \S+ GiB on the device\n", output)
    assert said["folder"] == f"{run.settings.folder} (new)"
    speed, hours = (float(said[name].split()[0]) for name in ("speed", "hours"))
    assert abs(hours - 1000 / speed) < 0.01 * hours
    assert "without" not in said["memory"]
    assert not (tmp_path / "exp").exists()


def test_random_numbers_stand_in_for_missing_data(tmp_path, capsys):
    run = make_run(tmp_path, tmp_path / "none", env_name="scene-play", collect_missing=True)
    assert dry_run(run.grid, toys.load(toys.AGENTS / "deflow.py")) == 0
    output = capsys.readouterr().out
    said = found(output)
    assert set(LINES) <= set(said)
    assert said["data"].endswith("scene-play-v0-val.npz (missing)")
    assert re.search(r"\n +collecting them takes about \d+ (minutes|hours)\n", output)
    assert said["memory"].endswith("per device, without the data, which are missing")
    counts = "base_flow 837, critic 1,570, log_alpha 1, refinement 821"  # of 40 + 5 inputs
    assert said["parameters"] == f"3,229 per seed ({counts})"
    assert not (tmp_path / "exp").exists()


def test_what_cannot_be_collected_is_refused(tmp_path):
    run = make_run(tmp_path, tmp_path, env_name="scene-play", collect_missing=True)
    (tmp_path / "scene-play-v0.npz").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"scene-play-v0\.npz is there without"):
        dry_run(run.grid, toys.load(toys.AGENTS / "deflow.py"))


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_the_flag_ends_the_command_before_a_folder_is_made(tmp_path, dataset_dir, online):
    output = execute(command(tmp_path, dataset_dir, "--dry_run", online=online))
    assert set(LINES) <= set(found(output))
    assert not (tmp_path / "exp").exists()
