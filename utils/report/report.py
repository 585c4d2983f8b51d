"""The report as text: scores, methods compared, compute, commands."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.report.aggregates import Comparison, compare
from utils.report.captions import caption, not_run
from utils.report.comparison_tables import EXPLAINED, comparison_tables, left_out
from utils.report.grid import Grid, task_groups
from utils.report.next_steps import DEPLOYMENT, deployment_table, seeds_sentences
from utils.report.provenance import commands, common_facts, compute_table, mixed_facts
from utils.report.published.beside import Found, beside_groups, beside_tasks
from utils.report.published_texts import published_texts, standings
from utils.report.rendering import Notes, latex, markdown
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
        """The methods compared over each group of tasks."""
        return [compare(self.grid, group, self.which) for group in task_groups(self.grid)]

    @functools.cached_property
    def summary(self) -> str:
        """The scores with remarks, methods over several tasks, and what to do next."""
        notes = Notes()
        table = score_table(self.grid, self.which, notes, published_texts(self.published, notes))
        interval = ", with the 95 % interval of the mean over seeds (percentile bootstrap)"
        interval += "" if has_lines(self.grid) else " in brackets"
        parts = ["## Scores", markdown(table), caption(self.grid, self.which, interval)]
        parts.append(_list(notes.lines()))
        missing = not_run(self.grid) if has_lines(self.grid) else []
        parts.append(_list([*missing, *mixed_facts(self.grid), *self.passed_over]))
        if self.comparisons:
            parts += self._over_tasks()
        parts += seeds_sentences(self.grid, self.comparisons, self.which)
        if beside := standings(self.grid, self.curves):
            parts += ["## Beside published curves", *beside]
        deployed = deployment_table(self.grid)
        if deployed is not None:
            parts += ["## Which policy to deploy", markdown(deployed), DEPLOYMENT]
        return _joined(parts)

    def _over_tasks(self) -> list[str]:
        """Return the methods over several tasks."""
        notes = Notes()
        names = {one.group.name for one in self.comparisons}
        found = {key: own for key, own in self.published_groups.items() if key[0] in names}
        tables = comparison_tables(self.comparisons, published_texts(found, notes), notes)
        below = _list([*notes.lines(), *left_out(self.comparisons)])
        return ["## Over several tasks", *map(markdown, tables), EXPLAINED, below]

    def text(self, pictures: Mapping[str, str] | None = None) -> str:
        """Return the whole report in Markdown.

        Args:
            pictures: Titles by file name of the pictures that lie beside it.
        """
        facts = [f"{name}: {value}" for name, value in common_facts(self.grid).items()]
        parts = ["# Report", self.summary]
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
            "Bold: the best mean of a task, and those whose 95 % bootstrap interval reaches it.",
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


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)
