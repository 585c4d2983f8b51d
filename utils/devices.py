"""Devices: how members lie on them.

Members, which a run's seeds are today, need nothing of each other. Each device therefore runs the
program of its own members, with the data copied to every device.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from utils.cores import available_cores
from utils.errors import UserError

MEMBERS = "members"
"""Name of the mesh's axis."""

MATMUL_PRECISIONS = ("bfloat16", "tensorfloat32", "float32")
"""Those that can be asked for; a device may compute more exactly, as a CPU does."""

_OVER_MEMBERS = P(MEMBERS)


def member_mesh(num_members: int) -> Mesh | None:
    """Return as many devices as divide the members equally; None if that is one."""
    devices = jax.devices()
    counts = range(1, min(len(devices), num_members) + 1)
    count = max(count for count in counts if num_members % count == 0)
    return Mesh(np.array(devices[:count]), (MEMBERS,)) if count > 1 else None


def member_specs(tree: Any) -> Any:
    """Return specs of arrays with the member axis first; scalars are on every device."""
    return jax.tree.map(lambda leaf: P(MEMBERS) if leaf.ndim else P(), tree)


def put_on_devices(tree: Any, mesh: Mesh | None) -> Any:
    """Put every member's part of the arrays on its device.

    Nothing is copied that is there already. What comes from a checkpoint is bound to its device. So
    is what was put there, and both are served by one compiled program.

    Args:
        tree: Arrays with the member axis first, and scalars.
        mesh: What `member_mesh` returned; None puts all on the first device.
    """
    if mesh is None:
        return jax.device_put(tree, jax.local_devices()[0])
    return jax.device_put(
        tree, jax.tree.map(lambda spec: NamedSharding(mesh, spec), member_specs(tree))
    )


def shard(
    function: Callable,
    mesh: Mesh | None,
    in_specs: Any = _OVER_MEMBERS,
    out_specs: Any = _OVER_MEMBERS,
) -> Callable:
    """Have each device call a function on its own members.

    Args:
        function: Takes and returns arrays with the member axis first, or what the specs say. It
            sees as many members as there are on one device.
        mesh: What `member_mesh` returned; None leaves the function as it is.
        in_specs: Specs of the arguments, a prefix of their tuple.
        out_specs: Specs of what it returns.
    """
    if mesh is None:
        return function
    # The check would reject loops of an agent that carry a constant. There is nothing to check:
    # no device uses what another computed.
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        check_vma=False,
    )


def enable_cpu_backend() -> None:
    """Have JAX know the CPU too, beside the platform that JAX_PLATFORMS names.

    Policies are evaluated there. To be called before anything is computed.
    """
    platforms = jax.config.jax_platforms
    if platforms and "cpu" not in platforms.split(","):
        jax.config.update("jax_platforms", f"{platforms},cpu")


def set_matmul_precision(name: str) -> None:
    """Set the precision of float32 matrix products.

    To be called before anything is traced.

    Args:
        name: One of `MATMUL_PRECISIONS`, or default, which leaves it to JAX.
    """
    jax.config.update("jax_default_matmul_precision", None if name == "default" else name)


def has_one_thread() -> bool:
    """Return whether JAX computes on a CPU, with one thread for all that is computed."""
    given = os.environ.get("NPROC", "")  # XLA looks at it before it counts cores
    threads = int(given) if given.isdecimal() else available_cores()
    return jax.default_backend() == "cpu" and max(threads, jax.local_device_count()) == 1


def describe_devices() -> str:
    """Return number and kind of the devices that JAX computes on, and how they multiply.

    Raises:
        UserError: JAX_PLATFORMS names a platform that JAX does not find here.
    """
    named = (jax.config.jax_platforms or "").split(",")[0]
    try:
        devices = jax.devices(named or None)
    except RuntimeError as error:
        raise UserError(
            f"JAX finds no device for JAX_PLATFORMS={named} ({str(error).splitlines()[0]}); unset "
            'the variable, or install JAX for it (NVIDIA: pip install --upgrade "jax[cuda13]")'
        ) from error
    precision = jax.config.jax_default_matmul_precision or "JAX's default precision"
    return f"{len(devices)} x {devices[0].device_kind}, matrix products in {precision}"
