"""Fixtures: servers, and the providers that they run on."""

import sys

sys.dont_write_bytecode = True

import pytest

pytest.register_assert_rewrite("longline_server", "http_client", "swarm")

from longline_server import BINARY, Server

# Every provider that keeps the protocol's promises: its name and the settings that choose it.
# A third one is one more line here; tests that need more than the protocol use `start` and say so.
PROVIDERS = {
    "sqlite": {"DATA_PROVIDER": "sqlite"},
    "memory": {"DATA_PROVIDER": "memory"},
}


def pytest_report_header():
    return f"longline: {BINARY}"


class Servers:
    """Starts servers and finishes them all, each in its own directory."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def start(self, **settings):
        server = Server(self.directory / f"server-{len(self.running)}", **settings)
        self.running.append(server)
        return server.start()

    def finish(self):
        failures = []
        for server in self.running:
            try:
                server.finish()
            except AssertionError as failure:
                failures.append(str(failure))
        assert not failures, "\n".join(failures)


@pytest.fixture(scope="module", params=PROVIDERS)
def provider(request):
    """The name of the provider; a test that uses it runs once for each."""
    return request.param


@pytest.fixture
def start(tmp_path):
    """start(SETTING=value, …) starts a server with those settings (SQLite unless told)."""
    servers = Servers(tmp_path)
    yield servers.start
    servers.finish()


@pytest.fixture
def serve(start, provider):
    """serve(SETTING=value, …): as start, on each provider in turn."""
    return lambda **settings: start(**PROVIDERS[provider], **settings)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory, provider):
    servers = Servers(tmp_path_factory.mktemp(provider))
    yield servers.start(**PROVIDERS[provider])
    servers.finish()


@pytest.fixture
def server(module_server):
    """The module's server with default settings, on each provider. Use a channel of your own on it."""
    assert module_server.process.poll() is None, f"an earlier test ended the server:\n{module_server.log_tail()}"
    return module_server


@pytest.fixture
def channel(server):
    return server.channel()
