"""Evaluate finished runs by another policy: ``python -m utils.analysis.evaluate RUN ...``.

With the run's own policy, episodes and checkpoint the numbers are those of its eval.csv.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.evaluation import Evaluator
from utils.load_agent import load_agents
from utils.output import guard_stdout
from utils.policies import POLICIES, load_policy
from utils.training import evaluation_keys


def evaluate_run(
    folder: str | Path,
    policy: str = "sample",
    num_episodes: int | None = None,
    num_workers: int | None = None,
    agent_file: str | Path | None = None,
) -> dict[int, dict[str, float]]:
    """Evaluate the agents of a run's last checkpoint.

    Args:
        folder: The run's folder; its agent's file is executed, see `utils.load_agent`.
        policy: Name or path, see `utils.policies`.
        num_episodes: Per seed; by default as many as the run has.
        num_workers: Processes; by default one per core.
        agent_file: The agent's file, if not the one in the folder.

    Returns:
        Means over the episodes by seed and metric, of the seeds that have not failed.

    Raises:
        UserError: It is no run, or has no checkpoint, or the policy does not fit.
    """
    loaded = load_agents(folder, agent_file)
    name = loaded.settings["env_name"]
    rendering.choose_gl()
    with Evaluator(
        functools.partial(tasks.make_env, name, loaded.settings["flags"].get("frame_stack")),
        load_policy(policy),
        num_episodes=num_episodes or loaded.settings["flags"]["eval_episodes"],
        num_members=len(loaded.seeds),
        num_workers=num_workers,
        env_name=tasks.short_name(name),
    ) as evaluator:
        keys = evaluation_keys(loaded.seeds, loaded.step)
        results = evaluator.evaluate(loaded.agents, keys)
    for seed, step in loaded.failed.items():
        print(f"left out: seed {seed} of {folder}, which failed at step {step}")
    return {
        seed: result.mean()
        for seed, result in zip(loaded.seeds.tolist(), results, strict=True)
        if seed not in loaded.failed
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per seed and their means; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.analysis.evaluate", description=evaluate_run.__doc__.split("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="a run's folder")
    parser.add_argument(
        "--eval_policy",
        default="sample",
        help=f"{', '.join(POLICIES)}, or the path of a Python file (default: %(default)s)",
    )
    parser.add_argument("--eval_episodes", type=int, help="per seed (default: as the run has)")
    parser.add_argument("--eval_workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--agent", help="the agent's file (default: the one that the run keeps)")
    options = parser.parse_args(arguments)
    enable_cpu_backend()
    enable_compilation_cache()
    try:
        for folder in options.runs:
            by_seed = evaluate_run(
                folder,
                options.eval_policy,
                options.eval_episodes,
                options.eval_workers,
                options.agent,
            )
            print(f"{folder}, policy {options.eval_policy}")
            for seed, metrics in by_seed.items():
                print(f"  seed {seed}: {_listed(metrics)}")
            names = next(iter(by_seed.values()))
            means = {name: np.mean([row[name] for row in by_seed.values()]) for name in names}
            print(f"  mean of {len(by_seed)}: {_listed(means)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
