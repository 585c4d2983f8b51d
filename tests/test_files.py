import errno
import os

import pytest

from utils import files
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
