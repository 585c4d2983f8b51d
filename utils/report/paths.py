"""Where a report's runs are: folders, patterns, and files that name them."""

import importlib.util
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.report.records import (
    SeedRecord,
    differing_settings,
    evaluation_rows,
    find_runs,
    read_run,
)

_SAVE_DIR, _RUN_GROUP = "exp", "Debug"  # the defaults of the entry points


def read_all(paths: Iterable[str | os.PathLike]) -> tuple[list[SeedRecord], list[str]]:
    """Read all runs that paths lead to.

    Args:
        paths: As `find_runs` takes them, and text files, see `expand`.

    Returns:
        The records, and a sentence for each folder that is passed over because no run or a damaged
        one is there.

    Raises:
        UserError: No run is left.
    """
    paths = [inner for path in paths for inner in expand(path)]
    folders, empty = find_runs(paths)
    passed_over = [f"{path}: {_why_empty(path)}" for path in empty]
    records: list[SeedRecord] = []
    for folder in folders:
        try:
            records += read_run(folder)
        except UserError as error:
            said = str(error)
            passed_over.append(said if str(folder) in said else f"{folder}: {said}")
    if not records:
        raise UserError(
            "; ".join(passed_over) + "; give the folders that main.py or online_main.py made"
        )
    return records, passed_over


def _why_empty(path: str) -> str:
    there = os.path.exists(path)
    readable = os.access(path, os.R_OK | os.X_OK)
    return "it cannot be read" if there and not readable else "no run is there"


def load(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> Any:
    """Load evaluations as tidy records, for a notebook.

    Args:
        paths: Run folders, folders above them, patterns, or text files, see `expand`.

    Returns:
        A pandas DataFrame, or a list of dictionaries where pandas is not installed. A row per
        evaluation of a seed: `task`, `agent`, `seed`, `step`, `phase` (offline or online),
        `metric`, `value`, `episodes` (number of them), `state`, `folder`, then the settings that
        differ among the runs.

    Raises:
        UserError: There is no run there, or a file of one is malformed.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    folders, _ = find_runs(inner for path in paths for inner in expand(path))
    if not folders:
        raise UserError(f"no run in {', '.join(map(str, paths))}; give folders that runs made")
    records = [record for folder in folders for record in read_run(folder)]
    names = differing_settings([record.config for record in records])
    rows = [
        row | {name: record.config.settings.get(name) for name in names}
        for record in records
        for row in evaluation_rows(record)
    ]
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def expand(path: str | os.PathLike) -> list[str]:
    """Return the folders that a text file names; of any other path the path itself.

    A text file has a folder per line, or commands. Where a sweep has been started, the run folder
    of each of its commands is known, unless the file has been edited since. Otherwise all runs
    count that are below the commands' `--save_dir` and `--run_group`.

    Raises:
        UserError: The file is no text, or has lines of other kinds.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        return [str(path)]
    started = file.with_suffix(".jobs") / "folders.txt"
    if started.is_file() and started.stat().st_mtime >= file.stat().st_mtime:
        file = started
    try:
        lines = file.read_text().splitlines()
        if any("\0" in line for line in lines):
            raise ValueError("it is no text")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is neither a folder nor a file that names some ({error}); give run folders"
        ) from error
    lines = [line.strip() for line in lines]
    lines = [line for line in lines if line and not line.startswith("#")]
    return list(dict.fromkeys(_folder(path, line) for line in lines))


def _folder(path: str | os.PathLike, line: str) -> str:
    """Return the folder that a line names, or that its command's runs are below."""
    if ".py" not in line:
        return line
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"{path} has a line that no shell takes ({error}): {line}") from error
    save_dir, run_group = _flag(words, "save_dir", _SAVE_DIR), _flag(words, "run_group", _RUN_GROUP)
    return os.path.join(save_dir, run_group)


def _flag(words: Sequence[str], name: str, default: str) -> str:
    """Return a flag's value in a command, `--name=value` or `--name value`; the last one wins."""
    value = default
    for i, word in enumerate(words):
        if word.lstrip("-") == name and word.startswith("-") and i + 1 < len(words):
            value = words[i + 1]
        elif word.startswith((f"--{name}=", f"-{name}=")):
            value = word.partition("=")[2]
    return value
