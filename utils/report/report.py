"""The report as text: scores, methods compared, compute, commands."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from utils.report.aggregates import Aggregate, Comparison, compare
from utils.report.captions import caption, not_run
from utils.report.estimates import interval_text, number_text
from utils.report.grid import Grid, task_groups
from utils.report.next_steps import DEPLOYMENT, deployment_table, seeds_sentences
from utils.report.provenance import commands, common_facts, compute_table, mixed_facts
from utils.report.published.beside import Found, beside_groups, beside_tasks
from utils.report.rendering import Beside, Notes, Table, cross_table, latex, markdown
from utils.report.standings import standings
from utils.report.tables import has_lines, latex_table, score_table


@dataclass(frozen=True)
class Report:
    """What a report is made of.

    Attributes:
        grid: The cells.
        which: Kind of score, see `utils.report.records.score`.
        published: Comparisons with what is published of tasks.
        published_groups: Comparisons with what is published of groups of tasks.
        curves: Release and method of the published curves to stand beside the scores.
        passed_over: Folders that are in no table, and why.
    """

    grid: Grid
    which: str = "protocol"
    published: Found = field(default_factory=dict)
    published_groups: Found = field(default_factory=dict)
    curves: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[str, ...] = ()

    @functools.cached_property
    def comparisons(self) -> list[Comparison]:
        """Return the methods compared over each group of tasks."""
        return [compare(self.grid, group, self.which) for group in task_groups(self.grid)]

    def scores(self) -> str:
        """Return the scores with remarks, methods over several tasks, and what to do next."""
        notes = Notes()
        table = score_table(self.grid, self.which, notes, _texts(self.published, notes))
        interval = ", with the 95 % bootstrap interval of the mean over seeds"
        interval += "" if has_lines(self.grid) else " in brackets"
        parts = ["## Scores", markdown(table), caption(self.grid, self.which, interval)]
        parts.append(_list(notes.lines()))
        missing = not_run(self.grid) if has_lines(self.grid) else []
        parts.append(_list([*missing, *mixed_facts(self.grid), *self.passed_over]))
        if self.comparisons:
            parts += ["## Over several tasks"]
            parts += _compared(self.comparisons, self.published_groups)
        parts += seeds_sentences(self.grid, self.comparisons, self.which)
        if beside := standings(self.grid, self.curves):
            parts += ["## Beside published curves", *beside]
        deployed = deployment_table(self.grid)
        if deployed is not None:
            parts += ["## Which policy to deploy", markdown(deployed), DEPLOYMENT]
        return _joined(parts)

    def text(self, pictures: Mapping[str, str] | None = None) -> str:
        """Return the whole report in Markdown.

        Args:
            pictures: Titles by file name of the pictures that lie beside it.
        """
        facts = [f"{name}: {value}" for name, value in common_facts(self.grid).items()]
        parts = ["# Report", self.scores()]
        parts += [f"![{title}]({name})" for name, title in (pictures or {}).items()]
        parts += ["## Compute", markdown(compute_table(self.grid))]
        parts += [
            "Updates per second and hours are of all seeds that are trained together; where a "
            "cell has several runs, of the slowest and in all."
        ]
        if facts:
            parts += ["All runs have in common:", _list(facts)]
        parts += ["## Commands", "\n".join(["```sh", *commands(self.grid), "```"])]
        return _joined(parts) + "\n"

    def latex(self) -> str:
        """Return the scores as a LaTeX table, methods by tasks."""
        notes = Notes()
        table = latex_table(self.grid, self.which, notes, self.comparisons)
        explained = (
            caption(self.grid, self.which, ""),
            "Bold: the best mean of a task, and those whose interval reaches it.",
        )
        return latex(table, (*explained, *notes.lines()))


def make_report(
    grid: Grid,
    which: str = "protocol",
    curves: Sequence[tuple[str, str]] = (),
    passed_over: Sequence[str] = (),
) -> Report:
    """Make a report of cells, with what is published of their tasks; see `Report`."""
    cells = tuple(grid.cells.values())
    return Report(
        grid,
        which,
        published=beside_tasks(cells, which),
        published_groups=beside_groups(cells, which),
        curves=tuple(curves),
        passed_over=tuple(passed_over),
    )


def _texts(found: Found, notes: Notes) -> Beside:
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
        more = [one.obstacles[1:] + one.remarks for one in comparisons]
        sources = [one.published.source for one in comparisons]
        about = dict.fromkeys([*sources, *(text for texts in more for text in texts)])
        texts[key] = f"{method} {numbers}; {' -> '.join(dict.fromkeys(reasons))}"
        texts[key] += notes.mark(["published: " + "; ".join(about)])
    return texts


def _compared(comparisons: Sequence[Comparison], published: Found) -> list[str]:
    """Return tables of mean, IQM and probability of improvement, and what they are."""
    labels = tuple(comparisons[0].means)
    explained = (
        "IQM: interquartile mean over all seeds of all tasks. P: probability that a seed of the "
        "method with the greatest IQM does better than one of the other on the same task; ties "
        "count half. In brackets 95 % intervals, bootstrapped over seeds within each task."
    )
    notes = Notes()
    names = {one.group.name for one in comparisons}
    beside = _texts({key: own for key, own in published.items() if key[0] in names}, notes)
    if len(comparisons) == 1:
        tables = [_method_table(comparisons[0], beside, notes)]
    else:
        tables = _group_tables(comparisons, labels, beside, notes)
    left_out = [
        f"{c.group.name}: over the {len(c.group.tasks)} of {c.group.number} tasks that all "
        "methods have scores of"
        for c in comparisons
        if len(c.group.tasks) < c.group.number
    ]
    return [*map(markdown, tables), explained, _list([*notes.lines(), *left_out])]


def _method_table(one: Comparison, published: Beside, notes: Notes) -> Table:
    """Return a line per method over one group of tasks."""
    beside = {label: published.get((one.group.name, label), "") for label in one.means}
    header = ["method", f"mean, {one.group.title}"]
    header += ["published"] if any(beside.values()) else []
    header += ["IQM", f"P({one.reference} is better)"]
    lines = []
    for label in one.means:
        line = [label, _percent_text(one.means[label], one, label, notes)]
        line += [beside[label]] if any(beside.values()) else []
        line += [_text(one.iqms[label]), _probability_text(one, label)]
        lines.append(tuple(line))
    return Table(tuple(header), tuple(lines))


def _group_tables(
    comparisons: Sequence[Comparison], labels: Sequence[str], published: Beside, notes: Notes
) -> list[Table]:
    """Return groups by methods, a table per statistic."""
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
        table(
            "mean", lambda one, label: _percent_text(one.means[label], one, label, notes), beside
        ),
        table("IQM", lambda one, label: _text(one.iqms[label]), {}),
    ]
    if len(labels) > 1:
        tables.append(table("P(best is better)", _probability_text, {}))
    return tables


def _percent_text(found: Aggregate, one: Comparison, label: str, notes: Notes) -> str:
    mark = notes.mark(one.doubts[label])
    return _text(found) + mark


def _text(found: Aggregate) -> str:
    ends = "" if found.interval is None else f" [{interval_text(found.interval, 'success')}]"
    return number_text(found.value, "success") + ends


def _probability_text(one: Comparison, label: str) -> str:
    if label == one.reference:
        return "(best)"
    found = one.improvements[label]
    ends = "" if found.interval is None else " [{:.2f} to {:.2f}]".format(*found.interval)
    return f"{found.value:.2f}{ends}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)
