import contextlib
import errno
import http.server
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import utils.logging
from utils.logging import (
    CsvLog,
    Wandb,
    read_csv,
    start_wandb,
    versions,
    write_atomically,
)

from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=100,
    )


# --- CSV ------------------------------------------------------------------------------------------


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
    assert log.keep_through(0) == 0
    log.append({"step": 5, "a": 1})
    assert log.keep_through(4) == 1
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
        assert log.keep_through(checkpoint) == done - kept
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
from utils.logging import CsvLog
log = CsvLog(sys.argv[1])
start = log.keep_through(10**9) or int(sys.argv[2])
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
        CsvLog(path).keep_through(start - 1)
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
from utils.logging import CsvLog, read_csv
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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_old_file_of_an_atomic_write(tmp_path, monkeypatch, code):
    path = tmp_path / "picture.png"
    write_atomically(path, b"old")

    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(utils.logging.os, "fsync", full)
    with pytest.raises(UserError, match=r"picture\.png.*free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["picture.png"]


def test_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="check that the folder exists"):
        CsvLog(tmp_path / "no" / "log.csv").append({"step": 1})


# --- Versions -------------------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_versions_fit_into_json_and_name_no_machine():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == sys.version.split()[0]
    assert found["devices"]
    assert {"jax", "jaxlib", "flax", "optax", "ogbench", "mujoco", "gymnasium"} <= set(found)
    host = socket.gethostname()
    assert host not in json.dumps(found).replace(found["platform"], "")


def test_versions_tell_commit_and_changes(tmp_path, monkeypatch):
    assert utils.logging._git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    commit = utils.logging._git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert utils.logging._git_commit(tmp_path) == commit + "+dirty"


# --- wandb ----------------------------------------------------------------------------------------

KEY = "a" * 40

TRAINER = """
import json, sys, time
from utils.logging import start_wandb
mode, folder, run_id = sys.argv[1:4]
begin = time.monotonic()
run = start_wandb(mode, group="g", name="n", config={"a": {"b": 1}}, folder=folder,
                  run_id=run_id or None, timeout_s=2)
started = time.monotonic() - begin
for step in (100, 200, 50):  # 50: as after a resume
    run.log({"loss": 0.5, "empty": None}, step)
logged = time.monotonic() - begin
run.finish()
finished = time.monotonic() - begin
print(json.dumps({"mode": run.mode, "id": run.id, "start_s": started,
                  "log_s": logged - started, "finish_s": finished - logged,
                  "imported": "wandb" in sys.modules}))
"""


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """An environment without login and with its own home; returns the run folder."""
    for name in list(os.environ):
        if name.startswith("WANDB") or name.lower().endswith("_proxy") or name == "NETRC":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "run"


def train(folder, mode="auto", run_id="", **environment):
    begin = time.monotonic()
    done = run_python(TRAINER, mode, folder, run_id, **environment)
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines(), seconds


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_auto_without_login_is_offline_and_resumes_under_its_id(clean):
    first, lines, _ = train(clean)
    assert first["mode"] == "offline"
    assert lines == [f"wandb: offline in {clean}/wandb (not logged in, see `wandb login`)"]
    time.sleep(1)  # wandb names its folders by the second
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    second, lines, _ = train(clean, run_id=first["id"], WANDB_MODE="offline", **environment)
    assert (second["id"], second["mode"]) == (first["id"], "offline")
    assert lines == [f"wandb: offline in {clean}/wandb"]  # the server was not even tried
    stored = list(clean.glob(f"wandb/offline-run-*/run-{first['id']}.wandb"))
    assert len(stored) == 2
    for path in stored:  # wandb kept also the row behind the last step
        # A byte with the length, and then the digits of the step.
        items = re.findall(rb"\x04step\x82\x01(.)(\d+)", path.read_bytes(), re.DOTALL)
        steps = [digits[: ord(length)] for length, digits in items]
        assert list(dict.fromkeys(steps)) == [b"100", b"200", b"50"]
        assert b"empty" not in path.read_bytes()
    assert files_below(clean.parent / "home") == []


@pytest.mark.parametrize(
    ("mode", "variable"), [("disabled", None), ("auto", "disabled"), ("auto", "Disabled")]
)
def test_disabled_never_imports_wandb(clean, mode, variable):
    run, lines, _ = train(clean, mode, "kept", **({"WANDB_MODE": variable} if variable else {}))
    assert (run["mode"], run["imported"], run["id"]) == ("disabled", False, "kept")
    assert lines == []
    assert not clean.exists()


def test_unknown_modes_are_user_errors(clean, monkeypatch):
    arguments = {"group": "g", "name": "n", "config": {}, "folder": clean}
    with pytest.raises(UserError, match="choose one of auto, online"):
        start_wandb("onlin", **arguments)
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(UserError, match="WANDB_MODE is 'nonsense'"):
        start_wandb("auto", **arguments)


def test_closed_port_means_offline_at_once(clean):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    run, lines, seconds = train(clean, WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{port}")
    assert run["mode"] == "offline"
    assert len(lines) == 1
    assert "cannot be reached: [Errno 111] Connection refused" in lines[0]
    assert seconds < 20
    assert files_below(clean.parent / "home") == []


class Server:
    """A loopback server that accepts; answers the first `answers` requests with 200, then hangs."""

    def __init__(self, answers=0):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections, self._answers = [], answers
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve)

    def _serve(self):
        while True:
            connection, _ = self._socket.accept()
            if self._answers is None:
                connection.close()
                return
            self.accepted += 1
            if self.accepted <= self._answers:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                connection.close()
            else:
                self._connections.append(connection)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._answers = None
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join()
        for connection in [*self._connections, self._socket]:
            connection.close()


@pytest.mark.parametrize("answers", [0, 1], ids=["hangs", "hangs_after_the_first_answer"])
def test_server_that_never_answers_means_offline_after_a_short_time(clean, answers):
    with Server(answers) as server:
        run, lines, seconds = train(
            clean, mode="online", run_id="kept", WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url
        )
        assert server.accepted > answers
    assert (run["mode"], run["id"]) == ("offline", "kept")
    assert len(lines) == 1
    assert run["start_s"] < 15
    assert seconds < 20  # the exit does not wait for the server either
    assert list(clean.glob("wandb/offline-run-*/run-kept.wandb"))


class DyingServer(http.server.BaseHTTPRequestHandler):
    """Answers what wandb asks until a run has started, and then nothing any more."""

    bucket = {  # noqa: RUF012
        "id": "bucket",
        "name": "kept",
        "displayName": "n",
        "config": "{}",
        "project": {"id": "p", "name": "deflow", "entity": {"id": "e", "name": "someone"}},
    }

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = json.loads(body)["query"] if self.path == "/graphql" else ""
        data = {}
        if "upsertBucket" in query and not self.server.started:
            self.server.started = True
            data = {"upsertBucket": {"bucket": self.bucket, "inserted": True}}
        elif self.server.started:
            self.server.end.wait()
        reply = json.dumps({"data": data}).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_):
        pass


def test_server_that_dies_during_the_run_delays_only_the_end_and_not_for_long(clean):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DyingServer) as server:
        server.started, server.end = False, threading.Event()
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        run, lines, seconds = train(clean, run_id="kept", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
        server.end.set()
        server.shutdown()
    assert run["mode"] == "online"
    assert lines[0] == f"wandb: online, {url}/someone/deflow/runs/kept"
    assert "upload the rest later with `wandb sync" in lines[1]
    assert len(lines) == 2
    assert run["log_s"] < 2
    assert run["finish_s"] < 10
    assert seconds < 20
    assert list(clean.glob("wandb/run-*/run-kept.wandb"))


def test_login_is_found_in_a_netrc_file_for_the_host_only(clean, monkeypatch):
    found = utils.logging._has_credentials
    assert not found("https://api.wandb.ai", None)
    assert found("https://api.wandb.ai", KEY)
    (clean.parent / "home" / ".netrc").write_text(
        f"machine api.wandb.ai\n login user\n password {KEY}\n"
    )
    assert found("https://api.wandb.ai", None)
    assert not found("https://wandb.example.org:8080", None)
    monkeypatch.setenv("NETRC", str(clean.parent / "named"))
    assert not found("https://api.wandb.ai", None)
    Path(os.environ["NETRC"]).write_text("garbage")
    assert not found("https://api.wandb.ai", None)


def test_broken_installation_disables(clean, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = start_wandb("offline", group="g", name="n", config={}, folder=clean, run_id="kept")
    assert (run.mode, run.id) == ("disabled", "kept")
    assert capsys.readouterr().err.startswith("wandb: disabled, because it does not start")
    run.log({"a": 1}, 1)
    run.log_video("v", "v.mp4", 1)
    run.finish()


def test_error_while_logging_is_told_once_and_stops_nothing(capsys):
    class Broken:
        def log(self, row):
            raise BrokenPipeError("service is gone")

    run = Wandb(Broken(), "id", "online")
    run.log({"a": 1}, 1)
    run.log({"a": 1}, 2)
    run.finish()
    assert capsys.readouterr().err == "wandb: stopped logging after an error: service is gone\n"
