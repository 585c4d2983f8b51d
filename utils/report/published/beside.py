"""Published results beside one's own cells."""

from collections.abc import Iterable, Mapping, Sequence

from utils.report.pooling import Cell
from utils.report.published.protocol import Protocol, own_protocol
from utils.report.published.results import (
    Comparison,
    PublishedResult,
    compare,
    find,
    find_incomplete,
    numbered,
)
from utils.report.records import scored_steps

Found = Mapping[tuple[str, str], tuple[Comparison, ...]]
"""Comparisons by the name of a task, or group of tasks, and the cells' label: one for an offline
run, one per phase for a run that goes online."""


def beside_tasks(cells: Iterable[Cell], which: str = "protocol") -> Found:
    """Compare cells with what is published of their tasks.

    Of a task of which nothing is published but the mean of a group, and not all of that group is
    there, the comparison says so.

    Args:
        cells: The cells.
        which: The scores to compare, see `utils.report.records.score`.
    """
    found: dict[tuple[str, str], tuple[Comparison, ...]] = {}
    for own, phase, kind in _by_method(cells, which):
        for name, cell in own.items():
            one = [
                _compare({name: cell}, result, kind, phase)
                for result in find(cell.agent, name, phase)
            ]
            one += [
                Comparison(result, (f"the mean of {len(result.tasks)} tasks",))
                for result, _ in find_incomplete(cell.agent, own, phase)
                if name in result.tasks
            ]
            if one:
                key = cell.task, cell.label
                found[key] = (*found.get(key, ()), *one)
    return found


def beside_groups(cells: Iterable[Cell], which: str = "protocol") -> Found:
    """Compare cells with what is published of the groups of their tasks, see `beside_tasks`."""
    found: dict[tuple[str, str], tuple[Comparison, ...]] = {}
    for own, phase, kind in _by_method(cells, which):
        first = next(iter(own.values()))
        several = [
            _compare(own, result, kind, phase)
            for result in find(first.agent, own, phase)
            if len(result.tasks) > 1
        ]
        several += [
            Comparison(result, (f"{len(result.tasks) - missing} of {len(result.tasks)} tasks",))
            for result, missing in find_incomplete(first.agent, own, phase)
        ]
        for comparison in several:
            key = comparison.published.group, first.label
            found[key] = (*found.get(key, ()), comparison)
    return found


def text(comparisons: Sequence[Comparison]) -> str:
    """Return what a table says of comparisons: numbers, sources, differences or why not."""
    numbers = " -> ".join(one.published.text for one in comparisons)
    sources = ", ".join(dict.fromkeys(one.published.source for one in comparisons))
    found = " -> ".join(dict.fromkeys(one.text for one in comparisons))
    remarks = dict.fromkeys(remark for one in comparisons for remark in one.remarks)
    return "; ".join([f"{numbers}, {sources}", found, *remarks])


def _by_method(cells: Iterable[Cell], which: str) -> list[tuple[dict[str, Cell], str, str]]:
    """Return a method's cells by task, the phase they are compared in and the kind of score.

    Of a run that goes online there are both phases.
    """
    methods: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for cell in cells:
        (name,) = numbered(cell.task)
        online = cell.records[0].config.online_start is not None
        kinds = (("before online", "offline"), ("online", which))
        for phase, kind in kinds if online else (("offline", which),):
            methods.setdefault((cell.label, phase, kind), {})[name] = cell
    return [(own, phase, kind) for (_, phase, kind), own in methods.items()]


def _compare(own: Mapping[str, Cell], result: PublishedResult, kind: str, phase: str) -> Comparison:
    cells = [own[name] for name in result.tasks]
    scores = [cell.scores(kind) for cell in cells]
    return compare(scores, [_protocol(cell, kind, phase) for cell in cells], result)


def _protocol(cell: Cell, kind: str, phase: str) -> Protocol:
    """Describe how a cell's scores were made."""
    config, last = cell.records[0].config, cell.at_step
    steps = {
        step
        for record in cell.scored
        for step in (scored_steps(record, kind, last) if last is not None else ())
    }
    return own_protocol(
        config.settings,
        metric=cell.records[0].metric,
        scored_at=sorted(steps),
        episodes=config.eval_episodes,
        online_start=config.online_start if phase == "online" else None,
        changed=config.changed,
    )
