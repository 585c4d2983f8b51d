"""A sweep's file: the exact command of one run per line, to be edited by hand."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.")
_SUBSTITUTED = re.compile(r"[$`]")
_SPECIAL = re.compile(r"[$`;|&<>(){}*?\[\]]|(?:^|\s)[#~]")
_VARIABLE = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A line of a sweep's file.

    Attributes:
        text: The line. A shell and `parse` split it into the same words.
        where: What messages call it, `sweep.txt, line 3` for instance.
        entry_point: The program's file, `main.py`.
        arguments: What it is given.
    """

    text: str
    where: str
    entry_point: str
    arguments: tuple[str, ...]


def parse(text: str, where: str) -> Command:
    """Parse a line: variables (`MUJOCO_GL=egl`), interpreter, entry point, arguments.

    Raises:
        UserError: A shell would see something else in it than words, or it names no entry point.
    """
    text = text.strip()
    if found := _changed_by_a_shell(text):
        raise UserError(
            f"{where}: a shell would not take {found} as it stands; put its argument "
            "into single quotes"
        )
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{where}: {str(error).lower()}; correct the line") from error
    while words and _VARIABLE.fullmatch(words[0]):
        words.pop(0)
    programs = [i for i, word in enumerate(words) if word.endswith(".py") and word[:1] != "-"]
    if not programs or programs[0] == 0:
        raise UserError(
            f"{where}: no entry point in it; a command looks like python main.py --seed=1"
        )
    first = programs[0]
    return Command(text, where, words[first], tuple(words[first + 1 :]))


def _changed_by_a_shell(text: str) -> str:
    """Return the first character that a shell would change or obey, or an empty string."""
    for quoted in _QUOTED.findall(text):
        if quoted[0] == '"' and (match := _SUBSTITUTED.search(quoted)):
            return match[0]
    match = _SPECIAL.search(_QUOTED.sub("x", text))
    return match[0].strip() if match else ""


def read(path: Path) -> list[Command]:
    """Read a sweep's file; blank lines and those that begin with # are passed over.

    Raises:
        UserError: It cannot be read, a line is no command, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # editors may add a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}; give the file of a sweep") from error
    commands = [
        parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not commands:
        raise UserError(f"{path} has no command; add lines such as python main.py --seed=1")
    return commands


def join(words: Iterable[str]) -> str:
    """Return a line of which a shell makes these words again.

    Raises:
        UserError: A word has a line break in it.
    """
    line = shlex.join(words)
    if len(line.splitlines()) > 1:
        raise UserError("a line break in a value does not fit into a line; give another value")
    return line
