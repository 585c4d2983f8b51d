"""What the commands of a sweep would do, asked of their entry points, see `utils.runs.meaning`."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.runs.meaning import RESOLVE, Meaning
from utils.sweep.commands import Command


def resolve(commands: Sequence[Command], check: bool = False) -> list[Meaning]:
    """Return the meaning of each command; none is run, and each entry point started once.

    Args:
        commands: The commands.
        check: Whether to try each agent's file as a run does at its start, which takes seconds.

    Raises:
        UserError: A command is wrong, or two have the same run folder.
    """
    meanings: dict[int, Meaning] = {}
    for entry_point in dict.fromkeys(command.entry_point for command in commands):
        numbers = [i for i, command in enumerate(commands) if command.entry_point == entry_point]
        answers = _ask(entry_point, [commands[i].arguments for i in numbers], check)
        wrong = [
            (i, answer)
            for i, answer in zip(numbers, answers, strict=True)
            if isinstance(answer, str)
        ]
        if wrong:
            i, message = wrong[0]
            others = f" ({len(wrong) - 1} more commands are wrong)" if wrong[1:] else ""
            raise UserError(f"{commands[i].where}: {message}{others}")
        for i, answer in zip(numbers, answers, strict=True):
            meanings[i] = Meaning.from_json(answer)
    found = [meanings[i] for i in range(len(commands))]
    _require_different_folders(commands, found)
    return found


def are_right(commands: Sequence[Command]) -> list[bool]:
    """Return whether nothing is wrong with each of the commands of one entry point, as `resolve`.

    Raises:
        UserError: The entry point does not answer.
    """
    answers = _ask(commands[0].entry_point, [command.arguments for command in commands], check=True)
    return [not isinstance(answer, str) for answer in answers]


def _ask(entry_point: str, arguments: Sequence[Sequence[str]], check: bool) -> list[dict | str]:
    """Return what an entry point says of lists of arguments.

    Raises:
        UserError: It does not answer.
    """
    done = subprocess.run(
        [sys.executable, entry_point, RESOLVE],
        input=json.dumps({"commands": arguments, "check": check}),
        env=os.environ | {"JAX_PLATFORMS": "cpu"},  # nothing is computed; GPUs are left to others
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(
            f"{entry_point} does not say what its commands mean ({reason}); an entry point ends as "
            "main.py does, with launch()"
        ) from error


def _require_different_folders(commands: Sequence[Command], meanings: Sequence[Meaning]) -> None:
    first: dict[str, Command] = {}
    for command, meaning in zip(commands, meanings, strict=True):
        for folder in meaning.run_folders:
            if folder in first:
                raise UserError(
                    f"{command.where} is the same run as {first[folder].where} (in {folder}); "
                    "remove one of them"
                )
            first[folder] = command
