"""Limits of memory, as control groups have them."""

import pytest

from utils.host_memory import available_memory, group_limits


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/slurm/job_1/task", {"slurm/job_1/memory.max": "5000", "memory.max": "max"}, [5000]),
        ("4:memory:/slurm", {"memory/slurm/memory.limit_in_bytes": "7000"}, [7000]),
        ("3:cpu:/slurm", {"cpu/slurm/memory.limit_in_bytes": "1"}, []),
        ("0::/", {"memory.max": "9000\n"}, [9000]),
    ],
)
def test_the_limits_of_a_job_are_those_of_its_groups_and_of_what_they_are_in(
    tmp_path, line, files, expected
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(f"{line}\n")
    assert list(group_limits(tmp_path / "own", tmp_path)) == expected


def test_the_lowest_limit_counts(monkeypatch):
    assert available_memory() > 2**20
    monkeypatch.setattr("utils.host_memory.group_limits", lambda: iter([2**40, 1000]))
    assert available_memory() == 1000
