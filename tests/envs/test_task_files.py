import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.processes import REPOSITORY, run_python
from utils.envs import tasks
from utils.envs.task_files import _load
from utils.errors import UserError

TASK = """
import gymnasium
import numpy as np

from beside import SIZE


class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (SIZE,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(SIZE, np.float32), {}

    def step(self, action):
        return np.zeros(SIZE, np.float32), float(action[0]), True, False, {"success": True}


def make_env():
    return Line()


def load_datasets():
    rng = np.random.default_rng(0)
    return {
        "observations": np.arange(12.0).reshape(6, SIZE),
        "actions": rng.uniform(-1, 1, (6, 1)),
        "next_observations": np.arange(12.0).reshape(6, SIZE) + SIZE,
        "rewards": np.arange(6),
        "masks": np.array([1, 1, 0, 1, 1, 1]),
    }
"""


def arrays(rows=6, **changes):
    """Valid transitions of two episodes: rows 0 to 3 are cut off, the others reach the end."""
    row = np.arange(float(rows))[:, None]
    data = {
        "observations": np.concatenate([row, row], axis=1),
        "actions": np.linspace(-1, 1, rows)[:, None],
        "next_observations": np.concatenate([row + 1, row + 1], axis=1),
        "rewards": np.arange(rows),
        "masks": np.ones(rows, bool),
    }
    data["next_observations"][3] += 0.5
    return {key: value for key, value in (data | changes).items() if value is not None}


@pytest.fixture(autouse=True)
def _modules(monkeypatch):
    """Keep what task files import, and from where, from other tests."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("beside", "worse", "worst"):
        sys.modules.pop(name, None)


@pytest.fixture
def task(tmp_path):
    """A task file with an environment, data and a file beside it."""
    (tmp_path / "beside.py").write_text("SIZE = 2\n")
    path = tmp_path / "my_task.py"
    path.write_text(TASK)
    return str(path)


def load(tmp_path, train, val=None):
    """Loads the datasets of a task file that returns these arrays."""
    np.savez(tmp_path / "train.npz", **train)
    np.savez(tmp_path / "val.npz", **(val or {}))
    returned = "read('train')" if val is None else "(read('train'), read('val'))"
    path = tmp_path / "arrays.py"
    path.write_text(
        "import pathlib\n\nimport numpy as np\n\n\ndef read(name):\n"
        "    return dict(np.load(pathlib.Path(__file__).with_name(f'{name}.npz')))\n\n\n"
        f"def load_datasets():\n    return {returned}\n"
    )
    return tasks.load_datasets(str(path))


# Names -------------------------------------------------------------------------------------------


def test_a_path_is_a_task(task, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for typed in (task, "my_task.py", "./my_task.py", f"../{tmp_path.name}/my_task.py"):
        assert tasks.resolve(typed) == task
    assert tasks.short_name(task) == "my_task"
    assert tasks.prescribed(task) == {}
    assert tasks.protocol(task) == {"metric": None, "evaluations": 1}
    assert tasks.reward_shift(task) == 0
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tasks.resolve("~/my_task.py") == task


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--env_name=.*/none\.py is not a file; give the path"):
        tasks.resolve(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match=r"unknown environment 'none\.py'.* path of a task file"):
        tasks.resolve("none.py")


def test_naming_a_task_file_does_not_execute_it(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError")
    assert tasks.short_name(tasks.resolve(str(path))) == "broken"
    with pytest.raises(UserError, match="RuntimeError"):
        tasks.has_env(str(path))


# Environment -------------------------------------------------------------------------------------


def test_the_environment_is_the_files(task):
    assert tasks.has_env(task)
    env = tasks.make_env(task)
    env.reset(seed=0)
    assert env.step(np.array([0.5]))[1:] == (0.5, True, False, {"success": True})


def test_arrays_alone_have_no_environment(tmp_path):
    load(tmp_path, arrays())
    path = str(tmp_path / "arrays.py")
    assert not tasks.has_env(path)
    with pytest.raises(UserError, match=r"arrays\.py defines no make_env\(\), and evaluations"):
        tasks.make_env(path)


def test_what_is_no_environment_is_refused(tmp_path):
    path = tmp_path / "none.py"
    path.write_text("def make_env():\n    pass\n")
    with pytest.raises(UserError, match=r"make_env\(\) of .*none\.py returned NoneType"):
        tasks.make_env(str(path))


def test_worker_processes_make_it_by_its_path_without_jax(task):
    code = (
        "import pickle, sys; make_env = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "print(make_env().observation_space.shape, 'jax' in sys.modules)"
    )
    pickled = pickle.dumps(functools.partial(tasks.make_env, task)).hex()
    result = run_python(code, pickled)
    assert result.stdout.strip() == "(2,) False", result.stderr


def test_a_file_is_executed_once_in_a_process(tmp_path):
    path = tmp_path / "counted.py"
    path.write_text(
        "import pathlib\n\n"
        "log = pathlib.Path(__file__).with_suffix('.log')\n"
        "log.write_text(log.read_text() + 'x' if log.exists() else 'x')\n\n\n"
        "def load_datasets():\n    return {}\n"
    )
    assert not tasks.has_env(str(path))
    with pytest.raises(UserError):
        tasks.load_datasets(str(path))
    assert (tmp_path / "counted.log").read_text() == "x"


# Datasets ----------------------------------------------------------------------------------------


def test_transitions(task):
    train, val = tasks.load_datasets(task)
    assert set(train) == {
        "observations",
        "actions",
        "next_observations",
        "rewards",
        "masks",
        "terminals",
    }
    assert {array.dtype for array in train.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(train["observations"][:, 0], [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(train["rewards"], range(6))
    np.testing.assert_array_equal(train["terminals"], [0, 0, 1, 0, 0, 1])
    assert all(val[key] is array for key, array in train.items())


def test_validation_data_are_their_own(tmp_path):
    train, val = load(tmp_path, arrays(), arrays(rows=5))
    assert (len(train["rewards"]), len(val["rewards"])) == (6, 5)
    assert val["terminals"].tolist() == [0, 0, 0, 1, 1]


def test_actions_end_within_the_bounds(tmp_path):
    train, _ = load(tmp_path, arrays())
    assert np.abs(train["actions"]).max() == np.float32(1 - 1e-5)
    np.testing.assert_allclose(train["actions"], arrays()["actions"], atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "terminals"),
    [
        ({}, [0, 0, 0, 1, 0, 1]),
        ({"masks": [1, 0, 1, 1, 1, 1]}, [0, 1, 0, 1, 0, 1]),
        ({"terminals": [0, 1, 0, 0, 0, 0]}, [0, 1, 0, 0, 0, 1]),
        ({"terminals": [False, False, True, False, False, True]}, [0, 0, 1, 0, 0, 1]),
    ],
)
def test_ends_of_episodes_are_given_or_seen(tmp_path, changes, terminals):
    changes = {key: np.array(value) for key, value in changes.items()}
    train, _ = load(tmp_path, arrays(**changes))
    np.testing.assert_array_equal(train["terminals"], terminals)


def test_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    train, _ = load(
        tmp_path, arrays(observations=images[:-1], next_observations=images[1:], masks=np.ones(6))
    )
    assert train["observations"].dtype == train["next_observations"].dtype == np.uint8
    np.testing.assert_array_equal(train["terminals"], [0, 0, 0, 0, 0, 1])
    images[4] += 1  # No longer what follows row 3; row 4 begins there.
    train, _ = load(
        tmp_path,
        arrays(observations=images[:-1], next_observations=np.roll(images, -1, 0)[:-1] // 2),
    )
    assert train["terminals"].sum() >= 5


def test_given_arrays_stay_as_they_were(tmp_path):
    path = tmp_path / "kept.py"
    path.write_text(
        "import numpy as np\n\nDATA = {key: np.ones((3, 1), np.float32) for key in\n"
        "        ('observations', 'actions', 'next_observations')}\n"
        "DATA |= {key: np.zeros(3, np.float32) for key in ('rewards', 'masks', 'terminals')}\n\n\n"
        "def load_datasets():\n    return DATA\n"
    )
    tasks.load_datasets(str(path))
    assert (_load(str(path)).DATA["actions"] == 1).all()
    assert (_load(str(path)).DATA["terminals"] == 0).all()


def changed(key, row, value):
    array = np.array(arrays()[key], np.float64)
    array[row] = value
    return {key: array}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rewards": None, "masks": None}, r"lack rewards and masks; add"),
        ({"actions": np.zeros((5, 1))}, r"'actions' in .* has 5 rows where the first array has 6"),
        ({"terminals": np.zeros(7)}, r"'terminals' in .* has 7 rows where"),
        ({"rewards": np.zeros((6, 1))}, r"'rewards' in .* shape \(6, 1\) where .*\(rows\)"),
        ({"next_observations": np.zeros((6, 3))}, r"'next_observations' .*\(6, 3\).*\(rows, 2\)"),
        ({"next_observations": np.zeros((6, 2), int)}, r"'next_observations' .*has dtype int64"),
        ({"observations": np.zeros((6, 2), int)}, r"'observations' .*dtype int64; make them"),
        ({"observations": np.zeros((6, 4, 4, 3))}, r"'observations' .*\(6, 4, 4, 3\).*float64;"),
        ({"observations": np.zeros(6)}, r"'observations' .*shape \(6,\)"),
        ({"actions": np.zeros(6)}, r"'actions' .*shape \(6,\); make them \(rows, size\)"),
        ({"actions": np.zeros((6, 1), int)}, r"'actions' .*has dtype int64"),
        ({"rewards": np.full(6, "x")}, r"'rewards' .*has dtype <U1"),
        ({"rewards": 0.0}, r"'rewards' in .* shape \(\)"),
        (changed("observations", 2, np.nan), r"'observations' .*not finite in row 2"),
        (changed("next_observations", 1, 1e300), r"'next_observations' .*not finite in row 1"),
        (changed("rewards", 4, np.inf), r"'rewards' .*not finite in row 4"),
        (changed("actions", 3, 1.01), r"'actions' .*leave \[-1, 1\] in row 3; scale them"),
        ({key: array[:0] for key, array in arrays().items()}, r"is empty"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(tmp_path, changes, problem):
    with pytest.raises(UserError, match=problem) as error:
        load(tmp_path, arrays(**changes))
    assert f"the training data of {tmp_path / 'arrays.py'}" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=problem) as error:
        load(tmp_path / ".." / tmp_path.name, arrays(), arrays(**changes))


def test_ragged_rows_are_refused(tmp_path):
    path = tmp_path / "ragged.py"
    keys = "('observations', 'actions', 'next_observations', 'rewards', 'masks')"
    path.write_text(f"def load_datasets():\n    return dict.fromkeys({keys}, [[1.0], [2.0, 3.0]])")
    with pytest.raises(UserError, match=r"'observations' in .* are no array .*; correct them"):
        tasks.load_datasets(str(path))


def test_splits_have_to_be_alike(tmp_path):
    wider = np.zeros((6, 3))
    with pytest.raises(UserError, match=r"validation data .* rows \(3,\) of float32 where"):
        load(tmp_path, arrays(), arrays(observations=wider, next_observations=wider))


# Errors in the file ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("import numpy\n\nx = 1 / 0\n", "bad.py, line 3", "ZeroDivisionError: division by zero"),
        ("x = 1\ndef load_datasets(:\n", "bad.py, line 2", "SyntaxError: invalid syntax"),
        ("import no_such_module\n", "bad.py, line 1", "No module named 'no_such_module'"),
        ("def load_datasets():\n    x = {}\n    return x[1]\n", "bad.py, line 3", "KeyError: 1"),
        ("import numpy as np\n\ndef load_datasets():\n    return np.zeros(3)[7]\n",
         "bad.py, line 4", "IndexError: index 7"),
        ("import numpy as np\n\ndef load_datasets():\n    return np.load('none.npz')\n",
         "bad.py, line 4", "FileNotFoundError"),
        ("import worse\n", "worse.py, line 2", "ZeroDivisionError"),
        ("import worst\n", "worst.py, line 1", "SyntaxError"),
        ("x = 1\n", "bad.py defines no load_datasets()", "add it"),
        ("def load_datasets():\n    pass\n", "load_datasets() of", "must return the training"),
        ("def load_datasets():\n    return {}, {}, {}\n", "load_datasets() of", "must return"),
    ],
)  # fmt: skip
def test_errors_name_file_and_line(tmp_path, text, place, problem):
    (tmp_path / "worse.py").write_text("\nx = 1 / 0\n")
    (tmp_path / "worst.py").write_text("x = (\n")
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        tasks.load_datasets(str(path))
    message = str(error.value)
    assert place in message
    assert problem in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_corrected_file_is_executed_anew(tmp_path):
    path = tmp_path / "slip.py"
    path.write_text("1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        tasks.has_env(str(path))
    path.write_text("make_env = None  # a longer file\n")
    assert tasks.has_env(str(path))


def test_errors_of_the_environment_name_the_line(tmp_path):
    path = tmp_path / "env.py"
    path.write_text("def make_env():\n    raise ValueError('no\\nworld')\n")
    with pytest.raises(UserError, match=r"env\.py, line 2: ValueError: no world$"):
        tasks.make_env(str(path))


def test_no_traceback_reaches_the_user(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("1 / 0\n")
    code = (
        "import sys\nfrom utils.envs import tasks\nfrom utils.errors import UserError\n"
        "try: tasks.load_datasets(sys.argv[1])\n"
        "except UserError as error: sys.exit(f'error: {error}')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == f"error: {path}, line 1: ZeroDivisionError: division by zero\n"
