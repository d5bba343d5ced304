"""Fixtures: servers, the providers that they run on, and Redis servers."""

import os
import secrets
import sys

sys.dont_write_bytecode = True

import pytest

pytest.register_assert_rewrite("longline_server", "http_client", "swarm", "redis_server", "crowd", "storm", "load")

from authority import Authority
from clocks import Clocks
from longline_server import BINARY, Server
from redis_server import RedisServers
from timed import pytest_runtest_protocol, pytest_terminal_summary  # hooks

# Every provider that keeps the protocol's promises. A test that needs more than the protocol uses
# `start`, and a test that some providers cannot run names the others with
# `pytest.mark.providers(...)`. Both say why.
PROVIDERS = ("sqlite", "memory", "redis")


def pytest_report_header():
    return f"longline: {BINARY}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A test that fails shows what its servers said."""
    report = (yield).get_result()
    servers = {}  # by the log: several fixtures may be the same server
    for value in getattr(item, "funcargs", {}).values() if report.failed else ():
        owner = getattr(value, "__self__", None)
        if isinstance(value, Server):
            servers[value.log_path] = value
        elif isinstance(owner, Servers):
            servers.update((server.log_path, server) for server in owner.running)
    for server in servers.values():
        if server.log_path.exists():
            report.sections.append((f"log of {server.log_path}", server.log_tail()))


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


def pytest_generate_tests(metafunc):
    """Runs a test that uses `provider` once for each, or once for each that its marker names."""
    if "provider" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("providers")
        metafunc.parametrize("provider", marker.args if marker else PROVIDERS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def provider(request):
    """The name of the provider."""
    return request.param


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory):
    """One Redis for all servers of the suite that run on redis, each with its own prefix.

    No test may stop it.
    """
    with RedisServers(tmp_path_factory.mktemp("redis") / "servers") as servers:
        yield servers.start()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Issues certificates that only the test's clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def provider_settings(request, provider):
    """provider_settings() chooses the provider, for a server that shares nothing with any other."""
    if provider != "redis":
        return lambda: {"DATA_PROVIDER": provider}
    redis = request.getfixturevalue("shared_redis")
    return lambda: redis.settings(REDIS_PREFIX=f"{secrets.token_hex(4)}:", REDIS_TIMEOUT=5000)  # which a busy machine may need


@pytest.fixture
def clock(tmp_path):
    """The clocks of the programs that have its settings."""
    return Clocks(tmp_path)


@pytest.fixture
def start(tmp_path):
    """start(SETTING=value, …) starts a server with those settings, on SQLite by default."""
    servers = Servers(tmp_path)
    yield servers.start
    servers.finish()


@pytest.fixture
def start_replaceable(start, tmp_path):
    """Like start(), with a program that is a file of its own: server.replace(script) replaces that.

    The sandbox would not let the server run a shell, so it is off."""

    def start_it(**settings):
        path = tmp_path / "longline"
        os.symlink(BINARY, path)
        server = start(binary=path, SANDBOX="off", **settings)

        def replace(script, mode=0o755):
            """By a shell script, in which $LONGLINE is the present program."""
            new = tmp_path / "new"
            new.write_text(f"#!/bin/sh\nLONGLINE={BINARY}\n{script}\n")
            new.chmod(mode)
            os.rename(new, path)

        server.replace = replace
        return server

    return start_it


@pytest.fixture
def serve(start, provider_settings):
    """serve(SETTING=value, …) does the same on each provider in turn."""
    return lambda **settings: start(**{**provider_settings(), **settings})


@pytest.fixture(scope="module")
def module_start(tmp_path_factory, provider, provider_settings):
    """Like serve(), for servers that all tests of the module use."""
    servers = Servers(tmp_path_factory.mktemp(provider))
    yield lambda **settings: servers.start(**{**provider_settings(), **settings})
    servers.finish()


@pytest.fixture(scope="module")
def module_server(module_start):
    return module_start()


@pytest.fixture
def server(module_server):
    """The module's server, with default settings, on each provider. Use your own channel on it."""
    assert module_server.process.poll() is None, f"an earlier test ended the server:\n{module_server.log_tail()}"
    return module_server


@pytest.fixture
def channel(server):
    return server.channel()


@pytest.fixture
def redis_servers(tmp_path):
    """The test's own Redis servers: .start(setting=value, …), or .add(…) to start one later."""
    with RedisServers(tmp_path / "redis") as servers:
        yield servers


@pytest.fixture
def redis(redis_servers):
    """The test's own Redis. It starts before, and ends after, every longline of the test."""
    return redis_servers.start()
