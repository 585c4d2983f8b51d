"""The one exception that entry points show to the user without a traceback."""


class UserError(Exception):
    """A problem that the user can fix; its message is one sentence or two, with the remedy.

    Attributes:
        details: What is shown before the message, a worker process's traceback for instance.
        exit_code: The entry point's.
    """

    def __init__(self, message: str, details: str | None = None, exit_code: int = 1):
        super().__init__(message)
        self.details = details
        self.exit_code = exit_code
