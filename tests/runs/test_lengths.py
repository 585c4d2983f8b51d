"""A run's folder before the first update, and what a longer run makes of a finished one."""

import json

import pytest

from tests import toys
from tests.small_runs import (
    REPOSITORY,
    assert_same_end,
    execute_run,
    make_run,
    rows_of,
    train,
)
from utils.errors import UserError
from utils.runs import launch

# Both lengths end between two intervals.
LINE = {
    "env_name": str(REPOSITORY / "tests/recipes/my_task.py"),
    "agent": REPOSITORY / "tests/toy_agents/cloning.py",
    "log_interval": 7,
    "eval_interval": 13,
}
ONLINE = {"online": True, "buffer_size": 30, "balanced_sampling": True, "log_interval": 9}


def config(run):
    return json.loads((run.folder.path / "config.json").read_text())


# --- Length ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"offline_steps": 45}, {"offline_steps": 60}),
        pytest.param({"online_steps": 33}, {"online_steps": 50}, marks=pytest.mark.slow),
    ],
    ids=["offline", "online"],
)
def test_a_finished_run_goes_on_and_ends_as_if_it_had_been_longer_from_the_beginning(
    tmp_path, dataset_dir, capsys, first, then
):
    changes = LINE | (ONLINE if "online_steps" in first else {})
    whole = train(tmp_path / "whole", dataset_dir, **changes | then)
    short = train(tmp_path, dataset_dir, **changes | first)
    (steps,) = first.values()
    end = short.progress.step
    assert rows_of(short)[-1]["step"] == rows_of(short, "eval")[-1]["step"] == end
    capsys.readouterr()
    longer = train(tmp_path, dataset_dir, **changes | then)
    output = capsys.readouterr().out
    assert longer.folder.path == short.folder.path
    assert f"resumed at step {end}" in output
    ((name, more),) = then.items()
    assert f"from step {end} on: {name} {steps} -> {more}" in output
    assert_same_end(whole.folder.path, longer.folder.path)
    scores = [(run.folder.path / "score.json").read_text() for run in (whole, longer)]
    assert scores[0] == scores[1]
    assert [entry["from"] for entry in config(longer)["intervals"]] == [0, end]
    train(tmp_path, dataset_dir, **changes | then)
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"--{name}={steps} is less than the {more} that the run"):
        execute_run(make_run(tmp_path, dataset_dir, **changes | first))
    (longer.folder.path / "score.json").unlink()  # as if it had not come to its end
    with pytest.raises(UserError, match=rf"give at least --{name}={more}, keep both"):
        execute_run(make_run(tmp_path, dataset_dir, **changes | first))


def test_other_intervals_count_from_where_the_run_is(tmp_path, dataset_dir, capsys):
    train(tmp_path, dataset_dir, **LINE | {"offline_steps": 26, "log_interval": 13})
    changes = LINE | {"offline_steps": 40, "log_interval": 10, "eval_interval": 20}
    run = train(tmp_path, dataset_dir, **changes)
    assert "log_interval 13 -> 10, eval_interval 13 -> 20" in capsys.readouterr().out
    assert [row["step"] for row in rows_of(run)] == [13, 26, 30, 40]
    assert [row["step"] for row in rows_of(run, "eval")] == [13, 26, 40]
    assert config(run)["flags"]["eval_interval"] == 20
    assert config(run)["intervals"] == [
        {"from": 0, "offline_steps": 26, "log_interval": 13, "eval_interval": 13},
        {"from": 26, "offline_steps": 40, "log_interval": 10, "eval_interval": 20},
    ]


# --- Before the first update ----------------------------------------------------------------------


def test_an_aborted_start_leaves_no_folder(tmp_path, dataset_dir, monkeypatch):
    def missing(*arguments):
        raise UserError("no data")

    monkeypatch.setattr("utils.runs.setup.load_data", missing)
    with pytest.raises(UserError, match="no data"):
        train(tmp_path, dataset_dir, **LINE)
    assert not list(tmp_path.iterdir())
    run = make_run(tmp_path, dataset_dir, **LINE, run_group="beside")
    run.folder.path.mkdir(parents=True)
    (run.folder.path / "config.json").touch()
    with pytest.raises(UserError, match="no data"):
        train(tmp_path, dataset_dir, **LINE, seed=1, run_group="beside")
    with pytest.raises(UserError, match="no data"):
        execute_run(run)
    assert [path.name for path in run.folder.path.parent.iterdir()] == ["sd000"]
    assert (run.folder.path / "config.json").exists()


def test_what_crashed_before_its_first_update_starts_over_once_corrected(
    tmp_path, dataset_dir, capsys
):
    def crash(run):
        run.start()
        raise RuntimeError("a mistake")

    fork = tmp_path / "fork.py"
    text = LINE["agent"].read_text()
    changes = LINE | {"agent": fork, "offline_steps": 10}
    fork.write_text(text)
    run = make_run(tmp_path, dataset_dir, **changes)
    with pytest.raises(RuntimeError, match="a mistake"):
        launch.execute_run(crash, run)
    assert (run.folder.path / "config.json").exists()

    fork.write_text(f"{text}\nCORRECTED = True\n")
    toys.load.cache_clear()  # as in another process
    with pytest.raises(UserError, match=r"agent/fork.py: not as when the run"):
        execute_run(make_run(tmp_path, dataset_dir, **changes, debug=True))  # changes nothing
    assert (run.folder.path / "config.json").exists()
    train(tmp_path, dataset_dir, **changes)
    output = capsys.readouterr().out
    assert "agent/fork.py: not as when the run" in output
    assert "as nothing had been trained there, it starts over" in output
    assert "CORRECTED" in (run.folder.path / "source/agent/fork.py").read_text()

    fork.write_text(text)
    toys.load.cache_clear()
    with pytest.raises(UserError, match=r"agent/fork.py: not as when the run"):
        execute_run(make_run(tmp_path, dataset_dir, **changes))
