import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import loopback
from utils import downloads
from utils.downloads import Origin, npz_problem
from utils.errors import UserError
from utils.files import Column

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {"actions": Column((5,), "f"), "terminals": Column((), "b")}
DEAD = "http://127.0.0.1:9/{path}"


def npz(**changes):
    """The bytes of a valid file, or of one with changed arrays."""
    random = np.random.default_rng(0).normal(size=(999, 5)).astype(np.float32)
    arrays = {"actions": random, "terminals": np.zeros(999, bool)} | changes
    file = io.BytesIO()
    np.savez_compressed(file, **{key: value for key, value in arrays.items() if value is not None})
    return file.getvalue()


GOOD = npz()


def ensure(folder, *addresses, names=("file.npz",), sha256=None, check=None):
    origin = Origin("MY_DATASET_URL", addresses, sha256 or {})
    paths = [f"deep/{name}" for name in names]
    check = check or (lambda path: npz_problem(path, COLUMNS))
    return downloads.ensure(origin, paths, folder, check, ", or collect them")


def seen(folder):
    """What lies there, hidden files too, but for those of locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_dead_server_costs_a_line_and_the_mirror_is_used(tmp_path, capsys):
    with loopback.serve({"/file.npz": GOOD, "/val.npz": GOOD}) as mirror:
        names = ("file.npz", "val.npz")
        paths = ensure(tmp_path / "data", DEAD, f"{mirror.url}/{{name}}", names=names)
    assert paths == [tmp_path / "data" / name for name in names]
    assert [path.read_bytes() for path in paths] == [GOOD, GOOD]
    assert seen(tmp_path / "data") == set(names)
    line = next(line for line in capsys.readouterr().err.splitlines() if "file.npz" in line)
    assert line == (
        "http://127.0.0.1:9/deep/file.npz fails: [Errno 111] Connection refused; "
        f"trying {mirror.url}/file.npz"
    )


def test_the_variable_comes_first_and_then_the_official_server(tmp_path, monkeypatch):
    files = {"/deep/file.npz": GOOD, "/deep/val.npz": GOOD}
    with loopback.serve(files) as official, loopback.serve({"/own/deep/file.npz": GOOD}) as own:
        monkeypatch.setenv("MY_DATASET_URL", f"{own.url}/own/")
        ensure(tmp_path, f"{official.url}/{{path}}", names=("file.npz", "val.npz"))
        assert set(own.requests) == {"/own/deep/file.npz", "/own/deep/val.npz"}
        assert set(official.requests) == {"/deep/val.npz"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (None, "fails: HTTP Error 404: Not Found"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is no complete npz file"),
        (GOOD[:-99], "is no complete npz file"),
        (GOOD[:2000] + bytes(9) + GOOD[2009:], "is damaged at actions.npy"),
        (npz(terminals=None), "lacks terminals"),
        (npz(actions=np.zeros((999, 4), np.float32)), r"has .actions. of float32 \(999, 4\) where"),
        (npz(actions=np.zeros((999, 5), int)), "has 'actions' of int64"),
        (npz(actions=np.float32(0)), r"has 'actions' of float32 \(\)"),
        (npz(terminals=np.zeros(998, bool)), "has arrays of different numbers of rows"),
        (npz(actions=np.zeros((999, 5), object)), "is no npz file of plain|has 'actions' of obj"),
    ],
)
def test_a_mirror_with_something_else_is_passed_over(tmp_path, capsys, body, reason):
    files = {} if body is None else {"/file.npz": body}
    with loopback.serve(files) as wrong, loopback.serve({"/file.npz": GOOD}) as right:
        addresses = [f"{server.url}/{{name}}" for server in (wrong, right)]
        (path,) = ensure(tmp_path, *addresses)
        assert path.read_bytes() == GOOD
        path.unlink()
        with pytest.raises(UserError, match=rf"{wrong.url}/file\.npz {reason}") as error:
            ensure(tmp_path, DEAD, addresses[0])
    assert "\n" not in str(error.value)
    assert seen(tmp_path) == set()
    assert f"; trying {right.url}/file.npz" in capsys.readouterr().err


def test_a_checksum_in_the_table_must_be_the_files(tmp_path):
    with loopback.serve({"/file.npz": GOOD}) as server:
        address = f"{server.url}/{{name}}"
        digest = hashlib.sha256(GOOD).hexdigest()
        with pytest.raises(UserError, match=f"has SHA-256 {digest} where 0123 is expected"):
            ensure(tmp_path, address, sha256={"file.npz": "0123"})
        assert seen(tmp_path) == set()
        ensure(tmp_path, address, sha256={"file.npz": digest, "other.npz": "0123"})
    assert seen(tmp_path) == {"file.npz"}


def test_the_message_names_all_that_is_missing_and_what_to_do(tmp_path):
    (tmp_path / "here.npz").write_bytes(GOOD)
    with pytest.raises(UserError) as error:
        ensure(tmp_path, DEAD, names=("here.npz", "file.npz", "val.npz"))
    assert str(error.value) == (
        "cannot download file.npz and val.npz: http://127.0.0.1:9/deep/file.npz fails: [Errno 111] "
        f"Connection refused. Put file.npz and val.npz into {tmp_path} by hand, or set "
        "MY_DATASET_URL to the base address of a server that has deep/file.npz, or collect them"
    )


@pytest.mark.parametrize("address", ["nonsense", "http://[::bad/{name}", "file:///{name}"])
def test_an_address_that_is_none_is_a_line_in_the_message(tmp_path, monkeypatch, address):
    monkeypatch.setenv("MY_DATASET_URL", address)
    with pytest.raises(UserError, match="fails: "):
        ensure(tmp_path)


def test_a_full_disk_ends_the_download_at_once(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads.os, "fsync", full)
    with loopback.serve({"/file.npz": GOOD}) as server:
        with pytest.raises(UserError, match=r"cannot write .*file\.npz: No space .*; free some"):
            ensure(tmp_path, f"{server.url}/{{name}}", f"{server.url}/{{name}}")
        assert server.requests["/file.npz"] == 1
    assert seen(tmp_path) == set()


def test_truncated_download_is_refused_and_can_be_repeated(tmp_path):
    path = tmp_path / "folder" / "file.npz"
    with loopback.serve({"/file.npz": GOOD}) as server:
        address = f"{server.url}/{{name}}"
        server.truncate = 1000
        with pytest.raises(UserError, match=rf"ended after 1000 of {len(GOOD)} bytes") as error:
            ensure(path.parent, address)
        assert str(path.parent) in str(error.value)
        assert seen(path.parent) == set()
        server.truncate = None
        assert ensure(path.parent, address) == [path]
        assert path.read_bytes() == GOOD
        ensure(path.parent, address)
        assert server.requests["/file.npz"] == 2


def test_killed_download_leaves_no_file_and_can_be_repeated(tmp_path):
    path = tmp_path / "file.npz"
    code = (
        "import sys; from pathlib import Path; from tests import test_downloads as t;"
        "t.ensure(Path(sys.argv[1]), sys.argv[2])"
    )
    with loopback.serve({"/file.npz": GOOD}) as server:
        server.hang = True
        address = f"{server.url}/{{name}}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path, address], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        part = tmp_path / ".file.npz.part"
        wait_for(part.exists)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
        assert part.exists()
        assert not path.exists()
        server.hang = False
        ensure(tmp_path, address)
    assert path.read_bytes() == GOOD
    assert not part.exists()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
