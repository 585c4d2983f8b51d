"""Weights & Biases: a mirror of the CSV files that never stops a run."""

import contextlib
import netrc
import os
import secrets
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError

WANDB_MODES = ("auto", "online", "offline", "disabled")
_MODE_ALIASES = {"run": "online", "shared": "online", "dryrun": "offline"}


def _say(message: str) -> None:
    print(f"wandb: {message}", file=sys.stderr, flush=True)


class Wandb:
    """A wandb run, or a stand-in that does nothing.

    No method raises; only `finish` waits for a server, and not for long.

    Attributes:
        id: The run's id. Keep it in the checkpoint: the same id continues the same run.
        mode: ``online``, ``offline`` or ``disabled``: what it became, not what was asked for.
    """

    def __init__(self, run: Any, run_id: str, mode: str):
        self.id = run_id
        self.mode = mode
        self._run = run

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Log numbers by name at `step`.

        The step may lie before one logged earlier. Empty (None) values are left out.
        """
        row = {key: value for key, value in row.items() if value is not None}
        # The step is a value like others, because wandb drops rows whose own step goes backwards,
        # as it does when a run resumes from a checkpoint behind its last row.
        self._attempt(lambda: self._run.log({**row, "step": int(step)}))

    def log_video(self, key: str, path: str | os.PathLike, step: int) -> None:
        """Log the mp4 file at `path` under `key`."""

        def log() -> None:
            import wandb

            self._run.log({key: wandb.Video(str(path), format="mp4"), "step": int(step)})

        self._attempt(log)

    def finish(self, exit_code: int = 0) -> None:
        """End the run; wait for uploads no longer than the timeout of `start_wandb`."""
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


def _has_credentials(settings: Any) -> bool:
    """Tell whether wandb would find an API key or token without asking."""
    if settings.api_key or settings.identity_token_file:
        return True
    host = urllib.parse.urlsplit(settings.base_url).netloc
    usual = (Path.home() / name for name in (".netrc", "_netrc"))
    named = os.environ.get("NETRC") or next((path for path in usual if path.exists()), None)
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        entry = named and netrc.netrc(Path(named).expanduser()).authenticators(host)
        return bool(entry and entry[2])
    return False


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
    """Start or continue a wandb run without ever asking a question.

    Whatever goes wrong, from a missing login to a server that hangs, leads to an offline run (or
    none, if wandb itself cannot be imported). One line tells what it became, and why.

    Args:
        mode: ``auto`` follows WANDB_MODE and wandb's own settings, and otherwise is online if a
            login is found and offline if not; or ``online``, ``offline``, ``disabled``.
        group: Group of runs.
        name: Name of the run.
        config: What to show as the run's configuration; fits into JSON.
        folder: The run folder, in which all of wandb's files are put.
        project: Project of the runs.
        run_id: Id of the run to continue; a new one is made up if it is None.
        timeout_s: The longest wait for the server at the start, and again at the end; seconds.

    Returns:
        The run.

    Raises:
        UserError: `mode` or WANDB_MODE is unknown.
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
        if not _has_credentials(known):
            why = "not logged in, see `wandb login`"
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
