"""The replay ring on the device, and its copy on disk."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from utils.errors import UserError
from utils.replay import Replay, ReplayLog

DATASET = toys.transitions(size=6)


def numbered(number, num_members=2):
    """Transition number `number` of every member, with rewards that tell them all apart."""
    batch = toys.transitions(size=num_members, seed=100 + number)
    return batch | {"rewards": 1000.0 * (1 + np.arange(num_members, dtype=np.float32)) + number}


@functools.cache
def make(capacity=10, max_inserts=100, **kwargs):
    dataset = {key: jnp.asarray(value) for key, value in DATASET.items()}
    kwargs = {"batch_size": 64, "num_members": 2, "max_inserts": max_inserts} | kwargs
    return Replay(dataset, capacity=capacity, **kwargs)


@functools.cache
def inserter(replay):
    return jax.jit(replay.insert)


@functools.cache
def sampler(replay):
    def sample(ring, member, inserted, step):
        key = jax.random.key(3)
        return replay.batch(replay.dataset, ring, key, step, member, inserted)

    return jax.jit(jax.vmap(sample, (None, None, None, 0)))


def fill(replay, count):
    ring = replay.empty()
    for number in range(count):
        ring = inserter(replay)(ring, numbered(number, replay.num_members), number)
    return ring


def samples(replay, ring, inserted, member, updates=20):
    """Many samples of one member, by key (updates, batch, ...)."""
    batches = sampler(replay)(ring, member, inserted, jnp.arange(updates))
    return {key: np.asarray(value) for key, value in batches.items()}


def plain_ring(capacity, inserted, member, first=6):
    """Rewards in a ring that is written to in the plainest way."""
    slots = list(DATASET["rewards"][:first])
    for number in range(inserted):
        reward = 1000.0 * (1 + member) + number
        if len(slots) < capacity:
            slots.append(reward)
        else:
            slots[(first + number) % capacity] = reward
    return slots


# Empty, with room, full, just wrapped, half the dataset gone, all of it, wrapped again and again.
@pytest.mark.parametrize("inserted", [0, 1, 3, 4, 5, 7, 10, 11, 15, 27])
@pytest.mark.parametrize("member", [0, 1])
def test_every_slot_is_sampled_and_nothing_else(inserted, member):
    replay = make()
    rewards = samples(replay, fill(replay, inserted), inserted, member)["rewards"]
    expected = np.array(plain_ring(10, inserted, member), np.float32)
    values, counts = np.unique(rewards, return_counts=True)
    np.testing.assert_array_equal(values, np.unique(expected))
    # Uniformly: 1280 samples over at most 10 slots.
    mean = rewards.size / len(expected)
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)


@pytest.mark.parametrize("max_inserts", [4, 100])
def test_a_sampled_row_is_one_transition_whole(max_inserts):
    replay = make(max_inserts=max_inserts)
    inserted = min(max_inserts, 8)
    batch = samples(replay, fill(replay, inserted), inserted, member=1)
    known = {float(reward): (DATASET, row) for row, reward in enumerate(DATASET["rewards"])}
    known |= {2000.0 + number: (numbered(number), 1) for number in range(inserted)}
    for index in np.ndindex(*batch["rewards"].shape):
        source, row = known[float(batch["rewards"][index])]
        for key, value in batch.items():
            np.testing.assert_array_equal(value[index], source[key][row])


def test_memory_is_taken_for_what_will_be_inserted_only():
    assert make(capacity=10, max_inserts=3).empty()["rewards"].shape == (2, 3)
    assert make(capacity=10, max_inserts=50).empty()["rewards"].shape == (2, 10)


@pytest.mark.parametrize("inserted", [1, 9, 10, 23])
def test_balanced_sampling_takes_half_from_the_dataset_and_half_from_the_ring(inserted):
    replay = make(balanced=True)
    rewards = samples(replay, fill(replay, inserted), inserted, member=0)["rewards"]
    old, new = np.split(rewards, 2, axis=1)
    assert set(old.ravel()) == set(DATASET["rewards"])
    assert set(new.ravel()) == set(plain_ring(10, inserted, member=0, first=0))


def test_a_replay_from_scratch_has_online_transitions_only():
    replay = make(from_dataset=False)
    for inserted in (1, 10, 13):
        rewards = samples(replay, fill(replay, inserted), inserted, member=1)["rewards"]
        assert set(rewards.ravel()) == set(plain_ring(10, inserted, member=1, first=0))


def test_a_capacity_below_the_dataset_is_refused_with_the_remedy():
    with pytest.raises(UserError, match="give at least --buffer_size=6"):
        make(capacity=5)
    make(capacity=6)
    make(capacity=5, balanced=True)


# --- On disk --------------------------------------------------------------------------------------


def test_saves_are_increments_and_restore_the_ring_at_any_of_them(tmp_path):
    replay = make(max_inserts=100)
    log = ReplayLog(tmp_path / "replay")
    for stop in (0, 3, 3, 4, 9, 16):
        before = {path: path.stat().st_mtime_ns for path in log.folder.iterdir()}
        log.save(replay, fill(replay, stop), stop, needed=log.saved)
        for path, changed in before.items():
            assert not path.exists() or path.stat().st_mtime_ns == changed
    assert [end for _, _, end in log._files()] == [3, 4, 9, 16]
    again = ReplayLog(tmp_path / "replay")
    chex.assert_trees_all_equal(again.restore(replay, 16), fill(replay, 16))
    # The checkpoint before, as if the last one had been damaged: later transitions are dropped.
    chex.assert_trees_all_equal(again.restore(replay, 9), fill(replay, 9))
    assert [end for _, _, end in log._files()] == [3, 4, 9]
    again.save(replay, fill(replay, 12), 12, needed=9)
    chex.assert_trees_all_equal(again.restore(replay, 12), fill(replay, 12))


def test_files_that_no_checkpoint_needs_are_deleted(tmp_path):
    replay = make(max_inserts=100)
    log = ReplayLog(tmp_path / "replay")
    for stop in (5, 10, 15, 20, 25):
        log.save(replay, fill(replay, stop), stop, needed=log.saved)
    # Saved beside an evaluation that has not led to a checkpoint: the last is still that of 25.
    log.save(replay, fill(replay, 40), 40, needed=25)
    assert [(start, end) for _, start, end in log._files()] == [(15, 20), (20, 25), (30, 40)]
    log.save(replay, fill(replay, 50), 50, needed=25)
    # Of the last two checkpoints the earlier one needs transitions 15 to 25.
    assert [(start, end) for _, start, end in log._files()] == [
        (15, 20),
        (20, 25),
        (30, 40),
        (40, 50),
    ]
    chex.assert_trees_all_equal(log.restore(replay, 50), fill(replay, 50))
    chex.assert_trees_all_equal(log.restore(replay, 25), fill(replay, 25))


def test_a_damaged_or_missing_file_is_named(tmp_path):
    replay = make()
    log = ReplayLog(tmp_path / "replay")
    for stop in (3, 6, 9):
        log.save(replay, fill(replay, stop), stop, needed=0)
    (first, *_), (middle, *_), _ = log._files()
    whole = middle.read_bytes()
    middle.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{middle.name} is truncated or damaged"):
        log.restore(replay, 9)
    middle.unlink()
    with pytest.raises(UserError, match="lacks the transitions 3 to 9"):
        log.restore(replay, 9)
    first.rename(middle)
    with pytest.raises(UserError, match="lacks the transitions 0 to 9"):
        log.restore(replay, 9)
