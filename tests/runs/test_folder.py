"""A run's folder: what is found damaged in it."""

import pytest

from utils.errors import UserError
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
        RunFolder(tmp_path).note_versions(resumed=True)
