"""The score that the evaluation protocol of a benchmark defines."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.report.csv_log import Row


@dataclass(frozen=True)
class EvaluationMetric:
    """A column of eval.csv that runs are scored by.

    Attributes:
        title: Heading of its plot.
        factor: Multiplies the column's values, in scores and plots.
        bounds: The least and the greatest value possible, after `factor`.
        evaluations: How many of the last ones a score averages if the protocol does not say.
    """

    title: str
    factor: float = 1.0
    bounds: tuple[float, float] = (-math.inf, math.inf)
    evaluations: int = 1


# A protocol that names no metric takes the first of these that eval.csv has.
METRICS = {
    "normalized_return": EvaluationMetric("normalized return"),
    "success": EvaluationMetric("success (%)", 100.0, (0.0, 100.0), evaluations=3),
    "return": EvaluationMetric("return"),
}


def scored_metric(
    eval_rows: Sequence[Row], protocol: Mapping[str, Any] | None = None
) -> str | None:
    """Return the metric that evaluations are scored by.

    Args:
        eval_rows: Rows of eval.csv.
        protocol: As in `protocol_score`.

    Returns:
        A key of `METRICS`, or None if there is no evaluation with one.
    """
    named = None if protocol is None else protocol["metric"]
    known = METRICS if named is None else [named]
    return next((key for key in known if any(key in row for row in eval_rows)), None)


def number(row: Row, key: str) -> float:
    """Return a row's value of a column.

    Raises:
        UserError: It is no number.
    """
    if isinstance(row[key], str):
        raise UserError(
            f"the row of step {row['step']} has {row[key]!r} as {key}, where a number belongs; "
            "correct that cell of the run's CSV file, or remove the row"
        )
    return float(row[key])


def by_seed(rows: Sequence[Row], key: str) -> dict[int, dict[int, float]]:
    """Return the values of a column as ``{seed: {step: value}}``.

    Rows without the column are left out; those without a seed are seed 0's.

    Raises:
        UserError: A value is no number.
    """
    table: dict[int, dict[int, float]] = {}
    for row in rows:
        if key in row and "step" in row:
            table.setdefault(int(row.get("seed", 0)), {})[int(row["step"])] = number(row, key)
    return dict(sorted(table.items()))


def failed_seeds(*tables: Sequence[Row]) -> dict[int, int]:
    """Return the seeds that rows of train.csv or eval.csv mark as failed, with the first's step."""
    marked = [row for rows in tables for row in rows if "failed" in row]
    steps: dict[int, int] = {}
    for row in sorted(marked, key=lambda row: row["step"]):
        steps.setdefault(int(row["seed"]), int(row["step"]))
    return steps


def protocol_score(
    eval_rows: Sequence[Row],
    protocol: Mapping[str, Any] | None = None,
    online_start: int | None = None,
    failed: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Compute a run's score by the protocol of its benchmark.

    The score of a seed is the mean of its last evaluations, as many as the protocol has. A run that
    goes online has two: of its last evaluation, and of the one that ended the offline phase. Only
    evaluations of all seeds count, and the one before the first update only if there is no other.

    Args:
        eval_rows: Rows of eval.csv, ``success`` as a fraction.
        protocol: ``metric``, a key of `METRICS` or None for the first that the rows have, and
            ``evaluations``, how many of the last ones are averaged. If it is None, it is the
            metric's own number.
        online_start: Step at which an offline-to-online run goes online.
        failed: Seeds that are left out, see `failed_seeds`.

    Returns:
        ``metric``, ``per_seed`` (score by seed), ``mean`` and ``std`` over the seeds (population
        standard deviation; None with fewer than two seeds, the mean None without evaluations),
        ``evaluations_used`` (their steps) and ``evaluations_wanted`` (how many the protocol has).
        Of a run that has been evaluated online also ``offline``: the same of the evaluation there.
        Where seeds have failed also ``failed``, which are not among the others: steps by seed.
    """
    if failed:
        left = [row for row in eval_rows if row.get("seed", 0) not in failed]
        return protocol_score(left, protocol, online_start) | {"failed": dict(failed)}
    metric = scored_metric(eval_rows, protocol) or (protocol or {}).get("metric") or "success"
    if online_start is None:
        wanted = METRICS[metric].evaluations if protocol is None else protocol["evaluations"]
        return _score(eval_rows, metric, wanted)
    offline = _score([row for row in eval_rows if row["step"] <= online_start], metric, 1)
    online = _score([row for row in eval_rows if row["step"] > online_start], metric, 1)
    return offline if online["mean"] is None else online | {"offline": offline}


def _score(eval_rows: Sequence[Row], metric: str, wanted: int) -> dict[str, Any]:
    table = by_seed(eval_rows, metric)
    common = sorted(set.intersection(*(set(values) for values in table.values()))) if table else []
    used = ([step for step in common if step > 0] or common)[-wanted:]
    factor = METRICS[metric].factor
    per_seed = {
        seed: statistics.fmean(factor * values[step] for step in used)
        for seed, values in table.items()
        if used
    }
    scores = list(per_seed.values())
    return {
        "metric": metric,
        "per_seed": per_seed,
        "mean": statistics.fmean(scores) if scores else None,
        "std": float(np.std(scores)) if len(scores) > 1 else None,
        "evaluations_used": used,
        "evaluations_wanted": wanted,
    }


def score_line(score: dict[str, Any]) -> str:
    """Return one line that says what `protocol_score` found and where."""
    if failed := score.get("failed"):
        seeds = ", ".join(f"{seed} at step {step}" for seed, step in failed.items())
        rest = {name: value for name, value in score.items() if name != "failed"}
        return f"{score_line(rest)}; failed and left out: seed {seeds}"
    if score["mean"] is None:
        return "score: no evaluation yet"
    metric, used, wanted = score["metric"], score["evaluations_used"], score["evaluations_wanted"]
    seeds = len(score["per_seed"])
    steps = ", ".join(str(step) for step in used)
    parts = [score]
    if before := score.get("offline"):
        source = f"offline at {before['evaluations_used'][0]} -> online at {steps}"
        parts = [before, score]
    elif len(used) == 1:
        source = f"evaluation at {steps}" if wanted > 1 else f"last evaluation, at {steps}"
    else:
        source = f"mean of the last {len(used)} evaluations at {steps}"
    if len(used) < wanted:
        source += f", where the protocol has {wanted}"
    value = " -> ".join(f"{part['mean']:.1f}" for part in parts)
    value = f"success {value} %" if metric == "success" else f"{metric.replace('_', ' ')} {value}"
    spread = "1 seed"
    if seeds > 1:
        spread = f"{seeds} seeds, std " + " -> ".join(f"{part['std']:.1f}" for part in parts)
    return f"score: {value} ({source}; {spread})"
