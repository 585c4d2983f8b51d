"""Episodes of D4RL's environments under a policy: random actions, or the agent of a saved run.

JAX is imported for an agent only, and in worker processes only.
"""

import functools
import importlib.util
import inspect
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from utils.envs import names, tasks
from utils.errors import UserError

RANDOM = "random"
"""The policy that draws actions uniformly."""

Act = Callable[[np.ndarray], np.ndarray]
"""Maps an observation (observation_size,) float32 to an action (action_size,) float32."""


class Policy(NamedTuple):
    """A policy as a setting.

    Attributes:
        source: `RANDOM`, or the absolute path of a run folder.
        index: Which of the run's training seeds, counted from 0; None for `RANDOM`.
        checkpoint: Step of the run's last checkpoint; None for `RANDOM`.
    """

    source: str
    index: int | None = None
    checkpoint: int | None = None


def find_policy(full_name: str, source: str, training_seed: int | None = None) -> Policy:
    """Looks a policy up, without importing JAX or the agent.

    Args:
        full_name: Id of the D4RL task that it is to act in.
        source: `RANDOM`, or a run folder.
        training_seed: Which of a run's seeds; its first by default.

    Raises:
        UserError: There is no such run, no such seed in it or no checkpoint, or it was trained on
            other observations or actions than the task's.
    """
    if source == RANDOM:
        if training_seed is not None:
            raise UserError("--policy_seed is for the --policy of a run, not for random actions.")
        return Policy(RANDOM)
    folder = Path(source).expanduser().resolve()
    try:
        settings = json.loads((folder / "config.json").read_text())
        env_name, flags = settings["env_name"], settings["flags"]
        seeds = range(flags["seed"], flags["seed"] + flags["num_seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--policy={source} is neither '{RANDOM}' nor the folder of a run (no readable "
            "config.json there)."
        ) from error
    task, trained = names.D4RL_TASKS[full_name], names.D4RL_TASKS.get(env_name)
    sizes = (task.observation_size, task.action_size)
    if trained is None or (trained.observation_size, trained.action_size) != sizes:
        raise UserError(
            f"the run in {source} was trained on {env_name}, whose observations or actions are not "
            f"those of {full_name}; choose another --policy."
        )
    training_seed = seeds[0] if training_seed is None else training_seed
    if training_seed not in seeds:
        raise UserError(
            f"--policy_seed={training_seed} is not a seed of the run in {source}, which has "
            f"{seeds[0]}" + (f" to {seeds[-1]}." if len(seeds) > 1 else " only.")
        )
    steps = [path.name for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    if not steps:
        raise UserError(f"the run in {source} has no checkpoint; choose another --policy.")
    return Policy(str(folder), seeds.index(training_seed), max(map(int, steps)))


class Rollouts:
    """Plays episodes; the environment and the policy are made with the first one.

    Args:
        full_name: Id of a D4RL task.
        policy: Who acts.
    """

    def __init__(self, full_name: str, policy: Policy):
        self._full_name, self._policy = full_name, policy

    @functools.cached_property
    def env(self) -> gymnasium.Env:
        """The environment."""
        return tasks.make_env(self._full_name)

    @functools.cached_property
    def start(self) -> Callable[[int], Act]:
        """Maps an episode's seed to what acts in it."""
        if self._policy.source == RANDOM:
            return functools.partial(_random, self.env.action_space)
        return _agent(Path(self._policy.source), self._policy.index, self.env)

    def episode(self, entropy: list[int], max_steps: int) -> dict[str, np.ndarray]:
        """Plays one episode, up to its end or for `max_steps` steps.

        Args:
            entropy: Numbers, at least 0, on which the episode depends and on nothing else.
            max_steps: Bound on its length.

        Returns:
            Arrays with a row per step, float32 but for the booleans `terminals` and `timeouts`: the
            state before the step (`observations` and, by name, all that restores it,
            `infos/qpos`, `infos/qvel` and `infos/goal` for instance), `actions` and `rewards`. In
            the last row, `terminals` or else `timeouts` is true.

        Raises:
            UserError: The environment cannot be made, or the agent cannot be loaded.
        """
        env = self.env
        reset_seed, policy_seed = np.random.SeedSequence(entropy).generate_state(2).tolist()
        act = self.start(policy_seed)
        observation, _ = env.reset(seed=reset_seed)
        columns = defaultdict(list)
        done = False
        while not done:
            observation = np.asarray(observation, np.float32)
            action = act(observation)
            row = {"observations": observation, "actions": action}
            state = env.unwrapped.get_state()
            row |= {f"infos/{name}": value for name, value in state.items()}
            observation, row["rewards"], terminal, truncated, _ = env.step(action)
            done = terminal or truncated or len(columns["rewards"]) + 1 == max_steps
            row |= {"terminals": terminal, "timeouts": done and not terminal}
            for key, value in row.items():
                columns[key].append(value)
        dtypes = {"terminals": np.bool_, "timeouts": np.bool_}
        return {key: np.array(rows, dtypes.get(key, np.float32)) for key, rows in columns.items()}


def _random(space: gymnasium.spaces.Box, seed: int) -> Act:
    """Acts at random."""
    generator = np.random.default_rng(seed)
    return lambda _: generator.uniform(space.low, space.high).astype(np.float32)


def _agent(folder: Path, index: int, env: gymnasium.Env) -> Callable[[int], Act]:
    """Loads an agent from a run folder: its file, its settings and its last checkpoint."""
    import jax
    import ml_collections

    from utils.checkpoints import Checkpoints
    from utils.training import create_agents

    settings = json.loads((folder / "config.json").read_text())
    agent_class = _agent_class(folder / "agent.py")
    flags = settings["flags"]
    example = {
        "observations": np.zeros((1, *env.observation_space.shape), np.float32),
        "actions": np.zeros((1, *env.action_space.shape), np.float32),
    }
    template = create_agents(
        agent_class,
        flags["seed"] + np.arange(flags["num_seeds"]),
        example,
        ml_collections.FrozenConfigDict(settings["agent"]),
    )
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        restored = checkpoints.restore(template, part="agents", remedy="choose another --policy")
    finally:
        checkpoints.close()
    if restored is None:
        raise UserError(f"the run in {folder} has no checkpoint; choose another --policy.")
    agent = jax.tree.map(lambda leaf: leaf[index], restored[0])
    low, high = env.action_space.low, env.action_space.high

    @jax.jit
    def sample(agent: Any, observation: jax.Array, key: jax.Array, step: int) -> jax.Array:
        return agent.sample_actions(observation, jax.random.fold_in(key, step))

    def start(seed: int) -> Act:
        key, steps = jax.random.key(np.uint32(seed)), itertools.count()

        def act(observation: np.ndarray) -> np.ndarray:
            return np.clip(np.asarray(sample(agent, observation, key, next(steps))), low, high)

        return act

    return start


def _agent_class(path: Path) -> Any:
    """Imports the agent's file that a run keeps, and returns the class in it."""
    spec = importlib.util.spec_from_file_location("policy_agent", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and all(hasattr(item, name) for name in ("create", "total_loss", "sample_actions"))
    ]
    if len(classes) != 1:
        raise UserError(f"{path} defines {len(classes)} agents instead of one.")
    return classes[0]
