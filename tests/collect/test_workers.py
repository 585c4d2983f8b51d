import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from utils.collect import episode_files, workers
from utils.collect.__main__ import main
from utils.collect.ant.walker import SHIPPED, Walker
from utils.collect.collectors import EpisodeWorker, file_columns
from utils.collect.config import CollectionConfig
from utils.collect.pool import run_jobs
from utils.envs.ogbench import names
from utils.envs.ogbench.data import load_datasets
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MAZE = "pointmaze-giant-navigate"


def contents(directory):
    """The bytes of all visible files."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name[0] != "."}


def start_command(directory, *flags, env_name=MAZE):
    """Starts the command in a process group of its own, as a terminal does."""
    arguments = [f"--env_name={env_name}", f"--dataset_dir={directory}", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "utils.collect", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_command(*args, **kwargs):
    process = start_command(*args, **kwargs)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def config_for(env_name, rows, seed=0):
    return CollectionConfig.create(names.resolve(env_name), rows, seed)


# How it is collected -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*Box (low|high)'s precision:UserWarning")
@pytest.mark.parametrize(
    ("env_name", "width", "action_width"),
    [
        ("pointmaze-medium-stitch", 2, 2),
        ("antmaze-teleport-navigate", 29, 8),
        pytest.param("cube-single-play", 28, 5, marks=pytest.mark.slow),
        ("scene-noisy", 40, 5),
        pytest.param("puzzle-4x4-play", 83, 5, marks=pytest.mark.slow),
    ],
)
def test_ogbench_loads_the_files(tmp_path, env_name, width, action_width):
    import ogbench as package

    report = workers.collect(env_name, dataset_dir=tmp_path, episodes=2, episode_length=15)
    assert report.tally.steps >= 3 * 16
    with np.load(report.train_path) as archive:
        arrays = dict(archive)
    buttons = {"button_states"} if env_name.startswith(("scene", "puzzle")) else set()
    assert set(arrays) == {"observations", "actions", "terminals", "qpos", "qvel"} | buttons
    assert arrays["observations"].shape == (32, width)
    assert arrays["actions"].shape == (32, action_width)
    np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]), [15, 31])
    assert arrays.pop("terminals").dtype == bool
    assert all(arrays.pop(key).dtype == np.int64 for key in buttons)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}

    full_name = names.resolve(env_name)
    theirs = package.make_env_and_datasets(full_name, dataset_dir=tmp_path, success_timing="post")[
        1:
    ]
    for our_split, their_split in zip(load_datasets(full_name, tmp_path), theirs, strict=True):
        assert set(our_split) == set(their_split)
        their_split["actions"] = np.clip(their_split["actions"], -1 + 1e-5, 1 - 1e-5)
        for key, array in our_split.items():
            assert array.dtype == their_split[key].dtype
            np.testing.assert_array_equal(array, their_split[key])


def test_number_of_workers_does_not_matter(tmp_path):
    flags = {"episodes": 4, "val_episodes": 2, "episode_length": 30, "seed": 3}
    for count in (1, 2):
        workers.collect(
            "cube-single-play", dataset_dir=tmp_path / str(count), workers=count, **flags
        )
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert set(one) == {"cube-single-play-v0.npz", "cube-single-play-v0-val.npz"}
    assert one == two


FLAGS = ("--episodes=20", "--episode_length=800", "--workers=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    code, out, err = run_command(directory, *FLAGS)
    assert code == 0, err
    assert "steps per second" in out
    assert "\r" not in out + err  # no bar between the lines of a log
    assert not (directory / ".pointmaze-giant-navigate-v0.collecting").exists()
    return contents(directory)


def interrupt(directory, signals):
    """Sends signals to a collection that has finished a few episodes; returns its end."""
    process = start_command(directory, *FLAGS)
    folder = directory / ".pointmaze-giant-navigate-v0.collecting"
    wait_for(lambda: len(list(folder.glob("train-??????.npz"))) >= 3)
    workers = children(process.pid)
    assert len(workers) == 2
    signals(process)
    out, err = process.communicate(timeout=60)
    wait_for(lambda: not any(is_running(pid) for pid in workers), seconds=20)
    finished = len(list(folder.glob("*-??????.npz")))
    assert 3 <= finished < 22
    assert contents(directory) == {}
    return process.returncode, out, err


def test_continues_after_a_kill(tmp_path, undisturbed):
    code, _, _ = interrupt(tmp_path, lambda process: process.kill())
    assert code == -signal.SIGKILL
    code, out, err = run_command(tmp_path, *FLAGS)
    assert code == 0, err
    assert "of 22 episodes are there already" in out
    assert contents(tmp_path) == undisturbed


def test_ctrl_c_leaves_no_worker(tmp_path):
    code, _, err = interrupt(tmp_path, lambda process: os.killpg(process.pid, signal.SIGINT))
    assert code == 128 + signal.SIGINT
    assert err.strip().endswith("interrupted; repeat the command to continue.")
    assert "Traceback" not in err


def test_dead_worker_is_reported(tmp_path):
    def kill_a_worker(process):
        os.kill(children(process.pid)[-1], signal.SIGKILL)

    code, _, err = interrupt(tmp_path, kill_a_worker)
    assert code == 1
    assert "error: a worker process died" in err
    assert "Traceback" not in err


def test_death_between_the_two_files_can_be_continued(tmp_path, monkeypatch):
    settings = {"episodes": 1, "episode_length": 5, "dataset_dir": tmp_path}
    first, second = f"{MAZE}-v0.npz", f"{MAZE}-v0-val.npz"
    replace = os.replace

    def die_after_the_first(source, target):
        replace(source, target)
        if Path(target).name == first:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        workers.collect(MAZE, **settings)
    monkeypatch.undo()
    before = contents(tmp_path)
    assert set(before) == {first}
    assert workers.collect(MAZE, **settings).tally.steps == 0
    after = contents(tmp_path)
    assert set(after) == {first, second}
    assert after[first] == before[first]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_file_that_appears_meanwhile_is_kept_and_so_is_what_was_collected(tmp_path, monkeypatch):
    settings = {"episodes": 1, "episode_length": 5, "dataset_dir": tmp_path}
    appeared = tmp_path / f"{MAZE}-v0-val.npz"

    def run_and_put_a_file_there(*arguments, **words):
        appeared.write_bytes(b"downloaded")
        return run_jobs(*arguments, **words)

    monkeypatch.setattr(workers, "run_jobs", run_and_put_a_file_there)
    for _ in range(2):
        with pytest.raises(UserError, match=r"-val\.npz has appeared while .* and both are kept"):
            workers.collect(MAZE, **settings, if_missing=True)
        assert contents(tmp_path) == {appeared.name: b"downloaded"}
    appeared.unlink()
    assert workers.collect(MAZE, **settings, if_missing=True).tally.steps == 0
    assert len(contents(tmp_path)) == 2
    assert appeared.read_bytes() != b"downloaded"


def test_where_both_files_are_nothing_is_collected(tmp_path):
    for name in (f"{MAZE}-v0.npz", f"{MAZE}-v0-val.npz"):
        (tmp_path / name).write_bytes(b"mine")
    folder = tmp_path / f".{MAZE}-v0.collecting"
    (folder / "merged-500-50").mkdir(parents=True)  # of one that died after its last move
    before = contents(tmp_path)
    report = workers.collect(MAZE, dataset_dir=tmp_path, if_missing=True)
    assert report.tally.steps == 0
    assert contents(tmp_path) == before
    assert not folder.exists()
    kept = folder / "merged-500-50" / "val.npz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"collected")
    workers.collect(MAZE, dataset_dir=tmp_path, if_missing=True)
    assert kept.exists()


def test_what_was_moved_and_deleted_is_collected_anew(tmp_path):
    (tmp_path / f".{MAZE}-v0.collecting" / "merged-1-1").mkdir(parents=True)
    flags = {"episodes": 1, "episode_length": 5, "dataset_dir": tmp_path}
    assert workers.collect(MAZE, **flags, if_missing=True).tally.steps == 2 * 6
    assert len(contents(tmp_path)) == 2


def test_one_file_without_the_other_is_in_the_way(tmp_path):
    train = tmp_path / f"{MAZE}-v0.npz"
    train.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"-v0\.npz is there without .*-val\.npz; move it away"):
        workers.collect(MAZE, dataset_dir=tmp_path, if_missing=True)
    assert contents(tmp_path) == {train.name: b"mine"}


def test_unfinished_collection_of_other_settings(tmp_path):
    folder = tmp_path / ".pointmaze-giant-navigate-v0.collecting"
    small = {"episodes": 1, "episode_length": 5, "dataset_dir": tmp_path}
    config = config_for(MAZE, rows=6, seed=1)
    episode_files.prepare(folder, config, overwrite=False)
    shard = episode_files.shard(folder, "train", 0)
    shard.write_bytes(b"of seed 1")
    with pytest.raises(UserError, match=r"made with seed=1 instead of 0; .*--overwrite"):
        workers.collect(MAZE, **small)
    assert shard.exists()
    with pytest.raises(UserError, match=r"train-000000\.npz was damaged and has been removed"):
        workers.collect(MAZE, **small, seed=1)
    assert not shard.exists()
    workers.collect(MAZE, **small, overwrite=True)
    replaced = contents(tmp_path)
    with pytest.raises(UserError, match=r"npz exists already; pass --overwrite"):
        workers.collect(MAZE, **small)
    workers.collect(MAZE, **small, seed=2, overwrite=True)
    assert contents(tmp_path).keys() == replaced.keys()
    assert contents(tmp_path) != replaced


def test_another_walker_does_not_go_on(tmp_path):
    other = tmp_path / "other.npz"
    walker = Walker.load()
    Walker(walker.layers, walker.facts | {"seed": "another"}).save(other)
    flags = {"episodes": 1, "episode_length": 4, "dataset_dir": tmp_path}
    config = config_for("antmaze-medium-stitch", rows=5)
    folder = tmp_path / ".antmaze-medium-stitch-v0.collecting"
    episode_files.prepare(folder, config, overwrite=False)
    with pytest.raises(UserError, match=r"made with walker=[0-9a-f]{64} instead of [0-9a-f]{64};"):
        workers.collect("antmaze-medium-stitch", walker=other, **flags)
    shipped = workers.collect("antmaze-medium-stitch", **flags)
    assert shipped.tally.steps == 2 * 5


def test_a_copy_of_the_walker_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    copy = shutil.copy(SHIPPED, tmp_path / "copy.npz")
    create = functools.partial(CollectionConfig.create, names.resolve("antmaze-medium-stitch"), 5)
    assert create(0).settings() == create(0, copy).settings()
    assert create(0).settings() == create(0, "~/copy.npz").settings()
    assert create(0).settings() != create(1).settings()


def test_damaged_walker_is_refused_before_workers_start(tmp_path):
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(SHIPPED.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"damaged\.npz is truncated or damaged"):
        workers.collect("antmaze-medium-stitch", dataset_dir=tmp_path / "data", walker=damaged)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_an_ant_walks_the_same_way_with_other_kernels_threads_and_workers(tmp_path, monkeypatch):
    flags = ("--episodes=3", "--val_episodes=1", "--episode_length=400")
    for kernel, count in (("Haswell", 1), ("Prescott", 2)):
        monkeypatch.setenv("OPENBLAS_CORETYPE", kernel)
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(count))
        code, out, err = run_command(
            tmp_path / kernel, *flags, f"--workers={count}", env_name="antmaze-large-navigate"
        )
        assert code == 0, err
        assert "m per step in the direction told" in out
    assert contents(tmp_path / "Haswell") == contents(tmp_path / "Prescott")


def test_more_episodes_go_on_from_fewer(tmp_path):
    small = {"episode_length": 5, "dataset_dir": tmp_path}
    folder = tmp_path / ".pointmaze-giant-navigate-v0.collecting"
    config = config_for(MAZE, rows=6)
    episode_files.prepare(folder, config, overwrite=False)
    EpisodeWorker(config, folder, file_columns)("train", 0)
    assert workers.collect(MAZE, episodes=2, **small).tally.steps == 2 * 6


def test_two_collections_of_one_dataset_do_not_mix(tmp_path):
    with (
        filelock.FileLock(tmp_path / ".pointmaze-giant-navigate-v0.collecting.lock"),
        pytest.raises(UserError, match="another process is collecting pointmaze-giant-navigate-v0"),
    ):
        workers.collect(MAZE, episodes=1, dataset_dir=tmp_path)


# Command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "env_name", "message"),
    [
        ([], "humanoidmaze-medium-stitch", "its expert takes 40 million environment steps"),
        ([], "antsoccer-arena-navigate", "its expert takes 12 million environment steps"),
        ([], "visual-humanoidmaze-giant-stitch", "from rail.eecs.berkeley.edu and huggingface.co)"),
        (["--walker=w.npz"], MAZE, "--walker is for ants, and pointmaze-giant-navigate-v0 has"),
        (["--walker=none.npz"], "antmaze-giant-stitch", "cannot read none.npz"),
        (["--from_states=s.npz"], MAZE, "--from_states is for arms with images, and not for"),
        (["--from_states=s.npz"], "visual-antmaze-medium-explore", "not for visual-antmaze-medium"),
        ([], "cube-singel-play", "did you mean cube-single-play"),
        ([], "pen-human", "pen-human-v1 cannot be collected locally, only OGBench's can"),
        (["--episode_length=0"], MAZE, "--episode_length must be at least 1, not 0"),
        (["--val_episodes=0"], MAZE, "--val_episodes must be at least 1, not 0"),
        (["--episodes=0"], MAZE, "--episodes must be at least 1, not 0"),
        (["--workers=0"], MAZE, "--workers must be at least 1, not 0"),
        (["--seed=-1"], MAZE, "--seed must be at least 0, not -1"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, flags, env_name, message):
    arguments = [f"--env_name={env_name}", f"--dataset_dir={tmp_path}", *flags]
    monkeypatch.setattr(sys, "argv", ["collect", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write the dataset to"):
        workers.collect(MAZE, episodes=1, dataset_dir=tmp_path / "file")


def test_images_need_opengl(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(UserError, match="pixel observations need OpenGL"):
        workers.collect("visual-cube-single-play", episodes=1, dataset_dir=tmp_path)


@pytest.mark.slow
def test_images_of_an_ant_are_collected(tmp_path, opengl):
    name = "visual-antmaze-large-explore"
    report = workers.collect(name, episodes=1, episode_length=3, dataset_dir=tmp_path)
    with np.load(report.train_path) as archive:
        assert archive["observations"].shape == (4, 64, 64, 3)
        assert archive["observations"].dtype == np.uint8
        assert archive["observations"].std() > 1
    train, _ = load_datasets(names.resolve(name), tmp_path)
    assert train["next_observations"].dtype == np.uint8


# Processes ---------------------------------------------------------------------------------------


def children(pid):
    """Process ids of the workers of a process, whichever of its threads started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    pids = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [p for p in pids if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
