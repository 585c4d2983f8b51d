"""Settings of a run: flags, published values, the agent's file, and mistakes in them."""

import json
import shlex
import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

from tests import toys
from tests.small_runs import (
    FLAGS,
    SMALL,
    TASK,
    check_mistakes,
    command,
    execute,
    execute_each,
    folder_of,
    make_run,
)
from utils.agent_files import load_agent_file
from utils.envs import rendering
from utils.envs.ogbench import environments, names
from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.runs.settings import combine
from utils.runs.setup import load_data


def test_command_line_beats_published_beats_default(tmp_path):
    agent_file = load_agent_file(toys.AGENTS / "deflow.py")
    flags = FLAGS | {"env_name": "antmaze-giant-navigate", "save_dir": str(tmp_path)}
    flags |= {"dataset_dir": None, "offline_steps": 123}
    agent = agent_file.config.copy_and_resolve_references()
    agent.q_agg = "mean"
    resolved = combine(flags, agent, {"agent.q_agg", "offline_steps"}, agent_file)
    assert resolved.env_name == "antmaze-giant-navigate-singletask-v0"
    assert (resolved.agent.q_agg, resolved.origins["agent.q_agg"]) == ("mean", "flag")
    assert (resolved.agent.discount, resolved.origins["agent.discount"]) == (0.995, "published")
    assert (resolved.agent.lr, resolved.origins["agent.lr"]) == (3e-4, "default")
    assert (resolved.flags["offline_steps"], resolved.origins["offline_steps"]) == (123, "flag")
    assert agent_file.config.discount == agent.discount == 0.99
    assert resolved.changed == {"agent.q_agg": "min"}
    given = combine(flags, agent, {}, agent_file)
    assert (given.agent.q_agg, given.flags["offline_steps"]) == ("min", 1_000_000)
    assert given.origins["offline_steps"] == "prescribed"
    assert json.loads(json.dumps(resolved.as_dict()))["origins"]["seed"] == "default"
    assert "no published settings" not in given.table()
    other = combine(flags | {"env_name": TASK}, agent, {}, agent_file)
    assert "deflow.py has no published settings for this task" in other.table()


def test_the_folder_names_what_the_results_depend_on(tmp_path, dataset_dir):
    base = make_run(tmp_path, dataset_dir).folder.path
    assert base == make_run(tmp_path, dataset_dir).folder.path
    assert base.name == "sd000"
    assert base.parent.name.startswith(f"{TASK}_deflow_")
    for place in ({"eval_workers": 2}, {"overwrite": True}, {"wandb_mode": "offline"}):
        assert make_run(tmp_path, dataset_dir, **place).folder.path == base
    for often in ({"offline_steps": 41}, {"eval_interval": 10}, {"log_interval": 5}):
        assert make_run(tmp_path, dataset_dir, **often).folder.path == base
    for seeds, name in (({"seed": 1}, "sd001"), ({"num_seeds": 3}, "sd000-002")):
        assert make_run(tmp_path, dataset_dir, **seeds).folder.path == base.parent / name
    changes = ({"lr": 1e-4}, {"eval_episodes": 2}, {"agent": "fql"}, {"online": True})
    for what in (*changes, {"matmul_precision": "float32"}):
        assert make_run(tmp_path, dataset_dir, **what).folder.path.parent != base.parent


def test_what_images_are_trained_with_is_prescribed_and_given_to_the_run(tmp_path):
    def resolve(path=toys.AGENTS / "fql.py", online=False, **changes):
        agent_file = toys.load(path)
        flags = FLAGS | {"env_name": "visual-scene-play", "save_dir": str(tmp_path)} | changes
        return combine(flags, agent_file.config, changes, agent_file, online)

    found = resolve()
    images = {name: found.flags[name] for name in ("p_aug", "frame_stack")}
    assert images == {"p_aug": 0.5, "frame_stack": 3}
    assert found.agent.encoder == "impala_small"
    assert found.origins["frame_stack"] == found.origins["agent.encoder"] == "prescribed"
    assert found.folder.parent != resolve(p_aug=0.0).folder.parent
    with pytest.raises(UserError, match=r"with encoder, which .*cloning\.py does not have; add"):
        resolve(toys.AGENTS.parent / "tests/toy_agents/cloning.py")
    with pytest.raises(UserError, match=r"trained on offline alone: give it to main\.py"):
        resolve(online=True)


def test_without_images_a_folder_is_named_as_if_there_were_no_flags_for_them(tmp_path):
    agent_file = toys.load(toys.AGENTS / "fql.py")
    flags = FLAGS | {"save_dir": str(tmp_path)}
    before = {name: x for name, x in flags.items() if name not in ("p_aug", "frame_stack")}
    one, other = (combine(x, agent_file.config, (), agent_file) for x in (flags, before))
    assert one.folder == other.folder


@pytest.mark.parametrize("flag", [{"p_aug": 0.5}, {"frame_stack": 2}])
def test_flags_for_images_are_refused_where_there_are_none(tmp_path, dataset_dir, flag):
    run = make_run(tmp_path, dataset_dir, eval_interval=0, **flag)
    (name,) = flag
    with pytest.raises(UserError, match=rf"--{name} is for images, .* have shape \(2,\)"):
        load_data(run.settings, run.agent_class)


def test_the_length_is_a_setting_where_the_agent_or_an_online_phase_depends_on_it(
    tmp_path, dataset_dir
):
    def folder(**changes):
        return make_run(tmp_path, dataset_dir, **changes).folder.path

    scheduled = {"agent": toys.AGENTS.parent / "tests/toy_agents/scheduled.py"}
    assert folder(**scheduled) != folder(**scheduled, offline_steps=41)
    assert folder(online=True) != folder(online=True, offline_steps=41)
    assert folder(online=True) == folder(online=True, online_steps=61)


def test_mistakes_on_the_command_line_give_one_message(tmp_path):
    mistakes = [
        (["--agent.tua=0.1"], "no setting --agent.tua; did you mean --agent.tau?"),
        (["--agent=nowhere.py"], "--agent=nowhere.py is not a file"),
        (["--env_name=cube-singel-play"], "did you mean cube-single-play"),
        (["--sed=1"], "Did you mean: seed"),
        (["--num_seeds=0"], "0 is not a positive integer"),
        (["--agent.lr=fast"], "could not convert string to float"),
        (["--p_aug=1.5"], "1.5 is not a number in the range [0.0, 1.0]"),
        (["--agent.bc_only", "Falsch"], "Non-boolean argument to boolean flag"),
        (["--seed=1", "False"], "unexpected argument 'False'"),
        (["env_name=cube-single-play"], "unexpected argument 'env_name=cube-single-play'"),
        (["--matmul_precision=fast"], "one of <default|bfloat16|tensorfloat32|float32>"),
        (["--agent.discount=1.5"], "--agent.discount=1.5 must be between 0.0 and 1.0"),
    ]
    check_mistakes("main.py", tmp_path, mistakes)


def test_of_a_setting_given_twice_the_last_one_wins(tmp_path):
    """The run is refused, for want of data, after its settings were shown."""
    (output,) = execute_each(
        [
            "main.py",
            "--env_name=antmaze-large-navigate",
            f"--dataset_dir={tmp_path}",
            f"--save_dir={tmp_path}",
            "--eval_interval=0",
            "--agent.lr=1e-2",
            "--agent.actor_hidden_dims=(7, 9)",
            "--agent.value_hidden_dims=()",
            "--agent.lr",
            "1e-3",
            "--agent.actor_hidden_dims=()",
            "--agent.value_hidden_dims=(5,)",
            "--agent.use_lagrange",
            "False",
            "--agent.bc_only",
            "--seed=3",
            "--seed=4",
            "--matmul_precision=float32",
        ],
        OGBENCH_DATASET_URL="http://127.0.0.1:9/ogbench",
    )
    (warning,) = [line for line in output.splitlines() if line.startswith("warning: nothing reads")]
    assert "cpu, matrix products in float32" in output
    for idle in ("--agent.value_hidden_dims=(5,)", "--agent.use_lagrange=False"):
        assert idle in warning
    assert "actor_hidden_dims" not in warning  # which is read
    assert "q_agg" not in warning  # which is not, and was not given
    shown = [line.split() for line in output.splitlines()]
    for row in (
        ["agent.lr", "0.001", "flag"],
        ["agent.actor_hidden_dims", "()", "flag"],
        ["agent.value_hidden_dims", "(5,)", "flag"],
        ["agent.use_lagrange", "False", "flag"],
        ["agent.bc_only", "True", "flag"],
        ["seed", "4", "flag"],
    ):
        assert row in shown


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
def test_settings_that_cannot_work_are_refused(setting, message):
    agent_file = toys.load(toys.AGENTS / "deflow.py")
    config = agent_file.config.copy_and_resolve_references()
    config.update(setting)
    with pytest.raises(UserError, match=message):
        agent_file.check(config)


def test_an_agent_file_that_does_not_import_is_named_with_its_line(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import jax\n\nimport no_such_module\n")
    with pytest.raises(UserError, match=r"broken.py, line 3: ModuleNotFoundError"):
        load_agent_file(broken)
    broken.write_text("def get_config(:\n")
    with pytest.raises(UserError, match=r"broken.py, line 1: SyntaxError"):
        load_agent_file(broken)


def test_help_lists_flags_the_settings_of_the_agent_and_the_groups_of_tasks():
    arguments = ["--help"], ["--agent=agents/fql.py", "-h"]
    deflow, fql = execute_each(*(["main.py", *given] for given in arguments), code=0)
    assert deflow.startswith("Train an agent offline")
    text = " ".join(deflow.split())  # however wide the terminal is
    for row in (
        "--agent=agents/deflow.py The agent: path of a Python file.",
        "--env_name=cube-double-play Task, in full or short (cube-double-play-task3).",
        "--offline_steps=1000000 Updates to train for.",
        "--agent.tau=0.005 rate of the target critic",
        "--agent.encoder of images: a name in utils/encoders.py, or a file",
    ):
        assert row in text
    for group in ("cube-double-play, ", "d4rl-antmaze: antmaze-umaze, ", "d4rl-adroit: pen-human"):
        assert group in deflow
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


@pytest.mark.slow
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
    assert ["offline_steps", "1000000", "prescribed"] in resolved
    (message,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "http://127.0.0.1:9/ogbench/antmaze-large-navigate-v0.npz" in message
    files = "antmaze-large-navigate-v0.npz and antmaze-large-navigate-v0-val.npz"
    assert f"Put {files} into {data} by hand" in message
    assert not (tmp_path / "exp").exists()

    rendering.choose_gl()
    environments.make_env(names.resolve("antmaze-large-navigate")).close()  # registers
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


def test_a_fork_anywhere_under_another_name_runs_and_is_executed_once(tmp_path, dataset_dir):
    fork, executions = tmp_path / "my_idea.py", tmp_path / "executions"
    text = (toys.AGENTS / "deflow.py").read_text()
    text = text.replace("class DeFlowAgent", "class MyIdea")
    fork.write_text(f"{text}\nopen({str(executions)!r}, 'a').write('x')\n")
    typed = command(tmp_path, dataset_dir, f"--agent={fork}")
    output = execute(typed)
    assert "score: success" in output
    config = json.loads((folder_of(tmp_path) / "config.json").read_text())
    python, entry_point, *recorded = shlex.split(config["command"])
    assert (python, Path(entry_point).name) == ("python", "main.py")
    assert sorted(recorded) == sorted(set(typed[2:]) - {"--debug=False", "--overwrite=False"})
    assert "my_idea" in folder_of(tmp_path).parent.name
    assert (folder_of(tmp_path) / "source/agent/my_idea.py").read_text() == fork.read_text()
    assert executions.read_text() == "x"  # in all processes together
