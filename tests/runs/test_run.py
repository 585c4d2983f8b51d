"""Whole runs: resuming, signals, failures. On a small dataset of a real task."""

import json
import os
import shutil
import signal
import sys
import time

import chex
import jax
import numpy as np
import pytest

from tests import toys
from tests.small_runs import (
    TASK,
    assert_same_end,
    collect_small,
    command,
    delay_evaluations,
    execute,
    execute_each,
    execute_run,
    final_state,
    folder_of,
    latest_step,
    make_run,
    networks,
    rows_of,
    start,
    stopped_while_evaluating,
    train,
    undisturbed_and_killed,
    wait_for_step,
)
from utils.checkpoints import FOLDER, Checkpoints, to_arrays
from utils.env_workers import Interrupted
from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.runs import launch
from utils.runs.background import BackgroundEvaluation

# Saves so often that kills hit them.
KILLED = {"offline_steps": 3000, "log_interval": 300, "eval_interval": 1000, "save_interval": 60}

# Evaluations at 20 and 40 steps, beside which training goes on for longer.
LONGER = {"offline_steps": 60, "log_interval": 5, "save_interval": 10}

# --- What the results do not depend on ------------------------------------------------------------


def test_intervals_do_not_change_training(tmp_path, dataset_dir, undisturbed):
    other = train(tmp_path, dataset_dir, log_interval=7, eval_interval=13, save_interval=40)
    chex.assert_trees_all_equal(networks(other), networks(undisturbed))


def test_the_same_command_gives_the_same_numbers(tmp_path, dataset_dir, undisturbed):
    again = train(tmp_path, dataset_dir, eval_workers=2)
    assert_same_end(undisturbed.folder.path, again.folder.path)


@pytest.fixture(scope="module")
def evaluated_apart(tmp_path_factory, dataset_dir):
    """A run that waited for each of its evaluations. To be read only."""

    def begin_and_wait(evaluation, *args):
        begin(evaluation, *args)
        evaluation.running.results.result()

    begin = BackgroundEvaluation.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackgroundEvaluation, "begin", begin_and_wait)
        return train(tmp_path_factory.mktemp("apart"), dataset_dir, **LONGER)


def test_training_goes_on_while_an_agent_is_evaluated(
    tmp_path, dataset_dir, evaluated_apart, monkeypatch
):
    def save(checkpoints, step, *args):
        running = run._evaluation.running
        saves.append((step, running and running.step))
        original(checkpoints, step, *args)

    original, saves = Checkpoints.save, []
    run = make_run(tmp_path, dataset_dir, **LONGER)
    with monkeypatch.context() as patch:
        delay_evaluations(patch, run, 15)
        patch.setattr(Checkpoints, "save", save)
        assert execute_run(run) == 0
    assert_same_end(evaluated_apart.folder.path, run.folder.path)
    # What a run would resume from lies before the evaluation, or after its rows.
    assert {(20, 20), (40, 40), (60, None)} <= set(saves)
    assert all(evaluated in (None, step) for step, evaluated in saves)


def test_where_one_thread_computes_everything_training_waits_for_an_evaluation(
    tmp_path, dataset_dir, evaluated_apart, monkeypatch
):
    def evaluate(evaluation, *args):
        time.sleep(0.5)  # in which training would take all of its steps
        return original(evaluation, *args)

    def collect(evaluation, logs):
        if evaluation.running is not None:
            collected.append((evaluation.running.step, run._schedule._stop.step))
        return original_collect(evaluation, logs)

    original, original_collect = BackgroundEvaluation._evaluate, BackgroundEvaluation.collect
    monkeypatch.setattr(BackgroundEvaluation, "_evaluate", evaluate)
    monkeypatch.setattr(BackgroundEvaluation, "collect", collect)
    monkeypatch.setenv("NPROC", "1")
    collected = []
    run = make_run(tmp_path, dataset_dir, **LONGER)
    assert execute_run(run) == 0
    assert collected == [(20, 20), (40, 40), (60, 60)]
    assert_same_end(evaluated_apart.folder.path, run.folder.path)


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_failure_ends_training_and_the_evaluation_beside_it(
    tmp_path, dataset_dir, monkeypatch, where
):
    def fail(*_):
        raise UserError("the arm fell off")

    def wait_for_the_end(evaluation, *_):
        while not evaluation._closing:
            time.sleep(0.01)
        ended.append(True)
        raise Interrupted

    ended = []
    evaluate = fail if where == "evaluation" else wait_for_the_end
    monkeypatch.setattr(BackgroundEvaluation, "_evaluate", evaluate)
    run = make_run(tmp_path, dataset_dir, eval_interval=10)
    if where == "training":
        log = run.log
        monkeypatch.setattr(run, "log", lambda state: log(state) if state.step < 15 else fail())
    with pytest.raises(UserError, match="the arm fell off"):
        execute_run(run)
    assert rows_of(run, "eval") == []
    assert ended == [True] * (where == "training")


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["deflow", "fql"])
def test_seeds_together_have_rows_and_evaluations_of_their_own(tmp_path, dataset_dir, agent):
    together = train(tmp_path, dataset_dir, agent=agent, seed=3, num_seeds=2)
    alone = train(tmp_path, dataset_dir, agent=agent, seed=4)
    rows = [row for row in rows_of(together) if row["seed"] == 4]
    expected = rows_of(alone)
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == [10, 20, 30, 40]
    for row, expected_row in zip(rows, expected, strict=True):
        chex.assert_trees_all_close(row, expected_row, rtol=1e-3, atol=1e-4)
    steps = [(row["step"], row["seed"]) for row in rows_of(together, "eval")]
    assert steps == [(20, 3), (20, 4), (40, 3), (40, 4)]


def test_validation_losses_are_logged_and_do_not_cost_training_its_numbers(undisturbed):
    rows = rows_of(undisturbed)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    for row in rows:
        assert row["validation/flow/flow_loss"] > 0
        assert row["validation/actor/mse"] > 0
        assert "actor/mse" not in row


@pytest.mark.parametrize("seed", [0, 7])
def test_a_run_starts_from_an_earlier_ones_agent(tmp_path, dataset_dir, undisturbed, seed):
    """Also one with another seed, such as several fine-tunings of one agent."""
    earlier = str(undisturbed.folder.path)
    with make_run(tmp_path, dataset_dir, restore_path=earlier, seed=seed) as run:
        _, state = run.start()
        assert run.progress.step == state.step == 0
        chex.assert_trees_all_equal(
            jax.tree.map(np.asarray, to_arrays(state.agents.network)), networks(undisturbed)
        )
    with (
        make_run(tmp_path, dataset_dir, restore_path=str(tmp_path)) as run,
        pytest.raises(UserError, match="not the folder of a run"),
    ):
        run.start()
    with (
        make_run(tmp_path, dataset_dir, restore_path=earlier, actor_hidden_dims=(8,)) as run,
        pytest.raises(UserError, match="must have had the same agent and networks"),
    ):
        run.start()


# --- What data say, and what is left out ----------------------------------------------------------


def test_settings_from_the_data_are_in_the_configuration(tmp_path, dataset_dir):
    agent = tmp_path / "scaled.py"
    agent.write_text(
        "from agents import deflow\n\n"
        "class Scaled(deflow.DeFlowAgent):\n"
        "    @classmethod\n"
        "    def settings_from_data(cls, data, config):\n"
        "        return {'lowest': float(data['observations'].min()), 'alpha': 2.5}\n\n"
        "def get_config():\n"
        "    config = deflow.get_config()\n"
        "    config.lowest = 0.0\n"
        "    return config\n"
    )
    with make_run(tmp_path, dataset_dir, agent=agent) as run:
        _, state = run.start()
        lowest = run._trainer.source.arrays["observations"].min()
    assert lowest != 0
    assert state.agents.config.lowest == pytest.approx(float(lowest))
    saved = json.loads((run.folder.path / "config.json").read_text())
    assert saved["agent"]["lowest"] == pytest.approx(float(lowest))
    assert saved["agent"]["alpha"] == state.agents.config.alpha == 2.5
    assert {name for name, origin in saved["origins"].items() if origin == "data"} == {
        "agent.lowest",
        "agent.alpha",
    }


NOTHING_TO_ACT_IN = """
import runpy, sys
from utils import env_workers
from utils.envs import rendering, tasks

def fail(*arguments, **keywords):
    raise AssertionError("nothing acts")

rendering.choose_gl = rendering.require_gl = tasks.make_env = env_workers.Worker.__init__ = fail
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

DATA_ALONE = """
import numpy as np

def load_datasets():
    random = np.random.default_rng(0)
    rows = {name: random.uniform(-1, 1, (60, 3)) for name in ("observations", "actions")}
    rows["next_observations"] = rows["observations"]
    return rows | {"rewards": np.ones(60), "masks": np.ones(60)}
"""


@pytest.mark.parametrize("task", ["named", "data alone"])
def test_without_evaluation_nothing_is_made_to_act_in(tmp_path, dataset_dir, monkeypatch, task):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    changes = {"eval_interval": 0, "offline_steps": 20}
    if task == "data alone":
        path = tmp_path / "my_task.py"
        path.write_text(DATA_ALONE)
        changes["env_name"] = path
    program, *arguments = command(tmp_path, dataset_dir, **changes)
    execute([program, "-c", NOTHING_TO_ACT_IN, *arguments])
    folder = folder_of(tmp_path)
    assert [row["step"] for row in read_csv(folder / "train.csv")] == [10, 20]
    assert read_csv(folder / "eval.csv") == []
    assert (folder / "score.json").exists()
    if task == "data alone":
        changes |= {"eval_interval": 10, "run_group": "acting"}
        output = execute(command(tmp_path, dataset_dir, **changes), code=1)
        assert "my_task.py has no make_env(), so nothing can act in it" in output


# --- Never lose a run -----------------------------------------------------------------------------


def copied(finished, tmp_path, dataset_dir):
    """Copy the folder of a run to where the same command would have it below `tmp_path`."""
    folder = make_run(tmp_path, dataset_dir).folder.path
    shutil.copytree(finished.folder.path, folder)
    return folder


def test_a_finished_run_says_so_and_overwrite_starts_over(
    tmp_path, dataset_dir, undisturbed, capsys
):
    def run_again(**changes):
        capsys.readouterr()
        train(tmp_path, dataset_dir, **changes)
        return capsys.readouterr().out

    folder = copied(undisturbed, tmp_path, dataset_dir)
    before = final_state(folder)
    modified = (folder / "train.csv").stat().st_mtime_ns
    assert "finished already: score: success" in run_again()
    assert (folder / "train.csv").stat().st_mtime_ns == modified
    (folder / "stray.txt").write_text("from before")
    assert "finished already" not in run_again(overwrite=True)
    assert not (folder / "stray.txt").exists()
    assert (folder / "train.csv").stat().st_mtime_ns > modified
    assert before[2] == final_state(folder)[2]


def test_a_changed_agent_file_is_not_taken_for_the_run_that_the_folder_holds(
    tmp_path, dataset_dir, undisturbed, capsys
):
    folder = copied(undisturbed, tmp_path, dataset_dir)
    train(tmp_path, dataset_dir)
    assert "finished already" in capsys.readouterr().out
    kept = folder / "source/agent/deflow.py"
    kept.write_text(f"{kept.read_text()}\n# a comment is no change")
    train(tmp_path, dataset_dir)
    kept.write_text("before = 'an edit'")
    with pytest.raises(UserError, match=r"^agent/deflow.py: not as when the run"):
        execute_run(make_run(tmp_path, dataset_dir))


NEIGHBOUR = "HOW_MANY = {}\n"
NAMED = {
    "my_agent.py": (toys.AGENTS / "deflow.py").read_text() + "\nimport my_neighbour\n",
    "my_neighbour.py": NEIGHBOUR.format(1),
    "my_rule.py": "from my_neighbour import HOW_MANY\nfrom utils.sampling import gather\n",
    "my_policy.py": "from utils.policies import sample as policy\n",
}


@pytest.mark.parametrize("changed", ["my_neighbour.py", "my_rule.py", "my_policy.py", None])
def test_every_file_that_the_user_named_is_kept_and_a_change_is_seen(
    tmp_path, dataset_dir, changed
):
    for name, text in NAMED.items():
        (tmp_path / name).write_text(text)
    changes = {
        "agent": tmp_path / "my_agent.py",
        "sampling": str(tmp_path / "my_rule.py"),
        "eval_policy": str(tmp_path / "my_policy.py"),
    }
    with make_run(tmp_path, dataset_dir, **changes) as run:
        run.start()
        (run.folder.path / "train.csv").touch()  # there has been training
    kept = run.folder.path / "source"
    files = {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*.py")}
    expected = {
        "agent": ("my_agent.py", "my_neighbour.py"),
        "sampling": ("my_rule.py", "my_neighbour.py"),
        "eval_policy": ("my_policy.py",),
    }
    assert files == {
        f"{what}/{name}": NAMED[name] for what, names in expected.items() for name in names
    }
    if changed is None:
        assert execute_run(make_run(tmp_path, dataset_dir, **changes)) == 0
        return
    with (tmp_path / changed).open("a") as file:
        file.write("EDITED = True\n")
    toys.load.cache_clear()  # as in another process
    with pytest.raises(UserError, match=rf"{changed}: not as when the run .* began"):
        execute_run(make_run(tmp_path, dataset_dir, **changes))


def test_a_second_process_is_kept_out(tmp_path, dataset_dir):
    with (
        make_run(tmp_path, dataset_dir),
        pytest.raises(UserError, match="another process is running") as refused,
        make_run(tmp_path, dataset_dir),
    ):
        pass
    assert refused.value.exit_code == 75


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGUSR1, 75),
        pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_same_command_resumes(tmp_path, dataset_dir, number, code):
    steps = {"offline_steps": 60_000, "eval_interval": 60_000, "save_interval": 60_000}
    steps["log_interval"] = 100
    process = start(command(tmp_path, dataset_dir, **steps))
    wait_for_step(process, tmp_path / "exp" / "test", 200)
    process.send_signal(number)
    while process.poll() is None:  # nothing changes what the first has decided
        time.sleep(0.05)
        process.send_signal(signal.SIGINT if code == 75 else signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "the same command resumes from there" in output
    manager = Checkpoints(folder_of(tmp_path))
    step = manager.latest_step()
    manager.close()
    assert 200 <= step < 60_000

    process = start(command(tmp_path, dataset_dir, **steps))
    wait_for_step(process, tmp_path / "exp" / "test", step + 100)
    process.kill()
    output, _ = process.communicate()
    assert f"resumed at step {step}" in output


def test_a_signal_during_an_evaluation_goes_back_to_where_it_began(
    tmp_path, dataset_dir, evaluated_apart, monkeypatch
):
    stopped = stopped_while_evaluating(monkeypatch, 40, tmp_path, dataset_dir, **LONGER)
    assert latest_step(stopped) == 40
    assert rows_of(stopped)[-1]["step"] >= 50
    resumed = train(tmp_path, dataset_dir, **LONGER)
    assert_same_end(evaluated_apart.folder.path, resumed.folder.path)


def test_a_signal_whose_interrupted_evaluation_is_over_before_the_next_stop(tmp_path, dataset_dir):
    def main(run):
        trainer, state = run.start()
        for stop in run.stops():
            state = trainer.update(state, stop.steps)
            if stop.log:
                state = run.log(state)
            if stop.evaluate:
                run.evaluate(state)
                os.kill(os.getpid(), signal.SIGTERM)
                while not run._evaluation.done():
                    time.sleep(0.01)
        return run.end(state)

    run = make_run(tmp_path, dataset_dir)
    assert launch.execute_run(main, run) == 75
    assert latest_step(run) == 20
    assert not read_csv(run.folder.path / "eval.csv")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_five_times_over(tmp_path, dataset_dir):
    saving = 0
    for seed in range(1, 6):
        undisturbed, killed, more = undisturbed_and_killed(tmp_path, dataset_dir, seed, 2, **KILLED)
        assert_same_end(undisturbed, killed)
        saving += more
    assert saving > 0


@pytest.mark.slow
def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, dataset_dir, undisturbed):
    """What a kill in the middle of a save leaves behind is ignored and cleared away."""
    with make_run(tmp_path, dataset_dir) as run:
        run.start()
    # Of a step that is not saved again.
    unfinished = run.folder.path / FOLDER / "17.orbax-checkpoint-tmp"
    shutil.copytree(undisturbed.folder.path / FOLDER / "40", unfinished)
    (unfinished / "_CHECKPOINT_METADATA").unlink()
    run = train(tmp_path, dataset_dir)
    assert not unfinished.exists()
    assert_same_end(undisturbed.folder.path, run.folder.path)


def test_another_dataset_is_refused_on_resume(tmp_path, dataset_dir):
    with make_run(tmp_path, dataset_dir) as run:
        run.start()
    other = tmp_path / "other"
    collect_small(other, seed=9)
    with (
        make_run(tmp_path, other) as run,
        pytest.raises(UserError, match="not the one that the run"),
    ):
        run.start()


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, dataset_dir):
    output = execute(command(tmp_path, dataset_dir, "--agent.lr=1e20", run_group="nan"), code=1)
    assert "NaN or infinity in" in output
    assert "Remedy: the same command with --debug" in output
    (folder,) = (tmp_path / "exp" / "nan").glob("*/*")
    manager = Checkpoints(folder)
    arrays, _ = manager._read(manager.latest_step())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays))
    # The row tells what it was; the run that is started again writes it anew.
    (row,) = read_csv(folder / "train.csv")
    assert row["step"] == 10
    assert not all(np.isfinite(value) for value in row.values())


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_it_resumes_when_there_is_space(tmp_path, dataset_dir):
    """Once training starts, no file can grow beyond a limit: a full disk, on every machine."""
    code = (
        "import resource, runpy; from utils.runs.run import Run; stops = Run.stops\n"
        "def limited(run):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))\n"
        "    return stops(run)\n"
        "Run.stops = limited\n"
        "runpy.run_path('main.py', run_name='__main__')"
    )
    changes = {"log_interval": 1, "eval_interval": 40}
    small = command(tmp_path / "a", dataset_dir, **changes)
    output = execute([sys.executable, "-c", code, *small[2:]], code=1)
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "File too large" in error
    assert "again to resume" in error
    execute(small)
    whole = train(tmp_path / "b", dataset_dir, **changes)
    assert_same_end(folder_of(tmp_path / "a"), whole.folder.path)


def test_a_video_is_written(tmp_path, dataset_dir):
    run = train(tmp_path, dataset_dir, video_episodes=1, video_frame_skip=100, offline_steps=10)
    (video,) = (run.folder.path / "videos").iterdir()
    assert video.name == "step10_seed0.mp4"
    assert video.stat().st_size > 1000


@pytest.mark.slow
def test_a_way_of_rendering_that_mujoco_does_not_know_is_a_line(tmp_path):
    arguments = (f"--save_dir={tmp_path}", f"--env_name={TASK}")
    entry_points = ("main.py", "online_main.py")
    for output in execute_each(*([name, *arguments] for name in entry_points), MUJOCO_GL="eggl"):
        (error,) = [line for line in output.splitlines() if line.startswith("error:")]
        assert "MuJoCo cannot be imported with MUJOCO_GL=eggl" in error
