"""What a trained agent proposes, refines and values at one state."""

import dataclasses
import functools

import jax
import numpy as np

from utils.agent import Agent
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Samples:
    """Actions at one state and their Q-values, by the first agent's critic.

    Attributes:
        base: Actions that the model of the data proposes, (n, a).
        policy: The policy's actions, (n, a): the same refined, if the agent refines, and else
            other samples.
        refined: Whether they are the same.
        gained: Mean Q of the policy's actions minus that of the base actions.
        other: Actions of another agent, (n, a), if there is one.
        other_gained: Mean Q of these minus that of the base actions.
    """

    base: np.ndarray
    policy: np.ndarray
    refined: bool
    gained: float
    other: np.ndarray | None = None
    other_gained: float | None = None

    @property
    def residuals(self) -> np.ndarray:
        """How far the base actions are refined, (n, a); nothing of an agent that does not."""
        return self.policy - self.base if self.refined else np.zeros_like(self.base)

    @property
    def moved(self) -> float:
        """Root mean square of the residuals' lengths."""
        return float(np.sqrt(np.mean(np.sum(self.residuals**2, axis=1))))

    @property
    def central(self) -> np.ndarray:
        """The base action nearest to their mean, (a,)."""
        distances = np.linalg.norm(self.base - self.base.mean(axis=0), axis=1)
        return self.base[distances.argmin()]


def check(agent: Agent, observations: tuple, where: str) -> None:
    """Refuse an agent that cannot propose or value actions.

    Args:
        agent: The agent.
        observations: Shape and type of a batch of observations.
        where: What the message calls it.

    Raises:
        UserError: It cannot.
    """
    shape, dtype = observations
    state = jax.ShapeDtypeStruct(tuple(shape[1:]), dtype)
    try:
        base, _ = jax.eval_shape(
            functools.partial(_sample, number=2), agent, state, jax.random.key(0)
        )
        jax.eval_shape(values, agent, state, base)
    except UserError as error:
        raise UserError(f"{where} has no landscape: {error}") from error


def sample(
    agent: Agent, other: Agent | None, observation: np.ndarray, number: int, seed: int
) -> Samples:
    """Return actions of an agent, and of another one, at a state (o,).

    Args:
        agent: An agent that can propose and value actions.
        other: One that can act.
        observation: The state.
        number: Actions of each kind.
        seed: Of the noise, which is the same at every state.
    """
    key = jax.random.key(seed)
    base, policy = _sample(agent, observation, key, number=number)
    q = values(agent, observation, base).mean()
    samples = Samples(
        base=np.asarray(base),
        policy=np.asarray(policy),
        refined=refines(agent),
        gained=float(values(agent, observation, policy).mean() - q),
    )
    if other is None:
        return samples
    actions = _act(other, observation, key, number=number)
    gained = float(values(agent, observation, actions).mean() - q)
    return dataclasses.replace(samples, other=np.asarray(actions), other_gained=gained)


def refines(agent: Agent) -> bool:
    """Return whether an agent's policy refines what it proposes."""
    return type(agent).refine is not Agent.refine


@functools.partial(jax.jit, static_argnames="number")
def residual_lengths(agent: Agent, observations: jax.Array, number: int) -> jax.Array:
    """Return the root mean square length of residuals at states (s, o), of `number` samples each.

    Returns:
        Lengths (s,).
    """

    def length(observation: jax.Array, key: jax.Array) -> jax.Array:
        base, policy = _sample(agent, observation, key, number=number)
        return ((policy - base) ** 2).sum(-1).mean() ** 0.5

    return jax.vmap(length)(observations, jax.random.split(jax.random.key(0), len(observations)))


@jax.jit
def values(agent: Agent, observation: jax.Array, actions: jax.Array) -> jax.Array:
    """Return Q (n,) of actions (n, a) at a state (o,), which an encoder sees once."""
    return jax.vmap(lambda action: agent.value(observation, action))(actions)


@functools.partial(jax.jit, static_argnames="number")
def _sample(
    agent: Agent, observation: jax.Array, key: jax.Array, *, number: int
) -> tuple[jax.Array, jax.Array]:
    """Return base actions and the policy's, each (number, a)."""
    z = jax.random.normal(key, (number, agent.config["action_dim"]))
    base = jax.vmap(lambda z: agent.propose(observation, z))(z)
    if not refines(agent):
        return base, _act(agent, observation, key, number=number)
    return base, jax.vmap(lambda action: agent.refine(observation, action))(base)


@functools.partial(jax.jit, static_argnames="number")
def _act(agent: Agent, observation: jax.Array, key: jax.Array, *, number: int) -> jax.Array:
    """Return actions (number, a) as the agent is evaluated."""
    keys = jax.random.split(key, number)
    return jax.vmap(lambda key: agent.sample_actions(observation, key, 0.0))(keys)
