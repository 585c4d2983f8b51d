"""The table of a sweep's runs: where each stands, and how long what is left will take."""

import statistics
from collections import Counter
from collections.abc import Collection, Sequence

from utils.runs.meaning import Meaning
from utils.sweep.commands import Command
from utils.sweep.states import State

_ORDER = ("done", "running", "waiting", "failed", "diverged")
_IN_FOLDER = ("env_name", "agent", "seed", "num_seeds")  # what a folder's name says already


def status(
    commands: Sequence[Command],
    meanings: Sequence[Meaning],
    states: Sequence[State],
    queued: Collection[str] = (),
) -> str:
    """Return a row per run, and totals.

    Args:
        commands: The commands.
        meanings: What they mean.
        states: Where their runs stand.
        queued: Lines of the commands that are in Slurm's queue.
    """
    hours = expected_hours(meanings, states)
    labels = _labels(commands)
    rows, notes = [("run", "state", "progress", "left", "folder")], []
    for number, (command, meaning, state) in enumerate(
        zip(commands, meanings, states, strict=True), start=1
    ):
        name = "queued" if state.name == "waiting" and command.text in queued else state.name
        left = "" if state.final else _hours(hours[number - 1])
        progress = f"{state.step:,}/{state.steps:,}"
        folder = f"{meaning.folder}  {labels[number - 1]}".rstrip()
        rows.append((str(number), name, progress, left, folder))
        if state.note:
            text = state.note.replace("\n", "\n    ")
            notes.append(f"run {number}, {meaning.folder}: {text}")
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = [
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}"
        for row in rows
    ]
    return "\n".join([*table, *notes, totals(states, hours)])


def totals(states: Sequence[State], hours: Sequence[float | None]) -> str:
    """Return how many runs stand where, and how long what is left will take."""
    counts = Counter(state.name for state in states)
    listed = ", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name])
    text = f"{len(states)} run{'s' * (len(states) > 1)}: {listed}"
    left = [h for state, h in zip(states, hours, strict=True) if not state.final]
    if not left:
        return text
    running = [h for state, h in zip(states, hours, strict=True) if state.name == "running" and h]
    known = [h for h in left if h is not None]
    parts = [f"{_hours(sum(known))} of training"] if known else []
    if unknown := len(left) - len(known):
        parts.append(f"{unknown} run{'s' * (unknown > 1)} of which no rate is known yet")
    text += f"\nleft: {' and '.join(parts)}"
    return text + (f"; what runs now ends in {_hours(max(running))}" if running else "")


def expected_hours(meanings: Sequence[Meaning], states: Sequence[State]) -> list[float | None]:
    """Return hours of training left of each run, at its own rate or that of the runs like it.

    Runs are alike that have the same agent and as many seeds.
    """
    rates: dict[tuple[str, int], list[float]] = {}
    for meaning, state in zip(meanings, states, strict=True):
        if state.rate:
            rates.setdefault((meaning.agent, meaning.num_seeds), []).append(state.rate)
    found = []
    for meaning, state in zip(meanings, states, strict=True):
        alike = rates.get((meaning.agent, meaning.num_seeds))
        rate = state.rate or (statistics.median(alike) if alike else None)
        left = 0 if state.final else state.steps - state.step
        found.append(left / rate / 3600 if rate else None if left else 0.0)
    return found


def _hours(hours: float | None) -> str:
    if hours is None:
        return "?"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _labels(commands: Sequence[Command]) -> list[str]:
    """Return the arguments of each command that not all have, and that no folder's name says."""
    counts = Counter(argument for command in commands for argument in set(command.arguments))
    return [
        " ".join(
            argument.removeprefix("--")
            for argument in command.arguments
            if counts[argument] < len(commands)
            and argument.lstrip("-").partition("=")[0] not in _IN_FOLDER
        )
        for command in commands
    ]
