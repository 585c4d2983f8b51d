"""Which datasets can be collected here, how large they are, and how long that takes."""

import os
import shlex
import urllib.parse
from pathlib import Path

from utils.cores import available_cores
from utils.envs.ogbench import names
from utils.envs.origins import ORIGINS
from utils.errors import UserError

# Rows per second and core by the beginning of a family, the first that fits. They were measured on
# one core of a busy machine; a quiet one is up to twice as fast.
_ROWS_PER_SECOND = (
    ("pointmaze", 15_000),
    ("antmaze", 2400),
    ("cube-single", 290),
    ("cube-double", 290),
    ("cube-triple", 230),
    ("cube-quadruple", 210),
    ("cube-octuple", 185),
    ("scene", 200),
    ("puzzle-3x3", 260),
    ("puzzle", 160),
)

# Seconds of a core per frame in software, likewise.
_SECONDS_PER_FRAME = (
    ("antmaze", 0.03),
    ("cube-single", 0.14),
    ("cube", 0.16),
    ("scene", 0.15),
    ("puzzle", 0.17),
)

_FAMILIES = ("pointmaze", "antmaze", "cube", "scene", "puzzle")

# Million environment steps that train the expert of what cannot be collected.
_EXPERT_STEPS = {"humanoidmaze": 40, "antsoccer": 12}


def is_collectable(full_name: str) -> bool:
    """Return whether what made a dataset ships in the ogbench package or in this one."""
    family = names.split(full_name)[0].removeprefix("visual-")
    return family.startswith(_FAMILIES)


def official_size(full_name: str) -> tuple[int, int]:
    """Return the official number of training episodes and rows per episode.

    There is no official file for cube-octuple in OGBench's standard size; it gets as many episodes
    as cube-quadruple.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    _require_collectable(full_name)
    family, kind, _ = names.split(full_name)
    family = family.removeprefix("visual-")
    if kind == "stitch":
        return 5000, 201
    if kind == "explore":
        return 10_000, 501
    if kind == "navigate":
        return (500, 2001) if family.endswith("giant") else (1000, 1001)
    if family in ("cube-triple", "puzzle-4x5"):
        return 3000, 1001
    if family in ("cube-quadruple", "cube-octuple", "puzzle-4x6"):
        return 5000, 1001
    return 1000, 1001


def unfinished_folder(train: Path) -> Path:
    """Return the hidden folder of a collection of a training file that is not finished."""
    return train.with_name(f".{train.stem}.collecting")


def refuse_one_of_two(train: Path, val: Path) -> None:
    """Refuse to collect one file beside another of unknown origin.

    A collection that moves its two files into place, or died while it did, is let through.

    Args:
        train: The training file.
        val: The validation file.

    Raises:
        UserError: One is there without the other.
    """
    there = [path for path in (train, val) if path.exists()]
    moving = any(unfinished_folder(train).glob("merged-*/*.npz"))
    # Looked for again: both may have been moved into place meanwhile.
    if len(there) != 1 or moving or (train.exists() and val.exists()):
        return
    other = val if there[0] == train else train
    raise UserError(
        f"{there[0]} is there without {other.name}; move it away, leave out --collect_missing to "
        f"have {other.name} downloaded, or give another --dataset_dir"
    )


def advice(full_name: str, dataset_dir: str | os.PathLike | None = None) -> str:
    """Return how a dataset can be collected, as the end of a sentence; else an empty string.

    Args:
        full_name: Full name; the task does not matter.
        dataset_dir: Folder for the files, where it is not OGBench's own.

    Returns:
        "collect ..." with the command, and about how long it takes on all cores here.
    """
    if not is_collectable(full_name):
        return ""
    command = shlex.join(["python", "-m", "utils.collect", *arguments(full_name, dataset_dir)])
    return (
        f"collect the dataset locally, by --collect_missing or with `{command}` "
        f"({expected_time(full_name)})"
    )


def arguments(full_name: str, dataset_dir: str | os.PathLike | None = None) -> list[str]:
    """Return the arguments of `utils.collect` for a dataset of the official size, on all cores.

    Args:
        full_name: Full name; the task does not matter.
        dataset_dir: Folder for the files, where it is not OGBench's own.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    _require_collectable(full_name)
    family, kind, _ = names.split(full_name)
    place = [f"--dataset_dir={dataset_dir}"] if dataset_dir else []
    return [f"--env_name={family}-{kind}", f"--workers={available_cores()}", *place]


def expected_time(full_name: str) -> str:
    """Return about how long that takes, with images as they are rendered in software.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    words = in_words(core_hours(full_name) / available_cores())
    if names.is_visual(full_name):
        return f"{words} where images are rendered in software, less on a GPU"
    return words


def in_words(hours: float) -> str:
    """Return about how long something takes, in words."""
    if hours >= 2:
        return f"about {hours:.0f} hours"
    minutes = round(60 * hours)
    return f"about {minutes} minutes" if minutes > 1 else "about a minute"


def core_hours(full_name: str) -> float:
    """Return about how many hours one core takes to collect a dataset of the official size.

    The validation file, a tenth of the training file, is included, and so is rendering in software.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    episodes, rows = official_size(full_name)
    family = names.split(full_name)[0].removeprefix("visual-")
    seconds = 1 / _first(_ROWS_PER_SECOND, family)
    if names.is_visual(full_name):
        seconds += _first(_SECONDS_PER_FRAME, family)
    return 1.1 * episodes * rows * seconds / 3600


def _first(table: tuple[tuple[str, float], ...], family: str) -> float:
    """Return the value of the first row that a family begins with."""
    return next(value for beginning, value in table if family.startswith(beginning))


def _require_collectable(full_name: str) -> None:
    """Raise UserError for a dataset whose expert would have to be trained first."""
    if is_collectable(full_name):
        return
    origin = ORIGINS["OGBench"]
    dataset = names.dataset_name(full_name)
    expert = names.split(full_name)[0].removeprefix("visual-").split("-")[0]
    hosts = " and ".join(urllib.parse.urlsplit(url).hostname for url in origin.addresses)
    raise UserError(
        f"{dataset} cannot be collected locally: its expert takes {_EXPERT_STEPS[expert]} million "
        f"environment steps to train; leave out --collect_missing to have it downloaded (from "
        f"{origin.variable} if that is set, then from {hosts}), or put its files into "
        "--dataset_dir by hand"
    )
