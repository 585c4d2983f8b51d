"""Values of flags and settings, as `--vary NAME=V1,V2` lists them."""

from utils.errors import UserError

_BRACKETS = {")": "(", "]": "[", "}": "{"}


def parse_vary(text: str) -> tuple[str, tuple[str, ...]]:
    """Return name and values of `NAME=V1,V2`.

    Raises:
        UserError: It does not look so.
    """
    name, equals, values = text.lstrip("-").partition("=")
    if not equals or not name:
        raise UserError(f"--vary {text} does not look like NAME=VALUE,VALUE")
    return name, tuple(split(values, f"--vary {name}"))


def split(text: str, option: str) -> list[str]:
    """Split at commas outside brackets and quotes, and take off quotes around a whole value.

    Raises:
        UserError: A value is empty, or a bracket or quote is not closed.
    """
    values, opened, start = [], [], 0
    for i, character in enumerate([*text, ","]):
        inside_quotes = opened and opened[-1] in "'\""
        if inside_quotes:
            if character == opened[-1]:
                opened.pop()
        elif character in "'\"([{":
            opened.append(character)
        elif character in _BRACKETS:
            if not opened or opened.pop() != _BRACKETS[character]:
                raise UserError(f"{option}: {text!r} has a {character} too many")
        elif character == "," and not opened:
            values.append(text[start:i].strip())
            start = i + 1
    if opened:
        raise UserError(f"{option}: {text!r} does not close its {opened[-1]}")
    if not all(values):
        remedy = "write '' for an empty text" if option.startswith("--vary") else "give a name"
        raise UserError(f"{option}: an empty value in {text!r}; {remedy}")
    return [_unquoted(value) for value in values]


def _unquoted(value: str) -> str:
    """Return what one pair of quotes around all of a value holds; other values as they are."""
    quote = value[0]
    if quote in "'\"" and value.find(quote, 1) == len(value) - 1:
        return value[1:-1]
    return value
