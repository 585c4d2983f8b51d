"""Collects datasets: OGBench's with its own oracles, D4RL's with a policy of yours.

For OGBench the result is a training file and a validation file in its own format, made with the
official settings (oracle, noise, episode length, number of episodes) by the oracles that ship in
the ogbench package.

For D4RL it is one HDF5 file in D4RL's format under the task's own name, made with random actions
(--policy=random) or with the agent of a saved run (--policy=RUN_FOLDER). It stands in for D4RL's
file and is no copy of it. A row holds the state before a step, the action, the reward as the
environment gives it, and whether the episode ended by itself after it (terminals) or was cut off
(timeouts). Episodes end at the goal, unlike in D4RL's own antmaze files, which go on from there.

Every episode is seeded on its own, so the files depend on the settings and the seed alone: not on
the number of workers, and not on whether the collection was interrupted. Run the same command again
to continue after an interruption.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ClassVar

import filelock
import gymnasium
import numpy as np
from tqdm import tqdm

from utils.collect import rollouts
from utils.envs import names, rendering
from utils.envs.ogbench import DEFAULT_DATASET_DIR, make_registered
from utils.errors import UserError

SPLITS = ("train", "val")

_MAZE_NOISE = 0.5
_STITCH_CELLS = 4
_PLAN_NOISE = 0.1
_PLAN_SMOOTHING = 0.5
_MARKOV_MIN_NORM = 0.4
_MARKOV_NOISE = 0.1
# Standard deviations of the five action dimensions as multiples of the episode's noise level.
_MARKOV_NOISE_SCALE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
    "cube-octuple": (0.0, 0.35),
}
_STACKING_ELSEWHERE = (0.5, 0.5)
_SCENE_CUBE = slice(14, 17)  # The cube's position within qpos.
_D4RL_ROWS = 1_000_000  # About as many as D4RL's larger files have.


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that the contents of one OGBench episode depend on, apart from its number.

    Attributes:
        dataset: Stem of the dataset's file, `cube-single-play-v0` for instance.
        environment: Gymnasium id of the goal-conditioned environment.
        kind: `navigate`, `stitch`, `play` or `noisy`.
        rows: Rows per episode, one more than it has transitions.
        seed: Seed of the whole collection.
    """

    dataset: str
    environment: str
    kind: str
    rows: int
    seed: int

    @property
    def family(self) -> str:
        """The environment's name without version and without `visual-`."""
        return self.environment.removesuffix("-v0").removeprefix("visual-")

    @property
    def visual(self) -> bool:
        """Whether observations are images."""
        return self.environment.startswith("visual-")

    SUFFIX: ClassVar = ".npz"
    """Of the files."""

    PACKAGES: ClassVar = ("ogbench", "mujoco", "numpy")
    """What the episodes depend on too."""

    def make_collector(self) -> "_ArmCollector | _MazeCollector":
        """Returns what collects in a worker process."""
        maze = self.family.startswith("pointmaze")
        return _MazeCollector(self) if maze else _ArmCollector(self)

    def collect(self, collector, split: str, episode: int) -> tuple[dict[str, np.ndarray], int]:
        """Returns the arrays of one episode, and the environment steps that they took."""
        for attempt in itertools.count():
            data = collect_attempt(collector, self, split, episode, attempt)
            if data is not None:
                break
        return data, (attempt + 1) * self.rows

    def join(self, shards: list[Path], file) -> None:
        """Writes the file of all episodes."""
        _concatenate(shards, self, file)


@dataclasses.dataclass(frozen=True)
class D4RLRecipe:
    """Everything that the contents of one D4RL episode depend on, apart from its number.

    Attributes:
        dataset: Id of the task.
        policy: Who acts.
        rows: Bound on an episode's length.
        seed: Seed of the whole collection.
    """

    dataset: str
    policy: rollouts.Policy
    rows: int
    seed: int

    SUFFIX: ClassVar = ".hdf5"
    """Of the file."""

    PACKAGES: ClassVar = ("ogbench", "gymnasium-robotics", "mujoco", "numpy", "jax", "flax")
    """What the episodes depend on too."""

    def make_collector(self) -> rollouts.Rollouts:
        """Returns what collects in a worker process."""
        return rollouts.Rollouts(self.dataset, self.policy)

    def collect(
        self, collector: rollouts.Rollouts, split: str, episode: int
    ) -> tuple[dict[str, np.ndarray], int]:
        """Returns the arrays of one episode, and the environment steps that they took."""
        data = collector.episode([self.seed, SPLITS.index(split), episode], self.rows)
        return data, len(data["rewards"])

    def join(self, shards: list[Path], file) -> None:
        """Writes the file of all episodes."""
        _concatenate_hdf5(shards, self, file)


@dataclasses.dataclass(frozen=True)
class Report:
    """What a collection did.

    Attributes:
        train_path: The training file.
        val_path: The validation file; None for D4RL, which has none.
        steps: Environment steps taken now, without those of an earlier, interrupted run.
        seconds: Wall time of these steps, starting the workers included.
    """

    train_path: Path
    val_path: Path | None
    steps: int
    seconds: float


def official_size(full_name: str) -> tuple[int, int]:
    """Returns the official number of training episodes and rows per episode.

    There is no official file for cube-octuple in OGBench's standard size; it gets as many episodes
    as cube-quadruple.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    family, kind, _ = names.split(full_name)
    if not names.is_collectable(full_name):
        raise UserError(
            f"{family}-{kind} cannot be collected locally: its data come from an expert that has "
            "to be trained first and does not ship in the ogbench package; datasets of the "
            "families pointmaze, cube, scene and puzzle can be collected."
        )
    if kind == "stitch":
        return 5000, 201
    if kind == "navigate":
        return (500, 2001) if family == "pointmaze-giant" else (1000, 1001)
    family = family.removeprefix("visual-")
    if family in ("cube-triple", "puzzle-4x5"):
        return 3000, 1001
    if family in ("cube-quadruple", "cube-octuple", "puzzle-4x6"):
        return 5000, 1001
    return 1000, 1001


def collect(
    env_name: str,
    *,
    dataset_dir: str | os.PathLike | None = None,
    episodes: int | None = None,
    val_episodes: int | None = None,
    episode_length: int | None = None,
    policy: str | None = None,
    policy_seed: int | None = None,
    workers: int = 1,
    seed: int = 0,
    overwrite: bool = False,
) -> Report:
    """Collects the files of a dataset, or what is missing of them.

    Args:
        env_name: Short or full name; the task of an OGBench name does not matter.
        dataset_dir: Folder for the files, the suite's own by default.
        episodes: Training episodes; the official number by default, or for D4RL as many as make a
            million steps if none ends early.
        val_episodes: Validation episodes, of OGBench only; a tenth of `episodes`, at least one, by
            default.
        episode_length: Transitions per episode; the official number by default. For D4RL it is the
            most that an episode may have, the task's horizon by default.
        policy: Who acts, for D4RL only: "random", or the folder of a run.
        policy_seed: Which of the run's training seeds; its first by default.
        workers: Number of processes.
        seed: Seed of the collection, at least 0.
        overwrite: Replace existing files, and drop an unfinished collection of other settings.

    Returns:
        The files' paths and how fast it went.

    Raises:
        UserError: The dataset cannot be collected locally, an argument is out of range, a file is
            in the way, an unfinished collection has other settings, or a worker died.
    """
    full_name = names.resolve(env_name)
    if names.is_d4rl(full_name):
        if val_episodes is not None:
            raise UserError("--val_episodes is for OGBench; D4RL has no validation files.")
        if policy is None:
            raise UserError(
                f"{full_name} needs a --policy to collect with: random, or the folder of a run."
            )
        horizon = names.D4RL_TASKS[full_name].horizon
        rows = horizon if episode_length is None else episode_length
        if rows > horizon:
            raise UserError(f"--episode_length must be at most {full_name}'s horizon, {horizon}.")
        counts = {"train": -(-_D4RL_ROWS // max(rows, 1)) if episodes is None else episodes}
    else:
        if policy is not None or policy_seed is not None:
            raise UserError(
                "--policy and --policy_seed are for D4RL; OGBench's data come from its oracles."
            )
        official_episodes, rows = official_size(full_name)
        episodes = official_episodes if episodes is None else episodes
        if val_episodes is None:
            val_episodes = max(1, episodes // 10)
        counts = {"train": episodes, "val": val_episodes}
        rows = rows if episode_length is None else episode_length + 1
    for flag, value, least in (
        ("episodes", counts["train"], 1),
        ("val_episodes", counts.get("val", 1), 1),
        ("episode_length", 1 if episode_length is None else episode_length, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{flag} must be at least {least}, not {value}.")

    stem = names.dataset_name(full_name)
    if names.is_d4rl(full_name):
        from utils.envs.d4rl.data import dataset_path

        found = rollouts.find_policy(full_name, policy, policy_seed)
        recipe = D4RLRecipe(full_name, found, rows, seed)
        targets = {"train": dataset_path(full_name, dataset_dir)}
    else:
        environment = names.collection_id(full_name)
        recipe = Recipe(stem, environment, names.split(full_name)[1], rows, seed)
        directory = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser()
        targets = {"train": directory / f"{stem}.npz", "val": directory / f"{stem}-val.npz"}
    if full_name.startswith("visual-"):
        rendering.require_gl("pixel observations")
    else:
        rendering.choose_gl()

    directory = targets["train"].parent
    folder = directory / f".{stem}.collecting"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock", timeout=0):
            return _collect(recipe, counts, targets, folder, workers, overwrite)
    except filelock.Timeout:
        raise UserError(f"another process is collecting {stem} in {directory}.") from None
    except OSError as error:
        raise UserError(f"cannot write the dataset to {directory}: {error}") from error


def _collect(
    recipe: Recipe | D4RLRecipe,
    counts: dict[str, int],
    targets: dict[str, Path],
    folder: Path,
    workers: int,
    overwrite: bool,
) -> Report:
    """Does what `collect` says; the caller holds the lock of `folder`."""
    merged = folder / "-".join(["merged", *map(str, counts.values())])
    # With `merged` present an earlier run died while it moved the files into place, so one of them
    # may be there already and is ours.
    existing = [path for path in targets.values() if path.exists()]
    if existing and not overwrite and not merged.exists():
        raise UserError(
            f"{existing[0]} exists already; pass --overwrite to replace it, or another "
            "--dataset_dir to keep it."
        )
    _prepare_folder(folder, recipe, overwrite)

    steps, seconds = 0, 0.0
    if not merged.exists():
        missing = [
            (split, episode)
            for split, count in counts.items()
            for episode in range(count)
            if not _shard(folder, split, episode).exists()
        ]
        finished = sum(counts.values()) - len(missing)
        if finished:
            print(f"continuing: {finished} of {sum(counts.values())} episodes are there already.")
        start = time.monotonic()
        steps = _run_workers(recipe, folder, missing, finished, workers)
        seconds = time.monotonic() - start
        _merge(folder, counts, recipe, merged)
    for split, target in targets.items():
        source = merged / f"{split}{recipe.SUFFIX}"
        if source.exists():
            os.replace(source, target)
    shutil.rmtree(folder)
    return Report(targets["train"], targets.get("val"), steps, seconds)


def _settings(recipe: Recipe | D4RLRecipe) -> dict:
    """Returns all that episodes depend on, in JSON's types."""
    # Episodes of two versions would not make one dataset.
    versions = {package: importlib.metadata.version(package) for package in recipe.PACKAGES}
    return json.loads(json.dumps(dataclasses.asdict(recipe) | versions))


def _prepare_folder(folder: Path, recipe: Recipe | D4RLRecipe, overwrite: bool) -> None:
    """Creates the folder of finished episodes, or checks that the one there has these settings."""
    settings = _settings(recipe)
    settings_path = folder / "settings.json"
    if settings_path.exists():
        before = json.loads(settings_path.read_text())
        differences = [
            f"{key}={before.get(key)} instead of {value}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if not differences:
            for leftover in folder.glob("*.tmp-*"):
                leftover.unlink()
            return
        if not overwrite:
            raise UserError(
                f"an unfinished collection in {folder} was made with {', '.join(differences)}; "
                "repeat its command to finish it, or pass --overwrite to discard it."
            )
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    _write_atomically(settings_path, lambda file: file.write(json.dumps(settings).encode()))


def _run_workers(
    recipe: Recipe | D4RLRecipe,
    folder: Path,
    jobs: list[tuple[str, int]],
    finished: int,
    workers: int,
) -> int:
    """Collects the episodes of `jobs` in worker processes and returns the steps taken."""
    if not jobs:
        return 0
    steps = 0
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(recipe, folder),
    )
    try:
        with tqdm(
            total=finished + len(jobs),
            initial=finished,
            desc=recipe.dataset,
            unit="episode",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        ) as bar:
            with _ctrl_c_ignored():
                futures = [pool.submit(_collect_episode, *job) for job in jobs]
            for future in as_completed(futures):
                steps += future.result()
                bar.update()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for lack of memory; finished episodes are kept, repeat "
            "the command to continue, with fewer --workers if need be."
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return steps


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Makes the processes started meanwhile ignore SIGINT from their first instruction on.

    Ctrl-C reaches the whole process group, but the parent alone decides what to do about it.
    """
    if threading.current_thread() is not threading.main_thread():  # Python forbids it there.
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _merge(folder: Path, counts: dict[str, int], recipe: Recipe | D4RLRecipe, merged: Path) -> None:
    """Joins the episodes into one file per split, with one episode in memory at a time."""
    for leftover in folder.glob("merg*"):
        shutil.rmtree(leftover)
    merging = folder / "merging"
    merging.mkdir()
    for split, count in counts.items():
        shards = [_shard(folder, split, episode) for episode in range(count)]
        path = merging / f"{split}{recipe.SUFFIX}"
        _write_atomically(path, functools.partial(recipe.join, shards))
    os.replace(merging, merged)


def _concatenate(shards: list[Path], recipe: Recipe, file) -> None:
    """Writes the compressed concatenation of npz files, the way `np.savez_compressed` would."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, example in _read(shards[0]).items():
            # A fixed date makes the file itself, not only its arrays, a function of the seed.
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            header = {
                "descr": np.lib.format.dtype_to_descr(example.dtype),
                "fortran_order": False,
                "shape": (len(shards) * recipe.rows, *example.shape[1:]),
            }
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for shard in tqdm(shards, f"joining {key}", leave=False, delay=2, unit="episode"):
                    member.write(_read(shard, key)[key].tobytes())


def _concatenate_hdf5(shards: list[Path], recipe: D4RLRecipe, file) -> None:
    """Writes the compressed concatenation of npz files as HDF5, under the name of an open file."""
    import h5py

    rows = [len(_read(shard, "rewards")["rewards"]) for shard in tqdm(shards, leave=False, delay=2)]
    with h5py.File(file.name, "w") as target:
        # Says what the file is, should it be found where D4RL's own is expected.
        target.attrs["collected"] = json.dumps(_settings(recipe))
        for key, example in _read(shards[0]).items():
            shape = (sum(rows), *example.shape[1:])
            column = target.create_dataset(key, shape, example.dtype, compression="gzip")
            end = 0
            for shard in tqdm(shards, f"joining {key}", leave=False, delay=2, unit="episode"):
                array = _read(shard, key)[key]
                column[end : end + len(array)] = array
                end += len(array)


def _read(shard: Path, *keys: str) -> dict[str, np.ndarray]:
    """Reads arrays, by default all, of an episode that a crash of the machine may have damaged."""
    try:
        with open(shard, "rb") as file, np.load(file, allow_pickle=False) as data:
            return {key: data[key] for key in keys or data.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        shard.unlink()
        raise UserError(
            f"the finished episode {shard} was damaged and has been removed; repeat the command "
            "to collect it again."
        ) from error


def _shard(folder: Path, split: str, episode: int) -> Path:
    """Returns the path of a finished episode."""
    return folder / f"{split}-{episode:06d}.npz"


def _write_atomically(path: Path, write) -> None:
    """Calls `write` with an open temporary file that then takes its place as `path`."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


# Worker processes --------------------------------------------------------------------------------

_worker: "tuple[Recipe | D4RLRecipe, Path, _ArmCollector | _MazeCollector | rollouts.Rollouts]"


def _start_worker(recipe: Recipe | D4RLRecipe, folder: Path) -> None:
    """Prepares a worker process: its environment, its oracles and its end."""
    global _worker
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # An agent, the only one to use JAX here, acts on one core: the others have workers too.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    )
    _worker = recipe, folder, recipe.make_collector()


def _die_with_parent() -> None:
    """Ends this process when its parent is gone, killed for instance."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _collect_episode(split: str, episode: int) -> int:
    """Collects and saves one episode and returns the environment steps that took."""
    recipe, folder, collector = _worker
    data, steps = recipe.collect(collector, split, episode)
    _write_atomically(
        _shard(folder, split, episode), lambda file: np.savez_compressed(file, **data)
    )
    return steps


def collect_attempt(
    collector, recipe: Recipe, split: str, episode: int, attempt: int
) -> dict[str, np.ndarray] | None:
    """Collects one episode, or returns None where OGBench discards it.

    Args:
        collector: Collector made for `recipe`.
        recipe: Settings.
        split: `train` or `val`.
        episode: Number of the episode in its split.
        attempt: Number of discarded attempts before this one.

    Returns:
        Arrays with `recipe.rows` rows: `observations`, `actions`, `terminals`, `qpos`, `qvel` and,
        for scene and puzzle, `button_states`.
    """
    entropy = [recipe.seed, SPLITS.index(split), episode, attempt]
    reset_seed, *global_seed = np.random.SeedSequence(entropy).generate_state(9).tolist()
    # ogbench's oracles and mazes draw from NumPy's global generator.
    np.random.seed(global_seed)
    columns = defaultdict(list)
    for row in collector.steps(reset_seed):
        for key, value in row.items():
            columns[key].append(value)
    dtypes = {"terminals": np.bool_, "button_states": np.int64}
    if recipe.visual:
        dtypes["observations"] = np.uint8
    data = {key: np.array(rows, dtypes.get(key, np.float32)) for key, rows in columns.items()}
    if recipe.family == "scene" and not _cube_stays_visible(data["qpos"][:, _SCENE_CUBE]):
        return None
    return data


def _cube_stays_visible(positions: np.ndarray) -> bool:
    """Returns whether the scene's cube is on the table, or in the drawer, in all (n, 3) rows."""
    y, z = positions[:, 1], positions[:, 2]
    in_drawer = (z >= 0.06) & (z <= 0.08)
    return not np.any((y >= 0.29) | ((y <= -0.3) & ~in_drawer))


class _ArmCollector:
    """Collects with the oracles of the manipulation environments."""

    def __init__(self, recipe: Recipe):
        self.env = _make(recipe, mode="data_collection")
        self.noisy = recipe.kind == "noisy"
        self.oracles = _arm_oracles(self.env, recipe.family, self.noisy)
        self.p_random = 0.0
        if self.noisy:
            self.p_random = 0.2 if recipe.family.startswith("puzzle") else 0.1
        self.stacking = _STACKING.get(recipe.family, _STACKING_ELSEWHERE)

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Runs one episode and yields its rows; draws from NumPy's global generator."""
        env = self.env
        observation, info = env.reset(seed=reset_seed)
        p_stack = np.random.uniform(*self.stacking)
        scale = np.random.uniform(0, _MARKOV_NOISE) * _MARKOV_NOISE_SCALE
        oracle = self.oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        done = False
        while not done:
            if self.noisy and np.random.uniform() < self.p_random:
                action = np.random.uniform(-1, 1, size=env.action_space.shape)
            else:
                action = np.array(oracle.select_action(observation, info))
                if self.noisy:
                    action += np.random.normal(0, scale)
            action = np.clip(action, -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if oracle.done:
                target_observation, target_info = env.unwrapped.set_new_target(p_stack=p_stack)
                oracle = self.oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
            row = {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
            }
            if "prev_button_states" in info:
                row["button_states"] = info["prev_button_states"]
            yield row
            observation = next_observation


class _MazeCollector:
    """Collects with the mazes' own path finding, for the point that needs no other expert."""

    def __init__(self, recipe: Recipe):
        self.env = _make(recipe)
        self.kind = recipe.kind
        free = self.env.unwrapped.maze_map == 0
        self.free = [tuple(cell) for cell in np.argwhere(free).tolist()]
        self.corners = [cell for cell in self.free if not _is_corridor(free, *cell)]

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Runs one episode and yields its rows; draws from NumPy's global generator."""
        env, maze = self.env, self.env.unwrapped
        start = _choose(self.free)
        if self.kind == "stitch":
            goal = _choose(cells_at_distance(self.free, start, _STITCH_CELLS) or [start])
        else:
            goal = _choose(self.corners)
        task = {"init_ij": start, "goal_ij": goal}
        observation, _ = env.reset(seed=reset_seed, options={"task_info": task})
        done = False
        while not done:
            position = maze.get_xy()
            subgoal, _ = maze.get_oracle_subgoal(position, maze.cur_goal_xy)
            direction = subgoal - position
            direction = direction / (np.linalg.norm(direction) + 1e-6)
            action = np.clip(direction + np.random.normal(0, _MAZE_NOISE, direction.shape), -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if info["success"] and self.kind == "navigate":
                maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(_choose(self.corners))))
            yield {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
            }
            observation = next_observation


def cells_at_distance(
    free: list[tuple[int, int]], start: tuple[int, int], distance: int
) -> list[tuple[int, int]]:
    """Returns the cells whose shortest path from `start` has `distance` steps, in a fixed order."""
    seen, frontier = {start}, [start]
    for _ in range(distance):
        neighbours = [
            (i + di, j + dj) for i, j in frontier for di, dj in ((-1, 0), (0, -1), (1, 0), (0, 1))
        ]
        frontier = [c for c in dict.fromkeys(neighbours) if c in free and c not in seen]
        seen.update(frontier)
    return frontier


def _is_corridor(free: np.ndarray, i: int, j: int) -> bool:
    """Returns whether one can only go straight on through cell (i, j); the border is wall."""
    vertical, horizontal = (free[i - 1, j], free[i + 1, j]), (free[i, j - 1], free[i, j + 1])
    return (all(vertical) and not any(horizontal)) or (all(horizontal) and not any(vertical))


def _choose(cells: list[tuple[int, int]]) -> tuple[int, int]:
    """Draws a cell with NumPy's global generator."""
    return cells[np.random.randint(len(cells))]


def _make(recipe: Recipe, **kwargs) -> gymnasium.Env:
    """Makes the environment that data are collected in."""
    return make_registered(
        recipe.environment, max_episode_steps=recipe.rows, terminate_at_goal=False, **kwargs
    )


def _arm_oracles(env, family: str, noisy: bool) -> dict:
    """Returns the oracle of each kind of target task of a manipulation environment."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    if noisy:
        settings = {"env": env, "min_norm": _MARKOV_MIN_NORM}
        classes = (CubeMarkovOracle, ButtonMarkovOracle, DrawerMarkovOracle, WindowMarkovOracle)
    else:
        settings = {"env": env, "noise": _PLAN_NOISE, "noise_smoothing": _PLAN_SMOOTHING}
        classes = (CubePlanOracle, ButtonPlanOracle, DrawerPlanOracle, WindowPlanOracle)
    cube, button, drawer, window = classes
    if family.startswith("cube"):
        return {"cube": cube(**settings)}
    if family.startswith("puzzle"):
        return {"button": button(**settings, gripper_always_closed=True)}
    limit = {"max_step": 100} if noisy else {}
    return {
        "cube": cube(**settings, **limit),
        "button": button(**settings),
        "drawer": drawer(**settings),
        "window": window(**settings),
    }


# Command line ------------------------------------------------------------------------------------


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect.workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--env_name",
        required=True,
        help="dataset to collect, cube-single-play for instance: pointmaze-* (navigate, stitch), "
        "cube-*, scene and puzzle-* (play, noisy), the visual- forms of the latter three, and all "
        "tasks of D4RL",
    )
    parser.add_argument(
        "--policy", help="who acts, for D4RL only: random, or the folder of a run of main.py"
    )
    parser.add_argument(
        "--policy_seed", type=int, help="which of the run's training seeds (default: its first)"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        help="training episodes (default: official number, or a million steps of D4RL)",
    )
    parser.add_argument(
        "--val_episodes",
        type=int,
        help="validation episodes, for OGBench only (default: a tenth of --episodes)",
    )
    parser.add_argument(
        "--episode_length",
        type=int,
        help="transitions per episode, for D4RL at most (default: official number)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, best one per core (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the collection (default: 0)")
    parser.add_argument(
        "--dataset_dir",
        help=f"folder for the files (default: {DEFAULT_DATASET_DIR} for OGBench, $D4RL_DATASET_DIR "
        "or ~/.d4rl/datasets for D4RL)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files and discard an unfinished collection of other settings",
    )
    arguments = vars(parser.parse_args())
    try:
        report = collect(arguments.pop("env_name"), **arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        with contextlib.suppress(BrokenPipeError):
            print("interrupted; repeat the command to continue.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print("wrote", " and ".join(str(path) for path in (report.train_path, report.val_path) if path))
    if report.steps:
        rate = report.steps / report.seconds
        print(f"{report.steps} steps in {report.seconds:.0f} s: {rate:.0f} steps per second")


if __name__ == "__main__":
    main()
