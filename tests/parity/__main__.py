"""`python -m tests.parity`: compares D4RL's tasks with the original and prints a Markdown table.

`python -m tests.parity fql_style PATH ...` compares agents of other repositories instead, see
`tests.parity.fql_style`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.parity import fql_style, original
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

SIGNIFICANCE = 0.001
"""Probability that equal distributions of resets are called different, over all tests together."""


def run():
    """Install the original where it is missing, compare, and return what was found.

    Raises:
        original.UnreachableError: The package index cannot be reached.
    """
    result = subprocess.run(
        [sys.executable, "-m", "tests.parity.compare", str(original.install())],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return json.loads(result.stdout)


def reset_bound(results):
    """Return the p-value below which one test of the resets says that they differ."""
    return SIGNIFICANCE / sum(task["resets"]["tests"] for task in results["tasks"].values())


def table(results):
    """Return the lines of the Markdown table."""
    columns = (
        "task",
        "steps",
        "set states",
        r"max \|Δobs\|",
        r"max \|Δreward\|",
        "done",
        "success",
        "reward branches",
        r"max \|Δmodel\|",
        "smallest p of resets",
    )
    lines = [
        "| " + " | ".join(columns) + " |",
        "|---" + "|---:" * 4 + "|---" * 2 + "|---:" * 3 + "|",
    ]
    for name, task in results["tasks"].items():
        hit, total = task["branches"]
        cells = (
            name,
            str(task["steps"]),
            str(task["states"]),
            f"{task['observation']:.1g}",
            f"{task['reward']:.1g}",
            "equal" if task["done_equal"] else "differs",
            "equal" if task["success_equal"] else "differs",
            f"{hit} of {total}",
            f"{task['model']['difference']:.1g}",
            f"{task['resets']['p']:.2g} of {task['resets']['tests']}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main():
    """Print the table."""
    results = run()
    print("\n".join(table(results)))
    print(
        f"\nThe original is d4rl 1.1's own code over mujoco {results['mujoco']}. Resets differ if "
        f"a p-value is below {reset_bound(results):.1g}."
    )


if __name__ == "__main__":
    try:
        sys.exit(fql_style.main(sys.argv[2:]) if sys.argv[1:2] == ["fql_style"] else main())
    except (UserError, original.UnreachableError) as error:
        sys.exit(f"error: {error}")
