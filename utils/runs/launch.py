"""From the command line to a run: an entry point's last line."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, logging

from utils.agent_files import AgentFile
from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend, set_matmul_precision
from utils.errors import UserError
from utils.output import guard_stdout
from utils.policies import load_policy
from utils.runs import command_lines, grids, settings
from utils.runs.debug import debug
from utils.runs.dry_run import dry_run
from utils.runs.logs import say
from utils.runs.meaning import RESOLVE
from utils.runs.run import Run
from utils.runs.signals import SEED_FAILED, end_at_once


def launch(main: Callable[[Run], int], default_agent: str, online: bool = False) -> None:
    """Parse flags and do a run; a UserError becomes one line and an exit code.

    The entry point's file is kept in the run's folder too: a copy with another schedule may have
    the same flags, and must not go on with a run of the original.

    Args:
        main: The life of the run; returns the exit code.
        default_agent: The agent's file if none is given.
        online: Whether the run goes on online.
    """

    def execute(agent_file: AgentFile) -> int:
        enable_cpu_backend()
        enable_compilation_cache()
        grid = grids.resolve(agent_file, online)
        resolved = grid.settings
        set_matmul_precision(resolved.flags["matmul_precision"])
        policy = resolved.flags["eval_policy"]
        unread = agent_file.check(
            resolved.agent, None if policy == "sample" else load_policy(policy), online
        )
        grid.check_values(agent_file)
        grid.check_program(agent_file)
        if idle := [key for key in unread if resolved.origins[f"agent.{key}"] == "flag"]:
            listed = ", ".join(f"--agent.{key}={resolved.agent[key]}" for key in idle)
            say(f"warning: nothing reads {listed} here, with the other settings as they are")
        if resolved.flags["dry_run"]:
            return dry_run(grid, agent_file)
        run = Run(grid, agent_file, Path(inspect.getfile(main)))
        run.signals.final = True
        return execute_run(main, run)

    end_at_once()
    guard_stdout()
    logging.set_verbosity(logging.WARNING)
    if sys.argv[1:] == [RESOLVE]:
        command_lines.answer(default_agent, online)
        return
    # What the parser returns is what absl calls its main function with.
    app.run(
        lambda agent_file: _guarded(execute, agent_file),
        flags_parser=lambda argv: _guarded(settings.parse, argv, default_agent),
    )


def execute_run(main: Callable[[Run], int], run: Run) -> int:
    """Do what is left of a run.

    Returns:
        0 at the end, `SEED_FAILED` if seeds have failed on the way, or the exit code of the signal
        that stopped the run.

    Raises:
        UserError: Something that the user can remedy.
    """
    if run.settings.flags["debug"]:
        return debug(main, run)
    with run:
        run.folders.require_same_sources(run.sources)
        if scores := run.folders.finished():
            for score, point in zip(scores, run.grid.points, strict=True):
                print(f"finished already: {score['line']}\n{point.folder}")
            print("--overwrite starts over")
            return SEED_FAILED if any("failed" in score for score in scores) else 0
        run.folders.require_own()
        return main(run)


def _guarded(function: Callable, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except UserError as error:
        if error.details:
            print(error.details, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
