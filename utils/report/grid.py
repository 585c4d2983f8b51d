"""Cells by task and method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.envs import tasks
from utils.errors import UserError
from utils.report.estimates import RATES
from utils.report.pooling import Cell


@dataclass(frozen=True)
class Grid:
    """Cells by task and method.

    Attributes:
        cells: By (task, label), in order of tasks, then methods.
        tasks: Full names of the tasks, those of a group side by side.
        labels: The methods, as they come.
    """

    cells: Mapping[tuple[str, str], Cell]
    tasks: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TaskGroup:
    """Tasks over which scores are averaged.

    Attributes:
        name: What it is called.
        tasks: Those that all methods have scores of.
        number: How many tasks there are in the whole group.
        metric: What their runs are scored by.
    """

    name: str
    tasks: tuple[str, ...]
    number: int
    metric: str

    @property
    def title(self) -> str:
        """The name and how many of its tasks are averaged."""
        part = f"{len(self.tasks)}"
        part += f" of {self.number}" if len(self.tasks) < self.number else ""
        return f"{self.name} ({part} tasks)"


def arrange(cells: Sequence[Cell], labels: Sequence[str] | None = None) -> Grid:
    """Arrange cells by task and method.

    Args:
        cells: The cells, methods in the order that tables shall have.
        labels: Names of the methods in that order; by default those that the cells have.

    Raises:
        UserError: Labels and methods differ in number, or two labels are equal.
    """
    present = tuple(dict.fromkeys(cell.label for cell in cells))
    if labels is not None:
        if len(labels) != len(present):
            raise UserError(
                f"{len(labels)} labels for {len(present)} methods; give one for each of "
                + "; ".join(present)
            )
        if not all(labels):
            raise UserError("a label is empty; give each method a name")
        if len(set(labels)) < len(labels):
            raise UserError("two methods cannot have one label; give each its own")
        names = dict(zip(present, labels, strict=True))
        cells = [replace(cell, label=names[cell.label]) for cell in cells]
        present = tuple(labels)
    members = [name for group in tasks.groups().values() for name in group]
    order = {name: position for position, name in enumerate(dict.fromkeys(members))}
    names = sorted({cell.task for cell in cells}, key=lambda name: (order.get(name, -1), name))
    found = {(cell.task, cell.label): cell for cell in cells}
    keys = [(task, label) for task in names for label in present]
    return Grid({key: found[key] for key in keys if key in found}, tuple(names), present)


def task_groups(grid: Grid) -> list[TaskGroup]:
    """Return the benchmarks' groups that the grid has tasks of, the greatest last.

    Tasks that a method lacks a score of are left out for all methods, so that all means are over
    the same tasks. Groups that come down to the same tasks, or to one, are left out too.
    """
    groups = []
    one_metric = len({cell.records[0].metric for cell in grid.cells.values()}) == 1
    for metric in RATES:
        scored = [
            task
            for task in grid.tasks
            if all(_has_score(grid.cells.get((task, label)), metric) for label in grid.labels)
        ]
        every = "all" if one_metric else f"all by {metric.replace('_', ' ')}"
        known = {**tasks.groups(), every: _all_tasks(grid, metric)}
        for name, members in known.items():
            common = tuple(task for task in scored if task in members)
            if len(common) > 1:
                groups.append(TaskGroup(name, common, len(members), metric))
    by_tasks: dict[tuple[str, ...], TaskGroup] = {}
    for group in sorted(groups, key=lambda group: group.number):
        by_tasks.setdefault(group.tasks, group)
    return list(by_tasks.values())


def _has_score(cell: Cell | None, metric: str) -> bool:
    return cell is not None and cell.records[0].metric == metric and len(cell.scores()) > 0


def _all_tasks(grid: Grid, metric: str) -> list[str]:
    return [
        task
        for task in grid.tasks
        if any(key[0] == task and c.records[0].metric == metric for key, c in grid.cells.items())
    ]


def short_name(task: str) -> str:
    """Return a task's short name; of a task file that is no longer there, its stem."""
    try:
        return tasks.short_name(task)
    except UserError:
        return Path(task).stem
