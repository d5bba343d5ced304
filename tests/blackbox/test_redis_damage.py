"""What lies in Redis is not what longline put there, or the user may not do all that a push takes: a push is stored whole or not at all."""

import itertools
import os

import pytest

from load import refusal
from redis_server import DAMAGED, NO_ACCESS
from test_redis import check_serves, healthy, names, push_when_it_can

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

# What a push calls, from its first command to its last.
COMMANDS = "evalsha get llen pttl time rpush incr ltrim lindex lpop pexpire publish".split()


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_who_lacks_one_right(redis, server, command):
    channel, fresh = server.channel(), server.channel()
    for i in range(1, 16):
        server.push(channel, '{"n":%d}' % i)
    redis.command("ACL", "SETUSER", USER, "-" + command)
    answers = {push_all_or_nothing(server, redis, each) for each in [channel] * 24 + [fresh] * 9}
    # The lists are tidied, and the others told, after the update is stored.
    assert answers == ({None} if command in ("ltrim", "lindex", "lpop", "pexpire", "publish") else {NO_ACCESS})
    redis.command("ACL", "SETUSER", USER, "+" + command)
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
        for _ in range(int(os.environ.get("PUSHES", 10))):
            answer = push_all_or_nothing(server, redis, channel)
            pushes += 1
            refused += answer is not None
            assert damage_ is None or answer in (DAMAGED, NO_ACCESS)
        redis.command("ACL", "SETUSER", USER, "+@all")
        redis.command("FLUSHALL")
    print(f"\n{pushes} pushes, {refused} refused: nothing of them was stored, and each of the others once")
    check_serves(server)
