"""When a run stops to log, evaluate and save."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from utils.progress_bar import progress_bar
from utils.runs.progress import Progress

_DISPATCH_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training; intervals count from its start.

    Attributes:
        start: Step at which it begins.
        end: Step at which it ends.
        online: Whether steps are those of an environment, else updates.
        last: Whether the run ends with it.
    """

    start: int
    end: int
    online: bool = False
    last: bool = True


def phases(flags: Mapping[str, Any], online_start: int | None) -> list[Phase]:
    """Return the phases of a run with these flags that goes online at a step, if it does."""
    if online_start is None:
        return [Phase(0, flags["offline_steps"])]
    end = online_start + flags["online_steps"]
    return [Phase(0, online_start, last=False), Phase(online_start, end, online=True)]


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Steps between rows of train.csv, evaluations (0: none) and checkpoints."""

    log: int
    evaluate: int
    save: int
    save_minutes: float


class Stop:
    """The next step at which the loop stops, and what is due there.

    What is due is asked after the state has been brought to it. Iterating takes its steps one by
    one, and ends early for a signal, for a save that had to wait, or for numbers that are no
    longer finite; `step` then moves there.

    Attributes:
        start: Step at which the loop is.
        step: Step to advance to; the first stop is where the run is.
        phase: The phase it belongs to.
    """

    def __init__(self, start: int, step: int, phase: Phase, schedule: "Schedule"):
        self.start = start
        self.step = step
        self.phase = phase
        self._schedule = schedule

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start + 1, self.step + 1):
            yield step
            if self._schedule.ends_early(self, step):
                self.step = step
                return

    @property
    def steps(self) -> int:
        """Number of steps to take."""
        return self.step - self.start

    @property
    def online(self) -> bool:
        """Whether they are steps of an environment."""
        return self.phase.online

    @property
    def log(self) -> bool:
        """Whether a row of train.csv is due."""
        return self._schedule.log_due(self)

    @property
    def evaluate(self) -> bool:
        """Whether an evaluation is due."""
        return self._schedule.evaluation_due(self)

    @property
    def save(self) -> bool:
        """Whether a checkpoint is due and can be written here."""
        return self._schedule.save_due(self)


class Schedule:
    """Stops of one phase after the other.

    Args:
        intervals: How often what is due.
        progress: Where the run is; kept up to date.
        chunk: Where nothing is due in between, stops lie a multiple of so many steps apart, or
            fewer if so many take longer than a dispatch should.
        stopped: Whether the run has been asked to stop.
        may_save: Whether, on the way to a stop, a checkpoint can be written at a step.
        extra: Further steps to stop at.
        alarmed: Whether numbers have been seen that ask for a row of train.csv now.
    """

    def __init__(
        self,
        intervals: Intervals,
        progress: Progress,
        *,
        chunk: int = 1,
        stopped: Callable[[], bool] = lambda: False,
        may_save: Callable[[Stop, int], bool] = lambda stop, step: True,
        extra: Sequence[int] = (),
        alarmed: Callable[[], bool] = lambda: False,
    ):
        self._intervals = intervals
        self._progress = progress
        self._chunk = chunk
        self._stopped = stopped
        self._may_save = may_save
        self._extra = sorted(extra)
        self._alarmed = alarmed
        self._last_save = time.monotonic()
        self._save_wanted = False
        self._stop: Stop | None = None
        self._began = 0.0

    def stops(self, phase: Phase) -> Iterator[Stop]:
        """Yield the stops from the present step to the end of a phase."""
        steps = 0  # the first stop is where the run is
        unit = "step" if phase.online else "update"
        with progress_bar(phase.end, "training", unit=unit, initial=self._progress.step) as bar:
            while not self._stopped():
                start, seconds = self._progress.step, self._progress.seconds
                stop = Stop(start, min(self._next(start, phase), start + steps), phase, self)
                self._stop, self._began = stop, time.perf_counter()
                yield stop
                self._count_seconds()
                self._progress.step = stop.step
                bar.update(stop.steps)
                if stop.step == phase.end:
                    return
                steps = self._chunk
                if stop.steps:
                    steps = self._dispatch(stop.steps, self._progress.seconds - seconds)

    def _dispatch(self, steps: int, elapsed: float) -> int:
        """Return how many steps to take next, from how long the last ones took.

        Long enough to hide the dispatch, short enough to answer a signal. That the number depends
        on the clock cannot show in the results.
        """
        fitting = _DISPATCH_SECONDS / max(elapsed, 1e-9) * steps
        steps = math.ceil(min(fitting, max(4 * steps, self._chunk)))
        return steps - steps % self._chunk if steps > self._chunk else steps

    def _next(self, step: int, phase: Phase) -> int:
        """Return the next step at which something is due."""
        done = step - phase.start
        intervals = (self._intervals.log, self._intervals.evaluate, self._intervals.save)
        stops = [phase.start + (done // every + 1) * every for every in intervals if every]
        return min([phase.end, *stops, *(extra for extra in self._extra if extra > step)])

    def _count_seconds(self) -> None:
        """Count the time since the loop went on as training, unless it stays at its step."""
        if self._stop.steps:
            self._progress.seconds += time.perf_counter() - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what is done meanwhile out of the time that training takes."""
        self._count_seconds()
        try:
            yield
        finally:
            self._began = time.perf_counter()

    # --- What is due ------------------------------------------------------------------------------

    def _due(self, stop: Stop, interval: int) -> bool:
        done = stop.step - stop.phase.start
        return done > 0 and (done % interval == 0 or stop.step == stop.phase.end)

    def log_due(self, stop: Stop) -> bool:
        """Whether a row of train.csv is due."""
        due = self._due(stop, self._intervals.log) or self._alarmed()
        return due and not self._stopped() and self._progress.last_logged < stop.step

    def evaluation_due(self, stop: Stop) -> bool:
        """Whether an evaluation is due; an online phase begins with one."""
        if not self._intervals.evaluate or self._stopped():
            return False
        first = stop.online and stop.step == stop.phase.start
        due = first or self._due(stop, self._intervals.evaluate)
        return due and self._progress.last_evaluated < stop.step

    def save_due(self, stop: Stop) -> bool:
        """Whether a checkpoint is due, and can be written at this step."""
        overdue = time.monotonic() - self._last_save > 60 * self._intervals.save_minutes
        self._save_wanted |= overdue or self._due(stop, self._intervals.save)
        return self._save_wanted and not self._stopped() and self._may_save(stop, stop.step)

    def saved(self) -> None:
        """Take note of a checkpoint."""
        self._last_save = time.monotonic()
        self._save_wanted = False

    def at_end(self) -> bool:
        """Whether the loop is at the last step of its phase."""
        return self._stop.step == self._stop.phase.end

    def _regular(self, interval: int) -> bool:
        phase, step = self._stop.phase, self._stop.step
        return not (phase.last and step == phase.end and (step - phase.start) % interval)

    def regular_row(self) -> bool:
        """Whether a longer run too has a row of train.csv here."""
        return self._regular(self._intervals.log)

    def note_evaluation(self) -> None:
        """Take note of an evaluation that begins, if a longer run too has one here."""
        if self._regular(self._intervals.evaluate):
            self._progress.regular_evaluated = self._progress.step

    def ends_early(self, stop: Stop, step: int) -> bool:
        """Whether the loop has to leave the steps of a stop at this one."""
        waited = self._save_wanted and self._may_save(stop, step)
        return waited or self._stopped() or self._alarmed()
