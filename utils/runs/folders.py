"""The folders of a run: one per grid point and, in a grid, one of all with the checkpoints."""

import contextlib
from collections.abc import Mapping
from typing import Any, Self

from utils.envs import tasks
from utils.report.summary import write_score_and_curves
from utils.runs.folder import RunFolder
from utils.runs.grids import FILE, Grid


class RunFolders:
    """The folders, held by this process for the length of a with-block.

    Args:
        grid: The run's grid points.
        overwrite: Whether to empty them.
        keep_error: Whether to keep what ends the run, in place of what ended it the last time.

    Attributes:
        home: The one with the checkpoints.
    """

    def __init__(self, grid: Grid, overwrite: bool = False, keep_error: bool = True):
        self._grid = grid
        self._points = [
            RunFolder(point.folder, overwrite, keep_error, grid.place(number))
            for number, point in enumerate(grid.points)
        ]
        self.home = self._points[0]
        if grid.settings.varied:
            self.home = RunFolder(grid.folder, overwrite, keep_error)
        self._all = dict.fromkeys([self.home, *self._points])
        self._overwrite = overwrite
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the folders.

        Raises:
            UserError: Another process has one, or it cannot be used, or it is to be emptied and
                holds what another command has made.
        """
        if self._overwrite:
            self.require_own()
        with contextlib.ExitStack() as stack:
            for folder in self._all:
                stack.enter_context(folder)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.__exit__(*exception)

    def require_own(self) -> None:
        """Raise UserError if a folder holds what was trained by itself, or in another grid."""
        for folder in self._points:
            folder.require_own()

    def require_same_sources(self, sources: Mapping[str, bytes], start_over: bool = True) -> None:
        """See `RunFolder.require_same_sources`; a grid starts over as a whole."""
        cleared = [folder.require_same_sources(sources, start_over) for folder in self._points]
        if any(cleared):
            self.home.clear()

    def finished(self) -> list[dict[str, Any]] | None:
        """Return the scores of a run that has ended, one per point; see `RunFolder.finished`."""
        scores = [
            folder.finished(point)
            for folder, point in zip(self._points, self._grid.points, strict=True)
        ]
        return None if None in scores else scores

    def begin(
        self, shared: Mapping[str, Any], sources: Mapping[str, bytes], step: int
    ) -> str | None:
        """Write what the folders say of the run, besides its rows.

        Args:
            shared: What each config.json holds besides the settings.
            sources: The user's files.
            step: Where the run is.

        Returns:
            A warning if the run is resumed under other versions.
        """
        warnings = []
        if self.home not in self._points:
            self.home.write_json(FILE, self._grid.as_dict())
        for folder, point in zip(self._points, self._grid.points, strict=True):
            folder.write_config(point.as_dict() | shared, point.flags, step)
            folder.keep_sources(sources)
            warnings.append(folder.note_versions(point.agent_path, resumed=step > 0))
        return warnings[0]

    def write_scores(self, online_start: int | None, step: int) -> list[str]:
        """Write scores and curves, and return a line on each point's; see `utils.report.summary`.

        Args:
            online_start: Step at which the run went online; None for an offline run.
            step: Its last step.
        """
        protocol = tasks.protocol(self._grid.settings.env_name)
        return [
            f"{write_score_and_curves(folder.path, online_start, protocol, step)}\n{folder.path}"
            for folder in self._points
        ]
