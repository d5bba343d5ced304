"""HTTP/1.1 itself: methods, headers, versions, keep-alive, pipelining, bodies in pieces, errors."""

import json

import pytest

from http_client import Closed, chunked, request_bytes

JSON = {"Content-Type": "application/json"}


def raw_reply(server, data, closed=None):
    """Sends bytes on a new connection. Returns the only reply; checks if the connection closes."""
    with server.client() as client:
        client.send(data)
        reply = client.read_reply()
        if closed:
            assert reply.closes, reply
            assert client.read_to_end() == b""
        elif closed is False:
            assert not reply.closes, reply
            assert client.get("/-/health").status == 200
        return reply


def is_error(reply, status):
    """Checks that it is the JSON error of this status, with the fields that every error has."""
    error = reply.json()
    assert error.keys() == {"ok", "error_code", "error_description"}
    assert error["ok"] is False and error["error_description"]
    assert reply.headers["content-type"].startswith("application/json")
    return (reply.status, error["error_code"]) == (status, status)


# --- every reply ---


@pytest.mark.parametrize(
    "method,target",
    [
        ("GET", "/CHANNEL"),
        ("POST", "/CHANNEL"),
        ("GET", "/CHANNEL?ts=abc"),
        ("PUT", "/CHANNEL"),
        ("GET", "/CHANNEL/other"),
        ("OPTIONS", "/CHANNEL"),
        ("HEAD", "/CHANNEL"),
        ("GET", "/-/health"),
        ("GET", "/-/nope"),
    ],
)
def test_every_reply_may_be_read_by_any_page_and_is_kept_by_no_cache(server, channel, method, target):
    reply = server.request(method, target.replace("/CHANNEL", channel))
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "x-total-updates" in reply.headers["access-control-expose-headers"].lower()
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_malformed_requests_get_those_headers_too(server):
    reply = raw_reply(server, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", closed=True)
    assert is_error(reply, 400)
    assert reply.headers["access-control-allow-origin"] == "*"


# --- methods ---


def test_options_answers_a_preflight_and_stores_nothing(server, channel):
    preflight = {
        "Origin": "https://example.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-custom",
    }
    for target in (channel, channel + "/pushUpdates", channel + "/getUpdates?ts=1"):
        reply = server.request("OPTIONS", target, headers=preflight)
        assert reply.status == 204 and reply.body == b""
        allowed = {m.strip() for m in reply.headers["access-control-allow-methods"].split(",")}
        assert allowed >= ({"POST"} if "push" in target else {"GET"} if "get" in target else {"GET", "POST"})
        assert reply.headers["access-control-allow-headers"]
        assert int(reply.headers["access-control-max-age"]) > 0
    assert server.get(channel).total == 0


def test_head_is_get_without_the_body_and_without_waiting(server, channel):
    server.push(channel, '{"a":1}')
    for query in ("", "?ts=1&sleep=60", "?ts=0", "?view=full", "?ts=9"):
        head = server.request("HEAD", channel + query)
        get = server.get(channel + query.replace("&sleep=60", ""))
        assert (head.status, head.body, head.total) == (200, b"", 1)
        assert head.headers["content-length"] == str(len(get.body))
        assert head.headers["content-type"] == get.headers["content-type"]
    assert server.request("HEAD", channel + "?ts=abc").status == 400
    assert server.request("HEAD", "/nope/nope").status == 404
    assert server.get("/-/health").status == 200, "the connection is still in step"


@pytest.mark.parametrize("method", ["TRACE", "LINK", "PROPFIND"])
def test_other_methods_on_a_channel_are_405(server, channel, method):
    for target in (channel, channel + "/pushUpdates", channel + "/getUpdates"):
        reply = server.request(method, target, "{}", JSON)
        assert is_error(reply, 405) and not reply.closes
        allowed = {m.strip() for m in reply.headers["allow"].split(",")}
        if target == channel:
            assert allowed == {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    assert server.get(channel).total == 0


def test_only_a_channel_itself_takes_delete(server, channel):
    for target in (channel + "/pushUpdates", channel + "/getUpdates", channel + "/consumers", channel + "/x"):
        reply = server.request("DELETE", target, "{}", JSON)
        assert is_error(reply, 405) and not reply.closes
        assert "DELETE" not in reply.headers["allow"]


@pytest.mark.parametrize("target", ["/", "/-/health", "/-/metrics", "/robots.txt"])
def test_reserved_paths_take_no_updates(server, target):
    before = server.metric("longline_pushes_total")
    reply = server.post(target, "{}", JSON)
    assert reply.status in (404, 405) and is_error(reply, reply.status)
    assert reply.status == 404 or "GET" in reply.headers["allow"]
    assert server.metric("longline_pushes_total") == before


def test_a_method_that_no_one_knows_is_refused(server):
    reply = raw_reply(server, b"BREWCOFFEE / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status in (400, 405, 501) and is_error(reply, reply.status)


# --- paths ---


@pytest.mark.parametrize("path", ["/NAME/other", "/NAME/pushUpdates/x", "/NAME/getupdates", "/a/b/c", "/-/", "/-/nope"])
def test_a_get_of_any_other_path_is_404(server, channel, path):
    reply = server.get(path.replace("/NAME", channel))
    assert is_error(reply, 404) and not reply.closes
    assert server.get(channel).total == 0


def test_a_name_is_compared_after_percent_decoding(server, channel):
    first = f"%{ord(channel[1]):02X}"
    assert server.push(channel, '{"n":1}') == 1
    assert server.push("/" + first + channel[2:], '{"n":2}') == 2
    assert server.push("/" + first.lower() + channel[2:], '{"n":3}') == 3
    assert server.push(channel + "%20x", '{"n":4}') == 1


@pytest.mark.parametrize("name", ["%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82-0123", "bot123:ABC-def_~.!$'()*,;=@", "%25%3F%23%22%5C%3C"])
def test_a_name_may_hold_any_other_character(server, name):
    assert server.push("/" + name + "?m=1", "{}") == 1
    assert server.get("/" + name).updates == [{"m": "1"}]


def test_a_name_of_256_bytes_is_the_longest(server):
    assert server.push("/" + "n" * 256) == 1
    assert server.push("/" + "%6E" * 256) == 2
    for name in ("n" * 257, "%6E" * 257):
        assert is_error(server.post("/" + name, "{}"), 400)
        assert is_error(server.get("/" + name), 400)


@pytest.mark.parametrize("name", ["abc%", "abc%z", "abc%zz", "abc%4", "abc%00", "abc%0a", "abc%1F", "abc%7F"])
def test_a_broken_name_is_400(server, name):
    for method in ("GET", "POST"):
        reply = server.request(method, "/" + name)
        assert is_error(reply, 400) and not reply.closes


def test_an_encoded_slash_is_no_way_into_a_name(server):
    assert server.get("/abc%2Fdef").status in (400, 404)
    assert server.get("/%2D/health").status in (200, 404)


def test_an_absolute_target_is_refused_or_understood(server, channel):
    server.push(channel, '{"a":1}')
    reply = raw_reply(server, request_bytes("GET", f"http://longline.test{channel}"))
    assert reply.status in (400, 404) or reply.updates == [{"a": 1}]


# --- limits ---


def test_a_target_of_8192_bytes_is_the_longest(server, channel):
    target = channel + "?x="
    longest = target + "y" * (8192 - len(target))
    assert raw_reply(server, request_bytes("GET", longest), closed=False).status == 200
    assert is_error(raw_reply(server, request_bytes("GET", longest + "y"), closed=True), 414)
    assert is_error(raw_reply(server, request_bytes("GET", target + "y" * 20_000), closed=True), 414)


def test_128_header_fields_are_the_most(server, channel):
    fields = {f"X-{i}": "v" for i in range(126)}
    assert raw_reply(server, request_bytes("POST", channel, b"{}", fields), closed=False).status == 200
    fields["X-One-More"] = "v"
    assert is_error(raw_reply(server, request_bytes("POST", channel, b"{}", fields), closed=True), 431)


def test_a_head_over_32768_bytes_is_431(server, channel):
    for size, status in ((32_000, 200), (33_000, 431)):
        filler = {f"X-{i}": "v" * 3000 for i in range(10)}
        request = request_bytes("POST", channel, b"", filler)
        request = request_bytes("POST", channel, b"", {**filler, "X-Rest": "v" * (size - len(request) - 10)})
        assert len(request) == size
        reply = raw_reply(server, request, closed=status != 200)
        assert reply.status == status and (status == 200 or is_error(reply, 431))


def test_a_single_header_over_the_limit_is_431(server, channel):
    assert is_error(raw_reply(server, request_bytes("GET", channel, headers={"X": "v" * 40_000}), closed=True), 431)


# --- versions ---


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"])
def test_other_versions_are_505(server, version):
    assert is_error(raw_reply(server, request_bytes("GET", "/-/health", version=version), closed=True), 505)


def test_http_1_0_is_answered_and_closed(server, channel):
    with server.client() as client:
        client.send(b"POST %s HTTP/1.0\r\nContent-Length: 7\r\n\r\n" % channel.encode() + b'{"a":1}')
        reply = client.read_reply()
        assert reply.text == "OK" and reply.total == 1
        assert client.read_to_end() == b""
    with server.client() as client:
        client.send(b"GET %s HTTP/1.0\r\n\r\n" % channel.encode())
        assert client.read_reply().updates == [{"a": 1}]
        assert client.read_to_end() == b""


def test_http_1_0_that_asks_for_keep_alive_gets_what_the_reply_says(server, channel):
    with server.client() as client:
        request = b"GET %s HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" % channel.encode()
        client.send(request)
        reply = client.read_reply()
        assert reply.status == 200
        if reply.headers.get("connection", "close").lower() == "keep-alive":
            client.send(request)
            assert client.read_reply().status == 200
        else:
            assert client.read_to_end() == b""


def test_http_1_0_can_wait(server, channel):
    with server.client() as client:
        client.send(b"GET %s?sleep=60 HTTP/1.0\r\n\r\n" % channel.encode())
        server.wait_for_parked(1)
        server.push(channel, "{}")
        assert client.read_reply().updates == [{}]
        assert client.read_to_end() == b""


# --- connections ---


def test_a_connection_is_kept_alive(server, channel):
    accepted = server.metric("longline_connections_accepted_total")
    with server.client() as client:
        for i in range(1, 51):
            assert client.post(channel, "{}", JSON).total == i
            assert client.get(f"{channel}?ts={i - 1}").ts == i
    assert server.metric("longline_connections_accepted_total") == accepted + 1


@pytest.mark.parametrize("value", ["close", "Close", "foo, close"])
def test_connection_close_is_kept_to(server, channel, value):
    with server.client() as client:
        reply = client.post(channel, "{}", {"Connection": value})
        assert reply.status == 200 and reply.closes
        assert client.read_to_end() == b""


def test_nothing_behind_a_connection_close_is_served(server, channel):
    with server.client() as client:
        client.send(request_bytes("POST", channel, b"{}", {"Connection": "close"}) + request_bytes("POST", channel, b"{}"))
        assert client.read_reply().status == 200
        assert client.read_to_end() == b""
    assert server.get(channel).total == 1


def test_application_errors_keep_the_connection(server, channel):
    with server.client() as client:
        for method, target, body, headers, status in [
            ("GET", channel + "?ts=x", None, {}, 400),
            ("GET", channel + "/nope", None, {}, 404),
            ("DELETE", channel + "?x", "{}", JSON, 400),
            ("TRACE", channel, "{}", JSON, 405),
        ]:
            reply = client.request(method, target, body, headers)
            assert is_error(reply, status) and not reply.closes
        assert client.post(channel, "{}").total == 1


def test_pipelined_requests_are_answered_in_order(server, channel):
    with server.client() as client:
        client.send(
            request_bytes("POST", channel, b'{"n":1}')
            + request_bytes("GET", channel)
            + request_bytes("GET", channel + "?ts=x")
            + request_bytes("HEAD", channel)
            + request_bytes("POST", channel + "?m=2", chunked(b'{"n"', b":2}"), {"Transfer-Encoding": "chunked"})
            + request_bytes("GET", channel + "?ts=1")
            + request_bytes("OPTIONS", channel)
            + request_bytes("GET", "/nope/nope")
            + request_bytes("GET", channel + "?ts=2&sleep=0.05")
            + request_bytes("POST", channel, b'{"n":3}')
        )
        assert client.read_reply().total == 1
        assert client.read_reply().updates == [{"n": 1}]
        assert client.read_reply().status == 400
        assert client.read_reply(has_body=False).total == 1
        assert client.read_reply().total == 2
        assert client.read_reply().updates == [{"n": 2, "m": "2"}]
        assert client.read_reply().status == 204
        assert client.read_reply().status == 404
        assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": []}
        assert client.read_reply().total == 3


def test_a_request_behind_a_waiting_poll_waits_for_it(server, channel):
    with server.client() as client:
        client.send(request_bytes("GET", channel + "?sleep=60") + request_bytes("GET", channel + "?ts=1&limit=7"))
        server.wait_for_parked(1)
        server.push(channel, '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]
        assert client.read_reply().json() == {"ok": True, "ts": 1, "updates": []}


def test_blank_lines_before_a_request_are_skipped(server, channel):
    with server.client() as client:
        client.send(b"\r\n\r\n" + request_bytes("GET", channel))
        assert client.read_reply().status == 200


# --- bodies in pieces ---


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_chunked_body_of_any_chunk_size(server, channel, size):
    body = json.dumps({"a": "é" * 50, "n": 1.5}, ensure_ascii=False).encode()
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    with server.client() as client:
        for _ in range(2):
            client.send(request_bytes("POST", channel, chunked(*parts), {**JSON, "Transfer-Encoding": "chunked"}))
            assert client.read_reply().text == "OK"
    assert body.decode() in server.get(channel).text


def test_chunk_extensions_and_trailers_are_read_over(server, channel):
    with server.client() as client:
        client.send(
            request_bytes("POST", channel, None, {**JSON, "Transfer-Encoding": "chunked"})
            + b'7;name="quoted"\r\n{"a":1}\r\n000;last\r\nX-Trailer: yes\r\nX-Other: 99\r\n\r\n'
        )
        assert client.read_reply().text == "OK"
        assert client.get(channel).updates == [{"a": 1}]


EXTENSIONS = [b";a=b;c=d", b"; a=b", b" ;a=b", b" \t; a = b ; c", b';a="b;c\\"\\\\ \t=";d=""', b";a;b;c", b";a=" + b"x" * 5000]


@pytest.mark.parametrize("extension", EXTENSIONS, ids=range(len(EXTENSIONS)))
@pytest.mark.parametrize("piece", [1, 1 << 20], ids=["bytes", "whole"])
def test_every_chunk_extension_is_read_over(server, channel, extension, piece):
    request = request_bytes("POST", channel, None, {**JSON, "Transfer-Encoding": "chunked"})
    request += b'3%s\r\n{"a\r\n4%s\r\n":1}\r\n0%s\r\n\r\n' % (extension, extension, extension)
    data = request + request_bytes("POST", channel, b"[2]")
    with server.client() as client:
        for at in range(0, len(data), piece):
            client.send(data[at : at + piece])
        assert client.read_reply().total == 1
        assert client.read_reply().total == 2
        assert client.get(channel).updates == [{"a": 1}, [2]]


def test_an_empty_chunked_body_is_an_empty_object(server, channel):
    with server.client() as client:
        client.send(request_bytes("POST", channel, chunked(), {"Transfer-Encoding": "chunked"}))
        assert client.read_reply().text == "OK"
    assert server.get(channel).updates == [{}]


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "identity", "chunked, chunked", "xchunked"])
def test_other_transfer_codings_are_501(server, channel, coding):
    reply = raw_reply(server, request_bytes("POST", channel, chunked(b"{}"), {"Transfer-Encoding": coding}))
    assert is_error(reply, 501) and reply.closes
    assert server.get(channel).total == 0


def test_expect_100_continue(server, channel):
    with server.client() as client:
        for i in (1, 2):
            client.send(request_bytes("POST", channel, None, {"Content-Length": "7", "Expect": "100-continue"}))
            assert client.read_reply().status == 100
            client.send(b'{"a":1}')
            reply = client.read_reply()
            assert (reply.status, reply.total) == (200, i)


def test_expect_100_continue_with_the_body_already_there(server, channel):
    with server.client() as client:
        client.send(request_bytes("POST", channel, b'{"a":1}', {"Expect": "100-Continue"}))
        reply = client.read_reply()
        if reply.status == 100:
            reply = client.read_reply()
        assert (reply.status, reply.total) == (200, 1)


def test_a_body_that_will_be_refused_is_not_asked_for(server, channel):
    with server.client() as client:
        client.send(request_bytes("POST", channel, None, {"Content-Length": "99999999", "Expect": "100-continue"}))
        reply = client.read_reply()
        assert is_error(reply, 413) and reply.closes


def test_another_expectation_is_417(server, channel):
    with server.client() as client:
        client.send(request_bytes("POST", channel, b"{}", {"Expect": "a-miracle"}))
        assert is_error(client.read_reply(), 417)
    assert server.get(channel).total == 0


def test_a_body_with_a_get_is_read_over(server, channel):
    with server.client() as client:
        assert client.request("GET", channel, "{}", JSON).total == 0
        assert client.request("GET", channel, "GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n").total == 0
        assert client.post(channel, "{}").total == 1


def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind(server, channel):
    for cut in (b'{"a"', b""):
        with server.client() as client:
            client.send(request_bytes("POST", channel, None, {"Content-Length": "7"}) + cut)
    with server.client() as client:
        client.send(request_bytes("POST", channel, b"7\r\n", {"Transfer-Encoding": "chunked"}) + b'{"a":1}')
    server.wait_for_metric("longline_connections", 1)
    assert server.get(channel).total == 0


def test_the_suite_notices_a_closed_connection(server, channel):
    with server.client() as client:
        client.request("GET", channel, headers={"Connection": "close"})
        with pytest.raises((Closed, BrokenPipeError, ConnectionResetError)):
            client.get(channel)
