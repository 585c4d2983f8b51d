"""Online training: one dispatch per environment step, and the environments on the host."""

import contextlib
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from utils.datasets import Batch
from utils.devices import put_on_devices
from utils.env_workers import (
    StepResult,
    TrainingEnvironment,
    Worker,
    close_all,
    describe,
    failure,
    serve_training,
)
from utils.errors import UserError
from utils.replay import Replay, Ring
from utils.training import (
    TrainingState,
    compiler_options,
    repeat_update,
    seed_keys,
    vmap_members,
)


class OnlineState(TrainingState):
    """What training carries from one environment step to the next, apart from the replay.

    Attributes:
        observations: What each member's environment shows, (members, o).
        actions: What the agents answer to it, (members, a).
        exploration_keys: Base keys of the noise in those answers, (members,).
    """

    observations: jax.Array
    actions: jax.Array
    exploration_keys: jax.Array

    @classmethod
    def create(cls, agents: Any, seeds: np.ndarray, example: Batch) -> Self:
        """Start as `TrainingState.create` does; there is no observation to act on yet."""
        first = {key: jnp.zeros_like(example[key][:1]) for key in ("observations", "actions")}
        more = {key: jnp.repeat(row, len(seeds), axis=0) for key, row in first.items()}
        keys = seed_keys(seeds, "exploration")
        return super().create(agents, seeds, example, exploration_keys=keys, **more)


class OnlineTrainer:
    """Inserts a transition, updates the agents and acts, as one program per environment step.

    Where columns are computed from episodes, the rows of a running episode are pending: sampled
    only after its end. As long as a member has no row at all to sample, nobody is updated.

    Args:
        replay: Where transitions go and batches come from.
        start: Step at which the online phase begins.
        utd: Updates per environment step.
    """

    def __init__(self, replay: Replay, start: int, utd: int = 1):
        self.replay = replay
        self.start = start
        self.utd = utd
        self._pending = np.zeros(replay.num_members, np.int32)
        options = compiler_options()
        self._jitted_step = jax.jit(self._step, donate_argnums=(0, 1), compiler_options=options)
        self._jitted_act = jax.jit(self._act, donate_argnums=0, compiler_options=options)

    def compile(self, state: OnlineState, ring: Ring) -> Ring:
        """Compile the program of `step`, by a step of no updates whose state is thrown away.

        What is pending is taken from the ring, which a checkpoint may have left in an episode.

        Returns:
            The ring, of which the row to be written next has been overwritten. Where no step is to
            come there is none, and nothing is compiled.
        """
        inserted = int(state.step) - self.start
        self._pending = self.replay.pending(ring, inserted)
        if self.replay.rows <= inserted < self.replay.capacity:
            return put_on_devices(ring, None)
        rows = {"observations": state.observations, "next_observations": state.observations}
        numbers = np.zeros(self.replay.num_members, np.float32)
        outcome = jax.tree.map(np.asarray, rows) | dict.fromkeys(
            ("rewards", "masks", "terminals"), numbers
        )
        state = put_on_devices(jax.tree.map(jnp.copy, state), None)
        return self._dispatch(state, put_on_devices(ring, None), outcome, 0)[1]

    @property
    def pending(self) -> np.ndarray:
        """Rows of each member's running episode that cannot be sampled yet, (members,)."""
        return self._pending.copy()

    def reset(self, state: OnlineState, observations: np.ndarray) -> OnlineState:
        """Act on the first observations (members, o). The state passed in is donated."""
        return self._jitted_act(state, observations)

    def end_episodes(self, state: OnlineState, ring: Ring) -> Ring:
        """End the running episodes here, because they cannot be gone on with; the ring is donated.

        Their last transitions count as cut off.
        """
        if "terminals" not in self.replay.stored:
            return ring
        ring = self._complete(ring, int(state.step) - self.start, np.arange(len(self._pending)))
        self._pending[:] = 0
        return ring

    def step(
        self, state: OnlineState, ring: Ring, outcome: dict[str, np.ndarray]
    ) -> tuple[OnlineState, Ring]:
        """Learn from one environment step of every member and choose the next actions.

        Args:
            state: Holds the observations and actions of that step; donated.
            ring: Arrays of the replay; donated.
            outcome: `next_observations` and the `observations` to act on next (members, o),
                `rewards`, `masks` and `terminals` (members,); the last is 1 where an episode ended.

        Returns:
            The state, with the next actions, and the ring.
        """
        self._pending += 1
        state, ring = self._dispatch(state, ring, outcome, self.utd)
        ended = np.flatnonzero(outcome["terminals"])
        if self.replay.columns and len(ended):
            ring = self._complete(ring, int(state.step) - self.start, ended)
        self._pending[ended] = 0
        return state, ring

    def batches(
        self, state: OnlineState, ring: Ring, member: int, pending: np.ndarray
    ) -> list[tuple[Batch, jax.Array]]:
        """Return what one member's updates of a step learned from: batches, and keys of noise.

        Args:
            state: The state before the step.
            ring: Arrays of the replay after it.
            member: Whose.
            pending: What `pending` was before it, (members,).
        """
        inserted = int(state.step) - self.start
        waiting = int(pending[member]) + 1 if self.replay.columns else None
        found = []
        for i in range(self.utd):
            number = self.start + inserted * self.utd + i
            batch = self.replay.batch(
                self.replay.dataset,
                ring,
                state.data_keys[member],
                number,
                member,
                inserted + 1,
                waiting,
            )
            found.append((batch, jax.random.fold_in(state.noise_keys[member], number)))
        return found

    def _complete(self, ring: Ring, inserted: int, members: np.ndarray) -> Ring:
        """Fill in the columns of the episodes of some members, which end here."""
        for member in members.tolist():
            ring = self.replay.complete(ring, member, inserted, int(self._pending[member]))
        return ring

    def _dispatch(
        self, state: OnlineState, ring: Ring, outcome: dict[str, np.ndarray], utd: int
    ) -> tuple[OnlineState, Ring]:
        """Run the program, with what it takes of the outcome."""
        if "terminals" not in self.replay.stored:
            outcome = {name: array for name, array in outcome.items() if name != "terminals"}
        pending = self._pending.copy() if self.replay.columns else None
        return self._jitted_step(state, ring, self.replay.dataset, outcome, utd, pending)

    def _act(self, state: OnlineState, observations: jax.Array) -> OnlineState:
        def one_member(agent, key, observation):
            return agent.sample_actions(observation, jax.random.fold_in(key, state.step), 1.0)

        actions = vmap_members(one_member, self.replay.num_members)(
            state.agents, state.exploration_keys, observations
        )
        return state.replace(observations=observations, actions=actions)

    def _step(
        self,
        state: OnlineState,
        ring: Ring,
        dataset: Batch,
        outcome: Batch,
        utd: jax.Array,
        pending: jax.Array | None,
    ) -> tuple[OnlineState, Ring]:
        inserted = state.step - self.start
        transitions = outcome | {"observations": state.observations, "actions": state.actions}
        ring = self.replay.insert(ring, transitions, inserted)
        updates = utd
        if pending is not None:
            available = self.replay.available(inserted + 1, pending)
            updates = jnp.where((available > 0).all(), utd, 0)

        def one_member(agent, data_key, noise_key, metric_sums, member, pending):
            def update(i, agent):
                number = self.start + inserted * utd + i
                batch = self.replay.batch(
                    dataset, ring, data_key, number, member, inserted + 1, pending
                )
                return agent.update(batch, jax.random.fold_in(noise_key, number))

            # `utd` is an argument: XLA would dissolve a loop of one update, and then copy the ring
            # in every step instead of writing one row of it.
            return repeat_update(update, updates, agent, metric_sums)

        agents, metric_sums = vmap_members(one_member, self.replay.num_members)(
            state.agents,
            state.data_keys,
            state.noise_keys,
            state.metric_sums,
            jnp.arange(self.replay.num_members),
            pending,
        )
        state = state.replace(
            agents=agents,
            step=state.step + 1,
            metric_sums=metric_sums,
            metric_count=state.metric_count + updates,
        )
        return self._act(state, outcome["observations"]), ring


class TrainingEnvs:
    """The environments of the online phase, one per member.

    The first member's is stepped in this process, while those of the others are in processes of
    their own: a message there and back costs more than many an environment's step. An episode is a
    function of its number, of the member's key and of the actions. The running ones can therefore
    be taken up again in another process by taking the same actions.

    Args:
        make_env: Makes an environment; see `utils.evaluation.Evaluator`.
        keys: The members' base keys of the environments' randomness, (members,).
        env_name: What messages call the environment.
        scale_rewards: Elementwise, from the environment's rewards to those that agents learn from;
            the metrics of episodes have the environment's own.

    Attributes:
        episodes: Number of the running episode, (members,).
        lengths: Steps taken in it, (members,).
        diverged: Whether an action of the member was not finite, (members,). Zeros took its place,
            so that the others can go on.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env],
        keys: jax.Array,
        env_name: str = "the environment",
        scale_rewards: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self.episodes = np.zeros(len(keys), int)
        self.lengths = np.zeros(len(keys), int)
        self.diverged = np.zeros(len(keys), bool)
        self._keys = keys
        self._next_seeds = episode_seeds(keys, self.episodes + 1)
        self._env_name = env_name
        self._scale_rewards = scale_rewards
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, close_all, self._workers)
        for _ in keys[1:]:
            self._workers.append(Worker(serve_training, make_env, env_name))
        with self._failures():
            self._env = TrainingEnvironment(make_env)
        for worker in self._workers:
            worker.receive()

    def close(self) -> None:
        """End the processes. Calling it again does nothing."""
        self._finalizer()

    def reset(
        self,
        episodes: Sequence[int] | None = None,
        actions: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Begin the first episodes, or take up those that were running.

        Args:
            episodes: Numbers of the episodes, (members,); by default those that `episodes` holds.
            actions: Actions to take in them, per member (steps, a); none by default.

        Returns:
            Observations (members, o).
        """
        if episodes is not None:
            self.episodes = np.array(episodes)
        seeds = episode_seeds(self._keys, self.episodes)
        self._next_seeds = episode_seeds(self._keys, self.episodes + 1)
        taken = [()] * len(seeds) if actions is None else [_finite(steps)[0] for steps in actions]
        self.lengths = np.array([len(steps) for steps in taken])
        return np.stack(self._call_all("replay", seeds, taken))

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[dict[str, float] | None]]:
        """Take one step in every environment; an episode that ends is followed by the next.

        Args:
            actions: (members, a).

        Returns:
            `next_observations` and `observations` (members, o), `rewards`, `masks` and `terminals`
            (members,), as `OnlineTrainer.step` wants them, and per member the metrics of the
            episode that ended, else None.

        Raises:
            UserError: An environment failed, or one of its numbers is not finite.
        """
        actions, finite = _finite(actions)
        self.diverged |= ~finite
        outcomes: list[StepResult] = self._call_all("advance", actions, self._next_seeds)
        following, rewards, masks, observations, metrics = zip(*outcomes, strict=True)
        following, rewards = np.stack(following), np.array(rewards, np.float32)
        if not (np.isfinite(following).all() and np.isfinite(rewards).all()):
            raise UserError(
                f"{self._env_name} returned NaN or infinity: its simulation has become unstable. "
                "The same command goes on from the last checkpoint; another --seed takes another "
                "course"
            )
        self.lengths += 1
        ended = [member for member, ending in enumerate(metrics) if ending is not None]
        if ended:
            self.lengths[ended] = 0
            self.episodes[ended] += 1
            self._next_seeds = episode_seeds(self._keys, self.episodes + 1)
        if self._scale_rewards is not None:
            rewards = np.asarray(self._scale_rewards(rewards), np.float32)
        terminals = np.zeros(len(metrics), np.float32)
        terminals[ended] = 1.0
        arrays = {
            "next_observations": following,
            "observations": np.stack(observations),
            "rewards": rewards,
            "masks": np.array(masks, np.float32),
            "terminals": terminals,
        }
        return arrays, list(metrics)

    def _call_all(self, method: str, *arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every environment, with one argument of each kind per member."""
        first, *others = zip(*arguments, strict=True)
        for worker, other in zip(self._workers, others, strict=True):
            worker.send((method, *other))
        with self._failures():
            result = getattr(self._env, method)(*first)
        return [result, *(worker.receive() for worker in self._workers)]

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Report a failure of this process's environment as a worker's would be."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise failure(self._env_name, describe(error), traceback.format_exc()) from error


def _finite(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return actions (n, a) with zeros for what is not finite, and which were, (n,)."""
    actions = np.asarray(actions)
    finite = np.isfinite(actions)
    return np.where(finite, actions, 0), finite.all(axis=tuple(range(1, actions.ndim)))


@jax.jit
def _seeds(keys: jax.Array, episodes: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in)(keys, episodes)
    sample = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.iinfo(jnp.int32).max))
    return sample(keys)


def episode_seeds(keys: jax.Array, episodes: np.ndarray) -> list[int]:
    """Return environment seeds (members,) of episodes (members,), by the members' base keys."""
    return _seeds(keys, episodes.astype(np.int32)).tolist()
