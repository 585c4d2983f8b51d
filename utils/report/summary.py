"""What a run leaves behind at its end: its score and its curves."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.files import write_atomically
from utils.report.csv_log import read_csv
from utils.report.curves import plot_curves
from utils.report.scores import failed_seeds, protocol_score, score_line


def write_score_and_curves(
    folder: str | os.PathLike,
    online_start: int | None,
    protocol: Mapping[str, Any] | None,
    step: int,
) -> str:
    """Write a run's curves.png and, when that is done, score.json.

    Args:
        folder: The run's folder, with its logs and config.json.
        online_start: Step at which the run went online; None for an offline run.
        protocol: How the benchmark scores it, see `utils.report.scores.protocol_score`.
        step: The run's last step.

    Returns:
        The line that says what the score is.

    Raises:
        UserError: A file is malformed or cannot be written.
    """
    folder = Path(folder)
    evaluations = read_csv(folder / "eval.csv")
    failed = failed_seeds(read_csv(folder / "train.csv"), evaluations)
    score = protocol_score(evaluations, protocol, online_start, failed)
    line = score_line(score)
    plot_curves(folder, folder / "curves.png", online_start=online_start)
    text = json.dumps({"line": line, "step": step, **score}, indent=2) + "\n"
    write_atomically(folder / "score.json", text.encode())
    return line
