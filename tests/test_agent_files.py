"""Agents by the path of a file: mistakes in one line, neighbours, published settings."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from tests import contract
from utils.agent_files import load_agent_file, parse_table
from utils.errors import UserError

REPOSITORY = Path(__file__).parents[1]
GOOD = (REPOSITORY / "tests/toy_agents/cloning.py").read_text()
LOSS = 'return loss, {"actor/actor_loss": loss}'
METHODS = "    def sample_noise("


def write(folder, *changes, name="fork.py", text=GOOD):
    """Write a fork of an agent, in which every pair of texts is an edit."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def check(path, **settings):
    file = load_agent_file(path)
    config = ml_collections.ConfigDict(file.config)
    config.update(settings)
    file.check(config)


def message_of(path):
    """What loading and checking a file says: one line that names the file once."""
    with pytest.raises(UserError) as caught:
        check(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(str(path)) == 1
    return message


def line_of(path, text):
    """How messages name the line that has a text."""
    lines = path.read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return f"{path}, line {number}: "


def test_the_unchanged_file_is_right(tmp_path):
    check(write(tmp_path))


PAIRS = "loss = loss + jnp.mean((actions.sum(-1, keepdims=True) - batch['rewards']) ** 2)"


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        ((LOSS, f"{PAIRS}\n        {LOSS}"), "keepdims", "shapes (b, 1) and (b,) broadcast"),
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
            "sample_actions returns () for observations (31,), instead of (7,)",
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
    ],
    ids=[
        "metric",
        "no-config",
        "no-class",
        "two-classes",
        "structure",
        "actions",
        "actions-broadcast",
        "derived-setting",
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, edits, words):
    assert words in message_of(write(tmp_path, *edits))


def test_pairs_that_are_meant_are_allowed(tmp_path):
    edits = [(LOSS, f"{PAIRS}\n        {LOSS}"), ("IMPROVES = False", "PAIRWISE = True")]
    check(write(tmp_path, *edits))


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
