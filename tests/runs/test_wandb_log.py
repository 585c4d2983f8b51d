import contextlib
import http.server
import json
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.programs import run_python
from utils.errors import UserError
from utils.runs import wandb_log
from utils.runs.wandb_log import Wandb, start_wandb

KEY = "a" * 40

TRAINER = """
import json, sys, time
from utils.runs.wandb_log import start_wandb
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
    found = wandb_log._has_credentials
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
