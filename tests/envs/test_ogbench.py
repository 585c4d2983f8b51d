import dataclasses
import gc
import pickle
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ogbench.utils import DATASET_URL

from tests import loopback
from tests.processes import run_python
from utils import files
from utils.collect.workers import collect
from utils.envs.ogbench import data as ogbench
from utils.envs.ogbench import names
from utils.envs.ogbench.environments import make_env
from utils.envs.origins import ORIGINS
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


# Environments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("cube-double-play", 500),
        ("scene-play", 750),
        ("puzzle-3x3-play", 500),
        ("pointmaze-teleport-navigate", 1000),
        ("antmaze-giant-navigate", 2000 // 2),
        ("antsoccer-arena-navigate", 1000),
    ],
)
def test_episode_is_a_function_of_seed_and_actions(name, steps):
    def play(env, seed):
        actions = np.random.default_rng(0)
        rows = [env.reset(seed=seed)[0]]
        for _ in range(25):
            rows.append(env.step(actions.uniform(-1, 1, env.action_space.shape))[0])
            np.random.uniform()  # Someone else uses the global generator meanwhile.
        return np.array(rows)

    used, fresh = (make_env(names.resolve(name)) for _ in range(2))
    other = play(used, 1)
    np.random.seed(0)
    first = play(used, 7)
    np.random.seed(1)
    np.testing.assert_array_equal(play(fresh, 7), first)
    assert not np.array_equal(first, other)
    for env in (used, fresh):
        assert env.unwrapped._success_timing == "post"
        assert env.spec.max_episode_steps == steps
        env.close()


@pytest.mark.parametrize(
    "dataset",
    [
        "pointmaze-medium-navigate",
        "antmaze-medium-stitch",
        "antsoccer-medium-navigate",
        "cube-single-play",
        "scene-noisy",
        "puzzle-3x3-play",
        "puzzle-4x4-play",
        "puzzle-4x5-play",
        "puzzle-4x6-play",
    ],
)
def test_the_number_of_a_default_task_is_the_one_that_ogbench_gives_it(dataset):
    env = make_env(names.resolve(dataset))
    number = env.unwrapped._reward_task_id
    env.close()
    numbered = f"{dataset}-singletask-task{number}-v0"
    assert names.numbered(names.resolve(dataset)) == numbered
    assert names.numbered(numbered) == numbered
    assert names.numbered(f"visual-{dataset}-singletask-v0") == f"visual-{numbered}"
    assert names.numbered(f"{dataset}-singletask-task5-v0") == f"{dataset}-singletask-task5-v0"


def test_mazes_leave_the_global_generator_alone():
    env = make_env("pointmaze-teleport-navigate-singletask-v0")
    np.random.seed(0)
    expected = np.random.RandomState(0).uniform(size=3)
    drawn = [np.random.uniform()]
    env.reset(seed=5)
    drawn.append(np.random.uniform())
    env.step(env.action_space.sample())
    drawn.append(np.random.uniform())
    np.testing.assert_array_equal(drawn, expected)


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maze_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("maze")
    collect("pointmaze-medium-navigate", episodes=3, episode_length=20, dataset_dir=directory)
    return directory


MAZE = "pointmaze-medium-navigate-singletask-v0"
MAZE_FILES = ("pointmaze-medium-navigate-v0.npz", "pointmaze-medium-navigate-v0-val.npz")


def maze_files(maze_dir):
    return {f"/{name}": (maze_dir / name).read_bytes() for name in MAZE_FILES}


def test_eight_processes_download_each_file_once(maze_dir, tmp_path):
    code = (
        "import sys; from utils.envs.ogbench import data as ogbench;"
        f"train, val = ogbench.load_datasets('{MAZE}', sys.argv[1]);"
        "print(len(train['rewards']), len(val['rewards']))"
    )
    with loopback.serve(maze_files(maze_dir)) as server:
        server.seconds = 3
        environment = {"OGBENCH_DATASET_URL": server.url, "MUJOCO_GL": "disabled"}
        outputs = loopback.run_together(8, ["-c", code, tmp_path / "data"], **environment)
    assert [out.strip() for out, _ in outputs] == ["60 20"] * 8, outputs
    assert server.requests == {f"/{name}": 1 for name in MAZE_FILES}
    assert sum("waiting for another process" in err for _, err in outputs) >= 1
    visible = {path.name for path in (tmp_path / "data").iterdir() if path.name[0] != "."}
    assert visible == set(MAZE_FILES)


@pytest.fixture
def addresses(monkeypatch):
    """Sets where the files come from, in the order in which it is tried."""
    monkeypatch.delenv("OGBENCH_DATASET_URL", raising=False)

    def put(*addresses):
        origin = dataclasses.replace(ORIGINS["OGBench"], addresses=addresses)
        monkeypatch.setitem(ORIGINS, "OGBench", origin)

    return put


def test_a_mirror_is_used_when_the_server_is_dead_and_another_has_other_files(
    maze_dir, tmp_path, addresses, capsys
):
    with np.load(maze_dir / MAZE_FILES[0]) as archive:
        np.savez(tmp_path / "ant.npz", **dict(archive) | {"qpos": np.zeros((63, 15), np.float32)})
    other = {f"/{name}": (tmp_path / "ant.npz").read_bytes() for name in MAZE_FILES}
    with loopback.serve(other) as wrong, loopback.serve(maze_files(maze_dir)) as mirror:
        urls = [f"{server.url}/{{name}}" for server in (wrong, mirror)]
        addresses("http://127.0.0.1:9/{path}", *urls)
        train, val = ogbench.load_datasets(MAZE, tmp_path / "data")
        assert (len(train["rewards"]), len(val["rewards"])) == (60, 20)
        assert mirror.requests == wrong.requests == {f"/{name}": 1 for name in MAZE_FILES}
    said = capsys.readouterr().err
    assert f"{MAZE_FILES[1]} fails: [Errno 111] Connection refused; trying {wrong.url}" in said
    assert (
        f"has 'qpos' of float32 (63, 15) where this task has (rows, 2); trying {mirror.url}" in said
    )


def test_official_address_comes_before_the_mirror(monkeypatch):
    monkeypatch.delenv("OGBENCH_DATASET_URL", raising=False)
    assert ORIGINS["OGBench"].urls("scene-play-v0-val.npz") == [
        f"{DATASET_URL}/scene-play-v0-val.npz",
        "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/"
        "scene-play-v0-val.npz",
    ]


@pytest.mark.parametrize("missing", ["page", "server"])
def test_failed_download_names_urls_files_folder_and_command(
    tmp_path, monkeypatch, addresses, missing
):
    addresses("http://127.0.0.1:9/{path}")
    with loopback.serve({}) as server:
        if missing == "page":
            check_message(tmp_path, monkeypatch, server.url, "404")
    if missing == "server":
        check_message(tmp_path, monkeypatch, server.url, "Connection refused")


def check_message(directory, monkeypatch, url, reason):
    monkeypatch.setenv("OGBENCH_DATASET_URL", url)
    with pytest.raises(UserError) as error:
        ogbench.load_datasets("cube-single-play-singletask-task3-v0", directory)
    message = str(error.value)
    assert f"{url}/cube-single-play-v0.npz fails: " in message
    assert "; http://127.0.0.1:9/cube-single-play-v0.npz fails: " in message
    both = "cube-single-play-v0.npz and cube-single-play-v0-val.npz"
    assert f"Put {both} into {directory} by hand, or set OGBENCH_DATASET_URL to" in message
    assert reason in message
    command, duration = re.search(r"`python -m utils\.collect (.*)` \((.*)\)$", message).groups()
    assert command.split()[0] == "--env_name=cube-single-play"
    assert command.split()[2] == f"--dataset_dir={directory}"
    assert re.fullmatch(r"about \d+ (minutes|hours)", duration)

    with pytest.raises(UserError) as error:
        ogbench.load_datasets("humanoidmaze-large-navigate-singletask-v0", directory)
    assert f"{url}/humanoidmaze-large-navigate-v0.npz" in str(error.value)
    assert "collect" not in str(error.value)


# Datasets ----------------------------------------------------------------------------------------


@pytest.fixture
def damaged(maze_dir, tmp_path):
    """A function that saves the training file with changed arrays and loads the dataset."""
    for name in MAZE_FILES:
        (tmp_path / name).write_bytes((maze_dir / name).read_bytes())
    path = tmp_path / MAZE_FILES[0]

    def load(**changes):
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays |= {key: change(arrays[key]) for key, change in changes.items()}
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return ogbench.load_datasets(MAZE, tmp_path)

    load.path = path
    return load


def nan_in_row_5(array):
    array = array.copy()
    array[5] = np.nan
    return array


def huge_in_row_5(array):
    array = array.astype(np.float64)
    array[5] = 1e300
    return array


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"qpos": lambda a: None}, r"lacks qpos"),
        ({"observations": lambda a: a[:, :1]}, r"'observations' .*shape \(63, 1\).*\(rows, 2\)"),
        ({"actions": lambda a: a[:, 0]}, r"'actions' .*shape \(63,\).*\(rows, 2\)"),
        ({"qvel": lambda a: np.zeros((63, 9), np.float32)}, r"'qvel' .*shape \(63, 9\)"),
        ({"actions": lambda a: a[:-1]}, r"'actions' .*has 62 rows where the first array has 63"),
        ({"actions": nan_in_row_5}, r"'actions' .*not finite in row 5"),
        ({"qpos": nan_in_row_5}, r"'qpos' .*not finite in row 5"),
        ({"observations": lambda a: a.astype(str)}, r"'observations' .*has dtype <U"),
        ({"actions": lambda a: a.astype(object)}, r"pickled data is refused"),
        ({"actions": huge_in_row_5}, r"'actions' .*not finite in row 5, as float32"),
        ({"observations": huge_in_row_5}, r"'observations' .*not finite in row 5, as float32"),
        ({"terminals": lambda a: np.float32(1)}, r"'terminals' .*shape \(\)"),
        ({"qpos": lambda a: np.float32(1)}, r"'qpos' .*shape \(\)"),
        ({"terminals": np.zeros_like}, r"ends within an episode"),
        ({"terminals": np.ones_like}, r"holds no transition"),
        (
            {k: lambda a: a[:0] for k in ("observations", "actions", "terminals", "qpos", "qvel")},
            r"is empty",
        ),
    ],
)
def test_bad_file_is_refused_by_name(damaged, changes, problem):
    with pytest.raises(UserError, match=problem) as error:
        damaged(**changes)
    assert str(damaged.path) in str(error.value)
    assert "; delete it to have it downloaded again, or delete both files and collect" in str(
        error.value
    )


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_file_is_refused(damaged, keep):
    damaged.path.write_bytes(damaged.path.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{damaged.path.name} is (truncated|not an npz)"):
        ogbench.load_datasets(MAZE, damaged.path.parent)


def test_flipped_bytes_are_refused(damaged):
    body = bytearray(damaged.path.read_bytes())
    body[len(body) // 3] ^= 0xFF
    damaged.path.write_bytes(body)
    with pytest.raises(UserError, match=re.escape(damaged.path.name)):
        ogbench.load_datasets(MAZE, damaged.path.parent)


@pytest.mark.parametrize("rows", ["1" + 13 * "0", "1" + 30 * "0", "-7", "'", "("])
def test_absurd_headers_are_refused(damaged, rows):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 2), }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with np.load(damaged.path) as archive:
        names = archive.files
    with zipfile.ZipFile(damaged.path, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", body)
    with pytest.raises(UserError, match=re.escape(damaged.path.name)) as error:
        ogbench.load_datasets(MAZE, damaged.path.parent)
    assert "\n" not in str(error.value)


def test_pickle_is_never_loaded(damaged):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    damaged.path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="pickled data is refused"):
        ogbench.load_datasets(MAZE, damaged.path.parent)


def test_files_of_scene_need_button_states(tmp_path):
    env = make_env("scene-play-singletask-v0")
    columns = ogbench.dataset_columns("scene-play-singletask-v0", env)
    assert columns["button_states"].shape == (2,)
    assert columns["observations"].shape == (40,)
    np.savez(tmp_path / "scene.npz", observations=np.zeros((3, 40), np.float32))
    with pytest.raises(UserError, match=r"lacks .*button_states"):
        files.read_arrays(tmp_path / "scene.npz", columns, "Remedy.")


def test_loading_looks_for_no_opengl_and_images_work_afterwards(maze_dir):
    code = (
        "import os, sys; from utils.envs import rendering, tasks;"
        "rendering._try, tried = None, rendering._try;"
        "tasks.load_datasets(sys.argv[1], sys.argv[2]); print('MUJOCO_GL' in os.environ);"
        "rendering._try = tried; env = tasks.make_env(sys.argv[1]); env.reset(seed=0);"
        "print(rendering.choose_gl() == 'disabled' or env.unwrapped.render().std() > 1);"
        "env.close()"
    )
    result = run_python(code, MAZE, maze_dir, MUJOCO_GL=None)
    assert result.stdout.split() == ["False", "True"], result.stderr


def test_loading_images_needs_no_opengl(tmp_path):
    full_name = "visual-cube-single-play-singletask-v0"
    rng = np.random.default_rng(0)
    sizes = {"actions": 5, "qpos": 21, "qvel": 20}
    data = {key: rng.uniform(-1, 1, (4, size)).astype(np.float32) for key, size in sizes.items()}
    data["observations"] = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)
    for suffix in ("", "-val"):
        path = tmp_path / f"{names.dataset_name(full_name)}{suffix}.npz"
        np.savez(path, terminals=np.arange(4) == 3, **data)
    code = (
        "import sys; from utils.envs import tasks;"
        "train, _ = tasks.load_datasets(sys.argv[1], sys.argv[2]);"
        "print(train['observations'].dtype, train['rewards'])"
    )
    result = run_python(code, full_name, tmp_path, MUJOCO_GL="disabled")
    assert result.stdout.strip() == "uint8 [-1. -1. -1.]", result.stderr


def test_images_are_loaded_once(tmp_path):
    """Frames of 40 episodes; little else is in memory meanwhile, and what follows them is kept."""
    full_name = "visual-cube-single-play-singletask-task1-v0"
    rng, rows = np.random.default_rng(0), 2000
    sizes = {"actions": 5, "qpos": 21, "qvel": 20}
    data = {key: rng.uniform(-1, 1, (rows, n)).astype(np.float32) for key, n in sizes.items()}
    data["observations"] = rng.integers(0, 256, (rows, 64, 64, 3), np.uint8)
    peaks = []
    for training in (50, rows):  # the former tells what the environment takes
        for suffix, count in (("", training), ("-val", 50)):
            path = tmp_path / f"{names.dataset_name(full_name)}{suffix}.npz"
            split = {name: array[:count] for name, array in data.items()}
            np.savez(path, terminals=np.arange(count) % 50 == 49, **split)
        gc.collect()
        gc.disable()  # The environment leaves much garbage, which would be collected at any time.
        tracemalloc.start()
        try:
            train, val = ogbench.load_datasets(full_name, tmp_path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
            gc.enable()
    assert peaks[1] - peaks[0] < 1.3 * data["observations"].nbytes
    assert train["observations"].frames is train["next_observations"].frames
    start = np.flatnonzero(np.arange(rows) % 50 != 49)
    assert len(train["rewards"]) == len(start) == 1960
    rows = np.array([0, 48, 49, 700])  # of transitions: an episode ends with the second
    for name, following in (("observations", 0), ("next_observations", 1)):
        expected = data["observations"][start[rows] + following]
        np.testing.assert_array_equal(train[name][rows], expected)
    np.testing.assert_array_equal(np.flatnonzero(val["terminals"]), [48])


def test_data_larger_than_the_memory_are_refused_before_they_are_read(damaged, monkeypatch):
    both = sum(files.npz_bytes(damaged.path.parent / name) for name in MAZE_FILES)
    monkeypatch.setattr(ogbench, "available_memory", lambda: 2 * both)
    damaged()
    monkeypatch.setattr(ogbench, "available_memory", lambda: 2 * both - 1)
    monkeypatch.setattr(files, "read_arrays", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match=r"-v0-val\.npz takes 0\.0 GiB of memory, and 0\.0 GiB can"):
        ogbench.load_datasets(MAZE, damaged.path.parent)


def test_loaded_transitions(damaged):
    train, val = damaged()
    with np.load(damaged.path) as archive:
        rows = archive["observations"].reshape(3, 21, 2)
    np.testing.assert_array_equal(train["observations"], rows[:, :-1].reshape(60, 2))
    np.testing.assert_array_equal(train["next_observations"], rows[:, 1:].reshape(60, 2))
    np.testing.assert_array_equal(np.flatnonzero(train["terminals"]), [19, 39, 59])
    assert len(val["rewards"]) == 20
    assert {array.dtype for array in train.values()} == {np.dtype(np.float32)}
    assert np.abs(train["actions"]).max() == np.float32(1 - 1e-5)


def test_rewards_depend_on_the_task_alone(damaged):
    goal = np.array([20.0, 20.0], np.float32)  # Task 1's cell (6, 6).

    def visit(array):
        array = array.copy()
        array[7] = goal
        return array

    train, _ = damaged(qpos=visit)
    np.testing.assert_array_equal(np.flatnonzero(train["rewards"] == 0), [7])
    np.testing.assert_array_equal(train["masks"], -train["rewards"])
    np.random.seed(3)
    again, _ = ogbench.load_datasets(MAZE, damaged.path.parent)
    np.testing.assert_array_equal(again["rewards"], train["rewards"])
    other, _ = ogbench.load_datasets(MAZE.replace("-v0", "-task2-v0"), damaged.path.parent)
    assert not np.array_equal(other["rewards"], train["rewards"])


def test_loading_takes_less_than_twice_the_memory_of_what_is_loaded(tmp_path):
    name, rows = "antmaze-large-navigate-singletask-v0", 100_000
    random = np.random.default_rng(0)
    columns = {"observations": 29, "actions": 8, "qpos": 15, "qvel": 14}
    arrays = {
        key: random.standard_normal((rows, width), np.float32) for key, width in columns.items()
    }
    stem = tmp_path / names.dataset_name(name)
    np.savez(f"{stem}.npz", terminals=np.arange(rows) % 1000 == 999, **arrays)
    few = {key: array[:10] for key, array in arrays.items()}
    np.savez(f"{stem}-val.npz", terminals=np.arange(10) == 9, **few)
    ogbench.load_datasets(name, tmp_path)  # what is imported meanwhile does not count
    tracemalloc.start()
    try:
        train, _ = ogbench.load_datasets(name, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * sum(array.nbytes for array in train.values())
