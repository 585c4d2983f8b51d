"""The agent of a run's folder, for notebooks and for programs that work on finished runs."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from utils.agent import Agent
from utils.agent_files import load_agent_file
from utils.checkpoints import Checkpoints
from utils.errors import UserError
from utils.files import SOURCES
from utils.training import create_agents


@dataclasses.dataclass(frozen=True)
class LoadedAgents:
    """The agents of a run.

    Attributes:
        agents: Agents with the axis of seeds first in every array.
        seeds: The training seeds, (seeds,).
        step: Step of the checkpoint that they come from.
        settings: What the run's config.json holds.
        failed: By seed that has failed, the step at which it did. Its agent is an earlier one.
    """

    agents: Agent
    seeds: np.ndarray
    step: int
    settings: dict[str, Any]
    failed: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the agents of a run are.

    Attributes:
        folder: The folder whose checkpoints they are in: the run's or, of a grid point, the grid's.
        members: Agents in these.
        seeds: Of them the run's.
        point: Number of the grid point; its agents stand behind those of the points before it.
    """

    folder: Path
    members: int
    seeds: int
    point: int = 0

    @classmethod
    def of(cls, folder: Path, settings: dict[str, Any], seeds: int) -> Self:
        """Return the place for a run's folder, what its config.json holds, and its seeds' number.

        Raises:
            UserError: What it says of its grid is damaged.
        """
        grid = settings.get("grid")
        if grid is None:
            return cls(folder, seeds, seeds)
        try:
            points, point = int(grid["points"]), int(grid["point"])
            return cls(folder / grid["folder"], points * seeds, seeds, point)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / 'config.json'} is damaged (its grid is {grid!r}); run the same command "
                "again to make it anew"
            ) from error

    def restore(self, like: Agent, remedy: str) -> tuple[Agent, dict[str, Any]] | None:
        """Return the run's agents of the last checkpoint, and the host's side of it.

        Args:
            like: Agents of the same structure, with at least one member.
            remedy: What the user can do if they do not fit.

        Returns:
            Both, None where there is no checkpoint.

        Raises:
            UserError: The checkpoint does not fit, or cannot be read.
        """
        template = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], self.members, axis=0), like)
        with contextlib.closing(Checkpoints(self.folder, read_only=True)) as checkpoints:
            restored = checkpoints.restore(template, part="agents", remedy=remedy)
        if restored is None:
            return None
        agents, host = restored
        own = slice(self.point * self.seeds, (self.point + 1) * self.seeds)
        return jax.tree.map(lambda leaf: leaf[own], agents), host


def load_agent(
    run_folder: str | Path, seed: int | None = None, agent_file: str | Path | None = None
) -> Agent:
    """Load an agent as it was at the last checkpoint of a run.

    This executes the agent's file that the run keeps in its folder: load runs of people whom you
    trust, or give a file of your own.

    Args:
        run_folder: The folder.
        seed: Which of its training seeds; by default the first that has not failed. One that has
            is as it was at its last good checkpoint.
        agent_file: The agent's file, if not the one in the folder.

    Returns:
        The agent, without an axis of seeds. Its methods can be jitted:
        `jax.jit(agent.sample_actions)(observations, key)`.

    Raises:
        UserError: It is no run's folder, has no such seed, or no checkpoint that fits the file.
    """
    loaded = load_agents(run_folder, agent_file)
    seeds = loaded.seeds.tolist()
    if seed is None:
        seed = next((seed for seed in seeds if seed not in loaded.failed), seeds[0])
    if seed not in seeds:
        raise UserError(
            f"{seed} is not a seed of the run in {run_folder}; it has {', '.join(map(str, seeds))}"
        )
    return jax.tree.map(lambda leaf: leaf[seeds.index(seed)], loaded.agents)


def load_agents(run_folder: str | Path, agent_file: str | Path | None = None) -> LoadedAgents:
    """Load the agents of all seeds of a run; see `load_agent`.

    A seed that has failed is as it was at its last good checkpoint.
    """
    folder = Path(run_folder).expanduser()
    settings, seeds = read_settings(folder)
    kept = _kept(folder / SOURCES / "agent", Path(settings["agent_path"]).name)
    agent_class = load_agent_file(agent_file or kept).agent_class
    config = _config(settings["agent"], folder / SOURCES)
    template = create_agents(agent_class, seeds, _example(settings["example"]), config)
    place = Place.of(folder, settings, len(seeds))
    restored = place.restore(template, "give the agent's file that the run was trained with")
    if restored is None:
        raise UserError(f"the run in {folder} has no checkpoint yet; wait for its first")
    agents, host = restored
    failed = {
        failure["seed"]: failure["step"]
        for failure in host.get("failed", ())
        if failure.get("point", 0) == place.point
    }
    return LoadedAgents(agents, seeds, host["step"], settings, failed)


def read_settings(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Return what the config.json of a run's folder holds, and the run's seeds (seeds,).

    Raises:
        UserError: It is no run's folder.
    """
    try:
        settings = json.loads((folder / "config.json").read_text())
        flags = settings["flags"]
        seeds = flags["seed"] + np.arange(flags["num_seeds"])
        Path(settings["agent_path"]), _config(settings["agent"], folder)
        _example(settings["example"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder} is not the folder of a run (no readable config.json there); give one that "
            "main.py or online_main.py made"
        ) from error
    return settings, seeds


def _kept(sources: Path, name: str) -> Path:
    """Return where an agent's file is among its sources: not deep, in its repository's folder."""
    found = sorted(sources.rglob(name), key=lambda path: (len(path.parts), path))
    return found[0] if found else sources / name


def _example(shapes: dict[str, Any]) -> dict[str, jax.Array]:
    """Return an example batch of zeros from shapes and types by column."""
    return {name: jnp.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}


def _config(values: dict[str, Any], sources: Path) -> ml_collections.FrozenConfigDict:
    """Return settings as they were before JSON made lists of tuples.

    A path of a Python file becomes that of the copy which the run keeps.
    """
    settings = {}
    for key, value in values.items():
        if isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, str) and value.endswith(".py"):
            value = str(sources / key / Path(value).name)
        settings[key] = value
    return ml_collections.FrozenConfigDict(settings)
