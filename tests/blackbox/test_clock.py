"""A wall clock that jumps: nothing is deleted, no id is given twice, and `at` follows it.

libfaketime moves it; the monotonic clock stays. JUMPS says how often it jumps at random. script/torture sets it to hundreds.
"""

import glob
import os
import random
import secrets
import time

import pytest

from longline_server import wait_until

DAY_S = 86400
LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")


class Clock:
    """The wall clock of the servers that have its settings."""

    def __init__(self, path):
        self.path = path
        self.settings = {
            "LD_PRELOAD": LIBRARIES[0],
            "FAKETIME_TIMESTAMP_FILE": path,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }
        self.set(0)

    def set(self, days):
        """It is so many days ahead from now on."""
        new = self.path.with_suffix(".new")
        new.write_text(f"{'+' if days >= 0 else '-'}{abs(days)}d\n")
        new.rename(self.path)
        self.days = days

    def is_near(self, at_ms):
        return abs(at_ms / 1000 - time.time() - self.days * DAY_S) < 3600


@pytest.fixture
def clock(tmp_path):
    if not LIBRARIES:
        pytest.skip("faketime is not installed")
    return Clock(tmp_path / "clock")


def push_some(server, channel, first, last):
    for n in range(first, last + 1):
        assert server.push(channel, '{"n":%d}' % n) == n


def numbers(server, channel, ts=0):
    return [update["n"] for _, update in server.read_all(channel, ts)]


def newest_at(server, channel):
    return server.get(f"{channel}?ts=-1&view=full").updates[0]["at"]


def wait_for_maintenance(server):
    """The sweeper has had its turn: what it would delete is gone."""
    marker = server.channel()
    commits = server.metric("longline_store_commits_total")
    server.push(marker)
    # A checkpoint, some seconds later, comes with whatever else is due.
    wait_until(lambda: server.metric("longline_store_commits_total") >= commits + 2, "the checkpoint")


RANDOM_JUMPS = int(os.environ.get("JUMPS", 8))
JUMPS = [8, 800, -10]


@pytest.mark.parametrize("days", JUMPS)
def test_a_jump_and_back_while_it_runs(start, clock, days):
    server = start(LOG_LEVEL="info", **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 50)
    clock.set(days)
    wait_until(lambda: "the wall clock jumped" in server.log(), "it to be noticed")
    push_some(server, channel, 51, 51)
    assert clock.is_near(newest_at(server, channel))
    wait_for_maintenance(server)
    clock.set(0)
    push_some(server, channel, 52, 52)
    assert clock.is_near(newest_at(server, channel))
    assert numbers(server, channel) == list(range(1, 53))
    server.restart()
    assert numbers(server, channel) == list(range(1, 53))
    assert server.metric("longline_store_swept_total") == 0
    assert server.push(channel, '{"n":53}') == 53


@pytest.mark.parametrize("days", JUMPS)
def test_started_while_the_clock_is_wrong(start, clock, days):
    """Nobody saw the time in between: a day of it counts, and no more."""
    server = start(LOG_LEVEL="info", **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 50)
    server.stop()
    clock.set(days)
    server.start()
    push_some(server, channel, 51, 51)
    wait_for_maintenance(server)
    assert numbers(server, channel) == list(range(1, 52))
    log = server.log()
    assert "the wall clock jumped" in log
    clock.set(0)
    server.restart()
    assert numbers(server, channel) == list(range(1, 52))
    assert server.push(channel, '{"n":52}') == 52
    assert clock.is_near(newest_at(server, channel))


def test_started_again_and_again_while_the_clock_goes_to_and_fro(start, clock):
    """No day is counted twice."""
    server = start(LOG_LEVEL="info", **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 20)
    for _ in range(5):
        for days in (8, 0):
            server.stop()
            clock.set(days)
            server.start()
    wait_for_maintenance(server)
    assert numbers(server, channel) == list(range(1, 21))


def test_the_time_that_it_was_stopped_counts(start, clock):
    server = start(LOG_LEVEL="info", DATA_TTL=DAY_S // 2, **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 3)
    server.stop()
    clock.set(0.75)
    server.start()
    assert server.get(channel).json() == {"ok": True, "ts": 3, "updates": [], "missed": 3}
    server.wait_for_metric("longline_store_updates", 0)


def test_updates_still_go_when_they_are_old_enough(start, clock):
    """A clock that once ran ahead keeps nothing for ever."""
    server = start(LOG_LEVEL="info", DATA_TTL=2, **clock.settings)
    channel = server.channel()
    clock.set(400)
    push_some(server, channel, 1, 3)
    clock.set(0)
    push_some(server, channel, 4, 4)
    wait_until(lambda: server.get(channel).updates == [], "the updates to be too old")
    server.wait_for_metric("longline_store_updates", 0)


def test_counters_outlive_a_clock_that_is_years_ahead(start, clock):
    server = start(LOG_LEVEL="info", DATA_TTL=1, **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 5)
    server.wait_for_metric("longline_store_updates", 0)
    clock.set(2 * 366)
    server.restart()
    wait_for_maintenance(server)
    clock.set(0)
    server.restart()
    assert server.push(channel, '{"n":6}') == 6


def test_any_jumps_and_ends(start, clock):
    """While it runs, while it is stopped, and after a kill; then the whole history is there."""
    seed = os.environ.get("SEED") or secrets.token_hex(4)
    print(f"SEED={seed}")
    chance = random.Random(seed)
    # A day may pass at each start, so the bound is a month.
    server = start(LOG_LEVEL="info", DATA_TTL=30 * DAY_S, CHANNEL_STORAGE_MAXSIZE=1_000_000, **clock.settings)
    channels = [server.channel() for _ in range(3)]
    pushed = 0
    for _ in range(RANDOM_JUMPS):
        end = chance.choice(["none", "stop", "kill9"])
        if end != "none":
            getattr(server, end)()
        clock.set(chance.choice([0, 0, chance.randrange(-4000, 4000), chance.randrange(-30, 30)]))
        if end != "none":
            server.start()
        for channel in channels:
            push_some(server, channel, pushed + 1, pushed + 5)
            assert clock.is_near(newest_at(server, channel))
        pushed += 5
    clock.set(0)
    wait_for_maintenance(server)
    for channel in channels:
        assert numbers(server, channel) == list(range(1, pushed + 1))
    server.restart()
    for channel in channels:
        assert numbers(server, channel) == list(range(1, pushed + 1))
    print(f"{RANDOM_JUMPS} jumps, {3 * pushed} updates")


@pytest.mark.providers("memory")
def test_in_memory(serve, clock):
    server = serve(LOG_LEVEL="info", **clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 5)
    for days in (8, 800, -400, 0):
        clock.set(days)
        push_some(server, channel, (total := server.get(channel).total) + 1, total + 1)
        assert numbers(server, channel) == list(range(1, total + 2))
        assert clock.is_near(newest_at(server, channel))
