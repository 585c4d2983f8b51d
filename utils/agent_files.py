"""An agent by the path of its file."""

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from utils.agent import Agent
from utils.errors import UserError


def published_settings(module: ModuleType, env_name: str) -> dict[str, Any]:
    """Published settings of a task from an agent file's PUBLISHED table.

    Args:
        module: The agent's module; a fork without a table has no published settings.
        env_name: Full name, such as cube-double-play-singletask-task3-v0.

    Returns:
        Settings of the exact name or of its dataset without the task, or nothing.
    """
    table = getattr(module, "PUBLISHED", {})
    family = env_name.split("-singletask")[0]
    return dict(table.get(env_name) or table.get(family) or {})


def load_agent_file(path: str | Path) -> tuple[type[Agent], ModuleType]:
    """Import an agent from any file and return its class and module.

    Args:
        path: A Python file with `get_config()` and exactly one subclass of Agent.

    Raises:
        UserError: The file is missing, fails to import (the message has the line), or lacks one of
            the two.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--agent={path} is not a file; give the path of an agent's Python file")
    spec = importlib.util.spec_from_file_location(f"agent_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--agent={path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == spec.origin]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "unknown")
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Agent) and item.__module__ == module.__name__
    ]
    if len(classes) != 1 or not callable(getattr(module, "get_config", None)):
        raise UserError(
            f"{path} must define get_config() and exactly one subclass of utils.agent.Agent; "
            f"it defines {len(classes)} such classes"
        )
    return classes[0], module
