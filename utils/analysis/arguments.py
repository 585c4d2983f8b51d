"""What the command lines of this folder's programs have in common."""

import argparse


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
