"""Agents by the path of a file: mistakes in one line, neighbours, published settings."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from tests import contract
from utils import policies
from utils.agent_files import load_agent_file, parse_table
from utils.errors import UserError

REPOSITORY = Path(__file__).parents[1]
GOOD = (REPOSITORY / "tests/toy_agents/cloning.py").read_text()
LOSS = 'return loss, {"actor/actor_loss": loss}'
METHODS = "    def sample_noise("
START_ONLINE = "    def start_online(self):\n        return self.config.weight and self\n\n"
CREATE = (
    "    @classmethod\n    def create(cls, rng, observations, actions, config):\n"
    "        config.lr = config.weight\n"
    "        return super().create(rng, observations, actions, config)\n\n"
)
AGENT = "from utils.agent import Agent\n"
IMPORTS = (AGENT, f"from utils import metrics\n{AGENT}")


def write(folder, *changes, name="fork.py", text=GOOD):
    """Write a fork of an agent, in which every pair of texts is an edit."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def check(path, online=False, **settings):
    file = load_agent_file(path)
    config = ml_collections.ConfigDict(file.config)
    config.update(settings)
    return file.check(config, online=online)


def message_of(path):
    """What loading and checking a file says: one line that names the file once."""
    with pytest.raises(UserError) as caught:
        check(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(str(path)) == 1
    return message


def panel(metric):
    """The edit that draws a metric."""
    panels = f'(metrics.Panel("Loss", "{metric}"),)'
    return "IMPROVES = False", f"PANELS = {panels}\n    IMPROVES = False"


def signature(metric):
    """The edit that warns of a metric."""
    signatures = f'(metrics.Signature("Lost", "find it", above={{"{metric}": 1.0}}),)'
    return "IMPROVES = False", f"SIGNATURES = {signatures}\n    IMPROVES = False"


def line_of(path, text):
    """How messages name the line that has a text."""
    lines = path.read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return f"{path}, line {number}: "


def test_the_unchanged_file_is_right(tmp_path):
    check(write(tmp_path))


@pytest.mark.parametrize(
    ("edits", "online", "unread"),
    [
        ([], False, ["weight"]),
        ([(LOSS, f"loss = self.config.weight * loss\n        {LOSS}")], False, []),
        ([("0.1 * temperature", "self.config['weight'] * temperature")], False, []),
        ([(METHODS, f"{START_ONLINE}{METHODS}")], False, ["weight"]),
        ([(METHODS, f"{START_ONLINE}{METHODS}")], True, []),
        ([(METHODS, f"{CREATE}{METHODS}")], False, []),
    ],
    ids=["nowhere", "update", "acting", "online-but-offline", "online", "create"],
)
def test_what_nothing_reads_is_named(tmp_path, edits, online, unread):
    path = write(tmp_path, ('"lr": 1e-3', '"weight": 1.0, "lr": 1e-3'), *edits)
    assert check(path, online) == unread


def test_an_ablation_reads_less(tmp_path):
    path = REPOSITORY / "agents/deflow.py"
    idle = {"alpha", "encoder", "fix_bc_flow_online"}
    assert set(check(path)) == idle
    critic = {"discount", "layer_norm", "num_critics", "q_agg", "value_hidden_dims"}
    refinement = {"use_lagrange", "log_alpha_init", "target_divergence", "normalize_q_loss"}
    assert set(check(path, bc_only=True)) == idle | critic | refinement


PAIRS = "loss = loss + jnp.mean((actions.sum(-1, keepdims=True) - batch['rewards']) ** 2)"
TWICE = (
    "both = jnp.concatenate([actions, actions]).sum(-1, keepdims=True)\n"
    "        rewards = jnp.concatenate([batch['rewards'], batch['rewards']])\n"
    "        loss = loss + jnp.mean((both - rewards) ** 2)"
)


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        ((LOSS, f"{PAIRS}\n        {LOSS}"), "keepdims", "shapes (b, 1) and (b,) broadcast"),
        (
            (LOSS, f"{TWICE}\n        {LOSS}"),
            "(both - rewards)",
            "shapes (2 b, 1) and (2 b,) broadcast to (2 b, 2 b)",
        ),
        (('select("actor", params)', 'select("aktor", params)'), "aktor", "no network aktor"),
        (
            ('self.network.select("actor", params)', 'self.network.select_target("actor")'),
            "select_target",
            "no target network actor",
        ),
        (('- batch["actions"])', '- batch["next_actions"])'), "next_actions", "next_actions"),
        (('config["hidden_dims"],', 'config["hidden_dim"],'), '"hidden_dim"', "hidden_dim"),
        ((LOSS, f"loss = loss * self.config.weight\n        {LOSS}"), "weight", "weight"),
        (("IMPROVES = False", "IMPROVES = = False"), "= =", "SyntaxError"),
        (("import jax\n", "import jaxx\n"), "jaxx", "No module named 'jaxx'"),
        (("loss = jnp.mean(", "loss = jnp.meen("), "meen", "meen"),
    ],
    ids=[
        "pairs",
        "pairs-of-two-batches",
        "network",
        "target",
        "column",
        "setting-in-networks",
        "setting-in-loss",
        "syntax",
        "import",
        "attribute",
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, edit, line, words):
    path = write(tmp_path, edit)
    message = message_of(path)
    assert message.startswith(line_of(path, line))
    assert words in message


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([(LOSS, 'return loss, {"a/b": batch["rewards"]}')], "metric a/b has shape (997,)"),
        ([("def get_config()", "def settings()")], "must define get_config()"),
        ([("def get_config():", "def get_config():\n    return")], "returns NoneType"),
        ([("def get_config():", "def get_config():\n    return {'lr': 1.0}")], "returns dict"),
        ([("def get_config():", "def get_config():\n    exit('lost')")], "SystemExit: lost"),
        ([("def get_config():", "def get_config():\n    assert False")], "AssertionError"),
        ([("class Cloning(Agent)", "class Cloning")], "it defines 0"),
        (
            [("def get_config()", "class Other(Agent):\n    pass\n\n\ndef get_config()")],
            "defines 2",
        ),
        (
            [
                (
                    METHODS,
                    "    def _update(self, batch, rng):\n"
                    "        agent, metrics = super()._update(batch, rng)\n"
                    '        return agent.freeze("actor"), metrics\n\n' + METHODS,
                )
            ],
            "update changes the agent's structure",
        ),
        (
            [
                (
                    "return jnp.clip(actions + 0.1 * temperature * noise, -1, 1)",
                    "return actions[..., 0]",
                )
            ],
            "sample_actions returns () for observations (31,) at temperature 0, instead of (7,)",
        ),
        (
            [("noise = jax.random.normal(rng, actions.shape)", "noise = jnp.zeros((5, 1, 7))")],
            "sample_actions",
        ),
        (
            [
                (
                    METHODS,
                    "    @classmethod\n    def settings_from_data(cls, data, config):\n"
                    '        return {"weigth": 1.0}\n\n' + METHODS,
                )
            ],
            "weigth",
        ),
        (
            [
                (
                    "actions + 0.1 * temperature * noise, -1, 1)",
                    "actions, -1, 1)[..., : 7 if temperature == 0 else 3]",
                )
            ],
            "returns (3,) for observations (31,) at temperature 1, instead of (7,)",
        ),
        ([(", temperature=1.0):", "):"), ("temperature * ", "")], "positional arguments"),
        ([("def total_loss(", "def loss_of(")], "Cloning does not define total_loss(batch"),
        ([("def sample_noise(", "def noise_of(")], "Cloning does not define sample_noise(rng"),
        ([('"batch_size": 32, ', "")], "get_config() lacks the setting batch_size"),
        (
            [IMPORTS, panel("actor/actor_lost")],
            "the panel 'Loss' is of the metric actor/actor_lost, which is not logged; there are "
            "actor/actor_loss, validation/actor/actor_loss, validation/actor/mse",
        ),
        (
            [IMPORTS, signature("actor/actor_lost")],
            "the failure signature 'Lost' is of the metric actor/actor_lost, which is not logged",
        ),
    ],
    ids=[
        "metric",
        "no-config",
        "config-none",
        "config-dict",
        "config-exits",
        "config-raises",
        "no-class",
        "two-classes",
        "structure",
        "actions",
        "actions-broadcast",
        "derived-setting",
        "actions-that-explore",
        "no-temperature",
        "no-loss",
        "no-noise",
        "no-batch-size",
        "panel",
        "signature",
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, edits, words):
    assert words in message_of(write(tmp_path, *edits))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -1.0}, "lr=-1.0 is a negative learning rate"),
        ({"lr": float("nan")}, "lr=nan is not finite"),
        ({"lr": float("inf")}, "lr=inf is not finite"),
        ({"hidden_dims": (-8, 8)}, "hidden_dims=(-8, 8) is no tuple of widths"),
        ({"hidden_dims": (8.5,)}, "hidden_dims=(8.5,) is no tuple of widths"),
        ({"hidden_dims": (0,)}, "hidden_dims=(0,) is no tuple of widths"),
        ({"hidden_dims": ("8",)}, "hidden_dims=('8',) is no tuple of widths"),
    ],
)
def test_numbers_with_which_nothing_learns_are_named(tmp_path, settings, words):
    with pytest.raises(UserError) as error:
        check(write(tmp_path), **settings)
    assert str(error.value).startswith(f"--agent.{words}")


def test_an_infinite_default_is_allowed(tmp_path):
    text = GOOD.replace('"lr"', '"clip": float("inf"), "lr"', 1)
    check(write(tmp_path, text=text))


def test_pairs_that_are_meant_are_allowed(tmp_path):
    edits = [(LOSS, f"{PAIRS}\n        {LOSS}"), ("IMPROVES = False", "PAIRWISE = True")]
    check(write(tmp_path, *edits))


@pytest.mark.parametrize("metric", ["actor/actor_loss", "validation/actor/mse"])
def test_what_is_logged_can_be_drawn_and_warned_of(tmp_path, metric):
    check(write(tmp_path, IMPORTS, panel(metric)))
    check(write(tmp_path, IMPORTS, signature(metric), name="other.py"))


def test_a_panel_of_what_an_ablation_lacks_is_right(tmp_path):
    """But not one of a metric that the defaults lack as well."""
    more = 'more = {"actor/more": loss} if self.config.more else {}'
    edits = [
        IMPORTS,
        (LOSS, f"{more}\n        {LOSS} | more"),
        ('"lr": 1e-3', '"more": True, "lr": 1e-3'),
    ]
    path = write(tmp_path, *edits, panel("actor/more"))
    check(path)
    check(path, more=False)
    path = write(tmp_path, *edits, panel("actor/most"), name="other.py")
    for more in (True, False):
        with pytest.raises(UserError, match="metric actor/most, which is not logged"):
            check(path, more=more)


OWN_UPDATE = (
    "    def _update(self, batch, rng):\n"
    "        network, metrics = self.network.apply_loss_fn(\n"
    "            lambda params: self.loss_of(batch, params, ()), self.optimizers()\n"
    "        )\n"
    "        return self.replace(network=network), metrics\n\n"
)


def test_an_update_of_its_own_needs_no_total_loss(tmp_path):
    """Validation then has the distance from the data's actions alone."""
    path = write(
        tmp_path,
        (METHODS, OWN_UPDATE + METHODS),
        ("def total_loss(", "def loss_of("),
        ("def sample_noise(", "def noise_of("),
    )
    check(path)
    subject = contract.subject(path)
    metrics = subject.agent.evaluate_loss(subject.example, jax.random.key(0))
    assert set(metrics) == {"actor/mse"}
    assert metrics["actor/mse"] > 0


CONVOLUTION = """class Convolution(nn.Module):
    @nn.compact
    def __call__(self, *, images):
        x = nn.Conv(4, (3, 3), strides=(8, 8))(images / 255.0)
        return nn.Dense(7)(x.reshape(*images.shape[:-3], 8 * 8 * 4))


"""
OWN_CONVOLUTION = [
    ("import jax\n", "import flax.linen as nn\nimport jax\n"),
    ("class Cloning(Agent)", f"{CONVOLUTION}class Cloning(Agent)"),
    (
        'MLP(config["hidden_dims"], actions.shape[-1]), (observations,))',
        'Convolution(), (), {"images": observations})',
    ),
    ('params)(batch["observations"])', 'params)(images=batch["observations"])'),
    ('select("actor")(observations)', 'select("actor")(images=observations)'),
]


def test_a_convolution_of_its_own_needs_no_setting(tmp_path):
    check(write(tmp_path, *OWN_CONVOLUTION))


def test_a_mistake_beside_a_convolution_of_its_own_is_named(tmp_path):
    path = write(tmp_path, *OWN_CONVOLUTION, ("jnp.mean(", "jnp.meen("))
    assert message_of(path).startswith(line_of(path, "meen"))


def test_a_mistake_is_told_before_data_are_looked_for(tmp_path):
    path = write(tmp_path, ('select("actor", params)', 'select("aktor", params)'))
    flags = [f"--agent={path}", "--env_name=pointmaze-medium-navigate", "--eval_interval=0"]
    folders = [f"--save_dir={tmp_path / 'exp'}", f"--dataset_dir={tmp_path / 'none'}"]
    done = subprocess.run(
        [sys.executable, "main.py", *flags, *folders],
        cwd=REPOSITORY,
        env=os.environ | {"MUJOCO_GL": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: {line_of(path, 'aktor')}there is no network aktor; there are actor"
    assert not (tmp_path / "exp").exists()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "agents").glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_images_raise_no_false_alarm(path):
    file = load_agent_file(path)
    if "encoder" not in file.config:
        pytest.skip("it learns from vectors alone")
    config = contract.small(file.config, encoder="impala_debug")
    assert config.encoder == "impala_debug"
    file.check(config)
    with pytest.raises(UserError, match="no_such is not one of impala"):
        file.check(contract.small(file.config, encoder="no_such"))


# --- Files beside it ------------------------------------------------------------------------------


BESIDE = [
    ("import jax\n", "import jax\nfrom helpers.losses import WEIGHT\n"),
    (LOSS, f"loss = WEIGHT * loss\n        {LOSS}"),
]


@pytest.mark.parametrize("package", [True, False])
def test_equally_named_neighbours_of_two_agents_do_not_mix(tmp_path, package):
    loaded = []
    for name, weight in (("first", 2.0), ("second", 3.0)):
        path = write(tmp_path / name, *BESIDE)
        write(tmp_path / name, name="helpers/losses.py", text=f"WEIGHT = {weight}\n")
        if package:
            write(tmp_path / name, name="helpers/__init__.py", text="")
        loaded.append(load_agent_file(path))
        assert str(tmp_path / name) not in sys.path
    for file, weight in zip(loaded, (2.0, 3.0), strict=True):
        file.check(file.config)
        assert weight == sys.modules[file.agent_class.__module__].WEIGHT
        assert file.sources["helpers/losses.py"] == f"WEIGHT = {weight}\n".encode()
        assert file.sources["fork.py"] == file.path.read_bytes()
        init = {"helpers/__init__.py"} if package else set()
        assert set(file.sources) == {"fork.py", "helpers/losses.py"} | init


def test_the_kept_sources_are_an_agent_again(tmp_path):
    path = write(tmp_path, *BESIDE)
    write(tmp_path, name="helpers/losses.py", text="WEIGHT = 2.0\n")
    for name, source in load_agent_file(path).sources.items():
        kept = tmp_path / "kept" / name
        kept.parent.mkdir(exist_ok=True, parents=True)
        kept.write_bytes(source)
    check(tmp_path / "kept/fork.py")


def test_what_a_function_imports_is_kept_once_it_has_been_called(tmp_path):
    lazy = (LOSS, f"from later import WEIGHT\n        loss = WEIGHT * loss\n        {LOSS}")
    path = write(tmp_path, lazy)
    write(tmp_path, name="later.py", text="WEIGHT = 2.0\n")
    file = load_agent_file(path)
    assert set(file.sources) == {"fork.py"}
    file.check(file.config)
    assert set(file.sources) == {"fork.py", "later.py"}


def test_packages_on_the_search_path_are_neither_kept_nor_imported_again(tmp_path, monkeypatch):
    """As those of a cluster's module system, or of another environment, on PYTHONPATH."""
    packages = tmp_path / "packages"
    (packages / "some_library-1.0.dist-info").mkdir(parents=True)
    write(packages, name="some_library.py", text="VALUE = object()\n")
    monkeypatch.syspath_prepend(str(packages))
    before = importlib.import_module("some_library")
    path = write(
        tmp_path / "mine", ("import jax\n", "import jax\nfrom some_library import VALUE\n")
    )
    file = load_agent_file(path)
    assert sys.modules["some_library"] is before
    assert file.module.VALUE is before.VALUE
    assert set(file.sources) == {"fork.py"}


def test_a_mistake_in_a_file_beside_it_is_named_there(tmp_path):
    path = write(tmp_path, *BESIDE)
    beside = write(tmp_path, name="helpers/losses.py", text="\nWEIGHT = 1 / 0\n")
    with pytest.raises(UserError) as caught:
        load_agent_file(path)
    assert str(caught.value) == f"{beside}, line 2: ZeroDivisionError: division by zero"


def test_a_file_is_executed_once(tmp_path):
    count = (
        "import jax\n\nwith open(__file__ + '.log', 'a') as log:\n    log.write('executed\\n')\n"
    )
    path = write(tmp_path, ("import jax\n", count))
    first = load_agent_file(path)
    first.check(first.config)
    assert load_agent_file(path).agent_class is first.agent_class
    assert path.with_name("fork.py.log").read_text() == "executed\n"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--agent=.*none\.py is not a file"):
        load_agent_file(tmp_path / "none.py")


# --- A policy of evaluation -----------------------------------------------------------------------


def test_a_policy_is_checked_with_the_agent(tmp_path):
    file = load_agent_file(write(tmp_path))
    file.check(file.config, policies.sample)
    with pytest.raises(UserError, match=r"--eval_policy returns \(2, 7\) for one observation"):
        file.check(file.config, lambda agent, observation, key: jnp.zeros((2, 7)))
    with pytest.raises(UserError, match=r"does not define value\(observations, actions\)"):
        file.check(file.config, policies.BestOfN())


# --- Published settings ---------------------------------------------------------------------------


def test_a_table_is_read_cell_by_cell():
    text = """
    task           discount  q_agg  layer_norm  dims

    maze-play      0.99      min    True        (64,64)
    maze-play-v1   -         mean   -           -
    """
    assert parse_table(text, "PUBLISHED") == {
        "maze-play": {"discount": 0.99, "q_agg": "min", "layer_norm": True, "dims": (64, 64)},
        "maze-play-v1": {"q_agg": "mean"},
    }
    assert parse_table("", "PUBLISHED") == {}


def test_a_row_of_another_length_is_named():
    with pytest.raises(UserError, match=r"PUBLISHED in x\.py: the row 'maze 0.99' has not 3 cells"):
        parse_table("task discount q_agg\nmaze 0.99", "PUBLISHED in x.py")


def test_a_tasks_own_row_wins_and_online_rows_add_to_it(tmp_path):
    tables = """
PUBLISHED = '''
task                           lr
cube-play                      0.1
cube-play-singletask-task3-v0  0.3
'''
PUBLISHED_ONLINE = '''
task       lr    batch_size
cube-play  -     7
maze       0.5   -
'''
"""
    file = load_agent_file(write(tmp_path, text=GOOD + tables))
    assert file.published_settings("cube-play-singletask-task2-v0") == {"lr": 0.1}
    assert file.published_settings("cube-play-singletask-task3-v0") == {"lr": 0.3}
    online = file.published_settings("cube-play-singletask-task3-v0", online=True)
    assert online == {"lr": 0.3, "batch_size": 7}
    assert file.published_settings("maze") == {}
    assert file.published_settings("maze", online=True) == {"lr": 0.5}
