import contextlib
import http.server
import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.processes import REPOSITORY, run_python
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


def test_closed_port_means_offline(clean):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    run, lines, seconds = train(clean, WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{port}")
    assert run["mode"] == "offline"
    assert len(lines) == 1
    assert f"(http://127.0.0.1:{port}: " in lines[0]  # the server is named, and what it did
    assert seconds < 20
    assert files_below(clean.parent / "home") == []


class SilentServer:
    """A loopback server that accepts connections and never answers."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections = []
        self._ended = False
        self._thread = threading.Thread(target=self._serve)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def accepted(self):
        return len(self._connections)

    def _serve(self):
        while not self._ended:
            self._connections.append(self._socket.accept()[0])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join()
        for connection in [*self._connections, self._socket]:
            connection.close()


def check_that_it_went_offline_soon(run, lines, seconds, folder, url):
    assert (run["mode"], run["id"]) == ("offline", "kept")
    assert len(lines) == 1
    assert lines[0].startswith(f"wandb: offline in {folder}/wandb ({url}: ")
    assert run["start_s"] < 15
    assert seconds < 20  # the exit does not wait for the server either
    assert list(folder.glob("wandb/offline-run-*/run-kept.wandb"))


def test_server_that_never_answers_means_offline_after_a_short_time(clean):
    with SilentServer() as server:
        results = train(
            clean, mode="online", run_id="kept", WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url
        )
        assert server.accepted
    check_that_it_went_offline_soon(*results, clean, server.url)


class DyingServer(http.server.BaseHTTPRequestHandler):
    """Answers what wandb asks until a run starts, and then nothing any more.

    Whether the request to start it is answered too, the server's `starts_runs` says.
    """

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
            if not self.server.starts_runs:
                self.server.end.wait()
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


@contextlib.contextmanager
def dying_server(starts_runs):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DyingServer) as server:
        server.starts_runs, server.started, server.end = starts_runs, False, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server
        finally:
            server.end.set()
            server.shutdown()


def test_server_that_hangs_after_its_first_answers_means_offline(clean):
    with dying_server(starts_runs=False) as server:
        results = train(clean, run_id="kept", WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
        assert server.started
    check_that_it_went_offline_soon(*results, clean, server.url)


def test_server_that_dies_during_the_run_delays_only_the_end_and_not_for_long(clean):
    with dying_server(starts_runs=True) as server:
        url = server.url
        run, lines, seconds = train(clean, run_id="kept", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert run["mode"] == "online"
    assert lines[0] == f"wandb: online, {url}/someone/deflow/runs/kept"
    assert "upload the rest later with `wandb sync" in lines[1]
    assert len(lines) == 2
    assert run["log_s"] < 2
    assert run["finish_s"] < 10
    assert seconds < 20
    assert list(clean.glob("wandb/run-*/run-kept.wandb"))


def test_login_is_found_in_a_netrc_file_for_the_host_only(clean, monkeypatch):
    def found(url, key=None, token=None):
        known = SimpleNamespace(base_url=url, api_key=key, identity_token_file=token)
        return wandb_log._has_credentials(known)

    home = clean.parent / "home"
    assert not found("https://api.wandb.ai")
    assert found("https://api.wandb.ai", key=KEY)
    assert found("https://api.wandb.ai", token="/a/file")
    entry = f"machine api.wandb.ai\n login user\n password {KEY}\n"
    (home / "_netrc").write_text(entry)
    assert found("https://api.wandb.ai")
    (home / ".netrc").write_text("")  # which wandb then reads instead
    assert not found("https://api.wandb.ai")
    (home / ".netrc").write_text(entry)
    assert found("https://api.wandb.ai")
    assert not found("https://wandb.example.org:8080")
    assert not found("https://api.wandb.ai:8080")
    monkeypatch.setenv("NETRC", str(clean.parent / "named"))
    assert not found("https://api.wandb.ai")
    Path(os.environ["NETRC"]).write_text(entry)
    assert found("https://api.wandb.ai")
    Path(os.environ["NETRC"]).write_text("garbage")
    assert not found("https://api.wandb.ai")


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_login_in_the_environment_is_tried(clean, variable):
    value = KEY
    if variable == "WANDB_IDENTITY_TOKEN_FILE":
        value = clean.parent / "token"
        value.write_text("a token")
    environment = {variable: value, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    run, lines, _ = train(clean, **environment)
    assert run["mode"] == "offline"
    assert len(lines) == 1
    assert "(http://127.0.0.1:9: " in lines[0]  # not: not logged in


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_nothing_is_asked_in_a_terminal(clean, mode):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, mode, str(clean), ""],
        cwd=REPOSITORY,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with process, contextlib.suppress(OSError):  # raised when the terminal's last user is gone
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown
    said, result = shown.decode().splitlines()
    assert said == f"wandb: offline in {clean}/wandb (not logged in, see `wandb login`)"
    assert json.loads(result)["mode"] == "offline"


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
