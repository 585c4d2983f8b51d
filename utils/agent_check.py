"""One abstract evaluation of an agent's update, which finds mistakes before data are loaded.

Nothing is computed: JAX traces the functions for shapes. The sizes of the example are numbers that
meet in no sum or product of the settings, so that an axis tells where it comes from.
"""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.extend import core

from utils.agent import derived_settings
from utils.columns import prepare
from utils.errors import UserError
from utils.frozen_noise import require_same_numbers, user_line
from utils.policies import Policy
from utils.recorded_settings import RecordedSettings

BATCH, _OBSERVATION, _ACTION = 997, 31, 7
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


def check_agent(
    agent_class: Any,
    config: ml_collections.ConfigDict,
    defaults: ml_collections.ConfigDict,
    online: bool = False,
) -> set[str]:
    """Trace creation, update, validation and acting of an agent.

    Observations are images where the settings name an encoder. Elsewhere they are vectors, or
    images if it cannot be created on vectors: it may have convolutions of its own.

    Args:
        agent_class: The agent.
        config: Its settings.
        defaults: What its `get_config()` returns.
        online: Whether it goes on online.

    Returns:
        Names of the settings that were read.

    Raises:
        UserError: A method or `batch_size` is missing, a metric is no scalar, an update changes the
            agent's structure, actions have a wrong shape, a loss broadcasts (b, 1) with (b,), a
            derived setting is unknown, or a panel's or signature's metric is logged neither with
            these settings nor with the defaults.
        Exception: Whatever the agent itself raises, an unknown network or column for instance.
    """
    reads = {"batch_size"}  # which the sampling of batches reads
    columns = _logged_columns(agent_class, config, reads, online)
    shown = {panel.key: f"the panel '{panel.title}'" for panel in agent_class.PANELS}
    for signature in agent_class.SIGNATURES:
        for name in (*signature.above, *signature.below):
            shown[name] = f"the failure signature '{signature.name}'"
    if shown.keys() <= columns:
        return reads
    try:  # these settings may be an ablation, which lacks metrics
        columns |= _logged_columns(agent_class, defaults, set())
    except Exception:  # the defaults alone need not work
        return reads
    for name in sorted(shown.keys() - columns):
        raise UserError(
            f"{shown[name]} is of the metric {name}, which is not logged; there are "
            f"{', '.join(sorted(columns))}"
        )
    return reads


def check_policy(agent_class: Any, config: ml_collections.ConfigDict, policy: Policy) -> set[str]:
    """Trace a policy of evaluation with an agent.

    Returns:
        Names of the settings that were read.

    Raises:
        UserError: Its actions have a wrong shape, or the agent lacks a method that it needs.
    """
    reads: set[str] = set()
    agent, example, key = abstract_agent(agent_class, config, reads)
    observation = example["observations"]
    single = jax.ShapeDtypeStruct(observation.shape[1:], observation.dtype)
    actions = jax.eval_shape(policy, agent, single, key)
    if actions.shape != (_ACTION,):
        raise UserError(
            f"--eval_policy returns {actions.shape} for one observation, instead of an action "
            f"{(_ACTION,)}"
        )
    return reads


def _logged_columns(
    agent_class: Any, config: ml_collections.ConfigDict, reads: set[str], online: bool = False
) -> set[str]:
    """Check an agent, and return the columns of train.csv that its metrics make."""
    if "batch_size" not in config:
        raise UserError(
            "get_config() lacks the setting batch_size, the number of rows in a batch; add it there"
        )
    config = ml_collections.ConfigDict(config)
    config.batch_size = BATCH
    agent, example, key = abstract_agent(agent_class, config, reads)
    update = inspect.unwrap(agent_class.update)  # inlined by jit, it would lose the user's lines
    traced, (after, metrics) = jax.make_jaxpr(update, return_shape=True)(agent, example, key)
    again, *_ = abstract_agent(agent_class, config, set())  # as JAX keeps what it has traced
    require_same_numbers(traced, jax.make_jaxpr(update)(again, example, key))
    _require_scalars(metrics)
    _require_same(agent, after)
    if not agent_class.PAIRWISE:
        _require_no_pairs(traced.jaxpr)
    _require_actions(agent, example["observations"], key)
    validation = jax.eval_shape(agent_class.evaluate_loss, agent, example, key)
    _require_scalars(validation)
    if online:
        jax.eval_shape(agent_class.start_online, agent)
    return {*metrics, *(f"validation/{name}" for name in validation)}


def abstract_agent(
    agent_class: Any, config: ml_collections.ConfigDict, reads: set[str]
) -> tuple[Any, dict, Any]:
    """Create an agent on observations that it can be created on; return it, a batch and a key.

    Which settings it reads, here and later, is noted in `reads`.
    """
    if config.get("encoder"):
        return _created_on(agent_class, config, reads, _IMAGE)
    try:
        return _created_on(agent_class, config, reads, (_OBSERVATION,))
    except Exception as error:
        try:
            return _created_on(agent_class, config, reads, _IMAGE)
        except Exception:
            raise error from None


def _created_on(
    agent_class: Any,
    config: ml_collections.ConfigDict,
    reads: set[str],
    observation_shape: tuple[int, ...],
) -> tuple[Any, dict, Any]:
    """Create an agent on observations of a shape; return it, a batch and a key, all abstract."""
    config = RecordedSettings(config.copy_and_resolve_references(), reads)  # which may be shared
    data = random_transitions(agent_class, config, observation_shape)
    config.update(derived_settings(agent_class, data, config))
    example = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in data.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    seed = jax.ShapeDtypeStruct((), np.int32)
    create = functools.partial(agent_class.create_member, config=config)
    agent = jax.eval_shape(create, seed, key, example)
    return agent, example, key


def _require_scalars(metrics: dict[str, Any]) -> None:
    """Raise UserError unless all metrics have shape ()."""
    for name, value in metrics.items():
        if value.shape != ():
            raise UserError(f"the metric {name} has shape {value.shape}; metrics are scalars")


def _require_actions(agent: Any, observations: Any, key: Any) -> None:
    """Raise UserError unless actions come in the observations' batch shape.

    They are asked for as evaluation does, at temperature 0, and as online training does, at 1.
    """
    single = jax.ShapeDtypeStruct(observations.shape[1:], observations.dtype)
    for given, shape in ((single, (_ACTION,)), (observations, (BATCH, _ACTION))):
        for temperature in (0.0, 1.0):
            sample = functools.partial(_sample_actions, temperature=temperature)
            actions = jax.eval_shape(sample, agent, given, key)
            if actions.shape != shape:
                raise UserError(
                    f"sample_actions returns {actions.shape} for observations {given.shape} at "
                    f"temperature {temperature:g}, instead of {shape}"
                )


def _sample_actions(agent: Any, observations: Any, key: Any, temperature: float) -> Any:
    return agent.sample_actions(observations, key, temperature)


def random_transitions(
    agent_class: Any, config: ml_collections.ConfigDict, observation_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return random transitions of one episode, with the columns that the agent adds."""
    generator = np.random.default_rng(0)
    if observation_shape == _IMAGE:
        observations = generator.integers(0, 256, (BATCH, *_IMAGE)).astype(np.uint8)
    else:
        observations = generator.normal(size=(BATCH, *observation_shape)).astype(np.float32)
    data = {
        "observations": observations,
        "actions": generator.uniform(-1, 1, (BATCH, _ACTION)).astype(np.float32),
        "next_observations": observations,
        "rewards": generator.uniform(size=BATCH).astype(np.float32),
        "masks": np.ones(BATCH, np.float32),
        "terminals": (np.arange(BATCH) == BATCH - 1).astype(np.float32),
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
        if _batch_axes(shape) > 1 and all(_batch_axes(source) < 2 for source in sources):
            shown = " and ".join(_shown(source) for source in sources)
            raise UserError(
                f"{user_line(equation)}shapes {shown} broadcast to {_shown(shape)}, all pairs of "
                "the batch: one of them has an axis too many or too few (if pairs are meant, set "
                "PAIRWISE = True in the agent's class)"
            )


def _batch_axes(shape: tuple[int, ...]) -> int:
    """Return how many axes hold the batch, or several batches that were concatenated."""
    return sum(size > 0 and size % BATCH == 0 for size in shape)


def _shown(shape: tuple[int, ...]) -> str:
    """Return a shape as text, with b for the batch's size and `2 b` for twice that."""
    sizes = []
    for size in shape:
        batches = size // BATCH if _batch_axes((size,)) else 0
        sizes.append("b" if batches == 1 else f"{batches} b" if batches else str(size))
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


def _source_shape(operand: Any, made_by: dict) -> tuple[int, ...]:
    """Return an operand's shape before it was broadcast to meet another one."""
    shape = operand.aval.shape
    maker = None if isinstance(operand, core.Literal) else made_by.get(operand)
    if maker is None or maker.primitive.name != "broadcast_in_dim":
        return shape
    before = maker.invars[0].aval.shape
    added_in_front = shape == (1,) * (len(shape) - len(before)) + before
    return before if added_in_front or _batch_axes(shape) > 1 else shape


def _equations(jaxpr: core.Jaxpr) -> Iterator[tuple[core.JaxprEqn, dict]]:
    """Walk through a traced program, with what made each variable of the same level."""
    made_by = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}
    for equation in jaxpr.eqns:
        yield equation, made_by
        for inner in core.jaxprs_in_params(equation.params):
            yield from _equations(inner)
