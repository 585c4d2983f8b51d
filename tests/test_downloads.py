import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import loopback
from utils import files
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_truncated_download_is_refused_and_can_be_repeated(tmp_path):
    body = bytes(range(256)) * 64
    path = tmp_path / "folder" / "file.npz"
    with loopback.serve({"/file.npz": body}) as server:
        server.truncate = 1000
        with pytest.raises(UserError, match=r"ended after 1000 of 16384 bytes") as error:
            files.ensure(f"{server.url}/file.npz", path)
        assert str(path) in str(error.value)
        assert not path.exists()
        server.truncate = None
        assert files.ensure(f"{server.url}/file.npz", path) == path
        assert path.read_bytes() == body
        files.ensure(f"{server.url}/file.npz", path)
        assert server.requests["/file.npz"] == 2


def test_killed_download_leaves_no_file_and_can_be_repeated(tmp_path):
    body = bytes(range(256)) * 4096
    path = tmp_path / "file.npz"
    code = "import sys; from utils import files; files.ensure(*sys.argv[1:])"
    with loopback.serve({"/file.npz": body}) as server:
        server.hang = True
        url = f"{server.url}/file.npz"
        process = subprocess.Popen(
            [sys.executable, "-c", code, url, path], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        part = tmp_path / ".file.npz.part"
        wait_for(lambda: part.exists() and part.stat().st_size > 0)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
        assert part.exists()
        assert not path.exists()
        server.hang = False
        assert files.ensure(url, path).read_bytes() == body
        assert not part.exists()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
