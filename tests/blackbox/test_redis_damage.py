"""What lies in Redis is not what longline put there, or the user may not do all that a push takes: a push is stored whole or not at all."""

import itertools
import json
import os
import random
import re
from collections import Counter

import pytest

from http_client import request_bytes
from load import refusal
from longline_server import wait_until
from redis_server import DAMAGED, NO_ACCESS, NOT_NOW, OUT_OF_MEMORY, TOO_FEW_REPLICAS, RedisError
from swarm import Swarm
from test_redis import P, check_serves, healthy, names, push_when_it_can, upstream_push

USER = "app"

# How to make a key of each type.
TYPES = {
    "string": ("SET", "x"),
    "number": ("SET", "7"),
    "list": ("RPUSH", "x"),
    "hash": ("HSET", "x", "y"),
    "set": ("SADD", "x"),
    "zset": ("ZADD", "1", "x"),
    "stream": ("XADD", "1-1", "x", "y"),
}

# Each key's own type: a key of it is not wrong.
RIGHT_TYPES = {"total": ("number",), "updates": ("list",), "meta": ("list",)}

WRONG_TYPES = [(kind, type_) for kind in RIGHT_TYPES for type_ in TYPES if type_ not in RIGHT_TYPES[kind]]

BAD_COUNTERS = ["-5", "-1", "1e3", "1.0", "007", "+7", " 7", "7 ", "0x7", "nan", "", "x", 2**53, 2**53 + 1, 2**63 - 1, 2**63, 10**30]
GOOD_COUNTERS = [0, 1, 7, 1000, 2**53 - 2]

# What a push calls, from its first command to its last. Where it may INCRBY it needs no GET and INCR, and the other way round.
COMMANDS = "evalsha llen pttl time rpush incrby get incr ltrim lindex lpop pexpire publish".split()


def contents(redis):
    """All keys with what they hold."""
    return {key: redis.command("DUMP", key) for key in redis.keys()}


def lengths(redis, channel):
    """(records, the counter, updates)"""
    meta, total, updates = names(channel)
    return redis.command("LLEN", meta), int(redis.command("GET", total) or 0), redis.command("LLEN", updates)


def push_all_or_nothing(server, redis, channel, body="{}"):
    """Pushes once. A 200 must have stored exactly one update, under the id that it names, and anything else nothing. Returns the
    refusal, or None."""
    before = contents(redis)
    reply = server.post(channel, body)
    if reply.status != 200:
        assert contents(redis) == before, f"nothing was stored, says {reply}"
        return refusal(reply)
    meta, total, updates = names(channel)
    assert redis.command("GET", total) == str(reply.total)
    assert redis.command("LINDEX", updates, -1) == body
    assert redis.command("LINDEX", meta, -1).startswith(f"{reply.total} ")
    return None


def damage(redis, channel, kind, type_):
    """Makes a key of the channel one of another type."""
    key = names(channel)[("meta", "total", "updates").index(kind)]
    redis.command("DEL", key)
    command, *words = TYPES[type_]
    redis.command(command, key, *words)


@pytest.fixture
def server(redis, start):
    """It logs in as a user of its own."""
    redis.command("ACL", "SETUSER", USER, "on", ">x", "~*", "&*", "+@all")
    server = start(CHANNEL_STORAGE_MAXSIZE=20, **redis.settings(REDIS_USER=USER, REDIS_PASS="x"))
    healthy(server)
    return server


@pytest.mark.parametrize("kind,type_", WRONG_TYPES)
def test_a_key_of_the_wrong_type(redis, server, kind, type_):
    channel, other = server.channel(), server.channel()
    for i in (1, 2, 3):
        assert server.push(channel, '{"n":%d}' % i) == i
    damage(redis, channel, kind, type_)
    for _ in range(3):
        assert push_all_or_nothing(server, redis, channel) == DAMAGED
    assert refusal(server.get(channel)) == DAMAGED
    assert server.push(other) == 1, "the other channels go on"
    redis.command("DEL", names(channel)[("meta", "total", "updates").index(kind)])
    assert push_all_or_nothing(server, redis, channel) is None


@pytest.mark.parametrize("right", ["+pexpire", "-pexpire"])
@pytest.mark.parametrize("type_", [type_ for kind, type_ in WRONG_TYPES if kind == "meta"])
def test_a_fresh_channel_with_a_key_of_the_wrong_type(redis, server, type_, right):
    """The script counts up before it sees that: it leaves no counter behind."""
    redis.command("ACL", "SETUSER", USER, right)
    channel = server.channel()
    damage(redis, channel, "meta", type_)
    assert push_all_or_nothing(server, redis, channel) == DAMAGED
    redis.command("DEL", names(channel)[0])
    assert server.push(channel) == 1


@pytest.mark.parametrize("counter", BAD_COUNTERS)
def test_a_counter_that_is_none(redis, server, counter):
    channel = server.channel()
    for i in (1, 2, 3):
        assert server.push(channel, '{"n":%d}' % i) == i
    redis.command("SET", names(channel)[1], counter)
    for _ in range(3):
        assert push_all_or_nothing(server, redis, channel) == DAMAGED
        assert refusal(server.get(channel + "?ts=2")) == DAMAGED
    redis.command("SET", names(channel)[1], 3)
    assert server.push(channel, '{"n":4}') == 4
    assert server.get(channel + "?ts=2").updates == [{"n": 3}, {"n": 4}]


@pytest.mark.parametrize("counter", GOOD_COUNTERS)
def test_any_whole_counter_goes_on(redis, server, counter):
    channel = server.channel()
    redis.command("SET", names(channel)[1], counter)
    assert server.push(channel, '{"n":1}') == counter + 1
    assert server.get(f"{channel}?ts={counter}").json() == {"ok": True, "ts": counter + 1, "updates": [{"n": 1}]}


def test_the_last_counter_is_read_and_no_push_goes_past_it(redis, server):
    channel = server.channel()
    redis.command("SET", names(channel)[1], 2**53 - 2)
    assert server.push(channel, '{"n":1}') == 2**53 - 1
    assert push_all_or_nothing(server, redis, channel) == DAMAGED
    assert server.get(channel + "?ts=-1").json() == {"ok": True, "ts": 2**53 - 1, "updates": [{"n": 1}]}


@pytest.mark.parametrize("kind", ["updates", "meta"])
@pytest.mark.parametrize("by", [-9, -1, 1, 9])
def test_a_list_longer_or_shorter_than_the_counter_says(redis, server, kind, by):
    channel = server.channel()
    for i in range(1, 11):
        server.push(channel, '{"n":%d}' % i)
    key = names(channel)[("meta", "total", "updates").index(kind)]
    for _ in range(abs(by)):
        redis.command("LPUSH", key, '{"older":true}') if by > 0 else redis.command("LPOP", key)
    for i in range(11, 16):
        assert push_all_or_nothing(server, redis, channel, '{"n":%d}' % i) is None
    page = server.get(f"{channel}?ts=9").json()
    assert page == {"ok": True, "ts": 15, "updates": [{"n": i} for i in range(10, 16)]}


@pytest.mark.parametrize("lacks", [*COMMANDS, "get -incrby", "incr -incrby"])
def test_a_user_who_lacks_a_right(redis, server, lacks):
    channel, fresh = server.channel(), server.channel()
    for i in range(1, 16):
        server.push(channel, '{"n":%d}' % i)
    redis.command("ACL", "SETUSER", USER, *f"-{lacks}".split())
    answers = {push_all_or_nothing(server, redis, each) for each in [channel] * 24 + [fresh] * 9}
    # The lists are tidied, and the others told, after the update is stored.
    can_do_without = ("incrby", "get", "incr", "ltrim", "lindex", "lpop", "pexpire", "publish")
    assert answers == ({None} if lacks in can_do_without else {NO_ACCESS})
    redis.command("ACL", "SETUSER", USER, *f"+{lacks}".replace("-", "+").split())
    stored = lengths(redis, channel)[1]
    assert push_when_it_can(server, channel, '{"n":16}') == stored + 1
    assert server.get(f"{channel}?ts={stored}").updates == [{"n": 16}]
    records, _, updates = lengths(redis, channel)
    assert records == updates


@pytest.mark.parametrize("kind", ["total", "updates", "meta"])
@pytest.mark.parametrize("right", ["%R~", "%W~"])
def test_a_user_who_may_only_read_or_write_one_key(redis, server, kind, right):
    channel = server.channel()
    server.push(channel)
    rights = ["resetkeys", f"{right}*:{kind}:*", *(f"~*:{other}:*" for other in RIGHT_TYPES if other != kind)]
    redis.command("ACL", "SETUSER", USER, *rights)
    assert push_all_or_nothing(server, redis, channel) == NO_ACCESS
    redis.command("ACL", "SETUSER", USER, "~*")
    assert server.push(channel) == 2


def test_a_user_whose_rights_differ_from_key_to_key(redis, server):
    """Selectors of Redis 7: the script may run on all keys, RPUSH only on one list."""
    channel = server.channel()
    server.push(channel)
    allowed = "(+evalsha +eval ~*) (+get +incr +llen +pttl +time ~*) (+rpush ~*:meta:*)"
    redis.command("ACL", "SETUSER", USER, "-@write", "-@read", "-@scripting", "+time", *allowed.replace(") (", ")\n(").split("\n"))
    assert push_all_or_nothing(server, redis, channel) == NO_ACCESS


def test_a_redis_that_is_busy_with_anothers_script(redis, server):
    """It refuses everything meanwhile, and nothing of it is done later."""
    channel = server.channel()
    assert server.push(channel, "[1]") == 1
    redis.config("busy-reply-threshold", 10)
    with redis.connect() as other:
        other.send("EVAL", "while true do end", 0)
        wait_until(lambda: (reply := server.post(channel, "[2]")).status == 503 and refusal(reply) == NOT_NOW, "the refusals")
        assert refusal(server.post(channel, "[3]")) == NOT_NOW
        wait_until(lambda: (r := server.get("/-/health")).status == 503 and "BUSY" in r.json()["store"], "health to say why")
        wait_until(lambda: redis.command("SCRIPT", "KILL") == "OK", "the script to be killed")
        with pytest.raises(RedisError, match="killed"):
            other.read()
    total = push_when_it_can(server, channel, "[4]")
    stored = [text for (text,) in server.get(channel).updates]
    assert len(stored) == total and stored[-1] == 4 and 3 not in stored
    healthy(server)


# --- damaged elements ---

DEEP = "[" * 501 + "]" * 501
NO_TEXTS = ["", "x", '{"n":', '{"n":1}}', '{"n":"\udcff"}', "\0", DEEP, '{"n":1}\n{"n":2}']

# What makes a record none, from a whole one.
NO_RECORDS = {
    "empty": lambda record: "",
    "no record": lambda record: "x",
    "no ts": lambda record: "x" + record[1:],
    "another ts": lambda record: "9" + record,
    "a number cut": lambda record: record.replace(" ", "", 1),
    "cut off": lambda record: record[:-1],
    "headers that are no JSON": lambda record: record.replace("{", "x"),
    "headers that are not UTF-8": lambda record: record.replace("x-i", "x\udcffi"),
}


def fill(server, channel, count=9):
    for i in range(1, count + 1):
        assert server.push(channel, '{"n":%d}' % i, {"X-I": str(i)}) == i


def check_left_out(server, channel, lost, count=9):
    """All but the update `lost` are delivered, in pages of any size, by either view, and the loss is said."""
    metric = server.metric("longline_store_damaged_total")
    rest = [i for i in range(1, count + 1) if i != lost]
    before, after = [i for i in rest if i < lost], [i for i in rest if i > lost]
    if before:
        assert server.get(channel).json() == {"ok": True, "ts": lost - 1, "updates": [{"n": i} for i in before]}
        assert server.metric("longline_store_damaged_total") == metric
    page = server.get(f"{channel}?ts={lost - 1}").json()
    assert page == {"ok": True, "ts": count, "missed": 1, "updates": [{"n": i} for i in after]}
    assert server.metric("longline_store_damaged_total") == metric + 1
    full = [u for ts in (0, lost - 1) for u in server.get(f"{channel}?ts={ts}&view=full").updates if u["ts"] > ts]
    if lost == 1:
        full = full[len(after) :]
    assert [(u["ts"], u["body"]["n"], u["headers"]["x-i"]) for u in full] == [(i, i, str(i)) for i in rest]
    for limit in (1, 2, 3, 100):
        seen, missed, ts = [], 0, 0
        while ts < count:
            reply = server.get(f"{channel}?ts={ts}&limit={limit}&sleep=60").json()
            assert reply["ts"] > ts, "whoever polls gets past it"
            ts = reply["ts"]
            missed += reply.get("missed", 0)
            seen += [u["n"] for u in reply["updates"]]
        assert (seen, missed) == (rest, 1)
    assert server.get(f"{channel}?ts={lost - 1}&limit=1").json() == {"ok": True, "ts": lost, "missed": 1, "updates": []}
    assert re.search(rf"error +damaged update left out +channel=[0-9a-f]{{8}} ts={lost}\b", server.log())


@pytest.mark.parametrize("lost", [1, 5, 9])
@pytest.mark.parametrize("text", NO_TEXTS, ids=range(len(NO_TEXTS)))
def test_an_update_that_is_no_json_is_left_out(redis, server, text, lost):
    channel = server.channel()
    fill(server, channel)
    redis.command("LSET", names(channel)[2], lost - 1, text)
    check_left_out(server, channel, lost)
    assert server.push(channel, '{"n":10}') == 10
    assert server.get(channel + "?ts=9").json() == {"ok": True, "ts": 10, "updates": [{"n": 10}]}


@pytest.mark.parametrize("lost", [1, 5, 9])
@pytest.mark.parametrize("how", NO_RECORDS)
def test_an_update_whose_record_is_none_is_left_out(redis, server, how, lost):
    channel = server.channel()
    fill(server, channel)
    meta = names(channel)[0]
    redis.command("LSET", meta, lost - 1, NO_RECORDS[how](redis.command("LINDEX", meta, lost - 1)))
    check_left_out(server, channel, lost)


def test_an_update_that_somebody_has_set_anew_is_bare(redis, server):
    channel = server.channel()
    fill(server, channel, 3)
    redis.command("LSET", names(channel)[2], 1, '{"n":"another"}')
    full = server.get(channel + "?view=full").json()
    assert [(u["ts"], u["body"]["n"], u["headers"].get("x-i")) for u in full["updates"]] == [(1, 1, "1"), (2, "another", None), (3, 3, "3")]
    assert "missed" not in full


@pytest.mark.parametrize("text", NO_TEXTS, ids=range(len(NO_TEXTS)))
def test_upstreams_updates_are_looked_at_too(redis, server, text):
    channel = server.channel()
    upstream_push(redis, channel, '{"n":1}')
    upstream_push(redis, channel, text)
    upstream_push(redis, channel, '"upstream took this"')
    assert server.get(channel + "?ts=0").json() == {"ok": True, "ts": 1, "updates": [{"n": 1}]}
    assert server.get(channel + "?ts=1").json() == {"ok": True, "ts": 3, "missed": 1, "updates": ["upstream took this"]}
    assert server.push(channel, '{"n":4}') == 4
    assert server.get(channel + "?ts=1").json() == {"ok": True, "ts": 4, "missed": 1, "updates": ["upstream took this", {"n": 4}]}


def test_all_are_damaged(redis, server):
    channel = server.channel()
    fill(server, channel, 3)
    for i in range(3):
        redis.command("LSET", names(channel)[2], i, "x")
    assert server.get(channel).json() == {"ok": True, "ts": 3, "missed": 3, "updates": []}
    assert server.get(channel + "?ts=1&sleep=60").json() == {"ok": True, "ts": 3, "missed": 2, "updates": []}
    assert server.get(channel + "?ts=-2&sleep=60").json() == {"ok": True, "ts": 3, "updates": []}


def test_who_waits_gets_past_a_damaged_update(redis, server):
    """It came without news, and the next one's tell of the gap."""
    channel = server.channel()
    fill(server, channel, 2)
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2&sleep=60")
        server.wait_for_parked(1)
        upstream_push(redis, channel, "{")
        assert server.push(channel, '{"n":4}') == 4
        assert client.read_reply().json() == {"ok": True, "ts": 4, "missed": 1, "updates": [{"n": 4}]}
        client.send_request("GET", channel + "?ts=4&sleep=60")
        server.wait_for_parked(1)
        assert server.push(channel, '{"n":5}') == 5
        assert client.read_reply().json() == {"ok": True, "ts": 5, "updates": [{"n": 5}]}
    assert [u["n"] for u in server.get(channel).updates + server.get(channel + "?ts=2").updates] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    "news",
    ["", "x", "3 1 1 -1 0 0 4\nPOST{", "3 1 2 -1 0 1 4\n{POST{}", "3 1 9 -1 0 0 4\nPOST{}", "3 1 2 -1 0 0 99\nPOST{}", "3 1 4 -1 0 0 4\nPOST\udcff{}x"],
)
def test_news_that_are_none_are_not_delivered(redis, server, news):
    """Whatever is said on the channel for news, the lists say what is true."""
    channel = server.channel()
    fill(server, channel, 2)
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2&sleep=60")
        server.wait_for_parked(1)
        assert redis.command("PUBLISH", P + "news:" + channel[1:], news) == 1
        assert server.push(channel, '{"n":3}') == 3
        assert client.read_reply().json() == {"ok": True, "ts": 3, "updates": [{"n": 3}]}
    assert server.metric("longline_store_damaged_total") == 0, "no update is"


def test_news_of_a_damaged_update_wake_who_waits(redis, server):
    """Another program stores and tells it as longline would."""
    channel = server.channel()
    fill(server, channel, 2)
    meta, total, updates = names(channel)
    record = "3 1795520551476 1 -1 0 0 4\nPOST"
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2&sleep=60")
        server.wait_for_parked(1)
        redis.command("MULTI")
        redis.command("INCR", total)
        redis.command("RPUSH", updates, "{")
        redis.command("RPUSH", meta, record)
        redis.command("PUBLISH", P + "news:" + channel[1:], record + "{")
        redis.command("EXEC")
        assert client.read_reply().json() == {"ok": True, "ts": 3, "missed": 1, "updates": []}
    assert server.push(channel, '{"n":4}') == 4
    assert server.get(channel + "?ts=2").json() == {"ok": True, "ts": 4, "missed": 1, "updates": [{"n": 4}]}


# --- all at once ---


def flip(text, rng):
    """One bit of it."""
    changed = bytearray(text.encode("utf-8", "surrogateescape"))
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def check_one_changed(server, channel, changed, count):
    """Every reply is JSON and gets further, and whatever was not changed is delivered as it was. Says what became of the one."""
    limit, ts, seen, missed = 4, 0, [], 0
    while ts < count:
        page = server.get(f"{channel}?ts={ts}&limit={limit}&view=full").json()
        assert page["ts"] > ts and len(page["updates"]) + page.get("missed", 0) == page["ts"] - ts
        ts = page["ts"]
        seen += page["updates"]
        missed += page.get("missed", 0)
    assert ts == count
    others = [(u["ts"], u["body"], u["headers"].get("x-i")) for u in seen if u["ts"] != changed]
    assert others == [(i, {"n": i}, str(i)) for i in range(1, count + 1) if i != changed]
    assert missed == count - len(seen)
    return "left out" if missed else "delivered"


@pytest.mark.parametrize("flips", [40, pytest.param(int(os.environ.get("ROUNDS", 1000)) * 5, marks=pytest.mark.torture)])
def test_a_flipped_bit_of_any_element(redis, server, flips):
    rng = random.Random(int(os.environ.get("SEED", 11)))
    channel, count = server.channel(), 12
    fill(server, channel, count)
    meta, _, updates = names(channel)
    fates = Counter()
    for _ in range(flips):
        kind, key = rng.choice((("update", updates), ("record", meta)))
        changed = rng.randint(1, count)
        text = redis.command("LINDEX", key, changed - 1)
        redis.command("LSET", key, changed - 1, flip(text, rng))
        fates[kind, check_one_changed(server, channel, changed, count)] += 1
        redis.command("LSET", key, changed - 1, text)
    print(f"\n{flips} flips: {dict(fates)}")
    assert len(fates) == 4
    assert server.metric("longline_store_damaged_total") > 0


TROUBLES = [
    *((("ACL", "SETUSER", USER, "-" + command), ("ACL", "SETUSER", USER, "+" + command)) for command in COMMANDS if command != "publish"),
    (("ACL", "SETUSER", USER, "resetkeys"), ("ACL", "SETUSER", USER, "~*")),
    (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
    (("CONFIG", "SET", "min-replicas-to-write", 1), ("CONFIG", "SET", "min-replicas-to-write", 0)),
    (("SCRIPT", "FLUSH"), ("PING",)),
]


@pytest.mark.parametrize("pushes", [2000, pytest.param(int(os.environ.get("ROUNDS", 1000)) * 100, marks=pytest.mark.torture)])
def test_troubles_under_load_store_what_is_acknowledged_and_nothing_else(redis, start, pushes):
    """Rights, memory and replicas come and go while 32 push; each update is in Redis once, under its id, if and only if it got a 200."""
    redis.command("ACL", "SETUSER", USER, "on", ">x", "~*", "&*", "+@all")
    server = start(CHANNEL_STORAGE_MAXSIZE=1_000_000, LOG_LEVEL="info", **redis.settings(REDIS_USER=USER, REDIS_PASS="x"))
    healthy(server)
    rng = random.Random(int(os.environ.get("SEED", 11)))
    channels = [server.channel() for _ in range(4)]
    acknowledged, refused, sent = {channel: {} for channel in channels}, Counter(), itertools.count()
    last = [None]

    def push(wire):
        wire.channel, wire.number = rng.choice(channels), next(sent)
        wire.send(request_bytes("POST", wire.channel, b"[%d]" % wire.number))

    def answered(wire, reply):
        if reply.status == 200:
            assert acknowledged[wire.channel].setdefault(reply.total, wire.number) == wire.number, "an id was given twice"
        else:
            refused[refusal(reply)] += 1
        if wire.number % 64 == 0:
            if last[0]:
                redis.command(*last[0])
            trouble, last[0] = rng.choice(TROUBLES) if rng.random() < 0.5 else (("PING",), None)
            redis.command(*trouble)
        push(wire)

    with Swarm(server.address) as swarm:
        for _ in range(32):
            push(swarm.open(answered))
        swarm.run(lambda: sum(map(len, acknowledged.values())) >= pushes and len(refused) > 1, 600, "the pushes, and two kinds of trouble")
    server.stop()
    total = sum(map(len, acknowledged.values()))
    print(f"\n{total} acknowledged, {refused.total()} refused: {dict(refused)}")
    assert set(refused) <= {NO_ACCESS, OUT_OF_MEMORY, TOO_FEW_REPLICAS}
    stray = 0
    for channel in channels:
        records, count, updates = lengths(redis, channel)
        assert records == count == updates
        stored = {ts: json.loads(text)[0] for ts, text in enumerate(redis.command("LRANGE", names(channel)[2], 0, -1), start=1)}
        assert acknowledged[channel].items() <= stored.items()
        assert len(set(stored.values())) == len(stored), "an update was stored twice"
        stray += len(stored) - len(acknowledged[channel])
    assert stray <= 32, "at most those whose answer nobody waited for any more"


@pytest.mark.torture
def test_every_damage_with_every_right_taken_away(redis, server):
    """All wrong types of all keys, all bad counters, and all rights taken away, one of each at once."""
    damages = [None, *WRONG_TYPES, *(("total", counter) for counter in BAD_COUNTERS)]
    pushes = refused = 0
    for damage_, command in itertools.product(damages, [None, *COMMANDS]):
        channel = server.channel()
        server.push(channel, '{"n":1}')
        server.push(channel, '{"n":2}')
        if damage_ in WRONG_TYPES:
            damage(redis, channel, *damage_)
        elif damage_:
            redis.command("SET", names(channel)[1], damage_[1])
        if command:
            redis.command("ACL", "SETUSER", USER, "-" + command)
        for _ in range(int(os.environ.get("PUSHES", 50))):
            answer = push_all_or_nothing(server, redis, channel)
            pushes += 1
            refused += answer is not None
            assert damage_ is None or answer in (DAMAGED, NO_ACCESS)
        redis.command("ACL", "SETUSER", USER, "+@all")
        redis.command("FLUSHALL")
    print(f"\n{pushes} pushes, {refused} refused: nothing of them was stored, and each of the others once")
    check_serves(server)
