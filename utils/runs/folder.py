"""A run's folder: one process at a time, one agent for ever."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import filelock

from utils.errors import UserError
from utils.files import SOURCES, read_json, write_atomically
from utils.runs.sources import same_source
from utils.runs.versions import versions


class RunFolder:
    """The folder, held by this process for the length of a with-block.

    Args:
        path: The folder; made if need be.
        overwrite: Whether to empty it.
    """

    def __init__(self, path: Path, overwrite: bool = False):
        self.path = path
        self._overwrite = overwrite
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            UserError: Another process has it, or it cannot be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"another process is running in {self.path}; wait for it, or change a setting"
            ) from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be used ({error.strerror}); "
                "choose another --save_dir"
            ) from error
        self._cleanup.callback(lock.release)
        if self._overwrite:
            for entry in self.path.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def finished(self) -> str | None:
        """Return the score line of a run that has ended, else None."""
        path = self.path / "score.json"
        if not path.exists():
            return None
        remedy = "remove it, and the same command makes it anew"
        score = read_json(path, remedy)
        if not isinstance(score.get("line"), str):
            raise UserError(f"{path} is damaged (it lacks the line of the score); {remedy}")
        return score["line"]

    def seeds_failed(self) -> bool:
        """Whether seeds of a run that has ended have failed."""
        return "failed" in json.loads((self.path / "score.json").read_text())

    def require_same_sources(self, sources: Mapping[str, bytes]) -> None:
        """Raise UserError if the folder's run was made by other versions of the user's files.

        Args:
            sources: Contents by path below `SOURCES`.
        """
        folder = self.path / SOURCES
        if not folder.exists():
            return
        kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}
        changed = [
            name
            for name in sorted({*kept, *sources})
            if not same_source(kept.get(name), sources.get(name))
        ]
        if changed:
            raise UserError(
                f"{', '.join(changed)}: not as when the run in {self.path} began (see {SOURCES}/ "
                "there); start over with --overwrite, or keep both by another --run_group"
            )

    def keep_sources(self, sources: Mapping[str, bytes]) -> None:
        """Write the user's files below `SOURCES`."""
        for name, content in sources.items():
            path = self.path / SOURCES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def note_versions(self, resumed: bool) -> str | None:
        """Write versions.json, and return a warning if a run is resumed under other versions."""
        path = self.path / "versions.json"
        now, warning = versions(), None
        if path.exists() and resumed:
            before = read_json(path, "remove it to resume without a comparison of versions")
            changed = [key for key in now if before.get(key) != now[key]]
            if changed:
                listed = ", ".join(f"{key} {before.get(key)} -> {now[key]}" for key in changed)
                warning = f"resumed under other versions ({listed}); digits may differ"
        self.write_json("versions.json", now)
        return warning

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file in one go."""
        text = json.dumps(content, indent=2, default=str) + "\n"
        write_atomically(self.path / name, text.encode())
