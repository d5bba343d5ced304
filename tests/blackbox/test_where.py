"""where: polls that want some updates of a channel only."""

import contextlib
import json
import random
import time
from urllib.parse import quote

import pytest

from http_client import request_bytes
from longline_server import PATIENCE_S, SLOW, wait_until
from swarm import Swarm, push_all

MIB = 1 << 20


def where(*conditions):
    return "".join(f"&where={quote(condition, safe='')}" for condition in conditions)


def numbers(reply):
    assert reply.status == 200, reply
    return [update["n"] for update in reply.updates]


def fill(server, channel, count):
    """Updates {"n":1} to {"n":count}, with a "kind" that is a, b and c in turn."""
    lines = "\n".join(json.dumps({"n": n, "kind": "abc"[n % 3]}) for n in range(1, count + 1))
    server.push(channel, lines, {"Content-Type": "application/x-ndjson"})


# --- What matches -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(module_server):
    """A channel whose updates are told apart by "n"."""
    channel = module_server.channel()
    push = module_server.push
    push(f"{channel}/v1/orders?app=shop", '{"n":1,"ref":"refs/heads/main","a":{"b":[1,{"c":"x"}]}}', {"X-GitHub-Event": "push"})
    push(f"{channel}?app=blog&app=shop", '{"n":2,"ref":"refs/tags/v1","ok":true}', {"X-GitHub-Event": "ping"})
    module_server.request("PUT", channel, '{"n":3,"ref":null,"price":1.10}')
    push(f"{channel}?app=", '{"n":4,"ref":"a|b*c\\\\d","text":"caf\\u00e9"}', {"X-Empty": ""})
    push(channel, '[0,"five"]')
    return channel


@pytest.mark.parametrize(
    "conditions,expected",
    [
        (["header.X-GitHub-Event:push"], [1]),
        (["header.x-github-event:p*"], [1, 2]),
        (["header.x-github-event:PUSH"], []),
        (["!header.x-github-event:*"], [3, 4, 5]),
        (["header.x-empty:"], [4]),
        (["query.app:shop"], [1, 2]),
        (["query.app:blog|nothing"], [2]),
        (["query.app:"], [4]),
        (["!query.app:shop"], [3, 4, 5]),
        (["!query.app:*"], [3, 5]),
        (["body.ref:refs/heads/*"], [1]),
        (["body.ref:*v1|*main"], [1, 2]),
        (["body.ref:*"], [1, 2, 4]),
        (["!body.ref:*"], [3, 5]),
        (["body.ref:null"], []),
        (["body.ref:a\\|b\\*c\\\\d"], [4]),
        (["body.text:café"], [4]),
        (["body.a.b.0:1"], [1]),
        (["body.a.b.1.c:x"], [1]),
        (["body.a:*"], []),
        (["body.1:five"], [5]),
        (["body.ok:true"], [2]),
        (["body.price:1.10"], [3]),
        (["body.price:1.1"], []),
        (["body.n:2|4"], [2, 4]),
        (["method:PUT"], [3]),
        (["!method:PUT"], [1, 2, 4, 5]),
        (["path:/v1/*"], [1]),
        (["!path:*"], [2, 3, 4, 5]),
        (["header.x-github-event:*", "query.app:blog"], [2]),
        (["query.app:shop", "!body.ref:refs/tags/*"], [1]),
        (["body.n:*"] * 16, [1, 2, 3, 4]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else None,
)
def test_what_matches(module_server, examples, conditions, expected):
    for alias in ("", "/getUpdates"):
        reply = module_server.get(f"{examples}{alias}?ts=0{where(*conditions)}")
        got = [update["n"] if isinstance(update, dict) else 5 for update in reply.updates]
        assert got == expected, reply
        skipped = 5 - len(expected)
        assert reply.json() == {"ok": True, "ts": 5, **({"skipped": skipped} if skipped else {}), "updates": reply.updates}


def test_the_full_view(module_server, examples):
    reply = module_server.get(f"{examples}?view=full{where('body.n:2|4')}")
    assert [update["ts"] for update in reply.updates] == [2, 4]
    assert reply.json()["skipped"] == 3


@pytest.mark.parametrize(
    "condition",
    ["x", "body:x", "body.:x", ":x", "!!path:x", "header.a", "path:\\", "path:\\n", "Method:GET", "ts:4", "path:\n", "path:\0"]
    + ["path:" + "x" * 4092],
)
def test_what_is_refused(server, channel, condition):
    reply = server.get(f"{channel}?{where(condition)}")
    assert reply.status == 400 and reply.json()["error_code"] == 400
    assert "where" in reply.json()["error_description"], reply


def test_too_many_conditions(server, channel):
    assert server.get(f"{channel}?{where(*['path:x'] * 16)}").status == 200
    assert server.get(f"{channel}?{where(*['path:x'] * 17)}").status == 400
    assert server.get(f"{channel}?{where(*['path:' + 'x' * 251] * 16)}").status == 200
    assert server.get(f"{channel}?{where('path:' + 'x' * 252, *['path:' + 'x' * 251] * 15)}").status == 400


def test_too_costly_conditions(server, channel):
    def alternatives(count):
        return "body.a:" + "|".join(f"*{n}*" for n in range(count))

    assert server.get(f"{channel}?{where(alternatives(63))}").status == 200
    assert server.get(f"{channel}?{where(alternatives(64))}").status == 400
    assert server.get(f"{channel}?{where(*['body.a.b.c.d:x'] * 16)}").status == 200
    assert server.get(f"{channel}?{where(*['body.a.b.c.d.e:x'] * 16)}").status == 400
    assert server.get(f"{channel}?{where('query.a:' + '|'.join(map(str, range(500))))}").status == 200


def test_an_empty_where_is_none(server, channel):
    fill(server, channel, 3)
    assert server.get(f"{channel}?where=&where").text == server.get(channel).text


# --- The cursor ---------------------------------------------------------------------------------


def test_the_order_of_the_fields(server, channel):
    fill(server, channel, 9)
    text = server.get(f"{channel}?epoch={where('body.n:9')}").text
    epoch = json.loads(text).get("epoch")
    assert text == f'{{"ok":true,"ts":9,"epoch":"{epoch}","skipped":8,"updates":[{{"n": 9, "kind": "a"}}]}}'


def test_paging_with_a_limit(server, channel):
    fill(server, channel, 100)
    seen, skipped, ts = [], 0, 0
    while ts < 100:
        reply = server.get(f"{channel}?ts={ts}&limit=7{where('body.kind:b')}")
        assert reply.ts == ts + len(reply.updates) + reply.json().get("skipped", 0)
        seen += numbers(reply)
        skipped += reply.json().get("skipped", 0)
        ts = reply.ts
    assert seen == [n for n in range(1, 101) if n % 3 == 1]
    assert skipped == 100 - len(seen)


def test_the_last_updates_and_what_is_ahead(server, channel):
    fill(server, channel, 10)
    assert numbers(server.get(f"{channel}?ts=-4{where('body.kind:b')}")) == [7, 10]
    assert server.get(f"{channel}?ts=11{where('body.kind:b')}").json() == {"ok": True, "ts": 10, "reset": True, "updates": []}
    assert server.get(f"{channel}?ts=now{where('body.kind:b')}").json() == {"ok": True, "ts": 10, "updates": []}


def test_a_parked_poll_sleeps_through_what_it_does_not_want(server, channel):
    fill(server, channel, 3)
    with server.client() as client, server.client() as other:
        client.send_request("GET", f"{channel}?ts=3&sleep=60{where('body.n:wanted')}")
        server.wait_for_parked(1)
        for _ in range(20):
            server.push(channel, '{"n":"not"}')
        assert other.get(f"{channel}?ts=-1").total == 23
        assert server.metric("longline_polls_parked") == 1
        server.push(channel, '{"n":"wanted"}')
        reply = client.read_reply()
        assert reply.json() == {"ok": True, "ts": 24, "skipped": 20, "updates": [{"n": "wanted"}]}


@pytest.mark.timed
def test_the_end_of_a_sleep_says_how_far_it_looked(server, channel):
    fill(server, channel, 3)
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts=3&sleep={6 if SLOW else 1.5}{where('body.n:x')}")
        server.wait_for_parked(1)
        fill(server, channel, 5)
        assert client.read_reply().json() == {"ok": True, "ts": 8, "skipped": 5, "updates": []}


@pytest.mark.providers("sqlite", "memory")
def test_a_stop_says_how_far_it_looked(serve):
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts=3&sleep=60{where('body.n:x')}")
        server.wait_for_parked(1)
        fill(server, channel, 5)
        server.send_signal()
        assert client.read_reply().json() == {"ok": True, "ts": 8, "skipped": 5, "updates": []}
        server.wait_for_exit()


@pytest.mark.providers("sqlite", "redis")
def test_a_long_history_is_looked_through_page_by_page(serve):
    """From the store, as after a restart; a reply may be empty, but it goes on, and comes to the end."""
    server = serve(CHANNEL_STORAGE_MAXSIZE=50000, LOG_LEVEL="info")
    channel = server.channel()
    pad = "x" * 300
    count = 40000
    for first in range(0, count, 10000):
        lines = "\n".join(f'{{"n":{n},"pad":"{pad}"}}' for n in range(first + 1, first + 10001))
        server.push(channel, lines, {"Content-Type": "application/x-ndjson"})
    server.restart()
    seen, ts, skipped, replies = [], 0, 0, 0
    while ts < count:
        reply = server.get(f"{channel}?ts={ts}&sleep=60{where('body.n:33333|39999')}")
        assert reply.ts > ts, reply
        seen += numbers(reply)
        skipped += reply.json().get("skipped", 0)
        ts = reply.ts
        replies += 1
        if ts == count:
            break
        if not seen or seen[-1] != 39999:
            continue
        ts = server.get(f"{channel}?ts={ts}{where('body.n:33333|39999')}").ts
        skipped += count - reply.ts
    assert seen == [33333, 39999] and skipped == count - 2
    assert replies < 20


# --- Many ---------------------------------------------------------------------------------------


class Crowd:
    """Polls with filters on one channel. Each is told exactly what it wants, in order."""

    def __init__(self, server, channel, polls, filters):
        self.channel = channel
        self.filters = filters
        self.swarm = Swarm(server.address)
        self.state = {}
        self.seen = 0
        for n in range(polls):
            wire = self.swarm.open(self.answered)
            self.state[wire] = {"digit": n % filters, "ts": 0, "seen": 0}

    def poll(self, wire):
        state = self.state[wire]
        wire.send(request_bytes("GET", f"{self.channel}?ts={state['ts']}&sleep=60{where('body.k:' + str(state['digit']))}"))

    def poll_all(self):
        for wire in self.state:
            self.poll(wire)

    def pushed(self, _wire, reply):
        assert (reply.status, reply.body) == (200, b"OK"), reply

    def answered(self, wire, reply):
        state, answer = self.state[wire], reply.json()
        assert reply.status == 200 and answer.keys() <= {"ok", "ts", "skipped", "updates"}, reply
        assert answer["ts"] == state["ts"] + answer.get("skipped", 0) + len(answer["updates"]), answer
        for update in answer["updates"]:
            assert update == {"k": state["digit"], "n": state["seen"]}, (state, update)
            state["seen"] += 1
            self.seen += 1
        state["ts"] = answer["ts"]
        self.poll(wire)


def test_1000_polls_with_20_filters(serve):
    """Each push wakes 50 of them; it is looked at once a filter."""
    polls, filters, pushes = 1000, 20, 2000 if SLOW else 10000
    server = serve(LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=20000)
    channel = server.channel()
    crowd = Crowd(server, channel, polls, filters)
    rng = random.Random(14)
    sent = [0] * filters
    with crowd.swarm as swarm:
        crowd.poll_all()
        parked = lambda: server.metric("longline_polls_parked") == polls
        swarm.run(parked, 2 * PATIENCE_S, "the polls to park")
        before = server.metric("longline_filter_looks_total")
        publisher = swarm.open(crowd.pushed)
        for _ in range(pushes // 100):
            requests, wanted = b"", crowd.seen
            for _ in range(100):
                digit = rng.randrange(filters)
                requests += request_bytes("POST", channel, json.dumps({"k": digit, "n": sent[digit]}))
                sent[digit] += 1
                wanted += polls // filters
            publisher.send(requests)
            swarm.run(lambda: crowd.seen == wanted, 2 * PATIENCE_S, "the updates")
        swarm.run(parked, 2 * PATIENCE_S, "the polls to park again")
        looks = server.metric("longline_filter_looks_total") - before
    assert looks <= filters * pushes, f"{looks / pushes} looks a push"
    server.wait_for_parked(0)


def test_a_thousand_filters(serve):
    server = serve(LOG_LEVEL="info")
    channel = server.channel()
    count = 1000
    crowd = Crowd(server, channel, count, count)
    with crowd.swarm as swarm:
        crowd.poll_all()
        swarm.run(lambda: server.metric("longline_polls_parked") == count, 2 * PATIENCE_S, "the polls to park")
        for digit in range(0, count, 10):
            server.push(channel, json.dumps({"k": digit, "n": 0}))
        swarm.run(lambda: crowd.seen == count / 10, 2 * PATIENCE_S, "the updates")
        assert server.metric("longline_polls_parked") >= 0.9 * count
    server.wait_for_parked(0)


@pytest.mark.providers("memory")
def test_the_memory_of_filters_is_bounded(serve):
    server = serve(LOG_LEVEL="info", IDLE_TIMEOUT=600)
    channel = server.channel()
    statuses = []
    with Swarm(server.address) as swarm:
        wires = [swarm.open(lambda _wire, reply: statuses.append(reply)) for _ in range(2500)]
        for n, wire in enumerate(wires):
            wire.send(request_bytes("GET", f"{channel}?sleep=60{where(f'path:{n}' + 'x' * 4050)}"))
        swarm.run(lambda: len(statuses) + server.metric("longline_polls_parked") == len(wires), 3 * PATIENCE_S, "the polls")
        assert 100 < len(statuses) < 1500
        for reply in statuses:
            assert reply.status == 503 and "retry-after" in reply.headers
        # Others are served, also those whose filter is there.
        assert server.get(f"{channel}?{where('path:0' + 'x' * 4050)}").status == 200
        assert server.push(channel) == 1
    server.wait_for_parked(0)
    assert server.get(f"{channel}?{where('path:new')}").status == 200


# --- Large updates ------------------------------------------------------------------------------


@pytest.mark.providers("sqlite", "memory")
def test_a_large_update_holds_up_nobody(serve):
    """Twenty filters look at 25 MB; meanwhile others are answered."""
    server = serve(LOG_LEVEL="info", MAX_BODY=26_214_400)
    channel, other = server.channel(), server.channel()
    body = json.dumps({"pad": "y" * 25_000_000, "k": 7})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(20)]
        for n, client in enumerate(clients):
            client.send_request("GET", f"{channel}?sleep=60{where(f'body.k:{n}|x')}")
        server.wait_for_parked(20)
        beside, pusher = stack.enter_context(server.client()), stack.enter_context(server.client())
        pusher.send_request("POST", channel, body)
        served, slowest, looks = 0, 0, 0
        deadline = time.monotonic() + 4 * PATIENCE_S
        while looks < 20:
            began = time.monotonic()
            assert beside.post(other, "{}").status == 200
            samples = beside.get("/-/metrics").text
            slowest = max(slowest, time.monotonic() - began)
            looks = int(samples.split("\nlongline_filter_looks_total ")[1].split("\n")[0])
            served += 1
            assert began < deadline
        assert pusher.read_reply().status == 200
        assert len(clients[7].read_reply().body) > 25_000_000
        assert served >= 20, served  # at the least once between two looks
        print(f"{served} served, the slowest took {slowest * 1000:.0f} ms")
        assert server.metric("longline_polls_parked") == 19


@pytest.mark.providers("memory")
def test_a_costly_filter_holds_up_nobody(serve):
    """Sixty alternatives, each of which must be looked for in the whole text."""
    server = serve(LOG_LEVEL="info")
    channel, other = server.channel(), server.channel()
    alternatives = "|".join(f"*{n}*" for n in range(60))
    with server.client() as client, server.client() as beside:
        client.send_request("GET", f"{channel}?sleep=60{where('body.a:' + alternatives)}")
        server.wait_for_parked(1)
        server.push(channel, json.dumps({"a": "y" * 60000}))
        assert beside.get(other).status == 200
        wait_until(lambda: server.metric("longline_filter_looks_total") == 1, "the look")
        server.push(channel, json.dumps({"a": "y" * 60000 + "59"}))
        assert client.read_reply().json()["skipped"] == 1


# --- Ends ---------------------------------------------------------------------------------------


def test_clients_that_hang_up(serve):
    server = serve()
    channel = server.channel()
    for n in range(50):
        with server.client() as client:
            client.send_request("GET", f"{channel}?sleep=60{where(f'body.n:{n}')}")
        with server.client() as client:
            client.send_request("GET", f"{channel}?sleep=60{where(f'body.n:{n}')}")
            server.push(channel, json.dumps({"n": n, "pad": "x" * 70000 * (n % 2)}))
    server.wait_for_parked(0)


@pytest.mark.parametrize("sync", ["always", "never"])
@pytest.mark.providers("sqlite")
def test_through_kill_9(serve, sync):
    """Polls behind where, killed again and again: each gets its own, in order, once a cursor."""
    server = serve(SYNC=sync, LOG_LEVEL="info")
    server.keep_address()
    channel = server.channel()
    seen, ts, n = [], 0, 0
    for round in range(10):
        for _ in range(20):
            server.push(channel, json.dumps({"n": n, "kind": "abc"[n % 3]}))
            n += 1
        with server.client() as client:
            client.send_request("GET", f"{channel}?ts={ts}&sleep=60&limit={round + 1}{where('body.kind:b')}")
            reply = client.read_reply()
            assert reply.ts == ts + len(reply.updates) + reply.json().get("skipped", 0)
            seen += numbers(reply)
            ts = reply.ts
            client.send_request("GET", f"{channel}?ts={n}&sleep=60{where('body.kind:x')}")
            server.wait_for_parked(1)
        server.kill9()
        server.start()
    while ts < n:
        reply = server.get(f"{channel}?ts={ts}&limit=5{where('body.kind:b')}")
        seen += numbers(reply)
        ts = reply.ts
    assert seen == list(range(1, n, 3))


@pytest.mark.providers("sqlite", "memory")
def test_a_stop_while_the_worker_looks(serve):
    server = serve(LOG_LEVEL="info")
    channel = server.channel()
    body = json.dumps({"pad": "y" * 9_000_000, "k": 1})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(12)]
        for n, client in enumerate(clients):
            client.send_request("GET", f"{channel}?sleep=60{where(f'!body.pad.x:{n}', 'body.k:x')}")
        server.wait_for_parked(12)
        pusher = stack.enter_context(server.client())
        pusher.send_request("POST", channel, body)
        wait_until(lambda: server.metric("longline_pushes_total") == 1, "the push")
        server.send_signal()
        server.wait_for_exit()


def test_replies_to_a_burst_that_nobody_waited_for(server, channel):
    """Batches are looked through like single updates."""
    requests = [request_bytes("GET", f"{channel}?ts=0&sleep=60{where('body.kind:' + kind)}") for kind in "abc" * 10]
    with Swarm(server.address) as swarm:
        got = []
        for request in requests:
            swarm.open(lambda _wire, reply: got.append(reply)).send(request)
        swarm.run(lambda: server.metric("longline_polls_parked") == 30, PATIENCE_S, "the polls")
        fill(server, channel, 300)
        swarm.run(lambda: len(got) == 30, PATIENCE_S, "the replies")
    for reply in got:
        assert len({update["kind"] for update in reply.updates}) == 1
        assert reply.ts == len(reply.updates) + reply.json().get("skipped", 0)


def test_pushes_and_filtered_polls_at_full_speed(serve):
    server = serve(LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=50000)
    channel = server.channel()
    count = 2000 if SLOW else 8000
    crowd = Crowd(server, channel, 40, 4)
    with crowd.swarm as swarm:
        crowd.poll_all()
        swarm.run(lambda: server.metric("longline_polls_parked") == 40, PATIENCE_S, "the polls to park")
        push_all(
            server.address,
            (request_bytes("POST", channel, json.dumps({"k": n % 4, "n": n // 4})) for n in range(count)),
            connections=1,
        )
        swarm.run(lambda: crowd.seen == 10 * count, 3 * PATIENCE_S, "the updates")
