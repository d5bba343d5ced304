"""What services really send: methods, paths, multipart, handshakes, and the reply that they want."""

import base64
import json

import pytest

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def last(server, channel, query="?ts=-1"):
    return server.get(channel + query).updates[-1]


# --- Methods and paths ---


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_each_method_that_carries_a_body_pushes(server, channel, method):
    reply = server.request(method, channel, b'{"a":1}', JSON)
    assert (reply.status, reply.text, reply.total) == (200, "OK", 1)
    assert last(server, channel) == {"a": 1}
    assert last(server, channel, "?ts=-1&view=full")["method"] == method


@pytest.mark.parametrize("method", ["TRACE", "LINK"])
def test_other_methods_are_refused(server, channel, method):
    reply = server.request(method, channel, b"", {})
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def test_a_get_of_push_updates_pushes_its_query(server, channel):
    reply = server.get(channel + "/pushUpdates?door=open")
    assert (reply.status, reply.text, reply.total) == (200, "OK", 1)
    assert server.get(channel).updates == [{"door": "open"}]
    assert last(server, channel, "?view=full")["method"] == "GET"


def test_a_head_of_push_updates_sends_nothing(server, channel):
    assert server.request("HEAD", channel + "/pushUpdates?door=open").status == 200
    assert server.get(channel).updates == []


@pytest.mark.parametrize("behind", ["/", "//", "/v1/alerts", "/v1//alerts/", "//pushUpdates//", "/pushUpdates/"])
def test_a_push_below_the_channel_is_the_channels(server, channel, behind):
    assert server.push(channel + behind, '{"a":1}') == 1
    assert server.get(channel).updates == [{"a": 1}]


def test_slashes_in_front_are_forgiven(server, channel):
    assert server.push("/" + channel, '{"a":1}') == 1
    assert server.get("//" + channel).updates == [{"a": 1}]


@pytest.mark.parametrize("path", ["//", "//-", "//-/metrics", "///-/health", "//favicon.ico"])
def test_slashes_in_front_of_what_is_no_channel_are_not(server, path):
    """A proxy that hides /-/metrics does not know other names of it."""
    assert server.get(path).status == 400


@pytest.mark.parametrize("behind", ["/", "//", "/getUpdates/", "//getUpdates"])
def test_a_poll_forgives_slashes(server, channel, behind):
    server.push(channel, '{"a":1}')
    assert server.get(channel + behind + "?ts=0").updates == [{"a": 1}]


def test_a_get_of_any_other_path_is_no_poll(server, channel):
    assert server.get(channel + "/v1/alerts").status == 404
    assert server.post(channel + "/getUpdates", "{}", JSON).status == 405


def test_options(server, channel):
    reply = server.request("OPTIONS", channel)
    assert (reply.status, reply.headers["allow"]) == (204, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    assert "Authorization" in reply.headers["access-control-allow-headers"]
    assert "PATCH" in reply.headers["access-control-allow-methods"]
    assert server.request("OPTIONS", channel + "/x").headers["allow"] == "POST, PUT, PATCH, OPTIONS"


# --- Multipart ---


def test_a_multipart_form_with_a_picture(server, channel):
    picture = bytes(range(256))
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="from"\r\n\r\nRen\xc3\xa9\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="tag"\r\n\r\na\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="tag"\r\n\r\nb\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n--XX--\r\n"
    )
    server.push(channel + "?q=1", body, {"Content-Type": "multipart/form-data; boundary=XX"})
    assert last(server, channel) == {
        "from": "René",
        "tag": ["a", "b"],
        "photo": {
            "filename": "a.png",
            "content_type": "image/png",
            "size": 256,
            "body_base64": base64.b64encode(picture).decode(),
        },
        "q": "1",
    }
    assert base64.b64decode(last(server, channel, "?ts=-1&view=full")["raw_base64"]) == body


def test_a_broken_multipart_form_is_kept_whole(server, channel):
    body = '--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut'
    server.push(channel, body, {"Content-Type": "multipart/form-data; boundary=XX"})
    assert last(server, channel) == {"body": body}


# --- Handshakes ---

HANDSHAKES = {
    "slack": ("POST", "", {}, '{"token":"t","challenge":"c0ffee","type":"url_verification"}', "c0ffee"),
    "meta": ("GET", "?hub.mode=subscribe&hub.challenge=115820&hub.verify_token=x", {}, None, "115820"),
    "graph": ("POST", "?validationToken=abc%20def", {}, "", "abc def"),
    "dropbox": ("GET", "?challenge=xyz", {}, None, "xyz"),
    "below": ("GET", "/v1?challenge=xyz", {}, None, "xyz"),
    "twitch": (
        "POST",
        "",
        {"Twitch-Eventsub-Message-Type": "webhook_callback_verification"},
        '{"challenge":"pogchamp","subscription":{}}',
        "pogchamp",
    ),
    "smartsheet": (
        "POST",
        "",
        {"Smartsheet-Hook-Challenge": "7b-2"},
        '{"challenge":"7b-2","webhookId":1}',
        '{"smartsheetHookResponse":"7b-2"}',
    ),
    "okta": ("GET", "", {"X-Okta-Verification-Challenge": "abc"}, None, '{"verification":"abc"}'),
    "asana": ("POST", "", {"X-Hook-Secret": "s3cret"}, "", ""),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_is_answered_and_stored(server, channel, name):
    method, behind, headers, body, text = HANDSHAKES[name]
    reply = server.request(method, channel + behind, body, {**JSON, **headers})
    assert (reply.status, reply.text, reply.total) == (200, text, 1)
    assert reply.headers["content-type"].split(";")[0] == ("application/json" if text[:1] == "{" else "text/plain")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert len(server.get(channel).updates) == 1
    if name == "asana":
        assert reply.headers["x-hook-secret"] == "s3cret"
    if name == "smartsheet":
        assert reply.headers["smartsheet-hook-response"] == "7b-2"


def test_the_request_behind_a_handshake_gets_its_own_reply(server, channel):
    with server.client() as client:
        for _ in range(2):
            assert client.get(channel_path(channel) + "?challenge=xyz").text == "xyz"
            assert client.post(channel_path(channel), "{}", JSON).text == "OK"


def channel_path(channel):
    return channel if channel.startswith("/") else "/" + channel


def test_a_poll_with_a_challenge_is_a_poll(server, channel):
    assert server.get(channel + "?ts=0&challenge=xyz").updates == []


def test_markup_in_a_challenge_is_text(server, channel):
    reply = server.get(channel + "?challenge=%3Cscript%3E")
    assert (reply.text, reply.headers["content-type"]) == ("<script>", "text/plain; charset=utf-8")


def test_consent_to_cloud_events(server, channel):
    reply = server.request("OPTIONS", channel, None, {"WebHook-Request-Origin": "ev.example"})
    assert reply.status == 200
    assert reply.headers["webhook-allowed-origin"] == "ev.example"
    assert reply.headers["webhook-allowed-rate"] == "*"
    assert server.get(channel).updates == []


# --- The reply that the address asks for ---


def test_a_reply_without_a_body(server, channel):
    reply = server.post(channel + "?.status=204&a=1", "Body=hi", FORM)
    assert (reply.status, reply.body, reply.total) == (204, b"", 1)
    assert last(server, channel) == {"Body": "hi", "a": "1"}


def test_a_reply_with_a_text(server, channel):
    reply = server.post(channel + "?.reply=ok&.once", '{"type":"message_new"}', JSON)
    assert (reply.status, reply.text) == (200, "ok")
    assert server.get(channel).updates == [{"type": "message_new"}]
    full = last(server, channel, "?ts=-1&view=full")
    assert (full["query"], full["body"]) == (".reply=ok&.once", {"type": "message_new"})


def test_a_reply_of_xml_is_never_a_page(server, channel):
    reply = server.get(channel + "/pushUpdates?.type=text/xml&.reply=%3CResponse/%3E&.status=201")
    assert (reply.status, reply.text) == (201, "<Response/>")
    assert reply.headers["content-type"] == "text/xml; charset=utf-8"
    assert "sandbox" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("status", [206, 218, 299])
def test_a_status_without_a_phrase(server, channel, status):
    counted = server.metrics().get('longline_http_requests_total{status="2xx"}', 0)
    with server.client() as client:
        reply = client.post(f"{channel_path(channel)}?.status={status}", "{}", JSON)
        assert reply.head.startswith(b"HTTP/1.1 %d \r\n" % status) and reply.text == "OK"
        assert client.post(channel_path(channel), "{}", JSON).status == 200
    assert server.metric('longline_http_requests_total{status="2xx"}') == counted + 1


def test_a_reset_content_leaves_the_connection_whole(server, channel):
    with server.client() as client:
        assert client.post(channel_path(channel) + "?.status=205", "{}", JSON).status == 205
        assert client.post(channel_path(channel), "{}", JSON).text == "OK"


def test_a_wish_that_cannot_be_is_passed_over_and_named(server, channel):
    reply = server.post(channel + "?.status=500&.type=text/html&.reply=hi", '{"a":1}', JSON)
    assert (reply.status, reply.text, reply.headers["x-ignored"]) == (200, "hi", ".status, .type")
    assert server.get(channel).updates == [{"a": 1}]


def test_other_names_with_a_dot_are_merged(server, channel):
    server.push(channel + "?.other=1", "{}")
    assert last(server, channel) == {".other": "1"}


def test_a_batch_gets_the_reply_too(server, channel):
    reply = server.post(channel + "?.reply=ok", '{"a":1}\n{"a":2}\n', {"Content-Type": "application/x-ndjson"})
    assert (reply.text, reply.headers["x-updates"]) == ("ok", "2")
    assert server.get(channel).updates == [{"a": 1}, {"a": 2}]


# --- Where it came from ---


def test_the_full_view_says_from_where_and_to_what_path(server, channel):
    server.push(channel, "{}")
    server.request("PUT", channel + "//v1/alerts%20x/?a=1", "{}", JSON)
    plain, below = server.get(channel + "?view=full").updates
    assert (plain["method"], plain["from"], "path" in plain) == ("POST", "127.0.0.1", False)
    assert (below["method"], below["from"], below["path"]) == ("PUT", "127.0.0.1", "/v1/alerts%20x/")
    assert below["query"] == "a=1"


def test_the_sender_is_seen_through_a_trusted_proxy(serve):
    server = serve(TRUST_PROXY="loopback")
    for address in ("203.0.113.7", "2001:db8::7", "junk"):
        server.push("/c", "{}", {"X-Forwarded-For": address})
    seen = [update["from"] for update in server.get("/c?view=full").updates]
    assert seen == ["203.0.113.7", "2001:db8::7", "127.0.0.1"]


def test_a_batch_has_its_origin_too(server, channel):
    server.push(channel + "/lines", '{"a":1}\n{"a":2}\n', {"Content-Type": "application/x-ndjson"})
    for update in server.get(channel + "?view=full").updates:
        assert (update["method"], update["from"], update["path"]) == ("POST", "127.0.0.1", "/lines")


@pytest.mark.providers("sqlite")
def test_the_origin_outlives_a_restart(serve):
    server = serve()
    server.push("/c/v1", "{}")
    server.restart()
    update = server.get("/c?view=full").updates[0]
    assert (update["from"], update["path"]) == ("127.0.0.1", "/v1")
