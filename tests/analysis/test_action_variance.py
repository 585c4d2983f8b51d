"""Intrinsic action variance: known answers, and the file that keeps them."""

import json

import numpy as np
import pytest

from utils.analysis import action_variance
from utils.analysis.action_variance import Question, cached_action_variance
from utils.errors import UserError
from utils.frames import FrameStacks

ALL = Question(states=10**6)


def clusters(number=40, members=6, seed=0):
    """Transitions (n, ...) at `number` far places, whose actions differ as much at each.

    In a cluster of six, every state has the five others as neighbours. The two action dimensions
    are 1 and 3 times the member's place in -2.5 .. 2.5, plus what the cluster does.
    """
    rng = np.random.default_rng(seed)
    place = np.arange(members) - (members - 1) / 2
    centres = 100.0 * np.arange(number)[:, None, None]
    states = centres + rng.uniform(0, 1, (number, members, 1)) * np.ones((1, 1, 2))
    actions = place[:, None] * np.array([1.0, 3.0]) + 50 * rng.normal(size=(number, 1, 2))
    size = number * members
    return {
        "observations": states.reshape(size, 2).astype(np.float32),
        "actions": actions.reshape(size, 2).astype(np.float32),
        "terminals": (np.arange(size) % 4 == 3).astype(np.float32),  # of four, so across clusters
    }


def test_the_variance_of_known_neighbours_is_found():
    answer = action_variance.action_variance(clusters(), ALL)
    place = np.arange(6) - 2.5
    expected = np.mean([np.delete(place, i).var() for i in range(6)])
    np.testing.assert_allclose(answer.dimensions, [expected, 9 * expected], rtol=1e-5)
    assert answer.iav == pytest.approx(5 * expected, rel=1e-5)
    by_state = np.tile([5 * np.delete(place, i).var() for i in range(6)], 40)
    assert answer.error == pytest.approx(by_state.std() / np.sqrt(240), rel=1e-4)
    assert answer.overall > 100 * answer.iav
    assert (answer.states, answer.rows) == (240, 240)
    assert answer.distance < 0.01


def test_actions_that_states_do_not_tell_vary_as_all_actions():
    rng = np.random.default_rng(1)
    data = {"observations": rng.normal(size=(4000, 3)), "actions": rng.normal(size=(4000, 2))}
    data = {name: column.astype(np.float32) for name, column in data.items()}
    answer = action_variance.action_variance(data, Question(states=2000))
    assert answer.overall == pytest.approx(1, abs=0.05)
    assert answer.iav == pytest.approx(0.8, abs=0.03)  # of five values about their own mean
    assert answer.states == 2000
    assert answer.same_episode is None


def test_neighbours_of_the_same_episode_are_counted_and_can_be_left_out():
    rng = np.random.default_rng(2)
    walks = rng.normal(size=(30, 1)) + 0.01 * np.arange(8)
    actions = rng.normal(size=(30, 1)) + 0.1 * np.arange(8)
    data = {
        "observations": walks.reshape(-1, 1).astype(np.float32),
        "actions": actions.reshape(-1, 1).astype(np.float32),
        "terminals": np.tile(np.arange(8) == 7, 30).astype(np.float32),
    }
    near = action_variance.action_variance(data, ALL)
    far = action_variance.action_variance(data, Question(other_episodes=True, states=10**6))
    assert 0.5 < near.same_episode < 0.9
    assert far.same_episode == 0
    variances = []
    for i, place in enumerate(walks.ravel()):
        others = np.flatnonzero(np.arange(240) // 8 != i // 8)
        closest = others[np.argsort(np.abs(walks.ravel()[others] - place))[:5]]
        variances.append(actions.ravel()[closest].var())
    assert far.iav == pytest.approx(np.mean(variances), rel=1e-4)
    assert abs(far.iav / near.iav - 1) > 0.01


def test_what_has_no_answer_is_refused():
    data = clusters(1)
    with pytest.raises(UserError, match=r"6 rows are too few for 6 neighbours; lower --k"):
        action_variance.action_variance(data, Question(k=6))
    del data["terminals"]
    with pytest.raises(UserError, match="lack terminals"):
        action_variance.action_variance(data, Question(other_episodes=True))
    frames = np.zeros((6, 8, 8, 3), np.uint8)
    for images in (frames, FrameStacks.of_steps(frames, np.arange(6) == 5)["observations"]):
        with pytest.raises(UserError, match="images have no useful distance"):
            action_variance.action_variance(data | {"observations": images}, ALL)


def test_an_answer_is_kept_and_belongs_to_its_data_and_question(tmp_path, monkeypatch):
    cache, data = tmp_path / "data.iav.json", clusters()
    first, origin = cached_action_variance(data, ALL, cache)
    assert origin == f"computed, and kept in {cache}"
    other, _ = cached_action_variance(data, Question(k=3), cache)
    changed = data | {"actions": data["actions"] / 2}
    halved, origin = cached_action_variance(changed, ALL, cache)
    assert origin.startswith("computed")
    assert halved.iav == pytest.approx(first.iav / 4)
    monkeypatch.setattr(action_variance, "nearest_rows", None)
    assert cached_action_variance(data, ALL, cache) == (first, f"from {cache}")
    assert cached_action_variance(data, Question(k=3), cache)[0] == other
    assert cached_action_variance(changed, ALL, cache)[0] == halved


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"iav": 1}}'])
def test_a_damaged_file_is_written_anew(tmp_path, content):
    cache = tmp_path / "data.iav.json"
    cache.write_text(content)
    answer, _ = cached_action_variance(clusters(), ALL, cache)
    assert [entry["iav"] for entry in json.loads(cache.read_text()).values()] == [answer.iav]


def test_a_folder_that_cannot_be_written_costs_only_the_file(tmp_path):
    answer, origin = cached_action_variance(clusters(), ALL, tmp_path / "no" / "data.iav.json")
    assert answer.iav > 0
    assert origin.startswith("computed, and not kept: cannot write")
    assert cached_action_variance(clusters(), ALL, None) == (answer, "computed")
