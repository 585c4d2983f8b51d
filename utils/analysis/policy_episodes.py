"""Episodes of finished runs by several policies, each with the same resets and noise."""

import functools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from utils.analysis.entries import Entry
from utils.analysis.policy_results import rows_of
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.evaluation import Evaluator
from utils.load_agent import LoadedAgents, load_agents
from utils.policies import Policy
from utils.report.csv_log import CsvLog, Row, read_csv
from utils.training import evaluation_keys

_TIMED_CALLS = 30


def evaluate_run(
    folder: str | Path,
    entries: Sequence[Entry],
    log: Path,
    num_episodes: int | None = None,
    num_workers: int | None = None,
    agent_file: str | Path | None = None,
) -> list[Row]:
    """Evaluate the agents of a run's last checkpoint.

    Args:
        folder: The run's folder; its agent's file is executed, see `utils.load_agent`.
        entries: The policies.
        log: CSV file to which each policy's episodes are added as soon as it has played. What it
            holds already of the same checkpoint, policy and number of episodes is not played again,
            unless a file of the user's defines the policy or the agent; the last rows count then.
        num_episodes: Per seed; by default as many as the run has.
        num_workers: Processes; by default one per core.
        agent_file: The agent's file, if not the one in the folder.

    Returns:
        The rows of these policies, one per seed that has not failed and episode.

    Raises:
        UserError: It is no run, or has no checkpoint, or a policy does not fit.
    """
    loaded = load_agents(folder, agent_file)
    run, count = str(Path(folder)), num_episodes or loaded.settings["flags"]["eval_episodes"]
    for seed, step in loaded.failed.items():
        print(f"left out: seed {seed} of {folder}, which failed at step {step}")
    _require_fitting(run, loaded, entries)
    before = [] if agent_file else read_csv(log)
    kept = {entry: rows_of(before, run, loaded.step, entry, count) for entry in entries}
    # A kill may have torn the rows of the last policy.
    missing = [one for one in entries if one.is_file or not kept[one] or len(kept[one]) % count]
    if missing:
        kept |= _play(run, loaded, missing, log, count, num_workers)
    return [row for entry in entries for row in kept[entry]]


def _play(
    run: str,
    loaded: LoadedAgents,
    entries: Sequence[Entry],
    log: Path,
    count: int,
    num_workers: int | None,
) -> dict[Entry, list[Row]]:
    """Play the episodes of policies, and add their rows to a CSV file; return them."""
    name, played = loaded.settings["env_name"], {}
    writer, keys = CsvLog(log), evaluation_keys(loaded.seeds, loaded.step)
    rendering.choose_gl()
    with Evaluator(
        functools.partial(tasks.make_env, name, loaded.settings["flags"].get("frame_stack")),
        entries[0].policy,
        num_episodes=count,
        num_members=len(loaded.seeds),
        num_workers=num_workers,
        env_name=tasks.short_name(name),
    ) as evaluator:
        for entry in entries:
            stats = evaluator.evaluate(loaded.agents, keys, policy=entry.policy)
            shared = {
                "step": loaded.step,
                "run": run,
                "policy": entry.name,
                "unit": entry.unit,
                "budget": entry.budget,
                "episodes": count,
                "milliseconds": milliseconds_per_action(entry.policy, *_example(loaded)),
            }
            rows: list[Row] = []
            for seed, member in zip(loaded.seeds.tolist(), stats, strict=True):
                if member.diverged:
                    print(f"left out: seed {seed} of {run} by {entry}: its actions are not finite")
                elif seed not in loaded.failed:
                    rows += [shared | {"seed": seed} | row for row in member.rows()]
            writer.extend(rows)
            played[entry] = rows
            print(f"played: {run} by {entry}", flush=True)
    return played


def _example(loaded: LoadedAgents) -> tuple[Any, jax.Array]:
    """Return the agent of the first seed, and an observation of zeros."""
    shape, dtype = loaded.settings["example"]["observations"]
    return jax.tree.map(lambda leaf: leaf[0], loaded.agents), jnp.zeros(shape[1:], dtype)


def _require_fitting(run: str, loaded: LoadedAgents, entries: Sequence[Entry]) -> None:
    """Raise UserError for a policy that needs what the agent lacks."""
    key = jax.random.key(0)
    for entry in entries:
        try:
            jax.eval_shape(entry.policy, *_example(loaded), key)
        except UserError as error:
            raise UserError(f"{run} cannot be evaluated by {entry.name}: {error}") from error


def milliseconds_per_action(policy: Policy, agent: Any, observation: jax.Array) -> float:
    """Return how long a policy takes for one action at one state, on the CPU.

    It is the median of 30 calls of the compiled policy.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    agent, observation, key = jax.device_put((agent, observation, jax.random.key(0)), cpu)
    act = jax.jit(policy)
    act(agent, observation, key).block_until_ready()
    times = []
    for _ in range(_TIMED_CALLS):
        start = time.perf_counter()
        act(agent, observation, key).block_until_ready()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)
