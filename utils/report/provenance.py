"""How numbers came about: compute, devices, versions, data and commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.report.grid import Grid, short_name
from utils.report.pooling import Cell
from utils.report.records import SeedRecord
from utils.report.rendering import Table


@dataclass(frozen=True)
class Fact:
    """Something about a run that its numbers depend on.

    Attributes:
        name: What it is called.
        read: Return it as text, empty if the folder does not say.
        of_task: Whether it is a task's, so that only runs of one task should have it in common.
        of_method: Whether it is a method's.
    """

    name: str
    read: Callable[[SeedRecord], str]
    of_task: bool = False
    of_method: bool = False


def _devices(record: SeedRecord) -> str:
    kinds = record.config.versions.get("devices") or ()
    counts = {kind: list(kinds).count(kind) for kind in kinds}
    return ", ".join(kind if n == 1 else f"{n} x {kind}" for kind, n in counts.items())


def _packages(record: SeedRecord) -> str:
    versions = record.config.versions
    return ", ".join(
        f"{name} {version}"
        for name, version in versions.items()
        if version is not None and name not in ("git", "devices", "platform")
    )


FACTS = (
    Fact("device", _devices),
    Fact("precision", lambda record: str(record.config.settings.get("matmul_precision", ""))),
    Fact("commit", lambda record: record.config.commit),
    Fact("versions", _packages),
    Fact("system", lambda record: str(record.config.versions.get("platform") or "")),
    Fact("data", lambda record: record.config.dataset, of_task=True),
    Fact("files", lambda record: record.config.sources, of_method=True),
)

_FEW_METHODS = 3


def cell_fact(cell: Cell, fact: Fact) -> str:
    """Return a fact of all seeds of a cell, several separated by ` / `."""
    return " / ".join(dict.fromkeys(fact.read(record) or "-" for record in cell.records))


def mixed_facts(grid: Grid) -> list[str]:
    """Return a sentence for each fact in which cells differ that should agree.

    Devices, precisions, commits and versions should be the same everywhere, data on each task, and
    an agent's files on all tasks. Many methods that have the most common value are "the others".
    """
    sentences = []
    for fact in FACTS:
        scopes: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for key, cell in grid.cells.items():
            scope = short_name(key[0]) if fact.of_task else key[1] if fact.of_method else ""
            for value in dict.fromkeys(fact.read(record) or "unknown" for record in cell.records):
                scopes.setdefault(scope, {}).setdefault(value, []).append(key)
        for scope, values in scopes.items():
            if len(values) > 1:
                where = f" ({scope})" if scope else ""
                most = max(values, key=lambda value: len(values[value]))
                listed = "; ".join(
                    f"{value}: {'the others' if _is_long(keys) and value == most else _where(keys)}"
                    for value, keys in values.items()
                )
                sentences.append(f"mixed {fact.name}{where}: {listed}")
    return sentences


def _is_long(keys: Sequence[tuple[str, str]]) -> bool:
    return len({label for _, label in keys}) > _FEW_METHODS


def _where(keys: Sequence[tuple[str, str]]) -> str:
    """Return (task, label) in words, several tasks of a method by their number."""
    tasks: dict[str, list[str]] = {}
    for task, label in keys:
        tasks.setdefault(label, []).append(short_name(task))
    return ", ".join(
        f"{label} on {names[0] if len(names) == 1 else f'{len(names)} tasks'}"
        for label, names in tasks.items()
    )


def common_facts(grid: Grid) -> dict[str, str]:
    """Return by name the facts that all cells have in common."""
    common = {}
    for fact in FACTS:
        values = {cell_fact(cell, fact) for cell in grid.cells.values()}
        if len(values) == 1 and values != {"-"}:
            common[fact.name] = values.pop()
    return common


def compute_table(grid: Grid) -> Table:
    """Return speed, hours and what cells do not have in common, a line per cell."""
    common = common_facts(grid)
    facts = [
        fact
        for fact in FACTS
        if fact.name not in common and any(cell_fact(c, fact) != "-" for c in grid.cells.values())
    ]
    lines = []
    for (task, label), cell in grid.cells.items():
        speed, hours = speed_of(cell), hours_of(cell)
        lines.append(
            (
                f"{label}, {short_name(task)}",
                "-" if speed is None else f"{speed:.0f}",
                "-" if hours is None else f"{hours:.2f}",
                *(cell_fact(cell, fact) for fact in facts),
            )
        )
    return Table(("cell", "updates/s", "hours", *(fact.name for fact in facts)), tuple(lines))


def folders_of(cell: Cell) -> Mapping[Path, list[int]]:
    """Return the run folders of a cell, with the seeds that come from each."""
    folders: dict[Path, list[int]] = {}
    for record in cell.records:
        folders.setdefault(record.folder, []).append(record.seed)
    return folders


def speed_of(cell: Cell) -> float | None:
    """Return the speed of a cell's slowest run, in updates per second of all its seeds together.

    None if no run has logged it.
    """
    speeds = [r.updates_per_second for r in cell.records if r.updates_per_second is not None]
    return min(speeds, default=None)


def hours_of(cell: Cell) -> float | None:
    """Return the hours of training of all runs of a cell, None if none has logged them."""
    hours = {record.folder: record.hours for record in cell.records if record.hours is not None}
    return sum(hours.values()) if hours else None


def commands(grid: Grid) -> list[str]:
    """Return the command of every run as lines for a shell, each below a comment with its cell."""
    lines = []
    for (task, label), cell in grid.cells.items():
        for folder, seeds in folders_of(cell).items():
            command = next(r.config.command for r in cell.records if r.folder == folder)
            named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
            lines.append(f"# {label}, {short_name(task)}, {named}: {folder}")
            lines.append(command or "# the folder does not say by which command")
    return lines
