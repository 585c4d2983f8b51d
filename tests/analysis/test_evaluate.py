"""Evaluations of finished runs: by the run's own policy, by another one, from a shell."""

import pytest

from tests.small_runs import REPOSITORY, rows_of, train
from utils.analysis import evaluate
from utils.analysis.evaluate import evaluate_run
from utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset_dir):
    """A run of seeds 3 and 4 on the line, where an action shows in the return."""
    return train(
        tmp_path_factory.mktemp("evaluated"),
        dataset_dir,
        env_name=str(REPOSITORY / "tests" / "recipes" / "my_task.py"),
        seed=3,
        num_seeds=2,
        eval_episodes=4,
    )


def last_rows(run):
    """Metrics of the last evaluation by seed."""
    rows = [row for row in rows_of(run, "eval") if row["step"] == 40]
    return {
        row["seed"]: {name: row[name] for name in row if name not in ("step", "seed")}
        for row in rows
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_its_own_policy_gives_the_last_row_of_its_csv(run, workers):
    expected = last_rows(run)
    assert set(expected) == {3, 4}
    assert expected[3] != expected[4]
    assert evaluate_run(run.folder.path, num_workers=workers) == expected


def test_another_policy_and_other_episodes_give_other_numbers(run, tmp_path):
    still = tmp_path / "still.py"
    still.write_text("def policy(agent, observation, key):\n    return 0 * observation\n")
    evaluated = evaluate_run(run.folder.path, str(still), num_workers=1)
    assert evaluated != last_rows(run)
    for metrics in evaluated.values():  # it stays where it began: there in one step, or never
        count = 4 * metrics["success"]
        assert metrics["length"] == pytest.approx((count + 10 * (4 - count)) / 4)
    assert evaluate_run(run.folder.path, num_episodes=7, num_workers=1) != last_rows(run)


def test_a_policy_that_is_none_is_named(run):
    with pytest.raises(UserError, match="--eval_policy=no_such is not one of sample, best_of_n"):
        evaluate_run(run.folder.path, "no_such")


def test_the_command_prints_a_line_per_seed_and_their_mean(run, capsys):
    assert evaluate.main([str(run.folder.path), "--eval_workers=1"]) == 0
    heading, *lines, mean = capsys.readouterr().out.splitlines()
    assert heading == f"{run.folder.path}, policy sample"
    expected = last_rows(run)
    for line, (seed, metrics) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"  seed {seed}: ")
        assert f"return {metrics['return']:.4g}" in line
    returns = [metrics["return"] for metrics in expected.values()]
    assert mean.startswith("  mean of 2: ")
    assert f"return {sum(returns) / 2:.4g}" in mean


def test_the_command_gives_one_line_for_a_bad_folder(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "none")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'none'} is not the folder of a run")
