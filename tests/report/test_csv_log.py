import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from tests.processes import REPOSITORY, run_python
from utils.errors import UserError
from utils.report.csv_log import CsvLog, read_csv


def test_floats_and_ints_return_exactly(tmp_path):
    row = {"step": 3, "a": 0.1 + 0.2, "b": 1e-320, "c": -0.0, "d": 2.0, "e": 10**20, "f": "x, y"}
    CsvLog(tmp_path / "log.csv").append(row)
    (read,) = read_csv(tmp_path / "log.csv")
    assert read == row
    assert [type(value) for value in read.values()] == [type(value) for value in row.values()]
    assert math.copysign(1, read["c"]) == -1


def test_nonfinite_values_and_array_scalars(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.append({"step": np.int64(1), "a": float("nan"), "b": -np.inf, "c": np.float32(0.1)})
    log.append({"step": jnp.int32(2), "a": jnp.float32(0.1), "b": True, "c": None})
    first, second = read_csv(log.path)
    assert math.isnan(first["a"])
    assert first["b"] == -math.inf
    assert first["c"] == second["a"] == float(np.float32(0.1))
    assert second == {"step": 2, "a": float(np.float32(0.1)), "b": 1}


def test_later_columns_extend_the_header_and_pad_earlier_rows(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.append({"loss": 1.0, "step": 1})
    log.append({"step": 2, "late": 7, "never": None})
    log.append({"seed": 0, "step": 3})
    assert log.path.read_text() == (
        "step,seed,loss,late\n1,,1.0,\n2,,,7\n3,0,,\n"  # "never" had no value
    )
    assert log.columns == ("step", "seed", "loss", "late")
    assert os.listdir(tmp_path) == ["log.csv"]


def test_rows_are_complete_on_disk_after_each_append(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    for step in range(5):
        log.append({"step": step, f"key{step // 2}": step})
        assert [row["step"] for row in read_csv(log.path)] == list(range(step + 1))


def test_rows_together_give_the_bytes_of_rows_one_by_one(tmp_path):
    together, single = CsvLog(tmp_path / "together.csv"), CsvLog(tmp_path / "single.csv")
    rows = [{"step": 1, "a": 1}, {}, {"step": 1, "b": 0.5}, {"seed": 0, "step": 2}]
    for part in (rows, [], rows[:2], [{"step": 3, "late": 1}]):
        together.extend(part)
        for row in part:
            single.append(row)
        assert together.path.read_bytes() == single.path.read_bytes()


def test_values_that_cannot_be_logged_change_nothing(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.append({"step": 1})
    before = log.path.read_bytes()
    with pytest.raises(ValueError, match="line break"):
        log.append({"step": 2, "text": "a\nb"})
    with pytest.raises(TypeError, match="only numbers"):
        log.append({"step": 2, "list": [1]})
    log.append({})
    assert log.path.read_bytes() == before


def test_malformed_file_is_refused_by_name_and_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,a\n1,2\n3\n")
    for use in (read_csv, CsvLog):
        with pytest.raises(UserError, match=r"log\.csv is damaged \(line 3 has 1 cells"):
            use(path)
    path.write_bytes(b"step,a\n\xff\xff,2\n")
    with pytest.raises(UserError, match="damaged"):
        read_csv(path)


def test_missing_file_has_no_rows_and_truncating_to_none_removes_it(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    assert read_csv(log.path) == []
    assert log.truncate_after(0) == 0
    log.append({"step": 5, "a": 1})
    assert log.truncate_after(4) == 1
    assert not log.path.exists()
    log.append({"b": 2, "step": 1})
    assert log.path.read_text() == "step,b\n1,2\n"


def random_rows(generator):
    """Rows of several seeds, in which keys come late, stay away and return."""
    keys = [f"key{i}" for i in range(8)]
    rows = []
    for step in range(1, generator.randrange(2, 12)):
        for seed in range(generator.randrange(1, 4)):
            chosen = generator.sample(keys, generator.randrange(len(keys)))
            row = {key: generator.choice([generator.random(), None, 3, "a,b"]) for key in chosen}
            leading = {"step": step} if generator.random() < 0.3 else {"step": step, "seed": seed}
            rows.append({**row, **leading} if generator.random() < 0.5 else {**leading, **row})
    return rows


@pytest.mark.parametrize("number", range(40))
def test_kill_and_resume_leave_the_bytes_of_an_undisturbed_run(tmp_path, number):
    generator = random.Random(number)
    rows = random_rows(generator)
    undisturbed = CsvLog(tmp_path / "undisturbed.csv")
    history = [None]  # the bytes after each number of rows
    for row in rows:
        undisturbed.append(row)
        history.append(undisturbed.path.read_bytes())
    expected = history[-1]

    def resume(done):
        """Opens the log after `done` rows, at a checkpoint whose rows are all among them."""
        log = CsvLog(path)
        unfinished = rows[done]["step"] if done < len(rows) else math.inf
        steps = [0, *sorted({row["step"] for row in rows[:done] if row["step"] < unfinished})]
        checkpoint = generator.choice(steps)
        kept = sum(row["step"] <= checkpoint for row in rows)
        assert log.truncate_after(checkpoint) == done - kept
        assert (path.read_bytes() if path.exists() else None) == history[kept]
        return log, kept

    path = tmp_path / "killed.csv"
    done = 0
    for _ in range(4):
        log, kept = resume(done)
        done = generator.randrange(kept, len(rows) + 1)
        for row in rows[kept:done]:
            log.append(row)
        if done:
            # The kill: part of a line that was being written, part of a file being rewritten.
            with open(path, "ab") as file:
                file.write(generator.choice([b"", b"7", b"7,1,0.25,", b'9,"a,']))
            part = expected[: generator.randrange(len(expected))]
            (tmp_path / "killed.csv.tmp").write_bytes(part)
            assert len(read_csv(path)) == done
    log, kept = resume(done)
    for row in rows[kept:]:
        log.append(row)
    assert path.read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["killed.csv", "undisturbed.csv"]


WRITER = """
import sys
from utils.report.csv_log import CsvLog
log = CsvLog(sys.argv[1])
start = log.truncate_after(10**9) or int(sys.argv[2])
print("ready", flush=True)
for step in range(start, 3000):
    log.append({"step": step, "x": step / 7, f"late{step // 100}": step})
"""


def test_kill_9_at_random_moments(tmp_path):
    path, generator = tmp_path / "log.csv", random.Random(0)
    start, killed = 0, 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.0, 0.25))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        rows = read_csv(path)
        assert [row["step"] for row in rows] == list(range(len(rows)))
        start = len(rows) // 2
        CsvLog(path).truncate_after(start - 1)
    assert killed
    assert start
    log = CsvLog(path)
    for step in range(start, 3000):
        log.append({"step": step, "x": step / 7, f"late{step // 100}": step})
    undisturbed = CsvLog(tmp_path / "undisturbed.csv")
    for step in range(3000):
        undisturbed.append({"step": step, "x": step / 7, f"late{step // 100}": step})
    assert path.read_bytes() == undisturbed.path.read_bytes()


# --- A full disk ----------------------------------------------------------------------------------

FILLER = """
import json, resource, sys
from utils.errors import UserError
from utils.report.csv_log import CsvLog, read_csv
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
log, messages, written = CsvLog(sys.argv[1]), [], 0
try:
    for step in range(1000):
        log.append({"step": step, "x": step / 7})
        written += 1
except UserError as error:
    messages.append(str(error))
for row in ({"step": 1000, "x": 0.123456789012345}, {"step": 1000, "wide" * 20: 1}):
    try:
        log.append(row)
    except UserError as error:
        messages.append(str(error))
print(json.dumps([written, len(read_csv(sys.argv[1])), messages]))
"""


def test_full_disk_is_named_and_costs_no_earlier_row(tmp_path):
    path = tmp_path / "log.csv"
    done = run_python(FILLER, path)
    assert done.returncode == 0, done.stderr
    written, readable, messages = json.loads(done.stdout)
    assert written == readable > 50
    assert len(messages) == 3
    for message in messages:
        assert message.startswith(f"cannot write {path}: File too large; free some space")
    assert path.read_bytes().endswith(b"\n")  # nothing torn
    assert os.listdir(tmp_path) == ["log.csv"]


def test_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="check that the folder exists"):
        CsvLog(tmp_path / "no" / "log.csv").append({"step": 1})
