"""What the command lines of this folder's programs have in common."""

import argparse
from pathlib import Path

from utils.errors import UserError
from utils.files import cannot_write


def numbers(text: str) -> list[int]:
    """Return whole numbers from text with commas between them."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text} are not whole numbers separated by commas")
    return [int(part) for part in parts]


def positive(text: str) -> int:
    """Return a whole number above 0 from text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def folder_for(output: str) -> Path:
    """Return a folder for results, made if need be.

    Raises:
        UserError: It is a run's folder, or cannot be made.
    """
    folder = Path(output)
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is a run's folder; give another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder
