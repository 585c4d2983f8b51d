"""Replay for online training: a ring on the device, and what is needed of it on disk.

The ring begins with the dataset, which all members share and nobody writes to; each member's own
transitions follow it, in arrays of their own. Once the ring is full a new transition takes the
place of the oldest one, and those of the dataset are the oldest: they are then no longer sampled.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from utils.columns import (
    TRANSITION_COLUMNS,
    ColumnFunction,
    compute_columns,
    episode_bounds,
)
from utils.datasets import Batch
from utils.errors import UserError
from utils.files import Column, read_arrays, write_atomically
from utils.sampling import UNIFORM, SamplingRule

Ring = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class _Slots:
    """One column of dataset and ring as a single array, indexed by slots of any shape.

    Attributes:
        dataset: The dataset's rows (n, ...).
        ring: The rows (members, rows, ...) of all members.
        member: Whose rows follow the dataset's, shape ().
        first: Slot of the first insertion.
        capacity: Slots of the ring.
        inserted: Transitions inserted so far.
    """

    dataset: jax.Array
    ring: jax.Array
    member: jax.Array
    first: int
    capacity: int
    inserted: jax.Array

    def __getitem__(self, slots: jax.Array) -> jax.Array:
        slots = slots % self.capacity
        # Insertion j went to slot (first + j) mod capacity, and to row j mod capacity of the ring's
        # arrays: a slot is the dataset's until its own row has been written.
        rows = (slots - self.first) % self.capacity
        new = self.ring[self.member, rows]
        if self.first == 0:
            return new
        is_new = (rows < self.inserted).reshape(*rows.shape, *(1,) * (new.ndim - rows.ndim))
        return jnp.where(is_new, new, self.dataset[slots])


class _Terminals(_Slots):
    """Ends of episodes by slot: the newest transition is the last one known of its episode."""

    def __getitem__(self, slots: jax.Array) -> jax.Array:
        newest = (self.first + self.inserted - 1) % self.capacity
        return jnp.where(slots % self.capacity == newest, 1.0, super().__getitem__(slots))


class Replay:
    """How a ring is written and sampled; the arrays themselves are passed through.

    Columns that are computed from a whole episode are filled in when it ends. Until then its rows
    are pending: they are not sampled.

    Args:
        dataset: The dataset's columns on the device, n rows each, as `DeviceDataset.arrays` has
            them: those of a batch, and `terminals` if the rule reads it.
        capacity: Most transitions that the ring holds (with `balanced`, besides the dataset).
        batch_size: Transitions per batch.
        num_members: Agents that are trained together, each with transitions of its own.
        max_inserts: Most transitions that will ever be inserted; no more memory is taken.
        from_dataset: Whether the ring begins with the dataset; else it begins empty.
        balanced: Sample half of each batch from the dataset and half from the ring, which then
            begins empty (RLPD, arXiv 2302.02948, "symmetric sampling").
        columns: Columns that are computed from episodes, by name; the dataset has them too.
        rule: How batches are sampled.

    Raises:
        UserError: The capacity is smaller than the dataset that the ring begins with, or the rule
            reads a column that transitions online do not have.
    """

    def __init__(
        self,
        dataset: Mapping[str, jax.Array],
        *,
        capacity: int,
        batch_size: int,
        num_members: int,
        max_inserts: int,
        from_dataset: bool = True,
        balanced: bool = False,
        columns: Mapping[str, ColumnFunction] | None = None,
        rule: SamplingRule = UNIFORM,
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
        self.num_members = num_members
        self.balanced = balanced
        self.rows = min(capacity, max_inserts)
        self.columns = dict(columns or {})
        self.rule = rule
        self.batch_columns = (*TRANSITION_COLUMNS, *self.columns)
        unknown = set(rule.columns) - {*self.batch_columns, "terminals"}
        if unknown:
            raise UserError(
                f"the sampling rule reads {' and '.join(sorted(unknown))}, which transitions "
                "online do not have; use it offline, or leave that column out"
            )
        self.stored = TRANSITION_COLUMNS  # what is inserted; the rest is computed
        if self.columns or "terminals" in rule.columns:
            self.stored = (*TRANSITION_COLUMNS, "terminals")
        self._gather = jax.jit(lambda ring, rows: {key: a[:, rows] for key, a in ring.items()})
        self._gather_one = jax.jit(
            lambda ring, member, rows: {key: a[member, rows] for key, a in ring.items()}
        )
        self._fill = jax.jit(
            lambda ring, member, rows, values: {
                key: a.at[member, rows].set(values[key], mode="drop") if key in values else a
                for key, a in ring.items()
            },
            donate_argnums=0,
        )

    def empty(self) -> Ring:
        """Make arrays (members, rows, ...) for the transitions to come."""
        like = {name: self.dataset[name] for name in self.batch_columns}
        ring = {
            name: jnp.zeros((self.num_members, self.rows, *array.shape[1:]), array.dtype)
            for name, array in like.items()
        }
        if "terminals" in self.stored:
            ring["terminals"] = jnp.zeros((self.num_members, self.rows))
        return ring

    def insert(self, ring: Ring, transitions: Batch, inserted: jax.Array) -> Ring:
        """Insert one transition per member, (members, ...), after `inserted` others.

        Columns that are computed from episodes are zero until `complete` fills them in.
        """
        row = inserted % self.capacity
        insert = jax.lax.dynamic_update_index_in_dim

        def new(name: str, array: jax.Array) -> jax.Array:
            return jnp.zeros_like(array[:, 0]) if name in self.columns else transitions[name]

        return {name: insert(array, new(name, array), row, axis=1) for name, array in ring.items()}

    def complete(self, ring: Ring, member: int, inserted: int, length: int) -> Ring:
        """Fill in the computed columns of one member's newest episode, which ends here.

        Args:
            ring: The arrays; donated.
            member: Whose episode it is.
            inserted: Transitions inserted so far, up to the episode's last.
            length: Steps of the episode; of those that the ring still holds.
        """
        length = min(length, self.rows, inserted)
        if length == 0:
            return ring
        numbers = np.arange(inserted - length, inserted)
        rows = _padded(numbers % self.capacity)
        stored = {name: ring[name] for name in TRANSITION_COLUMNS}
        found = self._gather_one(stored, member, np.maximum(rows, 0))
        episode = {name: np.asarray(array)[:length] for name, array in found.items()}
        last = np.arange(length) == length - 1
        columns = compute_columns(self.columns, episode) | {"terminals": last.astype(np.float32)}
        values = {
            name: np.pad(column, [(0, len(rows) - length), *[(0, 0)] * (column.ndim - 1)])
            for name, column in columns.items()
        }
        rows = np.where(rows < 0, self.rows, rows)  # out of bounds: not written
        return self._fill(ring, member, rows, values)

    def complete_all(self, ring: dict[str, np.ndarray], inserted: int) -> None:
        """Fill in the computed columns of all episodes that have ended, in arrays on the host."""
        numbers = np.arange(max(0, inserted - self.rows), inserted)
        rows = numbers % self.capacity
        pending = self.pending(ring, inserted)
        for member in range(self.num_members):
            ended = rows[: len(rows) - pending[member]]
            for start, end in episode_bounds(ring["terminals"][member, ended]):
                chosen = ended[start:end]
                episode = {name: ring[name][member, chosen] for name in TRANSITION_COLUMNS}
                for name, column in compute_columns(self.columns, episode).items():
                    ring[name][member, chosen] = column

    def pending(self, ring: Mapping[str, np.ndarray | jax.Array], inserted: int) -> np.ndarray:
        """Return how many rows (members,) each member's running episode has in a ring."""
        if "terminals" not in self.stored:
            return np.zeros(self.num_members, np.int32)
        numbers = np.arange(max(0, inserted - self.rows), inserted)
        terminals = np.asarray(ring["terminals"])[:, numbers % self.capacity]
        since = np.argmax(terminals[:, ::-1] != 0, axis=1) if len(numbers) else 0
        none = ~terminals.any(axis=1)
        return np.where(none, len(numbers), since).astype(np.int32)

    def available(self, inserted: jax.Array, pending: jax.Array | None = None) -> jax.Array:
        """Return how many slots of a member can be sampled; `pending` is its number of rows."""
        size = jnp.minimum(self.first + inserted, self.capacity)
        return size if pending is None else jnp.maximum(size - pending, 0)

    def read(self, ring: Ring, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Read the stored columns (n, members, ...) of the insertions `numbers` (n,)."""
        rows = np.maximum(_padded(numbers % self.capacity), 0)
        found = self._gather({name: ring[name] for name in self.stored}, rows)
        return {key: np.asarray(a)[:, : len(numbers)].swapaxes(0, 1) for key, a in found.items()}

    def batch(
        self,
        dataset: Batch,
        ring: Ring,
        key: jax.Array,
        step: jax.Array,
        member: jax.Array,
        inserted: jax.Array,
        pending: jax.Array | None = None,
    ) -> Batch:
        """Sample one member's batch of update `step` by the rule.

        Args:
            dataset: The arrays of the dataset.
            ring: The arrays of the ring.
            key: The member's key for sampling.
            step: Number of the update.
            member: Index of the member.
            inserted: Transitions inserted so far, at least 1 unless the ring began with the
                dataset.
            pending: How many of the newest are left out, shape (), fewer than `available` are; None
                where no column is computed.
        """
        size = self.available(inserted, pending)
        start = 0  # the oldest slot: which one it is matters only where the newest are left out
        if pending is not None:
            start = jnp.maximum(self.first + inserted - self.capacity, 0)
        arrays = {
            name: (_Terminals if name == "terminals" else _Slots)(
                dataset[name], ring[name], member, self.first, self.capacity, inserted
            )
            for name in (*self.batch_columns, *self.rule.columns)
        }
        if self.balanced:
            half = self.batch_size // 2
            dataset_key, ring_key = (
                jax.random.fold_in(half_key, step) for half_key in jax.random.split(key)
            )
            old = self.rule.sample_rows(dataset_key, half, self.dataset_size)
            new = self.rule.sample_rows(ring_key, self.batch_size - half, size)
            halves = (
                self.rule.batch(dataset, old, self.batch_columns),
                self.rule.batch(arrays, start + new, self.batch_columns),
            )
            return {name: jnp.concatenate([half[name] for half in halves]) for name in halves[0]}
        slots = self.rule.sample_rows(jax.random.fold_in(key, step), self.batch_size, size)
        return self.rule.batch(arrays, start + slots, self.batch_columns)


def _padded(rows: np.ndarray) -> np.ndarray:
    """Add -1 up to a power of two, because each new number of rows is compiled anew."""
    padding = (1 << (len(rows) - 1).bit_length()) - len(rows)
    return np.pad(rows, (0, padding), constant_values=-1)


class ReplayLog:
    """The inserted transitions on disk, as files of consecutive ones that are never rewritten.

    The dataset is not among them, and each transition is written once, without the columns that
    are computed from episodes: a save costs what was inserted since the last one, however large the
    replay is.

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
            needed: Insertions up to the oldest checkpoint that may yet be restored.

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

    def restore(self, replay: Replay, inserted: int, cuts: Sequence[int] = ()) -> Ring:
        """Read the ring as it was after `inserted` insertions.

        What was written later is dropped.

        Args:
            replay: Whose transitions they are.
            inserted: Insertions so far.
            cuts: Numbers of insertions after which all members' episodes were ended from outside;
                the files, which are not rewritten, do not tell.

        Raises:
            UserError: A file is missing or damaged.
        """
        shapes = jax.eval_shape(replay.empty)
        ring = {key: np.zeros(like.shape, like.dtype) for key, like in shapes.items()}
        columns = {
            key: Column((replay.num_members, *shapes[key].shape[2:]), shapes[key].dtype.kind)
            for key in replay.stored
        }
        remedy = "restore the file, or start over with --overwrite"
        covered = 0
        for path, start, end in self._files():
            if start >= inserted:
                path.unlink()
                continue
            arrays = read_arrays(path, columns, remedy)
            if end > inserted or len(arrays["actions"]) != end - start:
                raise UserError(f"{path} does not hold the transitions of its name; {remedy}")
            if start <= covered or start <= inserted - replay.capacity:
                covered = end
            rows = np.arange(start, end) % replay.capacity
            for key, array in arrays.items():
                ring[key][:, rows] = array.swapaxes(0, 1)
        if covered != inserted:
            raise UserError(
                f"{self.folder} lacks the transitions {covered} to {inserted}; {remedy}"
            )
        if "terminals" in replay.stored:
            held = [cut for cut in cuts if inserted - replay.rows < cut <= inserted]
            ring["terminals"][:, [(cut - 1) % replay.capacity for cut in held]] = 1.0
        if replay.columns:
            replay.complete_all(ring, inserted)
        self.saved = inserted
        return jax.tree.map(jnp.asarray, ring)

    def _files(self) -> list[tuple[Path, int, int]]:
        """Return paths with the numbers of their first transition and of the one after the last."""
        return [
            (path, *map(int, path.stem.split("-"))) for path in sorted(self.folder.glob("*-*.npz"))
        ]
