"""What is published, as text beside one's own scores."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utils.report.captions import task_title
from utils.report.grid import Grid, short_name
from utils.report.pooling import Cell
from utils.report.published.beside import Found
from utils.report.published.curves import PublishedCurve, curve, legend
from utils.report.published.protocol import short_steps
from utils.report.published.standing import Standing, standing
from utils.report.rendering import Beside, Notes, cross_table, markdown
from utils.report.tables import has_lines

_STANDARD_ERRORS = (
    "SE: standard errors of the difference, from the spread of own seeds and from the published "
    "standard deviation over the root of its seeds"
)


def published_texts(found: Found, notes: Notes) -> Beside:
    """Return published numbers and the differences from them, or the first reason for none.

    Args:
        found: The comparisons.
        notes: Takes sources, and what else there is to know.
    """
    texts = {}
    for key, comparisons in found.items():
        method = comparisons[0].published.method
        numbers = " -> ".join(one.published.text for one in comparisons)
        reasons = [replace(one, obstacles=one.obstacles[:1]).text for one in comparisons]
        sources = [one.published.source for one in comparisons]
        more = [line for one in comparisons for line in (*one.obstacles[1:], *one.remarks)]
        if any(one.standard_errors is not None for one in comparisons):
            more.append(_STANDARD_ERRORS)
        about = "; ".join(dict.fromkeys([*sources, *more]))
        text = f"{method} {numbers}; {' -> '.join(dict.fromkeys(reasons))}"
        texts[key] = text + notes.mark([f"published: {about}"])
    return texts


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
