"""Fixtures: the real server, the stand-in, every driver, and what the tests of one client share."""

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sys.dont_write_bytecode = True
# The clients are tested here, not the server: its release build will do.
os.environ.setdefault("LONGLINE", "build/longline")
# A proxy of the machine's is none of theirs.
for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[variable]
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "blackbox")]

pytest.register_assert_rewrite("longline_server", "http_client", "program", "drivers", "standin", "lua_script", "proxies", "python_client")

from authority import Authority
from drivers import DRIVERS
from longline_server import BINARY, Server
from lua_script import game, interpreter, lua, odd_updates, start_script  # fixtures
from python_client import Channel, half, new_keys, push_async, push_sync  # half: a fixture
from standin import StandIn, bound_socket, tls_context
from timed import pytest_runtest_protocol, pytest_terminal_summary  # hooks


def pytest_report_header():
    return f"longline: {BINARY}"


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request):
    return request.param


@pytest.fixture
def run(driver, tmp_path):
    """run(url, ts=, sleep=, backoff_ms=) starts the driver; it ends with the test.

    run.errors_told() is how many errors it has reported; it may be called before the driver runs.
    """
    runs = []

    def start(url, **options):
        runs.append(driver.start(tmp_path / f"driver-{len(runs)}", url, **options))
        return runs[-1]

    start.errors_told = lambda: sum(each.stderr.count("\n") for each in runs)
    yield start
    for each in runs:
        each.kill()


@pytest.fixture
def stand_in():
    """stand_in(script, …) starts a stand-in that plays it."""
    started = []

    def start(script, **options):
        started.append(StandIn(script, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def start_server(tmp_path):
    """start_server(SETTING=value, …) starts the test's own real server."""
    servers = []

    def start(**settings):
        server = Server(tmp_path / f"server-{len(servers)}", **settings)
        servers.append(server)
        return server.start().keep_address()

    yield start
    for each in servers:
        each.finish()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    """One real server for all tests that need no settings. Do not stop it; use your own channel."""
    settings = {"DATA_PROVIDER": "memory", "CHANNEL_STORAGE_MAXSIZE": 20000}
    server = Server(tmp_path_factory.mktemp("server"), **settings).start()
    yield server
    server.finish()


@pytest.fixture
def server(shared_server):
    assert shared_server.process.poll() is None, f"an earlier test ended the server:\n{shared_server.log_tail()}"
    return shared_server


# --- addresses ---


@pytest.fixture
def url(server):
    """A fresh channel of the real server."""
    return server.url(server.channel())


@pytest.fixture
def keys(server):
    """The addresses of a new channel of the real server. None of them must be in its log."""
    keys = new_keys(server.url("/"))
    for url in keys:
        server.saw_target(urlsplit(url).path)
    return keys


@pytest.fixture
def four_updates(server):
    """A channel with the updates {"n":1} to {"n":4}."""
    channel = server.channel()
    for n in range(1, 5):
        server.push(channel, b'{"n":%d}' % n)
    return server.url(channel)


@pytest.fixture
def refused_url():
    """An address that refuses connections."""
    with bound_socket(0) as sock:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/channel"


@pytest.fixture
def silent_url():
    """An address where a connect neither succeeds nor fails, because the queue is full."""
    with bound_socket(0) as sock, contextlib.ExitStack() as held:
        sock.listen(0)
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/channel"


# --- TLS ---


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls(authority):
    """(the context of a server at 127.0.0.1, the context of a client that trusts it)."""
    return tls_context(authority, "IP:127.0.0.1"), ssl.create_default_context(cafile=str(authority.certificate))


# --- the Python client ---


@pytest.fixture
def channel(url):
    """The Python client's channel of the real server."""
    with Channel(url) as channel:
        yield channel


@pytest.fixture(params=["sync", "asyncio"])
def push(request):
    """push(url, update): with both halves of the Python client."""
    return push_sync if request.param == "sync" else lambda *a, **kw: asyncio.run(push_async(*a, **kw))
