"""Each recipe of this folder does what it says, as a user would run it: from a folder elsewhere."""

import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from utils.agent_files import load_agent_file
from utils.checkpoints import Checkpoints
from utils.datasets import DeviceDataset, HostDataset
from utils.report.csv_log import read_csv
from utils.report.curves import plot_curves
from utils.sampling import load_rule
from utils.sweep.states import newest_checkpoint

RECIPES = Path(__file__).parent
REPOSITORY = RECIPES.parents[1]
SMALL = {
    "wandb_mode": "disabled",
    "offline_steps": 30,
    "log_interval": 10,
    "eval_interval": 0,
    "save_interval": 30,
    "eval_episodes": 5,
    "eval_workers": 1,
    "agent.actor_hidden_dims": "(16,)",
    "agent.value_hidden_dims": "(16,)",
    "agent.batch_size": 8,
    "agent.flow_steps": 1,
}
EVALUATED = {"eval_interval": 15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the repository with a copy of the recipes, and all runs below exp/."""
    folder = tmp_path_factory.mktemp("recipes")
    for path in RECIPES.glob("*.py"):
        if not path.name.startswith("test_"):
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def plain(folder):
    """The run of DeFlow as it is on the one-file task."""
    return train(folder, "plain", **EVALUATED)[0]


def start(folder, group, main=REPOSITORY / "main.py", **flags):
    """Start an entry point in the folder."""
    flags = SMALL | {"env_name": "./my_task.py", "run_group": group} | flags
    return subprocess.Popen(
        [sys.executable, str(main), *(f"--{name}={value}" for name, value in flags.items())],
        cwd=folder,
        # What `pip install -e .` does for a file outside the repository.
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_folder(folder, group):
    (path,) = (folder / "exp" / group).glob("*/*")
    return path


def train(folder, group, code=0, **flags):
    """Run to the end; returns the run's folder and the output."""
    process = start(folder, group, **flags)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback" not in output, output
    return None if code else run_folder(folder, group), output


def column(run, name):
    return [row[name] for row in read_csv(run / "train.csv")]


def checkpoint(run):
    """The last checkpoint's step and arrays."""
    checkpoints = Checkpoints(run, read_only=True)
    step = checkpoints.latest_step()
    arrays, _ = checkpoints._read(step)
    checkpoints.close()
    return step, arrays


# 1. The loss -------------------------------------------------------------------------------------


def test_a_changed_loss_in_a_copy_or_in_a_subclass(folder, plain):
    """A copy of the agent's file with one other line trains as the subclass does."""
    source = (REPOSITORY / "agents" / "deflow.py").read_text()
    line = "divergence = jnp.mean(residual**2)"
    assert source.count(line) == 1
    (folder / "my_agent.py").write_text(
        source.replace(line, "divergence = jnp.mean(jnp.abs(residual))")
    )
    copy, _ = train(folder, "copy", agent="./my_agent.py")
    subclass, _ = train(folder, "subclass", agent="./l1_divergence.py")
    assert (copy / "train.csv").read_bytes() == (subclass / "train.csv").read_bytes()
    assert column(copy, "flow/flow_loss") == pytest.approx(column(plain, "flow/flow_loss"))
    # The residual is small at first, and |x| far above x**2.
    assert column(copy, "actor/divergence")[0] > 2 * column(plain, "actor/divergence")[0]
    kept = {path.relative_to(subclass / "source") for path in subclass.rglob("source/**/*.py")}
    names = ("agent/l1_divergence.py", "agent/agents/deflow.py", "env_name/my_task.py")
    assert set(map(Path, names)) <= kept


# 2. A network ------------------------------------------------------------------------------------


def test_a_value_network_has_its_own_rate_and_target(folder):
    flags = {"agent": "./value_network.py", "agent.lr": 1e-4, "agent.value_lr": 1e-2}
    run, output = train(folder, "value", **flags)
    assert "no gradient has reached" not in output
    assert column(run, "value/value_loss")[-1] > 0
    network = checkpoint(run)[1]["agents"]["network"]
    assert set(network["target_params"]) == {"value"}

    agent_file = load_agent_file(RECIPES / "value_network.py")
    config = agent_file.config
    config.update({"actor_hidden_dims": (16,), "value_hidden_dims": (16,)})
    config.update({"lr": 1e-4, "value_lr": 1e-2, "value_tau": 0.25, "tau": 0.5})
    generator = np.random.default_rng(0)
    sizes = {"observations": (8, 2), "actions": (8, 1), "next_observations": (8, 2)}
    batch = {name: generator.uniform(-1, 1, size) for name, size in sizes.items()}
    batch |= {"rewards": generator.normal(size=8), "masks": np.ones(8)}
    batch = {name: np.float32(array) for name, array in batch.items()}
    agents = [
        agent_file.agent_class.create(
            jax.random.key(0), batch["observations"], batch["actions"], config
        )
    ]
    for i in range(2):
        agents.append(agents[-1].update(batch, jax.random.key(i))[0])
    params = [jax.device_get(agent.network.params) for agent in agents]
    for name, rate in (("value", 1e-2), ("critic", 1e-4)):  # Adam's first step is of that size
        moves = jax.tree.map(
            lambda old, new: abs(new - old).max(), params[0][name], params[1][name]
        )
        assert max(jax.tree.leaves(moves)) == pytest.approx(rate, rel=0.01)
    expected = jax.tree.map(
        lambda first, second: 0.75 * first + 0.25 * second, params[0]["value"], params[1]["value"]
    )
    chex.assert_trees_all_close(agents[2].network.target_params["value"], expected, rtol=1e-5)


# 3. A metric -------------------------------------------------------------------------------------


def test_a_metric_with_its_panel_and_its_warning(folder, tmp_path):
    run, output = train(folder, "metric", agent="./my_metric.py")
    assert min(column(run, "critic/disagreement")) > 0.1
    (warning,) = [line for line in output.splitlines() if "critics disagree" in line]
    assert "warning: seed 0, step 30: critics disagree by more than a tenth of |Q|" in warning
    assert "Remedy: raise --agent.num_critics" in warning

    config = json.loads((run / "config.json").read_text())
    assert config["panels"][-1]["key"] == "critic/disagreement"
    without = tmp_path / "without"
    without.mkdir()
    shutil.copy(run / "train.csv", without)
    for panels, same in ((config["panels"], True), (config["panels"][:-1], False)):
        (without / "config.json").write_text(json.dumps(config | {"panels": panels}))
        plot_curves(without, without / "curves.png", labels=[run.name])
        picture = (without / "curves.png").read_bytes()
        assert (picture == (run / "curves.png").read_bytes()) is same


# 4. An encoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["deflow", pytest.param("fql", marks=pytest.mark.slow)])
def test_an_encoder_by_a_flag(folder, agent):
    flags = {"env_name": "./my_images.py", "agent": REPOSITORY / "agents" / f"{agent}.py"}
    flags |= EVALUATED | {"frame_stack": 3, "p_aug": 0.5} if agent == "deflow" else {}
    run, output = train(folder, f"images-{agent}", **flags, **{"agent.encoder": "./my_encoder.py"})
    assert "no gradient has reached" not in output
    network = checkpoint(run)[1]["agents"]["network"]
    for name in set(network["params"]) - {"log_alpha"}:
        kernel = network["params"][name]["encoder"]["Conv_0"]["kernel"]
        assert kernel.shape == (1, 3, 3, flags.get("frame_stack", 1), 4)  # of one seed
        moments = network["opt_state"][name]["0"]["mu"]["encoder"]["Conv_0"]["kernel"]
        assert np.abs(moments).max() > 0
    if agent == "deflow":
        assert [row["step"] for row in read_csv(run / "eval.csv")] == [15, 30]


def test_images_without_an_encoder_give_one_line(folder):
    _, output = train(folder, "none", code=1, env_name="./my_images.py")
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "observations are images (8, 8, 1)" in error
    assert "--agent.encoder" in error


# 5. A sampling rule ------------------------------------------------------------------------------


def test_an_n_step_rule(folder, plain):
    """The same rows are sampled; what the agent learns of actions alone stays as it was."""
    run, _ = train(folder, "n-step", sampling="./n_step.py")
    assert column(run, "flow/flow_loss") == pytest.approx(column(plain, "flow/flow_loss"))
    assert column(run, "critic/critic_loss") != pytest.approx(column(plain, "critic/critic_loss"))
    assert (run / "source/sampling/n_step.py").exists()


@pytest.mark.parametrize("dataset", [DeviceDataset, HostDataset])
def test_an_n_step_rule_by_hand(dataset):
    """Rows 0 to 3 end in a terminal state; rows 4 and 5 are an episode that was cut off."""
    row = np.arange(6, dtype=np.float32)
    transitions = {
        "observations": row[:, None],
        "actions": np.zeros((6, 1), np.float32),
        "next_observations": row[:, None] + 1,
        "rewards": np.float32([1, 2, 4, 8, 16, 32]),
        "masks": np.float32([1, 1, 1, 0, 1, 1]),
        "terminals": np.float32([0, 0, 0, 1, 0, 1]),
    }
    rewards = [
        1 + 0.99 * 2 + 0.99**2 * 4,
        2 + 0.99 * 4 + 0.99**2 * 8,
        4 + 0.99 * 8,
        8,
        16 + 0.99 * 32,
        32,
    ]
    masks = [0.99**2, 0, 0, 0, 0.99, 1]
    following = [3, 4, 4, 4, 6, 6]
    source = dataset(transitions, 8, rule=load_rule(RECIPES / "n_step.py"))
    batch = jax.device_get(source.sample(jax.random.key(0), 100))
    rows = batch["observations"][:, 0].astype(int)
    assert set(rows) == set(range(6))
    np.testing.assert_allclose(batch["rewards"], np.array(rewards)[rows], rtol=1e-6)
    np.testing.assert_allclose(batch["masks"], np.array(masks)[rows], rtol=1e-6)
    np.testing.assert_array_equal(batch["next_observations"][:, 0], np.array(following)[rows])
    assert set(batch) == set(transitions) - {"terminals"}


# 6. A task ---------------------------------------------------------------------------------------


def test_a_task_in_one_file(plain):
    rows = read_csv(plain / "eval.csv")
    assert [row["step"] for row in rows] == [15, 30]
    assert all(1 <= row["length"] <= 10 and row["return"] == -row["length"] for row in rows)
    assert json.loads((plain / "score.json").read_text())["metric"] == "success"
    kept = plain / "source/env_name/my_task.py"
    assert kept.read_bytes() == (RECIPES / "my_task.py").read_bytes()


def test_arrays_alone(folder):
    run, _ = train(folder, "arrays", env_name="./my_arrays.py", **{"agent.bc_only": True})
    assert len(read_csv(run / "train.csv")) == 3
    assert not read_csv(run / "eval.csv")
    assert (run / "curves.png").exists()
    _, output = train(folder, "refused", code=1, env_name="./my_arrays.py", **EVALUATED)
    assert "has no make_env(), so nothing can act in it; give --eval_interval=0" in output


# 7. A policy for evaluation ----------------------------------------------------------------------


def test_a_policy_for_evaluation(folder, plain):
    """Another policy gives other evaluations, and the same training to the bit."""
    run, _ = train(folder, "policy", eval_policy="./my_policy.py", **EVALUATED)
    assert (run / "train.csv").read_bytes() == (plain / "train.csv").read_bytes()
    assert (run / "eval.csv").read_bytes() != (plain / "eval.csv").read_bytes()
    assert (run / "source/eval_policy/my_policy.py").exists()


# 8. The schedule ---------------------------------------------------------------------------------

WARM_UP = 100
EVAL_INTERVAL = 80
SLOW_TASK = '''
"""The one-file task, whose environment takes its time, and waits as long as there is a file."""

import time
from pathlib import Path

import my_task
from my_task import load_datasets


class SlowLine(my_task.Line):
    def step(self, action):
        time.sleep(0.05)
        while Path("hold").exists():
            time.sleep(0.05)
        return super().step(action)


make_env = SlowLine
'''


def start_warm_up(folder, group, main="warm_up.py"):
    return start(
        folder,
        group,
        main=main,
        env_name="./slow_task.py",
        warm_up_steps=WARM_UP,
        offline_steps=2 * WARM_UP,
        log_interval=1,  # makes training slow enough to be killed where it should be
        eval_interval=EVAL_INTERVAL,
        save_interval=20,
        eval_episodes=2,
    )


@pytest.fixture(scope="module")
def warm_up(folder):
    """The run with the changed schedule, undisturbed."""
    (folder / "slow_task.py").write_text(SLOW_TASK)
    output, _ = start_warm_up(folder, "undisturbed").communicate(timeout=300)
    assert "score:" in output, output
    return run_folder(folder, "undisturbed")


def kill(process, runs, number, step, evaluated=None, saved=0):
    """Send a signal once a run has logged `step`, while the agent of `evaluated` is evaluated.

    Where there is to be a checkpoint of `saved` or later, it is waited for: an evaluation that is
    still running holds it up.

    Returns:
        The output.
    """

    def last(name):
        rows = [row["step"] for path in runs.glob(f"*/*/{name}") for row in read_csv(path)]
        return max(rows, default=0)

    hold = runs.parents[1] / "hold"  # for the evaluation not to end before that

    def waiting():
        newest = max(map(newest_checkpoint, runs.glob("*/*")), default=0)
        return last("train.csv") < step or newest < saved

    while process.poll() is None and waiting():
        if evaluated is not None and last("eval.csv") == evaluated - EVAL_INTERVAL:
            hold.touch()
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    hold.unlink(missing_ok=True)
    assert process.returncode == (75 if number == signal.SIGTERM else -number), output
    assert "Traceback" not in output, output
    assert evaluated is None or last("eval.csv") < evaluated
    return output


def assert_same_end(first, second):
    """Check that two runs ended with the same bits and rows."""
    for name in ("train.csv", "eval.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    (step, arrays), (other_step, other) = checkpoint(first), checkpoint(second)
    assert step == other_step
    chex.assert_trees_all_equal(arrays, other)


def end_as(folder, group, resumed_at, undisturbed):
    output, _ = start_warm_up(folder, group).communicate(timeout=300)
    assert f"resumed at step {resumed_at}" in output, output
    assert "score:" in output, output
    assert_same_end(undisturbed, run_folder(folder, group))


def test_the_schedule_is_a_copy_of_main_with_few_lines_changed():
    lines = [
        path.read_text().split('"""', 2)[2].splitlines()
        for path in (REPOSITORY / "main.py", RECIPES / "warm_up.py")
    ]
    changes = list(difflib.ndiff(*lines))
    assert [line for line in changes if line.startswith("- ")] == ["-     for stop in run.stops():"]
    assert sum(line.startswith("+ ") for line in changes) == 5  # a flag and the loop's four


def test_a_changed_schedule_logs_and_evaluates(warm_up):
    """The frozen network begins to learn after the changed step, and counts from there."""
    assert column(warm_up, "step") == list(range(1, 2 * WARM_UP + 1))
    assert [row["step"] for row in read_csv(warm_up / "eval.csv")] == [80, 160, 200]
    assert json.loads((warm_up / "config.json").read_text())["flags"]["warm_up_steps"] == WARM_UP
    kept = warm_up / "source/entry_point/main.py"
    assert kept.read_bytes() == (RECIPES / "warm_up.py").read_bytes()
    optimisers = checkpoint(warm_up)[1]["agents"]["network"]["opt_state"]
    assert optimisers["refinement"]["0"]["count"] == WARM_UP
    assert optimisers["critic"]["0"]["count"] == 2 * WARM_UP


def test_another_schedule_does_not_go_on_with_the_run(folder, warm_up):
    """A copy with the same flags has the same folder, which is refused to it."""
    source = (folder / "warm_up.py").read_text()
    (folder / "cool_down.py").write_text(source.replace("stop.start < warm_up", "False"))
    output, _ = start_warm_up(folder, "undisturbed", main="cool_down.py").communicate(timeout=300)
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "entry_point/main.py: not as when the run in" in error


@pytest.mark.slow
def test_a_changed_schedule_is_killed_before_the_change_and_ends_the_same(folder, warm_up):
    process = start_warm_up(folder, "before")
    output = kill(process, folder / "exp" / "before", signal.SIGTERM, WARM_UP // 4)
    step, arrays = checkpoint(run_folder(folder, "before"))
    assert f"SIGTERM: saved step {step}" in output
    assert 0 < step < WARM_UP

    network = arrays["agents"]["network"]  # the refinement as it was made, others trained
    optimiser = network["opt_state"]["refinement"]["0"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(optimiser))
    assert network["opt_state"]["critic"]["0"]["count"] == step
    trained = checkpoint(warm_up)[1]["agents"]["network"]["params"]["refinement"]
    moved = jax.tree.map(lambda a, b: np.any(a != b), network["params"]["refinement"], trained)
    assert all(jax.tree.leaves(moved))
    end_as(folder, "before", step, warm_up)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        pytest.param(
            where,
            number,
            marks=() if (where, number) == ("evaluating", signal.SIGTERM) else pytest.mark.slow,
            id=f"{where}-{number.name}",
        )
        for where in ("before", "after", "evaluating", "evaluating-after")
        for number in (signal.SIGTERM, signal.SIGKILL)
    ],
)
def test_a_changed_schedule_is_killed_anywhere_and_ends_the_same(folder, warm_up, number, where):
    at = {"before": 30, "after": WARM_UP + 5, "evaluating": 85, "evaluating-after": 165}[where]
    evaluated = {"evaluating": 80, "evaluating-after": 160}.get(where)
    group = f"{where}-{number.name}"
    saved = WARM_UP if where == "after" else 0
    process = start_warm_up(folder, group)
    output = kill(process, folder / "exp" / group, number, at, evaluated, saved)
    step, _ = checkpoint(run_folder(folder, group))
    assert (step < WARM_UP) == (where in ("before", "evaluating"))
    if evaluated is not None:
        assert step <= evaluated
        if number == signal.SIGTERM:
            assert f"saved step {evaluated}, where the evaluation that it ended began" in output
    end_as(folder, group, step, warm_up)
