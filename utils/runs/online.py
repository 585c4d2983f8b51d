"""What going online adds to a run: environments, and a replay that survives a kill."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from utils.columns import ColumnFunction
from utils.datasets import Batch, DeviceDataset, device_memory
from utils.envs import tasks
from utils.errors import UserError
from utils.online import OnlineState, OnlineTrainer, TrainingEnvs
from utils.replay import Replay, ReplayLog, Ring
from utils.runs.logs import say
from utils.runs.progress import Progress
from utils.runs.settings import Settings
from utils.sampling import SamplingRule
from utils.training import seed_keys


class OnlineTraining:
    """The environments and the replay of a run's online phase.

    A checkpoint may fall on any environment step: the episodes that run there are taken up by
    their seeds and the actions in the replay. Those that are not asked for by a signal wait for the
    end of the first seed's episode, so that a single seed has nothing to take up. All seeds are on
    one device, where the replay is.

    Args:
        settings: The run's settings.
        seeds: The training seeds.
        replay: Folder of the inserted transitions.
        scale_rewards: From the environments' rewards to those that agents learn from.

    Attributes:
        envs: One environment per seed, once the phase has begun.
    """

    def __init__(
        self,
        settings: Settings,
        seeds: np.ndarray,
        replay: Path,
        scale_rewards: Callable[[Any], Any],
    ):
        self.envs: TrainingEnvs | None = None
        self._settings = settings
        self._seeds = seeds
        self._scale_rewards = scale_rewards
        self._log = ReplayLog(replay)
        self._replay: Replay | None = None
        self._trainer: OnlineTrainer | None = None
        self._ring: Ring | None = None
        self._progress = Progress()

    def make_source(
        self,
        transitions: Mapping[str, np.ndarray],
        columns: Mapping[str, ColumnFunction],
        rule: SamplingRule,
    ) -> DeviceDataset:
        """Put the training data on the device whatever happens, with the replay beside them.

        Raises:
            UserError: They do not fit on the device, or the data do not fit into the replay.
        """
        flags = self._settings.flags
        source = DeviceDataset(
            transitions, self._settings.agent.batch_size, columns=columns, rule=rule
        )
        inserts = min(flags["buffer_size"], flags["online_steps"])
        rows = source.size + len(self._seeds) * inserts
        size = rows * sum(array[:1].nbytes for array in source.arrays.values())
        memory = device_memory()
        if memory is not None and size > 0.8 * memory:
            raise UserError(
                f"dataset and replay take {size / 2**30:.1f} GiB of the device's "
                f"{memory / 2**30:.1f}: set a lower --buffer_size, --online_steps or --num_seeds"
            )
        self._replay = Replay(
            source.arrays,
            capacity=flags["buffer_size"],
            batch_size=source.batch_size,
            num_members=len(self._seeds),
            max_inserts=flags["online_steps"],
            from_dataset=flags["offline_steps"] > 0 or flags["restore_path"] is not None,
            balanced=flags["balanced_sampling"],
            columns=columns,
            rule=rule,
        )
        return source

    def prepare(self, progress: Progress) -> None:
        """Take up the run's progress, once it is known where the phase begins."""
        self._progress = progress
        self._trainer = OnlineTrainer(
            self._replay, progress.online_start, self._settings.flags["utd"]
        )

    def enter(self, state: OnlineState) -> OnlineState:
        """Make environments and replay, or take up the running episodes; does so once.

        Args:
            state: Training's state where the phase begins, or as it was resumed.
        """
        if self.envs is not None:
            return state
        state = state.replace(agents=state.agents.start_online())
        name = self._settings.env_name
        self.envs = TrainingEnvs(
            functools.partial(tasks.make_env, name),
            seed_keys(self._seeds, "environment"),
            tasks.short_name(name),
            self._scale_rewards,
        )
        inserted = int(state.step) - self._progress.online_start
        ring = self._log.restore(self._replay, inserted, self._progress.cuts)
        started = time.perf_counter()
        self._ring = jax.block_until_ready(self._trainer.compile(state, ring))
        say(f"compiled in {time.perf_counter() - started:.1f} s")
        if inserted == 0:
            return self._trainer.reset(state, self.envs.reset())
        return self._take_up_episodes(state, inserted)

    def _take_up_episodes(self, state: OnlineState, inserted: int) -> OnlineState:
        """Bring the environments to where they were when the checkpoint was saved."""
        progress, capacity = self._progress, self._replay.capacity
        actions = np.asarray(self._ring["actions"])
        rows = [np.arange(inserted - n, inserted) % capacity for n in progress.lengths]
        taken = [actions[i, chosen] for i, chosen in enumerate(rows)]
        observations = self.envs.reset(progress.episodes, taken)
        if np.array_equal(observations, state.observations):
            return state
        say(
            "warning: the environment does not repeat bit for bit on this machine: the running "
            "episodes end here, and the result will differ from an undisturbed run's"
        )
        self._ring = self._trainer.end_episodes(state, self._ring)
        progress.cuts.append(inserted)
        return self._trainer.reset(state, self.envs.reset(np.add(progress.episodes, 1)))

    def update(self, state: OnlineState, outcome: dict[str, np.ndarray]) -> OnlineState:
        """Insert one step's transitions, update the agents and choose the next actions.

        Args:
            state: Holds the observations and actions of that step; donated.
            outcome: What `envs.step` returned.
        """
        state, self._ring = self._trainer.step(state, self._ring, outcome)
        return state

    def pending(self) -> np.ndarray:
        """Return `OnlineTrainer.pending`, (seeds,)."""
        return self._trainer.pending

    def batches(
        self, state: OnlineState, member: int, pending: np.ndarray
    ) -> list[tuple[Batch, jax.Array]]:
        """Return what one seed learned from in the last step; see `OnlineTrainer.batches`."""
        return self._trainer.batches(state, self._ring, member, pending)

    def diverged(self) -> np.ndarray:
        """Return whether each seed has acted by numbers that are not finite, (seeds,)."""
        return np.zeros(len(self._seeds), bool) if self.envs is None else self.envs.diverged

    def between_episodes(self) -> bool:
        """Whether the first seed is between two episodes, or the phase has not begun."""
        return self.envs is None or self.envs.lengths[0] == 0

    def save(self, oldest: int) -> None:
        """Write what of the environments and the replay belongs to a checkpoint.

        Args:
            oldest: Step of the oldest checkpoint, whose replay is kept: those after it may turn
                out to be damaged.
        """
        if self.envs is None:
            return
        start = self._progress.online_start
        self._log.save(self._replay, self._ring, self._progress.step - start, oldest - start)
        self._progress.episodes = self.envs.episodes.tolist()
        self._progress.lengths = self.envs.lengths.tolist()

    def close(self) -> None:
        """End the environments' processes."""
        if self.envs is not None:
            self.envs.close()
