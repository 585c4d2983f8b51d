import numpy as np
import pytest

from tests.report.cells import CUBE, make_cell
from utils.report.mean_curves import MeanCurve
from utils.report.panel_published import published_curves, published_levels
from utils.report.published.curves import curve
from utils.report.published.results import find

ANTMAZE = "antmaze-large-navigate-singletask-task1-v0"


def test_published_curves_are_those_of_ones_own_tasks_under_one_name():
    cells = [make_cell(task, label) for task in (CUBE.format(1), ANTMAZE) for label in "ab"]
    found = published_curves(cells, [("qam", "FQL")])
    assert [one.task for one in found] == [CUBE.format(1), ANTMAZE]
    assert {one.metric for one in found} == {"success"}
    (name,) = {one.name for one in found}
    assert "12 seeds" in name
    assert "chunks of 5 actions in 1 of 2" in name
    published = curve("qam", "FQL", ANTMAZE)
    offline = published.steps <= 1_000_000
    np.testing.assert_array_equal(found[1].curve.values, published.values[:, offline])
    np.testing.assert_array_equal(found[1].curve.steps, published.steps[offline])
    assert found[1].curve.values.max() > 50  # in percent


def test_curves_that_came_without_seeds_keep_the_interval_that_they_have():
    (found,) = published_curves([make_cell(online_start=1_000_000)], [("qc", "QC-FQL")])
    published = curve("qc", "QC-FQL", CUBE.format(1))
    assert isinstance(found.curve, MeanCurve)
    np.testing.assert_array_equal(found.curve.values, published.mean)
    np.testing.assert_array_equal(found.curve.band, published.bounds)


@pytest.mark.parametrize(("online_start", "end"), [(None, 1), (500_000, 1), (1_000_000, 1.5)])
def test_an_online_phase_is_drawn_behind_one_that_begins_at_the_same_step(online_start, end):
    (found,) = published_curves([make_cell(online_start=online_start)], [("qam", "FQL")])
    assert found.curve.steps[-1] == end * 1_000_000


def test_tasks_that_a_release_lacks_have_no_curve():
    assert published_curves([make_cell("/tasks/mine.py")], [("qam", "FQL")]) == []
    assert published_levels([make_cell("/tasks/mine.py")]) == []


@pytest.mark.parametrize("online_start", [None, 200])
def test_published_scores_are_of_the_phases_that_a_run_has(online_start):
    task = "cube-double-play-singletask-v0"  # the default, which is also task 2
    found = published_levels([make_cell(task, "fql", online_start=online_start)])
    phases = ["offline"] if online_start is None else ["before online", "online"]
    results = [one for phase in phases for one in find("fql", task, phase)]
    assert [level.value for level in found] == [one.mean for one in results]
    assert [level.online for level in found] == [phase == "online" for phase in phases][
        : len(found)
    ]
    assert {level.tasks for level in found} <= {(task,)}
    assert all(level.agent == "fql" and level.name.startswith("FQL, published") for level in found)


def test_a_groups_score_needs_all_its_tasks():
    cells = [make_cell(CUBE.format(i), "fql") for i in range(1, 6)]
    for number in (4, 5):
        levels = published_levels(cells[:number])
        whole = [level for level in levels if len(level.tasks) == 5]
        assert len(whole) == len(find("fql", [c.task for c in cells[:number]], "offline")) - sum(
            len(level.tasks) == 1 for level in levels
        )
