"""Whole offline-to-online runs: phases, resuming, replay, failures. On a small real task."""

import json
import os
import signal
import sys
import types

import chex
import numpy as np
import pytest

from tests import small_runs
from tests.report.run_folders import grid_of
from tests.small_runs import (
    assert_same_end,
    check_mistakes,
    command,
    execute,
    execute_run,
    folder_of,
    latest_step,
    networks,
    start,
    undisturbed_and_killed,
    wait_for_step,
)
from utils import datasets
from utils.checkpoints import FOLDER, Checkpoints
from utils.envs import tasks
from utils.errors import UserError
from utils.online import TrainingEnvs
from utils.replay import ReplayLog
from utils.report.csv_log import read_csv
from utils.report.report import Report
from utils.runs.online import OnlineTraining
from utils.runs.saves import Saves


def make_run(*args, **kwargs):
    return small_runs.make_run(*args, online=True, **kwargs)


def train(*args, **kwargs):
    return small_runs.train(*args, online=True, **kwargs)


def steps_of(run, name):
    return [row["step"] for row in small_runs.rows_of(run, name)]


@pytest.fixture(scope="module")
def shifted(tmp_path_factory, dataset_dir):
    """A run of a little more than an episode, whose rewards are shifted. To be read only."""
    changes = {"online_steps": 1020, "eval_interval": 1000, "save_interval": 400}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "reward_shift", lambda env_name: -5.0)
        folder = tmp_path_factory.mktemp("shifted")
        return train(folder, dataset_dir, log_interval=30, **changes)


# The first episode, of 1000 steps, goes on while an evaluation and two saves fall due.
STOPPED = {"online_steps": 1020, "eval_interval": 800, "save_interval": 300, "log_interval": 170}


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2])
def whole(request, tmp_path_factory, dataset_dir):
    """Changes to the small run, and the run that they make. To be read only."""
    changes = STOPPED | {"num_seeds": request.param, "fix_bc_flow_online": True}
    return changes, train(tmp_path_factory.mktemp("whole"), dataset_dir, **changes)


def test_a_run_has_both_phases_and_says_where_they_meet(shifted):
    run = shifted
    assert steps_of(run, "train") == [30, 40, *range(70, 1061, 30)]
    assert steps_of(run, "eval") == [40, 1040, 1060]
    (episode,) = read_csv(run.folder.path / "episodes.csv")  # the maze's limit is 1000 steps
    assert episode == {"step": 1040, "seed": 0, "return": -1000, "length": 1000, "success": 0}
    # The shift of the rewards is for training and never for scores.
    np.testing.assert_array_equal(np.asarray(run.online._ring["rewards"]), np.full((1, 1020), -6.0))
    assert all(row["return"] >= -1000 for row in read_csv(run.folder.path / "eval.csv"))
    score = json.loads((run.folder.path / "score.json").read_text())
    assert score["offline"]["evaluations_used"] == [40]
    assert score["evaluations_used"] == [1060]
    assert "(offline at 40 -> online at 1060; 1 seed)" in score["line"]
    assert json.loads((run.folder.path / "config.json").read_text())["online_start"] == 40
    for row in read_csv(run.folder.path / "train.csv"):
        assert row["alpha/alpha"] > 0
        assert row["actor/divergence"] > 0
    assert " -> " in Report(grid_of(run.folder.path)).summary
    assert (run.folder.path / "curves.png").stat().st_size > 10_000


def test_what_was_not_computed_is_an_empty_cell_and_no_complaint(tmp_path, dataset_dir, capsys):
    """From scratch nothing is learned from the first episode, of 1000 steps, before its end."""
    changes = {"offline_steps": 0, "online_steps": 1010, "eval_interval": 0, "log_interval": 100}
    agent = small_runs.REPOSITORY / "tests/toy_agents/monte_carlo.py"
    run = train(tmp_path, dataset_dir, agent=agent, **changes)
    assert "no gradient has reached" not in capsys.readouterr().out
    *before, after = small_runs.rows_of(run)
    assert [row["step"] for row in before] == list(range(100, 1001, 100))
    assert after["step"] == 1010
    losses = {"critic/critic_loss", "critic/target", "actor/actor_loss"}
    for row in before:
        assert not losses & set(row)
        assert {f"validation/{name}" for name in losses} <= set(row)
    assert losses <= set(after)
    speeds = [row["updates_per_second"] for row in small_runs.rows_of(run, "timing")]
    assert speeds[:-1] == [0.0] * len(before)
    assert speeds[-1] > 0


def test_going_on_from_an_offline_run_is_the_whole_run(tmp_path, dataset_dir, whole):
    changes, whole = whole
    agent = {key: changes[key] for key in ("num_seeds", "fix_bc_flow_online")}
    offline = small_runs.train(tmp_path / "offline", dataset_dir, **agent)
    rest = train(tmp_path / "rest", dataset_dir, restore_path=str(offline.folder.path), **changes)
    before, after = (networks(run)["params"] for run in (offline, rest))
    chex.assert_trees_all_equal(after["base_flow"], before["base_flow"])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(after["refinement"], before["refinement"])
    chex.assert_trees_all_equal(networks(rest), networks(whole))
    num_seeds = changes["num_seeds"]
    assert steps_of(rest, "train") == sorted([210, 380, 550, 720, 890, 1060] * num_seeds)
    assert steps_of(rest, "eval") == sorted([40, 840, 1060] * num_seeds)
    after = [row for row in read_csv(whole.folder.path / "eval.csv") if row["step"] >= 40]
    assert read_csv(rest.folder.path / "eval.csv") == after


@pytest.mark.slow
def test_intervals_do_not_change_training(tmp_path, dataset_dir):
    first = train(tmp_path, dataset_dir)
    other = train(tmp_path, dataset_dir, log_interval=7, eval_interval=13, save_interval=50)
    chex.assert_trees_all_equal(networks(other), networks(first))


def test_without_an_offline_phase_the_replay_begins_empty(tmp_path, dataset_dir):
    run = train(tmp_path, dataset_dir, offline_steps=0, utd=2, num_seeds=2)
    assert run.online._replay.first == 0
    assert steps_of(run, "eval") == [0, 0, 20, 20, 40, 40, 60, 60]
    observations = np.asarray(run.online._ring["observations"])
    assert observations.shape[:2] == (2, 60)
    assert not np.array_equal(observations[0], observations[1])
    # Each transition leads to where the next one starts.
    following = np.asarray(run.online._ring["next_observations"])
    np.testing.assert_array_equal(observations[:, 1:], following[:, :-1])


@pytest.mark.slow
def test_balanced_sampling_leaves_the_dataset_apart(tmp_path, dataset_dir):
    plain = train(tmp_path, dataset_dir)
    balanced = train(tmp_path, dataset_dir, balanced_sampling=True)
    assert (plain.online._replay.first, balanced.online._replay.first) == (300, 0)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(networks(plain), networks(balanced))


def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, dataset_dir, monkeypatch):
    with (
        make_run(tmp_path, dataset_dir, buffer_size=100) as run,
        pytest.raises(UserError, match="give at least --buffer_size=300"),
    ):
        run.start()
    assert not (run.folder.path / "config.json").exists()
    with monkeypatch.context() as patch, make_run(tmp_path, dataset_dir, num_seeds=3) as run:
        small = types.SimpleNamespace(
            memory_stats=lambda: {"bytes_limit": 10_000}, device_kind="small"
        )
        patch.setattr(datasets.jax, "devices", lambda *_: [small])
        with pytest.raises(UserError, match="set a lower --buffer_size, --online_steps or --num_"):
            run.start()
    with pytest.raises(UserError, match="give it or --offline_steps"):
        make_run(tmp_path, dataset_dir, offline_steps=40, restore_path="somewhere")
    with pytest.raises(UserError, match="give one of them"):
        make_run(tmp_path, dataset_dir, bc_only=True, fix_bc_flow_online=True)


def test_mistakes_on_the_command_line_give_one_message(tmp_path):
    mistakes = [
        (["--buffer_size=10"], "buffer_size=10: 10 is not integer >= 5000"),
        (["--onlin_steps=5"], "Did you mean: online_steps"),
    ]
    check_mistakes("online_main.py", tmp_path, mistakes)


def test_published_settings_are_kept_but_for_the_length_of_the_offline_phase(tmp_path):
    arguments = ["--env_name=antmaze-large-play-v2", f"--dataset_dir={tmp_path}"]
    arguments = [sys.executable, "online_main.py", *arguments, f"--save_dir={tmp_path / 'exp'}"]
    output = execute(arguments, code=1, D4RL_DATASET_URL="http://127.0.0.1:9/d4rl")
    lines = [line.split() for line in output.splitlines()]
    assert ["offline_steps", "1000000", "default"] in lines
    assert ["online_steps", "1000000", "default"] in lines
    assert ["agent.target_divergence", "0.015", "published"] in lines
    assert "hardest-maze" in output.splitlines()[-1]


# --- Never lose a run -----------------------------------------------------------------------------


def stopped_at(monkeypatch, tmp_path, dataset_dir, steps, **changes):
    """A run that a signal stops in the midst of the online phase; returns its folder."""

    def update(online, state, outcome):
        state = original(online, state, outcome)
        if state.step == run.progress.online_start + steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return state

    original = OnlineTraining.update
    run = make_run(tmp_path, dataset_dir, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(OnlineTraining, "update", update)
        assert execute_run(run) == 75
    return run.folder.path


def test_a_signal_in_an_episode_saves_at_once_and_the_run_ends_the_same(
    tmp_path, dataset_dir, monkeypatch, whole
):
    changes, undisturbed = whole
    folder = stopped_at(monkeypatch, tmp_path, dataset_dir, steps=777, **changes)
    manager = Checkpoints(folder)
    _, host = manager._read(manager.latest_step())
    manager.close()
    assert (host["step"], host["lengths"]) == (817, [777] * changes["num_seeds"])
    resumed = train(tmp_path, dataset_dir, **changes)
    assert_same_end(undisturbed.folder.path, resumed.folder.path)


@pytest.mark.slow
def test_a_signal_during_an_evaluation_goes_back_to_where_it_began(
    tmp_path, dataset_dir, monkeypatch, whole
):
    changes, undisturbed = whole
    stopped = small_runs.stopped_while_evaluating(
        monkeypatch, 840, tmp_path, dataset_dir, online=True, **changes
    )
    assert latest_step(stopped) == 840
    assert steps_of(stopped, "train")[-1] >= 850
    resumed = train(tmp_path, dataset_dir, **changes)
    assert_same_end(undisturbed.folder.path, resumed.folder.path)


def test_regular_saves_wait_for_the_end_of_an_episode(shifted):
    folder = shifted.folder.path / FOLDER
    saved = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    # What was due after 400 and 800 steps waited for the end of the first episode, after 1000.
    assert sorted(saved) == [1040, 1060]


@pytest.mark.slow
def test_an_environment_that_does_not_repeat_is_told_and_the_run_goes_on(
    tmp_path, dataset_dir, monkeypatch, capsys
):
    folder = stopped_at(monkeypatch, tmp_path, dataset_dir, steps=30)
    (inserted,) = (end for _, _, end in ReplayLog(folder / "replay")._files())
    begin = TrainingEnvs.reset

    def elsewhere(self, episodes=None, actions=None):
        observations = begin(self, episodes, actions)
        return observations + 1e-6 if actions is not None else observations

    monkeypatch.setattr(TrainingEnvs, "reset", elsewhere)
    run = train(tmp_path, dataset_dir)
    assert "warning: the environment does not repeat bit for bit" in capsys.readouterr().out
    assert run.progress.step == 100
    assert run.online.envs.episodes == [1]
    manager = Checkpoints(folder)
    _, host = manager._read(manager.latest_step())
    manager.close()
    assert host["cuts"] == [inserted]  # for the next resume


# Episodes of at most 10 steps, and a replay of 30 transitions, which has wrapped when it is saved.
LINE = {
    "env_name": str(small_runs.REPOSITORY / "tests/recipes/my_task.py"),
    "agent": small_runs.REPOSITORY / "tests/toy_agents/cloning.py",
    "balanced_sampling": True,
    "buffer_size": 30,
    "online_steps": 150,
    "eval_interval": 0,
    "save_interval": 40,
}


@pytest.fixture(scope="module")
def line(tmp_path_factory, dataset_dir):
    """An undisturbed run of the short episodes. To be read only."""
    return train(tmp_path_factory.mktemp("line"), dataset_dir, **LINE)


def test_the_older_checkpoint_finds_its_replay_after_the_ring_has_wrapped(
    tmp_path, dataset_dir, monkeypatch, line, capsys
):
    def write(saves, state, progress):
        if progress.step >= 160:  # when the replay has been saved, and the checkpoint has not
            raise RuntimeError("killed")
        original(saves, state, progress)

    original = Saves.write
    run = make_run(tmp_path, dataset_dir, **LINE)
    with monkeypatch.context() as patch:
        patch.setattr(Saves, "write", write)
        with pytest.raises(RuntimeError, match="killed"):
            execute_run(run)
    folder = run.folder.path
    older, newer = sorted(int(path.name) for path in (folder / FOLDER).iterdir())
    assert newer - older > LINE["buffer_size"]
    (folder / FOLDER / str(newer) / "host/metadata").unlink()
    capsys.readouterr()
    resumed = train(tmp_path, dataset_dir, **LINE)
    assert f"resumed at step {older}" in capsys.readouterr().out
    assert_same_end(line.folder.path, resumed.folder.path)


def test_resuming_at_the_last_step_finds_the_episode_where_it_was(
    tmp_path, dataset_dir, monkeypatch, capsys
):
    changes = LINE | {"online_steps": 23, "buffer_size": 5000}
    folder = stopped_at(monkeypatch, tmp_path, dataset_dir, steps=23, **changes)
    assert latest_step(make_run(tmp_path, dataset_dir, **changes)) == 63
    run = train(tmp_path, dataset_dir, **changes)
    output = capsys.readouterr().out
    assert "resumed at step 63" in output
    assert "does not repeat" not in output
    (saved,) = (folder / "replay").iterdir()
    with np.load(saved) as inserted:
        np.testing.assert_array_equal(run.online._ring["actions"][0], inserted["actions"][:, 0])


@pytest.mark.slow
def test_a_signal_to_the_program_saves_and_the_same_command_resumes(tmp_path, dataset_dir):
    steps = {"offline_steps": 100, "online_steps": 60_000, "eval_interval": 60_000}
    arguments = command(tmp_path, dataset_dir, online=True, log_interval=200, **steps)
    process = start(arguments)
    wait_for_step(process, tmp_path / "exp" / "test", 500)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    manager = Checkpoints(folder_of(tmp_path))
    step = manager.latest_step()
    manager.close()
    assert step >= 500
    process = start(arguments)
    wait_for_step(process, tmp_path / "exp" / "test", step + 200)
    process.kill()
    output, _ = process.communicate()
    assert f"resumed at step {step}" in output
    assert "does not repeat" not in output


# Saves fall on the ends of episodes, of 1000 steps, and on the boundary.
KILLED = {"offline_steps": 600, "online_steps": 6500, "log_interval": 300, "eval_interval": 2000}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_killed_at_random_moments_five_times_over(tmp_path, dataset_dir, num_seeds):
    for seed in range(1, 6):
        undisturbed, killed, _ = undisturbed_and_killed(
            tmp_path,
            dataset_dir,
            seed,
            2,
            online=True,
            num_seeds=num_seeds,
            save_interval=100,
            **KILLED,
        )
        assert_same_end(undisturbed, killed)
