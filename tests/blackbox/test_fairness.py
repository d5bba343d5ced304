"""Nobody holds the loop: what one client, or many at once, may have before others are served.

The server is stopped while clients send, so that all of it is there in one turn of its loop. Then
one client asks for the metrics: they count what was done before its turn came.
"""

import contextlib
import json
import resource
import signal
import time

import pytest

from http_client import request_bytes
from longline_server import PATIENCE_S, SLOW, wait_until
from swarm import Swarm

MIB = 1 << 20
IN_A_ROW = 32  # CONN_REQUESTS_IN_A_ROW
SLICE = 512  # the most polls that are answered in one go


@contextlib.contextmanager
def stopped(server):
    """The server does nothing; what is sent to it meanwhile is all there when it goes on."""
    server.send_signal(signal.SIGSTOP)
    stat = f"/proc/{server.pid}/stat"
    try:
        wait_until(lambda: open(stat).read().rsplit(")", 1)[1].split()[0] == "T", "the server to stop")
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def samples(reply):
    return dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if line and line[0] != "#")


def served(reply):
    """How many polls and pushes had been answered, or stored, when this reply was made."""
    counts = samples(reply)
    return int(counts["longline_polls_total"]) + int(counts["longline_pushes_total"])


def fill(sock, data, count):
    """Sends the bytes up to `count` times, as far as they fit into the sockets."""
    sock.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < count * len(data):
            sent += sock.send((data * count)[sent:])
    return sent // len(data)


def raise_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# --- Pipelining ---------------------------------------------------------------------------------


@pytest.mark.providers("sqlite", "memory")
@pytest.mark.parametrize("connections", [1, 4, 40])
@pytest.mark.parametrize("method", ["HEAD", "GET", "POST"])
def test_others_are_served_beside_clients_that_pipeline(server, method, connections):
    """They have sent as much as the sockets take, and then somebody sends one request."""
    target = server.channel()
    server.push(target, '{"n":1}')
    request = request_bytes(method, target, '{"n":2}' if method == "POST" else None)
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(server.client()) for _ in range(connections)]
        other = stack.enter_context(server.client())
        before = served(other.get("/-/metrics"))
        with stopped(server):
            sent = sum(fill(client.sock, request, 20000 // connections) for client in greedy)
            other.send_request("GET", "/-/metrics")
        assert sent > 2 * IN_A_ROW * connections
        done = served(other.read_reply()) - before
        assert done <= IN_A_ROW * connections, f"{done} of {sent}"


@pytest.mark.providers("sqlite", "memory")
@pytest.mark.parametrize("connections", [1, 8])
def test_others_are_served_beside_costly_requests_that_are_pipelined(server, connections):
    """Each of them takes longer than all together may take in a turn; the first is served."""
    target = server.channel()
    server.push(target, json.dumps({"x": '"' * (MIB // 3)}))
    request = request_bytes("HEAD", target + "?view=full")
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(server.client()) for _ in range(connections)]
        other = stack.enter_context(server.client())
        before = served(other.get("/-/metrics"))
        with stopped(server):
            for client in greedy:
                client.send(request * 100)
            other.send_request("GET", "/-/metrics")
        done = served(other.read_reply()) - before
        assert done <= connections + 4, f"{done} of {connections * 100}"


@pytest.mark.providers("sqlite", "memory")
@pytest.mark.parametrize("connections", [1, 5])
def test_those_that_pipeline_get_all_their_replies(server, connections):
    """In order, none twice."""
    target = server.channel()
    for n in range(7):
        server.push(target, json.dumps({"n": n}))
    count = 2000
    with Swarm(server.address) as swarm:
        got = {}

        def on_reply(wire, reply):
            assert len(reply.updates) == got[wire] % 7 + 1, reply
            got[wire] += 1

        for _ in range(connections):
            wire = swarm.open(on_reply)
            got[wire] = 0
            wire.send(b"".join(request_bytes("GET", f"{target}?limit={n % 7 + 1}") for n in range(count)))
        swarm.run(lambda: all(n == count for n in got.values()), PATIENCE_S, "the replies")


# --- Many at once -------------------------------------------------------------------------------


def test_polls_on_as_many_channels_in_one_moment(serve, provider):
    """As after a restart: none of the channels is in memory, and none of the polls is refused."""
    descriptors = raise_descriptors()
    count = min(6000 if SLOW or provider == "redis" else 20000, descriptors - 1000)
    assert count > 4096, "too few descriptors"
    server = serve(LOG_LEVEL="info", IDLE_TIMEOUT=600)
    statuses = []
    with Swarm(server.address) as swarm:
        wires = [swarm.open(lambda _wire, reply: statuses.append(reply.status)) for _ in range(count)]
        server.wait_for_metric("longline_connections", count + 1)
        before = server.rss_bytes()
        with stopped(server):
            for n, wire in enumerate(wires):
                wire.send(request_bytes("GET", f"/cold-{n}"))
        swarm.run(lambda: len(statuses) == count, 2 * PATIENCE_S, "the answers")
        assert statuses.count(200) == count, {s: statuses.count(s) for s in set(statuses)}
        if not SLOW:
            assert server.rss_bytes() - before < 48 * MIB


@pytest.mark.providers("sqlite", "memory")
def test_polls_that_wait_for_one_load(serve):
    """Thousands of polls on one channel that is being read for the first."""
    raise_descriptors()
    count = 4 * SLICE
    server = serve(LOG_LEVEL="info", IDLE_TIMEOUT=600)
    statuses = []
    with Swarm(server.address) as swarm, server.client() as other:
        wires = [swarm.open(lambda _wire, reply: statuses.append(reply.status)) for _ in range(count)]
        server.wait_for_metric("longline_connections", count + 2)
        with stopped(server):
            for wire in wires:
                wire.send(request_bytes("GET", "/cold"))
        other.get("/-/metrics")
        swarm.run(lambda: len(statuses) == count, 2 * PATIENCE_S, "the answers")
        assert statuses.count(200) == count


def park(server, swarm, count, sleep_s, on_reply):
    """Polls on as many channels, all begun in one moment; returns the wires and that moment."""
    wires = [swarm.open(on_reply) for _ in range(count)]
    wait_until(lambda: server.metric("longline_connections") > count, "the connections")
    with stopped(server):
        began = time.monotonic()
        for n, wire in enumerate(wires):
            wire.send(request_bytes("GET", f"/parked-{n}?sleep={sleep_s}"))
    server.wait_for_parked(count)
    return wires, began


@pytest.mark.providers("sqlite", "memory")
def test_others_are_served_while_polls_end_together(serve, clock):
    raise_descriptors()
    count, sleep_s = 3000, 60
    server = serve(LOG_LEVEL="info", IDLE_TIMEOUT=600, **clock.settings)
    ended = []
    with Swarm(server.address) as swarm, server.client() as other:
        park(server, swarm, count, sleep_s, lambda _wire, reply: ended.append(reply))
        parked = int(samples(other.get("/-/metrics"))["longline_polls_parked"])
        assert parked == count, "the machine is too slow for this test"
        with stopped(server):
            clock.set_forward(sleep_s + 1)
            other.send_request("GET", "/-/metrics")
        left = int(samples(other.read_reply())["longline_polls_parked"])
        assert left >= count - 2 * SLICE, f"{count - left} were answered first"
        swarm.run(lambda: len(ended) == count, PATIENCE_S, "the polls to end")
        assert all(reply.status == 200 and reply.updates == [] for reply in ended)


@pytest.mark.timed
@pytest.mark.providers("sqlite")
def test_polls_that_begin_together_do_not_end_together(serve, clock):
    """The first that would end in a moment do; the others end earlier, by up to an eighth."""
    raise_descriptors()
    count, sleep_s = 2500, 60
    server = serve(LOG_LEVEL="info", IDLE_TIMEOUT=600, **clock.settings)
    ended = {}
    with Swarm(server.address) as swarm:
        wires, began = park(server, swarm, count, sleep_s, lambda wire, _: ended.update({wire: clock.monotonic_s}))

        def have_come():
            return len(ended) + server.metric("longline_polls_parked") == count

        clock.forward(server, 7 * sleep_s // 8 - int(time.monotonic() - began) - 1)
        assert not ended, "earlier than by an eighth"
        while len(ended) < count:
            clock.forward(server, 1)
            swarm.run(have_come, PATIENCE_S, "those that end now")
        earlier = list(ended).index(wires[0])
        # Nearly all where they are asked in one moment, fewer where that takes a while; none if each had its own time.
        assert earlier >= count / 10, f"{earlier} ended before the first"
        assert ended[wires[0]] + time.monotonic() - began >= sleep_s


@pytest.mark.providers("sqlite")
def test_a_single_poll_keeps_its_time(server, channel):
    began = time.monotonic()
    assert server.get(channel + "?sleep=1").updates == []
    assert time.monotonic() - began >= 1


# --- Memory -------------------------------------------------------------------------------------


@pytest.mark.providers("memory")
def test_requests_that_came_in_part_are_counted(serve):
    raise_descriptors()
    server = serve(BUFFER_SIZE=4, IDLE_TIMEOUT=600, REQUEST_TIMEOUT=600)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(2000)]
        for client in clients:
            client.send(b"GET /a HTTP/1.1\r\nHost: a\r\nX: ")
        for client in clients[1800:]:
            assert client.read_reply().status == 503
        assert server.metric("longline_buffer_bytes") <= 4 * MIB
    server.wait_for_metric("longline_buffer_bytes", 0)
    assert server.push(server.channel())


@pytest.mark.providers("memory")
def test_replies_of_every_kind_that_nobody_reads_are_counted(serve):
    """The pages too: a reply is kept only where there is room for it."""
    raise_descriptors()
    server = serve(BUFFER_SIZE=4, IDLE_TIMEOUT=600, REQUEST_TIMEOUT=600)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client(receive_buffer=4096)) for _ in range(500)]
        worst, replies = 0, 0
        for client in clients:
            client.send(request_bytes("GET", "/-/web/console.js") * 400)

        def is_still():
            nonlocal worst, replies
            metrics = server.metrics()
            worst = max(worst, metrics["longline_buffer_bytes"])
            before, replies = replies, metrics["longline_http_requests_total"]
            return replies == before + 1  # this one

        wait_until(is_still, "the replies that fit")
        assert 3 * MIB < worst <= 4 * MIB, worst
    wait_until(lambda: server.metric("longline_buffer_bytes") < 65536, "what they held to be given back")
