"""The hidden folder of a collection: a file for each finished episode, later joined.

An episode's file appears when it is complete. All are joined into a folder `merged-*`, which
appears when both of its files are complete, and from there the files move into place.
"""

import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.collect.config import CollectionConfig
from utils.errors import UserError
from utils.files import write_atomically
from utils.progress_bar import progress_bar


def prepare(folder: Path, config: CollectionConfig, overwrite: bool) -> None:
    """Create the folder, or check that its episodes have these settings.

    Args:
        folder: The hidden folder.
        config: What its episodes depend on.
        overwrite: Empty a folder of other settings.

    Raises:
        UserError: It has other settings, or cannot be written.
    """
    settings = config.settings()
    settings_path = folder / "settings.json"
    if settings_path.exists():
        before = json.loads(settings_path.read_text())
        differences = [
            f"{key}={before.get(key)} instead of {value}"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if not differences:
            return
        if not overwrite:
            raise UserError(
                f"an unfinished collection in {folder} was made with {', '.join(differences)}; "
                "repeat its command to finish it, or pass --overwrite to python -m utils.collect "
                "to discard it"
            )
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    write_atomically(settings_path, json.dumps(settings).encode())


def shard(folder: Path, split: str, episode: int) -> Path:
    """Return the path of a finished episode."""
    return folder / f"{split}-{episode:06d}.npz"


def merged(folder: Path, counts: Mapping[str, int]) -> Path:
    """Return the folder of the joined files, given the number of episodes of each split."""
    return folder / "-".join(["merged", *map(str, counts.values())])


def missing(folder: Path, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return split and number of the episodes that are not finished."""
    return [
        (split, episode)
        for split, count in counts.items()
        for episode in range(count)
        if not shard(folder, split, episode).exists()
    ]


def save(folder: Path, split: str, episode: int, data: Mapping[str, np.ndarray]) -> None:
    """Write a finished episode, arrays (rows, ...) by name.

    Raises:
        UserError: It cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **data)
    write_atomically(shard(folder, split, episode), buffer.getvalue())


def read(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Read arrays of a finished episode, all by default.

    Raises:
        UserError: A crash has damaged its file, which is removed.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            return {key: data[key] for key in keys or data.files}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        path.unlink()
        raise UserError(
            f"the finished episode {path} was damaged and has been removed; repeat the command "
            "to collect it again"
        ) from error


def join(folder: Path, counts: Mapping[str, int], rows: int) -> None:
    """Join episodes into a file per split, with one episode in memory at a time.

    Args:
        folder: The hidden folder.
        counts: Number of episodes of each split, all of which are there.
        rows: Rows of an episode.

    Raises:
        UserError: An episode is damaged; its file is removed.
    """
    for leftover in folder.glob("merg*"):
        shutil.rmtree(leftover)
    merging = folder / "merging"
    merging.mkdir()
    for split, count in counts.items():
        shards = [shard(folder, split, episode) for episode in range(count)]
        with open(merging / f"{split}.npz", "wb") as file:
            _concatenate(shards, rows, file)
            file.flush()
            os.fsync(file.fileno())
    os.replace(merging, merged(folder, counts))


def move_into_place(merged: Path, targets: Mapping[str, Path], overwrite: bool) -> None:
    """Move joined files to where they are wanted; those that were moved before are left.

    Args:
        merged: Folder of the joined files.
        targets: Path of each split's file.
        overwrite: Replace what is there.

    Raises:
        UserError: A file has appeared there while episodes were collected. Nothing is moved.
    """
    sources = {split: merged / f"{split}.npz" for split in targets}
    left = [split for split, source in sources.items() if source.exists()]
    for split in left:
        if targets[split].exists() and not overwrite:
            raise UserError(
                f"{targets[split]} has appeared while {sources[split]} was collected, and both are "
                "kept; move the former away and repeat the command, or pass --overwrite to python "
                "-m utils.collect to replace it"
            )
    for split in left:
        os.replace(sources[split], targets[split])


def remove_if_moved(folder: Path) -> None:
    """Remove the hidden folder of a collection that died after its last file was moved."""
    if any(not any(merged.iterdir()) for merged in folder.glob("merged-*")):
        shutil.rmtree(folder)


def _concatenate(shards: list[Path], rows: int, file: BinaryIO) -> None:
    """Write the compressed concatenation of npz files as `np.savez_compressed` would."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, example in read(shards[0]).items():
            # A fixed date makes the file itself, not only its arrays, a function of the seed.
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            header = {
                "descr": np.lib.format.dtype_to_descr(example.dtype),
                "fortran_order": False,
                "shape": (len(shards) * rows, *example.shape[1:]),
            }
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                words = {"desc": f"joining {key}", "unit": "episode", "leave": False}
                with progress_bar(len(shards), **words) as bar:
                    for path in shards:
                        member.write(read(path, key)[key].tobytes())
                        bar.update()
