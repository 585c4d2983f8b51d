import pytest

from tests.parity import original
from tests.parity.__main__ import reset_bound, run
from utils.envs.d4rl import names


@pytest.mark.slow
def test_all_tasks_agree_with_the_original():
    try:
        results = run()
    except original.UnreachableError as error:
        pytest.skip(f"the original cannot be installed: {error}")
    assert results["tasks"].keys() == names.TASKS.keys()
    assert results["angles"] < 1e-12
    for name, task in results["tasks"].items():
        assert task["settings"] == [], name
        assert task["steps"] >= 1500, name
        assert task["states"] >= 200, name
        assert task["observation"] < 1e-12, name
        assert task["reward"] < 1e-12, name
        assert task["done_equal"], name
        assert task["success_equal"], name
        assert task["branches"][0] == task["branches"][1] >= 4, name
        assert task["model"]["arrays"] > 100, name
        assert task["model"]["difference"] == 0, name
        assert task["resets"]["tests"] >= 2, name
        assert task["resets"]["constants"] < 1e-12, name
        assert task["resets"]["p"] > reset_bound(results), name
