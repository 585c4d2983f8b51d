"""Policies that an agent is evaluated with, by name or by the path of a file.

A policy is a function (agent, observation (o,), key) -> action (a,). It says how an agent acts when
it is evaluated, and has no part in training or exploration. Those with settings are classes, and
`best_of_n:samples=8:q=min` gives some of them. One sample, or no further step, is the policy
`sample` to the bit. All start from the same noise for the same key, so that evaluations with equal
keys can be compared episode by episode.

A policy asks an agent for what it needs (`propose`, `refine`, `velocity`, `value`, `values`,
`trust_region`), and an agent that lacks it is refused by name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from utils import flow, langevin
from utils.agent import best_of, critic_values
from utils.policy_settings import bounded, configure
from utils.python_files import named_or_from_file
from utils.trust_region import Budget, base_and_refined, clip, projection

Policy = Callable[[Any, jax.Array, jax.Array], jax.Array]


def sample(agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """Act as the agent says, at temperature 0."""
    return agent.sample_actions(observation, key, 0.0)


def propose(agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """Act by the agent's model of the data alone, not refined."""
    return agent.propose(observation, jax.random.normal(key, (agent.config["action_dim"],)))


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """Take the action of the highest value among several that the agent samples.

    The first is that of `sample`; the others are sampled at temperature 1, those of a smaller
    number being among those of a greater one. Where an agent refines its actions these are refined.

    Attributes:
        samples: Number of actions N; 1 is the policy `sample`.
        q: What is compared: `value`, the agent's own; or over its critics their `mean`, their
            `min`, or `lower`, the mean minus so many standard deviations.
        deviations: That number. Of two critics, mean minus 1 deviation is their minimum.
    """

    samples: int = bounded(32, low=1)
    q: Literal["value", "mean", "min", "lower"] = "value"
    deviations: float = bounded(2.0, low=0)

    def __call__(self, agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
        """Return an action (a,) for an observation (o,)."""
        first = sample(agent, observation, key)
        if self.samples == 1:
            return first
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, self.samples))
        others = jax.vmap(lambda key: agent.sample_actions(observation, key, 1.0))(keys)
        actions = jnp.concatenate([first[None], others])  # (n, a)
        values = jax.vmap(lambda action: self._q(agent, observation, action))(actions)
        return best_of(actions, values)

    def _q(self, agent: Any, observation: jax.Array, action: jax.Array) -> jax.Array:
        if self.q == "value":
            return agent.value(observation, action)
        values = critic_values(agent, observation, action)  # (critics,)
        if self.q == "min":
            return values.min()
        lowered = self.deviations * values.std() if self.q == "lower" else 0.0
        return values.mean() - lowered


@dataclasses.dataclass(frozen=True)
class IteratedRefinement:
    """Refine the refined action again and again, within a budget.

    Attributes:
        steps: Number of further refinements; 0 is the agent's own action.
        budget: See `utils.trust_region`; kept at every step.
    """

    steps: int = bounded(1, low=0)
    budget: Budget = "state"

    def __call__(self, agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
        """Return an action (a,) for an observation (o,)."""
        base, action = base_and_refined(agent, observation, key)
        if self.steps == 0:
            return action
        project = projection(self.budget, base, action, agent.trust_region())

        def step(_: jax.Array, action: jax.Array) -> jax.Array:
            return project(agent.refine(observation, action))

        return jax.lax.fori_loop(0, self.steps, step, action)


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Sample the density p(a | s) exp(Q(s, a) / temperature) by Langevin steps, within a budget.

    p is the base flow's density, whose score follows from its velocity, see `utils.flow.score`. The
    chain starts at the agent's own action. Controls: without the score it climbs Q with noise
    alone, and without the budget it may go anywhere within the bounds of actions.

    Attributes:
        steps: Number of steps; 0 is the agent's own action.
        temperature: In units of Q. Within a budget it must be small beside what Q gains there, or
            the actions are those of a random walk.
        step_size: In units of the variance of the blur at `time`, which is the smallest that the
            blurred density has anywhere: from 2 on the chain would diverge there.
        time: Time t at which the velocity is taken. The density is blurred by noise of deviation
            (1 - t) / t, 0.053 at 0.95, and errors of the velocity are multiplied by t^2 / (1 - t),
            18 at 0.95; it is ill-conditioned near 1.
        score: Whether the score has a part in the drift.
        budget: See `utils.trust_region`; kept at every step.
    """

    steps: int = bounded(8, low=0)
    temperature: float = bounded(0.1, low=1e-9)
    step_size: float = bounded(0.1, low=1e-9)
    time: float = bounded(0.95, low=0.01, high=0.999)
    score: bool = True
    budget: Budget = "state"

    def __call__(self, agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
        """Return an action (a,) for an observation (o,)."""
        if self.budget == "none":
            start, project = sample(agent, observation, key), clip
        else:
            base, start = base_and_refined(agent, observation, key)
            project = projection(self.budget, base, start, agent.trust_region())
        if self.steps == 0:
            return start

        def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
            return agent.velocity(observation, x, t)

        def drift(action: jax.Array) -> jax.Array:
            climb = _q_gradient(agent, observation, action) / self.temperature
            return climb + flow.score(velocity, action, self.time) if self.score else climb

        step_size = self.step_size * flow.blur(self.time) ** 2
        noise = jax.random.fold_in(key, 0)
        return langevin.chain(drift, start, noise, self.steps, step_size, project)


@dataclasses.dataclass(frozen=True)
class GuidedFlow:
    """Solve the base flow with the gradient of Q added to its velocity, without refinement.

    This is QGF (arXiv 2606.11087): at (x, t) the gradient is that at the end of one Euler step to
    t = 1, x + (1 - t) v(x, t), without the derivative of that step.

    Attributes:
        temperature: Divides the gradient, in units of Q; 1 / temperature is the paper's guidance
            weight. Actions are moved by about the gradient over the temperature.
        flow_steps: Number of Euler steps.
    """

    temperature: float = bounded(30.0, low=1e-9)
    flow_steps: int = bounded(10, low=1)

    def __call__(self, agent: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
        """Return an action (a,) for an observation (o,)."""

        def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
            v = agent.velocity(observation, x, t)
            end = x + (1 - t) * v
            return v + _q_gradient(agent, observation, end) / self.temperature

        z = jax.random.normal(key, (agent.config["action_dim"],))
        return clip(flow.euler(velocity, z, self.flow_steps))


def _q_gradient(agent: Any, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Return the gradient (a,) of the agent's value of an action (a,)."""
    return jax.grad(lambda action: agent.value(observation, action))(action)


POLICIES: dict[str, Policy | type] = {
    "sample": sample,
    "propose": propose,
    "best_of_n": BestOfN,
    "iterated_refinement": IteratedRefinement,
    "langevin": Langevin,
    "guided_flow": GuidedFlow,
}


def load_policy(name: str) -> Policy:
    """Return a policy by its name and settings, or from a Python file that defines `policy`.

    Args:
        name: A key of `POLICIES`, which `:SETTING=VALUE` may follow, also several; or a path.

    Raises:
        UserError: There is no such policy or setting, or the file does not define one.
    """
    signature = "policy(agent, observation, key)"
    name, *settings = [name] if name.endswith(".py") else name.split(":")
    found = named_or_from_file(name, POLICIES, "--eval_policy", signature)
    return configure(found, settings, f"--eval_policy={name}")
