"""From rows of episodes to results, tables and the picture."""

import csv
import io

import numpy as np
import pytest

import utils.analysis.policy_picture
from tests.report.pictures import record_figures
from utils.analysis.entries import parse_entries
from utils.analysis.policy_picture import draw_policies
from utils.analysis.policy_results import group_of, result_rows, results, rows_of, tables
from utils.report.rows import to_csv

ENTRIES = parse_entries("best_of_n,propose", {"samples": [1, 4]})
SUCCESSES = {  # of seeds 0 and 1 in five episodes each
    ENTRIES[0]: ([1, 1, 0, 0, 1], [0, 1, 0, 1, 0]),
    ENTRIES[1]: ([1, 1, 1, 1, 1], [0, 1, 1, 1, 0]),
    ENTRIES[2]: ([0, 0, 0, 0, 0], [0, 0, 0, 1, 0]),
}


def made_rows(run="exp/cube/line_deflow_12345678/sd000-001", milliseconds=0.5, **changes):
    return [
        {
            "step": 40,
            "seed": seed,
            "run": run,
            "policy": entry.name,
            "unit": entry.unit,
            "budget": entry.budget,
            "episodes": 5,
            "milliseconds": milliseconds * (1 + entry.budget),
            "episode": episode,
            "return": -3.0,
            "success": success,
        }
        | changes
        for entry, seeds in SUCCESSES.items()
        for seed, successes in enumerate(seeds)
        for episode, success in enumerate(successes)
    ]


def test_results_are_means_over_agents_and_differ_from_the_first_by_episode():
    first, more, none = results(made_rows(), ENTRIES)
    assert [one.entry for one in (first, more, none)] == ENTRIES
    assert (first.metric, first.episodes) == ("success", 10)
    assert [one.value for one in (first, more, none)] == pytest.approx([50.0, 80.0, 10.0])
    assert first.milliseconds == 1.0
    assert first.difference is None
    assert (more.difference.value, more.difference.better, more.difference.worse) == (30.0, 3, 0)
    assert (none.difference.better, none.difference.worse) == (0, 4)
    low, high = first.interval
    assert 20 < low < 50 < high < 80


def test_the_order_of_rows_does_not_matter_and_runs_are_pooled():
    rows = made_rows() + made_rows("exp/cube/line_deflow_12345678/sd002-003", milliseconds=1.5)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert tables("line", results(rows, ENTRIES)) == tables("line", results(shuffled, ENTRIES))
    first = results(rows, ENTRIES)[0]
    assert len(first.scores) == 4
    assert first.milliseconds == 2.0
    assert {group_of(row["run"]) for row in rows} == {"line_deflow_12345678"}


def test_agents_that_one_of_the_two_lacks_are_not_compared():
    rows = [row for row in made_rows() if not (row["policy"] == "propose" and row["seed"] == 1)]
    *_, none = results(rows, ENTRIES)
    assert none.difference.value == pytest.approx(-60.0)
    rows = [row for row in rows if row["policy"] != "propose" or row["seed"] == 0]
    without = [row for row in rows if row["policy"] == "propose" or row["seed"] == 1]
    *_, none = results(without, ENTRIES)
    assert none.difference is None
    assert "| propose | -" in " ".join(tables("line", results(without, ENTRIES)).split())


def test_rows_are_found_by_checkpoint_policy_budget_and_number_of_episodes():
    run = "exp/cube/line_deflow_12345678/sd000-001"
    rows = made_rows() + made_rows(step=20) + made_rows(episodes=9) + made_rows("other/run")
    # As a file gives them back: an empty cell is not there.
    rows = [{key: value for key, value in row.items() if value != ""} for row in rows]
    for entry in ENTRIES:
        assert len(rows_of(rows, run, 40, entry, 5)) == 10
    assert rows_of(rows, run, 30, ENTRIES[0], 5) == []


def test_tables_say_scores_and_differences():
    text = tables("line", results(made_rows(), ENTRIES))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "line, 2 agents"
    assert "| best_of_n, 4 samples | 10 | 80.0 | 49.0 to 94.3 | 2.50 |" in lines
    assert "Differences from best_of_n, 1 sample:" in lines
    (line,) = [line for line in lines if line.startswith("| best_of_n, 4 samples | 30.0")]
    assert line.split(" | ")[4:7] == ["3", "0", "0.25"]
    same = tables("line", results(made_rows(success=1), ENTRIES))
    assert same.count("no episode differs") == 2


def test_a_file_has_a_row_per_policy_and_budget():
    data = to_csv(result_rows("line", results(made_rows(), ENTRIES))).decode()
    rows = list(csv.DictReader(io.StringIO(data)))
    assert [(row["policy"], row["budget"]) for row in rows] == [
        ("best_of_n", "1"),
        ("best_of_n", "4"),
        ("propose", "0"),
    ]
    assert rows[0]["difference"] == ""
    assert float(rows[1]["difference"]) == pytest.approx(30)


def test_the_picture_has_scores_and_times_by_budget(tmp_path, monkeypatch):
    figures = record_figures(monkeypatch, utils.analysis.policy_picture)
    groups = {"line": results(made_rows(), ENTRIES), "cube": results(made_rows(), ENTRIES)}
    draw_policies(groups, tmp_path / "a.png")
    scores, right, differences, _, times, _ = figures[0].axes
    assert (scores.get_title(loc="left"), right.get_title(loc="left")) == ("line", "cube")
    several, one, level = scores.lines
    assert list(several.get_ydata()) == pytest.approx([50, 80])
    assert list(one.get_ydata()) == pytest.approx([10])
    assert list(level.get_ydata()) == pytest.approx([50, 50])
    more, none, _ = differences.lines
    assert list(more.get_ydata()) == pytest.approx([30])
    assert list(none.get_ydata()) == pytest.approx([-40])
    (_, low), (_, high) = differences.collections[0].get_segments()[0]
    assert (low, high) == groups["line"][1].difference.of_these
    assert list(times.lines[0].get_ydata()) == [1.0, 2.5]
    assert [text.get_text() for text in times.get_xticklabels()] == ["0", "1", "4"]
    draw_policies(groups, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
