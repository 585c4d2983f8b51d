"""One abstract evaluation of an agent's update, which finds mistakes before data are loaded.

Nothing is computed: JAX traces the functions for shapes. The sizes of the example are numbers that
meet in no sum or product of the settings, so that an axis tells where it comes from.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.extend import core

from utils.columns import prepare
from utils.errors import UserError
from utils.python_files import is_installed

_BATCH, _OBSERVATION, _ACTION = 997, 31, 7
_IMAGE = (64, 64, 3)
_ELEMENTWISE = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
        "pow",
        "rem",
        "atan2",
        "select_n",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "xor",
    ]
)


def check_agent(agent_class: Any, config: ml_collections.ConfigDict) -> None:
    """Trace creation, update and acting of an agent.

    Args:
        agent_class: The agent.
        config: Its settings.

    Raises:
        UserError: A metric is no scalar, an update changes the agent's structure, actions have a
            wrong shape, a loss broadcasts (b, 1) with (b,), or a derived setting is unknown.
        Exception: Whatever the agent itself raises, an unknown network or column for instance.
    """
    config = ml_collections.ConfigDict(config)
    config.batch_size = _BATCH
    data = _transitions(agent_class, config)
    derived = agent_class.settings_from_data(data, config)
    if unknown := [key for key in derived if key not in config]:
        raise UserError(
            f"settings_from_data returns {', '.join(unknown)}, but get_config() has no such "
            "setting; add it there"
        )
    config.update(derived)
    example = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in data.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    agent = jax.eval_shape(
        lambda key, *arrays: agent_class.create(key, *arrays, config),
        key,
        example["observations"],
        example["actions"],
    )
    update = inspect.unwrap(agent_class.update)  # inlined by jit, it would lose the user's lines
    traced, (after, metrics) = jax.make_jaxpr(update, return_shape=True)(agent, example, key)
    for name, value in metrics.items():
        if value.shape != ():
            raise UserError(f"the metric {name} has shape {value.shape}; metrics are scalars")
    _require_same(agent, after)
    if not agent_class.PAIRWISE:
        _require_no_pairs(traced.jaxpr)
    observation = example["observations"]
    single = jax.ShapeDtypeStruct(observation.shape[1:], observation.dtype)
    for given, shape in ((single, (_ACTION,)), (observation, (_BATCH, _ACTION))):
        actions = jax.eval_shape(
            lambda agent, given, key: agent.sample_actions(given, key, 0.0), agent, given, key
        )
        if actions.shape != shape:
            raise UserError(
                f"sample_actions returns {actions.shape} for observations {given.shape}, instead "
                f"of {shape}"
            )


def _transitions(agent_class: Any, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Return random transitions of one episode, with the columns that the agent adds."""
    generator = np.random.default_rng(0)
    if config.get("encoder"):
        observations = generator.integers(0, 256, (_BATCH, *_IMAGE)).astype(np.uint8)
    else:
        observations = generator.normal(size=(_BATCH, _OBSERVATION)).astype(np.float32)
    data = {
        "observations": observations,
        "actions": generator.uniform(-1, 1, (_BATCH, _ACTION)).astype(np.float32),
        "next_observations": observations,
        "rewards": generator.uniform(size=_BATCH).astype(np.float32),
        "masks": np.ones(_BATCH, np.float32),
        "terminals": (np.arange(_BATCH) == _BATCH - 1).astype(np.float32),
    }
    return prepare(
        data,
        agent_class.columns(config),
        lambda rewards: agent_class.scale_rewards(rewards, config),
    )


def _require_same(before: Any, after: Any) -> None:
    """Raise UserError unless an update keeps the agent's structure, shapes and types."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise UserError(
            "update changes the agent's structure (a network added or removed, or a static field "
            "changed); it must return what it was given, with other numbers"
        )
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise UserError(
                f"update turns {jax.tree_util.keystr(path)} from {old.dtype}{old.shape} into "
                f"{new.dtype}{new.shape}"
            )


def _require_no_pairs(jaxpr: core.Jaxpr) -> None:
    """Raise UserError where shapes such as (b, 1) and (b,) have met and made (b, b)."""
    for equation, made_by in _equations(jaxpr):
        if equation.primitive.name not in _ELEMENTWISE:
            continue
        shape = equation.outvars[0].aval.shape
        sources = [_source_shape(operand, made_by) for operand in equation.invars]
        if shape.count(_BATCH) > 1 and all(source.count(_BATCH) < 2 for source in sources):
            shown = [str(source).replace(str(_BATCH), "b") for source in sources]
            raise UserError(
                f"{_line(equation)}shapes {' and '.join(shown)} broadcast to "
                f"{str(shape).replace(str(_BATCH), 'b')}, all pairs of the batch: one of them "
                "has an axis too many or too few (if pairs are meant, set PAIRWISE = True in the "
                "agent's class)"
            )


def _source_shape(operand: Any, made_by: dict) -> tuple[int, ...]:
    """Return an operand's shape before it was broadcast to meet another one."""
    shape = operand.aval.shape
    maker = None if isinstance(operand, core.Literal) else made_by.get(operand)
    if maker is None or maker.primitive.name != "broadcast_in_dim":
        return shape
    before = maker.invars[0].aval.shape
    added_in_front = shape == (1,) * (len(shape) - len(before)) + before
    return before if added_in_front or shape.count(_BATCH) > 1 else shape


def _equations(jaxpr: core.Jaxpr) -> Iterator[tuple[core.JaxprEqn, dict]]:
    """Walk through a traced program, with what made each variable of the same level."""
    made_by = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    for equation in jaxpr.eqns:
        yield equation, made_by
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _line(equation: core.JaxprEqn) -> str:
    """Return where in the user's code an equation comes from, as the beginning of a sentence."""
    trace = equation.source_info.traceback
    frames = [] if trace is None else trace.frames
    own = [frame for frame in frames if not is_installed(frame.file_name)]
    return f"{own[0].file_name}, line {own[0].line_num}: " if own else ""
