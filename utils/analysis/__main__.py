"""Programs that work on finished runs and on their data.

  python -m utils.analysis evaluate RUN ...     several policies and budgets, compared by episode
  python -m utils.analysis residuals RUN ...    how far the refinement moves actions, by state
  python -m utils.analysis landscape RUN [RUN]  actions and Q at states of the data, as a picture
  python -m utils.analysis iav TASK ...         how much the data's actions vary at a state

Each explains itself by --help.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import importlib
import sys
from collections.abc import Sequence

from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.errors import UserError
from utils.output import guard_stdout

PROGRAMS = ("evaluate", "residuals", "landscape", "iav")
"""Modules beside this one, each with `main(arguments)`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program that is named first; return the exit code."""
    name, *given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    enable_cpu_backend()
    enable_compilation_cache()
    try:
        if name not in PROGRAMS:
            raise UserError(f"unknown program '{name}'; it is one of {', '.join(PROGRAMS)}")
        return importlib.import_module(f"utils.analysis.{name}").main(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
