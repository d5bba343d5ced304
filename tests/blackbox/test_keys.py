"""Keys: addresses that read (v_), send (w_), or do both (r_)."""

import json
import re
import statistics
import time

import pytest

from http_client import request_bytes
from keys import new_keys
from longline_server import REPOSITORY

SENDS = "This address only sends: to read, use the one that begins with v_ or r_"
READS = "This address only reads: to send, use the one that begins with w_ or r_"
DELETES = "This address does not delete: use the one that begins with r_"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PLACES = ("", "/pushUpdates", "/getUpdates", "/consumers", "/refused", "/any/sub", "/")
KINDS = "rvw"
CHALLENGE = "hub.mode=subscribe&hub.challenge=abc"

# What the protocol says a kind may not do, as the error; all else is as of a plain secret.
FORBIDDEN = {("v", "send"): READS, ("w", "read"): SENDS, ("v", "delete"): DELETES, ("w", "delete"): DELETES}


@pytest.fixture
def keys(server):
    """The channel's three addresses, by their kind."""
    made = new_keys()
    server.channels.update(made)
    return {key[0]: "/" + key for key in made}


def right_of(method, place, query=""):
    place = place.rstrip("/")
    if method in ("POST", "PUT", "PATCH"):
        return None if place == "/getUpdates" else "send"
    if method == "DELETE":
        return "delete" if not place else None
    if method == "OPTIONS":
        return None
    if place == "/pushUpdates" or (method == "GET" and query == CHALLENGE and place in ("", "/any/sub")):
        return "send"
    return None if place == "/any/sub" else "read"


def names(reply):
    return re.findall(r"\r\n([^:]+):", reply.head.decode())


def undated(head):
    return re.sub(rb"\r\nDate: [^\r]*", b"", head)


def is_forbidden(reply, error, method="GET"):
    body = json.dumps({"ok": False, "error_code": 403, "error_description": error}, separators=(",", ":"))
    assert reply.status == 403
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert int(reply.headers["content-length"]) == len(body)
    assert reply.text == ("" if method == "HEAD" else body)


@pytest.mark.parametrize("query", ["", CHALLENGE], ids=["plain", "challenge"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", METHODS)
def test_each_kind_may_do_what_it_is_for(server, channel, keys, method, place, query):
    query = query or ("as=x" if method == "DELETE" else "")
    body = "{}" if method in ("POST", "PUT", "PATCH") else None
    plain = server.request(method, f"{channel}{place}?{query}", body)
    stored = server.get(channel).total
    for kind in KINDS:
        reply = server.request(method, f"{keys[kind]}{place}?{query}", body)
        error = FORBIDDEN.get((kind, right_of(method, place, query)))
        if (method, kind) == ("HEAD", "w") and place.rstrip("/") in ("", "/any/sub"):
            assert (reply.status, reply.body) == (200, b""), "who looks before it sends"
            assert "x-total-updates" not in reply.headers
        elif error:
            is_forbidden(reply, error, method)
        else:
            assert (reply.status, names(reply)) == (plain.status, names(plain)), kind
    may_send = sum((kind, right_of(method, place, query)) not in FORBIDDEN for kind in KINDS)
    assert server.get(keys["v"]).total == stored * may_send


def test_what_is_sent_is_read(server, keys):
    server.push(keys["w"], '{"n":1}')
    server.push(keys["r"] + "?n=2")
    assert server.get(keys["w"] + "/pushUpdates?n=3").text == "OK"
    for kind in "rv":
        assert [int(update["n"]) for _, update in server.read_all(keys[kind])] == [1, 2, 3]
    with server.client() as waiting:
        waiting.send_request("GET", keys["v"] + "?ts=3&sleep=30")
        server.wait_for_parked(1)
        server.push(keys["w"], '{"n":4}')
        assert waiting.read_reply().updates == [{"n": 4}]
    assert server.get(keys["v"] + "?ts=0&where=body.n:2").updates == [{"n": "2"}]


def test_a_handshake_is_answered_where_one_sends(server, keys):
    for place in ("", "/any/sub", "/pushUpdates"):
        assert server.get(f"{keys['w']}{place}?{CHALLENGE}").text == "abc"
        is_forbidden(server.get(f"{keys['v']}{place}?{CHALLENGE}"), READS)
    assert server.request("HEAD", f"{keys['w']}?{CHALLENGE}").status == 200
    assert server.get(keys["r"]).total == 3


def test_a_consumer_is_the_channels(server, keys):
    server.push(keys["w"], '{"n":1}')
    assert server.get(keys["v"] + "?as=bob&sleep=0").ts == 1
    assert server.get(keys["v"] + "?as=bob&ts=1").updates == []
    assert server.get(keys["r"] + "?as=bob").updates == []
    assert [each["name"] for each in server.get(keys["r"] + "/consumers").json()["consumers"]] == ["bob"]
    is_forbidden(server.request("DELETE", keys["v"] + "?as=bob"), DELETES)
    is_forbidden(server.request("DELETE", keys["w"] + "?as=bob"), DELETES)
    assert len(server.get(keys["v"] + "/consumers").json()["consumers"]) == 1
    assert server.request("DELETE", keys["r"] + "?as=bob").status == 200
    assert server.get(keys["v"] + "/consumers").json()["consumers"] == []


# --- Names ---

LETTERS = "abcdefghijklmnopqrstuvwxyz"

PLAIN = [
    "r_" + LETTERS[:25], "r_" + LETTERS + "a", "v_" + LETTERS[:25], "w_" + LETTERS + "a", "R_" + LETTERS, "V_" + LETTERS, "W_" + LETTERS,
    "w_" + LETTERS.upper(), "v_A" + LETTERS[1:], "r-" + LETTERS, "x_" + LETTERS, "w_", "r_", "v_short",
    *(f"{kind}_{LETTERS[:25]}{digit}" for kind in KINDS for digit in "0189=_"),
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_nearly_a_key_is_a_plain_secret(server, name):
    assert server.push("/" + name, '{"n":1}') == 1
    assert server.get("/" + name).updates == [{"n": 1}]
    assert server.request("DELETE", f"/{name}?as=x").status == 200
    server.get("/" + name + "/refused").json()


def test_a_key_may_be_percent_encoded(server, keys):
    def encoded(kind):
        return "/" + "".join(f"%{ord(c):02x}" for c in keys[kind][1:])

    server.push(encoded("w"), '{"n":1}')
    assert server.get(encoded("v")).updates == [{"n": 1}]
    assert server.get("/" + keys["r"]).updates == [{"n": 1}], "doubled slashes do not count"
    is_forbidden(server.get(encoded("w")), SENDS)
    is_forbidden(server.post(encoded("v"), "{}"), READS)


def test_the_protocols_vectors_are_ours(server):
    text = (REPOSITORY / "docs/protocol.md").read_text("utf-8")
    vectors = re.findall(r"^\| `(r_\w{26})` \| `(v_\w{26})` \| `(w_\w{26})` \|$", text, re.MULTILINE)
    assert len(vectors) == 3
    for all_, read, send in vectors:
        server.push(f"/{send}", json.dumps({"by": send}))
        assert server.get(f"/{read}").updates == server.get(f"/{all_}").updates == [{"by": send}]


# --- Many channels ---


def test_a_poll_of_many_channels_takes_keys_that_read(server, channel, keys):
    server.push(keys["w"], '{"n":1}')
    server.push(channel, '{"n":2}')
    other = new_keys()
    escaped = "\\u0072" + keys["r"][2:]
    for name in (keys["v"], keys["v"][1:], escaped):
        reply = server.post("/-/poll", f'{{"{name}":0,"{channel[1:]}":0,"{other[0]}":0}}')
        assert list(json.loads(reply.text)["channels"]) == [json.loads(f'"{name}"'), channel[1:]]
        assert f'"{name}":{{"ts":1,"updates":[{{"n":1}}]}}' in reply.text, "as the caller named it"


def test_a_poll_of_many_channels_takes_no_key_that_sends(server, channel, keys):
    server.push(channel)
    is_forbidden(server.post("/-/poll", f'{{"{channel[1:]}":0,"{keys["w"][1:]}":0}}'), SENDS)


def test_two_names_of_one_channel_are_one_too_many(server, keys):
    reply = server.post("/-/poll", f'{{"{keys["r"][1:]}":0,"{keys["v"][1:]}":0}}')
    assert (reply.status, reply.json()["error_description"]) == (
        400, "The body names a channel twice, or by what is no channel's name")  # fmt: skip


# --- Refused pushes ---


def test_a_push_to_an_address_that_reads_leaves_a_trace(server, keys):
    is_forbidden(server.post(keys["v"] + "/v1", "{}"), READS)
    is_forbidden(server.get(keys["v"] + "/pushUpdates?a=1"), READS)
    for kind in "rv":
        newest, oldest = server.get(keys[kind] + "/refused").json()["refused"]
        assert (oldest["status"], oldest["reason"], oldest["error"]) == (403, "key_reads", READS)
        assert (oldest["method"], oldest["path"], oldest["size"]) == ("POST", "/v1", 2)
        assert newest["method"] == "GET"
    assert server.metrics()['longline_pushes_refused_total{reason="key_reads"}'] >= 2
    is_forbidden(server.get(keys["w"] + "/refused"), SENDS)


def test_what_is_refused_while_it_is_read_is_the_channels(server, keys):
    for kind in "rw":
        with server.client() as client:
            client.send(request_bytes("POST", keys[kind], None, {"Content-Length": 1 << 40}))
            assert client.read_reply().status == 413
    assert [each["reason"] for each in server.get(keys["v"] + "/refused").json()["refused"]] == ["body_size"] * 2


def test_what_is_refused_counts_toward_the_rate_limit(serve):
    server = serve(RATE_LIMIT_LIMIT=2)
    _, read, send = new_keys()
    assert server.get(f"/{send}").headers["x-ratelimit-remaining"] == "1"
    assert server.post(f"/{read}").headers["x-ratelimit-remaining"] == "0"
    assert server.get(f"/{send}").status == server.request("HEAD", f"/{send}").status == 429


# --- What is told, and stored ---


def wrong(keys):
    """A request for each right that is missing."""
    for kind, place, method in (
        ("w", "", "GET"), ("w", "/getUpdates", "GET"), ("w", "/consumers", "GET"), ("w", "/refused", "GET"), ("w", "", "DELETE"),
        ("v", "", "POST"), ("v", "/sub", "PUT"), ("v", "/pushUpdates", "GET"), ("v", "", "DELETE"), ("w", "", "HEAD"),
    ):  # fmt: skip
        yield method, keys[kind] + place


def test_a_missing_right_says_nothing_of_the_channel(server):
    replies = []
    for state in ("unknown", "looked at", "has some", "consumer"):
        keys = {key[0]: "/" + key for key in new_keys()}
        if state != "unknown":
            server.get(keys["v"])
        if state in ("has some", "consumer"):
            server.push(keys["w"], '{"n":1}')
        if state == "consumer":
            server.get(keys["v"] + "?as=bob")
        replies.append([(undated(reply.head), reply.body) for reply in (server.request(*request) for request in wrong(keys))])
    assert all(each == replies[0] for each in replies)


def test_an_empty_channel_is_as_an_unknown_one(server):
    """The kinds that may: the same for a channel that was never named, and one that was read."""
    told = []
    for is_known in (False, True):
        keys = {key[0]: "/" + key for key in new_keys()}
        if is_known:
            server.get(keys["r"])
        targets = [keys[kind] + place for kind in "rv" for place in ("", "?ts=5", "/refused", "/consumers", "/getUpdates?epoch=")]
        replies = [server.get(target) for target in targets]
        told.append([(names(reply), reply.status, re.sub(r'"epoch":"\w+"', "", reply.text)) for reply in replies])
    assert told[0] == told[1]


def medians(server, targets, rounds=500):
    """How long a GET of each takes, in µs, asked in turn, and each as often first."""
    times = [[] for _ in targets]
    asked = list(zip(targets, times))
    with server.client() as client:
        for _ in range(rounds):
            asked.reverse()
            for target, own in asked:
                began = time.perf_counter_ns()
                client.get(target)
                own.append(time.perf_counter_ns() - began)
    return [statistics.median(own) / 1000 for own in times]


def keys_of(server, is_known):
    keys = {key[0]: "/" + key for key in new_keys()}
    server.channels.update(key[1:] for key in keys.values())
    if is_known:
        server.push(keys["w"], '{"n":1}')
    return keys


@pytest.mark.providers("memory")  # the only one whose reads do not wait for another thread, which takes as long as it takes
def test_time_tells_nothing_of_a_channel(server):
    """Neither whether there is one, to those who may not read it, nor how much of a name is right."""
    known, unknown, read = keys_of(server, True), keys_of(server, False), keys_of(server, False)
    server.get(read["v"])
    name = "/" + known["r"][1:]
    first, last = name[:3] + ("b" if name[3] == "a" else "a") + name[4:], name[:-1] + ("b" if name[-1] == "a" else "a")
    pairs = {"a missing right": (known["w"], unknown["w"]), "empty": (read["v"], unknown["v"]), "nearly right": (first, last)}
    for what, targets in pairs.items():
        for _ in range(20):  # other programs may have come between; a difference would be there each time
            one, other = medians(server, targets)
            print(f"{what}: {one:.1f} and {other:.1f} µs")
            if abs(one - other) < 0.05 * one:
                break
        assert abs(one - other) < 0.05 * one, what


def test_a_missing_right_needs_no_store(start, redis):
    server = start(**redis.settings(REDIS_TIMEOUT=60000))
    keys = {key[0]: "/" + key for key in new_keys()}
    with redis.frozen():
        for method, target in wrong(keys):
            assert server.request(method, target).status == (200 if method == "HEAD" else 403), (method, target)
        assert server.post("/-/poll", f'{{"{keys["w"][1:]}":0}}').status == 403


def use_all(server):
    """Sends, reads and is refused by all three names of a channel. Returns them."""
    keys = new_keys()
    read_all, read, send = ("/" + key for key in keys)
    for target in (send, read_all, read_all + "/sub/path?a=1", read_all + "/pushUpdates?b=2"):
        server.push(target, '{"n":1}')
    server.get(read + "?as=bob&sleep=0")
    server.get(read_all + "?as=eve&sleep=0")
    server.post(read, "{}")
    server.get(f"{read_all}?{CHALLENGE}")
    server.post("/-/poll", f'{{"{keys[1]}":0}}')
    updates = server.get(read + "?ts=0&view=full").text
    assert updates.count('"from"') == 5 and '"path":"/sub/path"' in updates
    for key in keys:
        assert key not in updates
    return keys


@pytest.mark.providers("sqlite")  # the others have no file
def test_the_data_file_holds_no_key_that_reads(serve):
    server = serve()
    keys = use_all(server)
    held = b"".join(path.read_bytes() for path in server.directory.iterdir())
    server.stop()
    held += b"".join(path.read_bytes() for path in server.directory.iterdir())
    assert [key.encode() in held for key in keys] == [False, False, True]


def values_of(redis, key):
    """All that Redis holds below a key, as text."""
    kind = redis.command("TYPE", key)
    asks = {"string": ["GET", key], "hash": ["HGETALL", key], "zset": ["ZRANGE", key, 0, -1, "WITHSCORES"], "list": ["LRANGE", key, 0, -1],
            "set": ["SMEMBERS", key]}  # fmt: skip
    return json.dumps(redis.command(*asks[kind]))


def test_redis_holds_no_key_that_reads(start, redis):
    server = start(**redis.settings())
    keys = use_all(server)
    stored = redis.command("KEYS", "*")
    held = json.dumps(stored) + "".join(values_of(redis, key) for key in stored)
    assert len(stored) >= 2 and '\\"n\\":1' in held.replace('\\\\', '\\')
    assert [key in held for key in keys] == [False, False, True]
    with server.client() as waiting:
        waiting.send_request("GET", f"/{keys[1]}?ts=now&sleep=30")
        server.wait_for_parked(1)
        news = redis.command("PUBSUB", "CHANNELS")
        assert [keys[2] in name for name in news] == [True] and keys[1] not in news[0]
