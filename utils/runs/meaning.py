"""What a command line means: what an entry point answers about it without running it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

RESOLVE = "--resolve_command_lines"
"""The one argument with which an entry point answers, see `utils.runs.command_lines`."""

ONCE_FLAGS = frozenset({"overwrite", "debug", "dry_run"})
"""What a command is given once, and not to repeat a run."""


@dataclass(frozen=True)
class Meaning:
    """What a command would do.

    Attributes:
        task: Full name of the task.
        agent: Name of the agent's file, without its suffix.
        folder: Where its checkpoints are: the run's folder, or that of its grid. Relative to the
            working directory where --save_dir is.
        num_seeds: Seeds trained together, at each grid point.
        offline_steps: Updates offline; 0 where --restore_path takes their place.
        online_steps: Environment steps online; 0 for a run that stays offline.
        updates: Updates in all, of all seeds together.
        idle: Settings that were given and that nothing reads, if they were looked for.
        points: Run folders of its grid points; empty where nothing is varied.
    """

    task: str
    agent: str
    folder: str
    num_seeds: int
    offline_steps: int
    online_steps: int
    updates: int
    idle: tuple[str, ...] = ()
    points: tuple[str, ...] = ()

    @property
    def run_folders(self) -> tuple[str, ...]:
        """The folders that its runs' rows are in."""
        return self.points or (self.folder,)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return a meaning whose attributes went through JSON."""
        lists = {name: tuple(values[name]) for name in ("idle", "points") if name in values}
        return cls(**{**values, **lists})
