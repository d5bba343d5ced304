"""One Redis, many servers: what lies in it and for how long, and how news travel. Outages and access have their own files."""

import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from http_client import request_bytes
from load import refusal
from longline_server import PATIENCE_S, wait_until
from redis_server import HOST, NOT_REPLICATED, UNREACHABLE
from swarm import Swarm, push_all

P = "lpolling:"
DAY_S = 86400
WEEK_S = 7 * DAY_S
MIB = 1 << 20
MIGRATION = Path(__file__).parents[2] / "docs/migration.md"


def names(channel):
    """The three keys of a channel."""
    return [f"{P}{kind}:{channel[1:]}" for kind in ("meta", "total", "updates")]


def all_names(channel):
    """Those and the key that names its epoch."""
    return [f"{P}epoch:{channel[1:]}", *names(channel)]


def healthy(server):
    """The health that says that Redis is there; waits for it."""
    return wait_until(lambda: (r := server.get("/-/health")).status == 200 and r, "Redis to be there").json()


def away(server):
    """The health that says that Redis is away; waits for it."""
    health = wait_until(lambda: (r := server.get("/-/health")).status == 503 and r, "Redis to be away").json()
    assert (health["ok"], health["status"], health["provider"]) == (False, "store away", "redis") and health["store"], health
    return health


def push_when_it_can(server, channel, body="{}"):
    """The id of the first push that is taken."""
    return wait_until(lambda: (reply := server.post(channel, body)).status == 200 and reply, "a push to be taken").total


def check_serves(server):
    """A push and a parked poll; the channel, which holds one update."""
    healthy(server)
    channel = server.channel()
    with server.client() as client:
        client.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        assert server.push(channel, '{"n":1}') == 1
        assert client.read_reply().updates == [{"n": 1}]
    return channel


# --- lua-long-polling's layout ---


def upstream_push(redis, channel, text, max_updates=30, ttl=WEEK_S):
    """The commands of lua-long-polling's script for a push, in its order and at once, as a script's are; the total."""
    _, total, updates = names(channel)
    redis.command("MULTI")
    redis.command("INCR", total)
    redis.command("EXPIRE", total, ttl)
    redis.command("RPUSH", updates, text)
    redis.command("LTRIM", updates, -max_updates, -1)
    redis.command("EXPIRE", updates, ttl)
    return redis.command("EXEC")[0]


def upstream_poll(redis, channel, offset):
    """The commands of lua-long-polling's script for a poll: (texts, total)."""
    _, total, updates = names(channel)
    total = int(redis.command("GET", total) or 0)
    need = total - offset
    return (redis.command("LRANGE", updates, -need, -1) if need > 0 else []), total


def test_a_push_is_laid_out_as_upstream_would(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    epoch, meta, total, updates = all_names(channel)
    server.push(channel + "?q=1", '{"a": 1.10}')
    server.push(channel, "a=1", {"Content-Type": "application/x-www-form-urlencoded"})
    server.push(channel, b"\xff\x00", {"Content-Type": "application/octet-stream"})
    assert redis.keys() == [epoch, meta, total, updates]
    assert redis.command("GET", total) == "3"
    assert redis.command("LRANGE", updates, 0, -1) == ['{"a": 1.10,"q":"1"}', '{"a":"1"}', '{"body_base64":"/wA="}']
    assert redis.command("LLEN", meta) == 3


@pytest.mark.parametrize("pushed,kept", [(5, 5), (100, 30)])
def test_upstreams_own_commands_read_what_longline_wrote(redis, start, pushed, kept):
    server = start(CHANNEL_STORAGE_MAXSIZE=30, **redis.settings())
    channel = server.channel()
    texts = ['{"i": %d.0}' % i for i in range(1, pushed + 1)]
    for text in texts:
        server.push(channel, text)
    seen, total = upstream_poll(redis, channel, 0)
    assert (seen[-kept:], total) == (texts[-kept:], pushed)
    assert seen == texts[-len(seen):] and len(seen) <= kept + 8, "lists are trimmed 8 over the bound"
    assert upstream_poll(redis, channel, pushed - 2) == (texts[-2:], pushed)
    assert upstream_poll(redis, channel, pushed) == ([], pushed)
    assert upstream_poll(redis, channel, pushed + 1) == ([], pushed)


def test_a_database_that_upstream_filled_is_served_as_it_stands(redis, start):
    server = start(**redis.settings())
    full, short, empty = (server.channel() for _ in range(3))
    texts = ['{"i":%d,"t":"\\u00e9 é"}' % i for i in range(1, 41)]
    for text in texts:
        upstream_push(redis, full, text)
    upstream_push(redis, short, "[]")
    before = {key: redis.command("DUMP", key) for key in redis.keys()}

    page = server.get(full)
    assert page.json() == {"ok": True, "ts": 40, "updates": [json.loads(text) for text in texts[10:]], "missed": 10}
    assert f'"updates":[{",".join(texts[10:])}]' in page.text, "byte for byte"
    assert page.total == 40
    assert server.get(full + "?ts=38").updates == [json.loads(text) for text in texts[38:]]
    assert server.get(full + "?ts=-1").updates == [json.loads(texts[-1])]
    assert server.get(full + "?ts=41&sleep=60").json() == {"ok": True, "ts": 40, "updates": [], "reset": True}
    assert server.get(short).updates == [[]]
    assert server.get(empty).total == 0
    assert {key: redis.command("DUMP", key) for key in redis.keys()} == before
    assert WEEK_S - 100 < redis.command("TTL", names(full)[1]) <= WEEK_S, "a poll is no reason to keep anything longer"

    # It goes on where upstream stopped.
    assert server.push(full, '{"i":41}') == 41
    assert server.get(full + "?ts=39").updates == [json.loads(texts[39]), {"i": 41}]


def test_what_upstream_pushed_has_a_bare_full_view(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    upstream_push(redis, channel, '{"a": 1.10}')
    assert server.get(channel + "?view=full").updates == [
        {"ts": 1, "at": 0, "method": "POST", "query": "", "headers": {}, "body": {"a": 1.10}, "raw": '{"a": 1.10}'}
    ]


def test_upstream_and_longline_may_push_in_turns(redis, start):
    """As while one takes the other's place. Every update has the headers of its own request, or none."""
    server = start(CHANNEL_STORAGE_MAXSIZE=30, **redis.settings())
    channel = server.channel()
    rng = random.Random(3)
    ours = [rng.random() < 0.5 for _ in range(100)]
    for i, by_longline in enumerate(ours, start=1):
        if by_longline:
            assert server.push(channel, f"text {i}", {"Content-Type": "text/plain", "X-I": str(i)}) == i
        else:
            assert upstream_push(redis, channel, '{"body":"text %d"}' % i) == i
        for item in server.get(f"{channel}?ts={max(0, i - 10)}&view=full").updates:
            ts = item["ts"]
            assert item["body"] == {"body": f"text {ts}"}
            assert item["headers"].get("x-i") == (str(ts) if ours[ts - 1] else None)
            assert item["raw"] == (f"text {ts}" if ours[ts - 1] else '{"body":"text %d"}' % ts)
    # Lists are trimmed 8 over the bound.
    assert 30 <= redis.command("LLEN", names(channel)[2]) <= 38
    assert redis.command("LLEN", names(channel)[0]) <= 38


def test_the_steps_of_the_migration(redis_servers, start):
    """docs/migration.md: the settings file as it stands there, consumers that go on with the ts they have, and the way back."""
    block = re.search(r"^ +```sh\n(.*?)^ +```", MIGRATION.read_text(), re.M | re.S)[1]
    settings = dict(line.strip().split("=", 1) for line in block.splitlines())
    assert settings["DATA_PROVIDER"] == "redis" and settings["REDIS_PREFIX"] == P
    redis = redis_servers.start(requirepass=settings["REDIS_PASS"])
    keep, ttl_s = int(settings["CHANNEL_STORAGE_MAXSIZE"]), int(settings["REDIS_DATA_TTL"])
    server = start(**{**settings, "REDIS_HOST": HOST, "REDIS_PORT": redis.port})
    full, quiet = server.channel(), server.channel()
    server.stop()
    for i in range(1, 51):
        upstream_push(redis, full, '{"i":%d}' % i, keep, ttl_s)
    upstream_push(redis, quiet, '{"i":1}', keep, ttl_s)

    server.start()
    assert healthy(server)["status"] == "serving"
    assert [update["i"] for update in server.get(f"{full}?ts=45").updates] == [46, 47, 48, 49, 50]
    with server.client() as client:
        client.send_request("GET", f"{quiet}?ts=1&sleep=60")
        server.wait_for_parked(1)
        assert server.push(quiet, '{"i":2}') == 2
        assert client.read_reply().updates == [{"i": 2}]
    assert server.push(full, '{"i":51}') == 51
    page = server.get(full).json()
    assert (page["missed"], [update["i"] for update in page["updates"]]) == (51 - keep, list(range(52 - keep, 52)))

    server.stop()
    assert upstream_poll(redis, quiet, 1) == (['{"i":2}'], 2)
    assert upstream_poll(redis, full, 50) == (['{"i":51}'], 51)
    assert upstream_push(redis, full, '{"i":52}', keep, ttl_s) == 52


def test_a_migration_with_an_empty_prefix_takes_the_flag(redis, start):
    """lua-long-polling takes REDIS_PREFIX= for no prefix; to longline an empty variable is none."""
    redis.command("INCR", "total:" + "x" * 22)
    redis.command("RPUSH", "updates:" + "x" * 22, '{"i":1}')
    by_flag = start(flags=["--redis-prefix="], **redis.settings())
    assert by_flag.get("/" + "x" * 22).updates == [{"i": 1}]
    assert start(**redis.settings(REDIS_PREFIX="")).get("/" + "x" * 22).updates == []


def test_a_push_of_upstreams_is_read_with_the_next_of_longlines(redis, start):
    """Upstream tells no news; the hole that it leaves in the ids is read."""
    server = start(**redis.settings())
    channel = server.channel()
    with server.client() as plain, server.client() as full:
        plain.send_request("GET", channel + "?sleep=60")
        full.send_request("GET", channel + "?sleep=60&view=full")
        server.wait_for_parked(2)
        upstream_push(redis, channel, '{"n":1}')
        assert server.push(channel, '{"n":2}') == 2
        assert plain.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"n": 1}, {"n": 2}]}
        assert [(item["ts"], item["at"] > 0) for item in full.read_reply().updates] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    "target,name",
    [
        ("/a%20b-0123456", "a b-0123456"),
        ("/%7Bx%7D-01234567", "{x}-01234567"),
        ("/100%25-01234567", "100%-01234567"),
        ("/%D0%BF%D1%80%D0%B8-0123", "при-0123"),
        ("/bot1:AB*%3F[x]-01234567", "bot1:AB*?[x]-01234567"),
        ("/%FF%FE-01234567", "\udcff\udcfe-01234567"),
        ("/" + "n" * 256, "n" * 256),
    ],
)
def test_the_name_stands_in_the_keys_as_it_is(redis, start, target, name):
    first, second = start(**redis.settings()), start(**redis.settings())
    with second.client() as client:
        client.send_request("GET", target + "?sleep=60")
        second.wait_for_parked(1)
        assert redis.command("PUBSUB", "CHANNELS") == [f"{P}news:{name}"]
        first.push(target, '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]
    assert redis.keys() == all_names("/" + name)


def test_a_prefix_of_ones_own(redis, start):
    first, second = (start(**redis.settings(REDIS_PREFIX=prefix)) for prefix in ("", "two::"))
    channel = first.channel()
    second.channels |= first.channels
    assert [first.push(channel), second.push(channel), second.push(channel)] == [1, 1, 2]
    assert redis.keys() == sorted([*all_names(channel), *("two::" + name.removeprefix(P) for name in all_names(channel))])
    assert (first.get(channel).total, second.get(channel).total) == (1, 2)


# --- how long ---


def test_everything_lives_as_long_as_data_ttl_and_the_counter_a_year(redis, start):
    server = start(DATA_TTL=1000, **redis.settings())
    channel = server.channel()
    epoch, meta, total, updates = all_names(channel)
    for _ in range(2):
        server.push(channel)
        assert 940 <= redis.command("TTL", updates) <= 1010  # a hundredth more, so that it need not be set each time
        assert redis.command("PEXPIRETIME", meta) == redis.command("PEXPIRETIME", updates)
        for key in (epoch, total):
            assert 365 * DAY_S - 60 <= redis.command("TTL", key) <= 365 * DAY_S
        for key in (epoch, meta, total, updates):
            redis.command("EXPIRE", key, 10)  # the next push counts from then


def test_the_counter_lives_no_shorter_than_the_updates(redis, start):
    server = start(DATA_TTL=400 * DAY_S, **redis.settings())
    channel = server.channel()
    server.push(channel)
    meta, total, updates = (redis.command("PEXPIRETIME", key) for key in names(channel))
    assert meta == updates <= total
    assert 400 * DAY_S - 60 <= redis.command("TTL", names(channel)[1]) <= 405 * DAY_S


def test_ids_go_on_when_all_updates_are_gone(redis, start):
    server = start(DATA_TTL=1, **redis.settings())
    channel = server.channel()
    for i in range(1, 6):
        server.push(channel)
    wait_until(lambda: redis.keys() == [all_names(channel)[0], names(channel)[1]], "the updates to expire")
    assert server.get(channel).json() == {"ok": True, "ts": 5, "updates": [], "missed": 5}
    assert server.get(channel + "?ts=5&view=full").json() == {"ok": True, "ts": 5, "updates": []}
    last = 5

    def is_kept():
        nonlocal last
        last += 1
        assert server.push(channel, '{"n":%d}' % last) == last
        page = server.get(f"{channel}?ts={last - 2}").json()
        assert page == {"ok": True, "ts": last, "updates": [{"n": last}], "missed": 1} or page["updates"] == []
        return page["updates"]

    wait_until(is_kept, "a poll within a second of its push")


def test_at_most_channel_storage_maxsize_are_kept(redis, start):
    server = start(CHANNEL_STORAGE_MAXSIZE=10, **redis.settings())
    channel = server.channel()
    for i in range(1, 36):
        server.push(channel, '{"i":%d}' % i, {"X-I": str(i)})
    meta, total, updates = names(channel)
    assert (redis.command("LLEN", updates), redis.command("LLEN", meta), redis.command("GET", total)) == (10, 10, "35")
    page = server.get(channel + "?view=full").json()
    assert page["missed"] == 25
    assert [(item["ts"], item["headers"]["x-i"]) for item in page["updates"]] == [(i, str(i)) for i in range(26, 36)]


@pytest.mark.parametrize("kept,over", [(1, 0), (15, 0), (16, 8), (30, 8), (160, 10)])
def test_lists_are_trimmed_in_lots(redis, start, kept, over):
    """docs/redis.md: a small count is kept exactly, a larger one is exceeded by some."""
    server = start(CHANNEL_STORAGE_MAXSIZE=kept, **redis.settings())
    channel = server.channel()
    meta, _, updates = names(channel)
    for pushed in range(1, kept + over + 2):
        server.push(channel)
        length = pushed if pushed <= kept + over else kept
        assert (redis.command("LLEN", updates), redis.command("LLEN", meta)) == (length, length)
    assert len(server.get(channel + "?limit=1000").updates) == kept


def test_a_smaller_count_counts_from_the_next_push(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    for _ in range(50):
        server.push(channel)
    smaller = start(CHANNEL_STORAGE_MAXSIZE=5, **redis.settings())
    smaller.push(channel)
    meta, _, updates = names(channel)
    assert (redis.command("LLEN", updates), redis.command("LLEN", meta)) == (5, 5)
    assert server.get(channel).json()["missed"] == 46


@pytest.mark.parametrize("has_gap", [False, True], ids=["aligned", "upstream pushed too"])
@pytest.mark.parametrize("limit", [1, 100])
def test_a_page_of_large_updates_is_bounded_within_redis(redis, start, limit, has_gap):
    """Redis reads and sends one page, however much the channel holds."""
    server = start(MAX_BODY=MIB, **redis.settings())
    channel = server.channel()
    body = json.dumps({"x": "y" * 300_000})
    for _ in range(20):
        server.push(channel, body)
    if has_gap:
        upstream_push(redis, channel, body)
    before = int(redis.info("stats")["total_net_output_bytes"])
    page = server.get(f"{channel}?limit={limit}")
    sent = int(redis.info("stats")["total_net_output_bytes"]) - before
    assert len(page.updates) == min(limit, 3)
    assert sent < (len(page.updates) + 1) * 300_000 + 100_000


def test_the_full_view_is_the_same_from_every_server_and_after_a_restart(redis, start):
    first, second = start(**redis.settings()), start(**redis.settings())
    channel = first.channel()
    second.channels |= first.channels
    for body in (b'{"a": 1}', b"a=1&b=%20", b"\xff\x00", b"", b"x" * 100_000):
        first.push(channel + "?q=1", body, {"Content-Type": "application/x-www-form-urlencoded", "X-E": "caf\xe9"})
    before = first.get(channel + "?view=full").text
    assert json.loads(before)["updates"][2]["raw_base64"] == "/wA="
    assert second.get(channel + "?view=full").text == before
    first.kill9()
    first.start()
    assert first.get(channel + "?view=full").text == before


# --- news ---


def test_a_push_on_one_of_three_servers_wakes_the_1000_polls_of_each(redis, start):
    servers = [start(LOG_LEVEL="info", **redis.settings()) for _ in range(3)]
    channel = servers[0].channel()
    woken = Counter()
    with Swarm() as swarm:
        for server in servers:
            server.channels |= servers[0].channels
            for _ in range(1000):
                wire = swarm.open(lambda _wire, reply: woken.update([reply.body]), address=server.address)
                wire.send(request_bytes("GET", channel + "?sleep=60"))
        swarm.run(lambda: all(server.metric("longline_polls_parked") == 1000 for server in servers), 60, "parking")
        assert redis.command("PUBSUB", "NUMSUB", P + "news:" + channel[1:])[1] == 3, "one subscription a server"
        servers[0].push(channel, '{"n":1}')
        swarm.run(lambda: woken.total() == 3000, 60, "waking")
    assert woken == {b'{"ok":true,"ts":1,"updates":[{"n":1}]}': 3000}


def test_every_poll_gets_the_view_that_it_asked_for_from_every_server(redis, start):
    first, second = start(**redis.settings()), start(**redis.settings())
    channel = first.channel()
    with second.client() as plain, second.client() as full:
        plain.send_request("GET", channel + "?sleep=60")
        full.send_request("GET", channel + "?sleep=60&view=full")
        second.wait_for_parked(2)
        first.push(channel + "?q=1", "text \x00 é", {"Content-Type": "text/plain", "X-Event": "e"})
        assert plain.read_reply().updates == [{"body": "text \x00 é", "q": "1"}]
        woken = full.read_reply().text
        assert woken == second.get(channel + "?view=full").text
        (item,) = json.loads(woken)["updates"]
    assert (item["raw"], item["query"], item["headers"]["x-event"]) == ("text \x00 é", "q=1", "e")


def test_200_channels_on_two_servers_do_not_disturb_each_other(redis, start):
    first, second = start(LOG_LEVEL="info", **redis.settings()), start(LOG_LEVEL="info", **redis.settings())
    channels = [first.channel() for _ in range(200)]
    second.channels |= first.channels
    got = {}
    with Swarm(second.address) as swarm:
        for channel in channels:
            wire = swarm.open(lambda _wire, reply, channel=channel: got.setdefault(channel, reply.updates))
            wire.send(request_bytes("GET", channel + "?sleep=60"))
        swarm.run(lambda: second.metric("longline_polls_parked") == 200, 60, "parking")
        assert second.metric("longline_store_watches") == 200
        for n, channel in enumerate(channels[:100]):
            first.push(channel, '{"n":%d}' % n)
        swarm.run(lambda: len(got) == 100, PATIENCE_S, "waking")
        assert second.metric("longline_polls_parked") == 100
    assert got == {channel: [{"n": n}] for n, channel in enumerate(channels[:100])}


def test_a_channel_without_polls_is_not_listened_to_for_long(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    assert redis.command("PUBSUB", "NUMSUB", P + "news:" + channel[1:])[1] == 1, "the next poll comes soon"
    server.wait_for_metric("longline_store_watches", 0)
    assert redis.command("PUBSUB", "CHANNELS") == []
    with server.client() as client:
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":2}')
        assert client.read_reply().updates == [{"n": 2}]


def test_a_poll_sees_what_any_server_acknowledged_before_it(redis, start):
    """However fresh the news: a poll is never behind an acknowledgement."""
    first, second = start(LOG_LEVEL="info", **redis.settings()), start(LOG_LEVEL="info", **redis.settings())
    channel = first.channel()
    second.channels |= first.channels
    for i in range(1, 501):
        assert first.push(channel) == i
        assert second.get(f"{channel}?ts={i - 1}&sleep={(0, 0.001)[i % 2]}").ts == i


# --- what it costs Redis ---


# What longline asks every few seconds: whether Redis is there, what it promises, what it would refuse.
HOUSEKEEPING = {"PING", "INFO", "CONFIG", "EVAL"}


def commands_of(redis, action):
    """The commands that came over TCP while `action` ran, counted; those that a script calls are not."""
    with redis.connect() as monitor:
        monitor.command("MONITOR")
        action()
        redis.command("ECHO", "that was all")
        seen = Counter()
        while '"that was all"' not in (line := monitor.read()):
            if client := re.match(r'[\d.]+ \[\d+ 127\.0\.0\.1:\d+\] "(\w+)"', line):
                seen[client[1].upper()] += 1
    return seen


def test_a_push_is_one_command(redis, start):
    server = start(LOG_LEVEL="info", **redis.settings())
    channels = [server.channel() for _ in range(10)]
    server.push(channels[0])
    redis.command("CONFIG", "RESETSTAT")

    def push():
        for i in range(1, 51):
            for channel in channels[1:]:
                assert server.push(channel) == i

    began = time.monotonic()
    seen = commands_of(redis, push)
    assert seen.pop("EVALSHA") == 450
    few = 15 + time.monotonic() - began
    assert seen.keys() <= HOUSEKEEPING and seen.total() < 2 * few, f"besides: {seen}"
    calls = redis.calls()
    assert calls["evalsha"] == 450 and calls.get("eval", 0) < few


def test_a_wake_needs_no_read(redis, start):
    servers = [start(**redis.settings()) for _ in range(2)]
    servers[0].push(servers[0].channel())  # the script is loaded
    channel = servers[0].channel()
    clients = [server.client() for server in servers for _ in range(5)]
    for client in clients:
        client.send_request("GET", channel + "?sleep=60")
    for server in servers:
        server.wait_for_parked(5)

    def push_and_wake():
        servers[0].push(channel, '{"n":1}')
        for client in clients:
            assert client.read_reply().updates == [{"n": 1}]

    seen = commands_of(redis, push_and_wake)
    assert seen["EVALSHA"] == 1
    assert seen.keys() <= {"EVALSHA"} | HOUSEKEEPING, seen
    for client in clients:
        client.close()


def test_a_flushed_script_is_loaded_again(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    for i in range(1, 20):
        if i % 3 == 0:
            redis.command("SCRIPT", "FLUSH")
        assert server.push(channel, '{"n":%d}' % i) == i
        assert server.get(f"{channel}?ts={i - 1}").updates == [{"n": i}]


def test_scripts_flushed_under_load_refuse_nothing(redis, start):
    server = start(LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=10_000, **redis.settings())
    channel = server.channel()
    count, flushes, totals = 2000, 0, []

    def answered(wire, reply):
        nonlocal flushes
        assert reply.status == 200, reply
        totals.append(reply.total)
        if len(totals) % 100 == 0:
            redis.command("SCRIPT", "FLUSH")
            flushes += 1
        wire.send(request_bytes("POST", channel, b"{}"))

    with Swarm(server.address) as swarm:
        for _ in range(32):
            swarm.open(answered).send(request_bytes("POST", channel, b"{}"))
        swarm.run(lambda: len(totals) >= count, 120, "the pushes")
    assert flushes >= count // 100
    assert len(set(totals)) == len(totals), "an id was given twice"


# --- what it promises ---


def log_reasons(server, event):
    """The reasons of all lines of this event."""
    return [a or b for a, b in re.findall(rf'{event} .*?reason=(?:"([^"]*)"|(\S+))', server.log())]


def test_health_says_what_this_redis_promises(redis_servers, start):
    redis = redis_servers.start(appendonly="yes", appendfsync="always")
    server = start(**redis.settings())
    health = healthy(server)
    assert (health["ok"], health["status"], health["provider"]) == (True, "serving", "redis")
    version = redis.info("server")["redis_version"]
    promise = f"redis {version}: appendonly yes, appendfsync always, 0 replicas, maxmemory-policy noeviction"
    assert health["store"] == promise
    assert re.search(r" info +redis ready", server.log())
    assert "redis may lose acknowledged updates" not in server.log()


def test_health_counts_the_replicas(redis_servers, redis, start):
    replica = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    assert ", 1 replica" in healthy(start(**redis.settings()))["store"]


@pytest.mark.parametrize(
    "settings,word",
    [
        ({"appendonly": "no"}, "appendonly"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "appendfsync"),
        ({"appendonly": "yes", "appendfsync": "no"}, "appendfsync"),
        ({"appendonly": "yes", "appendfsync": "always", "maxmemory_policy": "allkeys-lru", "maxmemory": "1gb"}, "maxmemory-policy"),
        ({"appendonly": "yes", "appendfsync": "always", "maxmemory_policy": "volatile-ttl", "maxmemory": "1gb"}, "maxmemory-policy"),
    ],
)
def test_a_redis_that_may_lose_updates_is_warned_of(redis_servers, start, settings, word):
    redis = redis_servers.start(**settings)
    server = start(**redis.settings())
    health = healthy(server)
    assert settings[word.replace("-", "_")] in health["store"]
    (reason,) = log_reasons(server, "warn +redis may lose acknowledged updates")
    assert word in reason


def test_metrics_of_the_store(redis, start):
    server = start(**redis.settings())
    check_serves(server)
    metrics = server.metrics()
    assert metrics["longline_store_up"] == 1
    assert metrics["longline_store_watches"] == 1
    assert metrics["longline_store_reconnects_total"] == 0
    assert metrics["longline_store_errors_total"] == 0


# --- replicas ---


def test_redis_wait_answers_200_only_when_enough_replicas_have_it(redis_servers, start):
    redis = redis_servers.start()
    server = start(**redis.settings(REDIS_WAIT="1:2000"))
    healthy(server)
    channel = server.channel()
    assert refusal(server.post(channel, '{"n":1}')) == NOT_REPLICATED
    assert server.get(channel).updates == [{"n": 1}], "it is stored"

    replica = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    total = push_when_it_can(server, channel)
    assert total >= 2
    for i in range(1, 50):
        assert server.push(channel) == total + i
        assert replica.command("GET", names(channel)[1]) == str(total + i)

    with replica.frozen(), server.client() as client:
        client.send_request("GET", f"{channel}?ts={total + 49}&sleep=60")
        server.wait_for_parked(1)
        assert refusal(server.post(channel, '{"n":2}')) == NOT_REPLICATED
        assert client.read_reply().updates == [{"n": 2}], "who polls gets what is stored"
    wait_until(lambda: server.post(channel).status == 200, "the replica to be back")


def test_pushes_that_no_replica_confirms_do_not_pile_up(redis_servers, start):
    """Each is answered in its time, and the answer tells whether it was stored."""
    redis = redis_servers.start()
    server = start(CHANNEL_STORAGE_MAXSIZE=100_000, **redis.settings(REDIS_WAIT="1:100"))
    healthy(server)
    channel = server.channel()
    answers = Counter()

    def answered(wire, reply):
        answers[refusal(reply)] += 1
        wire.send(request_bytes("POST", channel, b"{}"))

    with Swarm(server.address) as swarm:
        for _ in range(32):
            swarm.open(answered).send(request_bytes("POST", channel, b"{}"))
        swarm.run(lambda: sum(answers.values()) >= 320, 120, "the refusals")
    assert answers[NOT_REPLICATED] >= 32 and set(answers) <= {NOT_REPLICATED, UNREACHABLE}, answers
    stored = wait_until(lambda: (total := int(redis.command("GET", names(channel)[1]))) >= answers[NOT_REPLICATED] and total, "them")
    assert stored <= answers[NOT_REPLICATED] + 32, "those that the swarm left behind"


def test_redis_wait_for_two_is_not_content_with_one(redis_servers, start):
    redis = redis_servers.start()
    replica = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    server = start(**redis.settings(REDIS_WAIT="2:100"))
    healthy(server)
    assert refusal(server.post(server.channel())) == NOT_REPLICATED
    other = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: server.post(server.channel()).status == 200, "the other's copy")
    with other.frozen():  # Redis still counts it, but does not hear of it
        assert refusal(server.post(server.channel())) == NOT_REPLICATED


def test_each_push_under_load_is_on_the_replica_before_it_is_acknowledged(redis_servers, start):
    redis = redis_servers.start()
    replica = redis_servers.start(replicaof=f"{HOST} {redis.port}")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    with redis.connect() as client:
        client.command("SET", "a", "1")
        wait_until(lambda: client.command("WAIT", "1", "100") == 1, "the replica to say what it has")
    server = start(LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=100_000, **redis.settings(REDIS_WAIT="1:5000"))
    healthy(server)
    channel = server.channel()
    acknowledged = 0

    def answered(wire, reply):
        nonlocal acknowledged
        assert reply.status == 200, reply
        acknowledged += 1
        if acknowledged % 50 == 0:
            assert int(replica.command("GET", names(channel)[1])) >= reply.total
        wire.send(request_bytes("POST", channel, b"{}"))

    with Swarm(server.address) as swarm:
        for _ in range(32):
            swarm.open(answered).send(request_bytes("POST", channel, b"{}"))
        swarm.run(lambda: acknowledged >= 1500, 120, "the pushes")
