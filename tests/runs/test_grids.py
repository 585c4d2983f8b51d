"""Runs of one grid, trained in one program: each is what it would be by itself."""

import json
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from tests import diverging, small_runs
from tests.report.run_folders import grid_of
from tests.small_runs import assert_same_end, execute_run, make_run, networks
from utils.load_agent import load_agent, load_agents
from utils.report.csv_log import read_csv
from utils.report.report import Report
from utils.runs import launch
from utils.runs.signals import SEED_FAILED

AGENT = Path(diverging.__file__)
RATES = (1e-5, 1e-3)
FLAGS = {"agent": AGENT, "num_seeds": 2, "threshold": 1e9}


@pytest.fixture(scope="module")
def grid(tmp_path_factory, dataset_dir):
    """A run of two learning rates and two seeds. To be read only."""
    run = make_run(tmp_path_factory.mktemp("grid"), dataset_dir, varied={"lr": RATES}, **FLAGS)
    assert execute_run(run) == 0
    return run


def test_each_point_is_as_a_run_of_its_own(tmp_path, dataset_dir, grid):
    for number, rate in enumerate(RATES):
        alone = make_run(tmp_path, dataset_dir, lr=rate, **FLAGS)
        assert execute_run(alone) == 0
        point = grid.grid.points[number].folder
        assert point.parts[-3:] == alone.folder.path.parts[-3:]
        for name in ("train.csv", "eval.csv", "eval_episodes.csv"):
            ours, theirs = read_csv(point / name), read_csv(alone.folder.path / name)
            assert [row.keys() for row in ours] == [row.keys() for row in theirs]
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-3)
        ours, theirs = load_agents(point), load_agents(alone.folder.path)
        params = [loaded.agents.network.params for loaded in (ours, theirs)]
        chex.assert_trees_all_close(*params, rtol=1e-3, atol=1e-5)
        assert ours.agents.config == theirs.agents.config
        config = [json.loads((p / "config.json").read_text()) for p in (point, alone.folder.path)]
        for what in ("identity", "origins", "changed"):
            assert config[0][what] == config[1][what]
