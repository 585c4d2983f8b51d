"""Collection by worker processes, which can be interrupted and continued.

An episode is a file in a hidden folder until all are there, and then they are joined.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import filelock

from utils.collect import episode_files
from utils.collect.ant.walker import Walker
from utils.collect.arms import ArmCollector
from utils.collect.collectors import collect_episode, make_collector
from utils.collect.config import CollectionConfig
from utils.collect.mazes import MazeCollector
from utils.collect.tallies import Tally
from utils.envs import rendering, tasks
from utils.envs.ogbench import names
from utils.envs.ogbench.collection import official_size, refuse_one_of_two, unfinished_folder
from utils.envs.ogbench.data import DEFAULT_DATASET_DIR
from utils.errors import UserError
from utils.progress_bar import progress_bar


@dataclasses.dataclass(frozen=True)
class CollectionReport:
    """What a collection did.

    Attributes:
        train_path: The training file.
        val_path: The validation file.
        tally: What was done now, without the episodes of an earlier, interrupted run.
        seconds: Wall time of that, starting the workers included.
    """

    train_path: Path
    val_path: Path
    tally: Tally
    seconds: float


def collect(
    env_name: str,
    *,
    dataset_dir: str | os.PathLike | None = None,
    episodes: int | None = None,
    val_episodes: int | None = None,
    episode_length: int | None = None,
    workers: int = 1,
    seed: int = 0,
    walker: str | os.PathLike | None = None,
    if_missing: bool = False,
    overwrite: bool = False,
) -> CollectionReport:
    """Collect the files of a dataset, or what is missing of them.

    Args:
        env_name: Short or full name; the task does not matter.
        dataset_dir: Folder for the files, OGBench's own by default.
        episodes: Training episodes; the official number by default.
        val_episodes: Validation episodes; a tenth of `episodes`, at least one, by default.
        episode_length: Transitions per episode; the official number by default.
        workers: Number of processes.
        seed: Seed of the collection, at least 0.
        walker: File of the ant's walker; by default the one that comes with the package.
        if_missing: Wait for another process that collects the same files, and leave them if both
            are there.
        overwrite: Replace existing files, and drop an unfinished collection of other settings.

    Returns:
        The files' paths and how fast it went.

    Raises:
        UserError: The dataset cannot be collected locally, an argument is out of range, a file is
            in the way, a walker cannot be read or is not needed, an unfinished collection has other
            settings, or a worker died.
    """
    full_name = names.resolve(env_name)
    if full_name is None:
        tasks.collection_command(tasks.resolve(env_name))  # Another suite says why not.
    official_episodes, rows = official_size(full_name)
    episodes = official_episodes if episodes is None else episodes
    val_episodes = max(1, episodes // 10) if val_episodes is None else val_episodes
    rows = rows if episode_length is None else episode_length + 1
    for flag, value, least in (
        ("episodes", episodes, 1),
        ("val_episodes", val_episodes, 1),
        ("episode_length", rows - 1, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{flag} must be at least {least}, not {value}")

    config = CollectionConfig.create(full_name, rows, seed, walker)
    if config.has_ant:
        Walker.load(config.walker)  # A damaged one is refused here, and not in each worker.
    directory = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser()
    stem = config.dataset
    targets = {"train": directory / f"{stem}.npz", "val": directory / f"{stem}-val.npz"}
    counts = {"train": episodes, "val": val_episodes}
    if config.visual:
        rendering.require_gl("pixel observations")
    else:
        rendering.choose_gl()

    folder = unfinished_folder(targets["train"])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(folder, stem, wait=if_missing):
            episode_files.remove_if_moved(folder)
            if if_missing and all(path.exists() for path in targets.values()):
                return CollectionReport(targets["train"], targets["val"], Tally(), 0.0)
            if if_missing and not overwrite:
                refuse_one_of_two(targets["train"], targets["val"])
            return _collect(config, counts, targets, folder, workers, overwrite)
    except OSError as error:
        raise UserError(f"cannot write the dataset to {directory}: {error}") from error


@contextlib.contextmanager
def _locked(folder: Path, stem: str, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder of finished episodes, alone among all processes."""
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise UserError(f"another process is collecting {stem} in {folder.parent}") from None
        print(f"waiting for another process that collects {stem} in {folder.parent}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _collect(
    config: CollectionConfig,
    counts: dict[str, int],
    targets: dict[str, Path],
    folder: Path,
    workers: int,
    overwrite: bool,
) -> CollectionReport:
    """Do what `collect` says; the caller holds the lock of `folder`."""
    merged = episode_files.merged(folder, counts)
    # With `merged` present an earlier run died while it moved the files into place, so one of them
    # may be there already and is ours.
    existing = [path for path in targets.values() if path.exists()]
    if existing and not overwrite and not merged.exists():
        raise UserError(
            f"{existing[0]} exists already; pass --overwrite to python -m utils.collect to replace "
            "it, or another --dataset_dir to keep it"
        )
    episode_files.prepare(folder, config, overwrite)

    tally, seconds = Tally(), 0.0
    if not merged.exists():
        missing = episode_files.missing(folder, counts)
        finished = sum(counts.values()) - len(missing)
        if finished:
            total = sum(counts.values())
            print(f"continuing: {finished} of {total} episodes are there already.", flush=True)
        start = time.monotonic()
        tally = _run_workers(config, folder, missing, finished, workers)
        seconds = time.monotonic() - start
        episode_files.join(folder, counts, config.rows)
    episode_files.move_into_place(merged, targets, overwrite)
    shutil.rmtree(folder)
    return CollectionReport(targets["train"], targets["val"], tally, seconds)


def _run_workers(
    config: CollectionConfig,
    folder: Path,
    jobs: list[tuple[str, int]],
    finished: int,
    workers: int,
) -> Tally:
    """Collect episodes in worker processes; return their tally."""
    tally = Tally()
    if not jobs:
        return tally
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(config, folder),
    )
    try:
        total = finished + len(jobs)
        with progress_bar(total, config.dataset, unit="episode", initial=finished) as bar:
            with _ctrl_c_ignored():
                futures = [pool.submit(_run_job, *job) for job in jobs]
            for future in as_completed(futures):
                tally += future.result()
                bar.update()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for lack of memory; finished episodes are kept, repeat "
            "the command to continue, with fewer --workers if need be"
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return tally


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Make the processes started meanwhile ignore SIGINT from the start.

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


# Worker processes --------------------------------------------------------------------------------

_worker: tuple[CollectionConfig, Path, ArmCollector | MazeCollector]


def _start_worker(config: CollectionConfig, folder: Path) -> None:
    """Prepare a worker process: its environment, its oracles and its end."""
    global _worker
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = config, folder, make_collector(config)


def _die_with_parent() -> None:
    """End this process when its parent is gone, killed for instance."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_job(split: str, episode: int) -> Tally:
    """Collect and save one episode; return its tally."""
    config, folder, collector = _worker
    data, tally = collect_episode(collector, config, split, episode)
    episode_files.save(folder, split, episode, data)
    return tally
