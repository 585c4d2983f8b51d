"""Evaluate finished runs by several policies and budgets.

With the run's own policy, episodes and checkpoint the numbers are those of its eval.csv. All
policies play the same episodes: differences are paired.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.analysis.arguments import numbers, positive
from utils.analysis.entries import UNITS, Entry, parse_entries
from utils.analysis.policy_episodes import evaluate_run
from utils.analysis.policy_picture import draw_policies
from utils.analysis.policy_results import READING, group_of, result_rows, results, tables
from utils.errors import UserError
from utils.files import output_folder, write_atomically
from utils.policies import POLICIES
from utils.report.csv_log import Row
from utils.report.rows import to_csv

EPISODES = "episodes.csv"


def write_results(rows: Sequence[Row], entries: Sequence[Entry], folder: Path) -> str:
    """Write tables and a picture of episodes into a folder; return the tables.

    Args:
        rows: See `evaluate_run`.
        entries: The policies, the first of which others are compared with.
        folder: Gets policies.md, policies.csv and policies.png.

    Raises:
        UserError: A file cannot be written.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(str(row["run"])), []).append(row)
    found = {name: results(own, entries) for name, own in groups.items()}
    text = "\n\n".join([*(tables(name, own) for name, own in found.items()), READING]) + "\n"
    table = [row for name, own in found.items() for row in result_rows(name, own)]
    write_atomically(folder / "policies.md", text.encode())
    write_atomically(folder / "policies.csv", to_csv(table))
    draw_policies(found, folder / "policies.png")
    return text


def main(arguments: Sequence[str]) -> int:
    """Play, print and write what the arguments say; return the exit code.

    Raises:
        UserError: Something that the user can remedy.
    """
    options = _parse(arguments)
    budgets = {unit: getattr(options, unit) or () for unit in UNITS}
    entries = parse_entries(options.eval_policy, budgets)
    output = output_folder(options.output)
    rows = [
        row
        for folder in dict.fromkeys(options.runs)
        for row in evaluate_run(
            folder,
            entries,
            output / EPISODES,
            options.eval_episodes,
            options.eval_workers,
            options.agent,
        )
    ]
    if not rows:
        raise UserError("all seeds have failed, so there is nothing to compare; give other runs")
    print(f"\n{write_results(rows, entries, output)}")
    names = (EPISODES, "policies.md", "policies.csv", "policies.png")
    print(f"written: {', '.join(str(output / name) for name in names)}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.analysis evaluate",
        description="Evaluate the agents of finished runs by several policies and budgets, all on "
        "the same resets and base noise. The first policy is what the others are compared with. "
        "The same command again goes on where it was stopped.",
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run's folder")
    add(
        "--eval_policy",
        default="sample",
        metavar="A,B,...",
        help=f"{', '.join(POLICIES)}, each with or without settings as in best_of_n:q=min, see "
        "utils/policies.py; or paths of Python files (default: %(default)s)",
    )
    add("--samples", type=numbers, metavar="N,...", help="budgets of best_of_n")
    add("--steps", type=numbers, metavar="N,...", help="budgets of policies with further steps")
    add("--eval_episodes", type=positive, help="per seed (default: as the run has)")
    add("--eval_workers", type=positive, help="processes (default: one per core)")
    add("--agent", metavar="FILE", help="the agent's file (default: the one that the run keeps)")
    add(
        "--output",
        default="policies",
        metavar="FOLDER",
        help=f"gets {EPISODES} (a row per episode, added to), policies.md, policies.csv and "
        "policies.png (default: %(default)s)",
    )
    return parser.parse_args(arguments)
