import csv
import io

from tests.report.run_folders import PROTOCOL, TASK, grid_of, make_run
from utils.report.published.protocol import Protocol
from utils.report.published.results import Comparison, PublishedResult
from utils.report.rows import cell_rows, seed_rows, to_csv


def read(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_a_row_per_cell_has_every_kind_of_score(tmp_path):
    make_run(tmp_path / "a", success=(0.1, 0.9, 0.5, 0.6), protocol=PROTOCOL)
    (row,) = read(to_csv(cell_rows(grid_of(tmp_path), {})))
    scores = {name: float(row[name]) for name in ("protocol", "last3", "last", "best")}
    assert {name: round(value, 6) for name, value in scores.items()} == {
        "protocol": 67.666667,
        "last3": 67.666667,
        "last": 61.0,
        "best": 91.0,
    }
    assert (row["offline"], row["offline_seeds"]) == ("", "0")
    assert (row["protocol_std"], row["protocol_episodes"]) == ("1.0", "300")
    assert (row["seeds"], row["published"], row["device"]) == ("0 1", "", "cpu")
    assert row["commands"].startswith("python main.py")
    assert row["folders"] == str(tmp_path / "a")


def test_what_is_published_is_in_words_and_in_numbers(tmp_path):
    make_run(
        tmp_path / "a", success=(0.5, 0.6), offline_steps=100, online_steps=100, online_start=100
    )
    grid = grid_of(tmp_path)
    ((task, label),) = grid.cells
    result = PublishedResult("X", task, (task,), "online", 60.0, 2.0, 8, "a paper", Protocol())
    found = {(task, label): (Comparison(result, ("why",)), Comparison(result, (), 1.0, 0.5))}
    (row,) = read(to_csv(cell_rows(grid, found)))
    assert row["published"].startswith("60 ± 2 (8 seeds) -> 60 ± 2 (8 seeds), a paper; ")
    assert [row[f"published_{name}"] for name in ("mean", "std", "seeds", "source")] == [
        *("60.0", "2.0", "8", "a paper"),
    ]
    assert (row["difference"], row["difference_in_standard_errors"]) == ("1.0", "0.5")
    assert row["not_comparable"] == ""


def test_a_row_per_evaluation_has_method_seed_and_phase(tmp_path):
    lengths = {"offline_steps": 100, "online_steps": 100, "online_start": 100}
    make_run(tmp_path / "a", task=TASK.format(1), success=(0.1, 0.5), **lengths)
    rows = read(to_csv(seed_rows(grid_of(tmp_path, ["Ours"]))))
    assert [(row["seed"], row["step"], row["phase"]) for row in rows] == [
        ("0", "100", "offline"),
        ("0", "200", "online"),
        ("1", "100", "offline"),
        ("1", "200", "online"),
    ]
    assert {row["method"] for row in rows} == {"Ours"}
    assert float(rows[3]["value"]) == 52.0
