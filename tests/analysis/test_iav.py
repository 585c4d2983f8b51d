"""The program that prints intrinsic action variances: which data, what beside, what is missing."""

import pytest

from tests import toys
from tests.small_runs import TASK
from utils.analysis import iav
from utils.analysis.action_variance import ActionVariance
from utils.envs import tasks
from utils.errors import UserError

DELTA = f"{toys.AGENTS / 'deflow.py'}:target_divergence"


def dataset(name, *members):
    return iav.Dataset(name, tuple(map(tasks.resolve, members)), ())


def answer(value, **changes):
    fields = {
        "iav": value,
        "error": 0.001,
        "dimensions": (value,),
        "overall": 0.2,
        "distance": 0.5,
        "same_episode": 0.25,
        "states": 10,
        "rows": 1000,
    }
    return ActionVariance(**fields | changes)


def cells(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_the_published_setting_of_each_task_stands_beside():
    datasets = [
        dataset("antmaze", "antmaze-giant-navigate-task3"),
        dataset("puzzle", "puzzle-3x3-play-task1", "puzzle-3x3-play-task2"),
        dataset("pointmaze", TASK),  # not in the paper, so it has the default
    ]
    answers = [answer(0.02), answer(0.01), answer(0.0, same_episode=None)]
    first, second, third = cells(iav.table(datasets, answers, iav.parse_setting(DELTA)))
    assert first["data"] == "antmaze"
    assert first["rows"] == "1000"
    assert first["IAV"] == "0.02 ± 0.001"
    assert first["a tenth of it"] == "0.002"
    assert (first["target_divergence"], first["of IAV"]) == ("0.01", "0.5")
    assert first["same episode"] == "25.0%"
    assert (second["target_divergence"], second["of IAV"]) == ("0.005", "0.5")
    assert (third["target_divergence"], third["of IAV"]) == ("0.01 (default)", "")
    assert third["same episode"] == ""


def test_a_setting_that_is_no_number_has_no_share():
    setting = iav.parse_setting(DELTA.replace("target_divergence", "q_agg"))
    (row,) = cells(iav.table([dataset("maze", "antmaze-large-navigate")], [answer(0.1)], setting))
    assert (row["q_agg"], row["of IAV"]) == ("min", "")
    (row,) = cells(iav.table([dataset("maze", "antmaze-large-navigate")], [answer(0.1)], None))
    assert "of IAV" not in row


def test_tasks_of_one_dataset_are_a_row(tmp_path):
    for name in ("cube-single-play-v0", "cube-single-play-v0-val", "scene-play-v0"):
        (tmp_path / f"{name}.npz").touch()
    names = ["cube-single-play-task4", "cube-single-play", "ogbench-states"]
    there, missing = iav.find_datasets(names, str(tmp_path))
    (cube,) = there
    assert cube.name == "cube-single-play-v0"
    assert len(cube.tasks) == 5
    assert "scene-play-v0" in [one.name for one in missing]  # which lacks its second file
    assert len(missing) == 9


def test_what_is_missing_is_named_with_how_to_get_it(dataset_dir, capsys):
    other = "antmaze-giant-navigate"
    assert iav.main([other, TASK, f"--dataset_dir={dataset_dir}", "--states=50", "--k=3"]) == 0
    printed = capsys.readouterr()
    header, _, row = printed.out.splitlines()
    assert header.startswith("| data ")
    assert row.startswith("| pointmaze-medium-navigate-v0 | 300 ")
    missing, took = printed.err.splitlines()
    assert missing.startswith(f"not there: {other}-v0; to collect it")
    assert f"python -m utils.collect --env_name={other}" in missing
    assert "computed, and kept in" in took
    (dataset_dir / "pointmaze-medium-navigate-v0.iav.json").unlink()


@pytest.mark.parametrize("name", ["humanoidmaze-large-navigate", "pen-human"])
def test_what_cannot_be_collected_says_why(tmp_path, name):
    _, (missing,) = iav.find_datasets([name], str(tmp_path))
    text = iav.describe_missing(missing, str(tmp_path))
    assert "cannot be collected locally" in text
    assert text.endswith("; put its files into --dataset_dir")
    assert "--collect_missing" not in text


def test_mistakes_are_named(tmp_path):
    nothing = f"--dataset_dir={tmp_path}"
    for arguments, text in [
        (["cube-singel-play", nothing], "did you mean cube-single-play"),
        (["humanoidmaze-large-navigate", nothing], "there are no data of these tasks"),
        ([TASK, "--beside=agents/deflow.py"], "does not look like FILE:SETTING"),
        ([TASK, f"--beside={DELTA}s"], "has no setting target_divergences; it has actor_hidden"),
    ]:
        with pytest.raises(UserError, match=text):
            iav.main(arguments)


def test_numbers_that_make_no_sense_are_refused(capsys):
    with pytest.raises(SystemExit):
        iav.main([TASK, "--k=0"])
    assert "0 is not a positive number" in capsys.readouterr().err


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        iav.parse_setting(f"{tmp_path / 'none.py'}:lr")
