"""Slow, greedy, silent and countless clients: the cost of each is bounded, others are served."""

import json
import random
import select
import socket
import time

import pytest

from http_client import TIMEOUT_S, Closed, connect, request_bytes, take_reply
from longline_server import PATIENCE_S, SLOW, wait_until

MIB = 1 << 20

# The store has no part in what a client may cost.
pytestmark = pytest.mark.providers("sqlite", "memory")


def fill_with_a_mebibyte(server):
    """A channel whose only page has about a mebibyte."""
    channel = server.channel()
    server.push(channel, json.dumps({"x": "y" * (MIB - 100)}))
    return channel


def readable(sock):
    return bool(select.select([sock], [], [], 0)[0])


# --- slow ---


def test_a_byte_at_a_time_client_is_served(server, channel):
    requests = request_bytes("POST", channel + "?q=1", '{"a":"é"}', {"Content-Type": "application/json", "X-Y": "z"})
    requests += request_bytes("POST", channel, b"7\r\n[1,2,3]\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"})
    requests += request_bytes("GET", channel + "?ts=0&view=full")
    with server.client() as client:
        for i in range(len(requests)):
            client.send(requests[i : i + 1])
        assert client.read_reply().total == 1
        assert client.read_reply().total == 2
        assert [item["body"] for item in client.read_reply().updates] == [{"a": "é", "q": "1"}, [1, 2, 3]]


def test_requests_cut_at_random_places_are_served(server, channel):
    rng = random.Random(7)
    count = 200
    stream = b"".join(
        request_bytes("POST", channel, b'{"n":%d,"x":"%s"}' % (n, b"y" * rng.randint(0, 300))) for n in range(1, count + 1)
    )
    with server.client() as client:
        at = 0
        while at < len(stream):
            size = rng.choice((1, 2, 3, 10, 100, 1000))
            client.send(stream[at : at + size])
            at += size
        assert [client.read_reply().total for _ in range(count)] == list(range(1, count + 1))


@pytest.mark.parametrize(
    "part",
    [
        b"G",
        b"GET /x HTTP/1.1\r\nHost: x\r\nX-",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_a_request_that_is_never_finished_is_408(serve, part):
    server = serve(REQUEST_TIMEOUT=1)
    with server.client() as client:
        began = time.monotonic()
        client.send(part)
        reply = client.read_reply()
        assert 0.9 <= time.monotonic() - began < PATIENCE_S
        assert reply.status == 408 and reply.json()["error_code"] == 408 and reply.closes
        assert client.read_to_end() == b""


def test_dripping_does_not_put_the_deadline_off(serve):
    """Slowloris: a few bytes now and then do not help, since the whole request has one deadline."""
    server = serve(REQUEST_TIMEOUT=2)
    clients = [server.client() for _ in range(20)]
    began = time.monotonic()
    for client in clients:
        client.send(b"GET /slow-slow-slow HTTP/1.1\r\nHost: x\r\n")
    while not all(readable(client) for client in clients):
        assert time.monotonic() - began < PATIENCE_S
        for client in clients:
            if not readable(client):
                client.send(b"X-Drip: drop\r\n")
        select.select([], [], [], 0.1)
    for client in clients:
        assert client.read_reply().status == 408
        client.close()
    assert server.get("/-/health").status == 200


def test_the_second_request_of_a_connection_has_a_deadline_too(serve):
    server = serve(REQUEST_TIMEOUT=1)
    with server.client() as client:
        assert client.get(server.channel()).status == 200
        client.send(b"GET /half")
        assert client.read_reply().status == 408


def test_a_connection_that_says_nothing_is_closed_without_a_word(serve, clock):
    server = serve(IDLE_TIMEOUT=20, **clock.settings)
    with server.client() as silent, server.client() as idle:
        assert idle.get(server.channel()).status == 200
        server.wait_for_metric("longline_connections", 3)
        clock.forward(server, 21)
        assert silent.read_to_end() == b""
        assert idle.read_to_end() == b""
    server.wait_for_metric("longline_connections", 1)


# --- pipelines ---


def exchange(client, data, count):
    """Sends all of `data` while reading `count` replies, so that neither side blocks the other."""
    client.sock.setblocking(False)
    replies, buffer, view = [], bytearray(), memoryview(data)
    deadline = time.monotonic() + TIMEOUT_S
    while len(replies) < count:
        assert time.monotonic() < deadline, f"{len(replies)} of {count} replies"
        can_read, can_write, _ = select.select([client], [client] if view else [], [], 1)
        if can_write:
            view = view[client.sock.send(view[:65536]) :]
        if can_read:
            more = client.sock.recv(262144)
            assert more, f"closed after {len(replies)} replies"
            buffer += more
            while reply := take_reply(buffer):
                replies.append(reply)
    client.sock.settimeout(TIMEOUT_S)
    return replies


def test_1000_pipelined_requests_are_answered_in_order(server, channel):
    data = b""
    for n in range(1, 501):
        data += request_bytes("POST", channel + f"?n={n}", b'{"x":"%s"}' % (b"y" * 200))
        data += request_bytes("GET", f"{channel}?ts={n - 1}&limit=1")
    with server.client() as client:
        replies = exchange(client, data, 1000)
    for n in range(1, 501):
        pushed, polled = replies[2 * n - 2], replies[2 * n - 1]
        assert pushed.total == n
        assert [update["n"] for update in polled.updates] == [str(n)]


def test_1000_pipelined_polls_of_a_mebibyte_do_not_pile_up(serve):
    """Nobody reads the gigabyte that was asked for, and the server must not hold it in memory."""
    server = serve()
    channel = fill_with_a_mebibyte(server)
    memory = server.rss_bytes()
    with server.client(receive_buffer=65536) as client:
        client.send(request_bytes("GET", channel) * 1000)
        worst_buffer = max(server.metric("longline_buffer_bytes") for _ in range(50))
        worst_memory = server.rss_bytes() - memory
        assert worst_buffer <= 8 * MIB
        if not SLOW:
            assert worst_memory <= 16 * MIB
        for _ in range(20):
            assert len(client.read_reply().body) > MIB - 200


# --- never reading ---


def test_clients_that_never_read_are_bounded_and_dropped(serve):
    buffer_mib = 8
    # REQUEST_TIMEOUT drops those whose replies are stuck, IDLE_TIMEOUT those without a buffer.
    server = serve(BUFFER_SIZE=buffer_mib, REQUEST_TIMEOUT=2, IDLE_TIMEOUT=2)
    channel = fill_with_a_mebibyte(server)
    quick = server.channel()
    server.push(quick, "{}")
    memory = server.rss_bytes()
    clients = [server.client(receive_buffer=8192) for _ in range(40)]
    for client in clients:
        client.send(request_bytes("GET", channel) * 30)
    worst_buffer = 0

    def dropped():
        nonlocal worst_buffer
        reply = server.get(quick)
        assert reply.status in (200, 503)
        metrics = server.metrics()
        worst_buffer = max(worst_buffer, metrics["longline_buffer_bytes"])
        return metrics["longline_connections"] == 1

    wait_until(dropped, "the connections to be dropped")
    assert worst_buffer <= (buffer_mib + 2) * MIB
    if not SLOW:
        assert server.rss_bytes() - memory <= (buffer_mib + 24) * MIB
    for client in clients:
        client.close()
    assert server.get(quick).updates == [{}]
    wait_until(lambda: server.metric("longline_buffer_bytes") < MIB, "the buffers to be given back")


@pytest.mark.timed
def test_a_slow_reader_that_reads_is_not_dropped(serve):
    """REQUEST_TIMEOUT limits how long there is no progress at all. A slow line is fine."""
    server = serve(REQUEST_TIMEOUT=1)
    channel = fill_with_a_mebibyte(server)
    count = 12
    with server.client(receive_buffer=65536) as client:
        client.send(request_bytes("GET", channel) * count)
        buffer, replies, began = bytearray(), 0, time.monotonic()
        while replies < count:
            # At first so slowly that the kernel, which takes more only when a third of its buffer is free, takes none for a second.
            is_slow = time.monotonic() - began < 3
            if is_slow:
                select.select([], [], [], 0.05)
            more = client.sock.recv(16384 if is_slow else MIB)
            assert more, f"dropped after {time.monotonic() - began:.1f} s, {replies} replies"
            buffer += more
            while take_reply(buffer):
                replies += 1
        assert time.monotonic() - began > 2


def test_bodies_beyond_the_buffers_get_503_and_the_rest_is_served(serve):
    """Many half-sent bodies: what exceeds BUFFER_SIZE is refused at once instead of waiting."""
    server = serve(BUFFER_SIZE=4, REQUEST_TIMEOUT=30)
    body = b"x" * (MIB - 1)
    clients = [server.client() for _ in range(12)]
    for client in clients:
        client.sock.settimeout(PATIENCE_S)
        try:
            client.send(request_bytes("POST", "/half-sent-bodies", None, {"Content-Length": str(MIB)}) + body)
        except (BrokenPipeError, ConnectionResetError, socket.timeout):
            pass
    assert server.metric("longline_buffer_bytes") <= 5 * MIB
    wait_until(lambda: sum(map(readable, clients)) >= 12 - 5, "the refusals")
    for client in clients:
        if readable(client):
            reply = client.read_reply()
            assert reply.status == 503 and int(reply.headers["retry-after"]) >= 1
    for client in clients:
        client.close()
    wait_until(lambda: server.metric("longline_buffer_bytes") < MIB, "the buffers to be given back")
    assert server.push(server.channel(), body[:1000], {"Content-Type": "text/plain"}) == 1


# --- countless ---

def answered_now(client):
    """Whether this client's pending request has its reply."""
    return readable(client) and client.read_reply().status == 200


def crowd(server, count):
    """`count` connections with a request each. The kernel accepts them; the server may not."""
    clients = []
    for _ in range(count):
        client = server.client()
        try:
            client.send_request("GET", "/-/health")
        except (BrokenPipeError, ConnectionResetError):
            pass
        clients.append(client)
    return clients


def accept_pauses_and_goes_on(server, clients):
    """Some of the crowd get no descriptor. They are served as soon as others leave."""
    served = []

    def all_that_can_be_served():
        served.extend(client for client in clients if client not in served and answered_now(client))
        return len(served) >= 3

    wait_until(all_that_can_be_served, "the first to be served")
    before, began = server.cpu_seconds(), time.monotonic()
    select.select([], [], [], 1)
    all_that_can_be_served()
    cpu_s = server.cpu_seconds() - before
    assert cpu_s < (0.2 if SLOW else 0.05) * (time.monotonic() - began), "it spins while it has no descriptor"
    waiting = [client for client in clients if client not in served]
    assert waiting, "everyone was served: this test tests nothing"
    # Those that were served before still are.
    assert served[0].get("/-/health").status == 200
    while waiting:
        gone = [served.pop() for _ in range(min(len(served), 5))]
        assert gone
        for client in gone:
            client.close()
        newly = wait_until(lambda: [client for client in waiting if answered_now(client)], "the next to be served")
        served += newly
        waiting = [client for client in waiting if client not in newly]
    for client in served:
        client.close()
    assert server.get("/-/health").status == 200


def test_no_descriptor_left_from_the_start(start):
    server = start(descriptors=64)
    accept_pauses_and_goes_on(server, crowd(server, 100))


def test_max_connections_is_kept_to(start):
    server = start(MAX_CONNECTIONS=10)
    accept_pauses_and_goes_on(server, crowd(server, 30))


def test_pushes_are_stored_while_there_is_no_descriptor_for_more(start):
    server = start(MAX_CONNECTIONS=5)
    channel = server.channel()
    with server.client() as working:
        assert working.post(channel).total == 1
        clients = crowd(server, 20)
        for i in range(2, 50):
            assert working.post(channel).total == i
        for client in clients:
            client.close()
    assert server.get(channel).total == 49


def test_connections_that_come_and_go_leave_nothing(server):
    def churn():
        for n in range(300):
            sock = connect(server.address)
            if n % 3 == 0:
                sock.send(b"GET /half HTTP/1.1\r\n")
            elif n % 3 == 1:
                sock.send(request_bytes("GET", "/come-and-go?sleep=60"))
            sock.close()
        server.wait_for_metric("longline_connections", 1)
        server.wait_for_parked(0)

    churn()
    descriptors = server.descriptor_count()
    churn()
    assert server.descriptor_count() <= descriptors


def test_the_suite_sees_a_client_that_was_dropped(server):
    with server.client() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read_reply()
        with pytest.raises(Closed):
            client.read_reply()
