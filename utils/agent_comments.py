"""What an agent's settings mean, as the comments in its `get_config()` say."""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from utils.agent import Agent


def setting_meanings(module: ModuleType, agent_class: type[Agent]) -> dict[str, str]:
    """Return the comment behind each setting in `get_config()`.

    Args:
        module: The agent's file. What it does not say is looked for in the files of the classes
            that the agent is a subclass of.
        agent_class: The agent.

    Returns:
        By name; a setting without a comment is left out.
    """
    files = [module, *(sys.modules.get(base.__module__) for base in agent_class.__mro__)]
    found: dict[str, str] = {}
    for file in dict.fromkeys(files):
        if callable(getattr(file, "get_config", None)):
            found = comments_by_setting(Path(file.__file__).read_text()) | found
    return found


def comments_by_setting(source: str) -> dict[str, str]:
    """Return the comment behind each setting in the `get_config()` of a file's text."""
    functions = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "get_config"
    ]
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for function in functions:
        for name, first, last in _places(function):
            behind = [comments[line] for line in range(first, last + 1) if line in comments]
            if behind:
                found[name] = behind[-1]
    return found


def _places(function: ast.FunctionDef) -> Iterator[tuple[str, int, int]]:
    """Yield each setting's name, and the first and the last line of where it is set."""
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value), key.lineno, value.end_lineno
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.lineno, node.value.end_lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    yield target.attr, node.lineno, node.end_lineno
                elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                    yield str(target.slice.value), node.lineno, node.end_lineno
