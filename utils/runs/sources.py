"""The user's files that a run depends on, as they are kept in its folder."""

import ast
import contextlib
from pathlib import Path

from utils.agent_files import AgentFile
from utils.python_files import load_python_file, local_sources
from utils.runs.settings import Settings


def collect_sources(
    settings: Settings, agent_file: AgentFile, entry_point: Path | None = None
) -> dict[str, bytes]:
    """Return the contents of all files that the user named by path, and of what they import.

    Args:
        settings: The run's settings.
        agent_file: The agent, checked: what its functions import is known by then.
        entry_point: The file with the loop. A copy with another loop may have the same flags.

    Returns:
        Contents by path; the first part of it says what the file is.
    """
    named = {
        "env_name": settings.env_name,
        "sampling": settings.flags["sampling"],
        "eval_policy": settings.flags["eval_policy"],
        "encoder": settings.agent.get("encoder") or "",
    }
    found = {"agent": agent_file.sources}
    for what, path in named.items():
        if path.endswith(".py"):
            found[what] = local_sources(load_python_file(path, f"--{what}"))
    if entry_point is not None:
        found["entry_point"] = {"main.py": entry_point.read_bytes()}
    return {
        f"{what}/{name}": content
        for what, sources in found.items()
        for name, content in sources.items()
    }


def same_source(first: bytes | None, second: bytes | None) -> bool:
    """Whether two Python files do the same; comments and layout do not count."""
    if first is None or second is None or first == second:
        return first == second
    with contextlib.suppress(SyntaxError, ValueError):
        return ast.dump(ast.parse(first)) == ast.dump(ast.parse(second))
    return False
