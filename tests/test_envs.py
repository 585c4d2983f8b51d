import os
import pickle
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tests import loopback
from utils.envs import collect, files, names, ogbench, rendering
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def run_python(code, **env):
    """Runs code in an interpreter of its own; a value of None removes a variable."""
    merged = {**os.environ, "no_proxy": "*", **env}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={key: value for key, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Names -------------------------------------------------------------------------------------------


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
    assert names.resolve(typed) == full
    assert names.resolve(names.short_name(full)) == full


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
        names.resolve(typo)


@pytest.mark.parametrize("task", ["0", "6", "03"])
def test_unknown_task(task):
    with pytest.raises(UserError, match="cube-single-play-task1 to cube-single-play-task5"):
        names.resolve(f"cube-single-play-task{task}")


def test_name_like_no_other_lists_the_families():
    with pytest.raises(UserError, match=r"antmaze-large, .*puzzle-4x6"):
        names.resolve("walker2d")


def test_names_and_errors_import_neither_numpy_nor_jax_nor_mujoco():
    code = "import sys, utils.envs.names; print({'numpy', 'jax', 'mujoco'} & set(sys.modules))"
    assert run_python(code).stdout.strip() == "set()"


def test_environment_modules_never_import_jax():
    code = (
        "import sys, utils.collect.workers as c, utils.envs.ogbench as o;"
        "o.make_env('pointmaze-medium-navigate-singletask-v0'); print('jax' in sys.modules)"
    )
    result = run_python(code)
    assert result.stdout.strip() == "False", result.stderr


# Rendering ---------------------------------------------------------------------------------------


def test_choice_of_renderer_respects_what_is_set(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(rendering, "_works", lambda probe: pytest.fail("looked although set"))
    assert rendering.choose_gl() == "osmesa"


@pytest.mark.skipif(sys.platform != "linux", reason="MuJoCo chooses itself")
@pytest.mark.parametrize(
    ("working", "display", "chosen"),
    [
        (("egl", "osmesa", "glfw"), ":0", "egl"),
        (("osmesa", "glfw"), ":0", "osmesa"),
        (("glfw",), ":0", "glfw"),
        (("glfw",), None, "disabled"),
        ((), ":0", "disabled"),
    ],
)
def test_choice_of_renderer(monkeypatch, working, display, chosen):
    probes = {
        rendering._EGL_PROBE: "egl",
        rendering._OSMESA_PROBE: "osmesa",
        rendering._GLFW_PROBE: "glfw",
    }
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "_works", lambda probe: probes[probe] in working)
    assert rendering.choose_gl() == chosen == os.environ["MUJOCO_GL"]


def test_a_probe_that_aborts_or_fails_does_not_count():
    assert not rendering._works("import os; os.abort()")
    assert not rendering._works("raise OSError")
    assert rendering._works("pass")


def test_what_is_chosen_really_works():
    code = (
        "from utils.envs import names, ogbench, rendering; print(rendering.choose_gl());"
        "env = ogbench.make_env('cube-single-play-singletask-v0'); env.reset(seed=0);"
        "print(rendering.choose_gl() == 'disabled' or env.render().std() > 1); env.close()"
    )
    result = run_python(code, MUJOCO_GL=None)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1] == "True"
    assert result.stderr == ""


def test_without_opengl_environments_work_and_images_say_what_is_missing(monkeypatch):
    code = (
        "from utils.envs import ogbench\n"
        "for name in ('cube-single-play', 'pointmaze-medium-navigate'):\n"
        "    env = ogbench.make_env(f'{name}-singletask-v0')\n"
        "    env.reset(seed=0)\n"
        "    print(env.step(env.action_space.sample())[1])\n"
    )
    result = run_python(code, MUJOCO_GL="disabled")
    assert result.stdout.split() == ["-1.0", "-1.0"], result.stderr
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(UserError, match=r"videos need OpenGL .*libegl1 libgl1, or libosmesa6"):
        rendering.require_gl("videos")
    with pytest.raises(UserError, match="pixel observations need OpenGL"):
        ogbench.make_env("visual-cube-single-play-singletask-v0")


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

    used, fresh = (ogbench.make_env(names.resolve(name)) for _ in range(2))
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


def test_mazes_leave_the_global_generator_alone():
    env = ogbench.make_env("pointmaze-teleport-navigate-singletask-v0")
    np.random.seed(0)
    expected = np.random.RandomState(0).uniform(size=3)
    drawn = [np.random.uniform()]
    env.reset(seed=5)
    drawn.append(np.random.uniform())
    env.step(env.action_space.sample())
    drawn.append(np.random.uniform())
    np.testing.assert_array_equal(drawn, expected)


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def maze_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("maze")
    collect.collect(
        "pointmaze-medium-navigate", episodes=3, episode_length=20, dataset_dir=directory
    )
    return directory


MAZE = "pointmaze-medium-navigate-singletask-v0"
MAZE_FILES = ("pointmaze-medium-navigate-v0.npz", "pointmaze-medium-navigate-v0-val.npz")


def maze_files(maze_dir):
    return {f"/{name}": (maze_dir / name).read_bytes() for name in MAZE_FILES}


def test_eight_processes_download_each_file_once(maze_dir, tmp_path):
    code = (
        "import sys; from utils.envs import ogbench;"
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


def test_truncated_download_is_refused_and_can_be_repeated(tmp_path):
    body = bytes(range(256)) * 64
    path = tmp_path / "folder" / "file.npz"
    with loopback.serve({"/file.npz": body}) as server:
        server.truncate = 1000
        with pytest.raises(UserError, match=r"ended after 1000 of 16384 bytes") as error:
            files.ensure(f"{server.url}/file.npz", path)
        assert str(path) in str(error.value)
        assert not path.exists()
        server.truncate = None
        assert files.ensure(f"{server.url}/file.npz", path) == path
        assert path.read_bytes() == body
        files.ensure(f"{server.url}/file.npz", path)
        assert server.requests["/file.npz"] == 2


def test_killed_download_leaves_no_file_and_can_be_repeated(tmp_path):
    body = bytes(range(256)) * 4096
    path = tmp_path / "file.npz"
    code = "import sys; from utils.envs import files; files.ensure(*sys.argv[1:])"
    with loopback.serve({"/file.npz": body}) as server:
        server.hang = True
        url = f"{server.url}/file.npz"
        process = subprocess.Popen(
            [sys.executable, "-c", code, url, path], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        part = tmp_path / ".file.npz.part"
        wait_for(lambda: part.exists() and part.stat().st_size > 0)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
        assert part.exists()
        assert not path.exists()
        server.hang = False
        assert files.ensure(url, path).read_bytes() == body
        assert not part.exists()


@pytest.mark.parametrize("missing", ["page", "server"])
def test_failed_download_names_url_path_and_command(tmp_path, monkeypatch, missing):
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
    assert f"{url}/cube-single-play-v0.npz" in message
    assert str(directory / "cube-single-play-v0.npz") in message
    assert reason in message
    command = re.search(r"`python -m utils\.envs\.collect (.*)`", message)[1].split()
    assert command[0] == "--env_name=cube-single-play"
    assert command[2] == f"--dataset_dir={directory}"

    with pytest.raises(UserError) as error:
        ogbench.load_datasets("antmaze-large-navigate-singletask-v0", directory)
    assert f"{url}/antmaze-large-navigate-v0.npz" in str(error.value)
    assert "collect" not in str(error.value)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


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
    assert "Delete it to have it downloaded again, or collect" in str(error.value)


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


def test_pickle_is_never_loaded(damaged):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    damaged.path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="pickled data is refused"):
        ogbench.load_datasets(MAZE, damaged.path.parent)


def test_files_of_scene_need_button_states(tmp_path):
    env = ogbench.make_env("scene-play-singletask-v0")
    columns = ogbench._columns("scene-play-singletask-v0", env)
    assert columns["button_states"].shape == (2,)
    assert columns["observations"].shape == (40,)
    np.savez(tmp_path / "scene.npz", observations=np.zeros((3, 40), np.float32))
    with pytest.raises(UserError, match=r"lacks .*button_states"):
        files.read_arrays(tmp_path / "scene.npz", columns, "Remedy.")


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
