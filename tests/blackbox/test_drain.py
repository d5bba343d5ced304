"""SIGTERM and SIGINT: the server exits with 0 within five seconds.

Nobody is left waiting, and nothing that was acknowledged is lost.
"""

import contextlib
import signal
import socket
import subprocess
import time

import pytest

from http_client import GONE, Closed, request_bytes
from longline_server import BINARY, PATIENCE_S, SLOW, environment, wait_until
from swarm import Swarm

# It is 5 seconds, and then LeakSanitizer scans the heap. On a busy machine, still less than the minute that those who wait would take.
STOP_S = 50 if SLOW else 6

BOTH_SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def stops(server, number=signal.SIGTERM):
    """Sends the signal and waits for the exit, which must be in time and with 0."""
    began = time.monotonic()
    server.stop(number)
    assert time.monotonic() - began < STOP_S


@BOTH_SIGNALS
def test_parked_polls_get_an_empty_200_and_the_close(serve, number):
    server = serve()
    channels = [server.channel() for _ in range(10)]
    server.push(channels[0], '{"n":1}')
    clients = []
    for channel in channels:
        for _ in range(10):
            client = server.client()
            client.send_request("GET", channel + "?sleep=60" + ("&ts=1" if channel == channels[0] else ""))
            clients.append((channel, client))
    server.wait_for_parked(100)
    stops(server, number)
    for channel, client in clients:
        reply = client.read_reply()
        ts = 1 if channel == channels[0] else 0
        assert reply.status == 200 and reply.closes
        assert reply.json() == {"ok": True, "ts": ts, "updates": []}
        assert client.read_to_end() == b""
        client.close()


@BOTH_SIGNALS
@pytest.mark.providers("redis")
def test_a_signal_during_the_start_ends_it_as_one_later_would(number):
    """It keeps waiting for a Redis that is not there.

    As process 1 of a container it gets no signal that it has no handler for.
    """
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = {"DATA_PROVIDER": "redis", "REDIS_PORT": nobody.getsockname()[1], "REDIS_TIMEOUT": 1000, "LISTEN": "127.0.0.1:0"}
        process = subprocess.Popen([BINARY, "serve"], env=environment(settings), stderr=subprocess.PIPE, text=True)
        try:
            assert "redis away" in process.stderr.readline()
            process.send_signal(number)
            _, log = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0 and "stopping" in log, log


def test_idle_connections_are_closed(serve):
    server = serve()
    clients = [server.client() for _ in range(20)]
    for client in clients:
        assert client.get("/-/health").status == 200
    silent = server.client()
    stops(server)
    for client in [*clients, silent]:
        assert client.read_to_end() == b""
        client.close()


@pytest.mark.parametrize(
    "part",
    [
        b"POST /half-sent-channel HTTP/1.1\r\nHost: x\r\nContent-",
        b"POST /half-sent-channel HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        b"POST /half-sent-channel HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_a_half_sent_request_does_not_keep_it(serve, part):
    server = serve()
    with server.client() as client:
        client.send(part)
        server.wait_for_metric("longline_connections", 2)
        stops(server)
        assert b" 200 " not in client.read_to_end()


@pytest.mark.timed
def test_a_client_that_never_reads_does_not_put_off_its_deadline(serve):
    server = serve()
    channel = server.channel()
    server.push(channel, b'{"x":"%s"}' % (b"y" * 1_000_000))
    with server.client(receive_buffer=8192) as client:
        client.send(request_bytes("GET", channel) * 30)
        server.wait_for_metric("longline_connections", 2)
        stops(server)


def test_pushes_in_flight_are_answered_or_not_taken_for_granted(start):
    """In a storm of pushes: all that were acknowledged are there after the next start, in order."""
    server = start(CHANNEL_STORAGE_MAXSIZE=1_000_000, LOG_LEVEL="info")
    channel = server.channel()
    for _ in range(3):
        acknowledged, open_wires = {}, 20
        total_before = server.get(channel).total

        def closed(_wire):
            nonlocal open_wires
            open_wires -= 1

        with Swarm(server.address) as swarm:
            for writer in range(20):

                def answered(wire, reply, writer=writer):
                    assert reply.status in (200, 503), reply
                    if reply.status == 200:
                        acknowledged[reply.total] = (writer, wire.n)
                    wire.n += 1
                    wire.send(request_bytes("POST", channel, b'{"w":%d,"n":%d}' % (writer, wire.n)))

                wire = swarm.open(answered, closed)
                wire.n = 1
                wire.send(request_bytes("POST", channel, b'{"w":%d,"n":1}' % writer))
            swarm.run(lambda: len(acknowledged) >= 200, PATIENCE_S, "the storm")
            server.send_signal()
            swarm.run(lambda: open_wires == 0, PATIENCE_S, "the drain")
        assert server.wait_for_exit() == 0
        server.start()
        stored = {id_: (u["w"], u["n"]) for id_, u in server.read_all(channel, total_before)}
        assert {id_: stored.get(id_) for id_ in acknowledged} == acknowledged
        # A clean stop answers everything it stored, so nothing is stored that was not acknowledged.
        assert len(stored) == len(acknowledged)


@pytest.mark.providers("sqlite", "redis")  # memory keeps nothing to look at
def test_writers_know_what_became_of_their_pushes(serve):
    """Keep-alive writers that never pause: each got its 200, or a close, and then nothing is stored of it."""
    server = serve(LOG_LEVEL="info")
    channel = server.channel()
    writers = 300 if SLOW else 1000
    acknowledged, unanswered, closing = [], [], []

    with Swarm(server.address) as swarm:
        for writer in range(writers):

            def answered(wire, reply, writer=writer):
                if reply.status == 200:
                    acknowledged.append((writer, wire.n))
                if reply.closes:
                    closing.append(writer)
                    wire.n = None
                    return
                wire.n += 1
                wire.send(request_bytes("POST", channel, b'{"w":%d,"n":%d}' % (writer, wire.n)))

            def closed(wire, writer=writer):
                if wire.n is not None:
                    unanswered.append((writer, wire.n))

            wire = swarm.open(answered, closed)
            wire.n = 1
            wire.send(request_bytes("POST", channel, b'{"w":%d,"n":1}' % writer))
        swarm.run(lambda: len(acknowledged) >= 2 * writers, PATIENCE_S, "the load")
        server.send_signal()
        swarm.run(lambda: len(closing) + len(unanswered) == writers, PATIENCE_S, "the drain")
    assert server.wait_for_exit() == 0
    server.start()
    with server.client() as client:
        total = client.get(channel + "?ts=-1").total
    assert total == len(acknowledged), f"{total - len(acknowledged)} stored without their 200"
    # The server waits for the next request of each for a moment, which may be too short for so many writers on a busy machine.
    assert closing, f"{len(unanswered)} of {writers} were closed without a reply"


def ask_as_it_stops(server, method, target, body=None):
    """The reply to a request on a connection that it knows, sent right after the signal.

    It waits for one for a moment, which is too short now and then where others have the processor.
    """
    for _ in range(10):
        with server.client() as client:
            client.get("/-/health")
            log_start = len(server.log())
            server.send_signal()
            wait_until(lambda: "stopping" in server.log(log_start), "the drain")
            with contextlib.suppress(*GONE):
                reply = client.request(method, target, body)
                assert client.read_to_end() == b"" and server.wait_for_exit() == 0
                return reply
        assert server.wait_for_exit() == 0
        server.start()
    pytest.fail("it never waits")


def test_a_request_that_comes_after_the_signal_is_answered(serve):
    server = serve()
    reply = ask_as_it_stops(server, "POST", server.channel(), b"{}")
    assert (reply.status, reply.total) == (200, 1) and reply.closes


def test_a_push_sent_right_before_the_signal_is_acknowledged_or_refused(start):
    server = start()
    channel = server.channel()
    known = 0
    for i in range(5):
        with server.client() as client:
            client.send(request_bytes("POST", channel, b'{"i":%d}' % i))
            server.send_signal()
            try:
                reply = client.read_reply()
                acknowledged = reply.status == 200
            except Closed:
                acknowledged = False
            assert server.wait_for_exit() == 0
        server.start()
        total = server.get(channel).total
        assert total >= known + acknowledged
        known = total


def test_a_push_that_wakes_a_poll_during_the_drain_loses_no_one(start):
    """With or without an update in its answer, the poll's ts leads to the rest afterwards."""
    server = start()
    channel = server.channel()
    with server.client() as poller, server.client() as pusher:
        poller.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        pusher.send(request_bytes("POST", channel, b'{"n":1}'))
        server.send_signal()
        answer = poller.read_reply().json()
        assert server.wait_for_exit() == 0
        try:
            acknowledged = pusher.read_reply().status == 200
        except Closed:
            acknowledged = False
    server.start()
    seen = answer["updates"] + server.get(f"{channel}?ts={answer['ts']}").updates
    assert seen == [{"n": 1}] or (not acknowledged and seen == [])


def test_no_new_connection_is_taken_after_the_stop(serve):
    server = serve()
    address = server.address
    stops(server)
    with pytest.raises(ConnectionRefusedError):
        server.client(address=address)


def test_a_second_signal_does_no_harm(serve):
    server = serve()
    clients = [server.client() for _ in range(50)]
    for client in clients:
        client.send_request("GET", server.channel() + "?sleep=60")
    server.wait_for_parked(50)
    server.send_signal()
    server.send_signal()
    server.send_signal(signal.SIGINT)
    assert server.wait_for_exit() == 0
    for client in clients:
        assert client.read_reply().status == 200
        client.close()


def test_sigpipe_does_not_end_it(serve):
    server = serve()
    server.send_signal(signal.SIGPIPE)
    assert server.get("/-/health").status == 200
