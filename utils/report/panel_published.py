"""What has been published, as the picture of many tasks draws it."""

from collections.abc import Sequence

from utils.report.mean_curves import MeanCurve, SeedCurves
from utils.report.panel_backgrounds import Background, Level
from utils.report.pooling import Cell
from utils.report.published.curves import PublishedCurve, curve, legend
from utils.report.published.results import find, numbered


def published_curves(cells: Sequence[Cell], methods: Sequence[tuple[str, str]]) -> list[Background]:
    """Return other groups' curves on the tasks of own results.

    Args:
        cells: Own results.
        methods: Release and method of each, see `utils.report.published.curves.parse_with`.
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    found = []
    for release, method in methods:
        curves = {task: one for task in tasks if (one := curve(release, method, task))}
        name = legend(list(curves.values())) if curves else ""
        found += [Background(name, task, "success", _drawn(one)) for task, one in curves.items()]
    return found


def _drawn(published: PublishedCurve) -> SeedCurves | MeanCurve:
    if published.values is not None:
        return SeedCurves(published.steps, published.values)
    low, high = published.bounds
    return MeanCurve(published.steps, published.mean, (low, high))


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
