"""--debug: where the NaN that ended a run, or one of its seeds, comes from.

The run is replayed from its last good checkpoint, compiled as before, up to the last good update.
The one that fails is then run operation by operation. The run's folder stays as it is.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from utils.checkpoints import FOLDER
from utils.devices import put_on_devices
from utils.errors import UserError
from utils.report.csv_log import read_csv
from utils.report.scores import failed_seeds
from utils.runs.eager import Finding, find_line
from utils.runs.health import finite_members, not_finite
from utils.runs.logs import say
from utils.runs.members import Member
from utils.runs.online import OnlineTraining
from utils.runs.progress import Progress
from utils.runs.run import Run
from utils.runs.saves import Saves
from utils.runs.schedule import Intervals, Schedule, Stop, phases
from utils.runs.setup import make_parts
from utils.training import Trainer, TrainingState

_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


def debug(main: Callable[[Any], int], run: Run) -> int:
    """Replay a run that has failed, by its entry point's loop; nothing is written.

    Args:
        main: The loop.
        run: The run, in whose folder the checkpoint is.

    Returns:
        0 where no number that is not finite was met.

    Raises:
        UserError: One was met, where and in what; or there is nothing to replay.
    """
    if run.settings.flags["overwrite"]:
        raise UserError("--overwrite deletes what --debug looks into; give one of them")
    if not (run.folder.path / FOLDER).is_dir():
        raise UserError(
            f"there is no run to debug in {run.folder.path}; give the command of the run that "
            "failed, and --debug"
        )
    with run:
        run.folders.require_own()
        run.folders.require_same_sources(run.sources, start_over=False)
        with contextlib.closing(DebugRun(run)) as replay:
            return main(replay)


class Detector:
    """Looks for numbers that are not finite, and for the line that makes them.

    Args:
        members: Who is trained.
        watched: Whether to look at a member, (members,).
    """

    def __init__(self, members: Sequence[Member], watched: np.ndarray):
        self._members = members
        self._watched = watched

    def first_bad(self, state: TrainingState) -> int | None:
        """Return the first member with numbers that are not finite, None if there is none."""
        bad = ~np.asarray(finite_members((state.agents, state.metric_sums))) & self._watched
        return int(bad.argmax()) if bad.any() else None

    def explain(
        self, after: TrainingState, member: int, step: int, update: Callable[[], Any]
    ) -> UserError:
        """Return the error that names the line.

        Args:
            after: The state after the update, compiled, with the metrics of that update alone.
            member: Whose numbers are not finite.
            step: The step before it.
            update: Does the same for the member's agent alone.
        """
        agent = jax.tree.map(lambda leaf: leaf[member : member + 1], after.agents)
        metrics = {name: value[member : member + 1] for name, value in after.mean_metrics().items()}
        checks = {name: np.isfinite(value) for name, value in metrics.items()}
        for name, params in agent.network.params.items():
            checks[f"the parameters of {name}"] = np.asarray(finite_members(params))
        (bad,) = not_finite(checks)
        begin = f"seed {self._members[member]}, update after step {step}"
        found = find_line(update) or find_line(update, infinities=True)
        if found is None:
            return UserError(
                f"{begin}: NaN or infinity in {bad or 'its state'} where it is compiled, and none "
                "where it runs operation by operation, which rounds otherwise: look for values "
                "near the limits of float32 there"
            )
        details = [f"{begin}: NaN or infinity in {bad or 'its state'}", f"  {found.line}"]
        details += [f"    {line}" for line in found.details]
        if any("infinite" in line for line in found.details) and found.what.startswith("NaN"):
            details += _origin(find_line(update, infinities=True))
        message = f"{begin}: {found.what} at {found.place}; mend that line, then start over"
        return UserError(message, "\n".join(details))


def _origin(found: Finding | None) -> list[str]:
    """Return lines on where an infinity arose first, of which a NaN was made."""
    if found is None:
        return []
    begin = f"  the first infinity, which may be meant: {found.what} at {found.place}"
    return [begin, f"  {found.line}", *(f"    {line}" for line in found.details)]


class DebugTrainer:
    """Takes a trainer's place: the same updates, until a number is not finite.

    Args:
        trainer: Does the updates.
        detector: Looks at their results.
    """

    def __init__(self, trainer: Trainer, detector: Detector):
        self._trainer = trainer
        self._detector = detector

    def update(self, state: TrainingState, num_updates: int) -> TrainingState:
        """Do updates as `Trainer.update` does.

        Raises:
            UserError: A number is not finite; names the line.
        """
        good = _copy(state)
        state = self._trainer.update(state, num_updates)
        if self._detector.first_bad(state) is None:
            return state
        while num_updates > 1:
            half = num_updates // 2
            middle = self._trainer.update(_copy(good), half)
            if self._detector.first_bad(middle) is None:
                good, num_updates = middle, num_updates - half
            else:
                num_updates = half
        good = good.reset_metrics()
        after = self._trainer.update(_copy(good), 1)
        member = self._detector.first_bad(after)
        agent = jax.tree.map(lambda leaf: leaf[member], good.agents)
        batch, key = self._trainer.next_batch(good, member)
        agent, batch, key = put_on_devices((agent, batch, key), None)
        step = int(good.step)
        raise self._detector.explain(after, member, step, lambda: agent.update(batch, key))


class DebugOnline:
    """Takes the place of a run's online phase: the same steps, until a number is not finite.

    Args:
        online: Its environments and replay.
        detector: Looks at the results.
    """

    def __init__(self, online: OnlineTraining, detector: Detector):
        self._online = online
        self._detector = detector

    @property
    def envs(self) -> Any:
        """The environments."""
        return self._online.envs

    def enter(self, state: Any) -> Any:
        """Begin the phase, or take up the running episodes."""
        return self._online.enter(state)

    def update(self, state: Any, outcome: dict[str, np.ndarray]) -> Any:
        """Insert, learn and act as `OnlineTraining.update` does.

        Raises:
            UserError: A number is not finite; names the line.
        """
        good, pending = _copy(state), self._online.pending()
        state = self._online.update(state.reset_metrics(), outcome)
        if (member := self._detector.first_bad(state)) is None:
            return state
        batches = self._online.batches(good, member, pending)

        def update() -> None:
            agent = jax.tree.map(lambda leaf: leaf[member], good.agents)
            for batch, key in batches:
                agent, _ = agent.update(batch, key)

        raise self._detector.explain(state, member, int(good.step), update)


class _NoLogs:
    """Takes the place of a run's logs."""

    def episodes(self, step: int, ended: Sequence[dict[str, float] | None]) -> None:
        """Write nothing."""


class DebugRun:
    """Takes a run's place in its entry point's loop.

    Args:
        run: The run, of which nothing is changed.

    Attributes:
        settings: The run's settings.
        seeds: The training seeds of all that are trained together, (members,).
        progress: How far the replay is.
        logs: Writes nothing.
        online: Environments and replay, if the run goes online.
    """

    def __init__(self, run: Run):
        self.settings = dataclasses.replace(
            run.settings, flags=run.settings.flags | {"eval_interval": 0}
        )
        self.seeds = run.seeds
        self.progress = Progress()
        self.logs = _NoLogs()
        self.online: DebugOnline | None = None
        self._run = run
        self._begin = 0
        self._until: int | None = None
        self._chunk = 1
        self._cleanup = contextlib.ExitStack()

    def close(self) -> None:
        """End the environments' processes."""
        self._cleanup.close()

    def start(self) -> tuple[DebugTrainer, TrainingState]:
        """Prepare training as it was at the last good checkpoint.

        Raises:
            UserError: There is none, or it cannot be replayed from there.
        """
        run, folder = self._run, self._run.folder.path
        replay = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory())) / "replay"
        if (folder / "replay").is_dir():  # links, because what is later than the checkpoint goes
            shutil.copytree(
                folder.absolute() / "replay", replay, copy_function=lambda a, b: os.symlink(a, b)
            )
        grid = dataclasses.replace(run.grid, points=(self.settings, *run.grid.points[1:]))
        parts = make_parts(grid, run.agent_class, replay)
        saves = Saves(folder, read_only=True)
        self._cleanup.callback(saves.close)
        restored = saves.restore(parts.new_state(self.seeds), parts.data.fingerprint)
        if restored is None:
            raise UserError(f"the run in {folder} has no checkpoint to replay it from; start over")
        state, self.progress = restored
        detector, state = self._choose(state.reset_metrics())
        if parts.online is not None:
            self._cleanup.callback(parts.online.close)
            parts.online.prepare(self.progress)
            self.online = DebugOnline(parts.online, detector)
        self._chunk = parts.trainer.chunk
        self._begin = self.progress.step
        say(f"debug: replaying from step {self._begin}; nothing is written")
        return (
            DebugTrainer(parts.trainer, detector),
            put_on_devices(state, parts.trainer.source.mesh),
        )

    def _choose(self, state: TrainingState) -> tuple[Detector, TrainingState]:
        """Return whom to watch, and the state from which that seed goes on.

        A seed that failed beside others stays at an earlier checkpoint than they.
        """
        grid, members = self._run.grid, self._run.grid.members
        if not self.progress.failed:
            marked = [failed_seeds(read_csv(p.folder / "train.csv")) for p in grid.points]
            self._until = max((step for seeds in marked for step in seeds.values()), default=None)
            return Detector(members, np.ones(len(members), bool)), state
        failure, *others = self.progress.failed
        start = self.progress.online_start
        if start is not None and failure.checkpoint > start:
            raise UserError(
                f"seed {failure.seed} failed online at step {failure.step}, while others went on: "
                "its environment cannot be brought back to there; train it alone with "
                f"--seed={failure.seed} --num_seeds=1, and debug that run"
            )
        if others:
            listed = ", ".join(str(other.seed) for other in others)
            say(f"debug: looks at seed {failure.seed}, the first that failed; then {listed} did")
        self.progress.step = failure.checkpoint
        self._until = failure.step
        state = state.replace(step=jnp.full_like(state.step, failure.checkpoint))
        return Detector(members, np.array([failure.is_of(member) for member in members])), state

    def stops(self, extra: Sequence[int] = ()) -> Iterator[Stop]:
        """Yield the stops that the run had, up to the row that showed the failure."""
        flags = self.settings.flags
        intervals = Intervals(
            flags["log_interval"], flags["eval_interval"], flags["save_interval"], float("inf")
        )
        schedule = Schedule(intervals, self.progress, chunk=self._chunk, extra=extra)
        for phase in phases(flags, self.progress.online_start):
            if self.progress.step > phase.end:
                continue
            for stop in schedule.stops(phase):
                if self._until is not None and stop.start >= self._until:
                    return
                yield stop

    def log(self, state: TrainingState) -> TrainingState:
        """Write nothing; return the state, its sums of metrics reset."""
        self.progress.last_logged = int(state.step)
        return state.reset_metrics()

    def evaluate(self, state: TrainingState) -> None:
        """Evaluate nothing."""

    def save(self, state: TrainingState) -> None:
        """Save nothing."""

    def end(self, state: TrainingState) -> int:
        """Say that nothing was found; return the exit code."""
        say(
            f"debug: no NaN or infinity from step {self._begin} to {int(state.step)}: "
            "the run has not failed there, or does not repeat bit for bit on this machine"
        )
        return 0
