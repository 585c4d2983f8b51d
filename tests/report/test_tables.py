import pytest

from tests.report.run_folders import PROTOCOL, TASK, grid_of, make_grid, make_run
from utils.report.captions import caption, remarks
from utils.report.rendering import Notes
from utils.report.tables import latex_table, score_table


def table_of(folder, which="protocol", published=None):
    return score_table(grid_of(folder), which, Notes(), published or {})


def test_few_cells_have_a_line_each(tmp_path):
    make_run(tmp_path / "a", protocol=PROTOCOL)
    make_run(tmp_path / "b", agent="fql", seeds=1, success=(0.04,), protocol=PROTOCOL)
    table = table_of(tmp_path)
    assert table.header == (
        *("method", "seeds", "episodes", "updates", "success %", "95 % interval", "updates/s"),
    )
    assert table.rows == (
        ("deflow", "2", "300", "400", "71.0 ± 1.0", "70.0 to 72.0", "141"),
        ("fql", "1", "50", "100", "4.0¹,²", "1.1 to 13.5³", "141"),
    )


def test_a_line_has_both_phases_of_an_online_run(tmp_path):
    lengths = {"offline_steps": 200, "online_steps": 100, "online_start": 200}
    make_run(tmp_path / "a", success=(0.1, 0.5, 0.7), **lengths)
    table = table_of(tmp_path)
    assert table.rows[0][3:6] == ("300", "51.0 ± 1.0 -> 71.0 ± 1.0", "70.0 to 72.0")
    assert table.header[3] == "steps"
    assert table_of(tmp_path, "last").rows[0][4] == "71.0 ± 1.0"


def test_other_scores_than_the_protocols_are_shown_and_named(tmp_path):
    make_run(tmp_path / "a", success=(0.1, 0.9, 0.5, 0.6), protocol=PROTOCOL)
    shown = {which: table_of(tmp_path, which).rows[0][4] for which in ("last", "last3", "best")}
    assert shown == {"last": "61.0 ± 1.0", "last3": "67.7 ± 1.0", "best": "91.0 ± 1.0"}
    assert "last evaluation, of 50 episodes" in caption(grid_of(tmp_path), "last", "")
    assert "best evaluation, which is chosen after the fact" in caption(
        grid_of(tmp_path), "best", ""
    )


def test_a_score_of_unfinished_seeds_is_in_parentheses_with_its_step(tmp_path):
    make_run(tmp_path / "a", offline_steps=900, finished=False, protocol=PROTOCOL)
    row = table_of(tmp_path).rows[0]
    assert row[3:5] == ("400 of 900", "(71.0 ± 1.0 at 400)¹")
    assert "In parentheses: no seed has finished" in caption(grid_of(tmp_path), "protocol", "")


def test_a_seed_that_is_not_finished_is_in_no_mean_and_marked(tmp_path):
    make_run(tmp_path / "a", seeds=2, protocol=PROTOCOL)
    make_run(tmp_path / "b", seeds=1, seed=2, success=(0.0,), offline_steps=400, finished=False)
    notes = Notes()
    row = score_table(grid_of(tmp_path), "protocol", notes, {}).rows[0]
    assert (row[1], row[4]) == ("2 of 3", "71.0 ± 1.0¹")
    assert notes.lines() == ["¹ seed 2 unfinished at step 100 of 400"]


def test_a_run_without_rows_is_a_line_of_dashes(tmp_path):
    make_run(tmp_path / "a", success=(), offline_steps=7, finished=False)
    row = table_of(tmp_path).rows[0]
    assert row[1:6] == ("0 of 2", "0", "0 of 7", "-¹", "-")


def test_fewer_evaluations_than_the_protocol_has_are_remarked(tmp_path):
    make_run(tmp_path / "a", success=(0.1, 0.2), protocol=PROTOCOL)
    (cell,) = grid_of(tmp_path).cells.values()
    assert remarks(cell, "protocol") == ["2 evaluations, where the protocol has 3"]
    assert remarks(cell, "last") == []


def test_runs_without_an_evaluation_of_what_they_learnt_are_remarked(tmp_path):
    (make_run(tmp_path / "a") / "eval.csv").unlink()
    (make_run(tmp_path / "b", agent="fql") / "eval.csv").write_text(
        "step,seed,success\n0,0,1\n0,1,1\n"
    )
    first, second = grid_of(tmp_path).cells.values()
    assert remarks(first, "last") == ["no evaluation that all seeds have"]
    assert remarks(second, "last") == ["evaluated before the first update only"]


def test_many_cells_are_tasks_by_methods(tmp_path):
    make_grid(tmp_path, methods=2, tasks=4)
    table = table_of(tmp_path)
    assert table.header == ("task", "agent0", "agent1")
    assert [row[0] for row in table.rows] == [f"cube-double-play-task{i}" for i in range(1, 5)]
    assert table.rows[0][1:] == ("11.0 ± 1.0 [10.0 to 12.0]", "21.0 ± 1.0 [20.0 to 22.0]")


def test_more_methods_than_tasks_stand_in_rows(tmp_path):
    make_grid(tmp_path, methods=7, tasks=2)
    table = table_of(tmp_path)
    assert table.header == ("method", "cube-double-play-task1", "cube-double-play-task2")
    assert [row[0] for row in table.rows] == [f"agent{i}" for i in range(7)]


def test_what_is_published_stands_in_the_next_column(tmp_path):
    make_grid(tmp_path, methods=2, tasks=4)
    published = {(TASK.format(2), "agent1"): "96 ± 2"}
    table = table_of(tmp_path, published=published)
    assert table.header == ("task", "agent0", "agent1", "agent1, published")
    assert [row[3] for row in table.rows] == ["", "96 ± 2", "", ""]


def test_a_cell_that_was_not_run_says_so(tmp_path):
    make_grid(tmp_path, methods=2, tasks=5)
    table = table_of(tmp_path)
    assert "not run" not in str(table.rows)
    for path in (tmp_path / "1-3").iterdir():
        path.unlink()
    assert table_of(tmp_path).rows[2][2] == "not run"


def test_the_number_of_seeds_stands_in_the_cells_where_it_differs(tmp_path):
    make_grid(tmp_path, methods=2, tasks=4)
    make_run(tmp_path / "c", agent="agent0", task=TASK.format(5), seeds=3, protocol=PROTOCOL)
    assert table_of(tmp_path).rows[0][1].endswith("[10.0 to 12.0], n=2¹")
    assert table_of(tmp_path).rows[4][1].endswith(", n=3")


def test_latex_marks_the_best_and_those_whose_interval_reaches_it(tmp_path):
    for i, success in enumerate((0.50, 0.52, 0.6)):
        make_run(
            tmp_path / f"{i}", agent=f"agent{i}", seeds=4, success=(success,), task=TASK.format(1)
        )
    grid = grid_of(tmp_path)
    table = latex_table(grid, "last", Notes(), [])
    assert table.best == {(0, 3)}
    make_run(tmp_path / "2", agent="agent2", seeds=4, success=(0.53,), task=TASK.format(1))
    assert latex_table(grid_of(tmp_path), "last", Notes(), []).best == {(0, 2), (0, 3)}


def test_latex_marks_the_best_of_a_task_in_a_turned_table(tmp_path):
    make_grid(tmp_path, methods=7, tasks=2)
    assert latex_table(grid_of(tmp_path), "last", Notes(), []).best == {(6, 1), (6, 2)}


@pytest.mark.parametrize("metric", ["normalized_return", "return"])
def test_values_of_other_metrics_have_no_interval_over_episodes(tmp_path, metric):
    make_run(tmp_path / "a", seeds=1, protocol={"metric": metric, "evaluations": 1})
    row = table_of(tmp_path).rows[0]
    assert row[5] == "-"
    assert row[4] == ("-9" if metric == "return" else "-¹")
    assert table_of(tmp_path).header[4] == metric.replace("_", " ")
