"""What `--help` prints: every flag and setting on its line, and the groups of tasks."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from utils.agent_comments import setting_meanings
from utils.agent_files import AgentFile
from utils.envs import tasks

_ASKING = frozenset({"--help", "-help", "-h", "--helpshort", "-helpshort"})


def asked_for(argv: Sequence[str]) -> bool:
    """Return whether a command line asks for help."""
    return not _ASKING.isdisjoint(argv)


def help_text(description: str, names: Iterable[str], agent_file: AgentFile) -> str:
    """Return the help of an entry point.

    Args:
        description: What it does.
        names: Its flags.
        agent_file: The agent, whose settings are flags too.
    """
    meanings = setting_meanings(agent_file.module, agent_file.agent_class)
    table = {
        "Flags, with their defaults:": [
            _row("agent", agent_file.path, "The agent: path of a Python file."),
            *(_flag_row(flags.FLAGS[name]) for name in names),
        ],
        f"Settings of {agent_file.path}, with their defaults:": [
            _row(f"agent.{key}", value, meanings.get(key, ""))
            for key, value in agent_file.config.items()
        ],
    }
    width = max(len(left) for rows in table.values() for left, _ in rows if len(left) < 40)
    parts = [description.strip()]
    for title, rows in table.items():
        parts.append("\n".join([title, *(_line(left, right, width) for left, right in rows)]))
    parts.append("\n".join(["Tasks that --env_name takes, by group:", *_groups()]))
    return "\n\n".join(parts)


def _row(name: str, default: Any, meaning: str) -> tuple[str, str]:
    return f"--{name}" if default is None else f"--{name}={default}", meaning


def _flag_row(flag: flags.Flag) -> tuple[str, str]:
    return _row(flag.name, flag.default, flag.help)


def _line(left: str, right: str, width: int) -> str:
    """Return a row, its meaning wrapped behind the first column."""
    indent = " " * (width + 4)
    room = max(_columns() - len(indent), 30)
    lines = textwrap.wrap(right, room, break_on_hyphens=False)  # names stay in one piece
    if len(left) > width and lines:
        return "\n".join([f"  {left}", *(indent + line for line in lines)])
    return "\n".join(
        [
            f"  {left:<{width}}  {lines[0] if lines else ''}".rstrip(),
            *(indent + line for line in lines[1:]),
        ]
    )


def _groups() -> list[str]:
    """Return a paragraph per group; one for all those that are called as their tasks."""
    groups = tasks.groups()
    datasets = [group for group, names in groups.items() if names[0].startswith(group)]
    texts = [f"NAME or, for one of its tasks, NAME-task1 and so on: {', '.join(datasets)}"]
    for group, names in groups.items():
        if group not in datasets:
            whole = [dataset for dataset in datasets if set(groups[dataset]) <= set(names)]
            listed = whole or map(tasks.short_name, names)
            texts.append(f"{group}: {'all tasks of ' if whole else ''}{', '.join(listed)}")
    return [
        textwrap.fill(
            text, _columns(), initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
        for text in texts
    ]


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
