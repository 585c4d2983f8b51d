"""A file server on the loopback interface that counts requests and can misbehave."""

import collections
import contextlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path


class Server:
    """Serve `files` (path -> bytes) and counts GET requests per path.

    Attributes:
        url: Base URL.
        requests: Requests per path.
        truncate: Send only this many bytes of what the header promises, and hang up.
        hang: Send the first half of a file, then nothing until the server stops.
        seconds: How long a download takes.
    """

    def __init__(self, files):
        self.files = files
        self.requests = collections.Counter()
        self.truncate = None
        self.hang = False
        self.seconds = 0.0
        self.stopped = threading.Event()
        self.url = ""

    def answer(self, handler):
        self.requests[handler.path] += 1
        body = self.files.get(handler.path)
        if body is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        half = len(body) // 2
        handler.wfile.write(body[:half] if self.truncate is None else body[: self.truncate])
        if self.truncate is not None:
            return
        if self.hang:
            handler.wfile.flush()
            self.stopped.wait()
            return
        time.sleep(self.seconds)
        handler.wfile.write(body[half:])


@contextlib.contextmanager
def serve(files):
    """Run a `Server` for the length of a with-block."""
    server = Server(files)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(ConnectionError):
                server.answer(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        server.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            httpd.shutdown()
            thread.join()


def run_together(count, arguments, **environment):
    """Run Python in several processes at once; return the output and the errors of each."""
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    return [process.communicate(timeout=120) for process in processes]
