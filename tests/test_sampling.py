"""Sampling rules: which rows, how they are gathered, from a file, on every source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.test_columns import episodes
from utils.datasets import DeviceDataset, HostDataset
from utils.errors import UserError
from utils.replay import Replay
from utils.sampling import UNIFORM, load_rule

DATA = episodes(7, 1, 40, 2)
DATA["masks"][[6, 20]] = 0.0  # the end of a task, at an episode's end and within one
BATCH_SIZE = 64

N_STEP = """
STEPS, DISCOUNT = 3, 0.5
COLUMNS = ("terminals",)


def gather(arrays, rows):
    batch = {name: array[rows] for name, array in arrays.items()}
    for _ in range(STEPS - 1):
        goes_on = 1.0 - arrays["terminals"][rows]
        rows = rows + goes_on.astype(int)
        # What a reward of the next row counts for, or the mask as it is where there is none.
        batch["masks"] = batch["masks"] * (1.0 + goes_on * (DISCOUNT - 1.0))
        batch["rewards"] = batch["rewards"] + goes_on * batch["masks"] * arrays["rewards"][rows]
        batch["masks"] = batch["masks"] * (1.0 + goes_on * (arrays["masks"][rows] - 1.0))
    batch["next_observations"] = arrays["next_observations"][rows]
    return batch
"""


def n_step_rows(data, rows):
    """The same in the plainest way: rewards, masks and the row whose successor is s at t+n."""
    rewards, masks, last = [], [], []
    for row in rows:
        reward, factor = data["rewards"][row], data["masks"][row]
        for _ in range(2):
            if data["terminals"][row]:
                break
            row += 1
            factor *= 0.5
            reward += factor * data["rewards"][row]
            factor *= data["masks"][row]
        rewards.append(reward)
        masks.append(factor)
        last.append(row)
    return np.array(rewards), np.array(masks), np.array(last)


@pytest.fixture
def n_step(tmp_path):
    path = tmp_path / "n_step.py"
    path.write_text(N_STEP)
    return load_rule(path)


def batch_of(source, step, key):
    prefetched = source.prefetch(key[None], step, 1)
    batch = jax.jit(source.batch, static_argnums=4)(prefetched, 0, key, step, 0)
    return {name: np.asarray(array) for name, array in batch.items()}


def test_an_n_step_rule_keeps_within_episodes_on_both_sources(n_step):
    key = jax.random.key(0)
    rows = np.asarray(n_step.sample_rows(jax.random.fold_in(key, 4), BATCH_SIZE, 50))
    rewards, masks, last = n_step_rows(DATA, rows)
    assert (last - rows == 2).any()
    assert (last - rows < 2).any()
    batches = []
    for dataset in (DeviceDataset, HostDataset):
        batch = batch_of(dataset(DATA, BATCH_SIZE, rule=n_step), 4, key)
        assert set(batch) == set(DATA) - {"terminals"}
        np.testing.assert_allclose(batch["rewards"], rewards, 1e-5, 1e-6)
        np.testing.assert_array_equal(batch["masks"], masks)
        np.testing.assert_array_equal(batch["observations"], DATA["observations"][rows])
        np.testing.assert_array_equal(batch["next_observations"], DATA["next_observations"][last])
        batches.append(batch)
    for name in batches[0]:
        np.testing.assert_array_equal(batches[0][name], batches[1][name])


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("inserted", [1, 5, 12, 13, 30])
def test_a_rule_reads_the_ring_across_its_wrap_and_not_beyond_the_newest(
    n_step, inserted, balanced
):
    source = DeviceDataset(DATA, BATCH_SIZE, rule=n_step)
    capacity = 12 if balanced else 60
    new = [episodes(4, 5, 21, seed=seed) for seed in (1, 2)]
    replay = Replay(
        source.arrays,
        capacity=capacity,
        batch_size=BATCH_SIZE,
        num_members=2,
        max_inserts=30,
        balanced=balanced,
        rule=n_step,
    )
    ring = replay.empty()
    insert = jax.jit(replay.insert)
    for number in range(inserted):
        ring = insert(ring, {k: np.stack([d[k][number] for d in new]) for k in DATA}, number)
    batch = jax.jit(replay.batch)(
        replay.dataset, ring, jax.random.key(0), 3, jnp.int32(1), jnp.int32(inserted)
    )
    assert set(batch) == set(DATA) - {"terminals"}
    # What the ring holds, from the oldest to the newest, in which an episode may still run.
    first = {} if balanced else DATA
    whole = {
        k: np.concatenate([*([first[k]] if first else []), new[1][k][:inserted]]) for k in DATA
    }
    whole = {name: array[-capacity:] for name, array in whole.items()}
    whole["terminals"][-1] = 1.0
    own = {
        name: np.asarray(array)[BATCH_SIZE // 2 if balanced else 0 :]
        for name, array in batch.items()
    }
    number_of = {tuple(row): i for i, row in enumerate(whole["observations"])}
    rows = np.array([number_of[tuple(row)] for row in own["observations"]])
    rewards, masks, last = n_step_rows(whole, rows)
    np.testing.assert_allclose(own["rewards"], rewards, 1e-5, 1e-6)
    np.testing.assert_array_equal(own["masks"], masks)
    np.testing.assert_array_equal(own["next_observations"], whole["next_observations"][last])


def test_rows_are_the_rules_too(tmp_path):
    path = tmp_path / "latest.py"
    path.write_text(
        "import jax\n\ndef sample_rows(key, batch_size, size):\n"
        "    return size - 1 - jax.random.randint(key, (batch_size,), 0, 3)\n"
    )
    rule = load_rule(path)
    assert rule.gather is UNIFORM.gather
    for dataset in (DeviceDataset, HostDataset):
        batch = batch_of(dataset(DATA, BATCH_SIZE, rule=rule), 0, jax.random.key(0))
        assert set(batch["rewards"]) == set(DATA["rewards"][-3:])


@pytest.mark.parametrize("dataset", [DeviceDataset, HostDataset])
def test_sample_gives_notebooks_a_batch(dataset):
    batch = dataset(DATA, BATCH_SIZE).sample(jax.random.key(0), 500)
    assert all(isinstance(array, jax.Array) for array in batch.values())
    assert set(np.asarray(batch["rewards"])) == set(DATA["rewards"])
    row = int(np.flatnonzero(DATA["rewards"] == np.asarray(batch["rewards"])[7])[0])
    for name, array in batch.items():
        np.testing.assert_array_equal(array[7], DATA[name][row])
    assert set(batch) == set(toys.transitions(size=1))


def test_both_sources_sample_the_same():
    key = jax.random.key(1)
    ours, theirs = (d(DATA, BATCH_SIZE).sample(key, 9) for d in (DeviceDataset, HostDataset))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_uniform_has_a_name():
    assert load_rule("uniform") is UNIFORM


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("COLUMNS = 'terminals'\n", r"COLUMNS in .*rule\.py must be a tuple"),
        ("x = 1\n", r"rule\.py defines no sample_rows\(\) and no gather\(\)"),
        ("x = 1\ny = x.z\n", r"rule\.py, line 2: AttributeError"),
        ("def gather(:\n", r"rule\.py, line 1: SyntaxError"),
    ],
)
def test_a_file_that_is_no_rule_is_told_in_one_line(tmp_path, content, message):
    (tmp_path / "rule.py").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_rule(tmp_path / "rule.py")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is not a Python file; give the path of one, or uniform"):
        load_rule(tmp_path / "other.py")


@pytest.mark.parametrize("dataset", [DeviceDataset, HostDataset])
def test_a_rule_that_fails_names_its_line(tmp_path, dataset):
    path = tmp_path / "rule.py"
    path.write_text("\n\ndef gather(arrays, rows):\n    return {'x': arrays['speed'][rows]}\n")
    with pytest.raises(UserError, match=r"rule\.py, line 4: KeyError: 'speed'"):
        dataset(DATA, BATCH_SIZE, rule=load_rule(path)).sample(jax.random.key(0), 2)
    path.write_text(
        "\n\ndef gather(arrays, rows):\n    return {'rewards': arrays['rewards'][rows]}\n"
    )
    with pytest.raises(UserError, match="returns no observations and no actions"):
        dataset(DATA, BATCH_SIZE, rule=load_rule(path)).sample(jax.random.key(0), 2)


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "rule.py"
    path.write_text("COLUMNS = ('speed',)\n")
    rule = load_rule(path)
    with pytest.raises(UserError, match="the data lack speed"):
        DeviceDataset(DATA, BATCH_SIZE, rule=rule)
    arrays = DeviceDataset(DATA, BATCH_SIZE).arrays
    with pytest.raises(UserError, match="reads speed, which transitions online do not have"):
        Replay(arrays, capacity=50, batch_size=4, num_members=1, max_inserts=1, rule=rule)
