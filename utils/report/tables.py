"""Several runs as one table."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.report.folders import RunConfig, read_config
from utils.report.scores import failed_seeds, number, protocol_score

COLUMNS = (
    "run",
    "task",
    "agent",
    "seeds",
    "steps",
    "score",
    "per seed",
    "mean ± std",
    "95 % interval",
    "updates/s",
)


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a success probability.

    Args:
        successes: Number of successes, 0 to `trials`.
        trials: Number of independent trials, at least 1.
        confidence: Probability that the interval covers.

    Returns:
        The lower and the upper end, within [0, 1].
    """
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class RunSummary:
    """What the table says of one run.

    Attributes:
        config: What config.json says of it.
        steps: Done: updates offline, plus environment steps online.
        score: See `utils.report.scores.protocol_score`.
        interval: 95 % over the scored episodes of all seeds, in percent; None if the metric is not
            a rate.
        updates_per_second: Median; None if it was not logged.
    """

    config: RunConfig
    steps: int
    score: dict[str, Any]
    interval: tuple[float, float] | None
    updates_per_second: float | None


def summarise(folder: str | os.PathLike) -> RunSummary:
    """Read what the table says of one run.

    Args:
        folder: A run folder with config.json; the CSV files may still be missing.

    Returns:
        The summary.

    Raises:
        UserError: The folder is not a run folder, or a file in it is malformed.
    """
    folder = Path(folder)
    config = read_config(folder)
    evaluations = read_csv(folder / "eval.csv")
    speeds = [
        number(row, "updates_per_second")
        for row in read_csv(folder / "timing.csv")
        if "updates_per_second" in row
    ]
    training = read_csv(folder / "train.csv")
    steps = [row.get("step", 0) for row in [*training, *evaluations]]
    failed = failed_seeds(training, evaluations)
    score = protocol_score(evaluations, config.protocol, config.online_start, failed)
    interval = None
    if score["metric"] == "success" and score["mean"] is not None and math.isfinite(score["mean"]):
        trials = config.eval_episodes * len(score["per_seed"]) * len(score["evaluations_used"])
        low, high = wilson_interval(score["mean"] / 100 * trials, trials)
        interval = 100 * low, 100 * high
    return RunSummary(
        config=config,
        steps=max(steps, default=0),
        score=score,
        interval=interval,
        updates_per_second=statistics.median(speeds) if speeds else None,
    )


def _seeds(run: RunSummary) -> str:
    """Return how many seeds were trained, and which of them are in no other cell."""
    failed = run.score.get("failed", {})
    named = f" (failed: {', '.join(map(str, failed))})" if failed else ""
    return f"{len(run.config.seeds)}{named}"


def _per_seed(score: dict[str, Any]) -> str:
    return " ".join(f"{value:.0f}" for value in score["per_seed"].values()) or "-"


def _mean(score: dict[str, Any]) -> str:
    if score["mean"] is None:
        return "-"
    spread = "" if score["std"] is None else f" ± {score['std']:.1f}"
    return f"{score['mean']:.1f}{spread}"


def default_labels(folders: Sequence[str | os.PathLike]) -> list[str]:
    """Return the agents' names, or as much of the folders' as tells the runs apart."""
    agents = [read_config(folder).agent for folder in folders]
    parts = [Path(folder).resolve().parts for folder in folders]
    names, longer = (["/".join(path[-n:]) for path in parts] for n in (1, 2))
    choices = agents, names, longer
    paths = [str(folder) for folder in folders]
    return next((choice for choice in choices if len(set(choice)) == len(choice)), paths)


def comparison_table(
    folders: Sequence[str | os.PathLike], labels: Sequence[str] | None = None
) -> str:
    """Return a Markdown table with one line per run.

    Scores are those of the benchmark's protocol.

    Args:
        folders: Run folders.
        labels: Names of the runs, by default `default_labels`.

    Raises:
        UserError: A folder is not a run folder, or labels and folders differ in number.
    """
    labels = default_labels(folders) if labels is None else labels
    if len(labels) != len(folders):
        raise UserError(f"{len(labels)} labels for {len(folders)} runs; give one for each")
    lines = [COLUMNS]
    for label, folder in zip(labels, folders, strict=True):
        run = summarise(folder)
        score, done, wanted = run.score, run.steps, run.config.steps_wanted
        phases = [score["offline"], score] if "offline" in score else [score]
        interval, speed = run.interval, run.updates_per_second
        used = len(score["evaluations_used"])
        metric = {"success": "success %"}.get(score["metric"], score["metric"].replace("_", " "))
        lines.append(
            (
                label.replace("|", "/"),
                run.config.task,
                run.config.agent,
                _seeds(run),
                f"{done}" if done >= wanted else f"{done} of {wanted}",
                f"{metric}, last {used}" if used > 1 else metric,
                " -> ".join(map(_per_seed, phases)),
                " -> ".join(map(_mean, phases)),
                "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}",
                "-" if speed is None else f"{speed:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
