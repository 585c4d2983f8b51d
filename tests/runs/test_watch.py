"""Which failures a run speaks of, and when."""

import json

import pytest

from agents.deflow import DeFlowAgent
from utils.metrics import Signature
from utils.runs.members import Member
from utils.runs.progress import Progress
from utils.runs.watch import Watch

LOST = Signature("lost", "find it", above={"x": 1.0})
DRIFT = {"actor/divergence_ratio": 5.0}


def said(signatures, rows, interval=10, seed=0, progress=None, resumed=False):
    """Steps and texts of the warnings that rows give.

    Args:
        signatures: What is watched for.
        rows: The rows.
        interval: Steps between two.
        seed: Whose rows.
        progress: Where the run is.
        resumed: Whether it goes through a checkpoint after every row.
    """
    progress, lines = progress or Progress(), []
    for row in rows:
        progress.step += interval
        warnings = Watch(signatures, progress).warnings(row, Member(seed))
        lines += [(progress.step, line) for line in warnings]
        progress.last_logged = progress.step
        if resumed:
            progress = Progress.from_dict(json.loads(json.dumps(progress.as_dict())))
    return lines


def test_a_failure_is_spoken_of_in_its_third_row_running():
    text = "warning: seed 4, step 50: lost, for 30 steps now. Remedy: find it"
    rows = [{"x": value} for value in (2.0, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0)]
    assert said([LOST], rows[:5], seed=4) == []
    for resumed in (False, True):
        assert said([LOST], rows[1:], seed=4, resumed=resumed) == [(50, text)]


def test_a_failure_that_lapses_and_returns_is_not_spoken_of_again():
    rows = 3 * [*4 * [{"x": 2.0}], {"x": 0.0}]
    for resumed in (False, True):
        assert [step for step, _ in said([LOST], rows, resumed=resumed)] == [30]


def test_each_seed_and_each_failure_has_a_warning_of_its_own():
    progress = Progress()
    other = Signature("other", "seek it", below={"x": 9.0})
    lines = said([LOST, other], 3 * [{"x": 2.0}], progress=progress)
    assert ["lost" in line for _, line in lines] == [True, False]
    assert len(said([LOST, other], 5 * [{"x": 2.0}], seed=1, progress=progress)) == 2


@pytest.mark.parametrize("interval", [10, 100, 5000])
def test_the_divergence_is_spoken_of_where_it_stays_and_not_where_it_begins(interval):
    signatures = DeFlowAgent.SIGNATURES
    transient = [DRIFT] * max(1, 9_000 // interval)
    assert said(signatures, [*transient, *50 * [{"actor/divergence_ratio": 1.0}]], interval) == []
    ((step, line),) = said(signatures, [DRIFT] * (30_000 // interval), interval)
    assert step == max(10_000, 3 * interval)
    assert "divergence above twice its target" in line
    assert "Remedy: raise --agent.target_divergence" in line
