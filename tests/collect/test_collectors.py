import numpy as np
import pytest

from utils.collect import collectors
from utils.collect.collectors import (
    EpisodeWorker,
    collect_attempt,
    exact_states,
    file_columns,
    make_collector,
)
from utils.collect.config import CollectionConfig
from utils.collect.tallies import Tally
from utils.envs.ogbench import collection, names
from utils.envs.ogbench.collection import advice, core_hours, is_collectable, official_size


def config_for(env_name, rows, seed=0):
    return CollectionConfig.create(names.resolve(env_name), rows, seed)


@pytest.mark.parametrize(
    "env_name",
    [
        "pointmaze-teleport-navigate",
        "antmaze-medium-explore",
        "cube-double-noisy",
        "scene-play",
        "puzzle-3x3-noisy",
    ],
)
def test_episode_depends_on_its_number_alone(env_name):
    config = config_for(env_name, rows=41)
    used, fresh = make_collector(config), make_collector(config)
    episodes = [collect_attempt(used, config, "train", n, 0) for n in range(3)]
    again = collect_attempt(fresh, config, "train", 2, 0)
    for key, array in again.items():
        np.testing.assert_array_equal(array, episodes[2][key])
    others = [
        episodes[0],
        episodes[1],
        collect_attempt(fresh, config, "val", 2, 0),
        collect_attempt(fresh, config, "train", 2, 1),
        collect_attempt(fresh, config_for(env_name, rows=41, seed=1), "train", 2, 0),
    ]
    assert not any(np.array_equal(other["actions"], again["actions"]) for other in others)


def test_rows_belong_together():
    config = config_for("puzzle-3x3-play", rows=60)
    collector = make_collector(config)
    data = collect_attempt(collector, config, "train", 0, 0)
    env = collector.env.unwrapped
    for row in (1, 30, 59):
        env.set_state(*(data[key][row] for key in ("qpos", "qvel", "button_states")))
        observation = env.compute_observation()
        # Column 18 is the gripper's contact force, which is no function of the position.
        np.testing.assert_allclose(
            np.delete(observation, 18), np.delete(data["observations"][row], 18), atol=1e-4
        )


def test_noisy_oracle_explores_more_than_the_plan():
    jumps = {}
    for kind in ("play", "noisy"):
        config = config_for(f"cube-single-{kind}", rows=101)
        data = collect_attempt(make_collector(config), config, "train", 0, 0)
        jumps[kind] = np.abs(np.diff(data["actions"][:, :3], axis=0)).mean()
        assert np.abs(data["actions"]).max() <= 1
    assert jumps["noisy"] > 1.5 * jumps["play"]


@pytest.mark.parametrize(
    ("y", "z", "visible"),
    [
        (0.28, 0.02, True),
        (0.29, 0.02, False),
        (-0.29, 0.02, True),
        (-0.3, 0.02, False),
        (-0.3, 0.07, True),
        (-0.4, 0.09, False),
    ],
)
def test_scene_cube_stays_visible(y, z, visible):
    positions = np.array([[0.4, 0.0, 0.02], [0.4, y, z]])
    assert collectors._cube_stays_visible(positions) is visible


@pytest.mark.parametrize(
    ("env_name", "episodes", "rows"),
    [
        ("pointmaze-teleport-navigate", 1000, 1001),
        ("pointmaze-giant-navigate", 500, 2001),
        ("pointmaze-giant-stitch", 5000, 201),
        ("antmaze-large-navigate", 1000, 1001),
        ("antmaze-giant-navigate", 500, 2001),
        ("antmaze-teleport-stitch", 5000, 201),
        ("visual-antmaze-giant-navigate", 500, 2001),
        ("antmaze-medium-explore", 10000, 501),
        ("cube-double-noisy", 1000, 1001),
        ("visual-cube-triple-play", 3000, 1001),
        ("cube-quadruple-play", 5000, 1001),
        ("scene-play", 1000, 1001),
        ("puzzle-4x4-noisy", 1000, 1001),
        ("puzzle-4x5-play", 3000, 1001),
        ("visual-puzzle-4x6-noisy", 5000, 1001),
    ],
)
def test_official_sizes(env_name, episodes, rows):
    assert official_size(names.resolve(env_name)) == (episodes, rows)


def test_every_dataset_that_can_be_collected_has_an_expected_time():
    for dataset in names.DATASETS:
        if is_collectable(dataset):
            assert 0.01 < core_hours(dataset) < 1000


def test_the_expected_time_is_that_of_the_workers_that_are_advised(monkeypatch):
    dataset = "cube-single-play-v0"
    monkeypatch.setattr(collection, "available_cores", lambda: 2)
    assert collection.arguments(dataset)[1] == "--workers=2"
    assert collection.expected_time(dataset) == f"about {round(30 * core_hours(dataset))} minutes"


def test_the_expected_time_of_images_is_that_of_rendering_them(monkeypatch):
    monkeypatch.setattr(collection, "available_cores", lambda: 2)
    dataset = "visual-cube-single-play-v0"
    rendering = 1_101_100 * 0.14 / 3600
    assert core_hours(dataset) == pytest.approx(rendering + core_hours("cube-single-play-v0"))
    words = "about 22 hours where images are rendered in software, less on a GPU"
    assert collection.expected_time(dataset) == words
    assert f"({words})" in advice(names.resolve(dataset))


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.001, "about a minute"),
        (0.02, "about a minute"),
        (0.03, "about 2 minutes"),
        (1.9, "about 114 minutes"),
        (2.0, "about 2 hours"),
    ],
)
def test_times_are_said_in_words(monkeypatch, hours, words):
    monkeypatch.setattr(collection, "available_cores", lambda: 4)
    monkeypatch.setattr(collection, "core_hours", lambda full_name: 4 * hours)
    assert collection.expected_time("scene-play-v0") == words


def test_advice_is_for_what_can_be_collected():
    text = advice(names.resolve("antmaze-large-navigate-task2"), "/some where")
    assert "python -m utils.collect --env_name=antmaze-large-navigate --workers=" in text
    assert "'--dataset_dir=/some where'` (about " in text
    assert advice(names.resolve("humanoidmaze-large-navigate")) == ""
    assert advice(names.resolve("antsoccer-arena-navigate")) == ""


def test_a_discarded_scene_episode_is_collected_anew(tmp_path, monkeypatch):
    class Stub:
        def __init__(self):
            self.draws = []

        def steps(self, reset_seed):
            self.draws.append((reset_seed, np.random.uniform()))
            qpos = np.zeros(21)
            qpos[15] = 0.3 if len(self.draws) < 3 else 0.0
            for _ in range(4):
                yield {"qpos": qpos, "terminals": False}

    stub = Stub()
    config = config_for("scene-play", rows=4)
    monkeypatch.setattr(collectors, "make_collector", lambda config: stub)
    worker = EpisodeWorker(config, tmp_path, file_columns)
    assert worker("train", 7) == Tally(episodes=1, steps=3 * 4)
    assert len(set(stub.draws)) == 3
    with np.load(tmp_path / "train-000007.npz") as archive:
        assert archive["qpos"][0, 15] == 0


def test_files_have_floats_of_32_bits_and_states_before_their_frames_all_of_them():
    data = {
        "observations": np.zeros((3, 2)),
        "qpos": np.full((3, 1), 1 / 3),
        "terminals": np.arange(3) == 2,
        "button_states": np.ones((3, 2), np.int64),
    }
    in_file = {key: str(array.dtype) for key, array in file_columns(data).items()}
    wanted = ("float32", "float32", "bool", "int64")
    assert in_file == dict(zip(data, wanted, strict=True))
    states = exact_states(data)
    assert list(states) == ["qpos", "terminals", "button_states"]
    assert all(states[key] is data[key] for key in states)
