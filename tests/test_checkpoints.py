"""Checkpoints: what is saved comes back, and a save that fails harms nothing."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_training import start
from utils.checkpoints import FOLDER, Checkpoints, to_arrays
from utils.errors import UserError

REPOSITORY = Path(__file__).parents[1]
TREE = {"weights": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(3)}


def raw(tree):
    return jax.tree.map(np.asarray, to_arrays(tree))


def test_a_training_state_comes_back_bit_for_bit_and_continues_alike(tmp_path):
    trainer, state = start([4, 5, 6])
    state = trainer.update(state, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, {"last_logged": 2})
    trainer, template = start([7, 8, 9])
    restored, host = checkpoints.restore(template)
    assert host == {"last_logged": 2}
    chex.assert_trees_all_equal(raw(restored), raw(state))
    chex.assert_trees_all_equal(raw(trainer.update(restored, 4)), raw(trainer.update(state, 4)))
    checkpoints.close()


def test_the_latest_two_are_kept_and_the_newest_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(TREE) is None
    for step in (1, 2, 3):
        checkpoints.save(step, TREE | {"weights": TREE["weights"] + step}, {"step": step})
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "3"]
    tree, host = checkpoints.restore(TREE)
    assert host["step"] == 3
    np.testing.assert_array_equal(tree["weights"], TREE["weights"] + 3)
    checkpoints.close()


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, TREE, {"step": step})
    checkpoints.close()
    for path in (tmp_path / FOLDER / "2" / "arrays").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(TREE)[1]["step"] == 1
    checkpoints.save(2, TREE, {"step": "again"})  # the damaged one is no obstacle
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(TREE)[1]["step"] == "again"
    checkpoints.close()


def test_a_part_can_be_restored_without_touching_the_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"agents": TREE, "other": jnp.zeros(3)}, {"step": 1})
    checkpoints.close()
    unfinished = tmp_path / FOLDER / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = Checkpoints(tmp_path, read_only=True)
    tree, host = reader.restore(TREE, part="agents")
    reader.close()
    assert host == {"step": 1}
    chex.assert_trees_all_equal(raw(tree), raw(TREE))
    assert unfinished.exists()
    Checkpoints(tmp_path).close()
    assert not unfinished.exists()


def test_other_shapes_are_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, TREE, {})
    with pytest.raises(UserError, match=r"weights.*\(2, 3\), expected \(4,\)"):
        checkpoints.restore(TREE | {"weights": jnp.zeros(4)})
    checkpoints.close()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    """A limit on the size of files fails writes as a full disk does, wherever the test runs."""
    code = """
import resource, sys
import jax
from utils.checkpoints import Checkpoints
from utils.errors import UserError
checkpoints = Checkpoints(sys.argv[1])
tree = {"weights": jax.random.normal(jax.random.key(0), (300, 300))}
checkpoints.save(1, tree, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.save(2, tree, {"step": 2})
except UserError as error:
    print(error)
assert checkpoints.latest_step() == 1
assert checkpoints.restore(tree)[1] == {"step": 1}
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "step 2 could not be written" in done.stdout
    assert "File too large" in done.stdout
    assert "the one of step 1 is kept" in done.stdout
    # The next process finds the good one, and can save again once there is space.
    checkpoints = Checkpoints(tmp_path)
    template = {"weights": jnp.zeros((300, 300))}
    assert checkpoints.restore(template)[1] == {"step": 1}
    checkpoints.save(2, template, {"step": 2})
    assert checkpoints.latest_step() == 2
    checkpoints.close()
