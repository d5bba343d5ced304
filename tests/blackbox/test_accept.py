"""A server that cannot accept a connection tries again, slowly, and goes deaf for nothing."""

import errno
import itertools
import time

import pytest

from faults import Faults
from http_client import Closed, request_bytes
from longline_server import SLOW, wait_until


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_accept_that_fails_is_tried_again_and_again(start, faults, error):
    server = start(**faults.settings())
    target = server.channel()
    server.push(target)
    with server.client() as early, server.client() as late:
        cpu_s, began = server.cpu_seconds(), time.monotonic()
        early.get(target)
        faults["accept_error"] = error
        with server.client() as waiting:
            waiting.send_request("GET", target)
            wait_until(lambda: faults["accepts_failed"] >= 5, "five attempts")
            assert time.monotonic() - began > 1.1, "pauses of 0.1, 0.2, 0.4 and 0.5 s lie between five attempts"
            assert server.cpu_seconds() - cpu_s < (0.2 if SLOW else 0.05) * (time.monotonic() - began), "it spins"
            assert late.get(target).updates == [{}], "the others are served meanwhile"
            faults["accept_error"] = 0
            assert waiting.read_reply().updates == [{}], "whoever waited was lost"
            assert server.log().count("cannot accept") == 1
            failures = faults["accepts_failed"]
            assert server.metric("longline_accept_failures_total") == failures
        with server.client() as next_one:
            assert next_one.get(target).updates == [{}]
        assert faults["accepts_failed"] == failures


def asks(server):
    """Whether a new connection got its answer; it may also be refused, or closed."""
    try:
        with server.client() as client:
            reply = client.get("/-/health")
        assert reply.status in (200, 503), reply
        return reply.status == 200
    except (Closed, BrokenPipeError, ConnectionResetError):
        return False


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:socket"])
def test_no_failed_allocation_makes_an_idle_server_deaf(start, faults, listen):
    server = start(LISTEN=listen, **faults.settings())
    if listen.startswith("unix:"):
        server.addresses = [f"unix:{server.directory}/socket"]
    assert asks(server)
    for nth in itertools.count(1):
        faults.fail_allocation(nth)
        asks(server)
        reached = faults["failed"]
        faults.stop()
        assert asks(server), f"deaf after allocation {nth}"
        if not reached:
            break
    assert nth > 3, "the allocations of a connection were not reached"


@pytest.mark.parametrize("nth", [2, 3])  # the first is the connection's own
def test_no_memory_for_more_descriptors(start, faults, nth):
    """libuv enlarges the array in which it finds descriptors, and aborts where it cannot."""
    server = start(**faults.settings())
    assert asks(server)
    clients, refused = [], 0
    while len(clients) < 100:
        faults.fail_allocation(nth)
        client = server.client()
        client.send(request_bytes("GET", "/robots.txt"))
        try:
            client.read_reply()
        except (Closed, ConnectionResetError):
            client.close()
            refused += 1
            faults.stop()
            client = server.client()
            assert client.get("/robots.txt").status == 200
        clients.append(client)
        faults.stop()
    assert refused < 10, "with the second allocation only those that need a larger array are refused"
    assert asks(server)
    for client in clients:
        client.close()
