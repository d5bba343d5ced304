"""Thousands of slow, silent and deaf clients at once (siege.py): an honest one is served as if they were not there, memory is bounded, and the
deadlines of the settings end them all. CROWD says how many, SIEGES how often it is measured with and without them, in turn.
"""

import contextlib
import json
import os
import statistics
import subprocess
import time

import pytest

from longline_server import PATIENCE_S, SLOW, wait_until
from program import PYTHON
from siege import MIB, PAGE

# The store has no part in what a client may cost.
pytestmark = pytest.mark.providers("memory")

CROWD = int(os.environ.get("CROWD", 500))
SIEGES = int(os.environ.get("SIEGES", 1))
IS_LONG = "CROWD" in os.environ
DEADLINE_S = 40 if IS_LONG else 3
BUFFER_MIB = 256 if IS_LONG else 64
REQUESTS = 2000 if IS_LONG else 100


@contextlib.contextmanager
def siege(server, count):
    """While it lasts, they all are there. They have less of this machine, and where it is measured only what nobody else wants: they would be elsewhere."""
    host, port = server.address
    behind = ["chrt", "--idle", "0"] if IS_LONG else ["nice", "-n", "10"]
    command = [*behind, PYTHON, os.path.join(os.path.dirname(__file__), "siege.py"), host, str(port), str(count), str(DEADLINE_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            ready = process.stdout.readline().split()
            assert ready[:1] == [b"ready"], "the attackers could not all connect"
            yield int(ready[1])
            assert not IS_LONG or process.poll() is None, "the attackers have gone by themselves"
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
            process.kill()


def is_in_place(server):
    """Whether the buffers grow no more, but for drips."""
    before = server.metric("longline_buffer_bytes")
    time.sleep(0.2)
    return server.metric("longline_buffer_bytes") - before < MIB


def p99_ms(server, channel):
    """Of pushes, each with the poll that gets it."""
    times = []
    with server.client() as client:
        for n in range(REQUESTS):
            began = time.perf_counter()
            total = client.post(channel, b'{"n":%d}' % n).total
            reply = client.get(f"{channel}?ts={total - 1}")
            assert reply.status == 200 and reply.updates == [{"n": n}], reply
            times.append(time.perf_counter() - began)
            time.sleep(0.001)
    return 1000 * sorted(times)[int(0.99 * len(times))]


@pytest.mark.timed
def test_an_honest_client_does_not_notice_a_crowd(start):
    deadlines = {"REQUEST_TIMEOUT": DEADLINE_S, "IDLE_TIMEOUT": DEADLINE_S}
    server = start(DATA_PROVIDER="memory", BUFFER_SIZE=BUFFER_MIB, MAX_CONNECTIONS=CROWD + 1000, **deadlines)
    server.push(PAGE, json.dumps({"x": "y" * (MIB - 100)}))
    channel = server.channel()
    p99_ms(server, channel)
    memory = server.rss_bytes()
    ratios = []
    for _ in range(SIEGES):
        quiet = p99_ms(server, channel)
        accepted = server.metric("longline_connections_accepted_total")
        with siege(server, CROWD) as count:
            wait_until(lambda: server.metric("longline_connections_accepted_total") >= accepted + count, "all of them", max(PATIENCE_S, DEADLINE_S / 2))
            wait_until(lambda: is_in_place(server), "each to have what it holds")
            assert not IS_LONG or server.metric("longline_connections") > 0.85 * count, "the first had to go before the last came"
            besieged = p99_ms(server, channel)
            still = server.metric("longline_connections")
            grown = server.rss_bytes() - memory
            buffered = server.metric("longline_buffer_bytes")
            ratios.append(besieged / quiet)
            print(
                f"{count} attackers, {still:.0f} at the end: p99 {quiet:.2f} → {besieged:.2f} ms, ×{ratios[-1]:.2f}; "
                f"memory +{grown >> 20} MiB, buffers {int(buffered) >> 20} MiB"
            )
            assert buffered <= (BUFFER_MIB + 2) * MIB
            assert SLOW or grown <= (BUFFER_MIB + 32) * MIB + 4096 * count
            # They go on, and all are cut but the one that pushes. What parks has two deadlines, and so has what gets its reply late.
            began = time.monotonic()
            wait_until(lambda: server.get(channel + "?ts=now") and server.metric("longline_connections") <= 3, "them to be cut", 4 * DEADLINE_S + PATIENCE_S)
            print(f"all cut {time.monotonic() - began:.0f} s later; memory +{server.rss_bytes() - memory >> 20} MiB")
    print(f"{len(ratios)} sieges of {CROWD}: p99 × {statistics.median(ratios):.2f} at the median")
    assert not IS_LONG or statistics.median(ratios) <= 2
