"""A run that goes on online: after `utils.runs.run`, the environment's side of it."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from utils.datasets import TRANSITION_KEYS, DeviceDataset, device_memory
from utils.envs import names, tasks
from utils.errors import UserError
from utils.online import Explorer, OnlineState, OnlineTrainer
from utils.replay import Replay, ReplayLog
from utils.report.csv_log import CsvLog
from utils.runs.run import Phase, Run
from utils.runs.settings import Settings
from utils.training import seed_keys


class OnlineRun(Run):
    """A run of `offline_steps` updates, or of none from `restore_path`, and `online_steps` more.

    A checkpoint may fall on any environment step: the episodes that run there are taken up by
    their seeds and the actions in the replay. Those that are not asked for by a signal wait for the
    end of the first seed's episode, so that a single seed has nothing to take up. All seeds are on
    one device, where the replay is.
    """

    state_class = OnlineState

    def __init__(self, settings: Settings, agent_class: type):
        super().__init__(settings, agent_class)
        if settings.flags["restore_path"] and settings.origins["offline_steps"] == "flag":
            raise UserError(
                "--restore_path takes the place of the offline phase: give it or --offline_steps"
            )
        self._explorer: Explorer | None = None

    def _make_source(self, transitions: dict[str, np.ndarray]) -> DeviceDataset:
        """As `Run._make_source`, but on the device whatever happens, with the replay beside it.

        Raises:
            UserError: They do not fit on the device, or the data do not fit into the replay.
        """
        values = self.settings.flags
        inserts = min(values["buffer_size"], values["online_steps"])
        rows = len(transitions["actions"]) + len(self.seeds) * inserts
        size = rows * sum(transitions[key][:1].nbytes for key in TRANSITION_KEYS)
        memory = device_memory()
        if memory is not None and size > 0.8 * memory:
            raise UserError(
                f"dataset and replay take {size / 2**30:.1f} GiB of the device's "
                f"{memory / 2**30:.1f}: set a lower --buffer_size, --online_steps or --num_seeds"
            )
        source = DeviceDataset(transitions, self.settings.agent.batch_size)
        self._replay = Replay(
            source.arrays,
            capacity=values["buffer_size"],
            batch_size=source.batch_size,
            num_seeds=len(self.seeds),
            max_inserts=values["online_steps"],
            from_dataset=values["offline_steps"] > 0 or values["restore_path"] is not None,
            balanced=values["balanced_sampling"],
        )
        return source

    def _resume(self) -> None:
        super()._resume()
        self.host.setdefault("boundary", self.settings.flags["offline_steps"])
        self.boundary = self.host["boundary"]
        self._online = OnlineTrainer(self._replay, self.boundary, self.settings.flags["utd"])
        self._episode_log = CsvLog(self.folder / "episodes.csv")
        self._episode_log.keep_through(self.step)
        self._replay_log = ReplayLog(self.folder / "replay")

    def _start_from(self, path: str) -> int:
        """As `Run._start_from`; steps count on from there."""
        step = super()._start_from(path)
        self.state = self.state.replace(step=jnp.full_like(self.state.step, step))
        self.host |= {"boundary": step, "last_logged": step}
        return step

    def train(self) -> int:
        """As `Run.train`, offline and then online."""
        return self._train_offline(self.boundary) or self._train_online()

    def _train_online(self) -> int:
        values = self.settings.flags
        self.state = self.state.replace(agents=self.state.agents.start_online())
        self._reward_shift = names.reward_shift(self.settings.env_name)
        self._explorer = Explorer(
            functools.partial(tasks.make_env, self.settings.env_name),
            seed_keys(self.seeds, "environment"),
            self.settings.env_name,
        )
        self._cleanup.callback(self._explorer.close)
        inserted = self.step - self.boundary
        ring = self._replay_log.restore(self._replay, inserted)
        started = time.perf_counter()
        self._ring = jax.block_until_ready(self._online.compile(self.state, ring))
        self._say(f"compiled in {time.perf_counter() - started:.1f} s")
        if inserted == 0:
            self.state = self._online.begin(self.state, self._explorer.begin())
        else:
            self._take_up_episodes(inserted)
        end = self.boundary + values["online_steps"]
        return self._train(
            Phase(self.boundary, end, "step", self._explore, values["utd"], evaluate_first=True)
        )

    def _take_up_episodes(self, inserted: int) -> None:
        """Bring the environments to where they were when the checkpoint was saved."""
        episodes, lengths = self.host["episodes"], self.host["lengths"]
        actions, capacity = np.asarray(self._ring["actions"]), self._replay.capacity
        rows = [np.arange(inserted - length, inserted) % capacity for length in lengths]
        taken = [actions[i, chosen] for i, chosen in enumerate(rows)]
        observations = self._explorer.begin(episodes, taken)
        if not np.array_equal(observations, self.state.observations):
            self._say(
                "warning: the environment does not repeat bit for bit on this machine: the running "
                "episodes end here, and the result will differ from an undisturbed run's"
            )
            observations = self._explorer.begin(np.add(episodes, 1))
            self.state = self._online.begin(self.state, observations)

    def _explore(self, steps: int) -> None:
        """Take at most `steps` environment steps, with the updates that belong to them."""
        step = self.step
        for _ in range(steps):
            outcome, ended = self._explorer.step(np.asarray(self.state.actions))
            outcome["rewards"] += self._reward_shift
            self.state, self._ring = self._online.step(self.state, self._ring, outcome)
            step += 1
            for seed, metrics in zip(map(int, self.seeds), ended, strict=True):
                if metrics is not None:
                    self._episode_log.append({"step": step, "seed": seed, **metrics})
                    self._log_wandb(metrics, step, seed, "exploration")
            if self._received is not None or (self._save_wanted and self._may_save()):
                break
        jax.block_until_ready(self.state)

    def _may_save(self) -> bool:
        explorer = self._explorer
        between = explorer is None or explorer.lengths[0] == 0 or self.step == self._phase.end
        return between and super()._may_save()

    def _checkpoint(self) -> tuple[OnlineState, dict[str, Any]]:
        """As `Run._checkpoint`; the replay is saved by what it has gained."""
        if self._explorer is not None:
            inserted, saved = (
                step - self.boundary for step in (self.step, self.checkpoints.latest_step())
            )
            self._replay_log.save(self._replay, self._ring, inserted, needed=saved)
            self.host["episodes"] = self._explorer.episodes.tolist()
            self.host["lengths"] = self._explorer.lengths.tolist()
        return super()._checkpoint()
