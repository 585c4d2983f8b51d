"""The one exception that entry points show to the user without a traceback."""


class UserError(Exception):
    """A problem that the user can fix; its message is one sentence or two, with the remedy."""
