"""Tries of a command, from marks in a made log."""

import re

import pytest

from utils.runs.meaning import Meaning
from utils.sweep.jobs import read_log
from utils.sweep.tries import Tries


@pytest.fixture
def tries(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    meaning = Meaning("task", "fql", str(run), 2, 100, 0, 100)
    return Tries(tmp_path / "1.log", meaning, most=2)


def save(tmp_path, step):
    (tmp_path / "run/checkpoints" / str(step)).mkdir(parents=True)


def fail(tries, code=1):
    tries.note_start("n1")
    tries.note_exit(code)
    tries.note_try()


def test_a_command_without_a_log_is_untried(tries):
    assert (tries.made, tries.left, tries.ended) == (0, True, False)


def test_marks_tell_where_each_start_began_and_ended(tries, tmp_path):
    save(tmp_path, 50)
    tries.log.write_text("it was killed in this line")
    fail(tries, 137)
    start, end, again = [line for line in tries.log.read_text().splitlines()[1:] if line]
    assert re.fullmatch(r"== start \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} on n1, from 50", start)
    assert (end, again) == ("== exit 137", "== requeue from 50")
    assert read_log(tries.log).exit_code == 137


def test_as_many_tries_are_made_as_are_allowed(tries):
    fail(tries)
    assert (tries.made, tries.left) == (1, True)
    fail(tries)
    assert (tries.made, tries.left) == (2, False)


def test_a_start_that_was_not_noted_as_a_try_is_none(tries):
    for _ in range(3):
        tries.note_start("n1")
        tries.note_exit(75)
    assert (tries.made, tries.left) == (0, True)


def test_tries_count_anew_from_each_checkpoint(tries, tmp_path):
    """The second start saves, and then fails: it was no try from what it has saved."""
    fail(tries)
    tries.note_start("n1")
    save(tmp_path, 9)
    (tmp_path / "run/checkpoints/10.tmp").mkdir()
    tries.note_exit(1)
    tries.note_try()
    assert tries.log.read_text().count("== requeue from 0\n") == 2
    assert (tries.made, tries.left) == (0, True)
    fail(tries)
    assert tries.made == 1


@pytest.mark.parametrize(("code", "ended"), [(0, True), (3, True), (1, False), (75, False)])
def test_a_command_that_came_to_its_end_has_ended(tries, code, ended):
    fail(tries, code)
    assert tries.ended == ended
    tries.note_start("n1")
    assert not tries.ended


def test_a_run_of_which_all_seeds_have_diverged_has_ended(tries, tmp_path):
    fail(tries)
    rows = "step,seed,failed\n3,0,1\n"
    (tmp_path / "run/train.csv").write_text(rows)
    assert not tries.ended
    (tmp_path / "run/train.csv").write_text(f"{rows}3,1,1\n")
    assert tries.ended


def test_a_run_that_was_completed_elsewhere_has_ended(tries, tmp_path):
    (tmp_path / "run/score.json").write_text('{"line": "", "step": 100}')
    assert tries.ended
