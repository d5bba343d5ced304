"""Memory stays within BUFFER_SIZE + CACHE_SIZE + 16 MiB, whatever clients do, and comes back."""

import json

import pytest

from http_client import request_bytes
from longline_server import SLOW, wait_until

MIB = 1 << 20
BUFFER_MIB, CACHE_MIB, REST_MIB = 64, 8, 16

pytestmark = pytest.mark.skipif(SLOW, reason="a sanitizer's memory is not the program's")


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("channels", [1, 60], ids=["one_channel", "many_channels"])
def test_polls_of_a_mebibyte_that_nobody_reads(serve, channels):
    """Two updates a channel, each a reply of its own: what is not in memory is read from the store."""
    server = serve(BUFFER_SIZE=BUFFER_MIB, CACHE_SIZE=CACHE_MIB, MAX_BODY=MIB, LOG_LEVEL="info", IDLE_TIMEOUT=60)
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
    assert worst <= (BUFFER_MIB + CACHE_MIB + REST_MIB) * MIB, f"{worst / MIB:.0f} MiB"
    own = 8 * MIB  # the program, its libraries, and what came for good with the first requests
    wait_until(lambda: server.rss_bytes() <= (CACHE_MIB + REST_MIB) * MIB + own, "the memory to come back")
