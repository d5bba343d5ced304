"""Requests that arrive while an earlier one waits: none is lost, doubled or mangled."""

import json
import threading

from http_client import request_bytes
from longline_server import wait_until


def test_many_requests_behind_a_parked_poll_are_all_answered(server, channel):
    """More than the server reads ahead: it stops reading, and later goes on in mid-request."""
    count = 1500
    server.push(channel)
    request = request_bytes("GET", channel, None, {"X-Padding": "a" * 80})
    with server.client() as client:
        client.send(request_bytes("GET", channel + "?ts=1&sleep=1") + request * count)
        for _ in range(count + 1):
            assert client.read_reply().status == 200


def test_a_request_that_dribbles_in_behind_a_poll_while_that_is_answered(server):
    """The second request arrives before, during and after the reply to the first."""
    body = json.dumps({"k": "x" * 3000})
    for _ in range(40):
        polled, pushed = server.channel(), server.channel()
        request = request_bytes("POST", pushed, body)
        parked = server.metric("longline_polls_parked")
        with server.client() as client:
            client.send(request_bytes("GET", polled + "?sleep=20") + request[:20])
            wait_until(lambda: server.metric("longline_polls_parked") == parked + 1, "the poll to be parked")
            push = threading.Thread(target=server.push, args=(polled,))
            push.start()
            for at in range(20, len(request)):
                client.send(request[at : at + 1])
            push.join()
            assert client.read_reply().status == 200
            assert client.read_reply().text == "OK"
        assert server.get(pushed).updates == [json.loads(body)]


def test_a_member_repeated_many_times_does_not_multiply_the_query(server, channel):
    body = "{" + ",".join(['"a":1'] * 10000) + "}"
    reply = server.post(channel + "?a=" + "%01" * 2000, body)
    assert reply.status == 413
    assert server.get(channel).updates == []


def test_what_lies_behind_a_large_push_that_there_is_no_room_for_is_served(serve):
    """The push takes the connection's buffer, in which the later requests lie, and is refused."""
    server = serve(BUFFER_SIZE=4, REQUEST_TIMEOUT=60)
    polled, pushed = server.channel(), server.channel()
    held = [server.client() for _ in range(34)]
    for client in held:  # uploads that do not end: less is left than the buffer and twice the push
        client.send(request_bytes("POST", pushed, None, {"Content-Length": 90_000}) + b"y" * 80_000)
    wait_until(lambda: server.metric("longline_buffer_bytes") >= 34 * 90_000, "the uploads to be read")
    taken = server.metric("longline_buffer_bytes")
    push = request_bytes("POST", pushed, json.dumps({"x": "y" * 80_000}))
    with server.client() as client:
        client.send(request_bytes("GET", polled + "?ts=0&sleep=60"))
        server.wait_for_parked(1)
        client.send(push[:30_000])
        wait_until(lambda: server.metric("longline_buffer_bytes") >= taken + 30_000, "a part of the push to be read")
        client.send(push[30_000:] + request_bytes("GET", polled + "?ts=0") * 4)
        wait_until(lambda: server.metric("longline_buffer_bytes") >= taken + len(push), "the rest to be read")
        server.push(polled)
        assert [client.read_reply().status for _ in range(6)] == [200, 503, 200, 200, 200, 200]
    for client in held:
        client.close()
    server.wait_for_metric("longline_buffer_bytes", 0)
    assert server.get(pushed).updates == []
