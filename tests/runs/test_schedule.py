"""When the loop stops, and what is due there."""

import types

import pytest

from utils.runs import schedule as module
from utils.runs.progress import Progress
from utils.runs.schedule import Intervals, Phase, Schedule

ALL = ("log", "evaluate", "save")


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def read(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    time = types.SimpleNamespace(perf_counter=clock.read, monotonic=clock.read)
    monkeypatch.setattr(module, "time", time)
    return clock


def intervals(log=1000, evaluate=1000, save=1000, save_minutes=1e9):
    return Intervals(log, evaluate, save, save_minutes)


def walk(schedule, progress, phase, each_step=lambda step: None):
    """Do all that is due in a phase; returns (steps taken, step, names of what was due)."""
    course = []
    for stop in schedule.stops(phase):
        for step in stop:
            each_step(step)
        due = [name for name in ALL if getattr(stop, name)]
        if "log" in due:
            progress.last_logged = stop.step
        if "evaluate" in due:
            progress.last_evaluated = stop.step
        if "save" in due:
            schedule.saved()
        course.append((stop.steps, stop.step, due))
    return course


def due_at(course, name):
    return [step for _, step, due in course if name in due]


def test_what_is_due_counts_from_the_phases_start_and_at_its_end():
    progress = Progress()
    schedule = Schedule(intervals(3, 5, 7), progress)
    course = walk(schedule, progress, Phase(0, 16))
    assert due_at(course, "log") == [3, 6, 9, 12, 15, 16]
    assert due_at(course, "evaluate") == [5, 10, 15, 16]
    assert due_at(course, "save") == [7, 14, 16]
    assert progress.step == 16
    course = walk(schedule, progress, Phase(16, 26, online=True))
    assert due_at(course, "log") == [19, 22, 25, 26]
    # The online phase begins with the agent that the offline one ended with, evaluated already.
    assert due_at(course, "evaluate") == [21, 26]
    assert due_at(course, "save") == [23, 26]


def test_an_online_phase_that_comes_first_begins_with_an_evaluation():
    progress = Progress(step=40, last_logged=40)
    course = walk(Schedule(intervals(), progress), progress, Phase(40, 50, online=True))
    assert due_at(course, "evaluate") == [40, 50]
    assert due_at(course, "log") == [50]
    progress = Progress()
    course = walk(Schedule(intervals(), progress), progress, Phase(0, 10))
    assert due_at(course, "evaluate") == [10]


def test_the_first_stop_is_the_present_step_where_a_killed_evaluation_is_repeated():
    progress = Progress(step=20, last_logged=20, last_evaluated=10)
    course = walk(Schedule(intervals(10, 10, 10), progress), progress, Phase(0, 30))
    assert course[0] == (0, 20, ["evaluate", "save"])
    assert due_at(course, "evaluate") == [20, 30]
    progress = Progress(step=20, last_logged=20, last_evaluated=20)
    course = walk(Schedule(intervals(10, 10, 10), progress), progress, Phase(0, 30))
    assert course[0] == (0, 20, ["save"])


def test_extra_steps_are_stopped_at_and_nothing_is_due_there():
    progress = Progress(step=4)
    course = walk(Schedule(intervals(), progress, extra=[9, 3, 7]), progress, Phase(0, 100))
    assert [step for _, step, _ in course][:3] == [4, 5, 7]
    assert {7, 9} <= {step for _, step, _ in course}
    assert all(due == [] for _, step, due in course if step < 100)
    assert due_at(course, "log") == [100]


def test_without_evaluations_none_is_due():
    progress = Progress()
    schedule = Schedule(intervals(evaluate=0), progress)
    course = walk(schedule, progress, Phase(0, 5)) + walk(schedule, progress, Phase(5, 9, True))
    assert due_at(course, "evaluate") == []
    assert due_at(course, "log") == [5, 9]


@pytest.mark.parametrize("log", [40, 41, 23])
def test_chunks_are_whole_but_for_what_is_left_before_something_is_due(clock, log):
    progress = Progress()
    schedule = Schedule(intervals(log=log), progress, chunk=5)
    course = walk(schedule, progress, Phase(0, 200))
    assert sum(steps for steps, _, _ in course) == 200
    assert any(steps > 5 for steps, _, _ in course)
    assert all(steps % 5 == 0 for steps, _, due in course if not due)


@pytest.mark.parametrize("chunk", [1, 50])
def test_a_dispatch_takes_about_a_second(clock, chunk):
    def each_step(step):
        clock.now += 0.005

    progress = Progress()
    schedule = Schedule(intervals(log=10_000), progress, chunk=chunk)
    course = walk(schedule, progress, Phase(0, 10_000), each_step)
    taken = [steps for steps, _, _ in course]
    assert max(taken) <= 201
    assert len(taken) <= 10_000 / 200 + 10
    assert progress.seconds == pytest.approx(50.0)


def test_a_chunk_that_takes_longer_than_a_second_is_cut(clock):
    def each_step(step):
        clock.now += 0.5

    progress = Progress()
    schedule = Schedule(intervals(), progress, chunk=50)
    course = walk(schedule, progress, Phase(0, 200), each_step)
    assert [steps for steps, _, _ in course][:4] == [0, 50, 2, 2]


def test_seconds_are_those_of_training_up_to_the_stop_and_not_of_what_is_done_there(clock):
    progress = Progress()
    schedule = Schedule(intervals(), progress)
    for stop in schedule.stops(Phase(0, 10)):
        clock.now += 2.0 * stop.steps if stop.steps else 50.0  # as environments take to be made
        for _ in range(2):
            with schedule.paused():
                assert progress.seconds == pytest.approx(2.0 * stop.step)
                clock.now += 100.0
    assert progress.seconds == pytest.approx(20.0)


def test_a_signal_ends_the_steps_of_a_stop_and_nothing_is_due_any_more():
    stopped = []
    progress = Progress()
    schedule = Schedule(intervals(10, 10, 10), progress, stopped=lambda: bool(stopped))
    course = walk(
        schedule, progress, Phase(0, 50), lambda step: stopped.append(step) if step == 37 else None
    )
    assert course[-1][1:] == (37, [])
    assert progress.step == 37
    assert due_at(course, "log") == [10, 20, 30]


def test_a_signal_in_a_dispatch_that_ends_where_something_is_due():
    stopped = []
    progress = Progress()
    schedule = Schedule(intervals(10, 10, 10), progress, stopped=lambda: bool(stopped))
    walk(schedule, progress, Phase(0, 10), lambda step: stopped.append(1) if step == 10 else None)
    assert (progress.step, progress.last_logged, progress.last_evaluated) == (10, 0, -1)
    assert list(schedule.stops(Phase(10, 20))) == []


def test_a_save_waits_until_it_can_be_written_and_then_ends_the_steps():
    progress = Progress()
    schedule = Schedule(
        intervals(log=30, save=10), progress, may_save=lambda stop, step: step in (17, 40)
    )
    course = walk(schedule, progress, Phase(0, 40))
    assert due_at(course, "save") == [17, 40]  # 10 had to wait; so had 20 and 30
    assert {10, 20, 30} <= {step for _, step, _ in course}


def test_a_save_is_due_when_the_last_one_is_too_long_ago(clock):
    def each_step(step):
        clock.now += 30.0

    progress = Progress()
    schedule = Schedule(intervals(save_minutes=2.0), progress)
    course = walk(schedule, progress, Phase(0, 20), each_step)
    assert due_at(course, "save") == [5, 10, 15, 20]
