"""A purge over Redis: gone from Redis, and from the memory of all servers."""

import json

import pytest

from load import refusal
from longline_server import wait_until
from redis_server import HOST, NO_ANSWER, NOT_REPLICATED, READ_ONLY, UNREACHABLE
from test_purge import JSON, purge, push_some, read
from test_redis import away, healthy, names, upstream_poll, upstream_push

CANARY = "canary-of-a-leak"


@pytest.fixture
def pair(redis, start):
    """Two servers on one Redis."""
    one, two = (start(**redis.settings()) for _ in range(2))
    two.channels |= one.channels
    for server in (one, two):
        healthy(server)
    return one, two


def canaries(redis):
    """The keys that hold the canary, of whatever type."""
    reads = {"string": ["GET"], "list": ["LRANGE", 0, -1], "hash": ["HGETALL"], "set": ["SMEMBERS"], "zset": ["ZRANGE", 0, -1]}
    found, cursor = [], "0"
    while True:
        cursor, keys = redis.command("SCAN", cursor, "COUNT", 1000)
        for key in keys:
            command, *more = reads[redis.command("TYPE", key)]
            if CANARY in json.dumps([key, redis.command(command, key, *more)]):
                found.append(key)
        if cursor == "0":
            return sorted(found)


def waiting(server, channel, count):
    """Polls that wait: ordinary, filtered, of a consumer, of several channels; and what each is to be told of update `count` + 1."""
    clients = [server.client() for _ in range(4)]
    query = f"{channel}?ts={count}&sleep=60"
    parked = int(server.metric("longline_polls_parked"))
    clients[0].send_request("GET", query)
    clients[1].send_request("GET", f"{query}&where=body.n:{count + 1}")
    clients[2].send_request("GET", f"{query}&as=bot-{server.port}")
    clients[3].send_request("POST", "/-/poll?sleep=60", json.dumps({channel[1:]: count, server.channel()[1:]: 0}), JSON)
    server.wait_for_parked(parked + 5)
    return clients


def check_told(clients, channel, ts):
    expected = {"ok": True, "ts": ts, "updates": [{"n": ts}]}
    with clients[0] as plain, clients[1] as filtered, clients[2] as named, clients[3] as many:
        assert plain.read_reply().json() == expected
        assert filtered.read_reply().json() == expected
        assert named.read_reply().json() == {**expected, "lag": 1}
        found = many.read_reply().json()["channels"][channel[1:]]
        assert found["updates"] == [{"n": ts}] and "missed" not in found


def load(server, channel, ts):
    """Has the server watch the channel, and hold it in memory."""
    assert server.get(f"{channel}?ts=0&sleep=60").total == ts
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts={ts}&sleep=60")
        server.wait_for_parked(1)
    server.wait_for_parked(0)


def from_memory(server, channel, ts):
    """What a poll that may wait gets, which is answered from memory."""
    return server.get(f"{channel}?ts={ts}&sleep=60").json()


def test_nothing_of_it_stays_in_redis(redis, pair):
    one, two = pair
    channel, other = one.channel(), one.channel()
    for name in (channel, other):
        one.push(f"{name}?q={CANARY}", json.dumps({"token": CANARY}), {**JSON, "Idempotency-Key": CANARY, "X-Key": CANARY})
        one.push(name, f"a={CANARY}", {"Content-Type": "application/x-www-form-urlencoded"})
    read(two, channel, "as=bot&ts=1")
    assert canaries(redis) == sorted(key for name in (channel, other) for key in names(name) if "total" not in key)
    assert purge(two, channel, "?upto=1") == 1
    assert purge(two, channel) == 2
    assert canaries(redis) == sorted(key for key in names(other) if "total" not in key)
    assert read(two, channel, "as=bot") == {"ok": True, "ts": 2, "missed": 1, "lag": 1, "updates": []}
    assert one.push(channel) == 3
    assert one.push(other) == 3 and len(read(two, other)["updates"]) == 3


def test_what_upstream_has_pushed_goes_too(redis, pair):
    one, _ = pair
    channel = one.channel()
    for n in range(1, 4):
        upstream_push(redis, channel, json.dumps({"n": n, "token": CANARY if n < 3 else ""}))
    assert purge(one, channel, "?upto=2") == 2
    assert canaries(redis) == []
    assert upstream_poll(redis, channel, 0) == ([json.dumps({"n": 3, "token": ""})], 3)
    assert purge(one, channel) == 3
    assert upstream_poll(redis, channel, 0) == ([], 3)
    assert upstream_push(redis, channel, '{"n":4}') == 4
    assert read(one, channel, "ts=3") == {"ok": True, "ts": 4, "updates": [{"n": 4}]}


@pytest.mark.parametrize("query,gone", [("", 5), ("?upto=3", 3)])
def test_polls_that_wait_at_both_go_on_waiting(pair, query, gone):
    one, two = pair
    channel = one.channel()
    push_some(one, channel, 1, 5)
    parked = [waiting(server, channel, 5) for server in pair]
    assert purge(one, channel, query) == gone
    kept = [{"n": n} for n in range(gone + 1, 6)]
    assert read(two, channel) == {"ok": True, "ts": 5, "missed": gone, "updates": kept}
    assert [server.metric("longline_polls_parked") for server in pair] == [5, 5]
    push_some(two, channel, 6, 6)
    for clients in parked:
        check_told(clients, channel, 6)


@pytest.mark.parametrize("where", ["", "&where=body.n:*"])
def test_the_memory_of_the_others(pair, where):
    """Both watch the channel and hold it; one purges, and soon the other answers from memory without what is gone."""
    one, two = pair
    channel = one.channel()
    push_some(one, channel, 1, 5)
    for server in pair:
        load(server, channel, 5)
        reads = server.metric("longline_store_reads_total")
        assert from_memory(server, channel, 2)["updates"] == [{"n": n} for n in (3, 4, 5)]
        assert server.metric("longline_store_reads_total") == reads
    assert purge(one, channel, "?upto=4") == 4
    expected = {"ok": True, "ts": 5, "missed": 2, "updates": [{"n": 5}]}
    asked = "2" + where
    assert from_memory(one, channel, asked) == expected
    wait_until(lambda: from_memory(two, channel, asked) == expected, "the news of the purge")
    reads = two.metric("longline_store_reads_total")
    assert from_memory(two, channel, "4" + where)["updates"] == [{"n": 5}]
    assert two.metric("longline_store_reads_total") == reads, "it is still in memory"
    push_some(two, channel, 6, 6)
    assert purge(two, channel) == 6
    for server in pair:
        wait_until(lambda: read(server, channel, "ts=5") == {"ok": True, "ts": 6, "missed": 1, "updates": []}, "the news")


def test_who_misses_the_news_learns_it_later(redis, start):
    """It was cut off meanwhile: here, nobody is told. Its memory is void as soon as it hears again."""
    redis.command("ACL", "SETUSER", "mute", "on", ">x", "~*", "+@all", "resetchannels")
    one, two = start(**redis.settings(REDIS_USER="mute", REDIS_PASS="x")), start(**redis.settings())
    two.channels |= one.channels
    healthy(two)
    channel = two.channel()
    push_some(two, channel, 1, 5)
    load(two, channel, 5)
    clients = waiting(two, channel, 5)
    assert purge(one, channel, "?upto=4") == 4
    assert "redis purged a channel, but may not tell of it" in one.log()
    expected = {"ok": True, "ts": 5, "missed": 2, "updates": [{"n": 5}]}
    assert read(two, channel, "ts=2") == expected, "one that does not wait asks Redis"
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: from_memory(two, channel, 2) == expected, "the purge to be known")
    assert two.metric("longline_polls_parked") == 5
    push_some(two, channel, 6, 6)
    check_told(clients, channel, 6)


def test_how_to_rid_the_files_of_it(redis_servers, start):
    """As docs/scaling.md says."""
    redis = redis_servers.start(appendonly="yes", save="3600 100000")
    server = start(**redis.settings())
    healthy(server)
    channel = server.channel()
    server.push(channel, json.dumps({"token": CANARY}))
    redis.command("SAVE")
    assert purge(server, channel) == 1

    def files():
        return {path.suffix for path in redis.directory.rglob("*.[ar][od][fb]") if CANARY.encode() in path.read_bytes()}

    assert files() == {".aof", ".rdb"}
    redis.command("BGREWRITEAOF")
    wait_until(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == "0", "the file to be rewritten")
    assert redis.info("persistence")["aof_last_bgrewrite_status"] == "ok"
    redis.command("BGSAVE")
    wait_until(lambda: redis.info("persistence")["rdb_bgsave_in_progress"] == "0", "the snapshot")
    wait_until(lambda: not files(), "the old files to go")


def test_a_purge_that_is_refused(redis_servers, redis, start):
    server = start(**redis.settings(REDIS_TIMEOUT=3000))
    healthy(server)
    channel = server.channel()
    push_some(server, channel, 1, 2)
    assert purge(server, channel, "?upto=1") == 1
    with redis.frozen():
        assert refusal(server.request("DELETE", channel)) == NO_ANSWER
    wait_until(lambda: read(server, channel)["updates"] == [], "what was asked for")
    push_some(server, channel, 3, 3)
    master = redis_servers.start()
    redis.command("REPLICAOF", HOST, master.port)
    assert refusal(server.request("DELETE", channel)) == READ_ONLY
    redis.command("REPLICAOF", "NO", "ONE")
    redis.kill9()
    away(server)
    assert refusal(server.request("DELETE", channel)) == UNREACHABLE


def test_a_purge_waits_for_replicas(redis_servers, redis, start):
    replica = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    server = start(**redis.settings(REDIS_WAIT="1:3000"))
    healthy(server)
    channel = server.channel()
    server.push(channel, json.dumps(CANARY))
    assert purge(server, channel) == 1
    assert canaries(replica) == []
    server.push(channel, json.dumps(CANARY))
    with replica.frozen():
        assert refusal(server.request("DELETE", channel)) == NOT_REPLICATED
    assert purge(server, channel) == 2
