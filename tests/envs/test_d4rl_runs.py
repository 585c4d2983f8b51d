"""D4RL's tasks from end to end: train, evaluate, fine-tune."""

import json
import sys

import numpy as np
import pytest

from tests import d4rl_files, small_runs
from tests.small_runs import SMALL, execute, folder_of
from utils.envs import tasks
from utils.report.csv_log import read_csv

TASK_FLAGS = {"save_interval": 30, "eval_interval": 30, "log_interval": 10, "offline_steps": 30}


def test_a_task_whose_models_are_missing_is_refused_before_training(tmp_path):
    (tmp_path / "gymnasium_robotics").mkdir()
    (tmp_path / "gymnasium_robotics" / "__init__.py").touch()
    arguments = [sys.executable, "main.py", "--env_name=pen-cloned", f"--save_dir={tmp_path}"]
    output = execute(arguments, code=1, PYTHONPATH=str(tmp_path))
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert error == output.splitlines()[-1]
    assert "the package gymnasium-robotics lacks" in error
    assert [path.name for path in tmp_path.iterdir()] == ["gymnasium_robotics"]


@pytest.mark.slow
def test_adroit_by_the_command_line(tmp_path):
    d4rl_files.write_random("pen-cloned-v1", tmp_path, episodes=2)
    arguments = [
        sys.executable,
        "main.py",
        "--env_name=pen-cloned-v1",
        "--agent=agents/deflow.py",
        f"--dataset_dir={tmp_path}",
        f"--save_dir={tmp_path / 'exp'}",
        "--run_group=test",
        "--eval_episodes=2",
        "--eval_workers=1",
        "--wandb_mode=disabled",
        *(f"--{key}={value}" for key, value in TASK_FLAGS.items()),
        *(f"--agent.{key}={value}" for key, value in SMALL.items()),
    ]
    output = execute(arguments)
    assert "score: normalized return" in output
    assert "(last evaluation, at 30; 1 seed)" in output
    folder = folder_of(tmp_path)
    (row,) = read_csv(folder / "eval.csv")
    expected = 100 * (row["return"] - 96.262799) / (3076.8331017826877 - 96.262799)
    assert row["normalized_return"] == pytest.approx(expected)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["agent"]["q_agg"] == "min"
    assert settings["origins"]["agent.target_divergence"] == "published"

    # The agent goes on online.
    online = small_runs.train(
        tmp_path,
        tmp_path,
        online=True,
        env_name="pen-cloned-v1",
        restore_path=str(folder),
        online_steps=120,
        eval_interval=120,
        log_interval=60,
        save_interval=60,
    )
    score = json.loads((online.folder.path / "score.json").read_text())
    assert score["metric"] == "normalized_return"
    assert (score["offline"]["evaluations_used"], score["evaluations_used"]) == ([30], [150])
    episodes = read_csv(online.folder.path / "episodes.csv")
    assert all(episode["length"] <= 100 for episode in episodes)


def test_antmaze_offline_and_online(tmp_path):
    d4rl_files.write_random("antmaze-umaze-v2", tmp_path, episodes=2)
    steps = {"online_steps": 720, "eval_interval": 720, "log_interval": 240}
    run = small_runs.train(tmp_path, tmp_path, online=True, env_name="antmaze-umaze-v2", **steps)
    assert run.settings.env_name == "antmaze-umaze-v2"
    # Rewards are shifted in the data and in the replay, and in no score.
    assert tasks.reward_shift("antmaze-umaze-v2") == -1.0
    assert set(np.unique(run.online._replay.dataset["rewards"])) <= {-1.0, 0.0}
    assert set(np.unique(np.asarray(run.online._ring["rewards"]))) <= {-1.0, 0.0}
    episodes = read_csv(run.folder.path / "episodes.csv")
    assert [episode["return"] for episode in episodes] == [e["success"] for e in episodes]
    assert episodes[0]["length"] <= 700
    assert all(row["normalized_return"] >= 0 for row in read_csv(run.folder.path / "eval.csv"))
    assert "normalized return" in (run.folder.path / "score.json").read_text()
