import dataclasses

import numpy as np
import pytest

from tests.report.cells import CUBE, make_cell
from utils.report.mean_curves import SeedCurves, common_tasks, curves_of, mean_curve
from utils.report.statistics import bootstrap_interval, iqm, mean


def random_curves(seeds, steps=(100, 200, 300), seed=0):
    values = np.random.default_rng(seed).uniform(0, 100, (seeds, len(steps)))
    return SeedCurves(np.array(steps), values)


def test_seeds_have_the_steps_that_all_of_them_have():
    curves = curves_of(make_cell(seeds=3, states={1: ("unfinished", 2)}).records)
    assert curves.steps.tolist() == [100, 200]
    np.testing.assert_array_equal(curves.values, [[10, 50], [11, 51], [12, 52]])


def test_values_that_are_not_finite_are_no_evaluations():
    record = make_cell(seeds=1).records[0]
    record = dataclasses.replace(record, evaluations={100: 1.0, 200: np.nan, 300: np.inf})
    curves = curves_of([record])
    assert curves.steps.tolist() == [100]
    assert curves.values.tolist() == [[1.0]]


def test_seeds_without_a_step_in_common_have_none():
    assert curves_of([]).values.shape == (0, 0)
    records = make_cell(seeds=2, states={1: ("running", 0)}).records
    assert curves_of(records).values.shape == (2, 0)
    assert mean_curve([curves_of(records)]) is None
    assert mean_curve([random_curves(2), random_curves(2, (150, 250))]) is None


def test_a_mean_has_its_bootstrap_interval_at_each_step():
    curves = random_curves(5)
    found = mean_curve([curves])
    np.testing.assert_allclose(found.values, curves.values.mean(axis=0))
    for step in range(3):
        ends = bootstrap_interval(mean, [curves.values[:, step]])
        np.testing.assert_allclose([found.band[0][step], found.band[1][step]], ends)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_tasks_are_averaged_where_all_have_been_evaluated(statistic):
    tasks = [random_curves(4), random_curves(3, (200, 300, 400), seed=1)]
    found = mean_curve(tasks, statistic)
    assert found.steps.tolist() == [200, 300]
    for step in range(2):
        scores = [tasks[0].values[:, step + 1], tasks[1].values[:, step]]
        assert found.values[step] == pytest.approx(float(statistic(scores)))
        ends = bootstrap_interval(statistic, scores)
        np.testing.assert_allclose([found.band[0][step], found.band[1][step]], ends)


def test_a_task_of_one_seed_leaves_no_interval():
    assert mean_curve([random_curves(4), random_curves(1)]).band is None


def test_common_are_the_tasks_that_every_method_has_been_evaluated_on():
    one, two, three = (CUBE.format(i) for i in (1, 2, 3))
    cells = [make_cell(task, "a") for task in (one, two, three)]
    cells += [make_cell(one, "b"), make_cell(three, "b", values=()), make_cell(two, "b")]
    assert common_tasks(cells) == [one, two]
    assert common_tasks([*cells, make_cell(one, "c", values=())]) == [one, two]
    assert common_tasks([]) == []
