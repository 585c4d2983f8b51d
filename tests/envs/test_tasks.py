import collections
import contextlib
import importlib
import os
import signal
import sys
import tempfile

import gymnasium
import pytest

from tests.processes import run_python
from utils.envs import tasks
from utils.envs.d4rl import names as d4rl
from utils.envs.ogbench import names
from utils.errors import UserError

# OGBench's names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("antmaze-large-navigate", "antmaze-large-navigate-singletask-v0"),
        ("antmaze-large-navigate-v0", "antmaze-large-navigate-singletask-v0"),
        ("antmaze-large-navigate-singletask-v0", "antmaze-large-navigate-singletask-v0"),
        ("cube-double-play-task3", "cube-double-play-singletask-task3-v0"),
        ("cube-double-play-task3-v0", "cube-double-play-singletask-task3-v0"),
        ("cube-double-play-singletask-task3", "cube-double-play-singletask-task3-v0"),
        ("scene-noisy", "scene-noisy-singletask-v0"),
        ("visual-puzzle-4x4-play-task1", "visual-puzzle-4x4-play-singletask-task1-v0"),
    ],
)
def test_short_names(typed, full):
    assert tasks.resolve(typed) == full
    assert tasks.resolve(tasks.short_name(full)) == full


def test_a_default_task_is_also_one_of_the_numbered():
    assert tasks.numbered("scene-play-singletask-v0") == "scene-play-singletask-task2-v0"
    for name in ("scene-play-singletask-task1-v0", "pen-cloned-v1"):
        assert tasks.numbered(name) == name


def test_names_of_parts():
    full = "visual-cube-double-play-singletask-task3-v0"
    assert names.dataset_name(full) == "visual-cube-double-play-v0"
    assert names.environment_id(full) == "visual-cube-double-singletask-task3-v0"
    assert names.collection_id(full) == "visual-cube-double-v0"
    assert names.split(full) == ("visual-cube-double", "play", 3)


def test_names_cover_exactly_what_ogbench_registers():
    import ogbench as package  # noqa: F401

    registered = {name for name in gymnasium.registry if "-singletask" in name}
    assert len(registered) == 246
    assert {names.environment_id(name) for name in names.all_names()} == registered
    assert all(names.resolve(name) == name for name in names.all_names())


@pytest.mark.parametrize(
    ("typo", "suggestion"),
    [
        ("cube-singel-play", "cube-single-play"),
        ("antmaze-large", "antmaze-large-navigate"),
        ("antmaze-large-naviagte", "antmaze-large-navigate"),
        ("cube_double_play_task2", "cube-double-play-task2"),
        ("Scene-Play", "scene-play"),
        ("puzzle-3-3-play", "puzzle-3x3-play"),
        ("puzzle3x3-noisy", "puzzle-3x3-noisy"),
        ("humanoid-medium-navigate", "humanoidmaze-medium-navigate"),
        ("cube-single-play-v1", "cube-single-play"),
        ("scene", "scene-play"),
    ],
)
def test_unknown_name_suggests_the_nearest_first(typo, suggestion):
    with pytest.raises(UserError, match=rf"'{typo}'; did you mean {suggestion}( or .+)?\?"):
        tasks.resolve(typo)


@pytest.mark.parametrize("task", ["0", "6", "03"])
def test_unknown_task(task):
    with pytest.raises(UserError, match="cube-single-play-task1 to cube-single-play-task5"):
        tasks.resolve(f"cube-single-play-task{task}")


def test_name_like_no_other_lists_the_families():
    with pytest.raises(UserError, match=r"antmaze-large, .*puzzle-4x6"):
        tasks.resolve("walker2d")


def test_names_import_neither_numpy_nor_jax_nor_mujoco():
    code = (
        "import sys, utils.errors, utils.envs.ogbench.names, utils.envs.d4rl.names;"
        "print({'numpy', 'jax', 'mujoco'} & set(sys.modules))"
    )
    assert run_python(code).stdout.strip() == "set()"


def test_environment_modules_never_import_jax():
    code = (
        "import sys, utils.collect.workers, utils.envs.tasks as tasks;"
        "tasks.make_env('pointmaze-medium-navigate-singletask-v0'); print('jax' in sys.modules)"
    )
    result = run_python(code)
    assert result.stdout.strip() == "False", result.stderr


# The door ----------------------------------------------------------------------------------------


def test_the_door_imports_no_more_than_names_need():
    code = (
        "import pickle, sys; from utils.envs import tasks;"
        "assert pickle.loads(pickle.dumps(tasks.make_env)) is tasks.make_env;"
        "print(tasks.resolve('cube-single-play'), tasks.resolve('pen-cloned'));"
        "print({'h5py', 'jax', 'mujoco', 'ogbench'} & set(sys.modules))"
    )
    result = run_python(code)
    assert result.stdout.splitlines() == [
        "cube-single-play-singletask-v0 pen-cloned-v1",
        "set()",
    ], result.stderr


TOY = """
NAMES = ("toy-easy", "toy-hard")
HELP = "the toys toy-easy and toy-hard"
resolve = {"toy-easy": "toy-easy-v9", "toy-easy-v9": "toy-easy-v9"}.get
short_name = {"toy-easy-v9": "toy-easy"}.get

def has_env(name): return True
def make_env(name): return ("env", name)
def load_datasets(name, dataset_dir): return ({"name": name}, {"dir": dataset_dir})
def reward_shift(name): return -3.0
def prescribed(name): return {"offline_steps": 7}
def protocol(name): return {"metric": "return", "evaluations": 2}
def groups(): return {"toys": ["toy-easy-v9"]}
"""


@pytest.fixture
def toy_suite(tmp_path, monkeypatch):
    """A further suite: a module, and a row of the table."""
    (tmp_path / "toy_suite.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tasks.SUITES, "toys", "toy_suite")
    yield
    sys.modules.pop("toy_suite", None)


@pytest.mark.usefixtures("toy_suite")
def test_a_suite_is_a_module_and_a_row():
    full_name = tasks.resolve("toy-easy")
    assert full_name == "toy-easy-v9"
    assert tasks.short_name(full_name) == "toy-easy"
    assert tasks.make_env(full_name) == ("env", full_name)
    assert tasks.load_datasets(full_name, "data") == ({"name": full_name}, {"dir": "data"})
    assert tasks.has_env(full_name)
    assert tasks.reward_shift(full_name) == -3
    assert tasks.prescribed(full_name) == {"offline_steps": 7}
    assert tasks.protocol(full_name) == {"metric": "return", "evaluations": 2}
    assert tasks.groups()["toys"] == [full_name]
    with pytest.raises(UserError, match="'toy-esay'; did you mean toy-easy"):
        tasks.resolve("toy-esay")
    with pytest.raises(UserError, match=r"D4RL's antmaze-umaze-v2.*; or the toys toy-easy and"):
        tasks.resolve("walker2d")
    assert tasks.resolve("pen-cloned") == "pen-cloned-v1"


def test_tasks_of_no_suite_are_unknown_everywhere():
    for function in (tasks.short_name, tasks.make_env, tasks.load_datasets, tasks.protocol):
        with pytest.raises(UserError, match="unknown environment 'toy-easy-v9'"):
            function("toy-easy-v9")


def test_every_suite_has_the_functions_of_the_door():
    functions = {
        name
        for name, item in vars(tasks).items()
        if getattr(item, "__module__", "") == tasks.__name__ and name[0] != "_"
    }
    assert len(functions) == 12
    for module in tasks.SUITES.values():
        suite = importlib.import_module(module)
        assert all(callable(getattr(suite, name)) for name in functions), module
        assert all(suite.resolve(name) for name in suite.NAMES), module


PIXELS = {"encoder": "impala_small", "p_aug": 0.5, "frame_stack": 3}


@pytest.mark.parametrize(
    ("name", "settings", "protocol"),
    [
        ("cube-double-play-task3", {"offline_steps": 1_000_000}, ("success", 3)),
        ("antmaze-large-navigate", {"offline_steps": 1_000_000}, ("success", 3)),
        ("visual-scene-play-task1", {"offline_steps": 500_000} | PIXELS, ("success", 3)),
        ("antmaze-large-play", {"offline_steps": 500_000}, ("normalized_return", 1)),
        ("pen-human", {"offline_steps": 500_000}, ("normalized_return", 1)),
    ],
)
def test_what_the_benchmarks_prescribe(name, settings, protocol):
    full_name = tasks.resolve(name)
    assert tasks.prescribed(full_name) == settings
    metric, evaluations = protocol
    assert tasks.protocol(full_name) == {"metric": metric, "evaluations": evaluations}
    assert tasks.has_env(full_name)


def test_groups_hold_full_names():
    groups = tasks.groups()
    assert groups["cube-single-play"] == [
        f"cube-single-play-singletask-task{n}-v0" for n in range(1, 6)
    ]
    assert {len(groups[dataset]) for dataset in names.DATASETS} == {5}
    assert (len(groups["d4rl-antmaze"]), len(groups["d4rl-adroit"])) == (6, 12)
    for members in groups.values():
        assert len(members) == len(set(members))
        assert all(tasks.resolve(name) == name for name in members)


def test_the_groups_of_published_comparisons_have_their_tasks():
    groups = tasks.groups()
    offline = [*groups["ogbench-states"], *groups["ogbench-pixels"], *groups["d4rl"]]
    assert len(offline) == len(set(offline)) == 73
    assert "humanoidmaze-large-navigate-singletask-task5-v0" in groups["ogbench-states"]
    assert "visual-scene-play-singletask-task1-v0" in groups["ogbench-pixels"]
    assert len([*groups["ogbench-online"], *groups["d4rl-online"]]) == 15


def test_only_the_mazes_of_d4rl_shift_rewards():
    shifts = {name: tasks.reward_shift(name) for name in [*d4rl.TASKS, *names.all_names()]}
    assert {name for name, shift in shifts.items() if shift == -1.0} == {
        name for name in d4rl.TASKS if name.startswith("antmaze")
    }
    assert set(shifts.values()) == {0.0, -1.0}


def leftovers():
    """Files in the temporary folder, and what this process has open, by number of descriptors."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return set(os.listdir(tempfile.gettempdir())), collections.Counter(links)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")
@pytest.mark.parametrize("name", ["antmaze-medium-navigate", "pen-cloned", "relocate-cloned"])
def test_an_environment_leaves_no_file_and_no_descriptor(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = tasks.resolve(name)
    tasks.make_env(name).close()  # what is imported meanwhile does not count
    before = leftovers()
    env = tasks.make_env(name)
    env.reset(seed=0)
    env.close()
    assert leftovers() == before


KILLED = """
import os, signal
from gymnasium.envs.mujoco import MujocoEnv
from utils.envs import tasks

MujocoEnv._initialize_simulation = lambda env: os.kill(os.getpid(), signal.SIGKILL)
tasks.make_env("pointmaze-medium-navigate-singletask-v0")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file has to have a name")
def test_a_process_that_is_killed_while_it_makes_a_maze_leaves_no_file(tmp_path):
    result = run_python(KILLED, TMPDIR=str(tmp_path), MUJOCO_GL="disabled")
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert list(tmp_path.iterdir()) == []
