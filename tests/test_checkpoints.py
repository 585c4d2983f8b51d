"""Checkpoints: what is saved comes back, and a save that fails harms nothing."""

import contextlib
import os
import random
import resource
import shutil
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


# --- Damage, and what is none ---------------------------------------------------------------------


def two_saves(folder, tree=TREE):
    """Save steps 1 and 2, and return the folder of checkpoints."""
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tree, {"step": step})
    return checkpoints.folder


def restored_step(folder, tree=TREE, **kwargs):
    """Restore what `two_saves` saved; returns the step."""
    with contextlib.closing(Checkpoints(folder, **kwargs)) as checkpoints:
        restored, host = checkpoints.restore(tree)
    chex.assert_trees_all_equal(raw(restored), raw(tree))
    return host["step"]


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def largest_file(folder):
    return max(files_of(folder), key=lambda path: path.stat().st_size)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def put_in_place(path, target):
    """Have a link where a file was."""
    kept = path.with_name("kept")
    path.rename(kept)
    path.symlink_to(target)
    yield
    path.unlink()
    kept.rename(path)


@pytest.mark.parametrize("where", ["arrays", "host"])
def test_24_of_24_flipped_bits_are_found(tmp_path, where):
    draw, tree = random.Random(0), {"weights": jax.random.normal(jax.random.key(0), (20, 50))}
    folder = two_saves(tmp_path, tree)
    path = largest_file(folder / "2" / where) if where == "arrays" else folder / "2/host/metadata"
    good = path.read_bytes()
    begin = len(good) // 4 if where == "arrays" else 0  # the weights are in the middle
    for _ in range(24):
        bad, bit = bytearray(good), draw.randrange(8 * begin, 8 * (len(good) - begin))
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        assert restored_step(tmp_path, tree, read_only=True) == 1
    path.write_bytes(good)
    assert restored_step(tmp_path, tree) == 2


def halve(step):
    for path, content in files_of(step / "arrays").items():
        path.write_bytes(content[: len(content) // 2])


def change(step):
    path = step / "host/metadata"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))


DAMAGES = {
    "cut": halve,
    "arrays missing": lambda step: shutil.rmtree(step / "arrays"),
    "a file missing": lambda step: largest_file(step / "arrays").unlink(),
    "host missing": lambda step: (step / "host/metadata").unlink(),
    "host changed": change,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_until_a_newer_save_stands(tmp_path, damage, capsys):
    folder = two_saves(tmp_path)
    DAMAGES[damage](folder / "2")
    damaged = {path.relative_to(folder / "2") for path in files_of(folder / "2")}
    assert restored_step(tmp_path, read_only=True) == 1
    assert "it is passed over, and that of step 1 is taken" in capsys.readouterr().out
    assert names(folder) == ["1", "2"]
    assert restored_step(tmp_path) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "warning: the checkpoint of step 2 in" in line
    assert "it is renamed to damaged-2, and that of step 1 is taken" in line
    kept = folder / "damaged-2"
    assert {path.relative_to(kept) for path in files_of(kept)} == damaged
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, TREE, {"step": 2})
    assert names(folder) == ["1", "2"]
    assert restored_step(tmp_path) == 2


def test_where_all_are_damaged_none_is_set_aside(tmp_path):
    folder = two_saves(tmp_path)
    for step in (1, 2):
        halve(folder / str(step))
    with pytest.raises(UserError, match=r"all checkpoints .*step 2: .*; step 1: .* --overwrite"):
        restored_step(tmp_path)
    assert names(folder) == ["1", "2"]


def refused(folder):
    """Return the message of a refusal to read, which must leave all as it was."""
    before = names(folder)
    with pytest.raises(UserError, match=r"nothing has been changed.* same command again") as caught:
        restored_step(folder.parent)
    assert "--overwrite" not in str(caught.value)
    assert names(folder) == before
    return str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("which", [largest_file, lambda step: step / "host/metadata"])
@pytest.mark.parametrize("step", ["2", "1"])
def test_a_failing_disk_is_no_damage(tmp_path, which, step):
    """Reading the first byte of a process's memory fails as a bad sector does, with EIO."""
    folder = two_saves(tmp_path)
    if step == "1":
        halve(folder / "2")  # to be renamed only when it is known where to go on instead
    with put_in_place(which(folder / step), "/proc/self/mem"):
        assert "Input/output error" in refused(folder)
    assert restored_step(tmp_path) == int(step)


def test_a_file_that_cannot_be_opened_is_no_damage(tmp_path):
    folder = two_saves(tmp_path)
    path = largest_file(folder / "2/arrays")
    with put_in_place(path, path.name):
        assert "Too many levels of symbolic links" in refused(folder)
    assert restored_step(tmp_path) == 2


def test_too_many_open_files_are_no_damage(tmp_path):
    folder = two_saves(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.restore(TREE)  # what is opened once is open
        next_one = os.dup(0)
        os.close(next_one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, limits[1]))
        try:
            with pytest.raises(UserError, match=r"\(Too many open files\); it may be whole"):
                checkpoints.restore(TREE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert names(folder) == ["1", "2"]
    assert restored_step(tmp_path) == 2


def test_a_device_without_memory_is_no_damage(tmp_path, monkeypatch):
    def exhausted(*arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes")

    folder = two_saves(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("utils.checkpoints._on_device", exhausted)
        assert "RESOURCE_EXHAUSTED: Out of memory" in refused(folder)
    assert restored_step(tmp_path) == 2


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


def test_other_shapes_are_refused_by_name_and_nothing_is_set_aside(tmp_path):
    folder = two_saves(tmp_path)
    halve(folder / "2")
    with (
        contextlib.closing(Checkpoints(tmp_path)) as checkpoints,
        pytest.raises(UserError, match=r"step 1 .* \(.*weights.*\(2, 3\), expected \(4,\)\)"),
    ):
        checkpoints.restore(TREE | {"weights": jnp.zeros(4)})
    assert names(folder) == ["1", "2"]


def python(code, folder):
    """Run a program in a process of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


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
    output = python(code, tmp_path)
    assert "step 2 could not be written" in output
    assert "File too large" in output
    assert "the one of step 1 is kept" in output
    # The next process finds the good one, and can save again once there is space.
    checkpoints = Checkpoints(tmp_path)
    template = {"weights": jnp.zeros((300, 300))}
    assert checkpoints.restore(template)[1] == {"step": 1}
    checkpoints.save(2, template, {"step": 2})
    assert checkpoints.latest_step() == 2
    checkpoints.close()
