"""Logs that survive a kill: CSV files with growing columns, Weights & Biases, versions.

The columns of a file are ``step``, ``seed`` and then every key in order of its first value, so the
bytes depend on the rows alone: a file cut back to a checkpoint and continued is the same as one
that was never interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib.metadata
import io
import netrc
import os
import platform
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError

Number = int | float
Row = dict[str, Number | str]

LEADING_COLUMNS = ("step", "seed")
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ogbench",
    "mujoco",
    "gymnasium",
    "gymnasium-robotics",
    "numpy",
)
WANDB_MODES = ("auto", "online", "offline", "disabled")
_MODE_ALIASES = {"run": "online", "shared": "online", "dryrun": "offline"}
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


# --- Files ----------------------------------------------------------------------------------------


def _cannot_write(path: Path, error: OSError) -> UserError:
    """Returns the error to show for a failed write to `path`."""
    if error.errno in _FULL:
        remedy = "free some space or raise the quota, then start the same command again to resume"
    else:
        remedy = "check that the folder exists and is writable, then start the same command again"
    return UserError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Puts `data` into the file at `path`, which at any moment is either the old or the new one.

    Args:
        path: The file; its folder must exist. ``<path>.tmp`` is used on the way.
        data: The whole content.

    Raises:
        UserError: If the disk is full or the folder cannot be written; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _format(key: str, value: Any) -> str:
    """Returns the text of one cell; empty for None. Takes NumPy and JAX scalars too."""
    if value is None:
        return ""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        if "\n" in value or "\r" in value:
            raise ValueError(f"a line break cannot be logged: {key} = {value!r}")
        return value
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, float):
        return repr(value)
    raise TypeError(f"only numbers and strings can be logged, not {key} = {value!r}")


def _parse(cell: str) -> Number | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell


def _encode(lines: Iterable[Iterable[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()


def _ordered(columns: Iterable[str]) -> list[str]:
    """Moves the leading columns to the front and leaves the order of the others."""
    columns = list(columns)
    leading = [column for column in LEADING_COLUMNS if column in columns]
    return leading + [column for column in columns if column not in LEADING_COLUMNS]


def _read_cells(path: Path) -> tuple[list[str], list[list[str]], int]:
    """Reads header, cells of each row, and the number of bytes up to the last complete line.

    A last line without a line break was torn by a kill in the middle of a write and is left out.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], [], 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    size = data.rfind(b"\n") + 1
    damaged = f"{path} is damaged ({{}}); mend that line, or remove the file to do without its rows"
    try:
        lines = list(csv.reader(io.StringIO(data[:size].decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(damaged.format(error)) from error
    if not lines:
        return [], [], 0
    header, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            detail = f"line {number} has {len(row)} cells, the header {len(header)}"
            raise UserError(damaged.format(detail))
    return header, rows, size


def _as_dict(header: list[str], cells: list[str]) -> Row:
    return {key: _parse(cell) for key, cell in zip(header, cells, strict=True) if cell}


def read_csv(path: str | os.PathLike) -> list[Row]:
    """Reads the rows of a log, also of one that is being written or whose writer was killed.

    Args:
        path: The file; one that does not exist has no rows.

    Returns:
        A dict per row: ints, floats (nan and inf included) and strings; empty cells are left out.

    Raises:
        UserError: If a line is malformed or the file cannot be read.
    """
    header, rows, _ = _read_cells(Path(path))
    return [_as_dict(header, row) for row in rows]


class CsvLog:
    """A CSV file of rows with growing columns, complete on disk after each `append`.

    Floats are written with the fewest digits that give the same float64 again. The file begins to
    exist with its first row. Opening an existing file continues it and removes a torn last line.
    One process at a time may write to a file.

    Raises:
        UserError: If an existing file is malformed, or a write fails (a full disk); rows that were
            written before stay readable.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._columns, _, size = _read_cells(self.path)
        try:
            self.path.with_name(self.path.name + ".tmp").unlink(missing_ok=True)
            if self._columns:
                os.truncate(self.path, size)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns so far, in the order of the file."""
        return tuple(self._columns)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds one row; None is an empty cell, a key with nothing but such no column.

        Args:
            row: Numbers (also NumPy or JAX scalars) or one-line strings by column name.

        Raises:
            UserError: If the disk is full; the file then ends with the row before this one.
        """
        cells = {key: _format(key, value) for key, value in row.items()}
        cells = {key: cell for key, cell in cells.items() if cell}
        if not cells:
            return
        columns = _ordered(dict.fromkeys([*self._columns, *cells]))
        if columns == self._columns:
            self._append_line(_encode([[cells.get(column, "") for column in columns]]))
        else:
            header, rows, _ = _read_cells(self.path)
            earlier = [dict(zip(header, old, strict=True)) for old in rows]
            self._rewrite(columns, [*earlier, cells])

    def truncate(self, keep: Callable[[Row], bool]) -> int:
        """Drops rows, and the columns that no remaining row has a value in.

        What remains is byte for byte the file as it was when only the kept rows had been written,
        provided that these are its first rows.

        Args:
            keep: Tells for a row, as `read_csv` returns it, whether it stays.

        Returns:
            The number of rows dropped.
        """
        header, rows, _ = _read_cells(self.path)
        kept = [row for row in rows if keep(_as_dict(header, row))]
        if len(kept) == len(rows):
            return 0
        if kept:
            used = [column for i, column in enumerate(header) if any(row[i] for row in kept)]
            self._rewrite(used, [dict(zip(header, row, strict=True)) for row in kept])
        else:
            self.path.unlink()
            self._columns = []
        return len(rows) - len(kept)

    def keep_through(self, step: int) -> int:
        """Drops the rows after `step`, those that a run resumed at `step` will write again.

        Returns:
            The number of rows dropped.
        """
        return self.truncate(lambda row: row["step"] <= step)

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        lines = [[row.get(column, "") for column in columns] for row in rows]
        write_atomically(self.path, _encode([columns, *lines]))
        self._columns = columns

    def _append_line(self, line: bytes) -> None:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(self.path, "ab", buffering=0))
                size = file.tell()
                try:
                    written = 0
                    while written < len(line):
                        written += file.write(line[written:])
                except OSError:
                    file.truncate(size)
                    raise
            except OSError as error:
                raise _cannot_write(self.path, error) from error


# --- Versions -------------------------------------------------------------------------------------


def _git_commit(folder: Path) -> str | None:
    """Returns the commit of the repository around `folder`, with ``+dirty`` where files differ."""
    # Inside a git hook these variables point to another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, env=environment
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, Any]:
    """Returns what the results depend on besides the configuration; starts JAX's backend.

    Returns:
        Versions of Python, of the operating system and of the packages (None where not installed),
        the commit of this code (None outside a repository) and the kinds of devices, all of which
        fit into JSON. Names no machine and no user.
    """
    import jax

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["git"] = _git_commit(Path(__file__).resolve().parent)
    found["devices"] = [device.device_kind for device in jax.local_devices()]
    return found


# --- Weights & Biases -----------------------------------------------------------------------------


def _say(message: str) -> None:
    print(f"wandb: {message}", file=sys.stderr, flush=True)


class Wandb:
    """A wandb run, or a stand-in that does nothing; no method raises or waits for a server.

    Attributes:
        id: The run's id. Keep it in the checkpoint: the same id continues the same run.
        mode: ``online``, ``offline`` or ``disabled``: what it became, not what was asked for.
    """

    def __init__(self, run: Any, run_id: str, mode: str):
        self.id = run_id
        self.mode = mode
        self._run = run

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Logs numbers by name at `step`, which may lie before one logged earlier.

        Empty (None) values are left out.
        """
        row = {key: value for key, value in row.items() if value is not None}
        # The step is a value like others, because wandb drops rows whose own step goes backwards,
        # as it does when a run resumes from a checkpoint behind its last row.
        self._attempt(lambda: self._run.log({**row, "step": int(step)}))

    def log_video(self, key: str, path: str | os.PathLike, step: int) -> None:
        """Logs the mp4 file at `path` under `key`."""

        def log() -> None:
            import wandb

            self._run.log({key: wandb.Video(str(path), format="mp4"), "step": int(step)})

        self._attempt(log)

    def finish(self, exit_code: int = 0) -> None:
        """Ends the run; waits for uploads, but not longer than the timeout of `start_wandb`."""
        self._attempt(lambda: self._run.finish(exit_code=exit_code))
        self._run = None

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._run is None:
            return
        try:
            action()
        except TimeoutError:
            folder = Path(self._run.settings.sync_dir)
            _say(f"the server does not answer; upload the rest later with `wandb sync {folder}`")
            self._run = None
        # A failing logger must not end the training; the CSV files have every row.
        except Exception as error:
            _say(f"stopped logging after an error: {_first_line(error)}")
            self._run = None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _has_credentials(base_url: str, api_key: str | None) -> bool:
    """Tells whether wandb would find an API key or token without asking."""
    if api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    home = Path.home()
    for path in [Path(named).expanduser()] if named else [home / ".netrc", home / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            entry = netrc.netrc(path).authenticators(urllib.parse.urlsplit(base_url).netloc)
            if entry is not None and entry[2]:
                return True
    return False


def _why_unreachable(base_url: str, timeout_s: float) -> str | None:
    """Returns None if anything at `base_url` speaks HTTP within the time, else the reason."""
    reason: list[str | None] = [f"no answer within {timeout_s:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(base_url, timeout=timeout_s).close()
            reason[0] = None
        except urllib.error.HTTPError as error:
            error.close()
            reason[0] = None
        except urllib.error.URLError as error:
            # Someone who shows a certificate is alive; wandb has its own settings for trust.
            is_ssl = "CERTIFICATE" in str(error.reason).upper()
            reason[0] = None if is_ssl else str(error.reason)
        except (OSError, ValueError) as error:
            reason[0] = str(error)

    # Looking up a name knows no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return reason[0]


def start_wandb(
    mode: str,
    *,
    group: str,
    name: str,
    config: Mapping[str, Any],
    folder: str | os.PathLike,
    project: str = "deflow",
    run_id: str | None = None,
    timeout_s: float = 20.0,
) -> Wandb:
    """Starts or continues a wandb run without ever asking a question, and says so in one line.

    Whatever goes wrong, from a missing login to a server that hangs, leads to an offline run (or
    none, if wandb itself cannot be imported) and one line telling why.

    Args:
        mode: ``auto`` follows WANDB_MODE and wandb's own settings, and otherwise is online if a
            login is found and offline if not; or ``online``, ``offline``, ``disabled``.
        group: Group of runs.
        name: Name of the run.
        config: What to show as the run's configuration; fits into JSON.
        folder: The run folder, in which all of wandb's files are put.
        project: Project of the runs.
        run_id: Id of the run to continue; a new one is drawn if it is None.
        timeout_s: The longest wait for the server at the start, and again at the end; seconds.

    Returns:
        The run.

    Raises:
        UserError: If `mode` or WANDB_MODE is unknown.
    """
    if mode not in WANDB_MODES:
        raise UserError(f"unknown wandb mode {mode!r}; choose one of {', '.join(WANDB_MODES)}")
    run_id = run_id or secrets.token_hex(6)
    if mode == "auto":
        named = os.environ.get("WANDB_MODE", "").strip().lower()
        mode = _MODE_ALIASES.get(named, named) or "auto"
        if mode not in WANDB_MODES:
            raise UserError(f"WANDB_MODE is {named!r}; set it to online, offline or disabled")
    if mode == "disabled":
        return Wandb(None, run_id, "disabled")

    folder = Path(folder).absolute()
    os.environ.setdefault("WANDB_SILENT", "true")
    # With its error reports, wandb waits 20 s for a dead server when the process exits.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import wandb

        known = wandb.setup().settings
    # Any broken installation or settings file: the training matters more.
    except Exception as error:
        _say(f"disabled, because it does not start ({_first_line(error)})")
        return Wandb(None, run_id, "disabled")
    if mode == "auto":
        mode = _MODE_ALIASES.get(known.mode, known.mode)
        if mode == "disabled":
            return Wandb(None, run_id, "disabled")

    def begin(actual: str) -> Wandb:
        limits: dict[str, Any] = {}
        if actual == "online":
            limits = {
                "init_timeout": timeout_s,
                "login_timeout": timeout_s,
                "finish_timeout": timeout_s,
                "finish_timeout_raises": True,
            }
        run = wandb.init(
            mode=actual,
            project=project,
            group=group,
            name=name,
            id=run_id,
            resume="allow",
            config=dict(config),
            allow_val_change=True,
            dir=str(folder),
            settings=wandb.Settings(silent=True, console="off", **limits),
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        return Wandb(run, run_id, actual)

    why = ""
    if mode == "online":
        if not _has_credentials(known.base_url, known.api_key):
            why = "not logged in, see `wandb login`"
        elif reason := _why_unreachable(known.base_url, min(timeout_s, 5.0)):
            why = f"{known.base_url} cannot be reached: {reason}"
        else:
            try:
                started = begin("online")
                _say(f"online, {started._run.url}")
                return started
            except Exception as error:
                why = f"{known.base_url}: {_first_line(error)}"
                # The id stays taken in wandb's service until that ends.
                with contextlib.suppress(Exception):
                    wandb.teardown()
    try:
        started = begin("offline")
    except Exception as error:
        _say(f"disabled, because it does not start ({_first_line(error)})")
        return Wandb(None, run_id, "disabled")
    _say(f"offline in {folder / 'wandb'}" + (f" ({why})" if why else ""))
    return started
