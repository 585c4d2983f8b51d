"""One report of many runs: ``python -m utils.report FOLDER ...``."""

import signal

if __name__ == "__main__":  # before the imports that take time
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.output import guard_stdout
from utils.report.estimates import SCORES
from utils.report.files import write_report
from utils.report.grid import arrange
from utils.report.paths import read_all
from utils.report.pooling import pool
from utils.report.published.curves import parse_with
from utils.report.report import make_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, write its files, and return the exit code."""
    options = _parse(arguments)
    try:
        records, passed_over = read_all(options.runs)
        for line in passed_over:
            print(f"passed over: {line}", file=sys.stderr)
        labels = options.labels and [label.strip() for label in options.labels.split(",")]
        grid = arrange(pool(records), labels or None)
        curves = parse_with(options.curves) if options.curves else ()
        report = make_report(grid, options.score, curves, passed_over)
        if options.output is None:
            print(report.text(), end="")
        else:
            written = write_report(report, Path(options.output))
            print(report.summary)
            print(f"\nwritten: {', '.join(map(str, written))}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.report",
        description="Report on runs, finished or not: seeds are pooled over folders by equal "
        "settings, and methods are compared by task, by the benchmarks' groups of tasks and over "
        "all tasks. Seeds that are missing, unfinished, crashed or diverged, and whatever is "
        "mixed, are named.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="FOLDER",
        help="a run's folder, one above such folders, a pattern ('exp/cube/*'), a text file with a "
        "folder per line, or a sweep's file of commands",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="write report.md, report.csv (a row per cell), records.csv (a row per evaluation), "
        "report.tex, report.npz, curves.png and, from ten tasks on, profiles.png there, and, of "
        "three values of a setting, sensitivity.png; and print the scores alone (default: print "
        "the whole report)",
    )
    parser.add_argument(
        "--score",
        choices=[name for name in SCORES if name != "offline"],
        default="protocol",
        help="what tables show: the score by the benchmark's protocol (OGBench: mean success of "
        "the last three evaluations; D4RL: last normalized return; offline-to-online: the "
        "evaluations at the end of both phases), the last evaluation, the mean of the last three, "
        "or the best; report.csv has all of them (default: %(default)s)",
    )
    parser.add_argument(
        "--labels",
        metavar="A,B,...",
        help="names of the methods, in the order of the folders (default: the agents' names and "
        "the settings in which they differ)",
    )
    parser.add_argument(
        "--with",
        dest="curves",
        metavar="RELEASE:METHOD,...",
        help="published curves to draw behind the runs' own, and to say where these stand among "
        "their seeds; a wrong name is answered with the known ones",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
