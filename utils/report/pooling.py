"""Seeds of several runs pooled by equal settings, and what is wrong with them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from utils.report.folders import RunConfig
from utils.report.records import SeedRecord, differing_settings, score

_NAMES = frozenset({"env_name", "agent_name"})  # these have columns of their own


@dataclass(frozen=True)
class Cell:
    """All seeds of one task that were trained with equal settings.

    Attributes:
        task: Full name of the task.
        agent: Name of the agent.
        label: The agent, and the settings in which its runs on a task differ.
        records: One per seed, seeds ascending.
        remarks: What a reader must know: seeds that are missing, unfinished, crashed or diverged,
            and what is mixed.
    """

    task: str
    agent: str
    label: str
    records: tuple[SeedRecord, ...]
    remarks: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[SeedRecord, ...]:
        """The seeds that scores are of: the finished ones or, without any, those on their way."""
        done = tuple(record for record in self.records if record.state == "done")
        return done or tuple(r for r in self.records if r.failed is None and r.evaluations)

    @property
    def at_step(self) -> int | None:
        """The last step at which all scored seeds have been evaluated; None without any."""
        steps = [set(record.evaluations) for record in self.scored]
        return max(set.intersection(*steps), default=None) if steps else None

    @property
    def complete(self) -> bool:
        """Whether the scores are of finished seeds."""
        return any(record.state == "done" for record in self.records)

    def scores(self, which: str = "protocol") -> np.ndarray:
        """Return the scores (seeds,) of the scored seeds.

        Args:
            which: As in `utils.report.records.score`.
        """
        if self.at_step is None:
            return np.empty(0)
        found = [score(record, which, self.at_step) for record in self.scored]
        return np.array([value for value in found if value is not None])


def pool(records: Iterable[SeedRecord]) -> list[Cell]:
    """Pool seeds by task and by equal settings, agent's files and data.

    Returns:
        The cells in order of tasks, then labels, as they come. Of a seed that is there twice the
        one that has come farther counts.
    """
    groups: dict[Any, list[SeedRecord]] = {}
    for record in records:
        groups.setdefault(_key(record), []).append(record)
    cells = [_cell(list(group)) for group in groups.values()]
    return _with_missing(_labelled(cells))


def _key(record: SeedRecord) -> tuple[str, ...]:
    """Return what is equal for seeds that are pooled."""
    config = record.config
    settings = sorted((name, repr(value)) for name, value in config.settings.items())
    return (*_subject(record), config.sources, config.dataset, repr(settings))


def _subject(record: SeedRecord) -> tuple[str, str, str]:
    """Return task, agent, and whether the run stays offline or goes online."""
    config = record.config
    return config.task, config.agent, "offline" if config.online_start is None else "online"


def _cell(records: Sequence[SeedRecord]) -> Cell:
    by_seed: dict[int, SeedRecord] = {}
    remarks = []
    for record in sorted(records, key=lambda record: (record.seed, -record.steps)):
        if by_seed.setdefault(record.seed, record) is not record:
            remarks.append(
                f"seed {record.seed} is there twice; that of {by_seed[record.seed].folder} counts"
            )
    chosen = tuple(by_seed.values())
    config = chosen[0].config
    remarks += _unlike_done(chosen)
    return Cell(config.task, config.agent, config.agent, chosen, (*remarks, *_mixed(chosen)))


def _unlike_done(records: Sequence[SeedRecord]) -> list[str]:
    """Return in what state seeds are that are not finished, or not evaluated as they should."""
    states: dict[str, list[str]] = {}
    for record in records:
        if record.state == "diverged":
            states.setdefault(f"diverged at step {record.failed}", []).append(str(record.seed))
        elif record.state != "done":
            state = f"{record.state} at step {record.steps} of {record.config.steps_wanted}"
            state += f" ({record.error})" if record.state == "crashed" else ""
            states.setdefault(state, []).append(str(record.seed))
        if record.not_finite:
            steps = ", ".join(map(str, record.not_finite))
            state = f"with an evaluation that is not finite, at step {steps}"
            states.setdefault(state, []).append(str(record.seed))
    return [
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} {state}"
        for state, seeds in states.items()
    ]


def _mixed(records: Sequence[SeedRecord]) -> list[str]:
    """Return what the seeds do not have in common though their settings are equal."""
    kinds: dict[str, Callable[[RunConfig], str]] = {
        "devices": lambda config: ", ".join(sorted(set(config.versions.get("devices", ())))),
        "commits": lambda config: config.commit,
        "versions": lambda config: ", ".join(
            f"{name} {version}"
            for name, version in config.versions.items()
            if name not in ("devices", "git", "platform")
        ),
    }
    remarks = []
    for what, read in kinds.items():
        seeds: dict[Any, list[str]] = {}
        for record in records:
            seeds.setdefault(read(record.config), []).append(str(record.seed))
        if len(seeds) > 1:
            listed = "; ".join(f"{value}: seeds {', '.join(own)}" for value, own in seeds.items())
            remarks.append(f"mixed {what} ({listed})")
    return remarks


def _labelled(cells: Sequence[Cell]) -> list[Cell]:
    """Label cells by the agent and the settings in which its cells on any one task differ.

    Where some of its runs stay offline and others go online, by that too: no mean is of both.
    """
    named = []
    for agent in dict.fromkeys(cell.agent for cell in cells):
        own = [cell for cell in cells if cell.agent == agent]
        alike: dict[Any, list[RunConfig]] = {}
        for cell in own:
            alike.setdefault(_subject(cell.records[0]), []).append(cell.records[0].config)
        differing = dict.fromkeys(
            x for configs in alike.values() for x in differing_settings(configs)
        )
        both = len({phase for *_, phase in alike}) > 1
        named += [replace(cell, label=_label(cell, differing, both)) for cell in own]
    order = {id(cell.records): i for i, cell in enumerate(cells)}
    return _apart(sorted(named, key=lambda cell: order[id(cell.records)]))


def _label(cell: Cell, names: Iterable[str], with_phase: bool) -> str:
    settings = cell.records[0].config.settings
    parts = [
        f"{name.removeprefix('agent.')}={value_text(settings.get(name))}"
        for name in names
        if name not in _NAMES
    ]
    parts += [_subject(cell.records[0])[2]] if with_phase else []
    return ", ".join([cell.agent, *parts])


def value_text(value: Any) -> str:
    """Return a setting's value as text, numbers in as few digits as tell them apart."""
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(value_text, value))})"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _apart(cells: Sequence[Cell]) -> list[Cell]:
    """Tell cells apart that settings do not: by the agent's files, the data, or the folder."""
    kinds = (
        lambda record: f"files {record.config.sources or 'unknown'}",
        lambda record: f"data {record.config.dataset[:8] or 'unknown'}",
        lambda record: str(record.folder),
    )
    for kind in kinds:
        names: dict[tuple[str, str], list[str]] = {}
        for cell in cells:
            names.setdefault((cell.task, cell.label), []).append(kind(cell.records[0]))
        cells = [
            replace(cell, label=f"{cell.label}, {kind(cell.records[0])}")
            if len(set(names[cell.task, cell.label])) > 1
            else cell
            for cell in cells
        ]
    return list(cells)


def _with_missing(cells: Sequence[Cell]) -> list[Cell]:
    """Name the seeds that a cell lacks and others have."""
    seeds = {record.seed for cell in cells for record in cell.records}
    most = max((len(cell.records) for cell in cells), default=0)
    named = []
    for cell in cells:
        missing = sorted(seeds - {record.seed for record in cell.records})
        if len(cell.records) < most and missing:
            line = f"no seed {', '.join(map(str, missing))}, which others have"
            cell = replace(cell, remarks=(*cell.remarks, line))
        named.append(cell)
    return named
