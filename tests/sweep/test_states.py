"""Where runs stand, from made folders."""

import json

import filelock
import pytest

from utils.files import ERROR, LOCK
from utils.report.csv_log import CsvLog
from utils.runs.meaning import Meaning
from utils.sweep.commands import parse
from utils.sweep.jobs import Log, read_log
from utils.sweep.states import State, newest_checkpoint, read_state
from utils.sweep.status import expected_hours, status


def meaning(folder, **changes):
    values = {
        "task": "scene-play-singletask-task1-v0",
        "agent": "fql",
        "folder": str(folder),
        "num_seeds": 2,
        "offline_steps": 100,
        "online_steps": 0,
        "updates": 100,
    }
    return Meaning(**values | changes)


def write(folder, name, rows):
    log = CsvLog(folder / f"{name}.csv")
    for row in rows:
        log.append(row)


@pytest.fixture
def begun(tmp_path):
    """A run that has come to step 40, with 2 steps per second, lately."""
    (tmp_path / "config.json").write_text(json.dumps({"online_start": None}))
    write(tmp_path, "train", [{"step": s, "seed": i, "x": 1.0} for s in (20, 40) for i in (0, 1)])
    write(tmp_path, "timing", [{"step": s, "seconds": s / 2} for s in (20, 40)])
    return tmp_path


def finish(folder, step, **score):
    (folder / "score.json").write_text(json.dumps({"line": "score", "step": step, **score}))


def test_a_run_that_has_no_folder_waits(tmp_path):
    assert read_state(meaning(tmp_path / "none")) == State("waiting", 0, 100)


def test_a_run_waits_to_go_on_and_runs_while_its_lock_is_held(begun):
    assert read_state(meaning(begun)) == State("waiting", 40, 100, 2.0)
    with filelock.FileLock(begun / LOCK):
        assert read_state(meaning(begun)) == State("running", 40, 100, 2.0)
    assert read_state(meaning(begun)).name == "waiting"


def test_the_rate_is_that_of_late(begun):
    before = [{"step": 40 + s, "seconds": 20 + s} for s in range(1, 31)]
    write(begun, "timing", [*before, *({"step": 70 + 5 * s, "seconds": 50 + s} for s in range(21))])
    assert read_state(meaning(begun)).rate == 5.0


def test_a_grid_is_done_when_all_of_its_points_are(begun, tmp_path):
    """Its points share the time, each has its own scores and failures."""
    other = tmp_path / "other"
    grid = meaning(tmp_path / "grid", points=(str(begun), str(other)))
    assert read_state(grid) == State("waiting", 40, 100, 1.0)
    other.mkdir()
    finish(begun, 100)
    assert read_state(grid).name == "waiting"
    finish(other, 100, failed={"1": 60})
    state = read_state(grid)
    assert (state.name, state.note) == ("diverged", "seed 1 diverged at step 60 (point 2)")
    finish(other, 100)
    assert read_state(grid).name == "done"


def test_a_run_is_done_when_it_has_the_steps_of_its_command(begun):
    finish(begun, 100)
    assert read_state(meaning(begun)) == State("done", 100, 100, 2.0)
    raised = read_state(meaning(begun, offline_steps=200))
    assert (raised.name, raised.step, raised.steps) == ("waiting", 40, 200)
    assert read_state(meaning(begun, offline_steps=50)).final


def test_a_run_online_ends_its_steps_after_it_went_online(begun):
    finish(begun, 130)
    online = meaning(begun, online_steps=30)
    assert read_state(online).name == "done"
    restored = meaning(begun, offline_steps=0, online_steps=30)
    (begun / "config.json").write_text(json.dumps({"online_start": 110}))
    assert (read_state(restored).name, read_state(restored).steps) == ("waiting", 140)


def test_diverged_seeds_are_named(begun):
    finish(begun, 100, failed={"1": 30})
    state = read_state(meaning(begun))
    assert (state.name, state.note) == ("diverged", "seed 1 diverged at step 30")
    (begun / "score.json").unlink()
    write(begun, "train", [{"step": 60, "seed": 1, "failed": 1}])
    state = read_state(meaning(begun))
    assert (state.name, state.note) == ("waiting", "seed 1 diverged at step 60")
    write(begun, "train", [{"step": 60, "seed": 0, "failed": 1}])
    assert read_state(meaning(begun)).name == "diverged"


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "failed"), (137, "failed"), (75, "waiting"), (143, "waiting"), (None, "waiting")],
)
def test_what_crashed_has_failed_with_its_last_lines(begun, tmp_path, code, name):
    state = read_state(meaning(begun), Log(tmp_path / "3.log", code, ("one", "error: two")))
    assert state.name == name
    told = f"exit code {code}, {tmp_path}/3.log\none\nerror: two"
    assert state.note == (told if name == "failed" else "")


def test_a_run_that_an_error_has_ended_has_failed_without_a_log_too(begun):
    (begun / ERROR).write_text("Traceback\n  File\n    line\nValueError: no\n")
    state = read_state(meaning(begun))
    assert (state.name, state.step) == ("failed", 40)
    assert state.note == f"{begun}/error.txt\n  File\n    line\nValueError: no"
    with filelock.FileLock(begun / LOCK):
        assert read_state(meaning(begun)).name == "running"
    finish(begun, 100)
    assert read_state(meaning(begun)).name == "done"


def test_a_damaged_file_is_a_failed_run(begun):
    (begun / "score.json").write_text("{")
    state = read_state(meaning(begun))
    assert state.name == "failed"
    assert "score.json is damaged" in state.note


@pytest.mark.parametrize(
    ("text", "code", "lines"),
    [
        ("== start now\na\nb\nc\nd\n\n== exit 1\n", 1, ("b", "c", "d")),
        ("== start now\na\n\n== exit 1\n== requeue from 20\n", 1, ("a",)),
        ("== start now\na\n\n== exit 1\n== start again\nb\n", None, ("b",)),
        ("== start now\n 10%\r 20%\r\nlast\n== exit 75\n", 75, (" 10%", " 20%", "last")),
        ("", None, ()),
    ],
)
def test_a_log_tells_of_the_last_start(tmp_path, text, code, lines):
    path = tmp_path / "1.log"
    path.write_bytes(text.encode())
    assert read_log(path) == Log(path, code, lines)
    assert read_log(tmp_path / "2.log") is None


def test_the_newest_checkpoint_is_the_largest_number(tmp_path):
    assert newest_checkpoint(str(tmp_path)) == 0
    for name in ("0", "900", "1000", "damaged-2000", "1100.tmp"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_checkpoint(str(tmp_path)) == 1000


def test_the_table_has_progress_and_expected_time():
    names = ("--agent.tau=0.1", "--agent.tau=0.2", "--agent.tau=0.3", "--agent.tau=0.4")
    lines = [f"python main.py --num_seeds=2 {name}" for name in names]
    commands = [parse(line, "") for line in lines]
    meanings = [meaning(f"exp/g/r{i}", agent="fql" if i < 3 else "other") for i in range(4)]
    states = [
        State("done", 36_000, 36_000, 10.0),
        State("running", 18_000, 36_000, 5.0),
        State("waiting", 0, 36_000),
        State("failed", 0, 36_000, note="exit code 1, 4.log\nboom"),
    ]
    assert expected_hours(meanings, states) == [0.0, 1.0, pytest.approx(36_000 / 7.5 / 3600), None]
    rows = status(commands, meanings, states, queued=[lines[2]]).splitlines()
    assert rows[0].split() == ["run", "state", "progress", "left", "folder"]
    assert rows[1].split() == ["1", "done", "36,000/36,000", "exp/g/r0", "agent.tau=0.1"]
    assert rows[2].split()[:5] == ["2", "running", "18,000/36,000", "1.0", "h"]
    assert rows[3].split()[:5] == ["3", "queued", "0/36,000", "1.3", "h"]
    assert rows[4].split()[:4] == ["4", "failed", "0/36,000", "?"]
    assert rows[5:] == [
        "run 4, exp/g/r3: exit code 1, 4.log",
        "    boom",
        "4 runs: 1 done, 1 running, 1 waiting, 1 failed",
        "left: 2.3 h of training and 1 run of which no rate is known yet; what runs now ends in "
        "1.0 h",
    ]
