"""One table and one picture of several runs: ``python -m utils.report RUN_DIR ...``."""

import argparse
import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.output import guard_stdout
from utils.report.curves import plot_curves
from utils.report.folders import read_config
from utils.report.tables import comparison_table, default_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, draw the picture and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.report",
        description="Print one table and draw one picture of several runs. The score is that of "
        "the benchmark's protocol (OGBench: mean success of the last three evaluations; D4RL: last "
        "normalized return; offline-to-online: the evaluations at the end of both phases). The "
        "standard deviation is over seeds; the interval is Wilson's over all scored episodes, so "
        "it does not tell how much another seed would differ.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a run's folder")
    parser.add_argument(
        "--output", default="curves.png", metavar="PNG", help="the picture (default: %(default)s)"
    )
    parser.add_argument(
        "--labels",
        metavar="A,B,...",
        help="names of the runs, separated by commas (default: their agents or folders)",
    )
    options = parser.parse_args(arguments)
    try:
        labels = default_labels(options.runs) if options.labels is None else None
        labels = labels or [label.strip() for label in options.labels.split(",")]
        print(comparison_table(options.runs, labels))
        starts = {read_config(folder).online_start for folder in options.runs}
        plot_curves(
            options.runs,
            options.output,
            labels=labels,
            online_start=starts.pop() if len(starts) == 1 else None,
            training=False,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"curves: {options.output}")
    return 0


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
