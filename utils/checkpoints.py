"""Checkpoints of a run: arrays and host-side positions, committed atomically by Orbax."""

import functools
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import jax
import orbax.checkpoint as ocp

from utils.errors import UserError

FOLDER = "checkpoints"


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


def _reason(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


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


def _check_shapes(wanted: Any, arrays: Any) -> None:
    want, have = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (wanted, arrays))
    )
    for name in want | have:
        if have.get(name) != want.get(name):
            raise ValueError(f"{name} is {have.get(name)}, expected {want.get(name)}")


class Checkpoints:
    """The checkpoints below one run folder; the latest two are kept.

    A save is visible only once it is complete: a process killed while saving, or a disk that
    fills up, leaves the earlier checkpoint as the latest one.
    """

    def __init__(self, run_folder: str | Path, read_only: bool = False):
        _quieten_orbax()
        self.folder = Path(run_folder).absolute() / FOLDER
        self._read_only = read_only
        if not read_only:
            for unfinished in self.folder.glob("*.orbax-checkpoint-tmp"):  # a kill during a save
                shutil.rmtree(unfinished)
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "arrays": ocp.StandardCheckpointHandler(),
                "host": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=False,
            ),
        )

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

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
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(to_arrays(tree)), host=ocp.args.JsonSave(host)
        )
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # TensorStore reports a full disk as ValueError or RuntimeError
            latest = self.latest_step()
            kept = "there is none yet" if latest is None else f"the one of step {latest} is kept"
            reason = _reason(error).rsplit(": ", 1)[-1]  # the operating system's own words
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({reason}); "
                f"{kept}. Free some space and run the same command again to resume"
            ) from error

    def restore(
        self,
        template: Any,
        part: str | None = None,
        remedy: str = "start over with --overwrite",
    ) -> tuple[Any, dict[str, Any]] | None:
        """Read the newest checkpoint that can be read, and drop newer ones that cannot.

        Args:
            template: Pytree of the same structure, shapes and types as was saved.
            part: Name of the field of the saved tree to restore into the template, or all of it.
            remedy: What the message advises if none fits.

        Returns:
            The tree and the host's positions, or None where there is no checkpoint.

        Raises:
            UserError: Checkpoints exist, but none fits or none can be read.
        """
        wanted = to_arrays(template)
        problems = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays, host = self._read(step)
                arrays = arrays if part is None else arrays[part]
                _check_shapes(wanted, arrays)
            except Exception as error:  # whatever is wrong with the newest, the one before may do
                problems[step] = _reason(error)
                continue
            if not self._read_only:
                for damaged in problems:
                    self._manager.delete(damaged)
            return _from_arrays(template, arrays), host
        if problems:
            listed = "; ".join(f"step {step}: {reason}" for step, reason in problems.items())
            raise UserError(
                f"no checkpoint in {self.folder} can be used ({listed}); it is damaged or was made "
                f"with other settings: {remedy}"
            )
        return None

    def _read(self, step: int) -> tuple[Any, dict[str, Any]]:
        saved = self._manager.item_metadata(step).arrays
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved
        )
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(template), host=ocp.args.JsonRestore()
            ),
        )
        return items.arrays, items.host

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()
