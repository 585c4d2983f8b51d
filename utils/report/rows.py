"""The report's CSV files: a row per cell, and a row per evaluation."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from utils.report.captions import remarks
from utils.report.estimates import SCORES, estimate, scored_episodes
from utils.report.grid import Grid
from utils.report.pooling import Cell
from utils.report.provenance import FACTS, cell_fact, folders_of, hours_of, speed_of
from utils.report.published.beside import Found, text
from utils.report.published.results import Comparison
from utils.report.records import evaluation_rows


def cell_rows(grid: Grid, published: Found) -> list[dict[str, Any]]:
    """Return what is known of each cell, as a row each.

    Every kind of score has its mean, standard deviation, interval, number of seeds and of episodes
    in columns that begin with its name.

    Args:
        grid: The cells.
        published: Comparisons with what is published of their tasks.
    """
    rows = []
    for (task, label), cell in grid.cells.items():
        config, folders = cell.records[0].config, folders_of(cell)
        row: dict[str, Any] = {
            "task": task,
            "agent": cell.agent,
            "method": label,
            "metric": cell.records[0].metric,
            "seeds": " ".join(str(record.seed) for record in cell.records),
            "scored_seeds": " ".join(str(record.seed) for record in cell.scored),
            "finished": int(cell.complete),
            "steps": min(record.steps for record in cell.scored or cell.records),
            "steps_wanted": config.steps_wanted,
            "online_start": config.online_start,
            "scored_at": cell.at_step,
            "episodes_per_evaluation": config.eval_episodes,
        }
        for which in SCORES:
            row |= _score_columns(cell, which)
        row |= _published_columns(published.get((task, label), ()))
        row |= {
            "remarks": "; ".join(remarks(cell, "protocol")),
            "updates_per_second": speed_of(cell),
            "hours": hours_of(cell),
            **{fact.name: cell_fact(cell, fact) for fact in FACTS},
            "folders": " ".join(map(str, folders)),
            "commands": "; ".join(dict.fromkeys(r.config.command for r in cell.records)),
        }
        rows.append(row)
    return rows


def _score_columns(cell: Cell, which: str) -> dict[str, Any]:
    found = estimate(cell.scores(which))
    low, high = (None, None) if found is None or found.interval is None else found.interval
    return {
        which: found and found.value,
        f"{which}_std": found and found.std,
        f"{which}_low": low,
        f"{which}_high": high,
        f"{which}_seeds": 0 if found is None else found.seeds,
        f"{which}_episodes": scored_episodes(cell, which),
    }


def _published_columns(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return what is published, of both phases in words and of the last one in numbers."""
    last = comparisons[-1] if comparisons else None
    result = last and last.published
    return {
        "published": text(comparisons) if comparisons else None,
        "published_mean": result and result.mean,
        "published_std": result and result.std,
        "published_seeds": result and result.seeds,
        "published_source": result and result.source,
        "difference": last and last.difference,
        "difference_in_standard_errors": last and last.standard_errors,
        "not_comparable": "; ".join(last.obstacles) if last else None,
    }


def seed_rows(grid: Grid) -> list[dict[str, Any]]:
    """Return a row per method, task, seed and evaluation, see `utils.report.records.load`."""
    return [
        {"method": label, **row}
        for (_, label), cell in grid.cells.items()
        for record in cell.records
        for row in evaluation_rows(record)
    ]


def to_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows with the columns of the first as a CSV file; None is an empty cell."""
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
