"""The clock of Redis jumps, or goes wrong: docs/scaling.md says what becomes of the updates, and this is what does."""

import time

import pytest

from clocks import DAY_S, Clocks
from longline_server import wait_until
from redis_server import RedisServer
from test_redis import healthy


class WrongClock(RedisServer):
    """A Redis whose wall clock is ahead by as many days as the test says."""

    def __init__(self, directory, **settings):
        super().__init__(directory, **settings)
        self.clocks = Clocks(directory)
        self.environment = self.clocks.settings

    def jump(self, days):
        self.clocks.set(days)
        assert abs(int(self.command("TIME")[0]) - time.time() - days * DAY_S) < 60


@pytest.fixture
def redis(redis_servers):
    return redis_servers.add(WrongClock).start()


def filled(server):
    channel = server.channel()
    for i in range(1, 11):
        assert server.push(channel, '{"n":%d}' % i) == i
    return channel


@pytest.mark.parametrize("days", [-400, -8, 8, 400])
def test_a_clock_that_is_always_wrong_is_no_matter(redis, start, days):
    """Ages are counted by Redis' clock, whatever that of longline says, in memory as well."""
    redis.jump(days)
    server = start(**redis.settings())
    healthy(server)
    channel = server.channel()
    with server.client() as client:
        client.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        for i in range(1, 11):
            server.push(channel, '{"n":%d}' % i)
        assert client.read_reply().updates[0] == {"n": 1}
    for query in ("?ts=0", "?ts=0&sleep=60", "?ts=5", "?ts=5&sleep=60", "?ts=-5&sleep=60") * 20:
        page = server.get(channel + query).json()
        assert page["ts"] == 10 and "missed" not in page and page["updates"][-1] == {"n": 10}, (query, page)
    (update,) = server.get(channel + "?ts=9&view=full").updates
    assert abs(update["at"] / 1000 - time.time() - days * DAY_S) < 60


def test_a_jump_ahead_deletes_what_is_too_old_by_then(redis, start):
    """Redis does, at once and for ever; the counter stays for a year."""
    server = start(**redis.settings())
    channel = filled(server)
    redis.jump(8)
    assert server.get(channel).json() == {"ok": True, "ts": 10, "missed": 10, "updates": []}
    redis.jump(0)
    assert server.get(channel).json() == {"ok": True, "ts": 10, "missed": 10, "updates": []}
    assert server.push(channel, '{"n":11}') == 11


def test_memory_follows_the_clock_of_redis(redis, start):
    """Polls that wait are answered from memory, where updates grow old by the same clock."""
    server = start(**redis.settings())
    channel = filled(server)
    assert len(server.get(channel + "?sleep=60").updates) == 10
    reads = server.metric("longline_store_reads_total")
    redis.jump(8)
    gone = {"ok": True, "ts": 10, "missed": 5, "updates": []}
    wait_until(lambda: server.get(channel + "?ts=5&sleep=60").json() == gone, "the updates to be too old")
    assert server.metric("longline_store_reads_total") <= reads + 3, "read from memory"


def test_a_jump_ahead_within_the_bound_deletes_nothing(redis, start):
    server = start(**redis.settings())
    channel = filled(server)
    redis.jump(6)
    assert len(server.get(channel).updates) == 10
    redis.jump(0)
    assert len(server.get(channel).updates) == 10


def test_a_jump_of_more_than_a_year_begins_the_counter_anew(redis, start):
    server = start(**redis.settings())
    channel = filled(server)
    redis.jump(400)
    assert server.get(channel + "?ts=10").json() == {"ok": True, "ts": 0, "reset": True, "updates": []}
    assert server.push(channel, '{"n":1}') == 1


def test_a_clock_that_was_behind_and_is_set_right(redis, start):
    """As on a machine without a clock chip: what was stored before is as old as that clock said."""
    redis.jump(-10)
    server = start(**redis.settings())
    channel = filled(server)
    redis.jump(0)
    assert server.get(channel).json() == {"ok": True, "ts": 10, "missed": 10, "updates": []}
    assert server.push(channel, '{"n":11}') == 11
    assert server.get(channel + "?ts=10").json() == {"ok": True, "ts": 11, "updates": [{"n": 11}]}
