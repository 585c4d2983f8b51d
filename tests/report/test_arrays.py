import io

import numpy as np

from tests.report.run_folders import TASK, grid_of, make_run
from utils.report.arrays import to_npz


def arrays_of(folder):
    with np.load(io.BytesIO(to_npz(grid_of(folder))), allow_pickle=False) as archive:
        return dict(archive)


def test_all_evaluations_are_in_arrays_of_methods_tasks_seeds_and_steps(tmp_path):
    make_run(tmp_path / "a", seeds=2, task=TASK.format(1), success=(0.1, 0.5))
    make_run(tmp_path / "b", seeds=1, seed=5, task=TASK.format(2), success=(0.3,), agent="fql")
    arrays = arrays_of(tmp_path)
    assert arrays["success"].shape == (2, 2, 3, 2)
    assert list(arrays["methods"]) == ["deflow", "fql"]
    assert list(arrays["tasks"]) == [TASK.format(1), TASK.format(2)]
    assert list(arrays["seeds"]) == [0, 1, 5]
    assert list(arrays["steps"]) == [100, 200]
    np.testing.assert_allclose(arrays["success"][0, 0], [[0.1, 0.5], [0.12, 0.52], 2 * [np.nan]])
    np.testing.assert_allclose(arrays["success"][1, 1, 2], [0.3, np.nan])
    assert np.isnan(arrays["success"]).sum() == 24 - 5
    assert arrays["state"].tolist() == [
        [["done", "done", ""], ["", "", ""]],
        [["", "", ""], ["", "", "done"]],
    ]
    assert arrays["offline_steps"].tolist() == [[200, -1], [-1, 100]]
    assert arrays["episodes_per_eval"].tolist() == [[50, -1], [-1, 50]]


def test_each_metric_has_an_array_of_its_own(tmp_path):
    make_run(tmp_path / "a", task=TASK.format(1))
    make_run(tmp_path / "b", task="x.py", protocol={"metric": "return", "evaluations": 1})
    arrays = arrays_of(tmp_path)
    assert set(np.unique(arrays["return"][~np.isnan(arrays["return"])])) == {-9.0}
    assert np.isnan(arrays["success"][0, list(arrays["tasks"]).index("x.py")]).all()


def test_equal_runs_give_equal_bytes(tmp_path):
    make_run(tmp_path / "a")
    assert to_npz(grid_of(tmp_path)) == to_npz(grid_of(tmp_path))


def test_the_online_boundary_is_in_the_arrays(tmp_path):
    lengths = {"offline_steps": 200, "online_steps": 200, "online_start": 200}
    make_run(tmp_path / "a", **lengths)
    assert arrays_of(tmp_path)["offline_steps"].tolist() == [[200]]
