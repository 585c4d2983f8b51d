"""Columns that are computed from whole episodes."""

import numpy as np
import pytest

from tests import toys
from utils.columns import episode_bounds, episode_ends, mc_returns, next_actions, prepare
from utils.datasets import DeviceDataset, HostDataset, example_batch, fingerprint
from utils.errors import UserError


def episodes(*lengths, seed=0):
    """Transitions of episodes that all end by a time limit."""
    data = toys.transitions(size=sum(lengths), seed=seed)
    terminals = np.zeros(sum(lengths), np.float32)
    terminals[np.cumsum(lengths) - 1] = 1.0
    return data | {"terminals": terminals, "masks": np.ones(sum(lengths), np.float32)}


def test_next_actions_stay_within_the_episode():
    data = episodes(3, 1, 2)
    column = prepare(data, {"next_actions": next_actions})["next_actions"]
    np.testing.assert_array_equal(column, data["actions"][[1, 2, 2, 3, 5, 5]])


def test_ends_are_the_last_rows_whether_or_not_the_data_say_so():
    data = episodes(3, 1, 2)
    data["terminals"][-1] = 0.0
    column = prepare(data, {"ends": episode_ends})["ends"]
    assert column.tolist() == [0, 0, 1, 1, 0, 1]
    assert column.dtype == np.float32


def test_the_last_row_of_all_ends_an_episode_that_still_runs():
    data = episodes(2, 3)
    data["terminals"][-1] = 0.0
    column = prepare(data, {"next_actions": next_actions})["next_actions"]
    np.testing.assert_array_equal(column, data["actions"][[1, 1, 3, 4, 4]])
    assert episode_bounds(np.zeros(0)) == []


def test_returns_are_those_of_the_scaled_rewards_to_the_end_of_the_episode():
    data = episodes(3, 2)
    data["rewards"] = np.array([1, 2, 3, 4, 5], np.float32)
    scaled = prepare(data, {"mc_returns": mc_returns(0.5)}, lambda rewards: 10 * rewards - 1)
    np.testing.assert_array_equal(scaled["rewards"], [9, 19, 29, 39, 49])
    expected = [9 + 19 / 2 + 29 / 4, 19 + 29 / 2, 29, 39 + 49 / 2, 49]
    np.testing.assert_array_equal(scaled["mc_returns"], expected)
    assert scaled["mc_returns"].dtype == np.float32
    np.testing.assert_array_equal(data["rewards"], [1, 2, 3, 4, 5])


def test_returns_do_not_reach_beyond_the_end_of_the_task():
    data = episodes(4)
    data["rewards"] = np.array([1, 2, 3, 4], np.float32)
    data["masks"][1] = 0.0
    returns = prepare(data, {"mc_returns": mc_returns(0.5)})["mc_returns"]
    np.testing.assert_array_equal(returns, [2.0, 2.0, 5.0, 4.0])


def test_an_episode_that_never_succeeds_fails_for_ever():
    data = episodes(3, 3)
    data["rewards"] = np.array([-1, -1, -1, -1, -1, 0], np.float32)
    returns = prepare(data, {"mc_returns": mc_returns(0.75, failure_reward=-1)})["mc_returns"]
    np.testing.assert_array_equal(returns, [-4, -4, -4, -1.75, -1, 0])
    with pytest.raises(UserError, match="set one below 1"):
        mc_returns(1.0, failure_reward=-1)


def test_rewards_are_scaled_where_no_column_is_computed_too():
    data = toys.transitions(size=4)
    scaled = prepare(data, {}, lambda rewards: 2 * rewards)
    np.testing.assert_array_equal(scaled["rewards"], 2 * data["rewards"])
    assert set(scaled) == set(data)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rewards": next_actions}, "rewards is one that all data have"),
        ({"short": lambda episode: episode["actions"][1:]}, r"short has shape \(2, 3\)"),
        ({"bad": lambda episode: episode["rewards"] / 0.0}, "bad has NaN or infinite values"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_column_that_cannot_be_is_named(columns, message):
    with pytest.raises(UserError, match=message):
        prepare(episodes(3), columns)


def test_data_without_ends_of_episodes_are_refused_where_columns_need_them():
    with pytest.raises(UserError, match="the data lack terminals"):
        prepare(toys.transitions(size=4), {"next_actions": next_actions})


@pytest.mark.parametrize("dataset", [DeviceDataset, HostDataset])
def test_batches_have_the_agents_columns_and_no_others(dataset):
    data = prepare(episodes(30, 20), {"next_actions": next_actions})
    columns = ("next_actions",)
    assert set(example_batch(data, 4, columns)) == set(data) - {"terminals"}
    source = dataset(data, 4, columns=columns)
    assert set(source.arrays) == set(data) - {"terminals"}
    with pytest.raises(UserError, match="the data lack mc_returns"):
        dataset(data, 4, columns=("mc_returns",))
    assert set(dataset(data, 4).arrays) == set(toys.transitions(size=1))


def test_where_episodes_end_is_part_of_the_fingerprint():
    """Columns follow from it: a run must not be resumed on other ends."""
    data = episodes(4, 2)
    moved = data | {"terminals": np.roll(data["terminals"], -1)}
    without = {name: array for name, array in data.items() if name != "terminals"}
    assert fingerprint(data) == fingerprint(dict(data))
    assert len({fingerprint(data), fingerprint(moved), fingerprint(without)}) == 3
