"""Runs on a visual task, with few made frames."""

import gc
import weakref

import jax
import numpy as np
import pytest

from tests.small_runs import make_run, train
from utils.envs import rendering
from utils.errors import UserError
from utils.load_agent import load_agent
from utils.report.csv_log import read_csv
from utils.runs.setup import load_data

TASK = "visual-cube-single-play-task1"
IMAGES = {
    "env_name": TASK,
    "encoder": "impala_debug",
    "batch_size": 4,
    "p_aug": 0.5,
    "frame_stack": 3,
    "offline_steps": 4,
    "log_interval": 2,
    "save_interval": 2,
}


@pytest.fixture(scope="module")
def image_dir(tmp_path_factory):
    """Four episodes of noise."""
    folder, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), 40
    sizes = {"actions": 5, "qpos": 21, "qvel": 20}
    data = {key: rng.uniform(-1, 1, (rows, n)).astype(np.float32) for key, n in sizes.items()}
    data["observations"] = rng.integers(0, 256, (rows, 64, 64, 3), np.uint8)
    data["terminals"] = np.arange(rows) % 10 == 9
    for suffix in ("", "-val"):
        np.savez(folder / f"visual-cube-single-play-v0{suffix}.npz", **data)
    return folder


def no_opengl(monkeypatch):
    """Have nothing render here, as on a machine without OpenGL."""
    monkeypatch.setattr(rendering, "choose_gl", lambda: "disabled")


def test_seeds_train_on_stacks_validate_and_are_loaded_again(tmp_path, image_dir, monkeypatch):
    no_opengl(monkeypatch)  # which is not needed for it
    loaded = []

    def load(*arguments):
        data = load_data(*arguments)
        loaded.append(weakref.ref(data))
        return data

    monkeypatch.setattr("utils.runs.setup.load_data", load)
    run = train(tmp_path, image_dir, agent="bc", num_seeds=2, eval_interval=0, **IMAGES)
    rows = read_csv(run.folder.path / "train.csv")
    assert {(row["step"], row["seed"]) for row in rows} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert all(np.isfinite(row["validation/actor/mse"]) for row in rows)
    gc.collect()
    assert [data() for data in loaded] == [None]  # frames in host memory are let go of
    agent = load_agent(run.folder.path, seed=1)
    image = load_data(run.settings, run.agent_class).train["observations"][7]
    assert image.shape == (64, 64, 9)
    assert agent.sample_actions(image, jax.random.key(0)).shape == (5,)


def test_without_opengl_a_run_to_be_evaluated_is_refused_before_data_are_loaded(
    tmp_path, image_dir, monkeypatch
):
    no_opengl(monkeypatch)
    monkeypatch.setattr("utils.runs.setup.load_data", lambda *_: pytest.fail("loaded"))
    run = make_run(tmp_path, image_dir, agent="bc", eval_interval=4, **IMAGES)
    with run, pytest.raises(UserError, match=r"^pixel observations need OpenGL"):
        run.start()


@pytest.mark.slow
def test_a_visual_task_is_trained_and_evaluated(tmp_path, image_dir):
    if rendering.choose_gl() == "disabled":
        pytest.skip("nothing here renders")
    run = train(tmp_path, image_dir, eval_interval=4, **IMAGES)
    (row,) = read_csv(run.folder.path / "eval.csv")
    assert row["length"] == 200
    assert make_run(tmp_path, image_dir, eval_interval=4, **IMAGES).folder.path == run.folder.path
