"""A wall clock that jumps: nothing is deleted, no id is given twice, and `at` follows it.

The monotonic clock stays. JUMPS says how often it jumps at random. script/torture sets it to hundreds.
"""

import os
import random
import secrets
import time

import pytest

from clocks import DAY_S
from longline_server import PATIENCE_S, SLOW, wait_until
from streams import Stream


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


# --- What clients wait for, and what the server remembers ---

YEARS = 20 * 366
FAR = [1, -1, YEARS, -YEARS] if "JUMPS" in os.environ else [1, -YEARS]
ONCE = {"Idempotency-Key": "7"}
SHORT_S = 1 if SLOW else 0.5  # until all have been seen to wait


class Everything:
    """One of each: a consumer, a delivery's id, a purge, and those who wait."""

    def __init__(self, server):
        self.server = server
        self.channel = server.channel()
        push_some(server, self.channel, 1, 8)
        assert server.request("DELETE", f"{self.channel}?upto=3").json() == {"ok": True, "gone": 3}
        assert server.get(f"{self.channel}?as=bot&ts=5").json()["lag"] == 3
        self.once = server.channel()
        assert server.push(f"{self.once}?.once", '{"n":1}', ONCE) == 1
        self.total = 8
        self.waiting, self.filtered, self.short = [server.client() for _ in range(3)]
        self.stream = Stream(server, f"{self.channel}?ts=8&feed=sse")

    def wait(self):
        """Three polls: one that an update ends, one that it does not, one that soon ends by itself."""
        self.waiting.send_request("GET", f"{self.channel}?ts={self.total}&sleep=60")
        self.filtered.send_request("GET", f"{self.channel}?ts={self.total}&sleep=60&where=body.n:{self.total + 2}")
        self.server.wait_for_parked(3)  # with the stream's
        self.began = time.monotonic()
        self.short.send_request("GET", f"{self.channel}?ts={self.total}&sleep={SHORT_S}")
        wait_until(lambda: self.server.metric("longline_polls_parked") == 4 or time.monotonic() > self.began + SHORT_S, "the last")

    def check(self, clock):
        """After a jump, and before the next."""
        assert self.short.read_reply().updates == []
        assert 0.9 * SHORT_S < time.monotonic() - self.began < PATIENCE_S, "a deadline moved"
        first = self.total + 1
        push_some(self.server, self.channel, first, first)
        assert [update["n"] for update in self.waiting.read_reply().updates] == [first]
        push_some(self.server, self.channel, first + 1, first + 1)
        assert [update["n"] for update in self.filtered.read_reply().updates] == [first + 1]
        assert [self.stream.update().json()["n"] for _ in range(2)] == [first, first + 1]
        self.total += 2
        assert clock.is_near(newest_at(self.server, self.channel))
        self.check_memory()
        since = [update["n"] for update in self.server.get(f"{self.channel}?since=1m").updates]
        assert since == list(range(self.total - len(since) + 1, self.total + 1)) and len(since) >= 2

    def check_memory(self):
        """What must be known whatever the clock says."""
        page = self.server.get(self.channel).json()
        assert [update["n"] for update in page["updates"]] == list(range(4, self.total + 1)) and page["missed"] == 3
        assert self.server.get(f"{self.channel}?as=bot").json()["updates"][0] == {"n": 6}
        reply = self.server.post(f"{self.once}?.once", '{"n":1}', ONCE)
        assert (reply.total, reply.headers["x-duplicate"]) == (1, "1")

    def close(self):
        for client in (self.waiting, self.filtered, self.short, self.stream):
            client.close()


@pytest.mark.parametrize("days", FAR)
def test_who_waits_does_not_notice(start, clock, days):
    """A jump there and back while it runs, and while it becomes another program."""
    server = start(LOG_LEVEL="info", SANDBOX="off", **clock.settings)  # the next program opens the file of the clocks
    everything = Everything(server)
    for to in (days, 0):
        everything.wait()
        clock.set(to)
        everything.check(clock)
    everything.wait()
    clock.set(days)
    server.upgrade()
    everything.check(clock)
    everything.wait()
    server.upgrade()
    clock.set(0)
    everything.check(clock)
    everything.close()
    assert server.metric("longline_store_swept_total") == 0


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_what_is_remembered_outlives_a_wrong_clock_at_the_start(start, clock, end):
    """Each start is believed to have taken up to a day, unless the clock went back: an id of a delivery lasts one."""
    server = start(LOG_LEVEL="info", **clock.settings)
    everything = Everything(server)
    everything.close()
    server.restart()  # it saves how far the consumer is
    for days in (-1, -YEARS, 0.9, 0):
        getattr(server, end)()
        clock.set(days)
        server.start()
        page = server.get(everything.channel).json()
        assert [update["n"] for update in page["updates"]] == list(range(4, 9)) and page["missed"] == 3
        assert server.get(f"{everything.channel}?as=bot").json()["updates"][0] == {"n": 6}
    assert server.push(everything.channel) == 9


def test_a_saw_tooth(start, clock):
    """To and fro beneath senders and a stream: the order is that of the ids, and everyone gets everything once."""
    server = start(LOG_LEVEL="info", **clock.settings)
    channel = server.channel()
    with Stream(server, f"{channel}?ts=0&feed=sse") as stream:
        for n in range(1, 61):
            clock.set(1 if n % 2 else -1 if n % 3 else YEARS)
            push_some(server, channel, n, n)
            event = stream.update()
            assert (event.ts, event.json()["n"]) == (n, n)
    clock.set(0)
    assert numbers(server, channel) == list(range(1, 61))
    server.kill9()
    server.start()
    assert numbers(server, channel) == list(range(1, 61))


@pytest.mark.parametrize("days", [YEARS, -YEARS])
def test_nothing_is_kept_for_ever(start, clock, days):
    """Updates, names and a purge of a wrong time: all of them go when they are old enough."""
    server = start(LOG_LEVEL="info", DATA_TTL=2, **clock.settings)
    channel = server.channel()
    clock.set(days)
    push_some(server, channel, 1, 3)
    assert server.get(f"{channel}?as=bot&ts=1").status == 200
    assert server.request("DELETE", f"{channel}?upto=1").status == 200
    clock.set(0)
    server.restart()
    wait_until(lambda: server.get(channel).updates == [], "the updates to be too old")
    server.wait_for_metric("longline_store_updates", 0)
    wait_until(lambda: server.get(f"{channel}/consumers").json()["consumers"] == [], "the name to be forgotten")
    assert server.push(channel) == 4


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
