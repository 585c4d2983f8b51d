import ast
import dataclasses
import pickle
import shutil
import time
import types

import h5py
import numpy as np
import pytest

from tests import d4rl_files, loopback
from tests.parity import original as parity
from tests.processes import run_python
from utils.envs import tasks
from utils.envs.d4rl import data as d4rl_data
from utils.envs.d4rl import names
from utils.envs.origins import ORIGINS
from utils.errors import UserError

ANT, PEN = "antmaze-umaze-v2", "pen-cloned-v1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.delenv("D4RL_DATASET_URL", raising=False)


def write(full_name, directory, arrays, **storage):
    """Writes arrays, by keys such as infos/qpos, under the task's file name."""
    path = d4rl_data.dataset_path(full_name, directory)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, **storage)
    return path


def trajectory(full_name, rows, **changes):
    """Arrays of a small valid file, in which every number says its row and column."""
    task = names.TASKS[full_name]
    row = np.arange(rows, dtype=np.float32)[:, None]
    arrays = {
        "observations": 10 * row + np.arange(task.observation_size, dtype=np.float32) / 100,
        "actions": np.tanh(row - 2) + np.zeros(task.action_size, np.float32),
        "rewards": row[:, 0] / 2,
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    } | changes
    return {key: array for key, array in arrays.items() if array is not None}


def flags(text):
    return np.array([character == "1" for character in text])


# Names -------------------------------------------------------------------------------------------


def test_table_of_tasks():
    mazes = ["umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play"]
    expected = [f"antmaze-{maze}-v2" for maze in [*mazes, "large-diverse"]]
    for hand in ("pen", "door", "hammer", "relocate"):
        expected += [f"{hand}-{data}-v1" for data in ("human", "cloned", "expert")]
    assert list(names.TASKS) == expected
    horizons = {name: task.horizon for name, task in names.TASKS.items() if task.horizon != 1000}
    assert {n: h for n, h in horizons.items() if h != 200} == {
        "antmaze-umaze-v2": 700,
        "antmaze-umaze-diverse-v2": 700,
        "pen-human-v1": 100,
        "pen-cloned-v1": 100,
        "pen-expert-v1": 100,
    }
    sizes = {name.split("-")[0]: task[1:3] for name, task in names.TASKS.items()}
    assert sizes == {
        "antmaze": (29, 8),
        "pen": (45, 24),
        "door": (39, 28),
        "hammer": (46, 26),
        "relocate": (39, 30),
    }


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("antmaze-umaze-v2", "u-maze_noisy_multistart_False_multigoal_False"),
        ("antmaze-umaze-diverse-v2", "u-maze_noisy_multistart_True_multigoal_True"),
        ("antmaze-medium-play-v2", "big-maze_noisy_multistart_True_multigoal_False"),
        ("antmaze-large-play-v2", "hardest-maze_noisy_multistart_True_multigoal_False"),
        ("antmaze-large-diverse-v2", "hardest-maze_noisy_multistart_True_multigoal_True"),
    ],
)
def test_names_of_maze_files(name, path):
    full = f"ant_maze_v2/Ant_maze_{path}_sparse_fixed.hdf5"
    assert names.TASKS[name].dataset_path == full
    assert f"ant_maze_v2/{names.dataset_name(name)}.hdf5" == full


def test_names_of_one_task():
    assert names.TASKS["door-human-v1"].dataset_path == "hand_dapg_v1/door-human-v1.hdf5"
    assert names.dataset_name("door-human-v1") == "door-human-v1"
    assert names.short_name("door-human-v1") == "door-human"
    assert names.short_name("antmaze-umaze-diverse-v2") == "antmaze-umaze-diverse"
    assert names.resolve("door-human-v1") == "door-human-v1"
    assert names.resolve("antmaze-large-navigate-singletask-v0") is None


def test_ids_and_short_forms_resolve():
    for name in names.TASKS:
        assert tasks.resolve(name) == name
        assert tasks.resolve(tasks.short_name(name)) == name
    assert tasks.resolve("antmaze-large-play") == "antmaze-large-play-v2"
    assert tasks.resolve("antmaze-large-navigate") == "antmaze-large-navigate-singletask-v0"


@pytest.mark.parametrize(
    ("typo", "suggestion"),
    [
        ("antmaze-large-play-v0", "antmaze-large-play-v2"),
        ("antmaze-umaze-v1", "antmaze-umaze-v2"),
        ("antmaze_medium_diverse", "antmaze-medium-diverse-v2"),
        ("antmaze-large-v2", "antmaze-large-play-v2"),
        ("antmaze-large-play-task2", "antmaze-large-play-v2"),
        ("pen-clonned-v1", "pen-cloned-v1"),
        ("Relocate-Expert", "relocate-expert-v1"),
        ("hammer", "hammer-human-v1"),
    ],
)
def test_unknown_name_suggests_the_nearest_first(typo, suggestion):
    with pytest.raises(UserError, match=rf"'{typo}'; did you mean {suggestion}( or .+)?\?"):
        tasks.resolve(typo)


def test_name_like_no_other_lists_the_tasks():
    with pytest.raises(UserError, match=r"antmaze-umaze-v2, .*relocate-expert-v1"):
        tasks.resolve("walker2d-medium-v2")


# Transitions, by hand ----------------------------------------------------------------------------


def load(full_name, directory, arrays, **storage):
    write(full_name, directory, arrays, **storage)
    return d4rl_data.load_datasets(full_name, directory)[0]


def test_maze_file_with_timeouts_and_goals_on_the_way(tmp_path):
    arrays = trajectory(
        ANT,
        9,
        rewards=np.array([0, 0, 1, 1, 0, 0, 1, 0, 0], np.float32),
        terminals=flags("001100100"),
        timeouts=flags("000010001"),
    )
    arrays |= {"infos/goal": np.zeros((9, 2)), "infos/qpos": np.full((9, 15), np.nan)}
    train = load(ANT, tmp_path, arrays)
    # Row 4 is cut off, and row 8 is the last.
    start = [0, 1, 2, 3, 5, 6, 7]
    np.testing.assert_array_equal(train["observations"], arrays["observations"][start])
    np.testing.assert_array_equal(
        train["next_observations"][:, 0], np.float32([10, 20, 30, 40, 60, 70, 80])
    )
    np.testing.assert_array_equal(train["rewards"], [-1, -1, 0, 0, -1, 0, -1])
    np.testing.assert_array_equal(train["masks"], [1, 1, 0, 0, 1, 0, 1])
    # The goals of rows 2, 3 and 6 end nothing; what follows row 3 is another trajectory.
    np.testing.assert_array_equal(train["terminals"], [0, 0, 0, 1, 0, 0, 1])
    assert set(train) == {
        "observations",
        "next_observations",
        "actions",
        "rewards",
        "masks",
        "terminals",
    }
    assert {array.dtype for array in train.values()} == {np.dtype(np.float32)}
    assert all(array.flags.c_contiguous for array in train.values())


def test_hand_file_with_timeouts(tmp_path):
    arrays = trajectory(PEN, 7, terminals=flags("0100010"), timeouts=flags("0001010"))
    train = load(PEN, tmp_path, arrays, compression="gzip")
    # Row 5 is both: it is dropped with its terminal flag.
    np.testing.assert_array_equal(train["observations"][:, 0], [0, 10, 20, 40])
    np.testing.assert_array_equal(train["next_observations"][:, 0], [10, 20, 30, 50])
    np.testing.assert_array_equal(train["rewards"], [0, 0.5, 1, 2])
    np.testing.assert_array_equal(train["masks"], [1, 0, 1, 1])
    np.testing.assert_array_equal(train["terminals"], [0, 1, 1, 1])
    limit = np.float32(1 - 1e-5)
    np.testing.assert_array_equal(
        train["actions"][:, 3], np.clip(arrays["actions"][[0, 1, 2, 4], 3], -limit, limit)
    )


def test_actions_are_clipped(tmp_path):
    actions = np.array([-3, -1, 1, 0.999995, 0.5], np.float32)[:, None] + np.zeros((5, 24))
    train = load(PEN, tmp_path, trajectory(PEN, 5, actions=actions))
    limit = np.float32(0.99999)
    np.testing.assert_array_equal(train["actions"][:, 0], [-limit, -limit, limit, limit])


def test_without_timeouts_steps_are_counted(tmp_path):
    # The horizon of pen is 100. The count starts at 0, at 1 behind a terminal row, and at 0 behind
    # a row that was cut off, be it terminal or not.
    terminals = np.zeros(520, bool)
    terminals[[30, 229, 329]] = True
    train = load(PEN, tmp_path, trajectory(PEN, 520, terminals=terminals, timeouts=None))
    kept = (train["observations"][:, 0] / 10).round().astype(int)
    # 30 + 99; 129 + 100 is terminal too; + 100 again; + 100.
    assert sorted(set(range(519)) - set(kept)) == [129, 229, 329, 429]
    np.testing.assert_array_equal(kept[train["masks"] == 0], [30])
    np.testing.assert_array_equal(kept[train["terminals"] == 1], [30, 128, 228, 328, 428, 518])


def test_first_episode_without_timeouts_has_the_full_horizon(tmp_path):
    train = load(ANT, tmp_path, trajectory(ANT, 1401, timeouts=None))
    kept = (train["observations"][:, 0] / 10).round().astype(int)
    assert sorted(set(range(1400)) - set(kept)) == [699, 1399]


def test_columns_of_numbers_and_other_types(tmp_path):
    arrays = trajectory(PEN, 4, terminals=flags("0100"), timeouts=flags("0010"))
    train = load(PEN, tmp_path, arrays)
    other = {
        "observations": arrays["observations"].astype(np.float64),
        "actions": arrays["actions"].astype(np.float64),
        "rewards": arrays["rewards"][:, None].astype(np.float64),
        "terminals": arrays["terminals"][:, None].astype(np.float32),
        "timeouts": arrays["timeouts"].astype(np.int64),
    }
    again = load(PEN, tmp_path, other)
    assert len(train["actions"]) == 2
    for key, array in train.items():
        np.testing.assert_array_equal(again[key], array)
        assert again[key].dtype == array.dtype


def test_validation_data_are_the_training_arrays(tmp_path):
    write(PEN, tmp_path, trajectory(PEN, 5))
    train, val = d4rl_data.load_datasets(PEN, tmp_path)
    assert train.keys() == val.keys()
    assert all(val[key] is array for key, array in train.items())


# Transitions, by the originals' loops ------------------------------------------------------------


def pairs_by_loop(arrays, horizon):
    """Rows paired with their successors one by one, as D4RL describes it."""
    kept, count = [], 0
    for row in range(len(arrays["rewards"]) - 1):
        if arrays["timeouts"][row] if "timeouts" in arrays else count == horizon - 1:
            count = 0
            continue
        kept.append(row)
        count = 1 if arrays["terminals"][row] else count + 1
    successors = [row + 1 for row in kept]
    return {
        "observations": arrays["observations"][kept].astype(np.float32),
        "next_observations": arrays["observations"][successors].astype(np.float32),
        "actions": arrays["actions"][kept].astype(np.float32),
        "rewards": arrays["rewards"][kept].astype(np.float32),
        "terminals": arrays["terminals"][kept].astype(bool),
    }


def train_on(full_name, pairs):
    """What FQL makes of such pairs, one by one."""
    maze = full_name.startswith("antmaze")
    terminals = []
    for row, terminal in enumerate(pairs["terminals"]):
        if row == len(pairs["terminals"]) - 1:
            last = True
        else:
            jump = pairs["observations"][row + 1] - pairs["next_observations"][row]
            last = np.linalg.norm(jump) > 1e-6 or (bool(terminal) and not maze)
        terminals.append(float(last))
    return {
        "observations": pairs["observations"],
        "next_observations": pairs["next_observations"],
        "actions": np.clip(pairs["actions"], -1 + 1e-5, 1 - 1e-5),
        "rewards": pairs["rewards"] - 1 if maze else pairs["rewards"],
        "masks": np.array([1.0 - terminal for terminal in pairs["terminals"]], np.float32),
        "terminals": np.array(terminals, np.float32),
    }


def random_file(full_name, rows, rng, with_timeouts):
    task = names.TASKS[full_name]
    # Observations that now and then stay as they were, or nearly so: no discontinuity.
    steps = rng.normal(size=(rows, task.observation_size)).astype(np.float32)
    steps *= rng.choice([0, 1e-8, 1], size=(rows, 1)).astype(np.float32)
    arrays = {
        "observations": np.cumsum(steps, axis=0),
        "actions": rng.normal(size=(rows, task.action_size)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": rng.random(rows) < rng.choice([0, 0.2 / task.horizon, 1 / task.horizon, 0.3]),
    }
    if with_timeouts:
        arrays["timeouts"] = rng.random(rows) < 0.1
    elif rng.random() < 0.7:  # Terminal rows on top of those that are cut off.
        arrays["terminals"][task.horizon - 1 :: task.horizon] = True
    arrays["infos/qvel"] = rng.normal(size=(rows, 4))
    return arrays


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        assert ours[key].dtype == array.dtype == np.float32, key
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


CASES = pytest.mark.parametrize("full_name", [ANT, PEN, "door-human-v1"])


@CASES
@pytest.mark.parametrize("with_timeouts", [True, False])
def test_random_files_agree_with_the_loops(tmp_path, full_name, with_timeouts):
    horizon = names.TASKS[full_name].horizon
    rng = np.random.default_rng(5)
    dropped = 0
    for _ in range(8):
        arrays = random_file(full_name, int(rng.integers(2, 4000)), rng, with_timeouts)
        pairs = pairs_by_loop(arrays, horizon)
        dropped += len(arrays["rewards"]) - 1 - len(pairs["rewards"])
        assert_same(load(full_name, tmp_path, arrays), train_on(full_name, pairs))
    assert dropped > 2


@pytest.fixture(scope="module")
def original():
    """`qlearning_dataset` of the d4rl package, without the package that cannot be imported."""
    try:
        target = parity.install()
    except parity.UnreachableError as error:
        pytest.skip(f"the original cannot be installed: {error}")
    module = ast.parse((target / "d4rl" / "__init__.py").read_text())
    module.body = [item for item in module.body if getattr(item, "name", "") == "qlearning_dataset"]
    namespace = {"np": np}
    exec(compile(module, "d4rl/__init__.py", "exec"), namespace)
    return namespace["qlearning_dataset"]


@CASES
@pytest.mark.parametrize("with_timeouts", [True, False])
@pytest.mark.slow
def test_random_files_agree_with_the_original(tmp_path, original, full_name, with_timeouts):
    env = types.SimpleNamespace(_max_episode_steps=names.TASKS[full_name].horizon)
    rng = np.random.default_rng(6)
    for _ in range(30):
        arrays = random_file(full_name, int(rng.integers(2, 4000)), rng, with_timeouts)
        pairs = original(env, arrays)
        assert_same(load(full_name, tmp_path, arrays), train_on(full_name, pairs))


@pytest.mark.parametrize("with_timeouts", [True, False])
@pytest.mark.slow
def test_a_million_rows_take_seconds(tmp_path, with_timeouts):
    full_name = "antmaze-large-play-v2"
    rng = np.random.default_rng(0)
    arrays = trajectory(full_name, 1_000_000, terminals=rng.random(1_000_000) < 0.1)
    for key in ("observations", "actions"):  # As hard to decompress as can be.
        arrays[key] = rng.uniform(-1, 1, arrays[key].shape).astype(np.float32)
    arrays["timeouts"][1000::1001] = True
    if not with_timeouts:
        del arrays["timeouts"]
    write(full_name, tmp_path, arrays, compression="gzip", compression_opts=1)
    started = time.perf_counter()
    train, _ = d4rl_data.load_datasets(full_name, tmp_path)
    seconds = time.perf_counter() - started
    print(f"{len(train['rewards'])} transitions of a million rows in {seconds:.2f} s")
    assert seconds < 5


# Files -------------------------------------------------------------------------------------------


def test_folder(tmp_path, monkeypatch):
    name = "pen-cloned-v1.hdf5"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert d4rl_data.dataset_path(PEN) == tmp_path / ".d4rl" / "datasets" / name
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "set"))
    assert d4rl_data.dataset_path(PEN) == tmp_path / "set" / name
    assert d4rl_data.dataset_path(PEN, tmp_path / "given") == tmp_path / "given" / name
    assert d4rl_data.dataset_path(PEN, "~/given") == tmp_path / "given" / name


def test_official_address_comes_before_the_mirror():
    file = "Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5"
    path = names.TASKS["antmaze-medium-play-v2"].dataset_path
    assert ORIGINS["D4RL"].urls(path) == [
        f"http://rail.eecs.berkeley.edu/datasets/offline_rl/ant_maze_v2/{file}",
        f"https://huggingface.co/datasets/imone/D4RL/resolve/main/{file}",
    ]


def test_four_processes_download_the_file_once(tmp_path):
    body = write(PEN, tmp_path, trajectory(PEN, 21)).read_bytes()
    code = f"from utils.envs import tasks;print(len(tasks.load_datasets('{PEN}')[0]['rewards']))"
    with loopback.serve({"/mirror/hand_dapg_v1/pen-cloned-v1.hdf5": body}) as server:
        server.seconds = 2
        environment = {
            "D4RL_DATASET_URL": f"{server.url}/mirror/",
            "D4RL_DATASET_DIR": str(tmp_path / "data"),
        }
        outputs = loopback.run_together(4, ["-W", "error", "-c", code], **environment)
    assert [out.strip() for out, _ in outputs] == ["20"] * 4, outputs
    assert server.requests == {"/mirror/hand_dapg_v1/pen-cloned-v1.hdf5": 1}
    assert sum("waiting for another process" in err for _, err in outputs) >= 1
    visible = {path.name for path in (tmp_path / "data").iterdir() if path.name[0] != "."}
    assert visible == {"pen-cloned-v1.hdf5"}


@pytest.fixture
def addresses(monkeypatch):
    """Sets where the files come from, in the order in which it is tried."""

    def put(*addresses):
        origin = dataclasses.replace(ORIGINS["D4RL"], addresses=addresses)
        monkeypatch.setitem(ORIGINS, "D4RL", origin)

    return put


def test_failed_download_says_what_to_do(tmp_path, monkeypatch, addresses):
    addresses("http://127.0.0.1:9/{path}")
    with loopback.serve({}) as server:
        monkeypatch.setenv("D4RL_DATASET_URL", server.url)
        with pytest.raises(UserError) as error:
            tasks.load_datasets("hammer-expert-v1", tmp_path)
    message = str(error.value)
    assert "cannot download hammer-expert-v1.hdf5: " in message
    assert f"{server.url}/hand_dapg_v1/hammer-expert-v1.hdf5 fails: HTTP Error 404" in message
    assert "; http://127.0.0.1:9/hand_dapg_v1/hammer-expert-v1.hdf5 fails: " in message
    assert f"Put hammer-expert-v1.hdf5 into {tmp_path} by hand, or set D4RL_DATASET_URL" in message
    assert "\n" not in message
    assert list(tmp_path.glob("*.hdf5")) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rewards": None}, "lacks rewards"),
        (
            {"observations": np.zeros((21, 29), np.float32)},
            "has 'observations' of float32 (21, 29)",
        ),
        ({"timeouts": np.zeros(20, bool)}, "has arrays of different numbers of rows"),
        ({}, "is no complete HDF5 file"),
    ],
)
def test_a_mirror_with_another_file_is_passed_over(tmp_path, addresses, capsys, changes, reason):
    good = write(PEN, tmp_path, trajectory(PEN, 21, timeouts=None)).read_bytes()
    bad = write(PEN, tmp_path, trajectory(PEN, 21, **changes)).read_bytes()
    name = "pen-cloned-v1.hdf5"
    files = {f"/{name}": bad if changes else bad[:-100], f"/good/{name}": good}
    with loopback.serve(files) as server:
        addresses(f"{server.url}/{{name}}", f"{server.url}/good/{{name}}")
        train, _ = d4rl_data.load_datasets(PEN, tmp_path / "data")
    assert len(train["rewards"]) == 20
    assert f"{name} {reason}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "data").glob("*.*5*") if path.suffix != ".lock"] == [
        name
    ]


def refused(directory, problem):
    with pytest.raises(UserError, match=problem) as error:
        d4rl_data.load_datasets(PEN, directory)
    message = str(error.value)
    assert str(directory / "pen-cloned-v1.hdf5") in message
    assert message.endswith("; delete it to have it downloaded again")
    assert "\n" not in message


def spoiled(key, row, value):
    array = trajectory(PEN, 9)[key].astype(np.float64)
    array[row] = value
    return {key: array}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"actions": None, "rewards": None}, r"lacks actions and rewards"),
        ({"observations": np.zeros((9, 39))}, r"'observations' .*\(9, 39\).*\(rows, 45\)"),
        ({"actions": np.zeros((9, 8))}, r"'actions' .*shape \(9, 8\).*\(rows, 24\)"),
        ({"actions": np.zeros((8, 24))}, r"'actions' .*has 8 rows where the first array has 9"),
        ({"timeouts": np.zeros(10)}, r"'timeouts' .*has 10 rows where the first array has 9"),
        ({"terminals": np.zeros((9, 2))}, r"'terminals' .*shape \(9, 2\).*\(rows\)"),
        ({"rewards": np.float32(3)}, r"'rewards' .*shape \(\)"),
        ({"observations": np.float32(3)}, r"'observations' .*shape \(\)"),
        ({"observations": np.zeros((9, 45), int)}, r"'observations' .*has dtype int64"),
        ({"actions": np.full((9, 24), b"x")}, r"'actions' .*has dtype \|S1"),
        ({"rewards": h5py.Empty("f")}, r"'rewards' .*has dtype object"),
        (spoiled("observations", 5, np.nan), r"'observations' .*not finite in row 5"),
        (spoiled("actions", 3, 1e300), r"'actions' .*not finite in row 3"),
        (spoiled("rewards", 8, np.inf), r"'rewards' .*not finite in row 8"),
        (spoiled("terminals", 1, np.nan), r"'terminals' .*not finite in row 1"),
        ({"timeouts": np.ones(9)}, r"holds no transition"),
        ({key: array[:1] for key, array in trajectory(PEN, 1).items()}, r"holds no transition"),
        ({key: array[:0] for key, array in trajectory(PEN, 1).items()}, r"is empty"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path, changes, problem):
    write(PEN, tmp_path, trajectory(PEN, 9, **changes))
    refused(tmp_path, problem)


def test_group_in_place_of_an_array(tmp_path):
    path = write(PEN, tmp_path, trajectory(PEN, 9, actions=None))
    with h5py.File(path, "a") as file:
        file["actions/left"] = np.zeros((9, 24))
    refused(tmp_path, "lacks actions")


def test_more_rows_than_any_memory_holds(tmp_path):
    path = write(PEN, tmp_path, trajectory(PEN, 9, observations=None))
    with h5py.File(path, "a") as file:
        file.create_dataset("observations", (10**12, 45), "f4", chunks=(1000, 45))
    refused(tmp_path, "damaged, or too large for the memory here")


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_file_is_refused(tmp_path, keep):
    path = write(PEN, tmp_path, trajectory(PEN, 400), compression="gzip")
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, r"is truncated or damaged, or no HDF5 file")


@pytest.mark.parametrize("body", [b"<html>not found</html>", pickle.dumps({"rewards": 1})])
def test_other_file_is_refused(tmp_path, body):
    (tmp_path / "pen-cloned-v1.hdf5").write_bytes(body)
    refused(tmp_path, r"is truncated or damaged, or no HDF5 file \(.*signature not found")


def test_damaged_chunk_is_refused(tmp_path):
    path = write(PEN, tmp_path, trajectory(PEN, 4000), compression="gzip")
    with h5py.File(path) as file:
        offset = file["observations"].id.get_chunk_info(0).byte_offset
    body = bytearray(path.read_bytes())
    body[offset + 20] ^= 0xFF
    path.write_bytes(body)
    refused(tmp_path, r"is truncated or damaged")


def test_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "pen-cloned-v1.hdf5").mkdir()
    refused(tmp_path, r"cannot read .*: Is a directory;")


# The door -----------------------------------------------------------------------------------------


def test_the_door_loads_what_it_needs(tmp_path):
    write(PEN, tmp_path, trajectory(PEN, 5))
    code = (
        "import sys; from utils.envs import tasks;"
        "print({'h5py', 'jax', 'mujoco', 'ogbench'} & set(sys.modules));"
        f"train, val = tasks.load_datasets('{PEN}', sys.argv[1]);"
        "print(len(train['rewards']), {'jax', 'mujoco', 'ogbench'} & set(sys.modules))"
    )
    result = run_python(code, tmp_path)
    assert result.stdout.splitlines() == ["set()", "4 set()"], result.stderr


# Real environments --------------------------------------------------------------------------------


def read(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda key, item: (
                arrays.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return arrays


SMALL = {ANT: {"episodes": 3, "episode_length": 30}, PEN: {"episodes": 4}}


@pytest.fixture(scope="module", params=[ANT, PEN])
def collected(request, tmp_path_factory):
    """A task, the folder of its file, and the file made with random actions."""
    directory = tmp_path_factory.mktemp(request.param)
    path = d4rl_files.write_random(request.param, directory, seed=3, **SMALL[request.param])
    return request.param, directory, path


def test_random_actions_make_a_file_in_the_format_of_d4rl(collected):
    full_name, _, path = collected
    arrays = read(path)
    task = names.TASKS[full_name]
    env = tasks.make_env(full_name)
    rows = len(arrays["rewards"])
    state = env.unwrapped.get_state()
    assert state.keys() >= ({"qpos", "qvel", "goal"} if full_name == ANT else {"qpos", "qvel"})
    assert {key for key in arrays if "/" in key} == {f"infos/{key}" for key in state}
    assert arrays["observations"].shape == (rows, task.observation_size)
    assert arrays["actions"].shape == (rows, task.action_size)
    assert arrays["infos/qpos"].shape == (rows, env.unwrapped.model.nq)
    assert arrays["infos/qvel"].shape == (rows, env.unwrapped.model.nv)
    assert {key for key, array in arrays.items() if array.dtype == bool} == {
        "terminals",
        "timeouts",
    }
    assert {array.dtype for array in arrays.values() if array.dtype != bool} == {
        np.dtype(np.float32)
    }
    ends = arrays["terminals"] | arrays["timeouts"]
    assert ends.sum() == SMALL[full_name]["episodes"]
    assert ends[-1]
    assert not (arrays["terminals"] & arrays["timeouts"]).any()
    assert np.abs(arrays["actions"]).max() <= 1
    assert arrays["actions"].std() > 0.5
    if full_name == ANT:
        np.testing.assert_array_equal(np.flatnonzero(arrays["timeouts"]), [29, 59, 89])
        assert set(arrays["rewards"]) == {0}
        goals = np.unique(arrays["infos/goal"], axis=0)
        assert goals.shape == (3, 2)
    else:
        assert arrays["terminals"].sum() >= 2  # The pen falls, now and then for sure.
        assert arrays["rewards"].std() > 0.5


def test_rows_hold_a_step(collected):
    full_name, _, path = collected
    arrays = read(path)
    env = tasks.make_env(full_name).unwrapped
    infos = {key: array for key, array in arrays.items() if key.startswith("infos/")}
    followed = np.flatnonzero(~(arrays["terminals"] | arrays["timeouts"]))
    for row in followed[:: len(followed) // 8]:
        state = {key.removeprefix("infos/"): array[row] for key, array in infos.items()}
        before = env.set_state(state)
        after, reward, *_ = env.step(arrays["actions"][row])
        # The file has single precision, which contacts magnify. What a hand observes of the pen is
        # older than its joints by a step of the simulation.
        joints = slice(15) if full_name == ANT else slice(24)
        for found, index in ((before, row), (after, row + 1)):
            expected = arrays["observations"][index]
            np.testing.assert_allclose(found[joints], expected[joints], atol=1e-3)
            np.testing.assert_allclose(found, expected, atol=0.3)
        np.testing.assert_allclose(reward, arrays["rewards"][row], atol=0.1)


def test_collected_file_is_trained_on_as_the_loops_say(collected):
    full_name, directory, path = collected
    horizon = names.TASKS[full_name].horizon
    arrays = read(path)
    for changes in ({}, {"timeouts": None}):
        changed = {k: v for k, v in (arrays | changes).items() if v is not None}
        (directory / "other").mkdir(exist_ok=True)
        ours = load(full_name, directory / "other", changed)
        assert_same(ours, train_on(full_name, pairs_by_loop(changed, horizon)))
    shutil.rmtree(directory / "other")


@pytest.mark.slow
def test_collected_file_is_trained_on_as_the_original_says(collected, original):
    full_name, directory, path = collected
    env = types.SimpleNamespace(_max_episode_steps=names.TASKS[full_name].horizon)
    ours, _ = d4rl_data.load_datasets(full_name, directory)
    assert_same(ours, train_on(full_name, original(env, read(path))))
