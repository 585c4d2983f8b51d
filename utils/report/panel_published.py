"""What has been published, as the picture of many tasks draws it."""

from collections.abc import Sequence

from utils.report.mean_curves import MeanCurve, SeedCurves
from utils.report.panel_backgrounds import Background, Level
from utils.report.pooling import Cell
from utils.report.published.curves import PublishedCurve, curve, legend
from utils.report.published.results import find, numbered


def published_curves(cells: Sequence[Cell], methods: Sequence[tuple[str, str]]) -> list[Background]:
    """Return other groups' curves on the tasks of own results.

    Their online phase is left out where no own run goes online at the same step.

    Args:
        cells: Own results.
        methods: Release and method of each, see `utils.report.published.curves.parse_with`.
    """
    starts: dict[str, set[int | None]] = {}
    for cell in cells:
        starts.setdefault(cell.task, set()).add(cell.records[0].config.online_start)
    found = []
    for release, method in methods:
        curves = {task: one for task in starts if (one := curve(release, method, task))}
        name = legend(list(curves.values())) if curves else ""
        found += [
            Background(name, task, "success", _drawn(one, one.offline_steps in starts[task]))
            for task, one in curves.items()
        ]
    return found


def _drawn(published: PublishedCurve, online: bool) -> SeedCurves | MeanCurve:
    shown = published.steps <= (published.steps[-1] if online else published.offline_steps)
    steps = published.steps[shown]
    if published.values is not None:
        return SeedCurves(steps, published.values[:, shown])
    low, high = published.bounds[:, shown]
    return MeanCurve(steps, published.mean[shown], (low, high))


def published_levels(cells: Sequence[Cell]) -> list[Level]:
    """Return the published scores of own agents on the tasks of their results.

    Those of runs that go online are of both phases' ends.
    """
    tasks: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        online = any(record.config.online_start is not None for record in cell.records)
        for phase in ("before online", "online") if online else ("offline",):
            (name,) = numbered(cell.task)
            tasks.setdefault((cell.agent, phase), {})[name] = cell.task
    return [
        Level(
            name=f"{result.method}, published ({result.source})",
            agent=agent,
            tasks=tuple(own[name] for name in result.tasks),
            metric=result.protocol.metric,
            value=result.mean,
            online=phase == "online",
        )
        for (agent, phase), own in tasks.items()
        for result in find(agent, own.values(), phase)
    ]
