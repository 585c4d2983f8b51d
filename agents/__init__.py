"""One file per algorithm."""

import os
from pathlib import Path

_PATH = Path(__file__).parent / "deflow.py"

DEFAULT = os.path.relpath(_PATH) if _PATH.is_relative_to(Path.cwd()) else str(_PATH)
"""The agent's file that entry points take if none is given."""
