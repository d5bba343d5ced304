"""No update is missed and none is doubled, whatever races with what.

RACES says how many polls must end before the storm does. script/torture sets it to a million.
"""

import os

import pytest

from crowd import Record
from longline_server import SLOW, wait_until
from storm import FILTERS, Picker, Storm

RACES = int(os.environ.get("RACES", 40_000 if SLOW else 60_000))
SEED = int(os.environ.get("SEED", 20261124))


def test_no_poll_misses_or_doubles_an_update(serve):
    server = serve(LOG_LEVEL="info")
    channel = server.channel()
    storm = Storm([server.address], channel, SEED)
    storm.run(RACES)
    finish(storm, [server], channel)


def finish(storm, servers, channel):
    """What is stored is what the storm saw, and the storm had some of each outcome."""
    for server in servers:
        server.wait_for_parked(0)
        server.wait_for_metric("longline_connections", 1)
    total = servers[0].get(channel + "?ts=-1").total
    assert total >= storm.acknowledged > 0
    for server in servers:
        for id_, update in server.read_all(channel, ts=max(0, total - 1000)):
            storm.record.saw(channel, id_, (update["p"], update["n"]), "stored")
    print(f"seed {SEED}: {total} updates, {dict(storm.outcomes)}")
    for outcome in ("update", "deadline", "hang-up", "picked"):
        assert storm.outcomes[outcome] > storm.races() / 100, storm.outcomes


def test_no_poll_misses_or_doubles_an_update_across_two_servers_on_redis(shared_redis, start):
    """Everyone publishes to and polls one of two servers that share a Redis."""
    prefix = f"races-{SEED}:"
    servers = [start(LOG_LEVEL="info", **shared_redis.settings(REDIS_PREFIX=prefix, REDIS_TIMEOUT=5000)) for _ in range(2)]
    for server in servers:
        wait_until(lambda: server.get("/-/health").status == 200, "Redis to be there")
    channel = servers[0].channel()
    servers[1].channels |= servers[0].channels
    storm = Storm([server.address for server in servers], channel, SEED)
    storm.run(RACES)
    finish(storm, servers, channel)


def test_the_storm_notices_an_update_that_a_filter_passed_over():
    storm = Storm([], "/a", SEED, pollers=0, pickers=0, streams=0, publishers=0)
    storm.record.saw("/a", 1, (1, 1))
    picker = Picker.__new__(Picker)
    picker.crowd, picker.channel, picker.checked, picker.seen, picker.ts = storm, "/a", 0, set(), 0
    picker.where, picker.wants = FILTERS[1]
    assert not picker.has_all(1)
    with pytest.raises(AssertionError):
        picker.take({"ok": True, "ts": 1, "updates": []})
    with pytest.raises(AssertionError):
        picker.take({"ok": True, "ts": 1, "updates": [{"ts": 1, "body": {"p": 2, "n": 1}}]})
    picker.take({"ok": True, "ts": 1, "skipped": 1, "updates": []})
    picker.ts = 1
    with pytest.raises(AssertionError, match="passed over"):
        picker.has_all(1)


def test_the_storm_notices_a_doubled_and_a_swapped_update():
    record = Record()
    record.saw("/a", 1, (0, 1))
    record.saw("/a", 1, (0, 1))
    record.saw("/b", 2, (0, 1))
    with pytest.raises(AssertionError, match="has the ids 1 and 2"):
        record.saw("/a", 2, (0, 1))
    with pytest.raises(AssertionError, match="id 1 was"):
        record.saw("/a", 1, (0, 2))
