"""Refused pushes: each leaves a line in the log, a counter, and a record that its channel tells."""

import json
import time

import pytest

from http_client import chunked, request_bytes
from longline_server import wait_until
from test_hostile_clients import readable

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
MIB = 1 << 20


def refused(server, channel, headers=None):
    reply = server.get(channel + "/refused", headers)
    assert reply.status == 200, reply
    assert list(reply.json()) == ["ok", "refused"] and reply.json()["ok"] is True
    return reply.json()["refused"]


def count(server, reason):
    return server.metrics().get(f'longline_pushes_refused_total{{reason="{reason}"}}', 0)


def lines(server, reason):
    return [line for line in server.log().splitlines() if "push refused" in line and f"reason={reason}" in line]


def send(server, data, close=False):
    """Sends bytes on a connection of their own, and returns the reply."""
    with server.client() as client:
        client.send(data)
        return client.read_reply()


def check_trace(server, channel, reason, reply, refuse, headers=None):
    """Whether a push that `refuse` sends leaves all three traces. Returns the record."""
    counted, logged = count(server, reason), len(lines(server, reason))
    began_ms = time.time() * 1000
    got = refuse()
    assert (got.status, got.json()["error_description"]) == reply
    assert count(server, reason) == counted + 1
    # There are so many a second, of all tests.
    wait_until(lambda: len(lines(server, reason)) > logged or not refuse(), "a line in the log")
    record = refused(server, channel, headers)[0]
    assert (record["status"], record["reason"], record["error"]) == (reply[0], reason, reply[1])
    assert began_ms - 2 <= record["at"] <= time.time() * 1000 + 2
    return record


# --- What leaves a trace ---

LONG = "x" * 8192
MALFORMED = "Malformed HTTP request"
TOO_LARGE = "The body is larger than MAX_BODY"
HEAD = "The request head is larger than 32768 bytes or has more than 128 fields"

# What is refused before it is whole: reason, status, error, what is sent of `POST …/v1`, the size that is known.
HTTP = {
    "announced": ("body_size", 413, TOO_LARGE, lambda path: request_bytes("POST", path, None, {"Content-Length": 99 * MIB}), 99 * MIB),
    "chunked": (
        "body_size",
        413,
        TOO_LARGE,
        lambda path: request_bytes("PUT", path, None, {"Transfer-Encoding": "chunked"}) + b"fffffff\r\n",
        None,
    ),
    "header": ("malformed_request", 400, MALFORMED, lambda path: request_bytes("POST", path) [:-2] + b" a: b\r\n\r\n", None),
    "chunk": (
        "malformed_request",
        400,
        MALFORMED,
        lambda path: request_bytes("POST", path, None, {"Transfer-Encoding": "chunked"}) + b"5\r\nhellooo\r\n",
        None,
    ),
    "host": ("host", 400, "An HTTP/1.1 request needs exactly one Host header", lambda path: f"POST {path} HTTP/1.1\r\n\r\n".encode(), 0),
    "fields": ("head_size", 431, HEAD, lambda path: request_bytes("POST", path, "{}", {f"X-{n}": "1" for n in range(130)}), None),
    "head": ("head_size", 431, HEAD, lambda path: request_bytes("POST", path, "{}", {"X": "x" * 40000}), None),
    "target": (
        "target_size",
        414,
        "The request target is longer than 8192 bytes",
        lambda path: request_bytes("POST", f"{path}?{LONG}", "{}"),
        None,
    ),
    "expectation": (
        "expect",
        417,
        "The only expectation taken is 100-continue",
        lambda path: request_bytes("POST", path, "{}", {"Expect": "200-ok"}),
        2,
    ),
    "coding": (
        "transfer_encoding",
        501,
        "The only transfer encoding taken is chunked",
        lambda path: request_bytes("POST", path, None, {"Transfer-Encoding": "gzip"}),
        None,
    ),
    "version": ("version", 505, "HTTP/1.1 or HTTP/1.0 is expected", lambda path: request_bytes("POST", path, "{}", version="HTTP/1.2"), None),
}


@pytest.mark.parametrize("piece", [1 << 20, 1000])
@pytest.mark.parametrize("name", HTTP)
def test_what_http_refuses_leaves_a_trace(server, channel, name, piece):
    reason, status, error, data, size = HTTP[name]
    data = data(channel + "/v1")

    def refuse():
        with server.client() as client:
            for start in range(0, len(data), piece):
                client.send(data[start : start + piece])
            return client.read_reply()

    record = check_trace(server, channel, reason, (status, error), refuse)
    assert (record.get("path"), record.get("from"), record.get("size")) == ("/v1", "127.0.0.1", size)
    assert record["method"] == ("PUT" if name == "chunked" else "POST")


@pytest.mark.parametrize("sent", ["head", "body", "chunk"])
def test_what_does_not_arrive_in_time_leaves_a_trace(serve, sent):
    server = serve(REQUEST_TIMEOUT=1)
    channel = server.channel()
    data = {
        "head": f"POST {channel}/v1 HTTP/1.1\r\nX: 1\r\nY".encode(),
        "body": request_bytes("POST", channel + "/v1", None, {"Content-Length": 10}) + b"{",
        "chunk": request_bytes("POST", channel + "/v1", None, {"Transfer-Encoding": "chunked"}) + chunked(b"{", end=b""),
    }[sent]
    record = check_trace(server, channel, "request_timeout", (408, "The request did not arrive in time"), lambda: send(server, data))
    assert (record["path"], record.get("size")) == ("/v1", 10 if sent == "body" else None)


def test_what_there_is_no_room_for_leaves_a_trace(serve):
    server = serve(BUFFER_SIZE=4, MAX_BODY=MIB, REQUEST_TIMEOUT=60)
    channel = server.channel()
    held = []

    def refuse():
        """Uploads that do not end, until there is no room for one more."""
        while True:
            client = server.client()
            held.append(client)
            client.send(request_bytes("POST", channel, None, {"Content-Length": MIB, "Expect": "100-continue"}))
            first = client.read_reply()
            if first.status == 100:
                try:
                    client.send(b"x" * (MIB - 1))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                held_bytes = 0.98 * MIB * len(held)
                wait_until(lambda: readable(client) or server.metric("longline_buffer_bytes") >= held_bytes, "what it sent to be held, or refused")
                if not readable(client):
                    continue
                first = client.read_reply()
            return first

    record = check_trace(server, channel, "busy", (503, "The server has too much under way"), refuse)
    assert (record["method"], record["size"]) == ("POST", MIB)
    for client in held:
        client.close()


def test_a_target_that_is_cut_off_is_nobodys(serve):
    server = serve(REQUEST_TIMEOUT=1)
    channel = server.channel()
    assert send(server, f"POST {channel}".encode()).status == 408
    assert send(server, request_bytes("POST", channel + LONG, "{}")).status == 414
    assert refused(server, channel) == []
    assert count(server, "request_timeout") == count(server, "target_size") == 1
    assert "channel=unknown" in lines(server, "target_size")[0]


def test_what_is_no_push_leaves_no_trace(server, channel):
    before = server.metrics().get("longline_pushes_refused_total", 0)
    send(server, request_bytes("GET", channel, None, {"Content-Length": 99 * MIB}))
    send(server, request_bytes("POST", "/-/health", None, {"Content-Length": 99 * MIB}))
    server.request("DELETE", channel)
    server.get(channel + "?ts=x")
    assert refused(server, channel) == []
    assert server.metrics().get("longline_pushes_refused_total", 0) == before


# What the API refuses: reason, status, error, method, path, headers, body, what the record says of the path and the line.
API = {
    "method": ("method", 405, "This path does not take this method", "POST", "/getUpdates", JSON, "{}"),
    "json": ("json", 400, "Line 2: Malformed JSON payload: an object or an array is expected", "POST", "/v1", NDJSON, '{"a":1}\n{bad\n'),
    "large": ("json", 400, "Malformed JSON payload: an object or an array is expected", "PUT", "/v1", JSON, "x" * 99999),
    "empty": ("batch_empty", 400, "A batch needs a line of JSON: an object or an array", "PATCH", "", NDJSON, "\n"),
    "count": ("batch_count", 413, "A batch has at most 10000 updates", "POST", "", NDJSON, "{}\n" * 10001),
}


@pytest.fixture
def strict(serve):
    return serve(STRICT_JSON="on")


@pytest.mark.parametrize("name", API)
def test_what_is_no_update_leaves_a_trace(strict, name):
    server, channel = strict, strict.channel()
    reason, status, error, method, path, headers, body = API[name]
    record = check_trace(server, channel, reason, (status, error), lambda: server.request(method, channel + path, body, headers))
    assert (record["method"], record.get("path", ""), record["size"]) == (method, path, len(body))
    assert record["from"] == "127.0.0.1"


def test_a_large_batch_that_is_refused_leaves_a_trace(strict):
    server, channel = strict, strict.channel()
    body = '{"a":"%s"}\n' % ("x" * 200) * 2000 + "{bad"
    error = "Line 2001: Malformed JSON payload: an object or an array is expected"
    record = check_trace(server, channel, "json", (400, error), lambda: server.post(channel + "/v1", body, NDJSON))
    assert (record["path"], record["size"]) == ("/v1", len(body))


def test_the_rate_limit_leaves_a_trace_of_the_client_behind_a_proxy(serve):
    server = serve(RATE_LIMIT_LIMIT=1, TRUST_PROXY="all")
    channel = server.channel()
    sender, *readers = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(7, 11)]
    server.push(channel, "{}", sender)

    def refuse():
        return server.post(channel, "{}", sender)

    record = check_trace(server, channel, "rate_limit", (429, "Too many requests"), refuse, readers[0])
    assert (record["from"], record["size"]) == ("203.0.113.7", 2)
    for target in ("/pushUpdates?a=1", "?hub.mode=subscribe&hub.challenge=1"):
        server.get(channel + target, sender)
    records = refused(server, channel, readers[1])
    assert [record["method"] for record in records[:3]] == ["GET", "GET", "POST"]
    server.get(channel, sender)
    assert len(refused(server, channel, readers[2])) == len(records), "a poll is no push"


def test_what_the_store_refuses_leaves_a_trace(start, redis):
    server = start(**redis.settings(REDIS_TIMEOUT=3000))
    channel = server.channel()
    server.push(channel)
    redis.stop()
    reply = server.post(channel + "/v1", '{"a":1}', JSON)
    assert reply.status == 503
    record = refused(server, channel)[0]
    assert (record["status"], record["error"]) == (503, reply.json()["error_description"])
    assert record["reason"].startswith("store_") and count(server, record["reason"]) == 1
    assert (record["method"], record["path"], record["from"], record["size"]) == ("POST", "/v1", "127.0.0.1", 7)


# --- What is told ---


def test_the_newest_is_first_and_twenty_are_kept(server, channel):
    for n in range(25):
        server.post(f"{channel}/getUpdates", "x" * n, JSON)
    assert [record["size"] for record in refused(server, channel)] == list(range(24, 4, -1))


def test_every_other_channel_has_an_empty_list(server, channel):
    server.post(channel + "/getUpdates", "{}", JSON)
    server.push(channel + "2")
    for other in (channel + "2", channel + "3", channel[:-1]):
        assert server.get(other + "/refused").text == '{"ok":true,"refused":[]}'


def test_a_refused_push_says_nothing_of_whether_the_channel_exists(server, channel):
    assert server.get(channel).headers["x-total-updates"] == "0"
    server.post(channel + "/getUpdates", "{}", JSON)
    assert len(refused(server, channel)) == 1
    server.push(channel)
    assert len(refused(server, channel)) == 1


def test_a_service_may_push_to_that_path(server, channel):
    for number, method in enumerate(("POST", "PUT", "PATCH"), 1):
        assert server.request(method, channel + "/refused", "{}").total == number
    assert {update["path"] for update in server.get(channel + "?ts=0&view=full").updates} == {"/refused"}
    assert server.request("DELETE", channel + "/refused").status == 405
    assert server.request("OPTIONS", channel + "/refused").status == 204
    head = server.request("HEAD", channel + "/refused")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len('{"ok":true,"refused":[]}')
    assert head.headers["content-type"] == "application/json; charset=utf-8"
    assert head.headers["cache-control"] == "no-store"
    for form in ("/refused/", "//refused", "/refused?ts=x&challenge=y"):
        assert server.get(channel + form).json() == {"ok": True, "refused": []}
    assert len(server.get(channel).updates) == 3


def test_it_counts_toward_the_rate_limit(serve):
    server = serve(RATE_LIMIT_LIMIT=1)
    assert server.get("/c/refused").headers["x-ratelimit-remaining"] == "0"
    assert server.get("/c/refused").status == 429


def test_a_path_is_text_whatever_it_holds(server, channel):
    server.push(channel)
    send(server, b"POST " + channel.encode() + b'/"\\\xff<b>%00 HTTP/1.1\r\n\r\n')
    assert refused(server, channel)[0]["path"] == '/"\\\ufffd<b>%00'
    send(server, b"POST " + channel.encode() + b"/" + b"y" * 500 + b" HTTP/1.1\r\n\r\n")
    assert refused(server, channel)[0]["path"] == "/" + "y" * 127


# --- The log ---


def test_the_log_says_who_without_the_name(serve):
    server = serve(RATE_LIMIT_LIMIT=3, TRUST_PROXY="all", LOG_LEVEL="info")
    server.post("/secret-name/getUpdates", "{}", JSON)
    for _ in range(5):
        server.post("/secret-name", "{}", {"X-Forwarded-For": "203.0.113.7"})
    said = [line for line in server.log().splitlines() if "push refused" in line]
    assert [line.split("reason=")[1] for line in said] == ["method", "rate_limit", "rate_limit"]
    assert len({line.split("channel=")[1].split()[0] for line in said}) == 1
    assert "secret-name" not in server.log()


def test_the_log_has_a_bound(serve):
    server = serve()
    with server.client() as client:
        for _ in range(2000):
            client.request("POST", "/c/getUpdates", b"{}", JSON)
    assert count(server, "method") == 2000
    assert server.log().count("push refused") < 1000
    assert len(json.dumps(refused(server, "/c"))) < 5000
