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
