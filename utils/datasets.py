"""Transitions for training: one interface, on the device or in host memory.

Both sources sample the same rows from the same key, so that where the data live is not visible in
the results.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from utils.columns import TRANSITION_COLUMNS
from utils.devices import MEMBERS
from utils.errors import UserError
from utils.frames import FrameStacks, Unstacked
from utils.once import Once
from utils.sampling import UNIFORM, SamplingRule

Batch = dict[str, jax.Array]

jax.tree_util.register_dataclass(FrameStacks, ["frames", "current", "first"], ["ahead", "count"])
jax.tree_util.register_dataclass(Unstacked, ["frames"], ["start", "count"])

CHUNK = 50
"""Updates of one program with a known trip count, and those that host data are prefetched for."""

PREFETCHED_BYTES = 2**25
"""Most bytes that a member's host data are prefetched by at once, unless one batch has more.

Larger pieces of memory are the system's again as soon as they are free (glibc's malloc), and to get
them anew takes much longer than to fill them.
"""


class Source(Protocol):
    """Where batches come from.

    The training loop calls `prefetch` on the host once per dispatch and passes the result into its
    program, where `batch` is traced once per update and member.
    """

    max_updates: int | None
    """The most updates that can be prefetched at once; None where there is no limit."""

    mesh: Mesh | None
    """The devices that members are sharded over; None where there is one."""

    spec: PartitionSpec
    """How what `prefetch` returns lies on them."""

    def prefetch(self, keys: jax.Array, step: int, num_updates: int) -> Any:
        """Prepare the batches of updates step .. step + num_updates - 1 of all members."""

    def batch(
        self, prefetched: Any, i: jax.Array, key: jax.Array, step: jax.Array, member: int
    ) -> Batch:
        """Return one member's batch for update `step`, the i-th of this dispatch."""


class DeviceDataset:
    """All transitions as arrays on the device; sampling is part of the compiled loop.

    Args:
        transitions: Columns (n, ...) by name.
        batch_size: Rows per batch.
        mesh: What `utils.devices.member_mesh` returned.
        columns: Those of a batch besides the transition columns.
        rule: How batches are sampled.

    Raises:
        UserError: The data lack a column.
    """

    max_updates = None
    spec = PartitionSpec()  # everything on every device

    def __init__(
        self,
        transitions: Mapping[str, np.ndarray],
        batch_size: int,
        mesh: Mesh | None = None,
        columns: Iterable[str] = (),
        rule: SamplingRule = UNIFORM,
    ):
        self.size = len(transitions["actions"])
        self.batch_size = batch_size
        self.mesh = mesh
        self.columns = (*TRANSITION_COLUMNS, *columns)
        self.rule = rule
        arrays = _select(transitions, self.columns, rule)
        self.arrays = _put(arrays, mesh, self.spec)

    def prefetch(self, keys, step, num_updates):
        """Return the arrays themselves; they are not copied."""
        return Once.of(self.arrays)

    def batch(self, prefetched, i, key, step, member):
        """Gather the rows of this update."""
        key = jax.random.fold_in(key, step)
        rows = self.rule.sample_rows(key, self.batch_size, self.size)
        return self.rule.finish(key, self.rule.batch(prefetched.tree(), rows, self.columns))

    def sample(self, key: jax.Array, n: int) -> Batch:
        """Sample a batch of n rows by the rule, on the device."""
        rows = self.rule.sample_rows(key, n, self.size)
        return self.rule.finish(key, self.rule.batch(self.arrays, rows, self.columns))


class HostDataset:
    """Transitions in host memory, of which each dispatch gets the batches it will use.

    For data that do not fit the device. While the device computes one dispatch, the next one's
    batches can be prefetched.

    Args:
        transitions: Columns (n, ...) by name.
        batch_size: Rows per batch.
        max_updates: Updates whose batches are prefetched at once.
        mesh: What `utils.devices.member_mesh` returned.
        columns: Those of a batch besides the transition columns.
        rule: How batches are sampled.

    Raises:
        UserError: The data lack a column.
    """

    spec = PartitionSpec(MEMBERS)

    def __init__(
        self,
        transitions: Mapping[str, np.ndarray],
        batch_size: int,
        max_updates: int = CHUNK,
        mesh: Mesh | None = None,
        columns: Iterable[str] = (),
        rule: SamplingRule = UNIFORM,
    ):
        self.size = len(transitions["actions"])
        self.batch_size = batch_size
        self.max_updates = max_updates
        self.mesh = mesh
        self.columns = (*TRANSITION_COLUMNS, *columns)
        self.rule = rule
        self.arrays = _select(transitions, self.columns, rule)
        self._rows = jax.jit(jax.vmap(jax.vmap(self._sample_rows, (None, 0)), (0, None)))

    def prefetch(self, keys, step, num_updates):
        """Gather on the host: (members, max_updates, batch, ...), always of one shape."""
        steps = step + np.minimum(np.arange(self.max_updates), num_updates - 1)
        # On the CPU, because the accelerator may be busy with the dispatch before.
        cpu = jax.devices("cpu")[0]
        rows = np.asarray(self._rows(jax.device_put(keys, cpu), jax.device_put(steps, cpu)))
        batches = self.rule.batch(self.arrays, rows, self.columns)
        return Once.of(_put(batches, self.mesh, self.spec))

    def batch(self, prefetched, i, key, step, member):
        """Pick the batch prefetched for this update and member."""
        batch = jax.tree.map(lambda array: array[member, i], prefetched).tree()
        return self.rule.finish(jax.random.fold_in(key, step), batch)

    def sample(self, key: jax.Array, n: int) -> Batch:
        """Sample a batch of n rows by the rule, on the device."""
        rows = np.asarray(self.rule.sample_rows(key, n, self.size))
        batch = jax.tree.map(jnp.asarray, self.rule.batch(self.arrays, rows, self.columns))
        return self.rule.finish(key, batch)

    def _sample_rows(self, key: jax.Array, step: jax.Array) -> jax.Array:
        return self.rule.sample_rows(jax.random.fold_in(key, step), self.batch_size, self.size)


def _select(
    transitions: Mapping[str, np.ndarray], columns: tuple[str, ...], rule: SamplingRule
) -> dict[str, np.ndarray]:
    """Return the columns of a batch and those that the rule reads."""
    wanted = dict.fromkeys((*columns, *rule.columns))
    if missing := [name for name in wanted if name not in transitions]:
        raise UserError(
            f"the data lack {' and '.join(missing)}, which the agent or the sampling rule reads; "
            "add it to the dataset, or to the agent's columns"
        )
    arrays = {name: transitions[name] for name in wanted}
    if "terminals" in arrays:  # no rule leaves the data, then, whose last episode may be running
        arrays["terminals"] = np.array(arrays["terminals"], np.float32)
        arrays["terminals"][-1] = 1.0
    return arrays


def _put(columns: Mapping[str, Any], mesh: Mesh | None, spec: PartitionSpec) -> dict[str, Any]:
    """Put columns on the devices; an array that several share is put there once."""
    once = Once.of(dict(columns))
    if mesh is None:
        return jax.tree.map(jnp.asarray, once).tree()
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda array: jax.device_put(array, sharding), once).tree()


def nbytes(columns: Any) -> int:
    """Return the bytes of columns; an array that several share counts once."""
    return sum(array.nbytes for array in Once.of(columns).arrays)


def device_memory() -> int | None:
    """Return the bytes of the first device's memory; None for a CPU."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def make_source(
    transitions: Mapping[str, np.ndarray],
    batch_size: int,
    mesh: Mesh | None = None,
    columns: Iterable[str] = (),
    rule: SamplingRule = UNIFORM,
) -> Source:
    """Put transitions on the devices, or leave them in host memory if they would crowd these.

    The arguments are those of `DeviceDataset`, and so are the errors.
    """
    columns = tuple(columns)
    arrays = _select(transitions, (*TRANSITION_COLUMNS, *columns), rule)
    memory = device_memory()
    more = {"mesh": mesh, "columns": columns, "rule": rule}
    if memory is None or nbytes(arrays) <= memory / 2:
        return DeviceDataset(transitions, batch_size, **more)
    row = nbytes(rule.batch(arrays, np.zeros(1, np.int32), (*TRANSITION_COLUMNS, *columns)))
    max_updates = min(CHUNK, max(1, PREFETCHED_BYTES // (batch_size * row)))
    return HostDataset(transitions, batch_size, max_updates, **more)


def example_batch(
    transitions: Mapping[str, np.ndarray], batch_size: int, columns: Iterable[str] = ()
) -> Batch:
    """Return the first rows, from which agents take the sizes of their inputs."""
    names = (*TRANSITION_COLUMNS, *columns)
    return {name: jnp.asarray(np.asarray(transitions[name][:batch_size])) for name in names}


def fingerprint(transitions: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of all values, by which a resumed run recognises its dataset.

    Where episodes end is part of it, if the data say so: columns are computed from that.
    """
    checksum = 0
    names = [name for name in (*TRANSITION_COLUMNS, "terminals") if name in transitions]
    arrays, frames = [], {}
    for column in (transitions[name] for name in names):
        if isinstance(column, FrameStacks):  # which share their frames
            frames[id(column.frames)] = column.frames
            arrays += [column.current + np.int32(column.ahead), column.first]
        else:
            arrays.append(column)
    for array in (*arrays, *frames.values()):
        checksum = zlib.crc32(np.ascontiguousarray(array), checksum)
    return f"{len(transitions['actions'])}-{checksum:08x}"
