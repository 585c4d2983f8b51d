import numpy as np

from tests.report.run_folders import grid_of, make_grid, make_run
from utils.report.aggregates import compare
from utils.report.grid import task_groups
from utils.report.next_steps import deployment_table, final_episodes, seeds_sentences


def test_policies_to_deploy_are_chosen_by_their_kept_episodes(tmp_path):
    make_run(tmp_path / "a", seeds=3, success=(0.1, 0.5), episodes=True)
    make_run(tmp_path / "b", seeds=1, agent="fql", episodes=True)
    table = deployment_table(grid_of(tmp_path))
    assert table.header[:4] == ("method", "policies", "one at random", "by 10 episodes")
    ((method, policies, at_random, *_, best),) = table.rows  # one policy leaves no choice
    assert (method, policies, at_random, best) == ("deflow", "3", "52.0", "seed 2, 54.0")


def test_only_final_policies_of_scored_seeds_are_deployed(tmp_path):
    make_run(tmp_path / "a", seeds=2, success=(0.1, 0.5), episodes=True)
    run = {"seeds": 1, "seed": 2, "success": (0.9, 0.9)}
    make_run(tmp_path / "b", finished=False, episodes=True, **run)
    (cell,) = grid_of(tmp_path).cells.values()
    episodes = final_episodes(cell)
    assert list(episodes) == [0, 1]
    assert [values.mean() for values in episodes.values()] == [50.0, 52.0]


def test_many_tasks_have_the_mean_over_those_that_all_methods_have(tmp_path):
    make_grid(tmp_path, methods=2, tasks=4, seeds=2, episodes=True)
    (tmp_path / "0-2" / "eval_episodes.csv").unlink()
    table = deployment_table(grid_of(tmp_path))
    assert table.header[0] == "method, mean of 3 tasks"
    assert [row[:2] for row in table.rows] == [("agent0", "2"), ("agent1", "2")]
    assert table.rows[0][2] == "21.0"


def test_without_kept_episodes_there_is_no_table(tmp_path):
    make_run(tmp_path / "a")
    assert deployment_table(grid_of(tmp_path)) is None


def test_the_best_two_methods_are_compared_by_seeds(tmp_path):
    make_grid(tmp_path, methods=3, tasks=2)
    grid = grid_of(tmp_path)
    comparisons = [compare(grid, group, "last") for group in task_groups(grid)]
    (line,) = seeds_sentences(grid, comparisons, "last")
    assert line.startswith("Over all (2 tasks): ")
    assert "agent2 minus agent1" in line
    assert "agent0" not in line


def test_on_a_single_task_seeds_are_compared_too(tmp_path):
    make_run(tmp_path / "a", seeds=3, success=(0.5,))
    make_run(tmp_path / "b", seeds=3, success=(0.9,), agent="fql")
    (line,) = seeds_sentences(grid_of(tmp_path), [], "last")
    assert "fql minus deflow" in line
    assert np.all([word not in line for word in ("Over", "task")])
    make_run(tmp_path / "a", success=(), finished=False)
    assert seeds_sentences(grid_of(tmp_path), [], "last") == []


def test_a_comparison_of_unfinished_runs_says_so(tmp_path):
    make_run(tmp_path / "a", seeds=3, success=(0.5,))
    make_run(tmp_path / "b", seeds=3, success=(0.9,), agent="fql")
    make_run(tmp_path / "c", seeds=3, success=(0.1,), agent="bc", finished=False)
    assert "finished" not in seeds_sentences(grid_of(tmp_path), [], "last")[0]
    (tmp_path / "a" / "score.json").unlink()
    assert seeds_sentences(grid_of(tmp_path), [], "last")[0].endswith(
        " Not all of their runs have finished. They are the best two of 3 methods, a choice that "
        "the interval ignores."
    )
