"""Stacks of frames: gathered by row from frames that are stored once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_sampling import batch_of
from utils.datasets import DeviceDataset, HostDataset, example_batch, fingerprint, make_source
from utils.errors import UserError
from utils.frames import FrameStacks, stack_frames
from utils.once import Once
from utils.sampling import UNIFORM, SamplingRule, gather

LENGTHS = (4, 1, 3)  # transitions per episode, which have one frame more each


def columns():
    """Images (2, 2, 1), each of the value of its number."""
    last = np.concatenate([np.arange(n, -1, -1) == 0 for n in LENGTHS])
    frames = np.broadcast_to(
        np.arange(len(last), dtype=np.uint8)[:, None, None, None], (11, 2, 2, 1)
    )
    return FrameStacks.of_steps(np.ascontiguousarray(frames), last)


def transitions(**changed):
    """The same with all other columns, as arrays."""
    size = sum(LENGTHS)
    data = {name: np.asarray(column) for name, column in columns().items()}
    data |= {
        "actions": np.arange(size, dtype=np.float32)[:, None],
        "rewards": np.zeros(size, np.float32),
        "masks": np.ones(size, np.float32),
        "terminals": np.isin(np.arange(size), np.cumsum(LENGTHS) - 1).astype(np.float32),
    }
    return data | changed


def numbers(stacks):
    """The numbers of the frames in each stack."""
    return np.asarray(stacks)[..., 0, 0, :].tolist()


def test_the_first_frame_repeats_and_no_stack_leaves_its_episode():
    stacks = stack_frames(columns(), 3)
    assert numbers(stacks["observations"]) == [
        [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3],
        [5, 5, 5],
        [7, 7, 7], [7, 7, 8], [7, 8, 9],
    ]  # fmt: skip
    assert numbers(stacks["next_observations"]) == [
        [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4],
        [5, 5, 6],
        [7, 7, 8], [7, 8, 9], [8, 9, 10],
    ]  # fmt: skip
    assert stacks["observations"].shape == (8, 2, 2, 3)


def test_images_in_arrays_are_stored_once_and_stacked_alike():
    found = stack_frames(transitions(), 3)
    expected = stack_frames(columns(), 3)
    for name, column in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(column))
    assert found["observations"].frames is found["next_observations"].frames
    assert found["observations"].frames.shape == (11, 2, 2, 1)


def test_a_cut_that_the_terminals_do_not_say_is_refused():
    data = transitions()
    data["terminals"][3] = 0.0
    with pytest.raises(UserError, match="row 3 ends no episode by 'terminals'"):
        stack_frames(data, 3)


@pytest.mark.parametrize("rows", [5, np.array([[7, 0], [4, 2]]), np.zeros(0, int)])
def test_rows_of_any_shape_are_gathered_by_numpy_and_jax_alike(rows):
    stacks = stack_frames(columns(), 2)["next_observations"]
    whole = np.asarray(stacks)
    np.testing.assert_array_equal(stacks[rows], whole[rows])
    on_device = jax.tree.map(jnp.asarray, stacks)
    found = jax.jit(lambda column, rows: column[rows])(on_device, rows)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, whole[rows])


def test_a_slice_gathers_nothing():
    stacks = stack_frames(columns(), 3)["observations"]
    part = stacks[2:6]
    assert part.frames is stacks.frames
    np.testing.assert_array_equal(np.asarray(part), np.asarray(stacks)[2:6])


def data_in_stacks():
    return stack_frames(transitions(), 3)


def test_both_sources_gather_uint8_stacks_of_the_same_rows():
    key, plain = jax.random.key(0), {k: np.asarray(v) for k, v in data_in_stacks().items()}
    batches = [
        batch_of(source, 2, key)
        for source in (
            DeviceDataset(plain, 16),
            DeviceDataset(data_in_stacks(), 16),
            HostDataset(data_in_stacks(), 16),
        )
    ]
    assert batches[0]["observations"].dtype == np.uint8
    for batch in batches[1:]:
        for name, column in batch.items():
            np.testing.assert_array_equal(column, batches[0][name])


def test_frames_that_two_columns_share_are_on_the_device_once():
    arrays = DeviceDataset(data_in_stacks(), 16).arrays
    assert arrays["observations"].frames is arrays["next_observations"].frames


def test_frames_that_crowd_the_device_stay_and_few_batches_are_prefetched(monkeypatch):
    data = data_in_stacks()
    needed = data["observations"].frames.nbytes + sum(
        x.nbytes for name, x in data.items() if name in ("actions", "rewards", "masks")
    )
    needed += data["observations"].current.nbytes + data["observations"].first.nbytes
    monkeypatch.setattr("utils.datasets.device_memory", lambda: 2 * needed)
    assert isinstance(make_source(data, 16), DeviceDataset)
    monkeypatch.setattr("utils.datasets.device_memory", lambda: 2 * needed - 1)
    assert make_source(data, 16).max_updates == 50
    batch = 16 * (4 * 4 + 12)  # the frames of both stacks, and three numbers
    monkeypatch.setattr("utils.datasets.PREFETCHED_BYTES", 7 * batch + 1)
    assert make_source(data, 16).max_updates == 7
    monkeypatch.setattr("utils.datasets.PREFETCHED_BYTES", 1)
    assert make_source(data, 16).max_updates == 1


def test_the_fingerprint_sees_frames_and_where_episodes_begin():
    found = {fingerprint(data_in_stacks())}
    other = transitions()
    other["observations"][0] += 100
    found.add(fingerprint(stack_frames(other, 3)))
    other = transitions(terminals=np.ones(8, np.float32))
    found.add(fingerprint(stack_frames(other, 3)))
    assert len(found) == 3
    assert fingerprint(data_in_stacks()) in found


def test_four_frames_are_gathered_for_both_stacks_of_three():
    for data in (data_in_stacks(), Once.of(DeviceDataset(data_in_stacks(), 16).arrays).tree()):
        found = UNIFORM.batch(data, np.array([[0, 2, 7]]), ("observations", "next_observations"))
        assert found["observations"].frames is found["next_observations"].frames
        frames = found["observations"].frames[..., 0, 0, 0]
        assert frames.tolist() == [[[0, 0, 0, 1], [0, 1, 2, 3], [7, 8, 9, 10]]]


def test_a_program_on_the_device_gathers_them_once_too():
    source = DeviceDataset(data_in_stacks(), 16)
    prefetched = source.prefetch(None, 0, 1)
    batch = functools.partial(source.batch, prefetched, 0, jax.random.key(0), 0, 0)
    gathers = [e for e in jax.make_jaxpr(batch)().eqns if e.primitive.name == "gather"]
    shapes = [equation.outvars[0].aval.shape for equation in gathers]
    assert [shape for shape in shapes if len(shape) == 5] == [(16, 4, 2, 2, 1)]


def test_a_rule_of_ones_own_gets_images():
    data = data_in_stacks()
    rule = SamplingRule(gather=gather)
    for name, column in rule.batch(data, np.array([2, 7]), tuple(data)).items():
        np.testing.assert_array_equal(column, np.asarray(data[name])[[2, 7]])


def test_an_example_is_of_stacks():
    assert example_batch(data_in_stacks(), 4)["observations"].shape == (4, 2, 2, 3)


def test_crops_are_of_the_device_and_the_same_from_both_sources():
    key, rule = jax.random.key(0), SamplingRule(p_aug=1.0)
    data = data_in_stacks()
    data |= {"observations": np.random.default_rng(0).integers(0, 255, (8, 5, 6, 2), np.uint8)}
    sources = DeviceDataset(data, 16, rule=rule), HostDataset(data, 16, rule=rule)
    cropped, same = (batch_of(source, 2, key) for source in sources)
    as_is = batch_of(DeviceDataset(data, 16), 2, key)
    assert (cropped["observations"] != as_is["observations"]).any()
    for name, column in cropped.items():
        np.testing.assert_array_equal(column, same[name])
        if column.ndim < 4:
            np.testing.assert_array_equal(column, as_is[name])
