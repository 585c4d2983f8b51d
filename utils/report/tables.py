"""Tables of scores: a line per cell, or tasks by methods."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from utils.report.aggregates import Aggregate, Comparison
from utils.report.captions import common_seeds, metric_name, remarks, task_title
from utils.report.estimates import (
    Estimate,
    episodes_interval,
    estimate,
    interval_text,
    number_text,
    score_text,
    scored_episodes,
)
from utils.report.grid import Grid
from utils.report.pooling import Cell
from utils.report.provenance import speed_of
from utils.report.rendering import MANY, Beside, Notes, Table, cross_table, is_turned

OVER_EPISODES = "over the episodes of one seed: it does not tell how another seed would differ"


def score_table(grid: Grid, which: str, notes: Notes, published: Beside) -> Table:
    """Return the scores of all cells: few of them a line each, many as tasks by methods.

    Args:
        grid: The cells.
        which: Kind of score, see `utils.report.records.score`.
        notes: Takes the cells' remarks.
        published: Texts for the columns beside.
    """
    if has_lines(grid):
        return _line_table(grid, which, notes, published)

    def text(task: str, label: str) -> str:
        cell = grid.cells.get((task, label))
        if cell is None:
            return "not run"
        seeds = f", n={len(cell.scored)}" if common_seeds(grid) is None else ""
        return score_text(cell, which, interval=True) + seeds + notes.mark(remarks(cell, which))

    return cross_table(grid.tasks, grid.labels, text, published, "task", task_title(grid))


def has_lines(grid: Grid) -> bool:
    """Return whether the table of scores has a line per cell."""
    return len(grid.tasks) == 1 or len(grid.cells) <= MANY


def latex_table(grid: Grid, which: str, notes: Notes, comparisons: Sequence[Comparison]) -> Table:
    """Return tasks, then groups of them, by methods, with the best of each marked.

    Args:
        grid: The cells.
        which: Kind of score, see `utils.report.records.score`.
        notes: Takes the cells' remarks.
        comparisons: Of the groups.
    """
    groups = {one.group.title: one for one in comparisons}
    keys = (*grid.tasks, *groups)

    def text(key: str, label: str) -> str:
        if key in groups:
            return number_text(groups[key].means[label].value, groups[key].group.metric)
        cell = grid.cells.get((key, label))
        if cell is None:
            return "not run"
        return score_text(cell, which) + notes.mark(remarks(cell, which))

    def title(key: str) -> str:
        return f"mean of {key}" if key in groups else task_title(grid)(key)

    table = cross_table(keys, grid.labels, text, {}, "task", title)
    best = set()
    for i, key in enumerate(keys):
        means = groups[key].means if key in groups else _task_means(grid, key, which)
        best |= {(i, grid.labels.index(label)) for label in best_methods(means)}
    if is_turned(keys, grid.labels):
        return replace(table, best=frozenset((j, 1 + i) for i, j in best))
    rule = len(grid.tasks) if groups else None
    return replace(table, best=frozenset((i, 1 + j) for i, j in best), rule=rule)


def _task_means(grid: Grid, task: str, which: str) -> dict[str, Estimate]:
    """Return what the seeds of each method say on a task."""
    found = {
        label: estimate(grid.cells[task, label].scores(which))
        for label in grid.labels
        if (task, label) in grid.cells
    }
    return {label: own for label, own in found.items() if own is not None}


def best_methods(means: Mapping[str, Estimate | Aggregate]) -> list[str]:
    """Return the labels of the greatest value, and of those whose intervals reach it."""
    greatest = max((own.value for own in means.values()), default=0.0)
    return [
        label
        for label, own in means.items()
        if own.value == greatest or (own.interval is not None and own.interval[1] >= greatest)
    ]


def _line_table(grid: Grid, which: str, notes: Notes, published: Beside) -> Table:
    """Return a line per cell."""
    title = task_title(grid)
    metrics = {cell.records[0].metric for cell in grid.cells.values()}
    online = any(cell.records[0].config.online_start is not None for cell in grid.cells.values())
    header = [
        "method",
        *(["task"] if len(grid.tasks) > 1 else []),
        "seeds",
        "episodes",
        "steps" if online else "updates",
        metric_name(*metrics) if len(metrics) == 1 else "score",
        "95 % interval",
        *(["published"] if published else []),
        "updates/s",
    ]
    lines = []
    for (task, label), cell in grid.cells.items():
        metric = cell.records[0].metric
        score = score_text(cell, which) + notes.mark(remarks(cell, which))
        interval, source = _interval(cell, which), ""
        if interval is None and (interval := episodes_interval(cell, which)) is not None:
            source = notes.mark([OVER_EPISODES])
        speed = speed_of(cell)
        lines.append(
            (
                label,
                *([title(task)] if len(grid.tasks) > 1 else []),
                _part(len(cell.scored), len(cell.records)),
                str(scored_episodes(cell, which)),
                _part(min(record.steps for record in cell.scored or cell.records), _wanted(cell)),
                score,
                interval_text(interval, metric) + source,
                *([published.get((task, label), "-")] if published else []),
                "-" if speed is None else f"{speed:.0f}",
            )
        )
    return Table(tuple(header), tuple(lines))


def _part(done: int, wanted: int) -> str:
    return f"{done}" if done >= wanted else f"{done} of {wanted}"


def _wanted(cell: Cell) -> int:
    return cell.records[0].config.steps_wanted


def _interval(cell: Cell, which: str) -> tuple[float, float] | None:
    found = estimate(cell.scores(which))
    return None if found is None else found.interval
