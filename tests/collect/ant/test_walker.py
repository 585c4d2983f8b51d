import itertools
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from utils.collect.ant import walker as module
from utils.collect.ant.directional_ant import DirectionalAnt
from utils.collect.ant.walker import SHIPPED, Walker
from utils.errors import UserError


@pytest.fixture(scope="module")
def shipped():
    return Walker.load()


def states(number, seed=0):
    """Observations as of ants, and directions."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(number, 27)) * np.where(np.arange(27) < 13, 0.5, 3.0)
    observations[:, 1:5] /= np.linalg.norm(observations[:, 1:5], axis=-1, keepdims=True)
    directions = rng.normal(size=(number, 2))
    return observations, directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def small_walker(**facts):
    rng = np.random.default_rng(1)
    widths = (27, 6, 5, 8)
    layers = [
        (rng.normal(size=shape), rng.normal(size=shape[1])) for shape in itertools.pairwise(widths)
    ]
    return Walker(layers, facts)


def test_the_shipped_walker_walks_in_any_direction_and_does_not_fall(shipped):
    env = DirectionalAnt()
    distance = 0.0
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(300):
            state = env.unwrapped.data
            observation = np.concatenate([state.qpos[2:], state.qvel])
            _, reward, terminated, _, _ = env.step(shipped.act(observation, env.direction))
            assert not terminated
            distance += reward
        assert not env.is_overturned()
    env.close()
    assert distance / (3 * 300 * 0.1) > 1.5  # metres per second


def test_an_action_depends_on_no_order_of_sums(shipped):
    observations, directions = states(200)
    actions = shipped.act(observations, directions)
    assert actions.shape == (200, 8)
    assert np.abs(actions).max() <= 1
    assert np.ptp(actions) > 1
    single = [shipped.act(*pair) for pair in zip(observations, directions, strict=True)]
    np.testing.assert_array_equal(single, actions)
    grid = shipped.act(observations.reshape(4, 50, 27), directions.reshape(4, 50, 2))
    np.testing.assert_array_equal(grid.reshape(200, 8), actions)
    # Before they are rounded, too: with the inputs of the layers in other orders.
    order = np.random.default_rng(0).permutation(256)
    (first, first_bias), (second, second_bias), (third, third_bias) = shipped.layers
    reordered = [
        (first[:, order], first_bias[order]),
        (second[order][:, order[::-1]], second_bias[order[::-1]]),
        (third[order[::-1]], third_bias),
    ]
    np.testing.assert_array_equal(Walker(reordered, {}).act(observations, directions), actions)
    hidden = module._fixed_point(np.random.default_rng(0).normal(size=(200, 256)))
    expected = (hidden @ second).T
    np.testing.assert_array_equal(np.einsum("ij,bi->jb", second, hidden), expected)
    np.testing.assert_array_equal(second[order].T @ hidden.T[order], expected)


def test_what_is_summed_up_is_held_exactly(shipped):
    """The walker's sums are below 2^53 units of 2^-32."""
    for kernel, bias in shipped.layers:
        for array in (kernel, bias):
            np.testing.assert_array_equal(array * 2**16, np.rint(array * 2**16))
        assert np.abs(kernel).sum(axis=0).max() * 2**10 < 2**21  # of inputs below 2^10


def test_a_walker_is_the_network_that_it_was_made_of():
    walker = small_walker()
    observations, directions = states(20)
    x = module.rotate(observations, directions)
    for kernel, bias in walker.layers[:-1]:
        x = x @ kernel + bias
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    kernel, bias = walker.layers[-1]
    expected = np.tanh(x @ kernel + bias)
    np.testing.assert_allclose(walker.act(observations, directions), expected, atol=2e-4)


def test_a_saved_walker_is_the_same_and_the_same_walker_gives_the_same_bytes(tmp_path):
    walker = small_walker(seed=3, note="größer")
    walker.save(tmp_path / "a.npz")
    walker.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = Walker.load(tmp_path / "a.npz")
    assert loaded.facts == {"seed": 3, "note": "größer", "widths": [27, 6, 5, 8]}
    for pair, other in zip(loaded.layers, walker.layers, strict=True):
        for array, same in zip(pair, other, strict=True):
            np.testing.assert_array_equal(array, same)
    loaded.save(tmp_path / "c.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def rewritten(path, **arrays):
    """A walker's file with other arrays in it."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | arrays
    np.savez(path, **arrays)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "walker.npz"

    def refused(words):
        with pytest.raises(UserError, match=words) as caught:
            Walker.load(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert "utils.collect.ant.train" in str(caught.value)

    refused("cannot read")
    small_walker().save(path)
    whole = path.read_bytes()
    with np.load(path) as archive:
        parameters = archive["parameters"]
    path.write_bytes(whole[:-30])
    refused("truncated or damaged")
    parameters[3] += 2.0**-16
    path.write_bytes(whole)
    rewritten(path, parameters=parameters)
    refused("checksum differs")
    path.write_bytes(whole)
    for text in (b"{}", b"[1]", b"no JSON", b"\xff"):
        rewritten(path, facts=np.frombuffer(text, np.uint8))
        refused("holds no walker")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.npy", "")
    refused("lacks parameters")


def test_the_shipped_file_is_small_and_says_how_it_was_made(shipped):
    assert SHIPPED.stat().st_size < 350_000
    assert shipped.facts["widths"] == [27, 256, 256, 8]
    assert {"agent", "settings", "seed", "step", "num_envs", "versions"} <= set(shipped.facts)


def test_a_walker_needs_no_jax():
    program = (
        "import sys; from utils.collect.ant.walker import Walker; Walker.load(); "
        "print('jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("False\n", "")
