"""The grid of a run: settings that `--vary` gives several values, trained in one program.

Each grid point is a run of its own settings, with the folder that it would have by itself.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from utils.agent_files import AgentFile
from utils.agent_settings import check_settings
from utils.errors import UserError
from utils.policies import load_policy
from utils.runs import settings
from utils.runs.members import Member
from utils.runs.settings import Settings
from utils.runs.vary import parse_vary
from utils.varied_check import check_varied, elsewhere

FILE = "grid.json"
"""In a grid's folder, what its points are."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid points of a run; one that varies nothing has one.

    Attributes:
        points: The settings of each, in an order that is not that of the command line.
    """

    points: tuple[Settings, ...]

    @property
    def settings(self) -> Settings:
        """The settings of the first point, which all share but for those that are varied."""
        return self.points[0]

    @property
    def members(self) -> list[Member]:
        """The members, those of the first point first."""
        return [
            Member(seed, number, _listed(point.varied))
            for number, point in enumerate(self.points)
            for seed in point.seeds.tolist()
        ]

    @property
    def seeds(self) -> np.ndarray:
        """The members' training seeds, (members,)."""
        return np.concatenate([point.seeds for point in self.points])

    @property
    def varied(self) -> dict[str, np.ndarray]:
        """The members' values of the settings that are varied, (members,) by name."""
        return {
            name: np.array([p.varied[name] for p in self.points for _ in p.seeds], np.float32)
            for name in self.settings.varied
        }

    @property
    def folder(self) -> Path:
        """The folder of the checkpoints: the run's, or one of all points of a grid."""
        first = self.settings.folder
        if not self.settings.varied:
            return first
        names = "\n".join(point.folder.parent.name for point in self.points)
        digest = hashlib.sha256(names.encode()).hexdigest()[:8]
        begin = first.parent.name.rpartition("_")[0]
        return first.parent.with_name(f"{begin}_grid-{digest}") / first.name

    def place(self, number: int) -> dict[str, Any] | None:
        """Return where a point's agents are, as its config.json has it; None without a grid."""
        if not self.settings.varied:
            return None
        folder = os.path.relpath(self.folder, self.points[number].folder)
        return {"folder": folder, "point": number, "points": len(self.points)}

    def as_dict(self) -> dict[str, Any]:
        """Return what the grid's folder says of it."""
        points = [
            {"folder": os.path.relpath(point.folder, self.folder)}
            | {f"agent.{name}": value for name, value in point.varied.items()}
            for point in self.points
        ]
        return {"command": self.settings.command, "points": points}

    def set_from_data(self, derived: Mapping[str, Any]) -> None:
        """Set what follows from the data at every point; see `Settings.set_from_data`."""
        for point in self.points:
            point.set_from_data(derived)

    def table(self) -> str:
        """Return one line per setting, and one per grid point."""
        lines = [self.settings.table()]
        if self.settings.varied:
            number, seeds = len(self.points), len(self.settings.seeds)
            lines.append(f"grid of {number} points x {seeds} seeds, checkpoints in {self.folder}")
            for point in self.points:
                lines.append(f"  {_listed(point.varied)}  folder {point.folder}")
        return "\n".join(lines)

    def check_values(self, agent_file: AgentFile) -> None:
        """Raise UserError for settings of a point with which its agent cannot work."""
        for point in self.points:
            check_settings(point.agent, agent_file.config)
            agent_file.agent_class.check_config(point.agent)

    def check_program(self, agent_file: AgentFile) -> None:
        """Raise UserError unless one program can train all points; takes a second or two."""
        policy = load_policy(self.settings.flags["eval_policy"])
        for name in self.settings.varied:
            values = [point.varied[name] for point in self.points]
            ends = (min(values), max(values))
            check_varied(agent_file.agent_class, self.settings.agent, name, ends, policy)


def resolve(
    agent_file: AgentFile, online: bool, flag_values: flags.FlagValues = flags.FLAGS
) -> Grid:
    """Return the grid of a command line that was parsed; see `settings.resolve`.

    The order of values does not matter, and a value that is there twice counts once.

    Raises:
        UserError: What is varied is no number among the agent's settings, or is given twice.
    """
    varied: dict[str, list[float]] = {}
    for text in flag_values["vary"].value or ():
        name, values = parse_vary(text)
        key = name.removeprefix("agent.")
        if key in varied:
            raise UserError(f"--vary {name} is given twice; give it once, with all its values")
        varied[key] = sorted(set(_numbers(name, values, agent_file)))
    keys = sorted(varied)
    products = itertools.product(*(varied[key] for key in keys))
    points = [dict(zip(keys, values, strict=True)) for values in products]
    return Grid(tuple(settings.resolve(agent_file, online, flag_values, each) for each in points))


def _listed(varied: Mapping[str, float]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in varied.items())


def _numbers(name: str, texts: Sequence[str], agent_file: AgentFile) -> list[float]:
    """Return the values of a setting.

    Raises:
        UserError: It is no setting of the agent, or no number, or a value is none.
    """
    key = name.removeprefix("agent.")
    if key == name:
        raise UserError(f"--vary {name}: {elsewhere('it is no setting of the agent')}")
    settings.require_setting(key, list(agent_file.config), agent_file.path)
    default = agent_file.config.get(key)
    if not (default is None or isinstance(default, float)):
        raise UserError(f"--vary {name}: {elsewhere('it is a count, a choice or a text')}")
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise UserError(f"--vary {name}: {error}; give numbers") from error
