"""Collection by worker processes, which can be interrupted and continued.

An episode is a file in a hidden folder until all are there, and then they are joined. With images,
an arm's states come first, in a folder within that one, and are then rendered.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from utils.collect import episode_files
from utils.collect.ant.walker import Walker
from utils.collect.collectors import EpisodeWorker, file_columns
from utils.collect.config import CollectionConfig
from utils.collect.frames import FrameWorker, expected_time, say_if_another_renders
from utils.collect.pool import Job, run_jobs
from utils.collect.states import (
    StateFile,
    collect_states,
    counts_of_states,
    say_whose_episodes,
    state_files,
    take_states,
)
from utils.collect.tallies import Tally
from utils.envs import rendering, tasks
from utils.envs.ogbench import names
from utils.envs.ogbench.collection import official_size, refuse_one_of_two, unfinished_folder
from utils.envs.ogbench.data import DEFAULT_DATASET_DIR
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class CollectionReport:
    """What a collection did.

    Attributes:
        train_path: The training file.
        val_path: The validation file.
        tally: What was done now, without the episodes of an earlier, interrupted run.
        seconds: Wall time of that, starting the workers included.
        frames: Frames of states that were rendered now.
        frame_seconds: Wall time of that.
    """

    train_path: Path
    val_path: Path
    tally: Tally = dataclasses.field(default_factory=Tally)
    seconds: float = 0.0
    frames: int = 0
    frame_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is to be collected.

    Attributes:
        config: Settings.
        counts: Number of episodes of each split.
        sources: File of the states of each split; empty if they are collected.
        targets: Path of each split's file.
        workers: Number of processes.
        overwrite: Whether to replace what is there.
    """

    config: CollectionConfig
    counts: dict[str, int]
    sources: dict[str, StateFile]
    targets: dict[str, Path]
    workers: int
    overwrite: bool

    @property
    def folder(self) -> Path:
        """The hidden folder of finished episodes."""
        return unfinished_folder(self.targets["train"])


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
    from_states: str | os.PathLike | None = None,
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
        from_states: Training file of the dataset without images, whose states are rendered, and
            those of the validation file beside it; numbers are then theirs by default.
        if_missing: Wait for another process that collects the same files, and leave them if both
            are there.
        overwrite: Replace existing files, and drop an unfinished collection of other settings.

    Returns:
        The files' paths and how fast it went.

    Raises:
        UserError: The dataset cannot be collected locally, an argument is out of range, a file is
            in the way, a walker or states cannot be read or are not needed, an unfinished
            collection has other settings, or a worker died.
    """
    full_name = names.resolve(env_name)
    if full_name is None:
        tasks.collection_command(tasks.resolve(env_name))  # Another suite says why not.
    official_episodes, rows = official_size(full_name)
    for flag, value, least in (
        ("episodes", episodes, 1),
        ("val_episodes", val_episodes, 1),
        ("episode_length", episode_length, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"--{flag} must be at least {least}, not {value}")

    rows = rows if episode_length is None else episode_length + 1
    config = CollectionConfig.create(full_name, rows, seed, walker, from_states)
    if config.has_ant:
        Walker.load(config.walker)  # A damaged one is refused here, and not in each worker.
    if config.visual:
        rendering.require_gl("pixel observations")
    else:
        rendering.choose_gl()
    if config.states is None:
        sources = {}
        episodes = official_episodes if episodes is None else episodes
        counts = {"train": episodes, "val": val_episodes or max(1, episodes // 10)}
    else:
        sources = state_files(config)
        config = dataclasses.replace(config, rows=sources["train"].rows)
        counts = counts_of_states(sources, episodes, val_episodes, episode_length)
    directory = Path(dataset_dir or DEFAULT_DATASET_DIR).expanduser()
    stem = config.dataset
    targets = {"train": directory / f"{stem}.npz", "val": directory / f"{stem}-val.npz"}
    plan = _Plan(config, counts, sources, targets, workers, overwrite)

    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(plan.folder, stem, wait=if_missing):
            episode_files.remove_if_moved(plan.folder)
            if if_missing and all(path.exists() for path in targets.values()):
                return CollectionReport(targets["train"], targets["val"])
            if if_missing and not overwrite:
                refuse_one_of_two(targets["train"], targets["val"])
            return _collect(plan)
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


def _collect(plan: _Plan) -> CollectionReport:
    """Do what `collect` says; the caller holds the lock of the hidden folder."""
    folder, counts = plan.folder, plan.counts
    merged = episode_files.merged(folder, counts)
    # With `merged` present an earlier run died while it moved the files into place, so one of them
    # may be there already and is ours.
    existing = [path for path in plan.targets.values() if path.exists()]
    if existing and not plan.overwrite and not merged.exists():
        raise UserError(
            f"{existing[0]} exists already; pass --overwrite to python -m utils.collect to replace "
            "it, or another --dataset_dir to keep it"
        )
    episode_files.prepare(folder, plan.config, plan.overwrite)

    report = CollectionReport(plan.targets["train"], plan.targets["val"])
    if not merged.exists():
        missing = episode_files.missing(folder, counts)
        finished = sum(counts.values()) - len(missing)
        if finished:
            total = sum(counts.values())
            print(f"continuing: {finished} of {total} episodes are there already.", flush=True)
        if missing:
            report = _collect_episodes(plan, missing, report)
        episode_files.join(folder, counts, plan.config.rows)
    episode_files.move_into_place(merged, plan.targets, plan.overwrite)
    shutil.rmtree(folder)
    return report


def _collect_episodes(
    plan: _Plan, missing: Sequence[Job], report: CollectionReport
) -> CollectionReport:
    """Collect the episodes that are missing; return the report, completed."""
    config, folder, workers = plan.config, plan.folder, plan.workers
    options = {"desc": config.dataset, "finished": sum(plan.counts.values()) - len(missing)}
    if config.visual:
        print(expected_time(config, len(missing), workers), flush=True)
        say_if_another_renders(folder)
    start = time.monotonic()
    if not config.renders_states:
        worker = functools.partial(EpisodeWorker, config, folder, file_columns)
        tally = sum(run_jobs(worker, missing, workers, **options), Tally())
        return dataclasses.replace(report, tally=tally, seconds=time.monotonic() - start)

    states = folder / "states"
    states.mkdir(exist_ok=True)
    if plan.sources:
        tally = take_states(config, states, missing, workers, plan.sources)
    else:
        tally = collect_states(config, states, missing, workers)
        say_whose_episodes(config, states, plan.targets["train"].parent)
    seconds = time.monotonic() - start
    worker = functools.partial(FrameWorker, config, states, folder)
    frames = sum(run_jobs(worker, missing, workers, **options))
    return dataclasses.replace(
        report,
        tally=tally,
        seconds=seconds,
        frames=frames,
        frame_seconds=time.monotonic() - start - seconds,
    )
