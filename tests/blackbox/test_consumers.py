"""Consumers whose cursor the server keeps: `as`, `lag`, `confirm=now`, their list, and forgetting one.

ROUNDS kills of consumers and servers; script/torture sets it to a thousand.
"""

import json
import os
import random
import time
from urllib.parse import quote

import pytest

from faults import Faults
from http_client import request_bytes
from longline_server import SLOW, wait_until
from redis_server import Cluster

ROUNDS = int(os.environ.get("ROUNDS", 60))
CONSUMERS_MAX = 1000
# Cursors are saved within a second; a loaded machine takes longer.
SAVED_S = 5 if SLOW else 2


def push_some(server, channel, first, last):
    for n in range(first, last + 1):
        assert server.push(channel, '{"n":%d}' % n) == n


def page(server, channel, query):
    reply = server.get(f"{channel}?{query}")
    assert reply.status == 200, reply
    return reply.json()


def numbers(server, channel, query):
    return [update["n"] for update in page(server, channel, query)["updates"]]


def consumers(server, channel):
    reply = server.get(f"{channel}/consumers")
    assert reply.status == 200, reply
    found = reply.json()
    assert list(found) == ["ok", "ts", "consumers"] and found["ok"] is True
    for consumer in found["consumers"]:
        assert list(consumer) == ["name", "ts", "lag", "at"]
        assert consumer["lag"] == max(0, found["ts"] - consumer["ts"])
    return found["consumers"]


def cursors(server, channel):
    return {consumer["name"]: consumer["ts"] for consumer in consumers(server, channel)}


def check_error(reply, status, words):
    assert reply.status == status, reply
    error = reply.json()
    assert (error["ok"], error["error_code"]) == (False, status) and words in error["error_description"], error


# --- Polling by a name ---


def test_goes_on_behind_what_is_confirmed(server, channel):
    push_some(server, channel, 1, 5)
    assert server.get(f"{channel}?as=bot").text == '{"ok":true,"ts":5,"lag":5,"updates":[{"n":1},{"n":2},{"n":3},{"n":4},{"n":5}]}'
    assert numbers(server, channel, "as=bot") == [1, 2, 3, 4, 5], "nothing is confirmed yet"
    assert server.get(f"{channel}?as=bot&ts=3").text == '{"ok":true,"ts":5,"lag":2,"updates":[{"n":4},{"n":5}]}'
    assert numbers(server, channel, "as=bot") == [4, 5]
    assert numbers(server, channel, "as=bot&ts=1") == [2, 3, 4, 5], "a smaller ts is served,"
    assert numbers(server, channel, "as=bot") == [4, 5], "and confirms nothing"
    assert page(server, channel, "as=bot&ts=5") == {"ok": True, "ts": 5, "lag": 0, "updates": []}
    assert numbers(server, channel, "as=other") == [1, 2, 3, 4, 5]
    assert "lag" not in page(server, channel, "ts=0")
    assert page(server, channel, "as=&ts=0") == page(server, channel, "ts=0"), "an empty name is none"


def test_getUpdates_and_the_order_of_fields(server, channel):
    push_some(server, channel, 1, 2)
    fields = page(server, f"{channel}/getUpdates", "as=bot&ts=9&epoch=&where=body.n:*")
    assert list(fields) == ["ok", "ts", "epoch", "lag", "reset", "updates"]
    assert list(page(server, channel, "as=bot&where=body.n:2")) == ["ok", "ts", "lag", "skipped", "updates"]


@pytest.mark.parametrize("query", ["ts=-2", "since=1h", "since=2000-01-01"])
def test_a_start_that_is_chosen_confirms_nothing(server, channel, query):
    push_some(server, channel, 1, 3)
    assert page(server, channel, "as=bot&ts=1")["lag"] == 2
    assert page(server, channel, f"as=bot&{query}")["lag"] == 2
    assert numbers(server, channel, "as=bot") == [2, 3]


def test_now_confirms_all_there_is(server, channel):
    push_some(server, channel, 1, 3)
    assert page(server, channel, "as=bot&ts=now") == {"ok": True, "ts": 3, "lag": 0, "updates": []}
    push_some(server, channel, 4, 4)
    assert numbers(server, channel, "as=bot") == [4]


def test_ahead_of_the_channel_does_not_stick(server, channel):
    push_some(server, channel, 1, 3)
    for ts in (4, 10**17):
        assert page(server, channel, f"as=bot&ts={ts}") == {"ok": True, "ts": 3, "lag": 3, "reset": True, "updates": []}
    assert numbers(server, channel, "as=bot") == [1, 2, 3]


def test_confirm_now_is_at_most_once(server, channel):
    push_some(server, channel, 1, 5)
    seen = []
    for lag in (3, 1, 0, 0):
        found = page(server, channel, "as=bot&confirm=now&limit=2")
        assert found["lag"] == lag
        seen += [update["n"] for update in found["updates"]]
    assert seen == [1, 2, 3, 4, 5]
    assert page(server, channel, "as=bot&confirm=now&ts=2")["lag"] == 0


def test_confirm_now_confirms_what_is_sent_to_one_that_waited(server, channel):
    with server.client() as client:
        client.send_request("GET", f"{channel}?as=bot&confirm=now&sleep=60")
        wait_until(lambda: cursors(server, channel) == {"bot": 0})
        server.push(channel, '{"n":1}')
        assert client.read_reply().json() == {"ok": True, "ts": 1, "lag": 0, "updates": [{"n": 1}]}
    assert cursors(server, channel) == {"bot": 1}


@pytest.mark.parametrize("query", ["", "&view=full"])
def test_confirm_now_confirms_nothing_that_there_is_no_room_to_send(serve, query):
    server = serve(BUFFER_SIZE=4, REQUEST_TIMEOUT=60)
    channel = server.channel()
    for _ in range(5):
        server.push(channel, json.dumps({"x": "y" * 100_000}))
    held = [server.client() for _ in range(34)]
    for client in held:  # uploads that do not end
        client.send(request_bytes("POST", channel, None, {"Content-Length": 90_000}) + b"y" * 80_000)
    wait_until(lambda: server.metric("longline_buffer_bytes") >= 34 * 90_000, "the uploads to be read")
    check_error(server.get(f"{channel}?as=bot&confirm=now{query}"), 503, "too much under way")
    for client in held:
        client.close()
    server.wait_for_metric("longline_buffer_bytes", 0)
    assert cursors(server, channel) == {"bot": 0}
    for lag, count in ((0, 5), (0, 0)):
        got = page(server, channel, f"as=bot&confirm=now{query}")
        assert (got["lag"], len(got["updates"])) == (lag, count)


def test_head_confirms_nothing_that_it_does_not_send(server, channel):
    push_some(server, channel, 1, 2)
    reply = server.request("HEAD", f"{channel}?as=bot&confirm=now")
    assert (reply.status, reply.total, reply.body) == (200, 2, b"")
    assert numbers(server, channel, "as=bot") == [1, 2]
    reply = server.request("HEAD", f"{channel}/consumers")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(server.get(f"{channel}/consumers").body))


def test_a_filter_leaves_out_and_does_not_confirm(server, channel):
    push_some(server, channel, 1, 4)
    found = page(server, channel, "as=bot&where=body.n:3")
    assert found == {"ok": True, "ts": 4, "lag": 4, "skipped": 3, "updates": [{"n": 3}]}
    found = page(server, channel, "as=bot&ts=1&where=body.n:nothing&sleep=.1")
    assert (found["ts"], found["lag"], found["updates"]) == (4, 3, [])
    assert numbers(server, channel, "as=bot") == [2, 3, 4]
    assert page(server, channel, "as=bot&ts=4&where=body.n:3")["lag"] == 0
    found = page(server, channel, "as=all&confirm=now&where=body.n:2")
    assert (found["ts"], found["lag"]) == (4, 0), "confirm=now passes what was left out, as the reply's ts does"


@pytest.mark.parametrize("name", ["a", "x" * 64, "ä" * 32, "🤖" * 16, 'q"\\/', "a b", "?&=#%+", "\u0080\u2028", "*|!:"])
def test_names(server, channel, name):
    push_some(server, channel, 1, 2)
    encoded = quote(name, safe="")
    assert page(server, channel, f"as={encoded}&ts=1")["lag"] == 1
    assert cursors(server, channel) == {name: 1}
    assert server.request("DELETE", f"{channel}?as={encoded}").text == '{"ok":true}'
    assert cursors(server, channel) == {}


def test_names_are_compared_byte_for_byte(server, channel):
    push_some(server, channel, 1, 1)
    names = ["Bot", "bot", "bot ", "é", "e\u0301", "bo"]
    for name in names:
        page(server, channel, f"as={quote(name)}")
    assert [consumer["name"] for consumer in consumers(server, channel)] == sorted(names, key=str.encode)
    assert cursors(server, f"{channel}x") == {}


@pytest.mark.parametrize("name", ["x" * 65, "%00", "a%0Ab", "%7F", "%FF", "%C3", "%ED%A0%80", "é" * 33])
def test_bad_names(server, channel, name):
    for method in ("GET", "DELETE"):
        check_error(server.request(method, f"{channel}?as={quote(name, safe='%')}"), 400, "as is a name")


@pytest.mark.parametrize("query", ["as=bot&confirm=1", "as=bot&confirm=NOW", "confirm=now", "as=&confirm=now"])
def test_bad_confirm(server, channel, query):
    check_error(server.get(f"{channel}?{query}"), 400, "confirm is now")


# --- The list, and forgetting ---


def test_the_list(server, channel):
    assert server.get(f"{channel}/consumers").text == '{"ok":true,"ts":0,"consumers":[]}'
    push_some(server, channel, 1, 3)
    assert server.get(f"{channel}/consumers/").text == '{"ok":true,"ts":3,"consumers":[]}'
    before = time.time() * 1000
    page(server, channel, "as=b&ts=2")
    page(server, channel, "as=a")
    found = consumers(server, channel)
    assert [(c["name"], c["ts"], c["lag"]) for c in found] == [("a", 0, 3), ("b", 2, 1)]
    for consumer in found:
        assert before - 60_000 < consumer["at"] < time.time() * 1000 + 60_000
    assert server.get(f"{channel}/consumers?anything=1").json()["consumers"]


def test_forgets_one(server, channel):
    push_some(server, channel, 1, 3)
    page(server, channel, "as=a&ts=3")
    page(server, channel, "as=b&ts=3")
    for _ in range(2):
        reply = server.request("DELETE", f"{channel}?as=a")
        assert (reply.status, reply.text) == (200, '{"ok":true}')
        assert reply.headers["content-type"].startswith("application/json")
    assert cursors(server, channel) == {"b": 3}
    assert numbers(server, channel, "as=a") == [1, 2, 3]
    assert server.request("DELETE", f"{server.channel()}?as=a").status == 200, "a channel that nobody knows"
    assert server.get(channel).total == 3, "the updates stay"


SLIPS = ["?", "?as", "?as=", "?AS=bot", "?as=bot&ts=1", "?ts=1&as=bot", "?as=bot&as=other", "?name=bot", "?consumer=bot", "?as=bot&x", "?as=bot&x=", "?confirm=now&as=bot"]


def test_a_slip_forgets_nothing(server, channel):
    push_some(server, channel, 1, 1)
    page(server, channel, "as=bot&ts=1")
    for slip in SLIPS:
        check_error(server.request("DELETE", channel + slip), 400, "DELETE takes upto=N, as=NAME, or no query")
    for below in ("/consumers", "/getUpdates", "/pushUpdates", "/refused", "/bot"):
        assert server.request("DELETE", f"{channel}{below}?as=bot").status == 405
    assert cursors(server, channel) == {"bot": 1}


def test_methods(server, channel):
    for below in ("/consumers", "/consumers/", "//consumers"):
        reply = server.request("DELETE", f"{channel}{below}")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST, PUT, PATCH, OPTIONS")
    for target in (channel, f"{channel}/consumers"):
        reply = server.request("OPTIONS", target, headers={"Origin": "http://x", "Access-Control-Request-Method": "DELETE"})
        assert reply.status == 204
        assert "DELETE" in reply.headers["access-control-allow-methods"]
        assert ("DELETE" in reply.headers["allow"]) == (target == channel)
    for reply in (server.get(f"{channel}/consumers"), server.request("DELETE", f"{channel}?as=x"), server.request("DELETE", channel), server.request("DELETE", channel + "?x")):
        assert reply.headers["access-control-allow-origin"] == "*"


def test_a_push_to_consumers_is_a_push(server, channel):
    for method in ("POST", "PUT", "PATCH"):
        assert server.request(method, f"{channel}/consumers?as=bot", '{"a":1}').body == b"OK"
    updates = page(server, channel, "view=full")["updates"]
    assert [(update["path"], update["body"]) for update in updates] == [("/consumers", {"a": 1, "as": "bot"})] * 3
    assert cursors(server, channel) == {}


def test_counts_in_the_rate_limit(serve):
    server = serve(RATE_LIMIT_LIMIT=20, RATE_LIMIT_FRAME=60)
    channel = server.channel()
    left = []
    for method, target in [("GET", f"{channel}?as=a"), ("GET", f"{channel}/consumers"), ("DELETE", f"{channel}?as=a"), ("DELETE", channel)]:
        left.append(int(server.request(method, target).headers["x-ratelimit-remaining"]))
    assert left == [19, 18, 17, 16]


# --- Many names, many polls ---


def test_a_thousand_names(serve, provider):
    server = serve()
    channel = server.channel()
    push_some(server, channel, 1, 2)
    for i in range(CONSUMERS_MAX):
        page(server, channel, f"as=n{i:03}&ts=1")
    check_error(server.get(f"{channel}?as=more"), 409, "consumers")
    assert server.get(f"{channel}?as=n500&ts=2").status == 200
    assert len(consumers(server, channel)) == CONSUMERS_MAX
    assert server.get(f"{server.channel()}?as=more").status == 200, "another channel has its own"
    if provider != "memory":
        server.restart()
    with server.client() as one, server.client() as other:
        for i, client in enumerate((one, other)):
            client.send_request("GET", f"{channel}?as=late{i}")
        for client in (one, other):
            check_error(client.read_reply(), 409, "consumers")
    assert len(cursors(server, channel)) == CONSUMERS_MAX
    assert cursors(server, channel)["n500"] == 2
    assert server.request("DELETE", f"{channel}?as=n007").status == 200
    assert server.get(f"{channel}?as=more").status == 200
    check_error(server.get(f"{channel}?as=too+many"), 409, "consumers")


def test_they_end_with_the_ttl(serve):
    server = serve(DATA_TTL=2)
    channel = server.channel()
    server.push(channel)
    page(server, channel, "as=bot&ts=1")
    with server.client() as client:
        client.send_request("GET", f"{channel}?as=waits&ts=1&sleep=60")
        wait_until(lambda: "waits" in cursors(server, channel))
        wait_until(lambda: "bot" not in cursors(server, channel), "the end of one that is not used")
        began = time.monotonic()
        server.push(channel)
        assert client.read_reply().json()["lag"] == 1
        lag = page(server, channel, "as=waits")["lag"]
        assert lag == 1 or time.monotonic() - began > 2, "one that waited was in use"


@pytest.mark.providers("sqlite")
def test_a_wall_clock_that_jumps_ends_nobody(start, clock):
    server = start(**clock.settings)
    channel = server.channel()
    push_some(server, channel, 1, 3)
    page(server, channel, "as=bot&ts=2")
    for days in (4000, -4000, 0):
        clock.set(days)
        assert numbers(server, channel, "as=bot") == [3]
        server.restart()  # at the latest now it sees that clock
        assert numbers(server, channel, "as=bot") == [3]
        (bot,) = consumers(server, channel)
        assert clock.is_near(bot["at"]), (days, bot)


def test_two_processes_under_one_name(server, channel):
    """Both get everything; what either confirms is confirmed."""
    with server.client() as one, server.client() as other:
        for client in (one, other):
            client.send_request("GET", f"{channel}?as=bot&ts=0&sleep=60")
        wait_until(lambda: cursors(server, channel) == {"bot": 0})
        server.wait_for_parked(2)
        push_some(server, channel, 1, 1)
        for client in (one, other):
            assert client.read_reply().json() == {"ok": True, "ts": 1, "lag": 1, "updates": [{"n": 1}]}
        assert one.request("GET", f"{channel}?as=bot&ts=1").json()["lag"] == 0
        push_some(server, channel, 2, 3)
        assert other.request("GET", f"{channel}?as=bot&ts=1").json()["updates"] == [{"n": 2}, {"n": 3}]
        assert one.request("GET", f"{channel}?as=bot&ts=3").json()["lag"] == 0
        assert other.request("GET", f"{channel}?as=bot&ts=2").json()["lag"] == 0, "never backwards"


def test_hundreds_of_polls_under_one_name(server, channel):
    push_some(server, channel, 1, 1)
    clients = [server.client() for _ in range(300)]
    for client in clients:
        client.send_request("GET", f"{channel}?as=bot&ts=1&sleep=60")
    server.wait_for_parked(300)
    push_some(server, channel, 2, 2)
    for i, client in enumerate(clients):
        if i % 3:
            assert client.read_reply().json() == {"ok": True, "ts": 2, "lag": 1, "updates": [{"n": 2}]}
        client.close()
    server.wait_for_parked(0)
    assert cursors(server, channel) == {"bot": 1}


# --- Kills ---


class Bot:
    """A consumer that confirms by its next poll, and knows after its death only its name."""

    def __init__(self, server, channel, name="bot"):
        self.server, self.channel, self.name = server, channel, name
        self.got = 0  # the last of those that it got, without a gap
        self.ts = None  # what it remembers
        self.confirmed = [(0, 0)]  # when, and what
        self.lost = []  # the ages of confirmations that a kill took back
        self.floor = 0  # what must not come again
        self.again = 0  # how many came once more

    def poll(self, query=""):
        position = "" if self.ts is None else f"&ts={self.ts}"
        found = page(self.server, self.channel, f"as={self.name}{position}{query}")
        assert "reset" not in found and "missed" not in found, found
        got = [update["n"] for update in found["updates"]]
        assert not got or got == list(range(got[0], got[0] + len(got))), "in order, without a gap"
        if got:
            assert got[0] <= self.got + 1, f"skipped {self.got + 1} to {got[0] - 1}"
            assert got[0] > self.floor, f"{got[0]} comes again, although {self.floor} was confirmed"
            self.again += max(0, self.got - got[0] + 1)
            self.got = max(self.got, got[-1])
        if self.ts is not None and self.ts > self.confirmed[-1][1]:
            self.confirmed.append((time.monotonic(), self.ts))
            self.floor = max(self.floor, self.ts)
        self.ts = found["ts"]

    def hang_up(self):
        """Asks, and dies before the reply."""
        position = "" if self.ts is None else f"&ts={self.ts}"
        with self.server.client() as client:
            client.send_request("GET", f"{self.channel}?as={self.name}{position}&sleep=60")
        self.ts = None

    def server_was_killed(self, at):
        """What was confirmed within the last second may come again."""
        self.server.start()
        found = cursors(self.server, self.channel).get(self.name, 0)
        lost = [at - when for when, ts in self.confirmed if ts > found]
        assert not lost or max(lost) < SAVED_S, lost
        self.lost += lost
        self.floor = found
        self.confirmed = [(0, found)]
        self.ts = None


def test_a_consumer_that_is_killed_gets_everything(server, channel):
    rng = random.Random(14)
    bot, pushed = Bot(server, channel), 0
    for _ in range(10 * ROUNDS):
        if rng.random() < 0.5:
            more = rng.randint(1, 5)
            push_some(server, channel, pushed + 1, pushed + more)
            pushed += more
        bot.poll(f"&limit={rng.randint(1, 9)}")
        if rng.random() < 0.2:
            bot.ts = None
        elif rng.random() < 0.2:
            bot.hang_up()
    while bot.got < pushed:
        bot.poll()
    assert bot.again > 0, "the test sees nothing come again"


@pytest.mark.providers("sqlite", "redis")
def test_a_server_that_is_killed_keeps_cursors(serve):
    rng = random.Random(15)
    server = serve(LOG_LEVEL="info")
    channel = server.channel()
    bot, pushed = Bot(server, channel), 0
    for _ in range(max(3, ROUNDS // 10)):
        for _ in range(rng.randint(5, 60)):
            more = rng.randint(0, 3)
            push_some(server, channel, pushed + 1, pushed + more)
            pushed += more
            bot.poll(f"&limit={rng.randint(1, 9)}&sleep={rng.choice([0, 0, 0, 0.3])}")
            if rng.random() < 0.1:
                bot.ts = None
        at = time.monotonic()
        server.push(server.channel())  # whatever was due before that has been done
        server.kill9()
        bot.server_was_killed(at)
    while bot.got < pushed:
        bot.poll()
    print(f"{pushed} pushed, {bot.again} came again; kills took back {len(bot.lost)} confirmations, the oldest of {max(bot.lost, default=0):.3f} s")


@pytest.mark.providers("sqlite", "redis")
def test_a_cursor_is_saved_soon(serve):
    """Also where nobody pushes; kill -9 a while later keeps it."""
    server = serve()
    channel = server.channel()
    push_some(server, channel, 1, 9)
    lost = []
    for ts in range(1, 4):
        assert page(server, channel, f"as=bot&ts={ts}")["lag"] == 9 - ts
        began = time.monotonic()
        if ts % 3 == 0:
            server.restart()
        else:
            while time.monotonic() < began + SAVED_S:
                assert server.get("/-/health").status == 200
            server.push(server.channel())  # whatever was due before that has been done
            server.kill9()
            server.start()
        lost.append(ts - cursors(server, channel)["bot"])
    assert lost == [0] * 3


@pytest.mark.providers("sqlite")
def test_cursors_take_no_sync_of_their_own(start, tmp_path):
    faults = Faults(tmp_path)
    server = start(**faults.settings())
    channel = server.channel()
    push_some(server, channel, 1, 50)
    syncs = faults["syncs"]
    began = time.monotonic()
    while (done := (time.monotonic() - began) / (2 * SAVED_S)) < 1:
        assert page(server, channel, f"as=bot&ts={min(50, round(50 * done))}")["ts"] == 50
    assert page(server, channel, "as=bot&ts=50")["lag"] == 0
    confirmed = time.monotonic()
    while time.monotonic() < confirmed + SAVED_S:
        assert server.get("/-/health").status == 200
    assert faults["syncs"] <= syncs + 2, "maintenance after the pushes"
    server.push(server.channel())
    server.kill9()
    server.start()
    assert cursors(server, channel) == {"bot": 50}


# --- Several servers ---


def share_channels(servers):
    for server in servers:
        server.channels |= servers[0].channels


def check_shared(one, other):
    channel = one.channel()
    share_channels([one, other])
    push_some(one, channel, 1, 5)
    assert page(one, channel, "as=bot&ts=3")["lag"] == 2
    wait_until(lambda: cursors(other, channel) == {"bot": 3}, "the other server to know it")
    assert numbers(other, channel, "as=bot") == [4, 5]
    assert page(other, channel, "as=bot&ts=5")["lag"] == 0
    wait_until(lambda: numbers(one, channel, "as=bot") == [], "the one to know what the other was told")
    assert other.request("DELETE", f"{channel}?as=bot").status == 200
    assert cursors(one, channel) == {}
    assert numbers(one, channel, "as=bot") == [1, 2, 3, 4, 5]


def test_two_servers_share_cursors(shared_redis, start):
    settings = shared_redis.settings(REDIS_PREFIX=f"{random.getrandbits(32):x}:", REDIS_TIMEOUT=5000)
    one, other = start(**settings), start(**settings)
    check_shared(one, other)
    # Each of two processes under one name gets everything, wherever it asks.
    channel = one.channel()
    share_channels([one, other])
    bots, pushed = [Bot(one, channel), Bot(other, channel)], 0
    rng = random.Random(16)
    for _ in range(100):
        push_some(one, channel, pushed + 1, pushed + 2)
        pushed += 2
        bots[rng.randrange(2)].poll()
    for bot in bots:
        while bot.got < pushed:
            bot.poll()


def test_over_a_cluster(start, tmp_path):
    with Cluster(tmp_path / "nodes") as cluster:
        one, other = start(**cluster.settings()), start(**cluster.settings())
        for _ in range(6):
            check_shared(one, other)


def test_while_redis_is_away(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    push_some(server, channel, 1, 5)
    page(server, channel, "as=bot&ts=2")
    wait_until(lambda: redis.keys("*consumers*"), "the cursor in Redis")
    redis.kill9()
    for method, target in [("GET", f"{channel}?as=bot"), ("GET", f"{channel}/consumers"), ("DELETE", f"{channel}?as=bot")]:
        reply = server.request(method, target)
        assert reply.status == 503 and json.loads(reply.body)["error_code"] == 503, reply
    redis.start()
    wait_until(lambda: server.get(f"{channel}?as=bot").status == 200, "Redis again")
    assert cursors(server, channel) in ({}, {"bot": 0}), "it has lost everything"
    wait_until(lambda: server.post(channel, '{"n":1}').status == 200, "a push that Redis takes")
    push_some(server, channel, 2, 2)
    assert numbers(server, channel, "as=bot") == [1, 2]


def test_a_cursor_that_redis_has_no_room_for(redis, start):
    """Others have filled the hash since it polled: it goes on as long as its server knows it."""
    server = start(**redis.settings())
    channel = server.channel()
    push_some(server, channel, 1, 5)
    page(server, channel, "as=first&ts=1")
    key = wait_until(lambda: redis.keys("*consumers*"), "the cursor in Redis")[0]
    assert redis.command("CONFIG", "RESETSTAT") == "OK"
    with server.client() as waits:  # so that the server keeps the channel in mind
        waits.send_request("GET", f"{channel}?ts=5&sleep=100")
        page(server, channel, "as=late&ts=2")
        cursor = f"1 {int(time.time() * 1000)}"
        fill = "for i = 1, ARGV[1] - redis.call('HLEN', KEYS[1]) do redis.call('HSET', KEYS[1], 'n' .. i, ARGV[2]) end"
        redis.command("EVAL", fill, 1, key, CONSUMERS_MAX, cursor)
        wait_until(lambda: redis.calls().get("hmget"), "the save")
        for _ in range(2):
            assert page(server, channel, "as=late")["lag"] == 3
        redis.command("HDEL", key, "n1", "n2")
        page(server, channel, "as=late&ts=3")
        wait_until(lambda: redis.command("HEXISTS", key, "late"), "room for it")
