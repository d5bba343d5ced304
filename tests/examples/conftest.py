"""Fixtures: a real server, a fresh address, and programs that end with the test."""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
# The examples are tested here, not the server: its release build will do.
os.environ.setdefault("LONGLINE", "build/longline")
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "blackbox")]

pytest.register_assert_rewrite("longline_server", "http_client", "program")

from keys import new_keys
from longline_server import BINARY, Server
from program import Program
from timed import pytest_runtest_protocol, pytest_terminal_summary  # hooks


def pytest_report_header():
    return f"longline: {BINARY}"


@pytest.fixture
def server(tmp_path):
    """The test's own server. It keeps its port over a restart."""
    server = Server(tmp_path / "server").start().keep_address()
    yield server
    server.finish()


@pytest.fixture
def addresses(server):
    """addresses() is a fresh channel's: the one that does everything, the one that reads, the one that sends."""

    def make():
        keys = new_keys()
        server.channels.update(keys)
        return [server.url("/" + key) for key in keys]

    return make


@pytest.fixture
def urls(addresses):
    return addresses()


@pytest.fixture
def url(urls):
    return urls[0]


@pytest.fixture
def read_url(urls):
    return urls[1]


@pytest.fixture
def send_url(urls):
    return urls[2]


@pytest.fixture
def target(url):
    """The channel at `url`, as Server's methods name it."""
    return "/" + url.rsplit("/", 1)[1]


@pytest.fixture
def run(tmp_path):
    """run(command…, cwd=, **environment) starts a program, which ends with the test."""
    programs = []

    def start(*command, cwd=tmp_path, **environment):
        programs.append(Program(tmp_path / f"program-{len(programs)}", command, cwd, environment))
        return programs[-1]

    yield start
    for each in programs:
        each.kill()


@pytest.fixture
def stand_in():
    """stand_in(answer) is the address of another server.

    answer(body) returns the status and the body of the reply, or None for no reply.
    """
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                if reply := answer(self.rfile.read(int(self.headers.get("Content-Length", 0)))):
                    self.send_response(reply[0])
                    self.end_headers()
                    self.wfile.write(reply[1])

            do_GET = do_POST

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for each in servers:
        each.shutdown()
        each.socket.close()
