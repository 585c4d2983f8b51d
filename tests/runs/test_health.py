"""One diverging seed among several: the others go on, and nothing hides it."""

import json
import types
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from tests import diverging, small_runs
from tests.report.run_folders import grid_of
from tests.small_runs import (
    assert_same_end,
    cut_off_after,
    execute_run,
    make_run,
    networks,
    rows_of,
)
from utils.errors import UserError
from utils.load_agent import load_agent, load_agents
from utils.report.report import Report
from utils.runs import launch
from utils.runs.health import Health, not_finite
from utils.runs.members import Member
from utils.runs.progress import Failure, Progress
from utils.runs.signals import SEED_FAILED

AGENT = Path(diverging.__file__)
BAD = "actor/actor_loss, actor/penalty, parameters"
FLAGS = {"agent": AGENT, "num_seeds": 3, "offline_steps": 60}


@pytest.fixture(scope="module")
def failed(tmp_path_factory, dataset_dir, one_of_three):
    """A run in which one of three seeds fails in update 25. To be read only."""
    run = make_run(
        tmp_path_factory.mktemp("failed"), dataset_dir, **FLAGS, threshold=one_of_three[1]
    )
    assert execute_run(run) == SEED_FAILED == 3
    return run


def without(rows, seed):
    return [row for row in rows if row["seed"] != seed]


def test_the_other_seeds_go_on_as_if_nothing_had_happened(
    tmp_path, dataset_dir, failed, one_of_three
):
    bad, _ = one_of_three
    healthy = small_runs.train(tmp_path, dataset_dir, **FLAGS, threshold=1e9)
    for name in ("train", "eval"):
        expected = without(rows_of(healthy, name), bad)
        assert without(rows_of(failed, name), bad) == expected
        assert not any("failed" in row for row in rows_of(healthy, name))
    others = np.array([seed for seed in range(3) if seed != bad])
    ours, theirs = (
        jax.tree.map(lambda leaf: leaf[others], networks(run)) for run in (failed, healthy)
    )
    chex.assert_trees_all_equal(ours, theirs)


def test_the_failed_seed_stays_at_its_last_checkpoint_and_is_marked(failed, one_of_three):
    bad, _ = one_of_three
    network = networks(failed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(network))
    assert network["step"].tolist() == [20 if seed == bad else 60 for seed in range(3)]
    rows = [row for row in rows_of(failed) if row["seed"] == bad]
    assert [(row["step"], row.get("failed")) for row in rows] == [(10, None), (20, None), (30, 1)]
    assert np.isnan(rows[-1]["actor/penalty"])
    rows = [row for row in rows_of(failed, "eval") if row["seed"] == bad]
    assert rows[1:] == [{"step": step, "seed": bad, "failed": 1} for step in (40, 60)]
    assert "success" in rows[0]
    score = json.loads((failed.folder.path / "score.json").read_text())
    assert score["failed"] == {str(bad): 30}
    assert set(score["per_seed"]) == {str(seed) for seed in range(3)} - {str(bad)}
    assert score["evaluations_used"] == [20, 40, 60]
    assert score["line"].endswith(f"2 seeds, std 0.0); failed and left out: seed {bad} at step 30")
    report = Report(grid_of(failed.folder.path)).summary
    assert "| 2 of 3 |" in report
    assert f"seed {bad} diverged at step 30" in report
    loaded = load_agents(failed.folder.path)
    assert loaded.failed == {bad: 30}
    first = load_agent(failed.folder.path)
    assert first.network.step == 60


def test_a_failed_seed_is_spoken_of_at_once_and_at_the_end_and_stays_failed(
    tmp_path, dataset_dir, failed, one_of_three, capsys
):
    """A run that is cut off after the failure ends as one that was not."""

    bad, threshold = one_of_three
    changes = FLAGS | {"threshold": threshold}
    assert launch.execute_run(cut_off_after(50), make_run(tmp_path, dataset_dir, **changes)) == 1
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert f"NaN or infinity in {BAD} of seed {bad} by step 30" in warning
    assert "the last good row is that of step 20" in warning
    assert "stays at its checkpoint of step 20, the others go on" in warning
    assert "with --debug" in warning
    resumed = make_run(tmp_path, dataset_dir, **changes)
    assert execute_run(resumed) == SEED_FAILED
    output = capsys.readouterr().out
    assert "warning" not in output
    assert output.splitlines()[-1] == f"failed seeds: {bad} at step 30; exit code 3"
    assert_same_end(failed.folder.path, resumed.folder.path)
    assert execute_run(make_run(tmp_path, dataset_dir, **changes)) == SEED_FAILED
    assert f"failed and left out: seed {bad} at step 30" in capsys.readouterr().out


def test_seeds_are_taken_out_of_a_joint_run(tmp_path, dataset_dir, failed, one_of_three):
    def start(**changes):
        changes |= {"agent": AGENT, "eval_interval": 0, "restore_path": str(failed.folder.path)}
        with make_run(tmp_path, dataset_dir, **changes) as run:
            return run.start()[1]

    bad, _ = one_of_three
    good = 2 if bad != 2 else 1
    state = start(seed=good)
    expected = jax.tree.map(lambda leaf: leaf[good], networks(failed)["params"])
    chex.assert_trees_all_equal(
        jax.tree.map(lambda leaf: leaf[0], state.agents.network.params), expected
    )
    with pytest.raises(UserError, match=rf"^seed {bad} of --restore_path=.* has failed at step 30"):
        start(seed=bad)
    with pytest.raises(UserError, match="has the seeds 0, 1, 2, not 3; choose among them"):
        start(seed=2 if bad != 2 else 3, num_seeds=2 if bad != 2 else 1)


def test_a_run_ends_when_no_seed_is_left(tmp_path, dataset_dir):
    changes = FLAGS | {"num_seeds": 2, "eval_interval": 0}
    run = make_run(tmp_path, dataset_dir, **changes)
    with pytest.raises(UserError) as error:
        execute_run(run)
    message = str(error.value)
    for seed in (0, 1):
        assert f"NaN or infinity in {BAD} of seed {seed} by step 30" in message
    assert "the last good checkpoint, of step 20, is kept. Remedy: the same command" in message
    assert (run.folder.path / "error.txt").read_text() == f"{message}\n"
    assert [row.get("failed") for row in rows_of(run)] == [None] * 4 + [1] * 2
    assert not (run.folder.path / "score.json").exists()


ONLINE = {"offline_steps": 20, "online_steps": 40, "eval_interval": 0, "agent": AGENT}


def test_online_the_other_seeds_go_on_too(tmp_path, dataset_dir, one_of_three):
    bad, threshold = one_of_three
    changes = ONLINE | {"num_seeds": 3, "online": True}
    healthy = small_runs.train(tmp_path, dataset_dir, **changes, threshold=1e9)
    run = make_run(tmp_path, dataset_dir, **changes, threshold=threshold)
    assert execute_run(run) == SEED_FAILED
    assert without(rows_of(run), bad) == without(rows_of(healthy), bad)
    last = [row for row in rows_of(run) if row["seed"] == bad][-1]
    assert (last["step"], last["failed"]) == (30, 1)


def test_online_the_row_that_shows_it_is_written_at_once(tmp_path, dataset_dir):
    run = make_run(tmp_path, dataset_dir, online=True, **ONLINE | {"log_interval": 20})
    with pytest.raises(UserError, match=r"in actions, actor/.* and 1 more of seed 0 by step 27"):
        execute_run(run)
    last = rows_of(run)[-1]
    assert (last["step"], last["failed"]) == (27, 1)
    assert np.isnan(last["actor/penalty"])


def test_a_seed_fails_by_the_actions_of_its_evaluation_too(capsys):
    progress = Progress(step=50, last_logged=40)
    saves = types.SimpleNamespace(latest_step=lambda: 30)
    health = Health([Member(5), Member(6)], progress, saves)
    health.tell(health.look_at_evaluation([False, False]))
    assert capsys.readouterr().out == ""
    health.tell(health.look_at_evaluation([False, True]))
    assert progress.failed == [Failure(seed=6, step=50, checkpoint=30, row=40)]
    assert "in an evaluation's actions of seed 6 by step 50" in capsys.readouterr().out
    assert Progress.from_dict(json.loads(json.dumps(progress.as_dict()))) == progress
    with pytest.raises(UserError, match="of seed 5 by step 50"):
        health.tell(health.look_at_evaluation([True, True]))


def test_what_is_not_finite_is_named_for_each_member():
    names = ["d", "c", "b", "a", "e"]
    checks = {name: np.array([False, True, name != "c"]) for name in names}
    assert not_finite(checks) == ["a, b, c and 2 more", "", "c"]
