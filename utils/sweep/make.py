"""The file of a new sweep: its commands made, checked and written."""

import dataclasses
import shlex
from pathlib import Path

from utils.errors import UserError
from utils.files import cannot_write, write_atomically
from utils.sweep import commands, hours, jobs, meanings
from utils.sweep.grid import Grid
from utils.sweep.sweep import Sweep


def pack(grid: Grid) -> Grid:
    """Have one command train all values of a setting, for agents that can have it so.

    Raises:
        UserError: The entry point does not answer.
    """
    names = [name for name, _ in grid.vary if name.startswith("agent.")]
    asked = [(agent, name) for agent in grid.agents for name in names]
    if not asked:
        return grid
    one_each = dataclasses.replace(grid, env_names=grid.env_names[:1], seeds=1, seeds_per_run=1)
    probes = []
    for agent, name in asked:
        probe = dataclasses.replace(
            one_each,
            agents=(agent,),
            vary=tuple((other, values) for other, values in grid.vary if other == name),
            packed={agent: frozenset({name})},
        )
        probes.append(commands.parse(probe.lines()[0], f"--vary {name}"))
    right = meanings.are_right(probes)
    packed: dict[str, frozenset[str]] = {}
    for (agent, name), fits in zip(asked, right, strict=True):
        if fits:
            packed[agent] = packed.get(agent, frozenset()) | {name}
    return dataclasses.replace(grid, packed=packed)


def make(grid: Grid, path: Path, made_by: str, overwrite: bool, rates: hours.Rates) -> Sweep:
    """Write the file of a sweep, and say what it amounts to.

    Args:
        grid: What is swept over.
        path: The file. One that has the same commands is left as it is.
        made_by: The command line that makes it, which it begins with.
        overwrite: Whether another file may be replaced.
        rates: Updates per second, for the hours.

    Raises:
        UserError: A command is wrong, or another file is there.
    """
    lines = grid.lines()
    found = tuple(commands.parse(line, f"run {i}") for i, line in enumerate(lines, start=1))
    meant = tuple(meanings.resolve(found, check=True))
    told = hours.describe(meant, rates, lines[0])
    _write(path, lines, made_by, overwrite)
    for agent in dict.fromkeys(meaning.agent for meaning in meant):
        idle = {key for meaning in meant if meaning.agent == agent for key in meaning.idle}
        if idle:
            listed = ", ".join(sorted(f"--agent.{key}" for key in idle))
            print(f"warning: nothing in {agent} reads {listed}, with the settings of its first run")
    print(f"{path}: {told}", flush=True)
    return Sweep(path, found, meant)


def _write(path: Path, lines: list[str], made_by: str, overwrite: bool) -> None:
    """Raise UserError if another sweep's file is there and may not be replaced."""
    jobs.require_sweep(path)
    if path.exists():
        there = [command.text for command in commands.read(path)]
        if there == lines:
            return
        if not overwrite:
            raise UserError(
                f"{path} has other commands than these (it may have been edited); give another "
                f"--output, replace it by --overwrite, or go on with it: python -m utils.sweep "
                f"status {shlex.quote(str(path))}"
            )
    head = [
        "# One run per line, the exact command. Edit it by hand: blank lines and those that begin",
        "# with # are passed over. Made by",
        f"# {made_by}",
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomically(path, "".join(f"{line}\n" for line in [*head, "", *lines]).encode())
