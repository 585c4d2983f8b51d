from tests.report.run_folders import PROTOCOL, TASK, grid_of, make_grid, make_run
from utils.report.provenance import (
    commands,
    common_facts,
    compute_table,
    hours_of,
    mixed_facts,
)


def test_what_all_cells_have_in_common_is_said_once(tmp_path):
    make_grid(tmp_path, methods=2, tasks=2)
    grid = grid_of(tmp_path)
    assert common_facts(grid) == {
        "device": "cpu",
        "commit": "abc",
        "versions": "jax 0.10",
        "data": "d0",
    }
    assert mixed_facts(grid) == []
    assert compute_table(grid).header == ("cell", "updates/s", "hours")


def test_devices_commits_and_versions_that_differ_are_named(tmp_path):
    make_grid(tmp_path, methods=1, tasks=3)
    versions = {"devices": ["H200", "H200"], "git": "fed", "jax": "0.11"}
    make_run(tmp_path / "x", agent="fql", task=TASK.format(1), versions=versions)
    grid = grid_of(tmp_path)
    assert mixed_facts(grid) == [
        f"mixed {fact}: {ours}: agent0 on 3 tasks; {theirs}: fql on cube-double-play-task1"
        for fact, ours, theirs in (
            ("device", "cpu", "2 x H200"),
            ("commit", "abc", "fed"),
            ("versions", "jax 0.10", "jax 0.11"),
        )
    ]
    table = compute_table(grid)
    assert table.header == ("cell", "updates/s", "hours", "device", "commit", "versions")
    assert table.rows[1] == (
        *("fql, cube-double-play-task1", "141", "-", "2 x H200", "fed", "jax 0.11"),
    )


def test_a_commit_is_as_short_as_it_says_which_one(tmp_path):
    make_run(tmp_path / "a", versions={"git": 40 * "a" + "+dirty"})
    assert common_facts(grid_of(tmp_path))["commit"] == 12 * "a" + "+dirty"


def test_data_may_differ_between_tasks_but_not_on_one(tmp_path):
    make_run(tmp_path / "a", task=TASK.format(1), dataset="d1")
    make_run(tmp_path / "b", task=TASK.format(2), dataset="d2")
    assert mixed_facts(grid_of(tmp_path)) == []
    make_run(tmp_path / "c", agent="fql", task=TASK.format(2), dataset="d3")
    assert mixed_facts(grid_of(tmp_path)) == [
        "mixed data (cube-double-play-task2): d2: deflow on cube-double-play-task2; "
        "d3: fql on cube-double-play-task2"
    ]


def test_an_agents_files_may_not_differ_between_tasks(tmp_path):
    for task in (1, 2):
        for agent in ("deflow", "fql"):
            run = make_run(tmp_path / f"{agent}{task}", agent=agent, task=TASK.format(task))
            (run / "source").mkdir()
            (run / "source" / f"{agent}.py").write_text(f"x = {agent!r}")
    assert mixed_facts(grid_of(tmp_path)) == []
    (run / "source" / "fql.py").write_text("x = 2")
    (line,) = mixed_facts(grid_of(tmp_path))
    assert line.startswith("mixed files (fql): ")


def test_every_run_has_its_command_below_what_it_is_of(tmp_path):
    make_run(tmp_path / "a", seeds=2, protocol=PROTOCOL)
    make_run(tmp_path / "b", seeds=1, seed=2, protocol=PROTOCOL)
    (cell,) = grid_of(tmp_path).cells.values()
    assert commands(grid_of(tmp_path)) == [
        f"# deflow, cube-single-play, seeds 0, 1: {tmp_path / 'a'}",
        cell.records[0].config.command,
        f"# deflow, cube-single-play, seed 2: {tmp_path / 'b'}",
        cell.records[2].config.command,
    ]


def test_hours_of_seeds_that_are_trained_together_count_once(tmp_path):
    for name, seed in (("a", 0), ("b", 2)):
        run = make_run(tmp_path / name, seeds=2, seed=seed)
        (run / "timing.csv").write_text(
            "step,updates_per_second,seconds\n50,10,1800\n100,10,3600\n"
        )
    (cell,) = grid_of(tmp_path).cells.values()
    assert hours_of(cell) == 2.0


def test_many_methods_that_have_a_fact_in_common_are_the_others(tmp_path):
    make_grid(tmp_path, methods=4, tasks=1)
    make_run(tmp_path / "x", agent="fql", task=TASK.format(1), versions={"git": "fed"})
    (sentence,) = mixed_facts(grid_of(tmp_path))
    assert sentence == "mixed commit: abc: the others; fed: fql on cube-double-play-task1"
