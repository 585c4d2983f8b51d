"""An agent by the path of its file: loaded, and checked before anything costs time."""

import ast
import dataclasses
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from utils.agent import Agent
from utils.agent_check import check_agent, check_policy
from utils.agent_settings import check_settings
from utils.errors import UserError
from utils.fql_style import is_fql_style, load_fql_style
from utils.policies import Policy
from utils.python_files import load_python_file, local_sources, users_code


@dataclasses.dataclass(frozen=True)
class AgentFile:
    """An agent as its file defines it.

    Attributes:
        path: The file.
        agent_class: The one subclass of Agent in it.
        config: What its `get_config()` returns.
        published: Published settings by task, from its table PUBLISHED.
        published_online: The same for fine-tuning, from PUBLISHED_ONLINE; rows there add to those
            of PUBLISHED.
        module: The file, as it was executed.
    """

    path: Path
    agent_class: type[Agent]
    config: ml_collections.ConfigDict
    published: dict[str, dict[str, Any]]
    published_online: dict[str, dict[str, Any]]
    module: ModuleType

    @property
    def sources(self) -> dict[str, bytes]:
        """Source of the file and of local files that it imports, by relative path.

        What its functions import is among them after `check`.
        """
        return local_sources(self.module)

    def published_settings(self, env_name: str, online: bool = False) -> dict[str, Any]:
        """Return the published settings of a task, of its own row or of its dataset's.

        Args:
            env_name: Full name, such as cube-double-play-singletask-task3-v0.
            online: Whether it is for fine-tuning.
        """
        family = env_name.split("-singletask")[0]
        settings = {}
        for table in (self.published, self.published_online) if online else (self.published,):
            settings |= table.get(env_name) or table.get(family) or {}
        return settings

    def check(
        self,
        config: ml_collections.ConfigDict,
        policy: Policy | None = None,
        online: bool = False,
    ) -> list[str]:
        """Check settings, and what the file computes with them, by one abstract update.

        Args:
            config: The settings.
            policy: A policy of evaluation to be checked with the agent, if it has another than
                its own.
            online: Whether the agent goes on online.

        Returns:
            Names of the settings that nothing reads, neither creating nor updating nor acting.

        Raises:
            UserError: Something is wrong; one line names it.
        """
        check_settings(config, self.config)
        self.agent_class.check_config(config)
        with users_code(self.module):
            reads = check_agent(self.agent_class, config, self.config, online)
            if policy is not None:
                reads |= check_policy(self.agent_class, config, policy)
        return [key for key in config if key not in reads]


def load_agent_file(path: str | Path) -> AgentFile:
    """Load an agent from any Python file.

    Args:
        path: A file with `get_config()` and exactly one subclass of Agent, or one of another
            repository in FQL's style.

    Raises:
        UserError: The file is missing, fails to import (the message has the line), or lacks one of
            the two, or `get_config()` fails or returns no settings.
    """
    path = Path(path).expanduser()
    module, agent_class = _load(path)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"{path} must define get_config(), which returns all of its settings")
    with users_code(module):
        config = module.get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"get_config() in {path} returns {type(config).__name__}; let it return an "
            "ml_collections.ConfigDict of all settings"
        )
    return AgentFile(
        path=path,
        agent_class=agent_class,
        config=config,
        published=parse_table(getattr(module, "PUBLISHED", ""), f"PUBLISHED in {path}"),
        published_online=parse_table(
            getattr(module, "PUBLISHED_ONLINE", ""), f"PUBLISHED_ONLINE in {path}"
        ),
        module=module,
    )


def _load(path: Path) -> tuple[ModuleType, type[Agent]]:
    """Execute a file, and return it with the agent in it; see `load_agent_file`."""
    if is_fql_style(path.resolve()):
        return load_fql_style(path.resolve())
    module = load_python_file(path, "--agent")
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Agent) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(
            f"{path} must define exactly one subclass of utils.agent.Agent; it defines "
            f"{len(classes)}"
        )
    return module, classes[0]


def parse_table(text: str, where: str) -> dict[str, dict[str, Any]]:
    """Read a table of settings by task.

    Args:
        text: A line of column names, the first of which is `task`, and a line per task. Cells are
            separated by blanks; they are numbers, True, False, words, or `-` for no value.
        where: What messages call the table.

    Returns:
        Settings by task.

    Raises:
        UserError: A line has another number of cells than the first.
    """
    lines = [line.split() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return {}
    header, *rows = lines
    for row in rows:
        if len(row) != len(header):
            raise UserError(f"{where}: the row {' '.join(row)!r} has not {len(header)} cells")
    return {
        row[0]: {
            key: _value(cell) for key, cell in zip(header[1:], row[1:], strict=True) if cell != "-"
        }
        for row in rows
    }


def _value(cell: str) -> Any:
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell
