"""Runs as records, one per seed."""

import glob
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import ERROR, LOCK, is_held
from utils.report.csv_log import Row, read_csv
from utils.report.folders import RunConfig, read_config
from utils.report.scores import METRICS, by_seed, failed_seeds, number, scored_metric

STATES = ("done", "running", "unfinished", "crashed", "diverged")


@dataclass(frozen=True)
class SeedRecord:
    """What one seed of a run has come to.

    Values are of the metric that the run is scored by, times its factor (success in percent).

    Attributes:
        folder: The run's folder.
        seed: The training seed.
        config: What the folder says of the run.
        metric: A key of `utils.report.scores.METRICS`.
        evaluations: Mean over the episodes by step, steps ascending.
        episodes: Value of each episode (episodes,) by step, as far as they were kept.
        steps: Done: updates offline, plus environment steps online.
        state: One of `STATES`. Diverged is a seed whose numbers became NaN or infinite; crashed
            one whose run an error has ended, unfinished one whose run nobody is training.
        failed: Step at which it diverged.
        error: The last line of the error that ended the run; empty without one.
        not_finite: Steps of evaluations that came out as NaN or infinite; they are not among the
            others.
        updates_per_second: Median, of all seeds trained together; None if it was not logged.
        hours: Of training, of all seeds together; None if it was not logged.
    """

    folder: Path
    seed: int
    config: RunConfig
    metric: str
    evaluations: Mapping[int, float]
    episodes: Mapping[int, np.ndarray]
    steps: int
    state: str
    failed: int | None = None
    error: str = ""
    not_finite: tuple[int, ...] = ()
    updates_per_second: float | None = None
    hours: float | None = None


def find_runs(paths: Iterable[str | os.PathLike]) -> tuple[list[Path], list[str]]:
    """Find the run folders in and below folders.

    Args:
        paths: Run folders, folders above them, and patterns of either (`exp/cube/*`).

    Returns:
        The run folders, each once though links lead to it, sorted as given, and the folders that
        led to none: those of `paths`, and below them those that cannot be read.
    """
    runs: dict[str, Path] = {}
    empty = []
    for path in paths:
        matches = sorted(glob.glob(os.path.expanduser(path))) or [path]
        unread: list[str] = []
        found = [folder for match in matches for folder in _runs_below(Path(match), unread)]
        for folder in found:
            runs.setdefault(os.path.realpath(folder), folder)
        empty += dict.fromkeys(unread if found or unread else [str(path)])
    return list(runs.values()), empty


def _runs_below(folder: Path, unread: list[str]) -> list[Path]:
    """Return a run's folder itself, or those below a folder; add those that cannot be read."""
    found, seen = [], set()

    def note(error: OSError) -> None:
        if isinstance(error, PermissionError):
            unread.append(error.filename)

    for parent, names, files in os.walk(folder, onerror=note, followlinks=True):
        names.sort()
        real = os.path.realpath(parent)
        if real in seen:  # a link leads back
            names.clear()
            continue
        seen.add(real)
        if "config.json" in files:
            found.append(Path(parent))
            names.clear()  # a run holds no other run
    return found


def read_run(folder: str | os.PathLike) -> list[SeedRecord]:
    """Read a run, finished or not, as one record per seed.

    Args:
        folder: A run folder with config.json; the CSV files may still be missing.

    Raises:
        UserError: The folder is not a run's, or a file in it is malformed or cannot be read.
    """
    try:
        return _read_run(Path(folder))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def _read_run(folder: Path) -> list[SeedRecord]:
    config = read_config(folder)
    evaluations = read_csv(folder / "eval.csv")
    training = read_csv(folder / "train.csv")
    timing = read_csv(folder / "timing.csv")
    metric = scored_metric(evaluations, config.protocol) or (config.protocol or {}).get("metric")
    metric = metric or "success"
    factor = METRICS[metric].factor
    values = {
        seed: {step: factor * value for step, value in sorted(table.items())}
        for seed, table in by_seed(evaluations, metric).items()
    }
    episodes = _episodes(read_csv(folder / "eval_episodes.csv"), metric)
    steps = max((int(row.get("step", 0)) for row in [*training, *evaluations]), default=0)
    failed = failed_seeds(training, evaluations)
    speeds = [number(row, "updates_per_second") for row in timing if "updates_per_second" in row]
    seconds = [number(row, "seconds") for row in timing if "seconds" in row]
    done = (folder / "score.json").exists() and steps >= config.steps_wanted
    error = _last_line(folder / ERROR)
    state = "done" if done else "running" if is_held(folder / LOCK) else "unfinished"
    if state == "unfinished" and error:
        state = "crashed"
    return [
        SeedRecord(
            folder=folder,
            seed=seed,
            config=config,
            metric=metric,
            evaluations={s: x for s, x in values.get(seed, {}).items() if math.isfinite(x)},
            episodes={step: factor * x for step, x in episodes.get(seed, {}).items()},
            steps=failed.get(seed, steps),
            state="diverged" if seed in failed else state,
            failed=failed.get(seed),
            error=error,
            not_finite=tuple(s for s, x in values.get(seed, {}).items() if not math.isfinite(x)),
            updates_per_second=float(np.median(speeds)) if speeds else None,
            hours=max(seconds) / 3600 if seconds else None,
        )
        for seed in config.seeds
    ]


def _last_line(path: Path) -> str:
    """Return the last line of a text; empty if there is none."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _episodes(rows: Sequence[Row], metric: str) -> dict[int, dict[int, np.ndarray]]:
    """Return the values of the episodes by seed and step."""
    table: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        if metric in row and "seed" in row:
            steps = table.setdefault(int(row["seed"]), {})
            steps.setdefault(int(row["step"]), []).append(number(row, metric))
    return {
        seed: {step: np.array(values) for step, values in sorted(steps.items())}
        for seed, steps in table.items()
    }


def scored_steps(record: SeedRecord, which: str = "protocol", until: float = math.inf) -> list[int]:
    """Return the steps of the evaluations that a score averages.

    The evaluation before the first update counts only if there is no other.

    Args:
        record: The seed.
        which: `protocol`, as many last evaluations as the benchmark's protocol has, one for a run
            that goes online; `offline`, that of a run that goes online at the end of its offline
            phase; `last`; `last3`, the last three; or `best`, the greatest of all, which no
            protocol allows.
        until: Step after which evaluations do not count.

    Raises:
        ValueError: There is no such score.
    """
    config, number_of = record.config, 1
    if which == "offline":
        until = min(until, -1 if config.online_start is None else config.online_start)
    elif which == "protocol" and config.online_start is None:
        protocol = config.protocol or {}
        number_of = protocol.get("evaluations", METRICS[record.metric].evaluations)
    elif which == "last3":
        number_of = 3
    elif which not in ("protocol", "last", "best"):
        raise ValueError(f"no score {which!r}")
    steps = [step for step in record.evaluations if step <= until]
    steps = [step for step in steps if step > 0] or steps
    if which == "best":
        return sorted(steps, key=lambda step: record.evaluations[step])[-1:]
    return steps[-number_of:]


def score(record: SeedRecord, which: str = "protocol", until: float = math.inf) -> float | None:
    """Return what a seed scores: the mean of the evaluations that `scored_steps` names.

    Returns:
        The score, or None without an evaluation that counts.
    """
    steps = scored_steps(record, which, until)
    return float(np.mean([record.evaluations[step] for step in steps])) if steps else None


def evaluation_rows(record: SeedRecord) -> list[dict[str, Any]]:
    """Return a row per evaluation of a seed, see `utils.report.paths.load`."""
    config = record.config
    last_offline = math.inf if config.online_start is None else config.online_start
    return [
        {
            "task": config.task,
            "agent": config.agent,
            "seed": record.seed,
            "step": step,
            "phase": "online" if step > last_offline else "offline",
            "metric": record.metric,
            "value": value,
            "episodes": config.eval_episodes,
            "state": record.state,
            "folder": str(record.folder),
        }
        for step, value in record.evaluations.items()
    ]


def differing_settings(configs: Sequence[RunConfig]) -> list[str]:
    """Return the names of the settings in which configs differ, in their order."""
    names = dict.fromkeys(name for config in configs for name in config.settings)
    return [
        name for name in names if len({repr(config.settings.get(name)) for config in configs}) > 1
    ]
