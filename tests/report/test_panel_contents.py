import numpy as np
import pytest

from tests.report.cells import CUBE, make_cell
from utils.report.mean_curves import MeanCurve, SeedCurves
from utils.report.panel_backgrounds import Background, Level
from utils.report.panel_contents import aggregate_panels, group_panels, task_panels

ONE, TWO, THREE = (CUBE.format(i) for i in (1, 2, 3))
D4RL = "antmaze-umaze-v2"


def background(task, values=((20.0, 30.0), (40.0, 50.0)), steps=(100, 200), name="QAM"):
    return Background(name, task, "success", SeedCurves(np.array(steps), np.array(values)))


def level(*tasks, value=60.0, online=False, name="DeFlow, published"):
    return Level(name, "deflow", tasks, "success", value, online)


def test_each_task_and_metric_has_a_panel_with_its_short_name():
    cells = [
        make_cell(ONE),
        make_cell(D4RL, metric="normalized_return"),
        make_cell(TWO),
        make_cell(ONE, "fql"),
        make_cell(THREE, values=()),
    ]
    panels = task_panels(cells)
    assert [(panel.title, panel.metric.title) for panel in panels] == [
        ("antmaze-umaze", "normalized return"),
        ("cube-double-play-task1", "success (%)"),
        ("cube-double-play-task2", "success (%)"),
    ]
    assert list(panels[1].means) == ["deflow", "fql"]
    assert [cell.label for cell in panels[1].cells] == ["deflow", "fql"]


def test_task_files_that_are_gone_are_named_as_far_as_tells_them_apart():
    cells = [make_cell(task) for task in ("/a/mine.py", "/b/mine.py", "/b/other.py")]
    assert [panel.title for panel in task_panels(cells)] == ["/a/mine.py", "/b/mine.py", "other"]


def test_diverged_seeds_are_in_no_mean_and_unfinished_ones_beside_no_finished_one():
    states = {1: ("diverged", 2), 2: ("unfinished", 1)}
    (panel,) = task_panels([make_cell(seeds=5, states=states)])
    np.testing.assert_allclose(
        panel.means["deflow"].values, np.mean([[10, 50, 70], [13, 53, 73], [14, 54, 74]], axis=0)
    )
    states |= {0: ("running", 2), 3: ("running", 3), 4: ("running", 2)}
    (panel,) = task_panels([make_cell(seeds=5, states=states)])
    assert panel.means["deflow"].steps.tolist() == [100]  # where seed 2 ends
    states = {0: ("diverged", 2), 1: ("diverged", 3)}
    (panel,) = task_panels([make_cell(seeds=2, states=states)])
    assert not panel.means
    assert len(panel.cells) == 1


def test_the_axis_of_steps_has_room_for_the_run_to_come():
    cell = make_cell(steps_wanted=1000)
    assert task_panels([cell])[0].last_step == 1000
    longer = background(ONE, steps=(500, 5000))
    assert task_panels([cell], [longer])[0].last_step == 1000
    later = background(ONE, steps=(2000, 5000))
    assert task_panels([cell], [later])[0].last_step == 2000
    assert task_panels([make_cell(steps_wanted=200)])[0].last_step == 300


def test_means_are_over_the_tasks_that_all_methods_have():
    cells = [make_cell(task) for task in (ONE, TWO, THREE)]
    means = aggregate_panels(cells)
    assert [panel.title for panel in means] == ["mean of 3 tasks", "IQM of 3 tasks"]
    cells += [make_cell(TWO, "fql", values=(0.0, 20.0)), make_cell(ONE, "fql", values=(4.0, 8.0))]
    mean, iqm = aggregate_panels(cells)
    assert [mean.title, iqm.title] == ["mean of 2 of 3 tasks", "IQM of 2 of 3 tasks"]
    np.testing.assert_allclose(mean.means["fql"].values, [2.5, 14.5])
    np.testing.assert_allclose(mean.means["deflow"].values, [10.5, 50.5, 70.5])
    np.testing.assert_allclose(iqm.means["fql"].values, [2.5, 14.5])
    assert not mean.cells
    assert aggregate_panels([make_cell(ONE), make_cell(TWO, "fql")]) == []
    assert aggregate_panels([make_cell(ONE), make_cell(D4RL, metric="normalized_return")]) == []


def test_other_groups_curves_stand_in_the_panels_of_their_tasks():
    cells = [make_cell(ONE), make_cell(TWO), make_cell(D4RL, metric="normalized_return")]
    found = task_panels(cells, [background(TWO), background(D4RL), background(THREE)])
    assert [list(panel.backgrounds) for panel in found] == [[], [], ["QAM"]]
    np.testing.assert_allclose(found[2].backgrounds["QAM"].values, [30, 40])
    assert found[2].backgrounds["QAM"].band is not None
    for panel in aggregate_panels(cells, [background(TWO)]):
        assert not panel.backgrounds
    mean, iqm = aggregate_panels(cells, [background(TWO), background(ONE, ((0, 0), (0, 4)))])
    np.testing.assert_allclose(mean.backgrounds["QAM"].values, [15, 21])
    np.testing.assert_allclose(iqm.backgrounds["QAM"].values, [10, 17])


def test_means_that_came_without_seeds_have_no_iqm_and_no_interval_over_tasks():
    steps, values = np.array([100, 200]), np.array([20.0, 30.0])
    known = MeanCurve(steps, values, (values - 1, values + 2))
    others = [Background("QC", task, "success", known) for task in (ONE, TWO)]
    cells = [make_cell(ONE), make_cell(TWO)]
    assert task_panels(cells, others)[0].backgrounds["QC"] is known
    mean, iqm = aggregate_panels(cells, others)
    np.testing.assert_allclose(mean.backgrounds["QC"].values, values)
    assert mean.backgrounds["QC"].band is None
    assert not iqm.backgrounds


def test_published_scores_stand_where_their_tasks_and_phases_are():
    cells = [make_cell(ONE), make_cell(TWO, online_start=200)]
    levels = [level(ONE), level(TWO, value=30.0), level(ONE, online=True), level(TWO, online=True)]
    first, second = task_panels(cells, levels=levels)
    assert first.levels == {("DeFlow, published", False): 60.0}
    assert second.levels == {("DeFlow, published", False): 30.0, ("DeFlow, published", True): 60.0}
    mean, iqm = aggregate_panels(cells, levels=levels[:2])
    assert mean.levels == {("DeFlow, published", False): 45.0}
    assert not iqm.levels


def test_a_published_mean_of_a_group_is_no_score_of_its_tasks():
    cells = [make_cell(task) for task in (ONE, TWO, THREE)]
    group = level(ONE, TWO, value=30.0)
    assert not any(panel.levels for panel in task_panels(cells, levels=[group]))
    assert not any(panel.levels for panel in aggregate_panels(cells, levels=[group]))
    (value,) = aggregate_panels(cells, levels=[level(THREE), group])[0].levels.values()
    assert value == pytest.approx((30 + 30 + 60) / 3)
    (value,) = aggregate_panels(cells, levels=[level(THREE), level(TWO, value=9.0), group])[
        0
    ].levels.values()
    assert value == pytest.approx((30 + 30 + 60) / 3)


def test_complete_groups_of_a_benchmark_have_a_mean_and_its_published_score():
    cube = [CUBE.format(i) for i in range(1, 6)]
    cells = [make_cell(task, label) for task in cube for label in ("deflow", "fql")]
    group = level(*cube, value=30.0)
    assert group_panels(cells) == []  # the mean over all tasks is the same
    scene = [make_cell(f"scene-play-singletask-task{i}-v0", "deflow", seeds=1) for i in (1, 2)]
    scene += [make_cell(cell.task, "fql", values=(0.0,)) for cell in scene]
    (panel,) = group_panels(cells + scene, [background(task) for task in cube], [group])
    assert panel.title == "cube-double-play (mean)"
    np.testing.assert_allclose(panel.means["fql"].values, [10.5, 50.5, 70.5])
    np.testing.assert_allclose(panel.backgrounds["QAM"].values, [30, 40])
    assert panel.levels == {("DeFlow, published", False): 30.0}
    assert group_panels(cells[:-1] + scene) == []


def test_going_online_is_a_boundary():
    (panel,) = task_panels([make_cell(online_start=200), make_cell(label="fql", online_start=100)])
    assert panel.boundaries == (100, 200)
    assert task_panels([make_cell()])[0].boundaries == ()
