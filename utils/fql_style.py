"""Agents of other repositories in FQL's style, run as they are.

Dozens of public repositories follow the pattern of FQL (arXiv 2502.02538): a PyTreeNode with its
own random key, network states and settings, with `create`, a jitted `update(batch)` and
`sample_actions`, and a function `get_config()`. Such a file is recognised by that. What its main.py
did for it is done here, by the signatures of its methods and the names that it looks up.
"""

import ast
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from utils.agent import Agent, Batch, Config
from utils.columns import episode_ends, next_actions
from utils.errors import UserError
from utils.isolated import IsolatedModule, class_definitions, find_root, load_isolated
from utils.python_files import readable_errors
from utils.recorded_settings import freeze
from utils.train_state import Metrics, delayed_update, own_buffers

_METHODS = {"create", "update", "sample_actions"}
_OURS = {"networks", "sample_noise"}  # which this library's agents have besides
_REWARDS = {"r_min": np.min, "r_max": np.max, "min_reward": np.min, "max_reward": np.max}
_ENDS = "episode_ends"  # data have terminals before they are batches


def is_fql_style(path: Path) -> bool:
    """Return whether a Python file defines an agent in FQL's style; it is not executed."""
    try:
        return any(map(_is_agent, class_definitions(path)))
    except (OSError, SyntaxError, ValueError, IndexError):  # which loading it will tell
        return False


def _is_agent(node: ast.ClassDef) -> bool:
    methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    bases = {ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases}
    return "PyTreeNode" in bases and methods >= _METHODS and not methods >= _OURS


def load_fql_style(path: Path) -> tuple[ModuleType, type[Agent]]:
    """Execute a file that defines an agent in FQL's style, and wrap the agent.

    Args:
        path: The file, resolved.

    Raises:
        UserError: It does not define exactly one.
    """
    with readable_errors(path, find_root(path)):
        module = load_isolated(path)
    return module, _wrapped(module, path)


@functools.cache
def _wrapped(module: IsolatedModule, path: Path) -> type[Agent]:
    """Return the agent that runs the one in a module, always the same class."""
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and all(hasattr(item, method) for method in _METHODS)
    ]
    found = [one for one in found if not any(one in other.__mro__[1:] for other in found)]
    if len(found) != 1:
        listed = ", ".join(item.__name__ for item in found) or "none"
        raise UserError(f"{path} must define exactly one agent; it defines {listed}")
    looked_up = _looked_up([path, *module.repository.files.intersection(path.parent.iterdir())])
    if hasattr(module, "get_config"):
        module.get_config = functools.partial(_settings, module.get_config, looked_up)
    members = {"__doc__": found[0].__doc__, "theirs": found[0], "looked_up": looked_up}
    return type(found[0].__name__, (FQLStyleAgent,), members)


def _looked_up(files: Iterable[Path]) -> frozenset[str]:
    """Return the texts by which files look something up, as in `batch["actions"]`."""
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_bytes())))
    slices = (node.slice for node in nodes if isinstance(node, ast.Subscript))
    return frozenset(part.value for part in slices if isinstance(part, ast.Constant))


class _Network(flax.struct.PyTreeNode):
    """An agent in FQL's style, in the place of a TrainState.

    Attributes:
        agent: The agent.
        step: Number of updates so far, shape ().
        frozen: None of its networks can be.
    """

    agent: Any
    step: jax.Array
    frozen: ClassVar[tuple[str, ...]] = ()

    @property
    def params(self) -> dict[str, Any]:
        """Parameters by network, of its one state or by its several states."""
        states = {k: v.params for k, v in vars(self.agent).items() if hasattr(v, "params")}
        return states.get("network", states)


class FQLStyleAgent(Agent):
    """An agent in FQL's style as an agent of this library.

    Its random numbers are its own: its key follows from the training seed as in its repository,
    and is split by each update.
    """

    theirs: ClassVar[type]
    """Its class."""
    looked_up: ClassVar[frozenset[str]]
    """Names that its file looks up, of columns and settings."""

    PAIRWISE: ClassVar[bool] = True  # a file that is run as it is may broadcast as it does

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise UserError for settings that cannot work, and for agents of chunks."""
        super().check_config(config)
        if "valid" in cls.looked_up or "horizon_length" in config:
            raise UserError(
                "this agent learns from chunks of actions ('valid', 'horizon_length'), and agents "
                "of chunks are not available yet; give one that learns from single steps"
            )

    @classmethod
    def columns(cls, config: Config) -> dict[str, Callable]:
        """Return the columns that it looks up besides those which all batches have."""
        del config
        columns = {
            "next_actions": ("next_actions", next_actions),
            "terminals": (_ENDS, episode_ends),
        }
        return dict(column for name, column in columns.items() if name in cls.looked_up)

    @classmethod
    def settings_from_data(cls, data: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
        """Return the extremes of the rewards."""
        wanted = [key for key in _REWARDS if key in config and config[key] is None]
        return {key: float(_REWARDS[key](data["rewards"])) for key in wanted}

    @classmethod
    def create_member(cls, seed: jax.Array, rng: jax.Array, example: Batch, config: Config) -> Self:
        """Build the agent of a training seed as its repository does."""
        del rng
        example = _named(jax.tree.map(lambda column: column[:1], example))
        settings = ml_collections.ConfigDict(config.to_dict(), type_safe=False)
        for key in {"r_min", "r_max"} & set(settings):
            settings[key] = np.float32(settings[key])  # as it is in the data
        arguments = {
            "seed": seed,
            "ex_observations": example["observations"],
            "ex_actions": example["actions"],
            "example_batch": example | {key: settings.get(key) for key in _REWARDS},
            "config": settings,
        }
        with jax.ensure_compile_time_eval():  # arrays without the seed in them may be settings
            theirs = cls.theirs.create(**_taken(cls.theirs.create, arguments))
        sizes = example["observations"].shape[1:], example["actions"].shape[-1]
        network = _Network(own_buffers(theirs), jnp.zeros((), jnp.int32))
        return cls(network, freeze(config, ob_dims=sizes[0], action_dim=sizes[1]))

    def _update(self, batch: Batch, rng: jax.Array) -> tuple[Self, Metrics]:
        """Take one update of its own."""
        del rng
        theirs, number = self.network.agent, self.network.step + 1
        every = self.config.get("actor_freq", 1)

        def update(full: bool) -> tuple[Any, Metrics]:
            arguments = {"batch": _named(batch), "full_update": full, "current_step": number}
            after, info = theirs.update(**_taken(theirs.update, arguments))
            return after, _scalars(info)

        if every > 1 and "full_update" in inspect.signature(theirs.update).parameters:
            theirs, metrics = delayed_update(every, number, update)
        else:
            theirs, metrics = update(True)
        return self.replace(network=self.network.replace(agent=theirs)), metrics

    def evaluate_loss(self, batch: Batch, rng: jax.Array) -> Metrics:
        """Return its losses on a held-out batch, and the distance from the batch's actions."""
        theirs, actions = self.network.agent, self.sample_actions(batch["observations"], rng, 0.0)
        distance = {"actor/mse": jnp.mean((actions - batch["actions"]) ** 2)}
        if not hasattr(theirs, "total_loss"):
            return distance
        arguments = {"batch": _named(batch), "grad_params": None, "rng": None}
        _, info = theirs.total_loss(**_taken(theirs.total_loss, arguments))
        return distance | _scalars(info)

    def sample_actions(
        self, observations: jax.Array, rng: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """Sample actions (..., a); it is given one observation at a time, as in its repository."""
        method, size = self.network.agent.sample_actions, self.config["action_dim"]

        def call(key: jax.Array, given: jax.Array) -> jax.Array:
            arguments = {"observations": given, "obs": given, "seed": key, "rng": key}
            return method(**_taken(method, arguments | {"temperature": temperature}))

        def one(observation: jax.Array, key: jax.Array) -> jax.Array:
            key = jax.random.key_data(key)
            try:
                actions = call(key, observation)
            except Exception:
                actions = call(key, observation[None])  # it may know batches only
            if actions.size != size:
                actions = call(key, observation[None])
            return actions.reshape(size) if actions.size == size else actions

        shape = self.batch_shape(observations)
        if not shape:
            return one(observations, rng)
        rows = observations.reshape(-1, *self.config["ob_dims"])
        actions = jax.vmap(one)(rows, jax.random.split(rng, len(rows)))
        return actions.reshape(*shape, *actions.shape[1:])


def _taken(method: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments that a method takes by their names."""
    return {n: arguments[n] for n in inspect.signature(method).parameters if n in arguments}


def _settings(get_config: Callable, looked_up: frozenset[str]) -> ml_collections.ConfigDict:
    """Return the settings, with places for the extremes of rewards that are looked up."""
    config = get_config()
    with config.unlocked():
        for key in looked_up & _REWARDS.keys() - config.keys():
            config[key] = ml_collections.config_dict.placeholder(float)
    return config


def _named(batch: Batch) -> Batch:
    """Return a batch with the columns named as its repository names them."""
    return {"terminals" if name == _ENDS else name: column for name, column in batch.items()}


def _scalars(info: Mapping[str, Any]) -> Metrics:
    """Return metrics as scalars; of an array the mean."""
    return {name: jnp.mean(jnp.asarray(value, jnp.float32)) for name, value in info.items()}
