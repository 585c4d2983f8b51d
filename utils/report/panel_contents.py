"""What the picture of many tasks shows in each of its panels."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from utils.envs.tasks import groups
from utils.report.grid import short_name
from utils.report.mean_curves import MeanCurve, Statistic, common_tasks, curves_of, mean_curve
from utils.report.panel_backgrounds import Background, Level, background_means, level_means
from utils.report.pooling import Cell
from utils.report.scores import METRICS, EvaluationMetric
from utils.report.statistics import iqm, mean


@dataclass(frozen=True)
class Panel:
    """What is drawn in one pair of axes.

    Attributes:
        title: Heading.
        metric: What the values are of.
        last_step: End of the axis of steps.
        boundaries: Steps at which runs go online, ascending.
        cells: Those whose seeds are drawn one by one.
        means: Over seeds, or over seeds and tasks, by the method's label.
        backgrounds: Curves of other groups by name.
        levels: Published scores by name and by whether they are of the online phase.
    """

    title: str
    metric: EvaluationMetric
    last_step: int
    boundaries: tuple[int, ...]
    cells: tuple[Cell, ...]
    means: Mapping[str, MeanCurve]
    backgrounds: Mapping[str, MeanCurve]
    levels: Mapping[tuple[str, bool], float]


def task_panels(
    cells: Sequence[Cell], backgrounds: Sequence[Background] = (), levels: Sequence[Level] = ()
) -> list[Panel]:
    """Return a panel per task and metric with evaluations, those of a metric side by side.

    Args:
        cells: Own results.
        backgrounds: Curves of other groups, drawn on tasks with own results.
        levels: Published scores, likewise; those of an online phase where a run goes online.
    """
    by_metric = _by_metric(cells)
    titles = _titles(dict.fromkeys(cell.task for own in by_metric.values() for cell in own))
    return [
        _panel(titles[task], metric, own, [task], backgrounds, levels, mean)
        for metric, own in by_metric.items()
        for task in dict.fromkeys(cell.task for cell in own)
    ]


def aggregate_panels(
    cells: Sequence[Cell], backgrounds: Sequence[Background] = (), levels: Sequence[Level] = ()
) -> list[Panel]:
    """Return mean and IQM, per metric, of the tasks on which all methods have been evaluated.

    There are none of a metric with fewer than two such tasks.

    Args:
        cells: Own results.
        backgrounds: Curves of other groups, drawn where they have all these tasks.
        levels: Published scores, likewise; they have a mean only.
    """
    panels = []
    for metric, own in _by_metric(cells).items():
        tasks = common_tasks(own)
        if len(tasks) > 1:
            number = len({cell.task for cell in own})
            of = (
                f"{len(tasks)} tasks" if len(tasks) == number else f"{len(tasks)} of {number} tasks"
            )
            panels += [
                _panel(f"mean of {of}", metric, own, tasks, backgrounds, levels, mean),
                _panel(f"IQM of {of}", metric, own, tasks, backgrounds, (), iqm),
            ]
    return panels


def group_panels(
    cells: Sequence[Cell], backgrounds: Sequence[Background] = (), levels: Sequence[Level] = ()
) -> list[Panel]:
    """Return the mean over each of the benchmarks' groups of tasks that is complete.

    All methods have been evaluated on all its tasks. The only group of a metric is left out: its
    mean is that of all tasks.

    Args:
        cells: Own results.
        backgrounds: Curves of other groups, drawn where they have all these tasks.
        levels: Published scores, likewise.
    """
    panels = []
    for metric, own in _by_metric(cells).items():
        common = set(common_tasks(own))
        for name, members in groups().items():
            if common > {*members}:
                title = f"{name} (mean)"
                panels.append(_panel(title, metric, own, members, backgrounds, levels, mean))
    return panels


def _by_metric(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells with evaluations by metric, in the order of `METRICS`."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        metric = next((record.metric for record in cell.records if record.evaluations), None)
        if metric is not None:
            found.setdefault(metric, []).append(cell)
    return {metric: found[metric] for metric in METRICS if metric in found}


def _titles(tasks: Iterable[str]) -> dict[str, str]:
    """Return the short name of each task, or the full one where two have the same."""
    names = {task: short_name(task) for task in tasks}
    shared = Counter(names.values())
    return {task: name if shared[name] == 1 else task for task, name in names.items()}


def _panel(
    title: str,
    metric: str,
    cells: Sequence[Cell],
    tasks: Sequence[str],
    backgrounds: Sequence[Background],
    levels: Sequence[Level],
    statistic: Statistic,
) -> Panel:
    own = [cell for cell in cells if cell.task in tasks]
    records = [record for cell in own for record in cell.records]
    starts = {record.config.online_start for record in records} - {None}
    means = {
        label: mean_curve(
            [curves_of(cell.scored) for cell in own if cell.label == label], statistic
        )
        for label in dict.fromkeys(cell.label for cell in own)
    }
    others = background_means(backgrounds, metric, tasks, statistic)
    wanted = max(max(record.config.steps_wanted, record.steps) for record in records)
    # Curves of longer runs are cut, but begin to be seen.
    begun = max((int(curve.steps[0]) for curve in others.values()), default=0)
    return Panel(
        title=title,
        metric=METRICS[metric],
        last_step=max(1, wanted, begun),
        boundaries=tuple(sorted(starts)),
        cells=tuple(own) if len(tasks) == 1 else (),
        means={label: curve for label, curve in means.items() if curve is not None},
        backgrounds=others,
        levels=level_means(levels, metric, tasks, online=bool(starts)),
    )
