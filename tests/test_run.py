"""Whole runs: configuration, resuming, signals, failures. On a small dataset of a real task."""

import json
import shutil
import signal
import sys
import time

import chex
import gymnasium
import jax
import numpy as np
import pytest

from tests import toys
from tests.runs import (
    FLAGS,
    REPOSITORY,
    SMALL,
    TASK,
    assert_same_end,
    check_mistakes,
    collect_small,
    command,
    delay_evaluations,
    execute,
    execute_each,
    final_state,
    folder_of,
    make_run,
    networks,
    start,
    stopped_while_evaluating,
    train,
    undisturbed_and_killed,
    wait_for_step,
)
from utils.agent_files import load_agent_file
from utils.checkpoints import Checkpoints
from utils.env_workers import Interrupted
from utils.envs import names
from utils.envs import ogbench as envs
from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.runs import settings as config
from utils.runs.run import Run

# Saves so often that kills hit them.
KILLED = {"offline_steps": 3000, "log_interval": 300, "eval_interval": 1000, "save_interval": 60}

# Evaluations at 20 and 40 steps, beside which training goes on for longer.
LONGER = {"offline_steps": 60, "log_interval": 5, "save_interval": 10}

# --- Configuration --------------------------------------------------------------------------------


def test_command_line_beats_published_beats_default(tmp_path):
    _, module = load_agent_file(toys.AGENTS / "deflow.py")
    flags = FLAGS | {"env_name": "antmaze-giant-navigate", "save_dir": str(tmp_path)}
    flags |= {"dataset_dir": None, "offline_steps": 123}
    agent = module.get_config()
    agent.q_agg = "mean"

    def published(env_name):
        from utils.agent import published_settings

        return published_settings(module, env_name)

    settings = config.combine(
        flags, agent, {"agent.q_agg", "offline_steps"}, toys.AGENTS / "deflow.py", published
    )
    assert settings.env_name == "antmaze-giant-navigate-singletask-v0"
    assert (settings.agent.q_agg, settings.origins["agent.q_agg"]) == ("mean", "flag")
    assert (settings.agent.discount, settings.origins["agent.discount"]) == (0.995, "published")
    assert (settings.agent.lr, settings.origins["agent.lr"]) == (3e-4, "default")
    assert settings.flags["offline_steps"] == 123
    assert module.get_config().discount == 0.99
    given = config.combine(flags, agent, {}, toys.AGENTS / "deflow.py", published)
    assert (given.agent.q_agg, given.flags["offline_steps"]) == ("min", 1_000_000)
    assert json.loads(json.dumps(settings.as_dict()))["origins"]["seed"] == "default"


def test_the_folder_names_what_the_results_depend_on(tmp_path, dataset_dir):
    base = make_run(tmp_path, dataset_dir).folder
    assert base == make_run(tmp_path, dataset_dir).folder
    assert "sd000" in base.name
    assert base.name.startswith(f"{TASK}_deflow_")
    for place in ({"eval_workers": 2}, {"overwrite": True}, {"wandb_mode": "offline"}):
        assert make_run(tmp_path, dataset_dir, **place).folder == base
    for what in ({"seed": 1}, {"lr": 1e-4}, {"offline_steps": 41}, {"eval_interval": 10}):
        assert make_run(tmp_path, dataset_dir, **what).folder != base
    assert make_run(tmp_path, dataset_dir, agent="fql").folder != base


def test_mistakes_on_the_command_line_give_one_message(tmp_path):
    mistakes = [
        (["--agent.tua=0.1"], "no setting --agent.tua; did you mean --agent.tau?"),
        (["--agent=nowhere.py"], "--agent=nowhere.py is not a file"),
        (["--env_name=cube-singel-play"], "did you mean cube-single-play"),
        (["--sed=1"], "Did you mean: seed"),
        (["--num_seeds=0"], "0 is not a positive integer"),
        (["--agent.lr=fast"], "could not convert string to float"),
        (["--env_name=visual-scene-play-task1"], "agents for pixels are not available yet"),
        (["--env_name=visual-cube-single-play"], "agents for pixels are not available yet"),
        (["--agent.bc_only", "False"], "unexpected argument 'False'"),
        (["env_name=cube-single-play"], "unexpected argument 'env_name=cube-single-play'"),
        (["--agent.discount=1.5"], "--agent.discount=1.5 must be between 0.0 and 1.0"),
    ]
    check_mistakes("main.py", tmp_path, mistakes)


@pytest.mark.slow
def test_a_device_that_is_not_there_is_not_replaced_by_another(tmp_path, dataset_dir):
    output = execute(command(tmp_path, dataset_dir), code=1, JAX_PLATFORMS="cuda")
    assert "error: JAX finds no device for JAX_PLATFORMS=cuda" in output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"q_agg": "max"}, "--agent.q_agg=max is not one of mean, min"),
        ({"batch_size": 0}, "--agent.batch_size=0 must be at least 1"),
        ({"target_divergence": 0.0}, "--agent.target_divergence=0.0 must be at least"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, dataset_dir, setting, message):
    with pytest.raises(UserError, match=message):
        make_run(tmp_path, dataset_dir, **setting)


def test_an_agent_file_that_does_not_import_is_named_with_its_line(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import jax\n\nimport no_such_module\n")
    with pytest.raises(UserError, match=r"broken.py, line 3: ModuleNotFoundError"):
        load_agent_file(broken)
    broken.write_text("def get_config(:\n")
    with pytest.raises(UserError, match=r"broken.py, line 1: SyntaxError"):
        load_agent_file(broken)


def test_help_lists_flags_and_the_settings_of_the_agent():
    arguments = ["--help"], ["--agent=agents/fql.py", "--help"]
    deflow, fql = (
        " ".join(text.split())
        for text in execute_each(*(["main.py", *given] for given in arguments))
    )
    for words in ("--env_name", "--num_seeds", "--offline_steps", "target_divergence=0.01"):
        assert words in deflow
    assert "--env_name" in fql
    assert "target_divergence" not in fql


def random_dataset(full_name, folder, rows=120):
    """A file in OGBench's format from random actions in the real environment."""
    env = gymnasium.make(names.collection_id(full_name))
    columns = {key: [] for key in ("observations", "actions", "terminals", "qpos", "qvel")}
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for i in range(rows):
        action = env.action_space.sample()
        data = env.unwrapped.data
        for key, value in (
            ("observations", observation),
            ("actions", action),
            ("terminals", i % 60 == 59),
            ("qpos", data.qpos.copy()),
            ("qvel", data.qvel.copy()),
        ):
            columns[key].append(value)
        observation, *_ = env.step(action)
    env.close()
    for stem in ("", "-val"):
        np.savez_compressed(
            folder / f"{names.dataset_name(full_name)}{stem}.npz",
            **{
                key: np.array(value, bool if key == "terminals" else np.float32)
                for key, value in columns.items()
            },
        )


def test_antmaze_resolves_says_what_is_missing_and_then_trains(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    arguments = [
        sys.executable,
        "main.py",
        "--env_name=antmaze-large-navigate",
        "--agent=agents/deflow.py",
        f"--dataset_dir={data}",
        f"--save_dir={tmp_path / 'exp'}",
        "--run_group=test",
    ]
    output = execute(arguments, code=1, OGBENCH_DATASET_URL="http://127.0.0.1:9/ogbench")
    resolved = [line.split() for line in output.splitlines()]
    assert ["agent.q_agg", "min", "published"] in resolved
    assert ["agent.target_divergence", "0.01", "published"] in resolved
    assert ["offline_steps", "1000000", "published"] in resolved
    (message,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "http://127.0.0.1:9/ogbench/antmaze-large-navigate-v0.npz" in message
    assert str(data / "antmaze-large-navigate-v0.npz") in message
    shutil.rmtree(tmp_path / "exp")

    envs.make_env(names.resolve("antmaze-large-navigate")).close()  # registers, chooses OpenGL
    random_dataset(names.resolve("antmaze-large-navigate"), data)
    output = execute(
        [
            *arguments,
            "--offline_steps=12",
            "--log_interval=4",
            "--eval_episodes=1",
            "--wandb_mode=disabled",
            *(f"--agent.{key}={value}" for key, value in SMALL.items()),
        ]
    )
    assert "score: success" in output
    folder = folder_of(tmp_path)
    assert [row["step"] for row in read_csv(folder / "train.csv")] == [4, 8, 12]
    (evaluation,) = read_csv(folder / "eval.csv")
    assert evaluation["length"] == 1000 or evaluation["success"] == 1
    saved = json.loads((folder / "config.json").read_text())
    assert saved["origins"]["offline_steps"] == "flag"
    assert saved["origins"]["agent.q_agg"] == "published"
    assert (folder / "curves.png").stat().st_size > 10_000
    assert json.loads((folder / "versions.json").read_text())["jax"] == jax.__version__


def test_a_fork_anywhere_under_another_name_runs(tmp_path, dataset_dir):
    fork = tmp_path / "my_idea.py"
    text = (toys.AGENTS / "deflow.py").read_text()
    fork.write_text(text.replace("class DeFlowAgent", "class MyIdea"))
    output = execute(command(tmp_path, dataset_dir, f"--agent={fork}"))
    assert "score: success" in output
    assert "my_idea" in folder_of(tmp_path).name
    assert (folder_of(tmp_path) / "agent.py").read_text() == fork.read_text()


def test_the_entry_points_share_no_six_lines():
    runs_of_lines = []
    for name in ("main.py", "online_main.py"):
        lines = (REPOSITORY / name).read_text().splitlines()
        runs_of_lines.append({tuple(lines[i : i + 6]) for i in range(len(lines) - 5)})
    assert all(runs_of_lines)
    assert not set.intersection(*runs_of_lines)


# --- What the results do not depend on ------------------------------------------------------------


def test_intervals_do_not_change_training(tmp_path, dataset_dir, undisturbed):
    other = train(tmp_path, dataset_dir, log_interval=7, eval_interval=13, save_interval=40)
    chex.assert_trees_all_equal(networks(other), networks(undisturbed))


def test_the_same_command_gives_the_same_numbers(tmp_path, dataset_dir, undisturbed):
    again = train(tmp_path, dataset_dir, eval_workers=2)
    assert_same_end(undisturbed.folder, again.folder)


@pytest.fixture(scope="module")
def evaluated_apart(tmp_path_factory, dataset_dir):
    """A run that waited for each of its evaluations. To be read only."""

    def begin_and_wait(run):
        begin(run)
        run._finish_evaluation()

    begin = Run._begin_evaluation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_begin_evaluation", begin_and_wait)
        return train(tmp_path_factory.mktemp("apart"), dataset_dir, **LONGER)


def test_training_goes_on_while_an_agent_is_evaluated(
    tmp_path, dataset_dir, evaluated_apart, monkeypatch
):
    def save(checkpoints, step, *args):
        evaluated = run._evaluation and run._evaluation.step
        saves.append((step, evaluated))
        original(checkpoints, step, *args)

    original, saves = Checkpoints.save, []
    with monkeypatch.context() as patch:
        delay_evaluations(patch, 15)
        patch.setattr(Checkpoints, "save", save)
        with make_run(tmp_path, dataset_dir, **LONGER) as run:
            assert run.execute() == 0
    assert_same_end(evaluated_apart.folder, run.folder)
    # What a run would resume from lies before the evaluation, or after its rows.
    assert {(20, 20), (40, 40), (60, None)} <= set(saves)
    assert all(evaluated in (None, step) for step, evaluated in saves)


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_failure_ends_training_and_the_evaluation_beside_it(
    tmp_path, dataset_dir, monkeypatch, where
):
    def fail(*_):
        raise UserError("the arm fell off")

    def wait_for_the_end(run, *_):
        while not run._ending:
            time.sleep(0.01)
        raise Interrupted

    monkeypatch.setattr(Run, "_evaluate", fail if where == "evaluation" else wait_for_the_end)
    with make_run(tmp_path, dataset_dir, eval_interval=10) as run:
        run.prepare()
        if where == "training":
            monkeypatch.setattr(run, "_log", lambda: run.step < 15 or fail())
        with pytest.raises(UserError, match="the arm fell off"):
            run.train()
    assert read_csv(run.folder / "eval.csv") == []


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["deflow", "fql"])
def test_seeds_together_have_rows_and_evaluations_of_their_own(tmp_path, dataset_dir, agent):
    together = train(tmp_path, dataset_dir, agent=agent, seed=3, num_seeds=2)
    alone = train(tmp_path, dataset_dir, agent=agent, seed=4)
    rows = [row for row in read_csv(together.folder / "train.csv") if row["seed"] == 4]
    expected = read_csv(alone.folder / "train.csv")
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == [10, 20, 30, 40]
    for row, expected_row in zip(rows, expected, strict=True):
        chex.assert_trees_all_close(row, expected_row, rtol=1e-3, atol=1e-4)
    steps = [(row["step"], row["seed"]) for row in read_csv(together.folder / "eval.csv")]
    assert steps == [(20, 3), (20, 4), (40, 3), (40, 4)]


def test_validation_losses_are_logged_and_do_not_cost_training_its_numbers(undisturbed):
    rows = read_csv(undisturbed.folder / "train.csv")
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    for row in rows:
        assert row["validation/flow/flow_loss"] > 0
        assert row["validation/actor/mse"] > 0
        assert "actor/mse" not in row


def test_a_run_starts_from_an_earlier_ones_agent(tmp_path, dataset_dir, undisturbed):
    with make_run(tmp_path, dataset_dir, restore_path=str(undisturbed.folder)) as run:
        run.prepare()
        assert run.step == 0
        chex.assert_trees_all_equal(networks(run), networks(undisturbed))
    with (
        make_run(tmp_path, dataset_dir, restore_path=str(tmp_path)) as run,
        pytest.raises(UserError, match="not the folder of a run"),
    ):
        run.prepare()
    with (
        make_run(
            tmp_path, dataset_dir, restore_path=str(undisturbed.folder), actor_hidden_dims=(8,)
        ) as run,
        pytest.raises(UserError, match="must have had the same agent, networks"),
    ):
        run.prepare()


# --- Never lose a run -----------------------------------------------------------------------------


def copied(finished, tmp_path, dataset_dir):
    """Copy the folder of a run to where the same command would have it below `tmp_path`."""
    folder = make_run(tmp_path, dataset_dir).folder
    shutil.copytree(finished.folder, folder)
    return folder


def test_a_finished_run_says_so_and_overwrite_starts_over(
    tmp_path, dataset_dir, undisturbed, capsys
):
    def run_again(**changes):
        capsys.readouterr()
        with make_run(tmp_path, dataset_dir, **changes) as run:
            assert run.execute() == 0
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
    tmp_path, dataset_dir, undisturbed
):
    copied(undisturbed, tmp_path, dataset_dir)
    with make_run(tmp_path, dataset_dir) as run:
        assert run.finished()
        (run.folder / "agent.py").write_text("# as it was before an edit")
        with pytest.raises(UserError, match="is not as it was when the run"):
            run.finished()


def test_a_second_process_is_kept_out(tmp_path, dataset_dir):
    with (
        make_run(tmp_path, dataset_dir),
        pytest.raises(UserError, match="another process is running"),
        make_run(tmp_path, dataset_dir),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_the_same_command_resumes(tmp_path, dataset_dir, number, code):
    steps = {"offline_steps": 60_000, "eval_interval": 60_000, "save_interval": 60_000}
    steps["log_interval"] = 100
    process = start(command(tmp_path, dataset_dir, **steps))
    wait_for_step(process, tmp_path / "exp" / "test", 200)
    process.send_signal(number)
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
    assert stopped.checkpoints.latest_step() == 40
    assert read_csv(stopped.folder / "train.csv")[-1]["step"] >= 50
    resumed = train(tmp_path, dataset_dir, **LONGER)
    assert_same_end(evaluated_apart.folder, resumed.folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_five_times_over(tmp_path, dataset_dir):
    saving = 0
    for seed in range(1, 6):
        undisturbed, killed, more = undisturbed_and_killed(tmp_path, dataset_dir, seed, 2, **KILLED)
        assert_same_end(undisturbed, killed)
        saving += more
    assert saving > 0


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, dataset_dir, undisturbed):
    """What a kill in the middle of a save leaves behind is ignored and cleared away."""
    with make_run(tmp_path, dataset_dir) as run:
        run.prepare()
    unfinished = run.checkpoints.folder / "17.orbax-checkpoint-tmp"  # a step not saved again
    shutil.copytree(undisturbed.checkpoints.folder / "40", unfinished)
    (unfinished / "_CHECKPOINT_METADATA").unlink()
    run = train(tmp_path, dataset_dir)
    assert not unfinished.exists()
    assert_same_end(undisturbed.folder, run.folder)


def test_another_dataset_is_refused_on_resume(tmp_path, dataset_dir):
    with make_run(tmp_path, dataset_dir) as run:
        run.prepare()
    other = tmp_path / "other"
    collect_small(other, seed=9)
    with (
        make_run(tmp_path, other) as run,
        pytest.raises(UserError, match="not the one that the run"),
    ):
        run.prepare()


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, dataset_dir):
    output = execute(command(tmp_path, dataset_dir, "--agent.lr=1e20", run_group="nan"), code=1)
    assert "NaN or infinity in" in output
    assert "Remedy: lower --agent.lr" in output
    (folder,) = (tmp_path / "exp" / "nan").iterdir()
    manager = Checkpoints(folder)
    arrays = manager._manager.restore(manager.latest_step()).arrays
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays))
    assert read_csv(folder / "train.csv") == []


def test_a_persistent_failure_signature_is_reported_once(tmp_path, dataset_dir, capsys):
    train(tmp_path, dataset_dir, target_divergence=1e-9, log_interval=5, eval_interval=40)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning:" in line]
    assert len(warnings) == 1
    assert "seed 0, step 15: divergence above twice its target" in warnings[0]
    assert "Remedy: raise --agent.target_divergence" in warnings[0]


def test_a_full_disk_stops_the_run_and_it_resumes_when_there_is_space(tmp_path, dataset_dir):
    """Once training starts, no file can grow beyond a limit: a full disk, on every machine."""
    code = (
        "import resource, runpy; from utils.runs.run import Run; train = Run.train\n"
        "def limited(run):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))\n"
        "    return train(run)\n"
        "Run.train = limited\n"
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
    assert_same_end(folder_of(tmp_path / "a"), whole.folder)


def test_a_video_is_written(tmp_path, dataset_dir):
    run = train(tmp_path, dataset_dir, video_episodes=1, video_frame_skip=100, offline_steps=10)
    (video,) = (run.folder / "videos").iterdir()
    assert video.name == "step10_seed0.mp4"
    assert video.stat().st_size > 1000
