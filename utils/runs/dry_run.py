"""What a run would need and take, found out without beginning it."""

import inspect
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from utils.agent_files import AgentFile
from utils.devices import describe_devices
from utils.envs import tasks
from utils.files import npz_bytes
from utils.flops import matmul_flops
from utils.runs.collecting import is_needed
from utils.runs.grids import Grid
from utils.runs.memory import describe_training, where_data_are
from utils.runs.settings import Settings
from utils.runs.setup import (
    TrainingData,
    make_trainer,
    prepare_data,
    require_environment,
)
from utils.training import Trainer, TrainingState, create_agents

_MEASURED_SECONDS = 1.0
_STAND_IN_ROWS = 2_000


def dry_run(grid: Grid, agent_file: AgentFile) -> int:
    """Print what a run would need and take; return the exit code.

    Nothing is written and nothing downloaded. Where files of the data are missing, random numbers
    in the shapes of the task's environment stand in for them.

    Raises:
        UserError: The run itself would be refused for it.
    """
    print(f"{grid.table()}\ndevices: {describe_devices()}\ndry run: nothing is written")
    for name, text in _findings(grid, agent_file):
        print(f"  {name:<10}  {text}", flush=True)
    return 0


def _findings(grid: Grid, agent_file: AgentFile) -> Iterator[tuple[str, str]]:
    """Yield what is found, by name, each as soon as it is known."""
    settings, flags = grid.settings, grid.settings.flags
    exists = grid.folder.exists()
    yield "folder", f"{grid.folder} ({'there: a run goes on in it' if exists else 'new'})"
    if flags["eval_interval"] or settings.online:
        require_environment(settings)
    files = tasks.dataset_files(settings.env_name, flags["dataset_dir"])
    for path in files:
        yield "data", f"{path} ({_found(path)})"
    complete = all(map(os.path.isfile, files))
    if flags["collect_missing"] and is_needed(settings.env_name, flags["dataset_dir"]):
        _, duration = tasks.collection_command(settings.env_name, flags["dataset_dir"])
        yield "", f"collecting them takes {duration}"
    train, val = (
        tasks.load_datasets(settings.env_name, flags["dataset_dir"])
        if complete
        else 2 * (_stand_in(settings.env_name),)
    )
    data = prepare_data(settings, agent_file.agent_class, train, val)
    seeds = grid.seeds
    trainer = make_trainer(settings, data, None, len(seeds))
    if complete:
        where = where_data_are(trainer.source)
        yield "", f"{len(train['actions']):,} transitions to train on, {where}"
    agents = create_agents(agent_file.agent_class, seeds, data.example, settings.agent, grid.varied)
    yield "parameters", _parameters(agents, len(seeds))
    yield "GFLOP", f"{_gflop(agents, data):.3g} per update and seed, in matrix products"
    state = TrainingState.create(agents, seeds, data.example)
    state = trainer.compile(state)
    yield "memory", _memory(trainer.memory(state), complete, settings.online)
    speed = _updates_per_second(trainer, state)
    yield "speed", f"{speed:.3g} updates/s, all seeds together, measured here"
    yield "hours", _hours(settings, speed)


def _found(path: Path) -> str:
    if not os.path.isfile(path):
        return "missing"
    size, unpacked = path.stat().st_size, npz_bytes(path)
    more = f", {unpacked / 2**20:,.0f} MiB unpacked" if unpacked > size else ""
    return f"found, {size / 2**20:,.0f} MiB{more}"


def _stand_in(env_name: str) -> dict[str, np.ndarray]:
    """Return random transitions in the shapes of a task's environment."""
    env = tasks.make_env(env_name)
    spaces = env.observation_space, env.action_space
    env.close()
    rows, generator = _STAND_IN_ROWS, np.random.default_rng(0)
    if spaces[0].dtype == np.uint8:
        observations = generator.integers(0, 256, (rows, *spaces[0].shape), np.uint8)
    else:
        observations = generator.normal(size=(rows, *spaces[0].shape)).astype(np.float32)
    return {
        "observations": observations,
        "actions": generator.uniform(-1, 1, (rows, *spaces[1].shape)).astype(np.float32),
        "next_observations": np.roll(observations, -1, axis=0),
        "rewards": generator.uniform(size=rows).astype(np.float32),
        "masks": np.ones(rows, np.float32),
        "terminals": (np.arange(rows) == rows - 1).astype(np.float32),
    }


def _parameters(agents: object, num_seeds: int) -> str:
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(params)) // num_seeds
        for name, params in agents.network.params.items()
    }
    listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return f"{sum(sizes.values()):,} per seed ({listed})"


def _gflop(agents: object, data: TrainingData) -> float:
    agent = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), agents)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return matmul_flops(inspect.unwrap(type(agents).update), agent, data.example, key) / 1e9


def _memory(needed: int, complete: bool, online: bool) -> str:
    without = [] if complete else ["the data, which are missing"]
    without += ["the replay"] if online else []
    return describe_training(needed) + (f", without {' and '.join(without)}" if without else "")


def _updates_per_second(trainer: Trainer, state: TrainingState) -> float:
    updates, seconds = trainer.chunk, 0.0
    state = trainer.update(state, updates)  # which compiles what `compile` has left
    while seconds < _MEASURED_SECONDS:
        started = time.perf_counter()
        state = trainer.update(state, updates)
        seconds = time.perf_counter() - started
        updates, measured = 2 * updates, updates
    return measured / seconds


def _hours(settings: Settings, speed: float) -> str:
    flags = settings.flags
    updates, besides = flags["offline_steps"], "evaluations"
    if settings.online:
        updates = 0 if flags["restore_path"] else updates
        updates, besides = updates + flags["online_steps"] * flags["utd"], "environments"
    return f"{updates / speed / 3600:.3g} for {updates:,} updates, without what {besides} take"
