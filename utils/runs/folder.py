"""A run's folder: one process at a time, one agent from the first update on."""

import contextlib
import json
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import filelock

from utils.checkpoints import FOLDER
from utils.errors import UserError
from utils.files import ERROR, LOCK, SOURCES, read_json, write_atomically
from utils.runs.settings import LENGTH_FLAGS, Settings
from utils.runs.signals import AGAIN
from utils.runs.sources import same_source
from utils.runs.versions import versions

_LOCK_SECONDS = 1.0  # a reader that looks whether the lock is held has it for a moment


class RunFolder:
    """The folder, held by this process for the length of a with-block.

    If nothing has been written into it by then, it is removed, with the folders that were made
    for it.

    Args:
        path: The folder; made if need be.
        overwrite: Whether to empty it.
        keep_error: Whether to keep what ends the run, in place of what ended it the last time.
        place: Where the agents are, if the run is a point of a grid; see `Grid.place`.
    """

    def __init__(
        self,
        path: Path,
        overwrite: bool = False,
        keep_error: bool = True,
        place: Mapping[str, Any] | None = None,
    ):
        self.path = path
        self._place = place
        self._overwrite = overwrite
        self._keep_error = keep_error
        self._made: list[Path] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            UserError: Another process has it, or it cannot be used.
        """
        try:
            self._made = [folder for folder in self.path.parents if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / LOCK, timeout=_LOCK_SECONDS)
            lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"another process is running in {self.path}; wait for it, or change a setting",
                exit_code=AGAIN,  # a lost node's, say, beside which the scheduler has started this
            ) from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be used ({error.strerror}); "
                "choose another --save_dir"
            ) from error
        self._cleanup.callback(lock.release)
        self._cleanup.callback(self._remove_if_empty)
        if self._keep_error and self._is_own():
            (self.path / ERROR).unlink(missing_ok=True)
        if self._overwrite:
            self.clear()
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if self._keep_error and isinstance(error, Exception):
            self._note_error(error)
        self._cleanup.close()

    def _note_error(self, error: Exception) -> None:
        """Keep what ended a run that has begun, for those who look at its folder."""
        if (self.path / "config.json").exists() and self._is_own():
            lines = traceback.format_exception(error)
            text = f"{error}\n" if isinstance(error, UserError) else "".join(lines)
            with contextlib.suppress(UserError):  # a full disk may be what ended it
                write_atomically(self.path / ERROR, text.encode())

    def clear(self) -> None:
        """Remove all but the lock."""
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _remove_if_empty(self) -> None:
        """Remove the folder if no file but the lock is in it, and of those above what was made."""
        if any(entry.name != LOCK for entry in self.path.rglob("*") if not entry.is_dir()):
            return
        with contextlib.suppress(OSError):  # another run may have come to be beside it
            shutil.rmtree(self.path)
            for folder in self._made:
                folder.rmdir()

    def finished(self, settings: Settings) -> dict[str, Any] | None:
        """Return the score of a run that has ended, or None if it is to go on.

        Raises:
            UserError: It has done more than it is to do by these settings.
        """
        path = self.path / "score.json"
        if not path.exists():
            return None
        remedy = "remove it, and the same command makes it anew"
        score = read_json(path, remedy)
        if not isinstance(score.get("line"), str) or not isinstance(score.get("step"), int):
            raise UserError(f"{path} is damaged (it lacks the line or the step); {remedy}")
        online_start = self._config().get("online_start")
        settings.require_length(score["step"], online_start)
        return score if score["step"] == settings.last_step(online_start) else None

    def _config(self) -> dict[str, Any]:
        return read_json(self.path / "config.json", "remove it to resume")

    def require_own(self) -> None:
        """Raise UserError if the run there is one of a grid that this one is not of, or none is."""
        if not self._is_own():
            raise UserError(
                f"the run in {self.path} is trained by another command "
                f"({self._config().get('command')}): give that one, leave out the values that it "
                "has, or keep both by another --run_group"
            )

    def _is_own(self) -> bool:
        if not (self.path / "config.json").exists():
            return True
        try:
            return self._config().get("grid") == self._place
        except UserError:  # it is damaged, which is said where the run would go on
            return True

    def require_same_sources(self, sources: Mapping[str, bytes], start_over: bool = True) -> bool:
        """Compare the user's files with those that the folder's run was made by.

        Where they differ and that run has not come to its first row or checkpoint of training, it
        is removed: its file had a mistake, and has been corrected.

        Args:
            sources: Contents by path below `SOURCES`.
            start_over: Whether a run may be removed.

        Returns:
            Whether it was.

        Raises:
            UserError: They differ, and that run has been trained or may not be removed.
        """
        folder = self.path / SOURCES
        if not folder.exists():
            return False
        kept = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}
        changed = [
            name
            for name in sorted({*kept, *sources})
            if not same_source(kept.get(name), sources.get(name))
        ]
        start_over = start_over and self._is_own() and not self._trained()
        if changed and start_over:
            print(
                f"{', '.join(changed)}: not as when the run in {self.path} began; as nothing had "
                "been trained there, it starts over",
                flush=True,
            )
            self.clear()
        elif changed:
            raise UserError(
                f"{', '.join(changed)}: not as when the run in {self.path} began (see {SOURCES}/ "
                "there); start over with --overwrite, or keep both by another --run_group"
            )
        return bool(changed)

    def _trained(self) -> bool:
        """Whether there is a row of training, or a checkpoint besides that of the start."""
        saved = self.path / FOLDER
        return (self.path / "train.csv").exists() or (
            saved.exists() and len(list(saved.iterdir())) > 1
        )

    def write_config(self, config: Mapping[str, Any], flags: Mapping[str, Any], step: int) -> None:
        """Write config.json, and say what has changed in it for a run that goes on.

        Under `intervals` it has from which step on which length and intervals were in force.

        Args:
            config: What is in it besides that.
            flags: The run's flags.
            step: Where the run is.
        """
        path, before = self.path / "config.json", []
        if step and path.exists():
            before = self._config().get("intervals", [])
            before = [entry for entry in before if entry["from"] < step]
        now = {name: flags[name] for name in LENGTH_FLAGS if name in flags}
        past = {name: before[-1].get(name) for name in now} if before else None
        if past != now:
            before.append({"from": step, **now})
        if past and past != now:
            listed = ", ".join(f"{k} {past[k]} -> {v}" for k, v in now.items() if past[k] != v)
            print(f"from step {step} on: {listed}", flush=True)
        place = {} if self._place is None else {"grid": self._place}
        self.write_json("config.json", {**config, **place, "intervals": before})
        (self.path / "score.json").unlink(missing_ok=True)  # of a shorter run

    def keep_sources(self, sources: Mapping[str, bytes]) -> None:
        """Write the user's files below `SOURCES`."""
        for name, content in sources.items():
            path = self.path / SOURCES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def note_versions(self, agent_path: Path, resumed: bool) -> str | None:
        """Write versions.json, and return a warning if a run is resumed under other versions."""
        path = self.path / "versions.json"
        now, warning = versions(agent_path), None
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
