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
from utils.devices import place
from utils.env_workers import (
    Outcome,
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
    over_seeds,
    repeat_update,
    seed_keys,
)


class OnlineState(TrainingState):
    """What training carries from one environment step to the next, apart from the replay.

    Attributes:
        observations: What each seed's environment shows, (seeds, o).
        actions: What the agents answer to it, (seeds, a).
        exploration_keys: Base keys of the noise in those answers, (seeds,).
    """

    observations: jax.Array
    actions: jax.Array
    exploration_keys: jax.Array

    @classmethod
    def create(cls, agents: Any, seeds: np.ndarray, example: Batch) -> Self:
        """As `TrainingState.create`; there is no observation to act on yet."""
        first = {key: jnp.zeros_like(example[key][:1]) for key in ("observations", "actions")}
        more = {key: jnp.repeat(row, len(seeds), axis=0) for key, row in first.items()}
        keys = seed_keys(seeds, "exploration")
        return super().create(agents, seeds, example, exploration_keys=keys, **more)


class OnlineTrainer:
    """Inserts a transition, updates the agents and acts, as one program per environment step.

    Args:
        replay: Where transitions go and batches come from.
        start: Step at which the online phase begins.
        utd: Updates per environment step.
    """

    def __init__(self, replay: Replay, start: int, utd: int = 1):
        self.replay = replay
        self.start = start
        self.utd = utd
        options = compiler_options()
        self._jitted_step = jax.jit(self._step, donate_argnums=(0, 1), compiler_options=options)
        self._jitted_begin = jax.jit(self._begin, donate_argnums=0, compiler_options=options)

    def compile(self, state: OnlineState, ring: Ring) -> Ring:
        """Compile the program of `step`, by a step of no updates whose state is thrown away.

        Returns:
            The ring, of which the row to be written next has been overwritten.
        """
        rows = {"observations": state.observations, "next_observations": state.observations}
        numbers = np.zeros(self.replay.num_seeds, np.float32)
        outcome = jax.tree.map(np.asarray, rows) | {"rewards": numbers, "masks": numbers}
        state = place(jax.tree.map(jnp.copy, state), None)
        return self._jitted_step(state, place(ring, None), self.replay.dataset, outcome, 0)[1]

    def begin(self, state: OnlineState, observations: np.ndarray) -> OnlineState:
        """Act on the first observations (seeds, o). The state passed in is donated."""
        return self._jitted_begin(state, observations)

    def step(
        self, state: OnlineState, ring: Ring, outcome: dict[str, np.ndarray]
    ) -> tuple[OnlineState, Ring]:
        """Learn from one environment step of every seed and choose the next actions.

        Args:
            state: Holds the observations and actions of that step; donated.
            ring: Arrays of the replay; donated.
            outcome: `next_observations` and the `observations` to act on next (seeds, o),
                `rewards` and `masks` (seeds,).

        Returns:
            The state, with the next actions, and the ring.
        """
        return self._jitted_step(state, ring, self.replay.dataset, outcome, self.utd)

    def _begin(self, state: OnlineState, observations: jax.Array) -> OnlineState:
        def one_seed(agent, key, observation):
            return agent.sample_actions(observation, jax.random.fold_in(key, state.step))

        actions = over_seeds(one_seed, self.replay.num_seeds)(
            state.agents, state.exploration_keys, observations
        )
        return state.replace(observations=observations, actions=actions)

    def _step(
        self, state: OnlineState, ring: Ring, dataset: Batch, outcome: Batch, utd: jax.Array
    ) -> tuple[OnlineState, Ring]:
        inserted = state.step - self.start
        transitions = outcome | {"observations": state.observations, "actions": state.actions}
        ring = self.replay.insert(ring, transitions, inserted)

        def one_seed(agent, data_key, noise_key, metric_sums, seed):
            def update(i, agent):
                number = self.start + inserted * utd + i
                batch = self.replay.draw(dataset, ring, data_key, number, seed, inserted + 1)
                return agent.update(batch, jax.random.fold_in(noise_key, number))

            # `utd` is an argument: XLA would dissolve a loop of one update, and then copy the ring
            # in every step instead of writing one row of it.
            return repeat_update(update, utd, agent, metric_sums)

        agents, metric_sums = over_seeds(one_seed, self.replay.num_seeds)(
            state.agents,
            state.data_keys,
            state.noise_keys,
            state.metric_sums,
            jnp.arange(self.replay.num_seeds),
        )
        state = state.replace(
            agents=agents,
            step=state.step + 1,
            metric_sums=metric_sums,
            metric_count=state.metric_count + utd,
        )
        return self._begin(state, outcome["observations"]), ring


class Explorer:
    """The environments of the online phase, one per seed.

    The first seed's is stepped in this process, while those of the others are in processes of their
    own: a message there and back costs more than many an environment's step. An episode is a
    function of its number, of the seed's key and of the actions. The running ones can therefore be
    taken up again in another process by taking the same actions.

    Args:
        make_env: Makes an environment; see `utils.evaluation.Evaluator`.
        keys: The seeds' base keys of the environments' randomness, (seeds,).
        env_name: What messages call the environment.

    Attributes:
        episodes: Number of the running episode, (seeds,).
        lengths: Steps taken in it, (seeds,).
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env],
        keys: jax.Array,
        env_name: str = "the environment",
    ):
        self.episodes = np.zeros(len(keys), int)
        self.lengths = np.zeros(len(keys), int)
        self._keys = keys
        self._env_name = env_name
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

    def begin(
        self,
        episodes: Sequence[int] | None = None,
        actions: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Begin the first episodes, or take up those that were running.

        Args:
            episodes: Numbers of the episodes, (seeds,); by default those that `episodes` holds.
            actions: Actions to take in them, per seed (steps, a); none by default.

        Returns:
            Observations (seeds, o).
        """
        if episodes is not None:
            self.episodes = np.array(episodes)
        seeds = episode_seeds(self._keys, self.episodes)
        self._next_seeds = episode_seeds(self._keys, self.episodes + 1)
        taken = [()] * len(seeds) if actions is None else actions
        self.lengths = np.array([len(steps) for steps in taken])
        return np.stack(self._everywhere("replay", seeds, taken))

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[dict[str, float] | None]]:
        """Take one step in every environment; an episode that ends is followed by the next.

        Args:
            actions: (seeds, a).

        Returns:
            `next_observations` and `observations` (seeds, o), `rewards` and `masks` (seeds,), as
            `OnlineTrainer.step` wants them, and per seed the metrics of the episode that ended.

        Raises:
            UserError: A number is not finite, or an environment failed.
        """
        if not np.isfinite(actions).all():
            raise UserError(
                f"the policy returned NaN or infinite actions in {self._env_name}: its parameters "
                "have diverged; lower --agent.lr, or set --agent.q_agg=min"
            )
        outcomes: list[Outcome] = self._everywhere("advance", actions, self._next_seeds)
        following, rewards, masks, observations, metrics = zip(*outcomes, strict=True)
        following, rewards = np.stack(following), np.array(rewards, np.float32)
        if not (np.isfinite(following).all() and np.isfinite(rewards).all()):
            raise UserError(
                f"{self._env_name} returned NaN or infinity: its simulation has become unstable. "
                "The same command goes on from the last checkpoint; another --seed takes another "
                "course"
            )
        self.lengths += 1
        ended = [seed for seed, ending in enumerate(metrics) if ending is not None]
        if ended:
            self.lengths[ended] = 0
            self.episodes[ended] += 1
            self._next_seeds = episode_seeds(self._keys, self.episodes + 1)
        arrays = {
            "next_observations": following,
            "observations": np.stack(observations),
            "rewards": rewards,
            "masks": np.array(masks, np.float32),
        }
        return arrays, list(metrics)

    def _everywhere(self, method: str, *arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every environment, with one argument of each kind per seed."""
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


@jax.jit
def _seeds(keys: jax.Array, episodes: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in)(keys, episodes)
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.iinfo(jnp.int32).max))
    return draw(keys)


def episode_seeds(keys: jax.Array, episodes: np.ndarray) -> list[int]:
    """Environment seeds (seeds,) of the given episodes (seeds,), by the seeds' base keys."""
    return _seeds(keys, episodes.astype(np.int32)).tolist()
