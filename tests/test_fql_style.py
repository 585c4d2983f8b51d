"""Agents of other repositories in FQL's style; tests/fql_style/lab is one, made for these tests."""

import os
import shutil
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.parity import fql_style
from tests.parity.fql_style import Subject, own_loop
from tests.parity.own_loop import own_update
from tests.small_runs import (
    TASK,
    assert_same_end,
    execute,
    execute_each,
    execute_run,
    latest_step,
    make_run,
    rows_of,
    stopped_while_evaluating,
)
from utils.agent_comments import setting_meanings
from utils.agent_files import load_agent_file
from utils.checkpoints import to_arrays
from utils.datasets import DeviceDataset
from utils.devices import member_mesh
from utils.errors import UserError
from utils.fql_style import is_fql_style
from utils.frames import FrameStacks, stack_frames
from utils.load_agent import load_agent
from utils.report.csv_log import read_csv
from utils.runs.settings import _known_elsewhere
from utils.sampling import SamplingRule
from utils.training import Trainer, TrainingState, compiler_options, create_agents

REPOSITORY = Path(__file__).parents[1]
LAB = REPOSITORY / "tests" / "fql_style" / "lab"
NAMES = ("flow", "gaussian")
UPDATES = 50
LAST = np.arange(61) == 60  # of the images of one episode


def lab(name):
    return LAB / "agents" / f"{name}.py"


@pytest.fixture(scope="module", params=NAMES)
def subject(request):
    return Subject(lab(request.param), toys.SHALLOW | {"batch_size": 16}, rows=300)


# --- The same numbers -----------------------------------------------------------------------------


def means(metrics):
    """Of each metric over the updates that logged it."""
    names = set().union(*metrics)
    return {n: np.mean([np.mean(row[n]) for row in metrics if n in row]) for n in names}


@pytest.mark.parametrize("seeds", [(3,), (3, 4, 5)], ids=["one seed", "three seeds"])
def test_updates_in_one_dispatch_are_its_own_updates_one_by_one(subject, seeds):
    trainer, state = subject.start(*seeds)
    expected = [own_loop(trainer, state, member, UPDATES) for member in range(len(seeds))]
    state = trainer.update(state, UPDATES)
    logged = state.mean_metrics()
    for member, (agent, metrics) in enumerate(expected):
        ours = jax.tree.map(lambda leaf, i=member: leaf[i], state.agents.network.agent)
        assert int(agent.network.step) == int(ours.network.step) == UPDATES + 1
        chex.assert_trees_all_equal(agent.rng, ours.rng)
        chex.assert_trees_all_close(agent.network.params, ours.network.params, rtol=0, atol=1e-6)
        chex.assert_trees_all_close(
            agent.network.opt_state, ours.network.opt_state, rtol=1e-4, atol=1e-6
        )
        found = {name: values[member] for name, values in logged.items()}
        chex.assert_trees_all_close(found, means(metrics), rtol=1e-5, atol=1e-6)
    assert any("target" in name for name in agent.network.params)


def test_with_equal_compiler_options_the_bits_are_the_same(subject):
    def update(agent, batch, number):
        return compiled(agent, batch, number % 2)  # two programs, not fifty

    options = {"static_argnums": 2, "compiler_options": compiler_options()}
    compiled = jax.jit(own_update, **options)
    trainer, state = subject.start(3)
    agent, _ = own_loop(trainer, state, 0, UPDATES, update)
    ours = trainer.update(state, UPDATES).agents.network.agent
    chex.assert_trees_all_equal(agent, jax.tree.map(lambda leaf: leaf[0], ours))


def test_a_training_seed_begins_as_in_its_own_repository(subject):
    theirs = subject.agent_class.theirs
    example = jax.tree.map(lambda column: column[:1], subject.example)
    extremes = {key: subject.config.get(key) for key in ("min_reward", "max_reward")}
    config = subject.config.copy_and_resolve_references()
    if "q_max" in config:
        agent = theirs.create(7, example | extremes, config)
    else:
        agent = theirs.create(7, example["observations"], example["actions"], config)
    ours = jax.tree.map(lambda leaf: leaf[1], subject.start(6, 7)[1].agents.network.agent)
    chex.assert_trees_all_equal(agent.rng, ours.rng)
    for part in ("params", "opt_state"):
        expected, found = (getattr(one.network, part) for one in (agent, ours))
        chex.assert_trees_all_close(expected, found, rtol=0, atol=1e-7)


def test_validation_losses_are_its_own(subject):
    agent = jax.tree.map(lambda leaf: leaf[0], subject.start(3)[1].agents)
    theirs, key = agent.network.agent, jax.random.key(0)
    _, info = theirs.total_loss(subject.example, None, None)
    losses = agent.evaluate_loss(subject.example, key)
    assert losses.keys() == info.keys() | {"actor/mse"}
    for name, value in info.items():
        np.testing.assert_allclose(losses[name], np.mean(value), rtol=1e-6)


def test_it_acts_on_one_observation_or_a_batch(subject):
    agent = jax.tree.map(lambda leaf: leaf[0], subject.start(3)[1].agents)
    observations, key = subject.example["observations"], jax.random.key(1)
    actions = agent.sample_actions(observations[0], key, 0.0)
    sample = agent.network.agent.sample_actions
    chex.assert_trees_all_equal(actions, sample(observations[0], jax.random.key_data(key)))
    batch = np.asarray(agent.sample_actions(observations.reshape(4, 4, -1), key))
    assert batch.shape == (4, 4, *actions.shape)
    assert len(np.unique(batch.reshape(16, -1), axis=0)) == 16


def test_on_images_it_takes_its_own_updates_on_stacks_and_crops():
    file = toys.load(lab("flow"))
    config = file.config.copy_and_resolve_references()
    config.update(toys.SHALLOW | {"batch_size": 8, "encoder": "one_convolution"})
    file.check(config)
    images = np.random.default_rng(0).integers(0, 256, (61, 8, 8, 3), np.uint8)
    transitions = toys.transitions(60) | stack_frames(FrameStacks.of_steps(images, LAST), 3)
    data, example = toys.prepared(file.agent_class, config, transitions)
    source = DeviceDataset(data, 8, rule=SamplingRule(p_aug=0.5))
    agents = create_agents(file.agent_class, np.arange(2), example, config)
    trainer, state = Trainer(source, 2), TrainingState.create(agents, np.arange(2), example)
    before = agents.network.agent.network.params["modules_flow_encoder"]
    before = jax.tree.map(lambda leaf: np.asarray(leaf[1]), before)
    agent, _ = own_loop(trainer, state, 1, 6)
    state = trainer.update(state, 6)
    ours = jax.tree.map(lambda leaf: leaf[1], state.agents)
    chex.assert_trees_all_close(
        agent.network.params, ours.network.agent.network.params, rtol=0, atol=1e-6
    )
    after = agent.network.params["modules_flow_encoder"]
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), before, after)
    assert all(jax.tree.leaves(moved))
    assert "encoder" not in agent.network.params["modules_flow"]
    assert ours.sample_actions(example["observations"][0], jax.random.key(0), 0.0).shape == (3,)


# --- Which files it takes -------------------------------------------------------------------------


def test_the_labs_agents_are_recognised_and_this_librarys_are_not():
    assert all(is_fql_style(lab(name)) for name in NAMES)
    for folder in ("agents", "tests/recipes", "tests/toy_agents", "utils"):
        assert not [path for path in (REPOSITORY / folder).glob("*.py") if is_fql_style(path)]


@pytest.fixture
def copied(tmp_path):
    """A copy of the lab's repository."""
    shutil.copytree(LAB, tmp_path / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "lab" / "agents"


def edit(path, *changes):
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_subclass_of_another_of_its_agents_is_one(copied):
    path = copied / "mine.py"
    imports = "from agents.flow import FlowAgent, get_config\n"
    path.write_text(f"{imports}\n\nclass Mine(FlowAgent):\n    pass\n")
    file = load_agent_file(path)
    file.check(file.config)
    assert file.agent_class.__name__ == "Mine"
    assert {"agents/mine.py", "agents/flow.py", "utils/late.py"} <= set(file.sources)


def test_settings_and_their_comments_are_its_own():
    file = toys.load(lab("gaussian"))
    assert (file.config.alpha, file.config.q_max) == (1.0, None)
    assert (file.config.min_reward, file.config.max_reward) == (None, None)  # looked up in a batch
    assert not {"min_reward", "max_reward"} & set(toys.load(lab("flow")).config)
    meanings = setting_meanings(file.module, file.agent_class)
    assert meanings["alpha"] == "Weight of staying near the data."


OTHERS = "\n\nclass One(FlowAgent):\n    pass\n\n\nclass Two(FlowAgent):\n    pass\n"


def check(path):
    file = load_agent_file(path)
    file.check(file.config)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("x_rng, t_rng =", "x_rng, t_rng = int(rng[0]),", "int(", "ConcretizationTypeError"),
        ("x = (1 - t)", "x = np.random.normal() + (1 - t)", "np.random", "not from NumPy's"),
        ("x = (1 - t)", "x = batch['valid'] + (1 - t)", "", "agents of chunks are not available"),
        ('"lr":', '"horizon_length": 5,\n            "lr":', "", "agents of chunks are not"),
        ('batch["actions"].shape', 'batch["acts"].shape', '"acts"', "KeyError: 'acts'"),
        ("import optax", "import nobody_has_this", "nobody", "pip install nobody_has_this"),
        ("def get_config", "def get_settings", "", "must define get_config()"),
        ("def total_loss(", "def total_loss(1, ", "def total_loss", "SyntaxError"),
        ("\n\ndef get_config", f"{OTHERS}\n\ndef get_config", "", "it defines One, Two"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(copied, old, new, line, words):
    path = edit(copied / "flow.py", (old, new), ("import flax", "import flax\nimport numpy as np"))
    with pytest.raises(UserError) as caught:
        check(path)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 300
    if line:
        numbers = [i for i, text in enumerate(path.read_text().splitlines(), 1) if line in text]
        assert f"{path}, line {numbers[-1]}: " in message


def test_a_mistake_in_what_it_imports_is_named_there(copied):
    path = edit(copied / "critic.py", ('batch["masks"]', 'batch["mask"]'))
    with pytest.raises(UserError, match=rf"^{path}, line 6: KeyError: 'mask'$"):
        check(copied / "flow.py")


# --- Runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_of_two_seeds(tmp_path_factory, dataset_dir):
    """An undisturbed run. To be read only."""
    toys.load(lab("gaussian")).check(toys.load(lab("gaussian")).config)
    run = make_run(tmp_path_factory.mktemp("lab"), dataset_dir, lab("gaussian"), num_seeds=2)
    assert execute_run(run) == 0
    return run


def test_a_run_evaluates_validates_and_keeps_its_sources(run_of_two_seeds):
    run = run_of_two_seeds
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [10, 10, 20, 20, 30, 30, 40, 40]
    assert {"critic/critic_loss", "actor/mse", "validation/actor/mse"} <= rows[0].keys()
    assert {row["seed"] for row in rows_of(run, "eval")} == {0, 1}
    kept = {str(path.relative_to(run.folder.path)) for path in run.folder.path.rglob("*.py")}
    names = ("agents/__init__", "agents/critic", "agents/gaussian", "utils/__init__")
    names = {*names, "utils/networks", "utils/states"}
    assert kept == {f"source/agent/{name}.py" for name in names}
    assert run.settings.origins["agent.min_reward"] == "data"


def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path, dataset_dir, run_of_two_seeds, monkeypatch
):
    arguments = {"agent": lab("gaussian"), "num_seeds": 2}
    stopped_while_evaluating(monkeypatch, 20, tmp_path, dataset_dir, **arguments)
    run = make_run(tmp_path, dataset_dir, **arguments)
    assert latest_step(run) < 40
    assert execute_run(run) == 0
    assert_same_end(run.folder.path, run_of_two_seeds.folder.path)


def test_the_agent_of_a_run_is_loaded_from_its_kept_sources(run_of_two_seeds):
    run = run_of_two_seeds
    agent = load_agent(run.folder.path, seed=1)
    assert str(sys.modules[agent.theirs.__module__].__file__).startswith(str(run.folder.path))
    actions = jax.jit(agent.sample_actions)(jnp.zeros(2), jax.random.key(0))
    assert actions.shape == (2,)


def test_a_change_of_what_it_imports_is_a_change_of_the_agent(
    copied, dataset_dir, run_of_two_seeds
):
    path = copied / "gaussian.py"
    edit(copied.parent / "utils" / "networks.py", ("nn.gelu", "nn.relu"))
    folder = Path(run_of_two_seeds.settings.flags["save_dir"]).parent
    run = make_run(folder, dataset_dir, path, num_seeds=2)
    with pytest.raises(UserError, match=r"^agent/utils/networks\.py: not as when the run in"):
        execute_run(run)


@pytest.mark.slow
def test_it_goes_online(tmp_path, dataset_dir):
    path = lab("gaussian")
    run = make_run(tmp_path, dataset_dir, path, online=True, offline_steps=10, num_seeds=2)
    assert execute_run(run) == 0
    assert [row["step"] for row in rows_of(run, "train")][-1] == 70


def check_two_devices():
    """Called in a program that has two devices."""
    subject = Subject(lab("gaussian"), toys.SHALLOW | {"batch_size": 16}, rows=300)
    together = Trainer(subject.source, 2).update(subject.start(0, 1)[1], 7)
    source = DeviceDataset(subject.data, 16, member_mesh(2), columns=subject.columns)
    trainer = Trainer(source, 2)
    apart = trainer.update(trainer.compile(subject.start(0, 1)[1]), 7)
    assert len(jax.tree.leaves(apart.agents)[0].sharding.device_set) == 2
    expected, found = (to_arrays(state.agents.network) for state in (together, apart))
    chex.assert_trees_all_close(expected, jax.device_get(found), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_seeds_on_two_devices_are_those_on_one():
    code = "from tests.test_fql_style import check_two_devices; check_two_devices()"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    execute([sys.executable, "-c", code], XLA_FLAGS=flags)


# --- FQL's command lines --------------------------------------------------------------------------


def test_flags_of_fqls_program_are_answered():
    for given, words in (
        (["--online_steps=1000000"], r"--online_steps=1000000 is for training online.* same line"),
        (["--offline_steps=0", "--online_steps", "9"], r"--online_steps=9 is for training online"),
        (["--p_aug=0.5", "--frame_stack=3"], r"--p_aug is for images, .* to main.py"),
        (["--frame_stack=3", "--agent.encoder=impala_small"], r"--frame_stack is for images"),
        (["--balanced_sampling", "1"], r"--balanced_sampling=1 is for training online"),
    ):
        with pytest.raises(UserError, match=words):
            _known_elsewhere(["main.py", "--seed=1", *given])
    asks_for_nothing = ["--online_steps=0", "--balanced_sampling=0", "--frame_stack=None"]
    rest = ["main.py", "--eval_interval=0", "--seed", "1"]
    assert _known_elsewhere([*rest, *asks_for_nothing]) == rest


@pytest.mark.slow
def test_fqls_command_lines_run_when_they_are_pasted(tmp_path, dataset_dir):
    """All kinds of flags that are in its README; each line with its agent's path added."""
    place = [f"--save_dir={tmp_path}", f"--dataset_dir={dataset_dir}", "--run_group=pasted"]
    place += ["--wandb_mode=disabled", "--agent.batch_size=8"]
    flow, gaussian = (f"--agent={lab(name)}" for name in NAMES)
    task = f"--env_name={TASK}-singletask-v0"
    lengths = ["--offline_steps=4", "--log_interval=2", "--eval_interval=0"]
    settings = ["--agent.discount=0.995", "--agent.flow_steps=2"]
    execute_each(
        ["main.py", task, *lengths, *settings, flow, *place],
        ["main.py", task, *lengths, "--online_steps=0", "--agent.alpha=3", gaussian, *place],
        code=0,
    )
    online = ["--online_steps=6", "--balanced_sampling=1", "--buffer_size=5000"]
    execute_each(["online_main.py", task, *lengths, *online, flow, *place], code=0)
    rows = [read_csv(path)[-1] for path in tmp_path.glob("pasted/*/*/train.csv")]
    assert sorted(row["step"] for row in rows) == [4, 4, 10]


@pytest.mark.slow
def test_a_table_compares_both_loops_and_an_agent_of_the_same_sizes(capsys):
    flags = ["--updates=4", "--seconds=0.1", f"--ours={lab('gaussian')}", "--hidden_dims", "8"]
    assert fql_style.main([str(LAB), *flags]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0] for row in rows] == [f"| lab/agents/{name}.py" for name in NAMES]
    for row in rows:
        name, runs, apart, *rates = row.strip("| ").split(" | ")
        assert runs == "yes"
        assert float(apart) < 1e-6
        beside = rates[3:] if "gaussian" in name else []
        assert rates[3:] == (beside or ["-", "-"])
        assert all(float(rate.split()[0]) > 0 for rate in [*rates[:3], *beside])
