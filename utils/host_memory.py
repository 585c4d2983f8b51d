"""How much memory a process can have."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def available_memory() -> int:
    """Return the bytes of memory that a process can have here.

    They are what the machine has left, or the limit of a job or container if that is lower.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *group_limits()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return min(found)


def group_limits(own: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> Iterator[int]:
    """Yield the memory limits in bytes of the control groups that this process is in.

    Args:
        own: File that lists its groups.
        root: Where groups are folders.
    """
    with contextlib.suppress(OSError):
        for line in Path(own).read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):  # of the second and the first version
                continue
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            folder = Path(root, controllers, path.lstrip("/"))
            for place in (folder, *folder.parents):
                with contextlib.suppress(OSError, ValueError):  # it may be "max"
                    yield int((place / name).read_text())
