"""Where own runs stand among the seeds of published curves, as text."""

from collections.abc import Sequence

import numpy as np

from utils.report.captions import task_title
from utils.report.grid import Grid, short_name
from utils.report.pooling import Cell
from utils.report.published.curves import PublishedCurve, curve, legend
from utils.report.published.protocol import short_steps
from utils.report.published.standing import Standing, standing
from utils.report.rendering import cross_table, markdown
from utils.report.tables import has_lines


def standings(grid: Grid, curves: Sequence[tuple[str, str]]) -> list[str]:
    """Return where all cells stand: a sentence per cell and curve, or a table of many per curve.

    Args:
        grid: The cells; those that are not scored by success are passed over.
        curves: Release and method of each, see `utils.report.published.curves.parse_with`.
    """
    parts = []
    for release, method in curves:
        published = {task: curve(release, method, task) for task in grid.tasks}
        published = {task: one for task, one in published.items() if one is not None}
        found = {
            key: _standing(cell, published[key[0]])
            for key, cell in grid.cells.items()
            if key[0] in published and cell.records[0].metric == "success"
        }
        found = {key: one for key, one in found.items() if one is not None}
        if not found:
            parts.append(f"{release}:{method} has no curve that these runs can stand beside.")
        elif has_lines(grid):
            sentences = [
                f"- {label} on {short_name(task)}: {one.text}."
                for (task, label), one in found.items()
            ]
            parts.append("\n".join(sentences))
        else:
            tasks = [task for task in grid.tasks if task in published]
            table = cross_table(
                tasks,
                grid.labels,
                lambda task, label, found=found: _short(found.get((task, label))),
                {},
                "task",
                task_title(grid),
            )
            parts += [f"Beside {legend(list(published.values()))}:", markdown(table)]
    return parts


def _standing(cell: Cell, published: PublishedCurve) -> Standing | None:
    """Return where the mean of a cell's scored seeds stands."""
    if not cell.scored:
        return None
    values = [record.evaluations for record in cell.scored]
    steps = set.intersection(*map(set, values))
    own = {step: float(np.mean([one[step] for one in values])) for step in sorted(steps)}
    return standing(own, published, cell.records[0].config.online_start)


def _short(one: Standing | None) -> str:
    if one is None:
        return "-"
    at = f"{one.own:.1f}, theirs {one.mean:.1f}, at {short_steps(one.step)}"
    return at if one.percentile is None else f"{at}: percentile {one.percentile:.0f}"
