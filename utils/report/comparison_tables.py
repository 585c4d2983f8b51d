"""Methods over several tasks as tables."""

from collections.abc import Callable, Sequence

from utils.report.aggregates import Aggregate, Comparison
from utils.report.estimates import interval_text, number_text
from utils.report.rendering import Beside, Notes, Table, cross_table

EXPLAINED = (
    "IQM: interquartile mean over all seeds of all tasks. P: probability that a seed of the method "
    "with the greatest IQM does better than one of the other on the same task; ties count half. In "
    "brackets 95 % intervals, bootstrapped over seeds within each task; of few seeds they are too "
    "narrow."
)


def comparison_tables(
    comparisons: Sequence[Comparison], published: Beside, notes: Notes
) -> list[Table]:
    """Return mean, IQM and probability of improvement.

    Args:
        comparisons: One per group of tasks, of the same methods. One group is a table with a line
            per method, several are a table per statistic.
        published: Texts by (name of the group, label).
        notes: Takes what the means lack.
    """
    if len(comparisons) == 1:
        return [_method_table(comparisons[0], published, notes)]
    return _group_tables(comparisons, published, notes)


def left_out(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each group that is not whole."""
    return [
        f"{one.group.name}: over the {len(one.group.tasks)} of {one.group.number} tasks that all "
        "methods have scores of"
        for one in comparisons
        if len(one.group.tasks) < one.group.number
    ]


def _method_table(one: Comparison, published: Beside, notes: Notes) -> Table:
    """Return a line per method over one group of tasks."""
    beside = {label: published.get((one.group.name, label), "") for label in one.means}
    header = ["method", f"mean, {one.group.title}"]
    header += ["published"] if any(beside.values()) else []
    header += ["IQM"]
    header += [f"P({one.reference} is better)"] if one.improvements else []
    lines = []
    for label in one.means:
        line = [label, _mean_text(one, label, notes)]
        line += [beside[label]] if any(beside.values()) else []
        line += [_text(one.iqms[label])]
        line += [_probability_text(one, label)] if one.improvements else []
        lines.append(tuple(line))
    return Table(tuple(header), tuple(lines))


def _group_tables(
    comparisons: Sequence[Comparison], published: Beside, notes: Notes
) -> list[Table]:
    """Return groups by methods, a table per statistic."""
    labels = tuple(comparisons[0].means)
    by_title = {one.group.title: one for one in comparisons}

    def table(name: str, text: Callable[[Comparison, str], str], beside: Beside) -> Table:
        return cross_table(
            tuple(by_title),
            labels,
            lambda title, label: text(by_title[title], label),
            beside,
            name,
            str,
        )

    beside = {
        (title, label): published[one.group.name, label]
        for title, one in by_title.items()
        for label in labels
        if (one.group.name, label) in published
    }
    tables = [
        table("mean", lambda one, label: _mean_text(one, label, notes), beside),
        table("IQM", lambda one, label: _text(one.iqms[label]), {}),
    ]
    if len(labels) > 1:
        tables.append(table("P(best is better)", _probability_text, {}))
    return tables


def _mean_text(one: Comparison, label: str, notes: Notes) -> str:
    return _text(one.means[label]) + notes.mark(one.doubts[label])


def _text(found: Aggregate) -> str:
    ends = "" if found.interval is None else f" [{interval_text(found.interval, 'success')}]"
    return number_text(found.value, "success") + ends


def _probability_text(one: Comparison, label: str) -> str:
    if label == one.reference:
        return "(best)"
    found = one.improvements[label]
    ends = "" if found.interval is None else " [{:.2f} to {:.2f}]".format(*found.interval)
    return f"{found.value:.2f}{ends}"
