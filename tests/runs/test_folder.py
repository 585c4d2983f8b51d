"""A run's folder: what is found damaged in it."""

import pytest

from utils.errors import UserError
from utils.files import ERROR
from utils.runs.folder import RunFolder


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"line": 3}', '{"line": "score: 1"}'])
def test_a_damaged_score_is_named(tmp_path, content):
    (tmp_path / "score.json").write_text(content)
    with pytest.raises(UserError, match=r"score\.json is damaged .*; remove it, and the same"):
        RunFolder(tmp_path).finished(None)


@pytest.mark.parametrize("content", ["", "[]"])
def test_damaged_versions_are_named(tmp_path, content):
    (tmp_path / "versions.json").write_text(content)
    with pytest.raises(UserError, match=r"versions\.json is damaged .*; remove it to resume"):
        RunFolder(tmp_path).note_versions(tmp_path / "agent.py", resumed=True)


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (UserError("no space"), "no space", "no space"),
        (ValueError("odd"), "Traceback (most recent call last):", "ValueError: odd"),
    ],
)
def test_what_ended_a_run_is_kept_until_it_is_started_again(tmp_path, error, first, last):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text("{}")
    with pytest.raises(type(error)), RunFolder(path):
        raise error
    lines = (path / ERROR).read_text().splitlines()
    assert (lines[0], lines[-1]) == (first, last)
    with pytest.raises(SystemExit), RunFolder(path):
        raise SystemExit(75)
    assert not (path / ERROR).exists()


def test_an_error_before_a_run_begins_leaves_no_folder(tmp_path):
    with pytest.raises(UserError), RunFolder(tmp_path / "run"):
        raise UserError("no data")
    assert not (tmp_path / "run").exists()
