"""Memory stays within BUFFER_SIZE + CACHE_SIZE + 16 MiB, whatever clients do, and comes back."""

import json

import pytest

from http_client import request_bytes
from longline_server import PATIENCE_S, SLOW, wait_until

MIB = 1 << 20
CACHE_MIB, REST_MIB = 8, 16

pytestmark = pytest.mark.skipif(SLOW, reason="a sanitizer's memory is not the program's")


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("channels, buffer_mib", [(1, 64), (60, 64), (300, 128)])
def test_polls_of_a_mebibyte_that_nobody_reads(serve, channels, buffer_mib):
    """Two updates a channel, each a reply of its own: what is not in memory is read from the store."""
    server = serve(BUFFER_SIZE=buffer_mib, CACHE_SIZE=CACHE_MIB, MAX_BODY=MIB, LOG_LEVEL="info", IDLE_TIMEOUT=60)
    targets = [server.channel() for _ in range(channels)]
    for target in targets:
        for _ in range(2):
            server.push(target, json.dumps({"x": "y" * (MIB - 100)}))
    clients = [server.client(receive_buffer=8192) for _ in range(600)]
    worst = 0
    for n, client in enumerate(clients):
        client.send(request_bytes("GET", targets[n % channels] + "?limit=1") * 20)
        worst = max(worst, server.rss_bytes())
    sent = 0

    def settled():
        nonlocal worst, sent
        worst = max(worst, server.rss_bytes())
        before, sent = sent, server.metric("longline_polls_total")
        return before == sent

    wait_until(settled, "the replies that fit")
    for client in clients:
        client.close()
    server.wait_for_metric("longline_connections", 1)
    assert worst <= (buffer_mib + CACHE_MIB + REST_MIB) * MIB, f"{worst / MIB:.0f} MiB"
    own = (12 + buffer_mib // 16) * MIB  # the program, its libraries, and what is not worth giving back

    def is_back():
        return server.rss_bytes() <= (CACHE_MIB + REST_MIB) * MIB + own

    try:
        wait_until(is_back, "the memory to come back")
    except AssertionError as error:
        raise AssertionError(f"{error}; {server.rss_bytes() / MIB:.0f} MiB stay") from None


@pytest.mark.providers("memory")
def test_a_store_in_memory_gives_back_what_is_purged(serve):
    server = serve(CACHE_SIZE=1, MAX_BODY=MIB, LOG_LEVEL="info")
    target, before = server.channel(), server.rss_bytes()
    for _ in range(60):
        server.push(target, json.dumps({"x": "y" * (MIB - 100)}))
    assert server.rss_bytes() > before + 60 * MIB
    assert server.request("DELETE", target).status == 200
    wait_until(lambda: server.rss_bytes() < before + 12 * MIB, "the memory to come back", 3 * PATIENCE_S)
    assert server.push(target) == 61
