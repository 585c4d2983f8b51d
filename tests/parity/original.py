"""The original d4rl package, in a folder of its own."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

_SECONDS = 300
_UNREACHABLE = re.compile(
    r"connection broken|connection error|failed to establish|name resolution|name or service|"
    r"timed out|proxyerror|network is unreachable",
    re.IGNORECASE,
)


class UnreachableError(Exception):
    """The package index cannot be reached."""


def install() -> Path:
    """Install the original, unless an earlier call has, and return its folder.

    Raises:
        UnreachableError: The package index cannot be reached.
        RuntimeError: It can, but the installation failed.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:8]
    name = f"d4rl-original-{digest}-{os.getuid()}-python{sys.version_info[1]}"
    folder = Path(tempfile.gettempdir(), name)
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch, "target")
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        command += [
            "--retries=1",
            "--no-deps",
            f"--target={target}",
            f"--requirement={REQUIREMENTS}",
        ]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"pip did not end within {_SECONDS} s") from error
        if result.returncode:
            output = result.stdout + result.stderr
            kind = UnreachableError if _UNREACHABLE.search(output) else RuntimeError
            raise kind(f"pip could not install {REQUIREMENTS}: {output[-500:]}")
        if not folder.is_dir():
            target.rename(folder)
    return folder
