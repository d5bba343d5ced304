"""Many operations at once over Redis: what goes in one command and what becomes of each, and that those that wait hold nobody up."""

import contextlib
import json
import re
import signal
import time
from pathlib import Path

import pytest

from fake_redis import HOST, FakeNode
from http_client import Closed, request_bytes
from load import refusal
from longline_server import PATIENCE_S, wait_until
from redis_server import DAMAGED, NO_ACCESS, OUT_OF_MEMORY, RedisError
from swarm import Swarm
from test_redis import P, commands_of, healthy, names
from test_redis_damage import COMMANDS, USER, contents, lengths

MIB = 1 << 20


@pytest.fixture
def server(redis, start):
    redis.command("ACL", "SETUSER", USER, "on", ">x", "~*", "&*", "+@all")
    server = start(CHANNEL_STORAGE_MAXSIZE=3000, **redis.settings(REDIS_USER=USER, REDIS_PASS="x"))
    healthy(server)
    server.push(server.channel())  # the script is loaded
    return server


@contextlib.contextmanager
def stopped(server):
    """What is sent meanwhile, the server finds in one turn of its loop."""
    server.send_signal(signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", "the stop")
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def push_together(server, channels, bodies=None):
    """One push to each channel of the list, all at once; the replies in that order."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in channels]
        for client in clients:
            client.send_request("HEAD", "/")
            client.read_reply(has_body=False)
        with stopped(server):
            for i, (client, channel) in enumerate(zip(clients, channels)):
                client.send_request("POST", channel, bodies[i] if bodies else '{"n":%d}' % i)
        return [client.read_reply() for client in clients]


def test_pushes_of_a_turn_are_one_command(redis, server):
    channels = [server.channel() for _ in range(40)]
    replies = []
    seen = commands_of(redis, lambda: replies.extend(push_together(server, channels)))
    assert [(reply.status, reply.total) for reply in replies] == [(200, 1)] * 40
    assert seen["EVALSHA"] <= 3
    assert [server.get(channel).updates for channel in channels] == [[{"n": i}] for i in range(40)]


def test_pushes_of_a_turn_to_one_channel_get_their_ids_in_a_row(redis, server):
    channel, other = server.channel(), server.channel()
    server.push(channel, '{"n":-1}')
    replies = push_together(server, [channel, other] * 20)
    assert {reply.status for reply in replies} == {200}
    assert sorted(reply.total for reply in replies[::2]) == list(range(2, 22))
    assert sorted(reply.total for reply in replies[1::2]) == list(range(1, 21))
    for which, first in ((0, 2), (1, 1)):
        stored = server.get(f"{(channel, other)[which]}?ts={first - 1}").updates
        said = {reply.total: i for i, reply in enumerate(replies) if i % 2 == which}
        assert [u["n"] for u in stored] == [said[ts] for ts in sorted(said)]
    assert len(set(lengths(redis, channel))) == 1


def test_polls_hear_of_each_update_of_a_call(redis, server, start):
    other = start(**redis.settings())
    channel = server.channel()
    with other.client() as client:
        client.send_request("GET", channel + "?sleep=60")
        other.wait_for_parked(1)
        seen, ts = [], 0
        replies = push_together(server, [channel] * 30)
        while ts < 30:
            page = client.read_reply().json() if not ts else other.get(f"{channel}?ts={ts}&sleep=60").json()
            assert "missed" not in page and page["ts"] > ts
            seen += [u["n"] for u in page["updates"]]
            ts = page["ts"]
    assert seen == [i for _, i in sorted((reply.total, i) for i, reply in enumerate(replies))]


def test_a_damaged_channel_fails_alone(redis, server):
    channels = [server.channel() for _ in range(30)]
    for channel in channels:
        server.push(channel)
    damaged = {3: "counter", 0: "meta", 17: "updates", 29: "total", 18: "full"}
    for i, what in damaged.items():
        meta, total, updates = names(channels[i])
        key = {"meta": meta, "updates": updates}.get(what, total)
        redis.command("DEL", key)
        if what in ("counter", "full"):
            redis.command("SET", key, {"counter": "07", "full": 2**53 - 1}[what])
        else:
            redis.command("HSET", key, "x", "y")
    before = contents(redis)
    replies = []
    seen = commands_of(redis, lambda: replies.extend(push_together(server, channels)))
    assert seen["EVALSHA"] <= 3
    for i, reply in enumerate(replies):
        if i in damaged:
            assert refusal(reply) == DAMAGED
            assert all(redis.command("DUMP", key) == before.get(key) for key in names(channels[i]))
        else:
            assert (reply.status, reply.total) == (200, 2)
            assert lengths(redis, channels[i]) == (2, 2, 2)


def test_a_channel_that_the_user_may_not_write_fails_alone(redis, server):
    channels = [server.channel() for _ in range(12)]
    allowed = [f"~{P}*:{channel[1:]}" for i, channel in enumerate(channels) if i != 5]
    redis.command("ACL", "SETUSER", USER, "resetkeys", *allowed)
    replies = push_together(server, channels)
    assert [reply.status for reply in replies] == [200] * 5 + [503] + [200] * 6
    assert refusal(replies[5]) == NO_ACCESS
    assert [lengths(redis, channel) for channel in channels] == [(1, 1, 1)] * 5 + [(0, 0, 0)] + [(1, 1, 1)] * 6


@pytest.mark.parametrize("lacks", ["", "-get -incr"], ids=["all rights", "without rights that it can do without"])
def test_what_redis_refuses_it_refuses_of_all(redis, server, lacks):
    redis.command("ACL", "SETUSER", USER, *lacks.split())
    channels = [server.channel() for _ in range(12)]
    before = contents(redis)
    redis.config("maxmemory", 1)
    assert {refusal(reply) for reply in push_together(server, channels)} == {OUT_OF_MEMORY}
    assert contents(redis) == before


def test_scripts_flushed_before_a_call_refuse_nothing(redis, server):
    channels = [server.channel() for _ in range(12)] * 2
    redis.command("SCRIPT", "FLUSH")
    assert sorted(reply.total for reply in push_together(server, channels)) == [1] * 12 + [2] * 12


def test_a_user_who_may_not_incrby_needs_incr_only(redis, server):
    channel = server.channel()
    redis.command("ACL", "SETUSER", USER, "-incrby")
    assert sorted(reply.total for reply in push_together(server, [channel] * 9)) == list(range(1, 10))
    assert lengths(redis, channel) == (9, 9, 9)


# --- the script by itself ---


@pytest.fixture
def script(redis, server):
    """run(counts, old): the script of a push, run as the user, for so many updates of each channel. `old`: as a Redis before 7 runs it,
    where a script cannot look at rights."""
    redis.command("SCRIPT", "FLUSH")
    with redis.connect() as monitor:
        monitor.command("MONITOR")
        server.push(server.channel())
        found = wait_until(lambda: re.search(r'"EVAL" "(local (?:[^"\\]|\\.)*)"', monitor.read()), "the script of a push")
    text = found[1].encode().decode("unicode_escape")
    assert "redis.acl_check_cmd" in text

    def run(counts, old=False, kept=3000, size=0):
        keys = [key for channel in counts for key in (names(channel)[1], names(channel)[2], names(channel)[0])]
        words = ["EVAL", text.replace("redis.acl_check_cmd", "nil") if old else text, len(keys), *keys]
        words += [kept, 10**9, 10**9 + 10**7, 10**10, "PUBLISH"]
        for channel, count in counts.items():
            bodies = [json.dumps(i) + " " * size for i in range(count)]
            words += [P + "news:" + channel[1:], count, *bodies, *(f"{len(body)} -1 0 0 4\nPOST" for body in bodies)]
        with redis.connect() as client:
            client.command("AUTH", USER, "x")
            return client.command(*words)

    return run


def test_a_batch_is_stored_in_one_call(redis, server, script):
    channel, other = server.channel(), server.channel()
    server.push(channel, "[0]")
    with redis.connect() as listener:
        listener.command("SUBSCRIBE", P + "news:" + channel[1:])
        _, told, trouble, *totals = script({channel: 2500, other: 3})
        assert (told, trouble, totals) == ("", "", [2501, 3])
        news = [listener.read()[2] for _ in range(2500)]
    assert [(int(text.split()[0]), json.loads(text.split("POST")[1])) for text in news] == [(i + 2, i) for i in range(2500)]
    assert lengths(redis, channel) == (2501, 2501, 2501)
    assert redis.command("PTTL", names(channel)[1]) > 10**9
    assert server.get(channel + "?limit=10000").updates == [[0], *range(2500)]
    assert server.get(other).updates == [0, 1, 2]


def test_a_batch_that_is_more_than_is_kept(redis, server, script):
    channel = server.channel()
    assert script({channel: 2500}, kept=1000)[3] == 2500
    assert lengths(redis, channel) == (1000, 2500, 1000)
    assert script({channel: 40}, kept=1000)[3] == 2540
    assert script({channel: 40}, kept=1000)[3] == 2580
    assert lengths(redis, channel) == (1000, 2580, 1000)


@pytest.mark.parametrize("old", [False, True], ids=["Redis 7", "before"])
def test_a_batch_that_passes_the_last_counter_is_refused_whole(redis, server, script, old):
    channel = server.channel()
    redis.command("SET", names(channel)[1], 2**53 - 3)
    with pytest.raises(RedisError, match="DAMAGED"):
        script({channel: 3}, old)
    assert redis.keys(f"*{channel[1:]}") == [names(channel)[1]]
    assert script({channel: 2}, old)[3] == 2**53 - 1


@pytest.mark.parametrize("old", [False, True], ids=["Redis 7", "before"])
@pytest.mark.parametrize("lacks", [*COMMANDS, "incr -lpop", "incr -lpop -incrby", "rpush -lpop"])
def test_a_push_without_a_right_is_whole_or_nothing(redis, server, script, lacks, old):
    known, fresh, trimmed = (server.channel() for _ in range(3))
    server.push(known)
    server.push(trimmed)
    redis.command("DEL", names(trimmed)[2])
    redis.command("ACL", "SETUSER", USER, *("-" + command for command in lacks.replace("-", "").split() if command != "evalsha"))
    for channel, count in ((known, 1), (fresh, 1), (trimmed, 1), (known, 3), (server.channel(), 3)):
        before = contents(redis)
        was = lengths(redis, channel)
        try:
            total = script({channel: count}, old)[3]
            assert lengths(redis, channel) == (was[0] + count, was[1] + count, was[2] + count) and total == was[1] + count
        except RedisError:
            assert contents(redis) == before


# --- many that wait ---


def cpu_ns(server):
    return int(Path(f"/proc/{server.pid}/schedstat").read_text().split()[0])


def test_pushes_that_wait_for_redis_cost_nothing_while_they_wait(redis, start):
    server = start(LOG_LEVEL="info", **redis.settings(REDIS_TIMEOUT=60_000))
    healthy(server)
    channels = [server.channel() for _ in range(100)]
    replies = []
    with Swarm(server.address) as swarm, server.client() as client:

        def one_by_one(count):
            """The CPU time that each of so many pushes takes, in a turn of its own."""
            before = cpu_ns(server)
            for i in range(count):
                push(i)
                client.send_request("HEAD", "/")
                client.read_reply(has_body=False)
            return (cpu_ns(server) - before) / count

        def push(i):
            wire = swarm.open(lambda wire, reply: replies.append(reply))
            wire.send(request_bytes("POST", channels[i % 100], b"{}"))

        redis.kill9()
        few = one_by_one(400)
        for i in range(8000):
            push(i)
        many = one_by_one(400)
        print(f"\n{few / 1000:.0f} µs a push, {many / 1000:.0f} µs beside 8,000 that wait")
        assert many < 3 * few
        assert not replies
        redis.start()
        swarm.run(lambda: len(replies) == 8800, 120, "the replies")
    assert {reply.status for reply in replies} == {200}
    for channel in channels:
        assert lengths(redis, channel) == (88, 88, 88)


@pytest.mark.timed
def test_pushes_that_are_given_up_together_hold_nobody_up(redis, start):
    """While they get their 503, another client is served in between."""
    server = start(LOG_LEVEL="info", **redis.settings(REDIS_TIMEOUT=2000))
    healthy(server)
    channel, replies = server.channel(), []
    with Swarm(server.address) as swarm, server.client() as other:
        redis.kill9()
        wires = [swarm.open(lambda wire, reply: replies.append(reply.status)) for _ in range(6000)]
        with stopped(server):
            for wire in wires:
                wire.send(request_bytes("POST", channel, b"{}"))
        given_up = set()
        deadline = time.monotonic() + 120
        while 6000 not in given_up:
            assert time.monotonic() < deadline, sorted(given_up)
            counts = re.findall(r"longline_pushes_refused_total{[^}]*} (\d+)", other.get("/-/metrics").text)
            given_up.add(sum(map(int, counts)))
        swarm.run(lambda: len(replies) == 6000, 120, "the replies")
    assert set(replies) == {503}
    assert len(given_up - {0, 6000}) >= 4, given_up


def test_long_replies_are_asked_for_a_few_at_a_time(redis, start):
    """Neither Redis nor longline holds more than some of them, and a poll that has to wait its turn is not refused."""
    server = start(BUFFER_SIZE=2048, **redis.settings(REDIS_TIMEOUT=10_000))  # how long they wait is not the question
    healthy(server)
    channel = server.channel()
    for i in range(4):
        server.push(channel, json.dumps(["x" * (MIB // 4 - 100)]))
    polls = 120
    replies = []
    redis.command("CONFIG", "RESETSTAT")
    before = int(redis.info("memory")["used_memory"])
    with Swarm(server.address) as swarm:
        wires = [swarm.open(lambda wire, reply: replies.append((reply.status, len(reply.body)))) for _ in range(polls)]
        with stopped(server):
            for wire in wires:
                wire.send(request_bytes("GET", channel))
        swarm.run(lambda: len(replies) == polls, 120, "the replies")
    assert {status for status, _ in replies} == {200}
    assert min(size for _, size in replies) > MIB // 2
    peak = int(redis.info("memory")["used_memory_peak"]) - before
    print(f"\nRedis held {peak / MIB:.0f} MiB")
    assert peak < 64 * MIB


def test_what_a_large_cluster_needs_is_set_aside(redis, start):
    """Of few descriptors a quarter, beside 48: connections do not take them."""
    server = start(descriptors=400, **redis.settings())
    healthy(server)
    with Swarm(server.address) as swarm:
        for _ in range(300):
            swarm.open(lambda wire, reply: None).send(request_bytes("GET", "/-/health"))
        swarm.run(lambda: "connection limit reached" in server.log(), PATIENCE_S, "as many as there is room for")
        assert re.search(r"connection limit reached +connections=252\b", server.log())


# --- the end ---


class AskingNode(FakeNode):
    """It sends every push to a node that never answers."""

    def answer(self, name, words):
        return Exception(f"ASK 5 {HOST}:{self.elsewhere.port}") if name == "EVALSHA" else super().answer(name, words)


def test_a_stop_while_a_push_is_redirected(start):
    with AskingNode() as node, FakeNode() as elsewhere:
        elsewhere.hush("")
        node.view, node.elsewhere = [node], elsewhere
        server = start(**node.settings(REDIS_TIMEOUT=60_000))
        with server.client() as client:
            client.send_request("POST", server.channel(), "{}")
            wait_until(lambda: node.answered["EVALSHA"], "the redirection")
            server.stop()
            with contextlib.suppress(Closed):
                assert client.read_reply().status == 503
