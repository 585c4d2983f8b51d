"""Replay for online training: a ring on the device, and what is needed of it on disk.

The ring begins with the dataset, which all seeds share and nobody writes to; each seed's own
transitions follow it, in arrays of their own. Once the ring is full a new transition takes the
place of the oldest one, and those of the dataset are the oldest: they are then no longer drawn.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from utils.datasets import Batch, batch_indices
from utils.errors import UserError
from utils.files import Column, read_arrays, write_atomically

Ring = dict[str, jax.Array]


class Replay:
    """How a ring is written and drawn from; the arrays themselves are passed through.

    Args:
        dataset: Transitions on the device, by key, n rows each.
        capacity: Most transitions that the ring holds (with `balanced`, besides the dataset).
        batch_size: Transitions per batch.
        num_seeds: Training seeds, each with transitions of its own.
        max_inserts: Most transitions that will ever be inserted; no more memory is taken.
        from_dataset: Whether the ring begins with the dataset; else it begins empty.
        balanced: Draw half of each batch from the dataset and half from the ring, which then begins
            empty (RLPD, arXiv 2302.02948, "symmetric sampling").

    Raises:
        UserError: The capacity is smaller than the dataset that the ring begins with.
    """

    def __init__(
        self,
        dataset: Mapping[str, jax.Array],
        *,
        capacity: int,
        batch_size: int,
        num_seeds: int,
        max_inserts: int,
        from_dataset: bool = True,
        balanced: bool = False,
    ):
        self.dataset = dict(dataset)
        self.dataset_size = len(dataset["actions"])
        self.first = self.dataset_size if from_dataset and not balanced else 0
        if capacity < self.first:
            raise UserError(
                f"--buffer_size={capacity} is less than the dataset's {self.first} transitions, "
                f"with which the replay begins: give at least --buffer_size={self.first}"
            )
        self.capacity = capacity
        self.batch_size = batch_size
        self.num_seeds = num_seeds
        self.balanced = balanced
        self.rows = min(capacity, max_inserts)
        self._gather = jax.jit(lambda ring, rows: {key: a[:, rows] for key, a in ring.items()})

    def empty(self) -> Ring:
        """Arrays (seeds, rows, ...) for the transitions to come."""
        return {
            key: jnp.zeros((self.num_seeds, self.rows, *array.shape[1:]), array.dtype)
            for key, array in self.dataset.items()
        }

    def insert(self, ring: Ring, transitions: Batch, inserted: jax.Array) -> Ring:
        """Insert one transition per seed, (seeds, ...), into a ring that has had `inserted`."""
        row = inserted % self.capacity
        insert = jax.lax.dynamic_update_index_in_dim
        return {key: insert(array, transitions[key], row, axis=1) for key, array in ring.items()}

    def read(self, ring: Ring, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Transitions (n, seeds, ...) of the insertions `numbers` (n,), on the host."""
        # Rounded up to a power of two, because each new number of rows is compiled anew.
        padding = (1 << (len(numbers) - 1).bit_length()) - len(numbers)
        rows = np.pad(numbers % self.capacity, (0, padding))
        found = self._gather(ring, rows)
        return {key: np.asarray(a)[:, : len(numbers)].swapaxes(0, 1) for key, a in found.items()}

    def draw(
        self,
        dataset: Batch,
        ring: Ring,
        key: jax.Array,
        step: jax.Array,
        seed: jax.Array,
        inserted: jax.Array,
    ) -> Batch:
        """Draw one seed's batch of update `step`, uniformly with replacement.

        Args:
            dataset: The arrays of the dataset.
            ring: The arrays of the ring.
            key: The seed's key for sampling.
            step: Number of the update.
            seed: Index of the seed.
            inserted: Transitions inserted so far, at least 1 unless the ring began with the
                dataset.
        """
        if self.balanced:
            half = self.batch_size // 2
            dataset_key, ring_key = jax.random.split(key)
            old = batch_indices(dataset_key, step, half, self.dataset_size)
            size = jnp.minimum(inserted, self.capacity)
            new = batch_indices(ring_key, step, self.batch_size - half, size)
            return {
                name: jnp.concatenate([dataset[name][old], ring[name][seed, new]])
                for name in dataset
            }
        size = jnp.minimum(self.first + inserted, self.capacity)
        slots = batch_indices(key, step, self.batch_size, size)
        # Insertion j went to slot (first + j) mod capacity, and to row j mod capacity of the ring's
        # arrays: a slot is the dataset's until its own row has been written.
        rows = (slots - self.first) % self.capacity
        if self.first == 0:
            return {name: array[seed, rows] for name, array in ring.items()}

        def pick(old: jax.Array, new: jax.Array) -> jax.Array:
            is_new = (rows < inserted).reshape(-1, *(1,) * (old.ndim - 1))
            return jnp.where(is_new, new[seed, rows], old[slots])

        return {name: pick(dataset[name], array) for name, array in ring.items()}


class ReplayLog:
    """The inserted transitions on disk, as files of consecutive ones that are never rewritten.

    The dataset is not among them, and each transition is written once: a save costs what was
    inserted since the last one, however large the replay is.

    Args:
        folder: Where the files are; made if need be.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        for unfinished in self.folder.glob("*.tmp"):  # a kill during a save
            unfinished.unlink()
        self.saved = 0

    def save(self, replay: Replay, ring: Ring, inserted: int, needed: int) -> None:
        """Write what was inserted since the last save, and drop what no checkpoint needs.

        Args:
            replay: Whose transitions they are.
            ring: Its arrays.
            inserted: Insertions so far.
            needed: Insertions up to the last complete checkpoint, which may yet be restored.

        Raises:
            UserError: It cannot be written; what was saved before is as it was.
        """
        if inserted == self.saved:
            return
        numbers = np.arange(max(self.saved, inserted - replay.capacity), inserted)
        buffer = io.BytesIO()
        np.savez(buffer, **replay.read(ring, numbers))
        path = self.folder / f"{numbers[0]:010d}-{inserted:010d}.npz"
        write_atomically(path, buffer.getvalue())
        for path, _, end in self._files():
            if end <= needed - replay.capacity:
                path.unlink()
        self.saved = inserted

    def restore(self, replay: Replay, inserted: int) -> Ring:
        """Read the ring as it was after `inserted` insertions, and drop what was written later.

        Raises:
            UserError: A file is missing or damaged.
        """
        shapes = jax.eval_shape(replay.empty)
        ring = {key: np.zeros(like.shape, like.dtype) for key, like in shapes.items()}
        columns = {
            key: Column((replay.num_seeds, *like.shape[2:]), like.dtype.kind)
            for key, like in shapes.items()
        }
        remedy = "Restore the file, or start over with --overwrite."
        covered = 0
        for path, start, end in self._files():
            if start >= inserted:
                path.unlink()
                continue
            arrays = read_arrays(path, columns, remedy)
            if end > inserted or len(arrays["actions"]) != end - start:
                raise UserError(f"{path} does not hold the transitions of its name. {remedy}")
            if start <= covered or start <= inserted - replay.capacity:
                covered = end
            rows = np.arange(start, end) % replay.capacity
            for key, array in arrays.items():
                ring[key][:, rows] = array.swapaxes(0, 1)
        if covered != inserted:
            raise UserError(
                f"{self.folder} lacks the transitions {covered} to {inserted}. {remedy}"
            )
        self.saved = inserted
        return jax.tree.map(jnp.asarray, ring)

    def _files(self) -> list[tuple[Path, int, int]]:
        """Paths with the numbers of their first transition and of the one after their last."""
        return [
            (path, *map(int, path.stem.split("-"))) for path in sorted(self.folder.glob("*-*.npz"))
        ]
