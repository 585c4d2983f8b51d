"""One table and one picture of several runs: ``python -m utils.report.tables RUN_DIR [RUN_DIR ...]``."""

import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.report.scores import protocol_score, run_metric

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
    """Returns Wilson's score interval of a success probability.

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


def summarise(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads what the table says about one run.

    Args:
        folder: A run folder with config.json; the CSV files may still be missing.

    Returns:
        ``task``, ``agent``, ``num_seeds``, ``eval_episodes``, ``steps`` (done: updates offline,
        environment steps online), ``steps_wanted``, ``boundary`` (where it went online; None),
        ``score`` (see `utils.report.scores.protocol_score`), ``interval`` (95 % over the scored episodes
        of all seeds, in percent; None if the metric is not a rate) and ``updates_per_second``
        (median; None).

    Raises:
        UserError: If the folder is not a run folder or a file in it is malformed.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    evaluations = read_csv(folder / "eval.csv")
    speeds = [
        row["updates_per_second"]
        for row in read_csv(folder / "timing.csv")
        if "updates_per_second" in row
    ]
    steps = [row.get("step", 0) for row in [*read_csv(folder / "train.csv"), *evaluations]]
    score = protocol_score(evaluations, run_metric(evaluations), settings["boundary"])
    interval = None
    if score["metric"] == "success" and score["mean"] is not None and math.isfinite(score["mean"]):
        trials = settings["eval_episodes"] * len(score["per_seed"])
        trials *= len(score["evaluations_used"])
        interval = tuple(100 * end for end in wilson_interval(score["mean"] / 100 * trials, trials))
    return {
        **settings,
        "steps": max(steps, default=0),
        "score": score,
        "interval": interval,
        "updates_per_second": statistics.median(speeds) if speeds else None,
    }


def read_settings(folder: Path) -> dict[str, Any]:
    """Reads what config.json alone says of a run."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        flags, boundary = config["flags"], config.get("boundary")
        wanted = int(flags["offline_steps"])
        if boundary is not None:
            wanted = boundary + int(flags["online_steps"])
        return {
            "task": str(config["env_name"]),
            "agent": Path(config["agent_path"]).stem,
            "num_seeds": int(flags["num_seeds"]),
            "eval_episodes": int(flags["eval_episodes"]),
            "steps_wanted": wanted,
            "boundary": boundary,
        }
    except OSError as error:
        raise UserError(
            f"{folder} is not a run folder: {path.name} cannot be read ({error.strerror}); "
            "give the folders that main.py or online_main.py made"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the same command again to "
            "make it anew"
        ) from error


def _per_seed(score: dict[str, Any]) -> str:
    return " ".join(f"{value:.0f}" for value in score["per_seed"].values()) or "-"


def _mean(score: dict[str, Any]) -> str:
    if score["mean"] is None:
        return "-"
    spread = "" if score["std"] is None else f" ± {score['std']:.1f}"
    return f"{score['mean']:.1f}{spread}"


def default_labels(folders: Sequence[str | os.PathLike]) -> list[str]:
    """Returns the agents' names where they tell the runs apart, else those of the folders."""
    agents = [read_settings(Path(folder))["agent"] for folder in folders]
    names = [Path(folder).resolve().name for folder in folders]
    paths = [str(folder) for folder in folders]
    return next((choice for choice in (agents, names) if len(set(choice)) == len(choice)), paths)


def comparison_table(
    folders: Sequence[str | os.PathLike], labels: Sequence[str] | None = None
) -> str:
    """Returns a Markdown table with one line per run, scores by the protocol of the benchmark.

    Args:
        folders: Run folders.
        labels: Names of the runs, by default `default_labels`.

    Raises:
        UserError: If a folder is not a run folder, or labels and folders differ in number.
    """
    labels = default_labels(folders) if labels is None else labels
    if len(labels) != len(folders):
        raise UserError(f"{len(labels)} labels for {len(folders)} runs; give one for each")
    lines = [COLUMNS]
    for label, folder in zip(labels, folders, strict=True):
        run = summarise(folder)
        score, done, wanted = run["score"], run["steps"], run["steps_wanted"]
        phases = [score["offline"], score] if "offline" in score else [score]
        interval = run["interval"]
        speed = run["updates_per_second"]
        used = len(score["evaluations_used"])
        metric = {"success": "success %"}.get(score["metric"], score["metric"].replace("_", " "))
        lines.append(
            (
                label.replace("|", "/"),
                run["task"],
                run["agent"],
                str(run["num_seeds"]),
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
