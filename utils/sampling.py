"""Sampling rules: which rows an update takes, and how a batch is gathered from them."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from utils.augmentation import random_crop
from utils.errors import UserError
from utils.frames import FrameStacks, Unstacked, gather_frames
from utils.python_files import load_python_file, user_function

Arrays = Mapping[str, Any]
"""Columns by name; each is indexed by rows of any shape, as NumPy's and JAX's arrays are.

Images may be stored once for all rows that show them, and are gathered likewise.
"""


def sample_rows(key: jax.Array, batch_size: int, size: int | jax.Array) -> jax.Array:
    """Sample rows (batch_size,) uniformly, with replacement, from `size` rows."""
    return jax.random.randint(key, (batch_size,), 0, size)


def gather(arrays: Arrays, rows: Any) -> dict[str, Any]:
    """Gather rows (...) of every column (size, ...)."""
    return {name: array[rows] for name, array in arrays.items()}


def gather_unstacked(arrays: Arrays, rows: Any) -> dict[str, Any]:
    """Gather as `gather` does, but leave frames to be stacked later, on the device."""
    stacks = {name: x for name, x in arrays.items() if isinstance(x, FrameStacks)}
    others = {name: x for name, x in arrays.items() if name not in stacks}
    return gather(others, rows) | gather_frames(stacks, rows)


@dataclasses.dataclass(frozen=True)
class SamplingRule:
    """How batches are sampled.

    Attributes:
        sample_rows: Takes a key, the batch size (static) and the number of rows (it may be traced);
            returns rows (batch_size,). It is traced.
        gather: Takes columns (size, ...) by name and rows (...), of any shape; returns a batch
            (..., *column's). It is called on NumPy arrays in host memory and traced on the device,
            so it has to use what both have: indices, operators, methods. A row whose `terminals`
            are 1 is the last of its episode, and the row after any other is its successor; nothing
            else follows from a row's number, and columns have no length. It may return images
            whose frames are not stacked yet.
        columns: Columns that `gather` reads besides those of a batch, such as "terminals".
        p_aug: Probability with which a batch's images are cropped at random.
    """

    sample_rows: Callable[[jax.Array, int, Any], jax.Array] = sample_rows
    gather: Callable[[Arrays, Any], Mapping[str, Any]] = gather_unstacked
    columns: tuple[str, ...] = ()
    p_aug: float = 0.0

    def batch(self, arrays: Arrays, rows: Any, names: Sequence[str]) -> dict[str, Any]:
        """Gather the columns `names` at rows (...), for `finish`.

        Raises:
            UserError: The rule leaves one of them out.
        """
        found = self.gather(arrays, rows)
        if missing := [name for name in names if name not in found]:
            raise UserError(
                f"the sampling rule's gather() returns no {' and no '.join(missing)}; "
                "it must return every column of a batch"
            )
        return {name: found[name] for name in names}

    def finish(self, key: jax.Array, batch: Mapping[str, Any]) -> Mapping[str, jax.Array]:
        """Stack and crop a batch's images (b, ...), on the device.

        Args:
            key: That which its rows were sampled with.
            batch: Columns (b, ...) by name.
        """
        batch = {n: x.stack() if isinstance(x, Unstacked) else x for n, x in batch.items()}
        if not self.p_aug:
            return batch
        key = jax.random.fold_in(key, 3)  # what else follows from it has the numbers below
        return random_crop(key, batch, self.p_aug)


UNIFORM = SamplingRule()
"""Every row equally often, as it is."""


def load_rule(name_or_path: str | Path) -> SamplingRule:
    """Load a sampling rule by its name or from a file.

    Args:
        name_or_path: "uniform", or the path of a Python file that defines `sample_rows`, `gather`
            and `COLUMNS`, or some of them; the others are the uniform rule's.

    Raises:
        UserError: There is no such file, it fails (the message has the line), or it defines none of
            the three or something else by their names. The rule's functions raise it likewise.
    """
    if str(name_or_path) == "uniform":
        return UNIFORM
    path = Path(name_or_path).expanduser()
    if not os.path.isfile(path) or path.suffix != ".py":
        raise UserError(
            f"the sampling rule {path} is not a Python file; give the path of one, or uniform"
        )
    module = load_python_file(path, "--sampling")
    columns = getattr(module, "COLUMNS", ())
    parts = {
        name: user_function(module, name)
        for name in ("sample_rows", "gather")
        if callable(getattr(module, name, None))
    }
    if not parts and not columns:
        raise UserError(f"{path} defines no sample_rows() and no gather(); define at least one")
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise UserError(
            f"COLUMNS in {path} must be a tuple of columns' names, such as ('terminals',)"
        )
    return SamplingRule(columns=tuple(columns), **parts)
