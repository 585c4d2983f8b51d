"""Versions of everything that the results depend on besides the settings."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ogbench",
    "mujoco",
    "gymnasium",
    "gymnasium-robotics",
    "numpy",
)


def git_commit(folder: Path) -> str | None:
    """Return the commit of the repository around `folder`.

    It ends in ``+dirty`` where files differ, and is None outside a repository.
    """
    # Inside a git hook these variables point to another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, env=environment
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions(agent_path: Path) -> dict[str, Any]:
    """Return what results depend on besides the settings.

    Starts JAX's backend.

    Args:
        agent_path: The agent's file.

    Returns:
        Versions of Python, of the operating system and of the packages (None where not installed),
        the commits of this code and of what the agent's file is in (None outside a repository) and
        the kinds of devices, all of which fit into JSON. Names no machine and no user.
    """
    import jax

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["git"] = git_commit(Path(__file__).resolve().parent)
    found["agent_git"] = git_commit(agent_path.resolve().parent)
    found["devices"] = [device.device_kind for device in jax.local_devices()]
    return found
