"""Transitions for training: one interface, on the device or in host memory.

Both sources draw the same indices from the same key, so that where the data live is not visible
in the results.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from utils.devices import SEEDS

Batch = dict[str, jax.Array]

TRANSITION_KEYS = ("observations", "actions", "next_observations", "rewards", "masks")


def batch_indices(key: jax.Array, step: jax.Array, batch_size: int, size: int) -> jax.Array:
    """Rows (batch_size,) of update `step`, drawn uniformly with replacement from `size` rows."""
    return jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, size)


class Source(Protocol):
    """Where batches come from.

    The training loop calls `stage` on the host once per dispatch and passes the result into its
    program, where `draw` is traced once per update and seed.
    """

    max_updates: int | None
    """The most updates that one staging can serve; None where there is no limit."""

    mesh: Mesh | None
    """The devices that seeds are spread over; None where there is one."""

    spec: PartitionSpec
    """How what `stage` returns lies on them."""

    def stage(self, keys: jax.Array, step: int, num_updates: int) -> Any:
        """Prepare the batches of updates step .. step + num_updates - 1 of all seeds."""

    def draw(self, staged: Any, i: jax.Array, key: jax.Array, step: jax.Array, seed: int) -> Batch:
        """Batch of one seed for update `step`, the i-th of this dispatch."""


class DeviceDataset:
    """All transitions as arrays on the device; sampling is part of the compiled loop."""

    max_updates = None
    spec = PartitionSpec()  # everything on every device

    def __init__(
        self, transitions: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh | None = None
    ):
        self.size = len(transitions["actions"])
        self.batch_size = batch_size
        self.mesh = mesh
        self.arrays = {key: _put(transitions[key], mesh, self.spec) for key in TRANSITION_KEYS}

    def stage(self, keys, step, num_updates):
        """Return the arrays themselves; they are not copied."""
        return self.arrays

    def draw(self, staged, i, key, step, seed):
        """Gather the rows of this update."""
        rows = batch_indices(key, step, self.batch_size, self.size)
        return jax.tree.map(lambda array: array[rows], staged)


class HostDataset:
    """Transitions in host memory, of which each dispatch gets the batches it will use.

    For data that do not fit the device. While the device computes one dispatch, the next one's
    batches can be staged.
    """

    spec = PartitionSpec(SEEDS)

    def __init__(
        self,
        transitions: Mapping[str, np.ndarray],
        batch_size: int,
        max_updates: int = 64,
        mesh: Mesh | None = None,
    ):
        self.size = len(transitions["actions"])
        self.batch_size = batch_size
        self.max_updates = max_updates
        self.mesh = mesh
        self.arrays = {key: transitions[key] for key in TRANSITION_KEYS}
        self._rows = jax.jit(
            jax.vmap(
                jax.vmap(
                    lambda key, step: batch_indices(key, step, batch_size, self.size), (None, 0)
                ),
                (0, None),
            )
        )

    def stage(self, keys, step, num_updates):
        """Gather on the host; leaves are (seeds, max_updates, batch, ...), of one shape always."""
        steps = step + np.minimum(np.arange(self.max_updates), num_updates - 1)
        # On the CPU, because the accelerator may be busy with the dispatch before.
        cpu = jax.devices("cpu")[0]
        rows = np.asarray(self._rows(jax.device_put(keys, cpu), jax.device_put(steps, cpu)))
        return {key: _put(array[rows], self.mesh, self.spec) for key, array in self.arrays.items()}

    def draw(self, staged, i, key, step, seed):
        """Pick the batch staged for this update and seed."""
        return jax.tree.map(lambda array: array[seed, i], staged)


def _put(array: np.ndarray, mesh: Mesh | None, spec: PartitionSpec) -> jax.Array:
    return jnp.asarray(array) if mesh is None else jax.device_put(array, NamedSharding(mesh, spec))


def device_memory() -> int | None:
    """Bytes of the first device's memory; None for a CPU."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def make_source(
    transitions: Mapping[str, np.ndarray], batch_size: int, mesh: Mesh | None = None
) -> Source:
    """Put transitions on the devices, or leave them in host memory if they would crowd these."""
    memory = device_memory()
    size = sum(transitions[key].nbytes for key in TRANSITION_KEYS)
    if memory is not None and size > memory / 2:
        return HostDataset(transitions, batch_size, mesh=mesh)
    return DeviceDataset(transitions, batch_size, mesh)


def example_batch(transitions: Mapping[str, np.ndarray], batch_size: int) -> Batch:
    """A batch from which agents take the sizes of their inputs."""
    return {key: jnp.asarray(transitions[key][:batch_size]) for key in TRANSITION_KEYS}


def fingerprint(transitions: Mapping[str, np.ndarray]) -> str:
    """Checksum of all values, by which a resumed run recognises its dataset."""
    checksum = 0
    for key in TRANSITION_KEYS:
        checksum = zlib.crc32(np.ascontiguousarray(transitions[key]), checksum)
    return f"{len(transitions['actions'])}-{checksum:08x}"
