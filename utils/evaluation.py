"""Evaluation in many environments at once, with one policy call per time step.

Worker processes (`utils.env_workers`) step the environments; this process calls the policy for all
of them together, and for all members that are trained together. It does so on the
CPU, whatever trains: an accelerator takes the dispatches of training in turn, and between two of
them the environments would stand still.

The result depends on the agent, the keys and the configuration, and on nothing else: not on the
number of workers, not on the machine's number of cores. A *slot* is one environment and one row of
the policy's batch; slot l of L plays the episodes l, l + L, l + 2L, ... of its member. The batch
has the shape (num_members, L, ...) from the first to the last step, so a row is always computed by
the same program. What an environment played before must not matter to an episode
(`utils.envs.tasks.make_env` sees to it). The environment's seed and the policy's noise of episode
e come from fold_in(key, e), the noise at time t from a fold_in of t into the latter.
"""

import dataclasses
import functools
import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from utils.cores import available_cores
from utils.env_workers import (
    Environment,
    Episode,
    Interrupted,
    Worker,
    close_all,
    serve_evaluation,
)
from utils.errors import UserError
from utils.policies import Policy, sample
from utils.trust_region import BATCH

# No slot for each of 50 episodes: more slots save policy calls, which are cheap beside the physics
# they wait for, and environments that share no model take their time and memory each.
_SLOTS_PER_MEMBER = 16
_SLOTS_IN_ALL = 32


@dataclasses.dataclass(frozen=True)
class EpisodeStats:
    """Results of one member.

    Attributes:
        metrics: Arrays (episodes,) by name: `return` (undiscounted sum of rewards), `length`
            (steps), `success` (the final step's `info["success"]`, absent if the environment does
            not report it) and `normalized_return` (if it has `get_normalized_score`).
        videos: The first `video_episodes` episodes, uint8 arrays (T, H, W, 3).
        diverged: Whether actions were not finite; zeros took their place, so that the other members
            could play on, and the numbers say nothing.
    """

    metrics: dict[str, np.ndarray]
    videos: list[np.ndarray] = dataclasses.field(default_factory=list)
    diverged: bool = False

    def mean(self) -> dict[str, float]:
        """Return the mean over episodes of each metric."""
        return {name: float(np.mean(values)) for name, values in self.metrics.items()}

    def rows(self) -> list[dict[str, float]]:
        """Return the metrics of each episode, with its number `episode`, from 0."""
        names = ("episode", *self.metrics)
        episodes = zip(*self.metrics.values(), strict=True)
        return [dict(zip(names, (e, *row), strict=True)) for e, row in enumerate(episodes)]


def slots_for(num_episodes: int, num_members: int) -> int:
    """Return the number of environments per member.

    At most 16, and 32 over all members (but one per member at the least), chosen such that all
    slots have equally many episodes to play, give or take one.
    """
    most = max(1, min(num_episodes, _SLOTS_PER_MEMBER, _SLOTS_IN_ALL // num_members))
    return math.ceil(num_episodes / math.ceil(num_episodes / most))


class Evaluator:
    """A pool of environments, made once and used for every evaluation of a run.

    Making it starts the workers, which make their environments while the caller goes on; the first
    `evaluate` waits for them. Use it as a context manager, or call `close`.

    Args:
        make_env: Makes one environment; called in the workers, hence picklable by reference (a
            module's function, or a `functools.partial` of one) and, to be fast to import, from a
            module that does not import JAX.
        policy: Who acts, see `utils.policies`; it is mapped over slots and members and compiled
            here, once for each function object.
        num_episodes: Episodes per member.
        num_members: Size of the leading axis of every array of the agents to be evaluated.
        num_workers: Number of processes; by default one for each core that this process may use.
        slots_per_member: Environments per member; by default what `slots_for` says.
        max_steps: Bound on the length of an episode; None leaves it to the environment.
        env_name: What messages call the environment.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env],
        policy: Policy,
        *,
        num_episodes: int = 50,
        num_members: int = 1,
        num_workers: int | None = None,
        slots_per_member: int | None = None,
        max_steps: int | None = None,
        env_name: str = "the environment",
    ):
        if num_episodes < 1:
            raise UserError(
                "an evaluation needs at least one episode: set eval_episodes to 1 or more"
            )
        self.num_episodes = num_episodes
        self.num_members = num_members
        self.num_slots = min(slots_per_member or slots_for(num_episodes, num_members), num_episodes)
        self._env_name = env_name
        self._policy = policy
        total = num_members * self.num_slots
        count = min(num_workers or available_cores(), total)
        self._slots: dict[Worker, np.ndarray] = {}  # flat indices (member * num_slots + slot)
        self._finalizer = weakref.finalize(self, close_all, self._slots)
        try:
            for index in range(count):
                # Interleaved: every worker has its share of each member and of the last episodes.
                slots = np.arange(index, total, count)
                setup = (make_env, len(slots), max_steps)
                self._slots[Worker(serve_evaluation, setup, env_name)] = slots
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Calling it again does nothing."""
        self._finalizer()

    def evaluate(
        self,
        agent: Any,
        keys: jax.Array,
        *,
        policy: Policy | None = None,
        video_episodes: int = 0,
        video_frame_skip: int = 3,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[EpisodeStats]:
        """Play `num_episodes` episodes with the agent of each member.

        It may be called from another thread than the one that trains, one call at a time; the
        agent's arrays must then not be donated meanwhile.

        Args:
            agent: Pytree whose arrays have a leading axis of size `num_members`.
            keys: PRNG keys, one per member; all randomness of the evaluation follows from them.
            policy: Who acts; by default the evaluator's policy. With equal keys two policies meet
                the same resets and the same noise.
            video_episodes: Number of episodes of each member to record.
            video_frame_skip: Every so many steps a frame is recorded, besides the last.
            should_stop: Asked at every step, and every 50 ms while waiting.

        Returns:
            Statistics of each member.

        Raises:
            Interrupted: `should_stop` returned True.
            UserError: An environment failed or its process died, or the policies of all members
                returned NaN or an infinity. The evaluator is closed then, as after any exception
                but an interruption.
        """
        if video_episodes and video_frame_skip < 1:
            raise UserError("a video needs a frame every 1 or more steps: set video_frame_skip so")
        if not self._finalizer.alive:
            raise RuntimeError("this Evaluator is closed")
        try:
            videos = video_episodes, video_frame_skip
            return self._evaluate(agent, keys, policy or self._policy, *videos, should_stop)
        except Interrupted:
            raise
        except BaseException:
            # A message may have been cut short: the pool is in no known state.
            self.close()
            raise

    def _evaluate(
        self,
        agent: Any,
        keys: jax.Array,
        policy: Policy,
        video_episodes: int,
        video_frame_skip: int,
        should_stop: Callable[[], bool],
    ) -> list[EpisodeStats]:
        for worker in self._slots:
            while worker.pending:  # The pool's start, or what an interrupted evaluation left.
                worker.receive(should_stop)

        agent, keys = jax.device_put((agent, keys), jax.local_devices(backend="cpu")[0])
        batch = (self.num_members, self.num_slots)
        env_seeds = np.asarray(_env_seeds(keys, np.arange(self.num_episodes)))
        for worker, slots in self._slots.items():
            queues = []
            for member, slot in zip(*np.unravel_index(slots, batch), strict=True):
                queues.append(
                    [
                        Episode(
                            e, int(env_seeds[member, e]), (e < video_episodes) * video_frame_skip
                        )
                        for e in range(slot, self.num_episodes, self.num_slots)
                    ]
                )
            worker.send(("start", queues))

        # Flat over (member, slot). The clock holds each slot's episode and its time step, which the
        # first observations turn to 0; rows without an episode stay in the batch as they are.
        active = np.zeros(math.prod(batch), bool)
        clock = np.stack([np.tile(np.arange(self.num_slots), self.num_members), -1 + 0 * active], 1)
        observations = None
        records: list[dict[int, dict[str, Any]]] = [{} for _ in range(self.num_members)]
        busy, diverged = list(self._slots), np.zeros(self.num_members, bool)
        while busy:
            clock[:, 1] += 1
            for worker in busy:
                slots = self._slots[worker]
                rows, active[slots], finished = worker.receive(should_stop)
                if observations is None:
                    observations = np.zeros((active.size, *rows.shape[1:]), rows.dtype)
                observations[slots] = rows
                for index, record in finished:
                    slot = slots[index]
                    clock[slot] = (clock[slot, 0] + self.num_slots, 0)
                    records[slot // self.num_slots][record["index"]] = record
            busy = [worker for worker, slots in self._slots.items() if active[slots].any()]
            if not busy:
                break
            if should_stop():
                raise Interrupted
            actions = _act(
                policy,
                agent,
                observations.reshape(*batch, *observations.shape[1:]),
                keys,
                clock.astype(np.int32).reshape(*batch, 2),
            )
            actions = np.asarray(actions).reshape(active.size, -1)
            finite = np.isfinite(actions)
            if not finite[active].all():
                wrong = (active & ~finite.all(axis=1)).reshape(batch).any(axis=1)
                diverged |= wrong
                if diverged.all():
                    raise UserError(
                        f"the policy returned NaN or infinite actions in {self._env_name}: its "
                        "parameters have diverged; go back to an earlier checkpoint"
                    )
                actions = np.where(finite, actions, 0)
            for worker in busy:
                worker.send(("step", actions[self._slots[worker]]))
        return [
            dataclasses.replace(
                _statistics([of[e] for e in range(self.num_episodes)]), diverged=bool(bad)
            )
            for of, bad in zip(records, diverged, strict=True)
        ]


def evaluate(
    agent: Any,
    env: gymnasium.Env,
    key: jax.Array,
    num_episodes: int = 50,
    policy: Policy = sample,
) -> dict[str, np.ndarray]:
    """Play episodes in one environment, in a plain loop.

    For notebooks, and for environments that fit into no pool of processes. It plays the episodes
    that `Evaluator` plays with the same key.

    Args:
        agent: One agent, without an axis of members.
        env: The environment; seeded here, episode by episode.
        key: All randomness follows from it.
        num_episodes: How many.
        policy: Who acts.

    Returns:
        Arrays (episodes,) by name, as in `EpisodeStats.metrics`.
    """
    act = jax.jit(policy)
    env_seeds = _env_seeds(key[None], np.arange(num_episodes))[0]
    records, measured = [], Environment(lambda: env)
    for episode in range(num_episodes):
        _, noise_key = _split(key, episode)
        observation, metrics = measured.reset(int(env_seeds[episode])), None
        steps = itertools.count()
        while metrics is None:
            action = act(agent, observation, jax.random.fold_in(noise_key, next(steps)))
            observation, _, _, metrics = measured.step(measured.clip(np.asarray(action)))
        records.append({"metrics": metrics, "frames": None})
    return _statistics(records).metrics


def _split(key: jax.Array, episode: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys of the environment's and of the policy's randomness in an episode."""
    env_key, noise_key = jax.random.split(jax.random.fold_in(key, episode))
    return env_key, noise_key


@jax.jit
def _env_seeds(keys: jax.Array, episodes: jax.Array) -> jax.Array:
    """Return seeds (members, episodes) from keys (members,) and indices (episodes,)."""

    def env_seed(key: jax.Array, episode: jax.Array) -> jax.Array:
        env_key, _ = _split(key, episode)
        return jax.random.randint(env_key, (), 0, jnp.iinfo(jnp.int32).max)

    return jax.vmap(jax.vmap(env_seed, in_axes=(None, 0)), in_axes=(0, None))(keys, episodes)


# At the module's level, so that the compiled program outlives an evaluator.
@functools.partial(jax.jit, static_argnums=0)
def _act(
    policy: Policy,
    agents: Any,
    observations: jax.Array,
    keys: jax.Array,
    clock: jax.Array,
) -> jax.Array:
    """Return actions (members, slots, act_dim).

    Takes agents (members, ...), observations (members, slots, ...), keys (members,) and the clock
    (members, slots, 2) of episodes and time steps.
    """

    def act(agent: Any, observation: jax.Array, key: jax.Array, clock: jax.Array) -> jax.Array:
        _, noise_key = _split(key, clock[0])
        return policy(agent, observation, jax.random.fold_in(noise_key, clock[1]))

    act_in_slots = jax.vmap(act, in_axes=(None, 0, None, 0), axis_name=BATCH)
    return jax.vmap(act_in_slots)(agents, observations, keys, clock)


def _statistics(records: Sequence[dict[str, Any]]) -> EpisodeStats:
    """Gather the records of one member, in the order of their episodes."""
    names = [n for n in records[0]["metrics"] if all(n in r["metrics"] for r in records)]
    return EpisodeStats(
        metrics={n: np.array([r["metrics"][n] for r in records]) for n in names},
        videos=[r["frames"] for r in records if r["frames"] is not None],
    )
