"""A run: what an entry point's loop calls at its stops, and what is prepared around the loop.

A run that is killed at any moment and started again by the same command ends as if nothing had
happened: everything the numbers depend on is either a function of the settings or in the
checkpoint, and rows logged after the last checkpoint are dropped and written again.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import jax
import numpy as np

from utils.agent_files import AgentFile
from utils.devices import describe_devices, put_on_devices
from utils.env_workers import Interrupted
from utils.runs.background import BackgroundEvaluation
from utils.runs.checks import UntouchedNetworks
from utils.runs.folder import RunFolder
from utils.runs.folders import RunFolders
from utils.runs.grids import Grid
from utils.runs.health import Health
from utils.runs.logs import Logs, say
from utils.runs.memory import require_device_memory
from utils.runs.online import OnlineTraining
from utils.runs.progress import Progress
from utils.runs.saves import Saves
from utils.runs.schedule import Intervals, Schedule, Stop, phases
from utils.runs.setup import make_evaluation, make_parts, open_logs
from utils.runs.signals import SEED_FAILED, Signals
from utils.runs.sources import collect_sources
from utils.runs.validation import Validation
from utils.training import Trainer, TrainingState


class Run:
    """One training run, as a context manager.

    Training goes on while an agent is evaluated. Until that is over, the last checkpoint stays that
    of its step, whose evaluation a resumed run repeats.

    Args:
        grid: The resolved settings, of each grid point.
        agent_file: The agent to train, checked.
        entry_point: The file with the loop.

    Attributes:
        settings: The settings, of the first grid point.
        seeds: The training seeds of all that are trained together, (members,).
        progress: How far it has come.
        logs: Its CSV files, once started.
        online: Its environments and replay, if it goes online.
    """

    def __init__(self, grid: Grid, agent_file: AgentFile, entry_point: Path | None = None):
        self.grid = grid
        self.settings = grid.settings
        self.agent_class = agent_file.agent_class
        flags = grid.settings.flags
        self.folders = RunFolders(grid, flags["overwrite"], keep_error=not flags["debug"])
        self.sources = collect_sources(grid.settings, agent_file, entry_point)
        self.signals = Signals()
        self.seeds = grid.seeds
        self.progress = Progress()
        self.logs: Logs | None = None
        self.online: OnlineTraining | None = None
        self._schedule: Schedule | None = None
        self._trainer: Trainer | None = None
        self._saves: Saves | None = None
        self._evaluation: BackgroundEvaluation | None = None
        self._validation: Validation | None = None
        self._untouched: UntouchedNetworks | None = None
        self._health: Health | None = None
        self._completed = False
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.signals)
            stack.enter_context(self.folders)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.__exit__(*exception)

    @property
    def folder(self) -> RunFolder:
        """The folder of the checkpoints: the run's or, of several grid points, one of all."""
        return self.folders.home

    # --- Start ------------------------------------------------------------------------------------

    def start(self) -> tuple[Trainer, TrainingState]:
        """Load data, build agents and environments, and resume from the last checkpoint.

        Raises:
            UserError: Data are missing or not those of the checkpoint, or it does not fit, or the
                environment cannot be made, or JAX lacks the device that it is told to use, or the
                device's memory is too small.
        """
        settings, flags, home = self.settings, self.settings.flags, self.folder.path
        print(f"{self.grid.table()}\ndevices: {describe_devices()}", flush=True)
        parts = make_parts(self.grid, self.agent_class, home / "replay")
        data, self.online, self._trainer = parts.data, parts.online, parts.trainer
        if self.online is not None:
            self._cleanup.callback(self.online.close)
        mesh = self._trainer.source.mesh
        p_aug = flags.get("p_aug") or 0.0
        self._validation = Validation(
            self.agent_class, data, settings.agent.batch_size, p_aug, self.seeds, mesh
        )
        if flags["eval_interval"]:
            self._evaluation = make_evaluation(self.grid, lambda: self.signals.received is not None)
            self._cleanup.callback(self._evaluation.close)
        state = parts.new_state(self.seeds)
        self._saves = Saves(home)
        self._cleanup.callback(self._saves.close)
        self.progress.dataset = data.fingerprint
        state, self.progress = self._saves.restore_or_begin(state, self.progress, self.grid)
        if not self.progress.last_logged and not flags["restore_path"]:  # no row yet
            self._untouched = UntouchedNetworks(parts.create)
        if self.online is not None:
            self.online.prepare(self.progress)
        self._health = Health(self.grid.members, self.progress, self._saves, self.online)
        self.logs, wandb = open_logs(
            self.grid, self.agent_class, self.folders, self.progress, data.example, self.sources
        )
        self._cleanup.callback(lambda: wandb.finish(exit_code=int(not self._completed)))
        state = put_on_devices(state, mesh)
        if self._saves.latest_step() is None:
            self._saves.write(self._health.good_state(state), self.progress)
        if self.progress.step < phases(flags, self.progress.online_start)[0].end:
            started = time.perf_counter()
            require_device_memory(self._trainer, state)
            state = jax.block_until_ready(self._trainer.compile(state))
            say(f"compiled in {time.perf_counter() - started:.1f} s")
        return self._trainer, state

    # --- The loop ---------------------------------------------------------------------------------

    def stops(self, extra: Sequence[int] = ()) -> Iterator[Stop]:
        """Yield the stops from the present step to the end of the run, or up to a signal.

        At the end of each phase a running evaluation is waited for.

        Args:
            extra: Further steps to stop at, where a changed loop does something of its own.
        """
        flags = self.settings.flags
        intervals = ("log_interval", "eval_interval", "save_interval", "save_minutes")
        self._schedule = Schedule(
            Intervals(*(flags[name] for name in intervals)),
            self.progress,
            chunk=self._trainer.chunk,
            stopped=lambda: self.signals.received is not None,
            may_save=self._may_save,
            extra=extra,
            alarmed=self._health.nobody_acts,
        )
        self.signals.noted = True
        for phase in phases(flags, self.progress.online_start):
            if self.progress.step > phase.end:
                continue
            with contextlib.suppress(Interrupted):  # by a signal; `end` sees to it
                for stop in self._schedule.stops(phase):
                    yield stop
                    if self._evaluation is not None and self._evaluation.done():
                        self._collect_evaluation()
                self._collect_evaluation()

    def _may_save(self, stop: Stop, step: int) -> bool:
        """Whether a checkpoint can be written: not behind an evaluation, nor in an episode."""
        running = self._evaluation and self._evaluation.running
        if running is not None and running.step != step:
            return False
        if self.online is None or step == stop.phase.end:
            return True
        return self.online.between_episodes()

    # --- What is done at a stop -------------------------------------------------------------------

    def log(self, state: TrainingState) -> TrainingState:
        """Write a row of train.csv per member: means since the last row, and validation losses.

        Metrics of updates are left out where there has been none.

        Returns:
            The state, its sums of metrics reset unless a longer run has no row here.

        Raises:
            UserError: No seed is left whose numbers are finite.
        """
        with self._schedule.paused():
            step = self.progress.step = int(state.step)
            training = state.mean_metrics()
            validation = self._validation.losses(state.agents, step)
            held_out = {f"validation/{name}": np.asarray(x) for name, x in validation.items()}
            updates = int(state.metric_count)
            failures = self._health.look(state.agents, training)
            regular = self._schedule.regular_row()
            self.logs.training(training | held_out, updates, regular)
            self._health.tell(failures)
            if self._untouched is not None:
                self._untouched.warn(state.agents, updates)
            return state.reset_metrics() if regular else state

    def evaluate(self, state: TrainingState) -> None:
        """Have a copy of the agents evaluated in the background; at a phase's end, wait for it."""
        with self._schedule.paused(), contextlib.suppress(Interrupted):
            self._collect_evaluation()  # the one before, if training has overtaken it
            self._note(state)
            self._schedule.note_evaluation()
            self._evaluation.begin(self._health.good_state(state), self.progress)
            if self._schedule.at_end() or not self._evaluation.beside_training:
                self._collect_evaluation()  # at the end, for the rows in the last checkpoint

    def _collect_evaluation(self) -> None:
        """Wait for the evaluation in the background, if there is one, and write its rows.

        Raises:
            Interrupted: A signal has stopped it.
            UserError: An environment failed, or the policy is no longer finite.
        """
        if self._evaluation is not None:
            diverged = self._evaluation.collect(self.logs)
            self._health.tell(self._health.look_at_evaluation(diverged))

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint.

        Raises:
            UserError: No seed is left whose parameters are finite, or it cannot be written.
        """
        with self._schedule.paused():
            self._note(state)
            self._saves.write(self._health.good_state(state), self.progress)
            self._schedule.saved()

    def _note(self, state: TrainingState) -> None:
        """Bring the host's side of a checkpoint, and the replay's, to the state's step."""
        self.progress.step = int(state.step)
        if self.online is not None:
            self.online.save(self._saves.oldest_step())

    # --- End --------------------------------------------------------------------------------------

    def end(self, state: TrainingState) -> int:
        """Write the score and the curves or, after a signal, a checkpoint; return the exit code."""
        if self.signals.received is not None:
            return self._stop(state)
        self.signals.noted = False
        for said in self.folders.write_scores(self.progress.online_start, self.progress.step):
            say(said)
        if failed := self._health.last_line():
            say(failed)
            return SEED_FAILED
        self._completed = True
        return 0

    def _stop(self, state: TrainingState) -> int:
        """Save after a signal: this step, or that of the evaluation which it ended."""
        progress, when = self.progress, ""
        try:
            self._collect_evaluation()
            self._note(state)
            state = self._health.good_state(state)
        except Interrupted:
            running = self._evaluation.running
            state, progress = running.state, running.progress
            when = ", where the evaluation that it ended began"
        self._saves.write(state, progress)  # a second signal does not disturb it
        name = self.signals.name
        say(f"{name}: saved step {progress.step}{when}; the same command resumes from there")
        return self.signals.exit_code
