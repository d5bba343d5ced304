"""A delivery that comes again: it is marked, or stored once, whichever server it comes to."""

import gzip
import json

import pytest

from http_client import request_bytes
from longline_server import PATIENCE_S, wait_until
from swarm import Swarm
from test_redis import healthy
from test_redis_access import documented_rights
from test_redis_cluster import channels_by_node, cluster, lasting_cluster  # noqa: F401
from test_redis_clock import redis as wrong_redis  # noqa: F401

NDJSON = {"Content-Type": "application/x-ndjson"}
GITHUB = "X-GitHub-Delivery"
MIB = 1 << 20


def same_as(server, channel, ts=0):
    """Of each update, the one that it is the same as."""
    return [update.get("same_as", 0) for update in server.get(f"{channel}?ts={ts}&view=full").updates]


def push_twice(server, channel, headers=None, body=b'{"a":1}', first_headers=None):
    first = server.push(channel, body, headers if first_headers is None else first_headers)
    return first, server.push(channel, body, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "msg_1"},
        {"Svix-Id": "msg_1"},
        {GITHUB: "72d3162e-cc78-11e3-81ab-4c9367dc0958"},
        {"X-Gitlab-Event-UUID": "13792a34-cac6-4fda-95a8-c58e00a3954e"},
        {"X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"},
        {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'},
        {"ce-id": "1", "ce-source": "/orders"},
        {GITHUB: "x" * 1024},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_delivery_that_comes_again_is_marked(server, channel, headers):
    assert push_twice(server, channel, headers) == (1, 2)
    assert server.push(channel, b'{"other":1}') == 3
    assert server.push(channel + "/hook", b'{"another":"body"}', headers) == 4
    assert same_as(server, channel) == [0, 1, 0, 1]
    plain = server.get(channel + "?ts=0").updates
    assert plain == [{"a": 1}, {"a": 1}, {"other": 1}, {"another": "body"}]
    update = server.get(channel + "?ts=3&view=full").updates[0]
    assert (update["method"], update["path"], update["from"]) == ("POST", "/hook", "127.0.0.1")


@pytest.mark.parametrize(
    "first, second",
    [
        ({GITHUB: "a"}, {GITHUB: "b"}),
        ({GITHUB: "a"}, {}),
        ({"ce-id": "1", "ce-source": "/a"}, {"ce-id": "1", "ce-source": "/b"}),
        ({"ce-id": "1"}, {"ce-id": "1"}),
        ({"ce-id": "bc", "ce-source": "a"}, {"ce-id": "c", "ce-source": "ab"}),
        ({GITHUB: ""}, {GITHUB: ""}),
        ({GITHUB: "x" * 1025}, {GITHUB: "x" * 1025}),
        ({"X-Request-Id": "a"}, {"X-Request-Id": "a"}),
    ],
)
def test_what_has_another_id_or_none_is_another_delivery(server, channel, first, second):
    push_twice(server, channel, second, first_headers=first)
    assert same_as(server, channel) == [0, 0]


def test_the_same_id_on_another_channel_is_another_delivery(server):
    for channel in (server.channel(), server.channel()):
        server.push(channel + "?.once", b"{}", {GITHUB: "a"})
        assert same_as(server, channel) == [0]


def test_once(server, channel):
    assert server.push(channel + "?.once", b'{"n":1}', {GITHUB: "a"}) == 1
    assert server.push(channel + "?.once", b'{"n":2}', {GITHUB: "b"}) == 2
    reply = server.post(channel + "?.once&.reply=ok&.status=202", b'{"n":1}', {GITHUB: "a"})
    assert (reply.status, reply.body, reply.total, reply.headers["x-duplicate"]) == (202, b"ok", 1, "1")
    assert server.push(channel + "?.once", b'{"n":3}', {GITHUB: "c"}) == 3
    assert server.get(channel + "?ts=0").updates == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert same_as(server, channel) == [0, 0, 0]
    assert "x-duplicate" not in server.post(channel, b"{}", {GITHUB: "a"}).headers  # it does not ask for it
    assert same_as(server, channel) == [0, 0, 0, 1]


def test_once_without_an_id_stores_everything(server, channel):
    assert push_twice(server, channel + "?.once") == (1, 2)


def test_a_poll_that_waits_is_not_woken_by_what_is_not_stored(server, channel):
    server.push(channel + "?.once", b'{"n":1}', {GITHUB: "a"})
    with server.client() as client:
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        server.push(channel + "?.once", b'{"n":1}', {GITHUB: "a"})
        server.push(channel + "?.once", b'{"n":2}', {GITHUB: "b"})
        reply = client.read_reply().json()
        assert (reply["ts"], reply["updates"]) == (2, [{"n": 2}])


@pytest.mark.parametrize(
    "key, first, second",
    [
        ("body.id", b'{"id":"x","a":1}', b'{"a":2,"id":"x"}'),
        ("body.data.object.id", b'{"data":{"object":{"id":7}}}', b'{"data": {"n":1,"object": {"id": 7}}}'),
        ("body.items.1.id", b'{"items":[{"id":1},{"id":2}]}', b'{"items":[3,{"id":2}]}'),
        ("body.body.1", b'["a","b"]', b'["c","b"]'),
        ("body.n%C3%A4me", '{"n\\u00e4me":true}'.encode(), '{"näme":true}'.encode()),
        ("header.x-request-id", b"{}", b"{}"),
        ("query.order", b"{}", b"{}"),
    ],
)
def test_the_address_says_where_the_id_is(server, channel, key, first, second):
    headers = {"X-Request-Id": "a", GITHUB: "1"}
    server.push(f"{channel}?.key={key}&order=5", first, headers)
    server.push(f"{channel}?order=5&.key={key}", second, {**headers, GITHUB: "2"})
    assert same_as(server, channel) == [0, 1]
    assert ".key" not in json.dumps(server.get(channel + "?ts=0").updates)


@pytest.mark.parametrize(
    "key, body",
    [
        ("body.id", b'{"a":1}'),
        ("body.id", b'{"id":null}'),
        ("body.id", b'{"id":{"a":1}}'),
        ("body.id", b'{"id":""}'),
        ("body.id.a", b'{"id":"x"}'),
        ("body.id", b"no json"),
        ("body.7", b"[1]"),
        ("body.", b'{"a":1}'),
        ("header.none", b"{}"),
        ("query.none", b"{}"),
        ("nonsense", b"{}"),
        ("", b"{}"),
    ],
)
def test_an_id_that_is_not_there_is_none(server, channel, key, body):
    push_twice(server, f"{channel}?.key={key}&.once", {GITHUB: "a"}, body)
    assert same_as(server, channel) == [0, 0]


def test_a_large_body_has_an_id_too(server, channel):
    body = b'{"text":"%s","id":5}' % (b"x" * MIB)
    push_twice(server, channel + "?.key=body.id", {"Content-Type": "application/json"}, body)
    assert same_as(server, channel, ts=1) == [1]
    reply = server.post(channel + "?.key=body.id&.once", gzip.compress(body), {"Content-Encoding": "gzip"})
    assert (reply.total, reply.headers["x-duplicate"]) == (1, "1")


def test_the_path_to_an_id_has_16_names_at_most(server, channel):
    def push(depth):
        names = ["a"] * depth
        body = b'{"a":' * depth + b"5" + b"}" * depth
        return server.post(f"{channel}?.key=body.{'.'.join(names)}&.once", body).headers.get("x-duplicate")

    assert [push(16), push(16), push(17), push(17)] == [None, "1", None, None]


# --- batches ---


def lines(numbers):
    return b"".join(b'{"n":%d}\n' % n for n in numbers)


def test_a_batch_that_comes_again(server, channel):
    for _ in range(2):
        assert server.post(channel, lines(range(1, 4)), {**NDJSON, GITHUB: "a"}).headers["x-updates"] == "3"
    assert same_as(server, channel) == [0, 0, 0, 1, 2, 3]
    reply = server.post(channel + "?.once", lines(range(1, 4)), {**NDJSON, GITHUB: "a"})
    assert (reply.total, reply.headers["x-updates"]) == (3, "0")
    assert server.get(channel + "?ts=-1").total == 6


def test_each_line_of_a_batch_has_its_own_id(server, channel):
    address = channel + "?.key=body.n&.once"
    reply = server.post(address, lines([1, 2, 1, 3, 3]), NDJSON)
    assert (reply.total, reply.headers["x-updates"]) == (3, "3")
    reply = server.post(address, lines([3, 4, 2, 5, 4, 1]), NDJSON)
    assert (reply.total, reply.headers["x-updates"]) == (5, "2")
    assert [update["n"] for update in server.get(channel + "?ts=0").updates] == [1, 2, 3, 4, 5]
    assert server.post(channel + "?.key=body.n", lines([5, 6]), NDJSON).total == 7
    assert same_as(server, channel) == [0, 0, 0, 0, 0, 5, 0]


# --- at the same time, and after a restart ---


@pytest.mark.parametrize("query, kept", [("?.once", 1), ("", 40)])
def test_copies_that_come_together(server, channel, query, kept):
    """They meet in one transaction, or in one command."""
    replies = []
    with Swarm(server.address) as swarm:
        wires = [swarm.open(lambda wire, reply: replies.append(reply)) for _ in range(40)]
        for wire in wires:
            wire.send(request_bytes("POST", channel + query, b"{}", {GITHUB: "a"}))
        swarm.run(lambda: len(replies) == 40, PATIENCE_S, "the replies")
    assert {reply.status for reply in replies} == {200}
    assert same_as(server, channel) == [0] + [1] * (kept - 1)
    assert sum("x-duplicate" in reply.headers for reply in replies) == 40 - kept


def test_ids_outlive_a_restart_and_a_kill(start):
    server = start().keep_address()
    channel = server.channel()
    server.push(channel, b"{}", {GITHUB: "a"})
    for end in (server.stop, server.kill9):
        end()
        server.start()
        reply = server.post(channel + "?.once", b"{}", {GITHUB: "a"})
        assert (reply.total, reply.headers["x-duplicate"]) == (1, "1")
    assert server.get(channel + "?ts=-1").total == 1


def test_ids_end_after_a_day(start, clock):  # noqa: F811
    server = start(**clock.settings).keep_address()
    channel = server.channel()
    server.push(channel, b"{}", {GITHUB: "a"})
    for days in (2, 4):  # a restart is believed to have taken a day at most
        server.stop()
        clock.set(days)
        server.start()
    assert server.push(channel + "?.once", b"{}", {GITHUB: "a"}) == 2
    assert server.push(channel, b"{}", {GITHUB: "a"}) == 3
    assert same_as(server, channel) == [0, 0, 2]


def test_an_id_may_be_known_longer_than_its_update(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=2)
    channel = server.channel()
    for n in "abcd":
        server.push(channel, b"{}", {GITHUB: n})
    assert server.post(channel + "?.once", b"{}", {GITHUB: "a"}).headers["x-duplicate"] == "1"


def test_ids_of_the_newest_10000_updates_are_known(serve):
    server = serve(REDIS_TIMEOUT=10_000)
    channel = server.channel()
    address = channel + "?.key=body.n"
    server.post(address, lines(range(1, 10_001)), NDJSON)
    assert server.post(address + "&.once", lines([1]), NDJSON).headers["x-updates"] == "0"
    server.post(address, lines(range(10_001, 10_101)), NDJSON)
    reply = server.post(address + "&.once", lines([10_100, 102, 1, 2]), NDJSON)
    assert reply.headers["x-updates"] == "2"


# Redis has its own bound, maxmemory.
@pytest.mark.providers("sqlite", "memory")
def test_ids_leave_updates_their_room(serve):
    """Ids alone must not fill DATA_MAX_BYTES: updates would be deleted for them, to the last one."""
    server = serve(DATA_MAX_BYTES=2_000_000, CHANNEL_STORAGE_MAXSIZE=100)
    for _ in range(6):
        channel = server.channel()
        assert server.post(channel + "?.key=body.n", lines(range(10_000)), NDJSON).status == 200
    wait_until(lambda: server.metric("longline_store_bytes") < 2_000_000, "the sweeper")
    server.push(channel, b'{"last":1}')
    assert server.get(channel + "?ts=-2").updates == [{"n": 9999}, {"last": 1}]
    reply = server.post(channel + "?.key=body.n&.once", lines([9999, 0]), NDJSON)
    assert (reply.headers["x-updates"], reply.total) == ("1", 10_002)


def test_a_file_with_more_ids_than_may_be_forgets_them(start):
    server = start().keep_address()
    channel = server.channel()
    server.post(channel + "?.key=body.n", lines(range(10_000)), NDJSON)
    server.stop()
    server.settings["DATA_MAX_BYTES"] = 1_000_000
    server.start()
    reply = server.post(channel + "?.key=body.n&.once", lines([9999, 9999]), NDJSON)
    assert (reply.headers["x-updates"], reply.total) == ("1", 10_001)


def test_what_deliveries_take_is_given_back(server, channel):
    for headers in ({GITHUB: "a"}, {**NDJSON, GITHUB: "b"}):
        for query in ("", "?.once", "?.key=body.n"):
            server.post(channel + query, lines([1, 2]) if len(headers) > 1 else b"{}", headers)
    server.wait_for_metric("longline_buffer_bytes", 0)


# --- Redis ---


def test_two_servers_over_one_redis(redis, start):
    a, b = (start(**redis.settings()) for _ in range(2))
    for server in (a, b):
        healthy(server)
    channel = a.channel()
    b.channels.add(channel)
    a.push(channel, b'{"n":1}', {GITHUB: "a"})
    with b.client() as client:
        client.send_request("GET", channel + "?ts=1&view=full&sleep=60")
        b.wait_for_parked(1)
        assert b.post(channel + "?.once", b'{"n":1}', {GITHUB: "a"}).headers["x-duplicate"] == "1"
        a.push(channel, b'{"n":2}', {GITHUB: "a"})
        update = client.read_reply().updates[0]
    assert (update["ts"], update["same_as"], update["body"]) == (2, 1, {"n": 2})
    assert same_as(b, channel) == same_as(a, channel) == [0, 1]


def test_two_servers_over_one_cluster(cluster, start):  # noqa: F811
    """The documented rights are enough."""
    for node in cluster.nodes:
        node.command("ACL", "LOG", "RESET")
        node.command("ACL", "SETUSER", "limited", "on", ">x", *documented_rights("in a cluster"))
    a, b = (start(**cluster.settings(i, REDIS_USER="limited", REDIS_PASS="x")) for i in range(2))
    for server in (a, b):
        healthy(server)
    for (channel,) in channels_by_node(cluster, a, 1).values():
        b.channels.add(channel)
        assert a.push(channel, b"{}", {GITHUB: "a"}) == 1
        assert b.post(channel + "?.once", b"{}", {GITHUB: "a"}).headers["x-duplicate"] == "1"
        b.push(channel, b"{}", {GITHUB: "a"})
        assert same_as(a, channel) == [0, 1]
    assert [node.command("ACL", "LOG") for node in cluster.nodes] == [[]] * 6


def test_pushes_with_and_without_ids_go_together(redis, start):
    server = start(**redis.settings())
    healthy(server)
    channels = [server.channel() for _ in range(8)]
    got = []
    with Swarm(server.address) as swarm:
        for n in range(120):
            headers = {GITHUB: str(n % 5)} if n % 3 else {}
            target = channels[n % 8] + ("?.once" if n % 2 else "")
            swarm.open(lambda wire, reply: got.append(reply)).send(request_bytes("POST", target, b"{}", headers))
        swarm.run(lambda: len(got) == 120, PATIENCE_S, "the replies")
    assert {reply.status for reply in got} == {200}
    for channel in channels:
        updates = server.get(channel + "?ts=0&view=full").updates
        first = {}
        assert [update["ts"] for update in updates] == list(range(1, len(updates) + 1))
        for update in updates:
            if name := update["headers"].get(GITHUB.lower()):
                assert update.get("same_as", 0) == first.get(name, 0)
                first.setdefault(name, update["ts"])
            else:
                assert "same_as" not in update


@pytest.mark.parametrize("pushed", [0, 1])
def test_ids_that_outlive_their_counter_stop_no_update(redis, start, pushed):
    server = start(**redis.settings())
    healthy(server)
    channel = server.channel()
    for n in "abc":
        server.push(channel, b"{}", {GITHUB: n})
    redis.command("DEL", *(f"lpolling:{kind}:{channel[1:]}" for kind in ("total", "updates", "meta")))
    for _ in range(pushed):
        server.push(channel, b"{}")
    reply = server.post(channel + "?.once", b'{"n":1}', {GITHUB: "c"})
    assert (reply.total, reply.headers.get("x-duplicate")) == (pushed + 1, None)
    assert server.get(channel + "?ts=-1").updates == [{"n": 1}]


def test_a_user_who_may_not_keep_ids_stores_all_the_same(redis, start):
    redis.command("ACL", "SETUSER", "longline", "on", ">secret", "~*", "&*", "+@all", "-hset", "-hget")
    server = start(**redis.settings(REDIS_USER="longline", REDIS_PASS="secret"))
    healthy(server)
    channel = server.channel()
    assert push_twice(server, channel + "?.once", {GITHUB: "a"}) == (1, 2)
    wait_until(lambda: "may not tidy up" in server.log(), "the log to say why")


def test_ids_in_redis_end_after_a_day_and_are_bounded(wrong_redis, start):  # noqa: F811
    server = start(**wrong_redis.settings())
    healthy(server)
    channel = server.channel()
    key = f"lpolling:seen:{channel[1:]}"
    server.push(channel, b"{}", {GITHUB: "a"})
    assert 86_000_000 < int(wrong_redis.command("PTTL", key)) <= 86_400_000
    assert int(wrong_redis.command("HLEN", key)) == 4
    server.post(channel + "?.key=body.n", lines(range(1, 10_001)), NDJSON)
    server.post(channel + "?.key=body.n", lines(range(10_001, 10_101)), NDJSON)
    assert int(wrong_redis.command("HLEN", key)) == 2 * 10_000 + 2
    assert server.post(channel + "?.once", b"{}", {GITHUB: "a"}).headers.get("x-duplicate") is None
    wrong_redis.jump(2)
    assert "x-duplicate" not in server.post(channel + "?.key=body.n&.once", b'{"n":10100}').headers
