"""What agents learn at the demo's size, by the commands of `make results` with three seeds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from utils.collect.workers import collect
from utils.sweep import commands

REPOSITORY = Path(__file__).parents[2]
LINES = Path(__file__).parent / "results.txt"
TASK = "cube-single-play"
pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory):
    """The demo's data."""
    folder = tmp_path_factory.mktemp("data")
    collect(TASK, str(folder), episodes=150, workers=2)
    return folder


def score(agent, dataset_dir, save_dir):
    """Train an agent, and return its success in percent over the last three evaluations."""
    (text,) = (
        line
        for line in LINES.read_text().splitlines()
        if f"--env_name={TASK} " in line and f"/{agent}.py" in line
    )
    command = commands.parse(text, str(LINES))
    changed = [f"--dataset_dir={dataset_dir}", f"--save_dir={save_dir}", "--num_seeds=3"]
    program = [sys.executable, command.entry_point, *command.arguments, *changed]
    subprocess.run(program, cwd=REPOSITORY, check=True, capture_output=True)
    (found,) = Path(save_dir).glob("*/*/*/score.json")
    return json.loads(found.read_text())["mean"]


@pytest.mark.parametrize(("agent", "floor"), [("deflow", 30), ("fql", 30)])
def test_what_climbs_q_learns_the_cube(agent, floor, dataset_dir, tmp_path):
    assert score(agent, dataset_dir, tmp_path) >= floor


def test_imitating_all_the_data_does_not(dataset_dir, tmp_path):
    assert score("bc", dataset_dir, tmp_path) <= 10
