"""Runs of one grid, trained in one program: each is what it would be by itself."""

import json
import types
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from tests import diverging, small_runs, toys
from tests.report.run_folders import grid_of
from tests.small_runs import cut_off_after, execute_run, make_run, networks
from utils.analysis.entries import parse_entries
from utils.analysis.policy_episodes import evaluate_run
from utils.errors import UserError
from utils.load_agent import load_agent, load_agents
from utils.report.csv_log import read_csv
from utils.report.report import Report
from utils.runs import grids, launch, settings
from utils.runs.signals import SEED_FAILED

AGENT = Path(diverging.__file__)
RATES = (1e-5, 1e-3)
FLAGS = {"agent": AGENT, "num_seeds": 2, "threshold": 1e9}
LOGS = ("train.csv", "eval.csv", "eval_episodes.csv")


@pytest.fixture(scope="module")
def grid(tmp_path_factory, dataset_dir):
    """A run of two learning rates and two seeds. To be read only."""
    run = make_run(tmp_path_factory.mktemp("grid"), dataset_dir, varied={"lr": RATES}, **FLAGS)
    assert execute_run(run) == 0
    return run


def points_of(run):
    return [point.folder for point in run.grid.points]


def test_each_point_is_as_a_run_of_its_own(tmp_path, dataset_dir, grid):
    alone = small_runs.train(tmp_path, dataset_dir, lr=RATES[1], **FLAGS)
    point, folder = points_of(grid)[1], alone.folder.path
    assert point.parts[-3:] == folder.parts[-3:]
    for name in LOGS:
        ours, theirs = read_csv(point / name), read_csv(folder / name)
        assert [row.keys() for row in ours] == [row.keys() for row in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-3)
    ours, theirs = load_agents(point), load_agents(folder)
    params = [loaded.agents.network.params for loaded in (ours, theirs)]
    chex.assert_trees_all_close(*params, rtol=1e-3, atol=1e-5)
    assert ours.agents.config == theirs.agents.config
    config = [json.loads((path / "config.json").read_text()) for path in (point, folder)]
    for what in ("identity", "changed", "example", "dataset", "panels"):
        assert config[0][what] == config[1][what]


def test_the_report_pools_seeds_by_point_and_names_what_differs(grid):
    cells = grid_of(grid.folder.path.parents[1]).cells
    assert sorted(label for _, label in cells) == ["diverging, lr=0.001", "diverging, lr=1e-05"]
    for cell in cells.values():
        assert [record.seed for record in cell.records] == [0, 1]
        assert {record.state for record in cell.records} == {"done"}
    (hours,) = {record.hours for cell in cells.values() for record in cell.records}
    assert hours == pytest.approx(grid.progress.seconds / 2 / 3600, rel=0.05)  # its share


def test_a_points_agents_are_loaded_and_evaluated_with_its_settings(grid, tmp_path):
    saved = networks(grid)["params"]
    for number, folder in enumerate(points_of(grid)):
        agent = load_agent(folder, seed=1)
        expected = jax.tree.map(lambda leaf, i=2 * number + 1: leaf[i], saved)
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, agent.network.params), expected)
        assert agent.config["lr"] == RATES[number]
        last = [row for row in read_csv(folder / "eval_episodes.csv") if row["step"] == 40]
        log = tmp_path / f"{number}.csv"
        played = evaluate_run(folder, parse_entries("sample", {}), log, num_workers=1)
        for row, found in zip(last, played, strict=True):
            assert {key: found[key] for key in row} == row
    listed = json.loads((grid.folder.path / grids.FILE).read_text())["points"]
    assert [(grid.folder.path / point["folder"]).resolve() for point in listed] == points_of(grid)
    assert [point["agent.lr"] for point in listed] == list(RATES)


def test_a_resumed_grid_ends_with_the_same_bits(tmp_path, dataset_dir, grid, capsys):
    run = make_run(tmp_path, dataset_dir, varied={"lr": RATES}, **FLAGS)
    assert launch.execute_run(cut_off_after(30), run) == 1
    resumed = make_run(tmp_path, dataset_dir, varied={"lr": RATES}, **FLAGS)
    assert execute_run(resumed) == 0
    assert "resumed at step 20" in capsys.readouterr().out
    chex.assert_trees_all_equal(networks(resumed), networks(grid))
    for one, other in zip(points_of(resumed), points_of(grid), strict=True):
        for name in LOGS:
            assert (one / name).read_bytes() == (other / name).read_bytes()
    assert execute_run(make_run(tmp_path, dataset_dir, varied={"lr": RATES}, **FLAGS)) == 0
    assert capsys.readouterr().out.count("finished already") == 2


def test_a_member_that_fails_is_one_of_its_point_and_the_others_go_on(
    tmp_path, dataset_dir, grid, capsys
):
    """The threshold of one point makes all of its seeds fail, that of the other none."""
    varied = {"lr": (RATES[0], RATES[1], RATES[1]), "threshold": (1e9, -1e9, 1e9)}
    run = make_run(tmp_path, dataset_dir, varied=varied, **FLAGS | {"num_seeds": 1})
    assert execute_run(run) == SEED_FAILED
    output = capsys.readouterr().out
    assert "of seed 0 of lr=0.001, threshold=-1000000000.0 by step 30" in output
    assert "failed seeds: 0 of lr=0.001, threshold=-1000000000.0 at step 30; exit code 3" in output
    first, failed, last = points_of(run)
    assert networks(run)["step"].tolist() == [40, 20, 40]
    for folder, healthy in ((first, points_of(grid)[0]), (last, points_of(grid)[1])):
        rows = [row for row in read_csv(healthy / "train.csv") if row["seed"] == 0]
        for one, other in zip(read_csv(folder / "train.csv"), rows, strict=True):
            np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-3)
    marked = [(row["step"], row.get("failed")) for row in read_csv(failed / "train.csv")]
    assert marked == [(10, None), (20, None), (30, 1)]
    assert load_agents(failed).failed == {0: 30}
    changes = FLAGS | {"num_seeds": 1, "debug": True}
    with pytest.raises(UserError, match=r"^seed 0 of lr=0\.001, .*, update after step 25: NaN in"):
        execute_run(make_run(tmp_path, dataset_dir, varied=varied, **changes))
    assert load_agents(first).failed == load_agents(last).failed == {}
    report = Report(grid_of(run.folder.path.parents[1])).summary
    assert "diverged at step 30" in report


def test_a_folder_is_of_its_own_run_or_of_one_grid(tmp_path, dataset_dir):
    """Neither takes up, nor deletes, what the other has trained."""
    quick = FLAGS | {"num_seeds": 1, "offline_steps": 10, "eval_interval": 0}
    small_runs.train(tmp_path, dataset_dir, lr=RATES[0], **quick)
    before = sorted(tmp_path.rglob("*"))
    for more in ({}, {"overwrite": True}):
        run = make_run(tmp_path, dataset_dir, varied={"lr": RATES}, **quick, **more)
        with pytest.raises(UserError, match=r"sd000 is trained by another command \(.*\): give"):
            execute_run(run)
    assert sorted(tmp_path.rglob("*")) == before
    rates = (RATES[1], 1e-4)
    longer = quick | {"offline_steps": 20}
    assert execute_run(make_run(tmp_path, dataset_dir, varied={"lr": rates}, **quick)) == 0
    assert execute_run(make_run(tmp_path, dataset_dir, lr=rates[0], **quick)) == 0  # it is finished
    for alone in (longer, quick | {"overwrite": True}):
        with pytest.raises(UserError, match="is trained by another command"):
            execute_run(make_run(tmp_path, dataset_dir, lr=rates[0], **alone))
    assert execute_run(make_run(tmp_path, dataset_dir, varied={"lr": rates}, **longer)) == 0


def test_agents_that_a_grid_begins_with_keep_its_values(tmp_path, dataset_dir, grid):
    """Every point takes the same agents, of a run or of a point of another grid."""
    source = points_of(grid)[1]
    changes = FLAGS | {"eval_interval": 0, "restore_path": str(source)}
    with make_run(tmp_path, dataset_dir, varied={"lr": (1e-4, 2e-4)}, **changes) as run:
        _, state = run.start()
    expected = load_agents(source).agents.network.params
    for point in (slice(0, 2), slice(2, 4)):
        taken = jax.tree.map(lambda leaf, own=point: leaf[own], state.agents.network.params)
        chex.assert_trees_all_equal(taken, expected)
    np.testing.assert_array_equal(state.agents.config.lr, np.float32([1e-4, 1e-4, 2e-4, 2e-4]))


def test_a_grid_goes_online(tmp_path, dataset_dir):
    changes = FLAGS | {"num_seeds": 1, "offline_steps": 10, "online_steps": 20, "eval_interval": 0}
    run = make_run(tmp_path, dataset_dir, online=True, varied={"lr": RATES}, **changes)
    assert execute_run(run) == 0
    first, second = (read_csv(folder / "train.csv")[-1] for folder in points_of(run))
    assert first["step"] == second["step"] == 30
    assert first["actor/actor_loss"] != second["actor/actor_loss"]


# --- The command line -----------------------------------------------------------------------------


def resolved(monkeypatch, *vary):
    """The values at each point of a command with some `--vary`."""
    monkeypatch.setattr(settings, "resolve", lambda *arguments: arguments[-1])
    flag_values = {"vary": types.SimpleNamespace(value=list(vary) or None)}
    return grids.resolve(toys.load(toys.AGENTS / "deflow.py"), False, flag_values).points


def test_all_products_are_points_whatever_the_order_and_repetition(monkeypatch):
    assert resolved(monkeypatch) == ({},)
    points = resolved(monkeypatch, "agent.tau=0.01,0.005", "agent.lr=1e-3,3e-4,0.001")
    assert points == tuple({"lr": lr, "tau": tau} for lr in (3e-4, 1e-3) for tau in (0.005, 0.01))
    other = resolved(monkeypatch, "agent.lr=3e-4,1e-3", "agent.tau=0.005,0.005,0.01")
    assert other == points


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["agent.tua=1,2"], r"has no setting --agent\.tua; did you mean --agent\.tau"),
        (["agent.tau=1,fast"], r"^--vary agent\.tau: could not convert .* 'fast'; give numbers$"),
        (["agent.tau=1", "agent.tau=2"], "^--vary agent.tau is given twice; give it once"),
        (["agent.flow_steps=5,10"], r"a count, a choice or a text, .* python -m utils\.sweep"),
        (["agent.q_agg=min,mean"], r"a count, a choice or a text, .* python -m utils\.sweep"),
        (["agent.bc_only=True,False"], r"a count, a choice or a text"),
        (["num_seeds=1,2"], r"^--vary num_seeds: it is no setting of the agent, .* utils\.sweep"),
        (["agent.tau"], "does not look like NAME=VALUE"),
    ],
)
def test_what_cannot_be_varied_is_refused_in_a_line(monkeypatch, vary, message):
    with pytest.raises(UserError, match=message):
        resolved(monkeypatch, *vary)
