"""Checkpoints of a run: arrays and host-side positions, committed atomically by Orbax."""

import contextlib
import functools
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from utils.damage import Damaged, cannot_read, digest, read_or_prove, reason
from utils.errors import UserError

FOLDER = "checkpoints"
_DAMAGED = "damaged-"


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_arrays(tree: Any) -> Any:
    """Turn a pytree into nested dictionaries of plain arrays; random keys become their data."""
    tree = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    return flax.serialization.to_state_dict(tree)


def _from_arrays(template: Any, arrays: Any) -> Any:
    raw_template = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, template)
    raw = flax.serialization.from_state_dict(raw_template, arrays)
    return jax.tree.map(
        lambda x, like: jax.random.wrap_key_data(x) if _is_key(like) else x, raw, template
    )


@functools.cache
def _quieten_orbax() -> None:
    """Leave it to the error that Orbax raises to say what went wrong.

    It narrates every save, tells a failure several times before raising it, and the other writes of
    a failed save outlive the event loop that they report to.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def without_them(report: Callable) -> Callable:
        def hook(*arguments: Any) -> None:
            if "Event loop is closed" not in repr(arguments):
                report(*arguments)

        return hook

    sys.excepthook = without_them(sys.excepthook)
    sys.unraisablehook = without_them(sys.unraisablehook)


def _misfit(wanted: Any, arrays: Any) -> str | None:
    """Return which array is not as wanted, or None if all have the names and shapes."""
    want, have = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (wanted, arrays))
    )
    for name in want | have:
        if have.get(name) != want.get(name):
            return f"{name} is {have.get(name)}, expected {want.get(name)}"
    return None


def _on_device(arrays: Any) -> Any:
    """Put arrays on the first device, as copies: what shares memory with NumPy is not donated."""
    device = jax.local_devices()[0]
    return jax.tree.map(lambda array: jax.device_put(array, device, may_alias=False), arrays)


class Checkpoints:
    """The checkpoints below one run folder; the latest two are kept.

    A save is visible only once it is complete: a process killed while saving, or a disk that
    fills up, leaves the earlier checkpoint as the latest one. Each has a checksum in it.

    One that is proved damaged is renamed, to `damaged-<step>`, as soon as an older one has been
    read, and is deleted when a checkpoint of its step or a later one has been written.

    Args:
        run_folder: The folder of the run.
        read_only: Change nothing there.

    Raises:
        UserError: The folder cannot be read or made.
    """

    def __init__(self, run_folder: str | Path, read_only: bool = False):
        _quieten_orbax()
        self.folder = Path(run_folder).absolute() / FOLDER
        self._read_only = read_only
        try:
            self._manager = self._open()
        except OSError as error:
            raise cannot_read(self.folder, error) from error

    def _open(self) -> ocp.CheckpointManager:
        """Clear away what a kill during a save has left, and open the folder."""
        if not self._read_only:
            for unfinished in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished)
        return ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "arrays": ocp.StandardCheckpointHandler(),
                "host": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=not self._read_only,
                read_only=self._read_only,
                enable_async_checkpointing=False,
            ),
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def oldest_step(self) -> int | None:
        """Step of the oldest complete checkpoint, or None."""
        return min(self._manager.all_steps(), default=None)

    def save(self, step: int, tree: Any, host: dict[str, Any]) -> None:
        """Write a checkpoint.

        Args:
            step: Its number; a complete checkpoint of the same step is left as it is.
            tree: Pytree of arrays and random keys.
            host: JSON-serialisable positions of the host's side.

        Raises:
            UserError: It could not be written, for instance because the disk is full.
        """
        if step in self._manager.all_steps():
            return
        arrays = jax.device_get(to_arrays(tree))
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays),
            host=ocp.args.JsonSave({"sha256": digest(arrays, host), "host": host}),
        )
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # TensorStore reports a full disk as ValueError or RuntimeError
            latest = self.latest_step()
            kept = "there is none yet" if latest is None else f"the one of step {latest} is kept"
            words = reason(error).rsplit(": ", 1)[-1]  # the operating system's own
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({words}); "
                f"{kept}. Free some space and run the same command again to resume"
            ) from error
        for damaged in self.folder.glob(f"{_DAMAGED}*"):
            if int(damaged.name.removeprefix(_DAMAGED)) <= step:
                shutil.rmtree(damaged, ignore_errors=True)

    def restore(
        self,
        template: Any,
        part: str | None = None,
        remedy: str = "start over with --overwrite",
    ) -> tuple[Any, dict[str, Any]] | None:
        """Read the newest checkpoint that is not damaged.

        Damaged ones are set aside, and said in a line with the step that the run goes on from.

        Args:
            template: Pytree of the same structure, shapes and types as was saved.
            part: Name of the field of the saved tree to restore into the template, or all of it.
            remedy: What the message advises for one that does not fit.

        Returns:
            The tree, on the first device, and the host's positions, or None where there is no
            checkpoint.

        Raises:
            UserError: The newest one does not fit, or cannot be read for now, or all are damaged.
                Nothing is set aside then.
        """
        damaged = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays, host = read_or_prove(
                    functools.partial(self._read, step), self.folder / str(step)
                )
            except Damaged as error:
                damaged[step] = str(error)
                continue
            arrays = arrays if part is None else arrays.get(part, {})
            if misfit := _misfit(to_arrays(template), arrays):
                raise UserError(
                    f"the checkpoint of step {step} in {self.folder} was made with other settings "
                    f"({misfit}): {remedy}"
                )
            try:
                tree = _from_arrays(template, _on_device(arrays))
            except jax.errors.JaxRuntimeError as error:  # the device has no room for it
                raise cannot_read(self.folder / str(step), error) from error
            self._set_aside(damaged, step)
            return tree, host
        if damaged:
            listed = "; ".join(f"step {step}: {why}" for step, why in damaged.items())
            raise UserError(
                f"all checkpoints in {self.folder} are damaged ({listed}); the run has to be made "
                "anew, by its command with --overwrite"
            )
        return None

    def _set_aside(self, damaged: dict[int, str], step: int) -> None:
        """Rename damaged checkpoints, and say from which step the run goes on instead."""
        for number, why in damaged.items():
            done = "passed over"
            if not self._read_only:
                target = self.folder / f"{_DAMAGED}{number}"
                done = f"renamed to {target.name}"
                try:
                    with contextlib.suppress(FileNotFoundError):  # of an earlier time
                        shutil.rmtree(target)
                    (self.folder / str(number)).rename(target)
                except OSError as error:
                    raise cannot_read(self.folder / str(number), error) from error
            print(
                f"warning: the checkpoint of step {number} in {self.folder} is damaged ({why}); "
                f"it is {done}, and that of step {step} is taken",
                flush=True,
            )
        if damaged and not self._read_only:
            self._manager.reload()

    def _read(self, step: int) -> tuple[Any, dict[str, Any]]:
        """Read a checkpoint as NumPy arrays and the host's positions; raises `Damaged`."""
        saved = self._manager.item_metadata(step).arrays
        template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(template), host=ocp.args.JsonRestore()
            ),
        )
        arrays, host = items.arrays, items.host["host"]
        if items.host["sha256"] != digest(arrays, host):
            raise Damaged("its checksum differs")
        return arrays, host

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
