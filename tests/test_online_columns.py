"""Columns that online training fills in when an episode ends."""

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.test_columns import episodes
from utils.columns import TRANSITION_COLUMNS, mc_returns, next_actions, prepare
from utils.datasets import DeviceDataset, example_batch
from utils.online import OnlineState, OnlineTrainer
from utils.replay import Replay, ReplayLog

COLUMNS = {"next_actions": next_actions, "mc_returns": mc_returns(0.5)}
DATASET = prepare(episodes(4, 2), COLUMNS)
BATCH_SIZE = 64
# Of two members: they end apart, together, at once, and within what a ring of 12 or 9 holds.
LENGTHS = ([3, 5, 1, 1, 6, 2, 7, 3, 9, 5, 8], [4, 4, 6, 2, 3, 3, 3, 8, 2, 6, 9])
STEPS = 45


class Recorder(flax.struct.PyTreeNode):
    """An agent that keeps its last batch, and a sum in which every batch shows."""

    seen: dict
    total: jax.Array

    def update(self, batch, rng):
        total = 0.9 * self.total + sum(array.sum() for array in batch.values())
        return self.replace(seen=batch, total=total), {"rewards": batch["rewards"].mean()}

    def sample_actions(self, observations, rng, temperature):
        return jnp.tanh(observations[:3] + jax.random.normal(rng, (3,)))


def script(members=(0, 1)):
    """What environments answer in `STEPS` steps, whatever is done: rewards tell rows apart."""
    data = [toys.transitions(size=STEPS + 1, seed=10 + member) for member in members]
    ends = np.zeros((STEPS, len(members)), np.float32)
    for column, member in enumerate(members):
        ends[np.cumsum(LENGTHS[member])[np.cumsum(LENGTHS[member]) <= STEPS] - 1, column] = 1.0
    observations = np.stack([d["observations"] for d in data], axis=1)
    rewards = 1000.0 * (1 + np.asarray(members)) + np.arange(STEPS)[:, None]
    for step in range(STEPS):
        yield {
            "next_observations": observations[step + 1],
            "observations": observations[step + 1],
            "rewards": rewards[step].astype(np.float32),
            "masks": np.ones(len(members), np.float32),
            "terminals": ends[step],
        }


class Training:
    def __init__(self, columns=COLUMNS, members=(0, 1), **options):
        data = {name: DATASET[name] for name in (*TRANSITION_COLUMNS, *columns)}
        example = example_batch(data, BATCH_SIZE, columns)
        example = {name: jnp.resize(x, (BATCH_SIZE, *x.shape[1:])) for name, x in example.items()}
        n = len(members)
        agent = Recorder(jax.tree.map(jnp.zeros_like, example), jnp.zeros(()))
        agents = jax.tree.map(lambda x: jnp.stack([x] * n), agent)
        self.replay = Replay(
            DeviceDataset(data, BATCH_SIZE, columns=columns).arrays,
            batch_size=BATCH_SIZE,
            num_members=n,
            max_inserts=100,
            columns=columns,
            **options,
        )
        self.trainer = OnlineTrainer(self.replay, 0)
        self.state = OnlineState.create(agents, np.asarray(members), example)
        self.state = self.trainer.reset(self.state, np.ones((n, 5), np.float32))
        self.ring = self.trainer.compile(self.state, self.replay.empty())
        self.outcomes = list(script(members))
        self.taken = []

    def step(self):
        self.taken.append(np.asarray(self.state.actions))
        outcome = self.outcomes[int(self.state.step)]
        self.state, self.ring = self.trainer.step(self.state, self.ring, outcome)
        return self


def known_columns(training, member, step):
    """Columns of all rows that member may see in `step`, by reward."""
    ends = np.array([outcome["terminals"][member] for outcome in training.outcomes])
    done = np.flatnonzero(ends[:step])
    taken, known = np.array(training.taken)[:, member], {}
    rewards = np.array([outcome["rewards"][member] for outcome in training.outcomes])
    for row in range(done[-1] + 1 if len(done) else 0):
        last = row + int(np.argmax(ends[row:]))
        following = taken[min(row + 1, last)]
        returns = np.float32(
            sum(0.5**k * r for k, r in enumerate(rewards[row : last + 1].tolist()))
        )
        known[rewards[row]] = (following, returns)
    return known


@pytest.mark.parametrize(
    ("capacity", "balanced", "from_dataset"),
    [(12, False, True), (9, True, True), (100, False, False)],
    ids=["wraps", "balanced", "scratch"],
)
def test_rows_are_seen_when_their_episode_has_ended_and_with_its_columns(
    capacity, balanced, from_dataset
):
    training = Training(capacity=capacity, balanced=balanced, from_dataset=from_dataset)
    dataset = dict(
        zip(
            DATASET["rewards"],
            zip(DATASET["next_actions"], DATASET["mc_returns"], strict=True),
            strict=True,
        )
    )
    updates = 0
    for step in range(STEPS):
        before = int(training.state.metric_count)
        training.step()
        ready = int(training.state.metric_count) - before
        updates += ready
        own = [  # of each member, what the ring still holds of the episodes that have ended
            {
                reward: values
                for reward, values in known_columns(training, member, step).items()
                if reward - 1000 * (1 + member) > step - capacity
            }
            for member in range(2)
        ]
        shared = {}
        if balanced or from_dataset:
            overwritten = 0 if balanced else max(0, step + 1 + len(dataset) - capacity)
            shared = dict(list(dataset.items())[overwritten:])
        # Everyone waits for the one who has nothing to sample.
        assert ready == all(rows or (shared and not balanced) for rows in own)
        for member in range(2) if ready else ():
            expected = shared | own[member]
            seen = {name: np.asarray(x[member]) for name, x in training.state.agents.seen.items()}
            for row, reward in enumerate(seen["rewards"]):
                following, returns = expected[reward]  # and no other row
                np.testing.assert_array_equal(seen["next_actions"][row], following)
                assert seen["mc_returns"][row] == returns
    assert updates > STEPS / 2


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("stop", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (13, 30))])
def test_resuming_within_episodes_gives_the_same_bits(tmp_path, stop, balanced):
    options = {"capacity": 12, "balanced": balanced}
    undisturbed, first, second = (Training(**options) for _ in range(3))
    log = ReplayLog(tmp_path)
    for step in range(stop):
        undisturbed.step()
        first.step()
        if step == stop // 2:
            log.save(first.replay, first.ring, step + 1, needed=0)
    log.save(first.replay, first.ring, stop, needed=0)
    with np.load(next(tmp_path.glob("*.npz"))) as saved:
        assert set(saved) == {*TRANSITION_COLUMNS, "terminals"}
    second.state = first.state
    ring = ReplayLog(tmp_path).restore(second.replay, stop)
    chex.assert_trees_all_equal(ring, first.ring)
    second.ring = second.trainer.compile(second.state, ring)
    for _ in range(STEPS - stop):
        undisturbed.step()
        second.step()
    ours, theirs = (
        (run.ring, run.state.agents, run.state.metric_sums, run.state.metric_count)
        for run in (undisturbed, second)
    )
    chex.assert_trees_all_equal(ours, theirs)


def test_members_together_are_members_apart():
    together = Training(capacity=12)
    apart = [Training(capacity=12, members=(member,)) for member in (0, 1)]
    for training in (together, *apart):
        for _ in range(STEPS):
            training.step()
    for member, alone in enumerate(apart):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, member=member: x[member], together.state.agents),
            jax.tree.map(lambda x: x[0], alone.state.agents),
            rtol=1e-5,
        )


def test_episodes_that_cannot_be_gone_on_with_end_where_they_are():
    training = Training(capacity=100, from_dataset=False)
    for _ in range(5):
        training.step()
    running = training.replay.pending(training.ring, 5)
    np.testing.assert_array_equal(running, [2, 1])
    training.ring = training.trainer.end_episodes(training.state, training.ring)
    np.testing.assert_array_equal(training.replay.pending(training.ring, 5), [0, 0])
    column = np.asarray(training.ring["next_actions"])
    np.testing.assert_array_equal(column[0, 3:5], [training.taken[4][0]] * 2)
    np.testing.assert_array_equal(column[1, 4], training.taken[4][1])


@pytest.mark.parametrize("capacity", [12, 100], ids=["wraps", "all"])
@pytest.mark.parametrize("rest", [1, 4, 20])
def test_an_episode_that_was_ended_so_stays_ended_when_resumed_again(tmp_path, rest, capacity):
    """The files were written before that: the ring in memory knows it, and the cuts tell."""
    first, second, third = (Training(capacity=capacity) for _ in range(3))
    log = ReplayLog(tmp_path)
    for _ in range(5):
        first.step()
    np.testing.assert_array_equal(first.replay.pending(first.ring, 5), [2, 1])
    log.save(first.replay, first.ring, 5, needed=0)

    log = ReplayLog(tmp_path)
    second.state = first.state
    second.ring = second.trainer.compile(second.state, log.restore(second.replay, 5))
    second.ring = second.trainer.end_episodes(second.state, second.ring)
    for _ in range(rest):
        second.step()
    log.save(second.replay, second.ring, 5 + rest, needed=5)

    ring = ReplayLog(tmp_path).restore(third.replay, 5 + rest, cuts=[5])
    chex.assert_trees_all_equal(ring, second.ring)
    pending = third.replay.pending(ring, 5 + rest)
    np.testing.assert_array_equal(pending, second.trainer._pending)
    third.state = jax.tree.map(jnp.copy, second.state)
    third.ring = third.trainer.compile(third.state, ring)
    for training in (second, third):
        for _ in range(10):
            training.step()
    chex.assert_trees_all_equal(third.ring, second.ring)
    chex.assert_trees_all_equal(third.state.agents, second.state.agents)


def test_without_columns_nothing_more_is_kept():
    replay = Training(columns={}, capacity=12).replay
    assert set(replay.empty()) == set(TRANSITION_COLUMNS)
    assert replay.stored == TRANSITION_COLUMNS
