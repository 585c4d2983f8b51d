"""The commands of a sweep: tasks x agents x values x seeds."""

import difflib
import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.envs import tasks
from utils.errors import UserError
from utils.runs import vary
from utils.runs.meaning import ONCE_FLAGS
from utils.sweep.commands import join

_ROOT = Path(__file__).parents[2]
_AGENTS = _ROOT / "agents"
# What a sweep sets itself, with the option that asks for it.
_OWN = {"env_name": "--tasks", "agent": "--agents", "num_seeds": "--seeds", "seed": "--seed"}


@dataclass(frozen=True)
class Grid:
    """What is swept over.

    Attributes:
        env_names: Tasks as --env_name takes them.
        agents: Paths of the agents' files.
        seed: The first seed.
        seeds: Number of seeds.
        seeds_per_run: How many are trained together in one program.
        vary: Names of flags or settings, and the values of each.
        passed: Arguments that every command has.
        entry_point: The program's file.
        run_group: The runs' group, unless `passed` has one.
        packed: By agent's path, which of the names in `vary` have all their values in one command.
    """

    env_names: tuple[str, ...]
    agents: tuple[str, ...]
    seed: int
    seeds: int
    seeds_per_run: int
    vary: tuple[tuple[str, tuple[str, ...]], ...]
    passed: tuple[str, ...]
    entry_point: str
    run_group: str
    packed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the commands, those of the first seeds first.

        Raises:
            UserError: A flag is given twice, or is none that a sweep may pass on.
        """
        names = [name for name, _ in self.vary]
        given = [_name(argument) for argument in self.passed if argument.startswith("-")]
        _require_passable([*names, *given])
        fixed = list(self.passed)
        if "run_group" not in (*names, *given):
            fixed.insert(0, f"--run_group={self.run_group}")
        end = self.seed + self.seeds
        chunks = [
            (first, min(self.seeds_per_run, end - first))
            for first in range(self.seed, end, self.seeds_per_run)
        ]
        return [
            join(
                [
                    python(),
                    self.entry_point,
                    f"--env_name={env_name}",
                    f"--agent={agent}",
                    *([f"--seed={first}"] if first else []),
                    f"--num_seeds={number}",
                    *varied,
                    *fixed,
                ]
            )
            for (first, number), env_name, agent in itertools.product(
                chunks, self.env_names, self.agents
            )
            for varied in self._varied(agent)
        ]

    def _varied(self, agent: str) -> Iterator[tuple[str, ...]]:
        """Yield the arguments for each of an agent's commands that say what is varied."""
        packed = self.packed.get(agent, ())
        choices = [
            [f"--vary={name}={','.join(values)}"]
            if name in packed
            else [f"--{name}={value}" for value in values]
            for name, values in self.vary
        ]
        return itertools.product(*choices)


def _name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0]


def _require_passable(names: Sequence[str]) -> None:
    for name in names:
        if name in _OWN:
            raise UserError(f"--{name} is set by the sweep; give it as {_OWN[name]}")
        if name in (*ONCE_FLAGS, "help"):
            raise UserError(
                f"--{name} is for a single run, and would act at every start of every run of the "
                "sweep; leave it out"
            )
        if names.count(name) > 1:
            raise UserError(f"--{name} is given twice; give it once, with all its values")


# --- Where programs are ---------------------------------------------------------------------------


def python() -> str:
    """Return the interpreter's name, or its path where the name would find another one."""
    return "python" if shutil.which("python") == sys.executable else sys.executable


def here(path: Path) -> str:
    """Return a path of this repository as the working directory sees it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def entry_point(online: bool) -> str:
    """Return the path of the entry point that comes with the library."""
    return here(_ROOT / ("online_main.py" if online else "main.py"))


# --- What the user typed --------------------------------------------------------------------------


def parse_tasks(text: str) -> tuple[str, ...]:
    """Return tasks for names of tasks and groups, separated by commas, each once.

    The name of a dataset stands for all of its tasks, its full name (`scene-play-singletask-v0`)
    for the default one.

    Raises:
        UserError: A name is unknown.
    """
    groups, found = tasks.groups(), {}
    for name in vary.split(text, "--tasks"):
        if name in groups:
            members = groups[name]
        else:
            try:
                members = [tasks.resolve(name)]
            except UserError as error:
                near = difflib.get_close_matches(name, groups, n=3, cutoff=0.7)
                if "did you mean" in str(error) or not near:
                    raise
                raise UserError(
                    f"unknown group of tasks '{name}'; did you mean {' or '.join(near)}?"
                ) from error
        for full_name in members:
            short = name if name.endswith(".py") else tasks.short_name(full_name)
            found.setdefault(tasks.numbered(full_name), short)
    return tuple(found.values())


def parse_agents(text: str) -> tuple[str, ...]:
    """Return paths for agents' names in agents/ and paths, separated by commas.

    Raises:
        UserError: There is no such agent, or two of them have one name.
    """
    known = {path.stem: path for path in _AGENTS.glob("*.py") if path.stem != "__init__"}
    found = {}
    for name in vary.split(text, "--agents"):
        if name in known:
            found[here(known[name])] = None
        elif name.endswith(".py"):
            found[name] = None
        else:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise UserError(
                f"no agent is called '{name}'; give the path of a file, or {', '.join(near)}"
            )
    stems = [Path(path).stem for path in found]
    if twice := [stem for i, stem in enumerate(stems) if stem in stems[:i]]:
        raise UserError(
            f"two agents are called '{twice[0]}', and runs have the names of their agents; rename "
            "a file"
        )
    return tuple(found)


def parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
    """Return name and values of `NAME=V1,V2`.

    Raises:
        UserError: It does not look so, or a value is there twice.
    """
    name, values = vary.parse_vary(text)
    if len(set(values)) < len(values):
        raise UserError(f"--vary {text} has a value twice; give each once")
    return name, values
