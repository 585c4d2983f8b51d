import numpy as np
import pytest

from utils.collect.collectors import collect_episode, make_collector
from utils.collect.config import CollectionConfig
from utils.collect.tallies import Tally
from utils.envs.ogbench import names


def traces(reached, progress):
    return {"reached": np.array(reached, bool), "progress": np.array(progress, np.float32)}


def test_tally_of_episodes():
    first = Tally.of_episode(5, traces([0, 1, 0, 1, 0], [0.5, 0.5, -0.25, 0.25, 0.5]))
    second = Tally.of_episode(5, traces([0, 0, 0, 0, 0], [0.1, 0.2, 0.0, 0.1, 0.1]))
    assert first == Tally(episodes=1, steps=5, goals=2, steps_to_goals=4, progress=1.5)
    assert first + second == Tally(episodes=2, steps=10, goals=2, steps_to_goals=4, progress=2.0)
    text = "1.00 goals per episode, a goal in 2 steps, 0.200 m per step in the direction told"
    assert (first + second).walk() == text
    assert second.walk() == "0.100 m per step in the direction told"


def test_arms_do_not_walk():
    tally = Tally() + Tally.of_episode(12, {}) + Tally.of_episode(6, {})
    assert tally == Tally(episodes=2, steps=18)
    assert tally.walk() == ""


@pytest.mark.parametrize("kind", ["navigate", "stitch"])
def test_tally_of_a_point(kind):
    config = CollectionConfig.create(names.resolve(f"pointmaze-medium-{kind}"), 201, seed=0)
    collector = make_collector(config)
    tally = Tally()
    for episode in range(4):
        data, one = collect_episode(collector, config, "train", episode)
        assert set(data) == {"observations", "actions", "terminals", "qpos", "qvel"}
        tally += one
        # A goal that is kept is reached once.
        assert one.goals <= (1 if kind == "stitch" else 8)
    assert tally.episodes == 4
    assert tally.steps == 4 * 201
    assert tally.goals >= 3
    assert 10 < tally.steps_to_goals <= tally.steps
    assert 0.1 < tally.progress / tally.steps < 0.3
