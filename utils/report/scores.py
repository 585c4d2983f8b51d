"""The score that the evaluation protocol defines."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.metrics import Panel
from utils.report.csv_log import Row

# The first of these that eval.csv has is the metric of the run: D4RL's return where it is known,
# the success rate elsewhere.
METRICS = {
    "normalized_return": Panel("normalized return", "eval.csv", "normalized_return"),
    "success": Panel("success (%)", "eval.csv", "success", factor=100.0, bounds=(0.0, 100.0)),
    "return": Panel("return", "eval.csv", "return"),
}
# Of the evaluations of a run, OGBench's score averages the last three.
SCORED_EVALUATIONS = {"success": 3, "normalized_return": 1, "return": 1}


def run_metric(eval_rows: Sequence[Row]) -> str | None:
    """Returns the metric that the evaluations are scored by, None if there are none."""
    return next((key for key in METRICS if any(key in row for row in eval_rows)), None)


def by_seed(rows: Sequence[Row], key: str) -> dict[int, dict[int, float]]:
    """Returns the values of a column as ``{seed: {step: value}}``; rows without it are left out."""
    table: dict[int, dict[int, float]] = {}
    for row in rows:
        if key in row and "step" in row:
            table.setdefault(int(row.get("seed", 0)), {})[int(row["step"])] = float(row[key])
    return dict(sorted(table.items()))


def protocol_score(
    eval_rows: Sequence[Row], metric: str | None = None, boundary: int | None = None
) -> dict[str, Any]:
    """Computes the score of a run by the protocol of its benchmark.

    OGBench: the mean success of the last three evaluations in percent. D4RL: the normalized return
    of the last one. Offline-to-online, on both: the last evaluation, and the one that ended the
    offline phase. Only evaluations of all seeds count; the one before the first update counts only
    if there is no other.

    Args:
        eval_rows: Rows of eval.csv, ``success`` as a fraction.
        metric: ``success``, ``normalized_return`` or ``return``; by default that of the run.
        boundary: Step at which an offline-to-online run went online.

    Returns:
        ``metric``, ``per_seed`` (score by seed), ``mean`` and ``std`` over the seeds (population
        standard deviation; None with fewer than two seeds, the mean None without evaluations),
        ``evaluations_used`` (their steps) and ``evaluations_wanted`` (how many the protocol has).
        Of a run that has been evaluated online also ``offline``: the same of the evaluation there.
    """
    metric = metric or run_metric(eval_rows) or "success"
    if boundary is None:
        return _score(eval_rows, metric, SCORED_EVALUATIONS[metric])
    offline = _score([row for row in eval_rows if row["step"] <= boundary], metric, 1)
    online = _score([row for row in eval_rows if row["step"] > boundary], metric, 1)
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
    """Returns one line that says what `protocol_score` found and from which evaluations."""
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
