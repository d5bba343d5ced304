"""view=full: the request as it came, so that signatures can be checked."""

import base64
import hashlib
import hmac
import json
import time

import pytest

from http_client import request_bytes

JSON = {"Content-Type": "application/json"}
LEFT_OUT = [
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Upgrade",
    "Cookie",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Proxy-Anything",
]


def full_view(server, channel):
    (item,) = server.get(f"{channel}?ts=-1&view=full").updates
    return item


def test_an_item_has_everything(server, channel):
    before = int(time.time() * 1000)
    server.push(channel + "?a=1&b=%20x+y", '{"z": 1.10}', {**JSON, "X-GitHub-Event": "push"})
    after = int(time.time() * 1000)
    item = full_view(server, channel)
    assert item.keys() == {"ts", "at", "method", "from", "query", "headers", "body", "raw"}
    assert item["ts"] == 1
    assert isinstance(item["at"], int) and before - 2 <= item["at"] <= after + 2
    assert item["method"] == "POST"
    assert item["query"] == "a=1&b=%20x+y"
    assert item["body"] == {"z": 1.10, "a": "1", "b": " x y"}
    assert item["raw"] == '{"z": 1.10}'
    assert item["headers"]["content-type"] == "application/json"
    assert item["headers"]["x-github-event"] == "push"
    assert item["headers"]["host"] == "longline.test"


def test_the_envelope_is_as_ever(server, channel):
    for i in range(4):
        server.push(channel, json.dumps({"i": i}))
    reply = server.get(channel + "?ts=1&limit=2&view=full")
    assert reply.json().keys() == {"ok", "ts", "updates"}
    assert [(u["ts"], u["body"]["i"], u["query"]) for u in reply.updates] == [(2, 1, ""), (3, 2, "")]
    assert (reply.ts, reply.total) == (3, 4)
    assert server.get(channel + "?ts=9&view=full").json() == {"ok": True, "ts": 4, "updates": [], "reset": True}
    assert server.get(channel + "?view=").updates == [{"i": i} for i in range(4)]


@pytest.mark.parametrize("view", ["x", "FULL", "full2", "%00"])
def test_another_view_is_400(server, channel, view):
    assert server.get(f"{channel}?view={view}").status == 400


def test_body_is_the_update_byte_for_byte(server, channel):
    body = '{ "id":12345678901234567890,"n":1.10 , "e":"\\u00e9" }'
    server.push(channel, body)
    text = server.get(channel + "?view=full").text
    assert f'"body":{body}' in text


@pytest.mark.parametrize(
    "body",
    [
        '{"a": 1,\n\t"é": "\\u00e9😀"}',
        "a=1&b=x+y%21",
        "plain \x00\x01\x1f\"\\ text é",
        "",
        "\ufeff{}",
        "[1, 2]",
    ],
)
def test_raw_is_the_exact_text(server, channel, body):
    server.push(channel + "?q=1", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert full_view(server, channel)["raw"] == body


def test_raw_base64_is_the_exact_bytes(server, channel):
    body = bytes(range(256))
    server.push(channel, body, {"Content-Type": "application/octet-stream"})
    item = full_view(server, channel)
    assert "raw" not in item
    assert base64.b64decode(item["raw_base64"], validate=True) == body


def test_a_github_signature_can_be_checked(server, channel):
    secret = b"It's a Secret to Everybody"
    body = '{"action": "opened",  "number": 12345678901234567890, "title": "\\u00e9 é"}'.encode()
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    server.push(channel + "?hook=1", body, {**JSON, "X-Hub-Signature-256": signature, "X-GitHub-Event": "issues"})
    item = full_view(server, channel)
    expected = "sha256=" + hmac.new(secret, item["raw"].encode(), hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, item["headers"]["x-hub-signature-256"])


def test_a_stripe_signature_over_a_merged_update_can_be_checked(server, channel):
    secret, at, body = b"whsec_test", "1700000000", b'{"id":"evt_1","amount":10.00}'
    v1 = hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
    server.push(channel + "?id=mine", body, {**JSON, "Stripe-Signature": f"t={at},v1={v1}"})
    item = full_view(server, channel)
    assert item["body"]["id"] == "mine"
    fields = dict(part.split("=", 1) for part in item["headers"]["stripe-signature"].split(","))
    signed = fields["t"].encode() + b"." + item["raw"].encode()
    assert hmac.new(secret, signed, hashlib.sha256).hexdigest() == fields["v1"]


def test_hop_by_hop_and_secret_headers_are_left_out(server, channel):
    headers = {name: "keep-alive" if name == "Connection" else "leave-me-out" for name in LEFT_OUT}
    del headers["Upgrade"], headers["Trailer"], headers["TE"]
    server.push(channel, "{}", {**headers, "X-Kept": "yes"})
    kept = full_view(server, channel)["headers"]
    assert kept["x-kept"] == "yes"
    assert not {name.lower() for name in LEFT_OUT} & kept.keys()
    assert "leave-me-out" not in json.dumps(kept)


def test_transfer_encoding_is_left_out(server, channel):
    with server.client() as client:
        client.send(
            b"POST %s HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n" % channel.encode()
        )
        assert client.read_reply().status == 200
    item = full_view(server, channel)
    assert not {"te", "trailer", "transfer-encoding"} & item["headers"].keys()
    assert item["raw"] == "{}"


def test_repeated_headers_are_joined(server, channel):
    raw = request_bytes("POST", channel, b"{}").replace(b"\r\n", b"\r\nX-Many: one\r\nx-many: two\r\n", 1)
    with server.client() as client:
        client.send(raw)
        assert client.read_reply().status == 200
    assert full_view(server, channel)["headers"]["x-many"] == "one, two"


def test_header_values_that_are_not_utf8_are_latin1(server, channel):
    raw = request_bytes("POST", channel, b"{}").replace(
        b"\r\n", b"\r\nX-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nX-Quote: a\"b\\c\td\r\n", 1
    )
    with server.client() as client:
        client.send(raw)
        assert client.read_reply().status == 200
    headers = full_view(server, channel)["headers"]
    assert headers["x-latin"] == "café"
    assert headers["x-utf"] == "café"
    assert headers["x-quote"] == 'a"b\\c\td'


def test_at_most_8_kib_of_headers_are_kept(server, channel):
    headers = {f"X-Filler-{i}": "v" * 1000 for i in range(20)}
    server.push(channel, "{}", headers)
    kept = full_view(server, channel)["headers"]
    filler = [name for name in kept if name.startswith("x-filler")]
    assert 6 <= len(filler) <= 8
    assert all(kept[name] == "v" * 1000 for name in filler), "a field is kept whole or not at all"


def test_capture_headers_off_keeps_none(serve):
    server = serve(CAPTURE_HEADERS="off")
    channel = server.channel()
    server.push(channel + "?a=1", '{"b": 2}', {"X-Secret": "do-not-keep"})
    item = full_view(server, channel)
    assert item["headers"] == {}
    assert (item["raw"], item["query"]) == ('{"b": 2}', "a=1")


def test_a_parked_poll_gets_the_view_that_it_asked_for(server, channel):
    with server.client() as plain, server.client() as full:
        plain.send_request("GET", channel + "?sleep=60")
        full.send_request("GET", channel + "?sleep=60&view=full")
        server.wait_for_parked(2)
        server.push(channel + "?q=1", '{"a": 1}', {"X-Event": "e"})
        assert plain.read_reply().updates == [{"a": 1, "q": "1"}]
        (item,) = full.read_reply().updates
    assert (item["ts"], item["body"], item["raw"]) == (1, {"a": 1, "q": "1"}, '{"a": 1}')
    assert item["headers"]["x-event"] == "e"


def test_the_full_view_outlives_a_restart(start):
    server = start()
    channel = server.channel()
    bodies = [b'{"a": 1}', b"a=1&b=%20", b"\xff\x00", b""]
    for body in bodies:
        server.push(channel + "?q=1", body, {"Content-Type": "application/x-www-form-urlencoded", "X-E": "caf\xe9"})
    before = server.get(channel + "?view=full").text
    server.restart()
    assert server.get(channel + "?view=full").text == before
