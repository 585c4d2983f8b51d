"""Files: writes that leave nothing half, reads that name what is damaged."""

import errno
import os

import pytest

from utils import downloads, files
from utils.errors import UserError
from utils.files import write_atomically


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_old_file_of_an_atomic_write(tmp_path, monkeypatch, code):
    path = tmp_path / "picture.png"
    write_atomically(path, b"old")

    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"picture\.png.*free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["picture.png"]


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path):
    folder, origin = tmp_path / (300 * "x"), downloads.Origin("MY_URL", ())
    with pytest.raises(UserError, match=r"cannot write .*data\.npz: File name too long; check"):
        downloads.ensure(origin, ["data.npz"], folder, lambda path: "")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"[" * 100_000])
def test_damaged_json_is_one_line_with_a_remedy(tmp_path, content):
    path = tmp_path / "score.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"score\.json is damaged .*; remove it$") as error:
        files.read_json(path, "remove it")
    assert "\n" not in str(error.value)
