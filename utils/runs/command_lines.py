"""Command lines of an entry point, resolved without running them: what a sweep asks it.

Only the entry point knows its flags, and it takes seconds to start. So it is started once with
`RESOLVE` as its one argument, reads the arguments of all commands and says what they mean.
"""

import copy
import dataclasses
import json
import sys
from pathlib import Path

from absl import flags

from utils.agent_files import AgentFile
from utils.errors import UserError
from utils.runs import grids, settings
from utils.runs.help import asked_for
from utils.runs.meaning import Meaning


def answer(default_agent: str, online: bool) -> None:
    """Read a question from standard input, and print the answer as a last line; both are JSON.

    The question is `{"commands": [[argument, ...], ...], "check": bool}`, the answer a list with
    the fields of a `Meaning`, or a message on what is wrong, for each command. To check is to try
    each agent's file with the settings of the first command that names it, and with those of the
    first that varies the same of its settings.

    Args:
        default_agent: The agent's file if none is given.
        online: Whether the entry point's runs go on online.
    """
    question = json.load(sys.stdin)
    checked: set[tuple[Path, tuple[str, ...]]] = set()
    found = []
    for arguments in question["commands"]:
        try:
            agent_file, grid = _resolve(arguments, default_agent, online)
            meaning = _meaning(agent_file, grid)
            subject = agent_file.path, tuple(grid.settings.varied)
            if question["check"] and subject not in checked:
                grid.check_program(agent_file)
                meaning = dataclasses.replace(meaning, idle=_idle(agent_file, grid.settings))
                checked.add(subject)
            found.append(dataclasses.asdict(meaning))
        except UserError as error:
            found.append(str(error))
    print("\n" + json.dumps(found))


def _resolve(
    arguments: list[str], default_agent: str, online: bool
) -> tuple[AgentFile, grids.Grid]:
    """Return the agent and the grid of a command, which may have one point.

    Raises:
        UserError: Something is wrong with it.
    """
    if asked_for(arguments):
        raise UserError("a command that asks for help trains nothing; remove it")
    flag_values = copy.deepcopy(flags.FLAGS)  # as the entry point has defined them
    agent_file = settings.parse([sys.argv[0], *arguments], default_agent, flag_values)
    grid = grids.resolve(agent_file, online, flag_values)
    grid.check_values(agent_file)
    return agent_file, grid


def _meaning(agent_file: AgentFile, grid: grids.Grid) -> Meaning:
    resolved = grid.settings
    values = resolved.flags
    restored = resolved.online and values["restore_path"]
    offline_steps = 0 if restored else values["offline_steps"]
    online_steps = values["online_steps"] if resolved.online else 0
    return Meaning(
        task=resolved.env_name,
        agent=Path(agent_file.path).stem,
        folder=str(grid.folder),
        num_seeds=values["num_seeds"],
        offline_steps=offline_steps,
        online_steps=online_steps,
        updates=offline_steps + online_steps * values.get("utd", 1),
        points=tuple(str(point.folder) for point in grid.points) if resolved.varied else (),
    )


def _idle(agent_file: AgentFile, resolved: settings.Settings) -> tuple[str, ...]:
    """Try an agent's file; return the settings that were given and that nothing reads."""
    unread = agent_file.check(resolved.agent, online=resolved.online)
    return tuple(key for key in unread if resolved.origins[f"agent.{key}"] == "flag")
