"""States before their frames: collected, or taken from a file."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils import files
from utils.collect import episode_files
from utils.collect.arms import make_arm
from utils.collect.collectors import EpisodeWorker, exact_states, file_columns
from utils.collect.config import CollectionConfig
from utils.collect.pool import Job, run_jobs
from utils.collect.tallies import Tally
from utils.envs.ogbench import names
from utils.envs.ogbench.data import dataset_columns
from utils.errors import UserError


class StateFile:
    """Episodes of a dataset without images.

    Args:
        path: The file.
        config: Settings of the dataset with images of these states.

    Attributes:
        rows: Rows per episode.
        episodes: Number of episodes.

    Raises:
        UserError: It cannot be read, has no such states, or episodes of several lengths.
    """

    def __init__(self, path: Path, config: CollectionConfig):
        config = config.of_states()
        env = make_arm(config)
        full_name = names.resolve(config.dataset.removeprefix("visual-"))
        columns = dataset_columns(full_name, env)
        env.close()
        del columns["observations"]
        remedy = "--from_states takes the training file of a dataset without images"
        self._data = files.read_arrays(path, columns, remedy)
        self._data["terminals"] = self._data["terminals"].astype(bool)
        ends = np.flatnonzero(self._data["terminals"]) + 1
        lengths = np.diff(ends, prepend=0)
        if not len(ends) or ends[-1] != len(self._data["terminals"]) or len(set(lengths)) > 1:
            raise UserError(f"{path} has episodes of several lengths; {remedy}")
        self.rows = int(lengths[0])
        self.episodes = len(ends)

    def episode(self, number: int) -> dict[str, np.ndarray]:
        """Return an episode's arrays but its observations, as they are in the file."""
        rows = slice(number * self.rows, (number + 1) * self.rows)
        return {key: array[rows] for key, array in self._data.items()}

    def has(self, number: int, states: Mapping[str, np.ndarray]) -> bool:
        """Return whether an episode has these states, as far as a file tells."""
        states, own = file_columns(states), self.episode(number)
        return all(np.array_equal(array, states[key]) for key, array in own.items())


def state_files(config: CollectionConfig) -> dict[str, StateFile]:
    """Return the files of states that are to be rendered, by split.

    Raises:
        UserError: One cannot be read, or they do not belong together.
    """
    train = config.states
    paths = {"train": train, "val": train.with_name(f"{train.stem}-val.npz")}
    found = {split: StateFile(path, config) for split, path in paths.items()}
    rows = [file.rows for file in found.values()]
    if rows[0] != rows[1]:
        raise UserError(f"episodes of {train} have {rows[0]} rows, and those of its -val {rows[1]}")
    return found


def counts_of_states(
    sources: Mapping[str, StateFile],
    episodes: int | None,
    val_episodes: int | None,
    episode_length: int | None,
) -> dict[str, int]:
    """Return how many episodes of files are rendered, by split.

    Args:
        sources: The file of each split.
        episodes: Training episodes, the first of the file; None for all.
        val_episodes: Validation episodes; None for a tenth of `episodes`, or all if that is None.
        episode_length: Transitions per episode, None for the file's.

    Raises:
        UserError: The files have fewer, or episodes of another length.
    """
    available = {split: file.episodes for split, file in sources.items()}
    length = sources["train"].rows - 1
    if episode_length not in (None, length):
        raise UserError(
            f"--episode_length={episode_length} does not fit --from_states, whose episodes have "
            f"{length} transitions; leave it out"
        )
    if val_episodes is None and episodes is not None:
        val_episodes = min(max(1, episodes // 10), available["val"])
    wanted = {"train": episodes, "val": val_episodes}
    counts = {split: wanted[split] or number for split, number in available.items()}
    for split, number in available.items():
        if counts[split] > number:
            flag = "--episodes" if split == "train" else "--val_episodes"
            raise UserError(f"{flag} must be at most {number} with these --from_states")
    return counts


def collect_states(
    config: CollectionConfig, folder: Path, jobs: Sequence[Job], workers: int
) -> Tally:
    """Collect the states of episodes, unless they are there.

    Args:
        config: Settings of a dataset with images.
        folder: Folder of the states' files, which are in float64.
        jobs: The episodes.
        workers: Number of processes.

    Returns:
        What was done now.

    Raises:
        UserError: A worker process died.
    """
    missing = [job for job in jobs if not episode_files.shard(folder, *job).exists()]
    worker = functools.partial(EpisodeWorker, config.of_states(), folder, exact_states)
    words = {"desc": f"states of {config.dataset}", "finished": len(jobs) - len(missing)}
    return sum(run_jobs(worker, missing, workers, **words), Tally())


def take_states(
    config: CollectionConfig,
    folder: Path,
    jobs: Sequence[Job],
    workers: int,
    sources: Mapping[str, StateFile],
) -> Tally:
    """Take the states of episodes from files, more exactly where that is possible.

    A file has float32, of which frames come out slightly different. If the seed gives the first of
    the episodes they are collected again, which takes little beside rendering, and compared.

    Args:
        config: Settings of a dataset with images.
        folder: Folder of the states' files.
        jobs: The episodes.
        workers: Number of processes.
        sources: The file of each split.

    Returns:
        What was done now.

    Raises:
        UserError: A worker process died.
    """

    def is_right(split: str, number: int) -> bool:
        path = episode_files.shard(folder, split, number)
        return path.exists() and sources[split].has(number, episode_files.read(path))

    tally = collect_states(config, folder, jobs[:1], workers)
    if is_right(*jobs[0]):
        tally += collect_states(config, folder, jobs, workers)
    rounded = 0
    for split, number in jobs:
        if not is_right(split, number):
            episode_files.save(folder, split, number, sources[split].episode(number))
        path = episode_files.shard(folder, split, number)
        rounded += episode_files.read(path, "qpos")["qpos"].dtype == np.float32
    if rounded:
        print(
            f"{rounded} of {len(jobs)} episodes of {config.states} are none that seed "
            f"{config.seed} gives here: they are rendered from float32, so their frames differ "
            "from those of a collection, by 2 of 255 and in single pixels by more",
            flush=True,
        )
    return tally


def say_whose_episodes(config: CollectionConfig, folder: Path, directory: Path) -> None:
    """Say whether a dataset without images that is there has the episodes that are collected.

    Args:
        config: Settings of a dataset with images.
        folder: Folder of the states' files.
        directory: Folder of datasets.
    """
    path = directory / f"{config.dataset.removeprefix('visual-')}.npz"
    first = episode_files.shard(folder, "train", 0)
    if not path.exists() or not first.exists():
        return
    try:
        file = StateFile(path, config)
    except UserError:
        return  # It is not needed.
    if file.has(0, episode_files.read(first)):
        print(f"the episodes are those of {path}", flush=True)
    else:
        print(
            f"the episodes are not those of {path}, which --from_states={path} renders", flush=True
        )
