"""Batches: a push of NDJSON stores every line, or none, with ids in a row."""

import fcntl
import json
import os
import random
import select
import struct
import termios

import pytest

from http_client import Closed, chunked, request_bytes
from longline_server import SLOW, wait_until
from swarm import Swarm

MAX = 10_000
NDJSON = {"Content-Type": "application/x-ndjson"}
KEEP_ALL = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}
ROUNDS = int(os.environ.get("ROUNDS", 6))
SEED = int(os.environ.get("SEED", 20261129))


def lines(count, size=0, **members):
    """`count` updates, numbered from 1, each line with about `size` bytes more."""
    rest = "".join(f',"{name}":{json.dumps(value)}' for name, value in members.items())
    padding = f',"x":"{"y" * size}"' if size else ""
    return "".join(f'{{"n":{n}{rest}{padding}}}\n' for n in range(1, count + 1)).encode()


def numbers(updates):
    return [update["n"] for update in updates]


def push_batch(server, channel, body, headers=NDJSON):
    """A batch that must succeed. Returns the ids of its updates."""
    reply = server.post(channel, body, headers)
    assert (reply.status, reply.body) == (200, b"OK"), reply
    count = int(reply.headers["x-updates"])
    return list(range(reply.total - count + 1, reply.total + 1))


def refused(server, channel, body, status, description, headers=NDJSON):
    """A batch that must be refused, on a connection that stays open, and leave nothing behind."""
    before = server.get(f"{channel.split('?')[0]}?ts=-1").total
    reply = server.post(channel, body, headers)
    assert (reply.status, reply.json()["error_description"]) == (status, description), reply
    assert not reply.closes
    assert server.get(f"{channel.split('?')[0]}?ts=-1").total == before


def test_a_refused_batch_leaves_nothing_behind_on_its_connection(serve):
    """The next request there is a poll, and its client hangs up."""
    server = serve(STRICT_JSON="on")
    channel = server.channel()
    for body in (b"{bad", b"\n", b"{}\n" * (MAX + 1)):
        with server.client() as client:
            assert client.request("POST", channel, body, NDJSON).status in (400, 413)
            client.send_request("GET", channel + "?sleep=60")
            server.wait_for_parked(1)
        server.wait_for_parked(0)
    assert server.push(channel) == 1


# --- what a line becomes ---


def test_each_line_is_an_update(server, channel):
    assert push_batch(server, channel, b'{"n":1}\n[2, 3.0]\n{"n": 1.10}\n') == [1, 2, 3]
    assert server.push(channel, '{"n":4}') == 4
    assert push_batch(server, channel, b'{"n":5}') == [5]
    assert '"updates":[{"n":1},[2, 3.0],{"n": 1.10},{"n":4},{"n":5}]' in server.get(channel).text


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "Application/X-NDJSON",
        "application/jsonl; charset=utf-8",
        " application/ndjson ;x=y",
    ],
)
def test_the_types_of_a_batch(server, channel, content_type):
    assert push_batch(server, channel, b"{}\n{}", {"Content-Type": content_type}) == [1, 2]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson+json", "text/plain", "application/jsonlx"])
def test_other_types_are_no_batch(server, channel, content_type):
    reply = server.post(channel, b'{\n"n":1\n}', {"Content-Type": content_type})
    assert (reply.status, reply.total, "x-updates" in reply.headers) == (200, 1, False)
    assert server.get(channel).updates == [{"n": 1}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"n":1}\n{"n":2}',
        b'{"n":1}\n{"n":2}\n',
        b'{"n":1}\r\n{"n":2}\r\n',
        b'\n\r\n \t\n{"n":1}\n\n{"n":2}\n \n',
        b'\xef\xbb\xbf{"n":1}\n{"n":2}',
    ],
    ids=["no end", "end", "crlf", "blank", "bom"],
)
def test_line_ends_blank_lines_and_a_bom(server, channel, body):
    assert push_batch(server, channel, body) == [1, 2]
    items = server.get(f"{channel}?view=full").updates
    assert [(item["ts"], item["raw"]) for item in items] == [(1, '{"n":1}'), (2, '{"n":2}')]


def test_a_line_is_delivered_byte_for_byte(server, channel):
    texts = ['{"a":1,"a":2}', ' { "spaced" :\t[ 1 ] } ', r'{"t":"\u00e9\n\ud83d\ude00"}', '{"emoji":"😀 漢"}', "[]", "[[[1e400]]]"]
    push_batch(server, channel, "\n".join(texts).encode())
    assert f'"updates":[{",".join(texts)}]' in server.get(channel).text


def test_the_query_is_merged_into_every_line(server, channel):
    push_batch(server, f"{channel}?app=shop&n=q", b'{"n":1}\n[2]\n{"a":1}\n{"n":4,"n":5}\n')
    items = server.get(f"{channel}?view=full").updates
    assert [item["body"] for item in items] == [
        {"n": "q", "app": "shop"},
        {"body": [2], "app": "shop", "n": "q"},
        {"a": 1, "app": "shop", "n": "q"},
        {"n": "q", "app": "shop"},
    ]
    assert [item["raw"] for item in items] == ['{"n":1}', "[2]", '{"a":1}', '{"n":4,"n":5}']


def test_view_full_has_the_request_with_every_line(server, channel):
    push_batch(server, f"{channel}/pushUpdates?a=1", b"{}\n{}\n", {**NDJSON, "X-Kind": "ping"})
    for item in server.get(f"{channel}?view=full").updates:
        assert (item["method"], item["query"], item["headers"]["x-kind"]) == ("POST", "a=1", "ping")
        assert item["headers"]["content-type"] == "application/x-ndjson"
        assert (item["body"], item["raw"]) == ({"a": "1"}, "{}")


def test_a_batch_as_single_pushes(server):
    """A line becomes what it would become as the body of a push of its own."""
    rng = random.Random(SEED)
    atoms = ["1", '"x"', "null", "[]", "{}", '{"a":"b"}', r'"\u00e9"', "[1, 2]", '{"q":{"q":[{}]}}']
    for query in ("", "?q=1&a=%C3%A9", "?body=x"):
        values = [json.dumps({rng.choice("aqz"): json.loads(rng.choice(atoms))}) for _ in range(200)]
        values += [f"[{rng.choice(atoms)},{rng.choice(atoms)}]" for _ in range(100)]
        rng.shuffle(values)
        batch, single = server.channel(), server.channel()
        push_batch(server, batch + query, "\n".join(values).encode())
        for value in values:
            server.push(single + query, value)
        assert server.get(batch).text == server.get(single).text


@pytest.mark.parametrize("query", ["", "?q=1"])
def test_a_line_that_is_no_json_is_kept_as_a_push_of_its_own_would_be(server, channel, query):
    values = [b"nonsense", b'{"a":}', b"5", b'"text"', b"null", b'{"n":1}{"n":2}', b'{"a":"\xe9"}', b"\xe9\x00", b"[" * 201 + b"]" * 201]
    values += [rb'{"a":"\ud83c"}', b"a=1&a=2"]
    batch, single = channel, server.channel()
    push_batch(server, batch + query, b"\n".join(values))
    for value in values:
        server.push(single + query, value, {"Content-Type": "application/json"})
    whole = [[(item["body"], item.get("raw"), item.get("raw_base64")) for item in server.get(f"{c}?view=full").updates] for c in (batch, single)]
    assert whole[0] == whole[1]
    assert [body for body, _, _ in whole[0]][:1] == [{"body": "nonsense", **({"q": "1"} if query else {})}]


# --- what is refused ---

NOT_JSON = "Malformed JSON payload: an object or an array is expected"


BAD_LINES = [
    (b"nonsense", 1, NOT_JSON),
    (b'{}\n\r\n{"a":}\n{}', 3, NOT_JSON),
    (b"{}\n{}\n5\n", 3, NOT_JSON),
    (b'{}\n"text"', 2, NOT_JSON),
    (b'{"n":1}{"n":2}\n', 1, NOT_JSON),
    (b'{\n"n":1\n}\n', 1, NOT_JSON),
    (b'{}\n{"a":"\xff"}', 2, NOT_JSON),
    (b"{}\n" * 5000 + b"{", 5001, NOT_JSON),
    (b"{}\n" + b"[" * 201 + b"]" * 201, 2, "The JSON payload is nested deeper than 200 levels"),
]


def test_under_strict_json_a_bad_line_refuses_the_whole_batch_and_is_named(serve):
    server = serve(STRICT_JSON="on")
    channel = server.channel()
    for body, line, why in BAD_LINES:
        refused(server, channel, body, 400, f"Line {line}: {why}")


def test_a_line_that_repeats_a_member_too_often(server, channel):
    line = b"{" + b",".join([b'"a":1'] * 10_000) + b"}"
    why = "Line 2: The body repeats a member that the query replaces too often"
    refused(server, f"{channel}?a={'x' * 4000}", b"{}\n" + line, 413, why)


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_a_batch_without_a_line(server, channel, body):
    refused(server, channel, body, 400, "A batch needs a line of JSON: an object or an array")


def test_as_many_updates_as_a_batch_may_have(serve):
    server = serve(**KEEP_ALL)
    channel = server.channel()
    assert push_batch(server, channel, lines(MAX) + b"\n\n") == list(range(1, MAX + 1))
    refused(server, channel, lines(MAX + 1), 413, "A batch has at most 10000 updates")
    assert numbers(update for _, update in server.read_all(channel)) == list(range(1, MAX + 1))


@pytest.mark.parametrize("what", ["query", "headers"])
def test_what_a_batch_may_take_beyond_its_lines(server, channel, what):
    """Its body is small, but each of its updates would get eight kilobytes."""
    why = "The headers and the query, once for each line, take more than 16 MiB"
    long = "x" * 7000
    target, headers = (f"{channel}?q={long}", NDJSON) if what == "query" else (channel, {**NDJSON, "X-Long": long})
    refused(server, target, lines(5000), 413, why, headers)
    assert push_batch(server, target, lines(500), headers) == list(range(1, 501))


def test_a_batch_is_one_request_to_the_rate_limit(serve):
    server = serve(RATE_LIMIT_LIMIT=2, RATE_LIMIT_FRAME=3600)
    channel = server.channel()
    assert server.post(channel, lines(100), NDJSON).headers["x-ratelimit-remaining"] == "1"
    assert server.post(channel, lines(100), NDJSON).status == 200
    assert server.post(channel, lines(100), NDJSON).status == 429


# --- on the wire ---


@pytest.mark.parametrize("count", [3, 500, 3000, MAX])
def test_requests_behind_a_batch_wait_for_it(serve, count):
    """It may lie in the buffer that connections share, or in one of its own, with others around it."""
    server = serve(**KEEP_ALL)
    channel = server.channel()
    request = request_bytes("POST", channel, lines(count), NDJSON)
    around = [request_bytes("POST", channel, "{}"), request_bytes("GET", channel + "?ts=-1")]
    with server.client() as client:
        client.send(around[0] + request + around[0] + request + around[1])
        totals = [client.read_reply().total for _ in range(5)]
    assert totals == [1, count + 1, count + 2, 2 * count + 2, 2 * count + 2]


def test_a_chunked_batch_in_small_pieces(serve):
    server = serve(**KEEP_ALL)
    channel = server.channel()
    body = lines(MAX)
    parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    with server.client() as client:
        client.send_request("POST", channel, chunked(*parts), {**NDJSON, "Transfer-Encoding": "chunked"})
        assert client.read_reply().total == MAX
    assert numbers(update for _, update in server.read_all(channel)) == list(range(1, MAX + 1))


def test_a_client_that_sends_no_more_still_gets_its_reply(serve):
    server = serve(**KEEP_ALL)
    channel = server.channel()
    with server.client() as client:
        client.send_request("POST", channel, lines(MAX), NDJSON)
        client.sock.shutdown(1)
        assert client.read_reply().total == MAX


def test_clients_that_hang_up_leave_all_or_nothing(serve):
    server = serve(**KEEP_ALL)
    channels = [server.channel() for _ in range(40)]
    rng = random.Random(SEED)
    for channel in channels:
        client = server.client()
        client.send_request("POST", channel, lines(MAX), NDJSON)
        if rng.random() < 0.7:
            client.abort()
        else:
            client.close()
    server.wait_for_metric("longline_connections", 1)
    wait_until(lambda: server.metric("longline_buffer_bytes") < 65536, "the batches to be gone")
    for channel in channels:
        assert server.get(f"{channel}?ts=-1").total in (0, MAX)


# --- polls ---


@pytest.mark.parametrize("kept", [30, 1000, 1_000_000])
def test_parked_polls_get_a_batch_from_its_first_update_on(serve, provider, kept):
    """They get a page each, and the rest with the polls after it, as far as it is kept.

    Redis tells of a batch update by update, so that the page may be any part of it, or what is kept.
    """
    server = serve(CHANNEL_STORAGE_MAXSIZE=kept)
    channel = server.channel()
    server.push(channel, '{"n":0}')
    limits = [None, 1, 300, MAX]
    clients = [server.client() for _ in range(40)]
    for i, client in enumerate(clients):
        limit = limits[i % len(limits)]
        client.send_request("GET", f"{channel}?ts=1&sleep=60" + (f"&limit={limit}" if limit else ""))
    server.wait_for_parked(len(clients))
    assert push_batch(server, channel, lines(MAX, size=80)) == list(range(2, MAX + 2))
    for i, client in enumerate(clients):
        page = client.read_reply().json()
        got = numbers(page["updates"])
        missed = page.get("missed", 0)
        assert got == list(range(1 + missed, 1 + missed + len(got)))
        assert missed == 0 or (provider == "redis" and kept < MAX)
        assert len(got) == limits[i % len(limits)] or len(got) > (0 if provider == "redis" else 500)
        while page["ts"] < MAX + 1:
            page = client.get(f"{channel}?ts={page['ts']}").json()
            begin = page["ts"] - len(page["updates"])
            assert numbers(page["updates"]) == list(range(begin, begin + len(page["updates"])))
            assert page.get("missed", 0) == 0 or kept < MAX
            if limits[i % len(limits)] == 1:
                break
        client.close()


def test_a_batch_keeps_the_ids_of_others_apart(serve):
    """Batches and single pushes to one channel at the same time: each batch has its ids in a row."""
    server = serve(**KEEP_ALL)
    channel = server.channel()
    rng = random.Random(SEED)
    acknowledged, left = {}, 300

    with Swarm(server.address) as swarm:

        def send(wire):
            nonlocal left
            left -= 1
            wire.count = rng.choice((0, 0, 1, 2, 50, 400, 2000))
            wire.name = left
            if wire.count:
                wire.send(request_bytes("POST", channel, lines(wire.count, b=left), NDJSON))
            else:
                wire.send(request_bytes("POST", channel, json.dumps({"n": 1, "b": left})))

        def answered(wire, reply):
            assert reply.status == 200, reply
            assert reply.headers.get("x-updates", "0") == str(wire.count)
            count = wire.count or 1
            for n in range(count):
                acknowledged[reply.total - count + 1 + n] = {"n": n + 1, "b": wire.name}
            if left:
                send(wire)

        for _ in range(12):
            send(swarm.open(answered))
        swarm.run(lambda: not left and len({u["b"] for u in acknowledged.values()}) == 300, 120, "all batches")
    assert dict(server.read_all(channel)) == acknowledged
    assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))


# --- nobody is held up ---


def wait_until_read(client):
    """Until the server's kernel has all that the client has sent."""
    unsent = struct.pack("i", 0)
    wait_until(lambda: not struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, unsent))[0], "the server to read")


def answers_meanwhile(server, channel, body):
    """How many requests of another client are answered while a batch is made that is refused."""
    with server.client() as sender, server.client() as other:
        request = request_bytes("POST", channel, body, NDJSON)
        sender.send(request[:-1])
        wait_until_read(sender)
        assert other.request("HEAD", "/-/health").status == 200
        count = 0
        sender.send(request[-1:])
        while not select.select([sender], [], [], 0)[0]:
            assert other.request("HEAD", "/-/health").status == 200
            count += 1
        assert sender.read_reply().status == 400
        return count


@pytest.mark.providers("sqlite")
def test_others_are_served_while_a_batch_is_made(serve):
    server = serve(STRICT_JSON="on")
    channel = server.channel()
    body = lines(MAX - 1, size=80) + b"{"
    best = 0
    for _ in range(50):  # this process may get no time itself
        best = max(best, answers_meanwhile(server, channel, body))
        if best >= 8:
            break
    assert best >= 8


def test_a_push_waits_for_few_batches_however_many_there_are(serve):
    server = serve(BUFFER_SIZE=1024, **KEEP_ALL)
    channels = [server.channel() for _ in range(40)]
    batches, waits = 0, []

    with Swarm(server.address) as swarm:

        def stored(_wire, reply):
            nonlocal batches
            assert reply.status == 200, reply
            batches += 1
            if batches in (5, 10, 15):
                other = swarm.open(pushed)
                other.before = batches
                other.send(request_bytes("POST", channels[0], "{}"))

        def pushed(wire, reply):
            assert reply.status == 200, reply
            waits.append(batches - wire.before)

        for channel in channels:
            swarm.open(stored).send(request_bytes("POST", channel, lines(MAX, size=60), NDJSON))
        swarm.run(lambda: batches == len(channels) and len(waits) == 3, 120, "all batches")
    assert min(waits) <= 6, waits


# --- all or nothing ---


def check_all_or_nothing(server, channel, acknowledged):
    """Each batch is there whole, in a row, or not at all. Returns the names of those that are."""
    updates = server.read_all(channel)
    found, at = [], 0
    while at < len(updates):
        name, count = updates[at][1]["b"], updates[at][1]["of"]
        part = [update for _, update in updates[at : at + count]]
        assert part == [{"n": n, "b": name, "of": count} for n in range(1, count + 1)], f"a part of batch {name}"
        found.append(name)
        at += count
    assert len(set(found)) == len(found)
    assert acknowledged <= set(found), acknowledged - set(found)
    return set(found)


class Senders:
    """Connections that send batches to one channel without pause."""

    def __init__(self, server, channel, rng):
        self.server, self.channel, self.rng = server, channel, rng
        self.acknowledged = set()
        self.name = 0
        self.open_wires = 0

    def send(self, wire):
        self.name += 1
        count = self.rng.choice((1, 20, 300, 3000))
        wire.name = self.name
        wire.send(request_bytes("POST", self.channel, lines(count, b=wire.name, of=count), NDJSON))

    def answered(self, wire, reply):
        assert reply.status == 200, reply
        self.acknowledged.add(wire.name)
        self.send(wire)

    def closed(self, _wire):
        self.open_wires -= 1

    def run(self, end, after_s):
        with Swarm(self.server.address) as swarm:
            for _ in range(8):
                self.open_wires += 1
                self.send(swarm.open(self.answered, self.closed))
            swarm.after(after_s, end)
            swarm.run(lambda: self.open_wires == 0, 120, "the end of all connections")


def test_kill_dash_nine_leaves_all_of_a_batch_or_nothing(start):
    rng = random.Random(SEED)
    server = start(**KEEP_ALL)
    acknowledged = 0
    for _ in range(ROUNDS):
        channel = server.channel()
        senders = Senders(server, channel, rng)
        senders.run(server.kill9, 0.1 + rng.random() * 0.5)
        server.start()
        check_all_or_nothing(server, channel, senders.acknowledged)
        acknowledged += len(senders.acknowledged)
    assert acknowledged


def test_a_stop_answers_what_is_under_way(start):
    rng = random.Random(SEED)
    server = start(**KEEP_ALL)
    channel = server.channel()
    senders = Senders(server, channel, rng)
    senders.run(server.send_signal, 0.3)
    assert server.wait_for_exit() == 0
    server.start()
    check_all_or_nothing(server, channel, senders.acknowledged)


def test_a_stop_with_many_batches_waiting(start):
    server = start(BUFFER_SIZE=1024, **KEEP_ALL)
    channels = [server.channel() for _ in range(30)]
    clients = [server.client() for _ in channels]
    for client, channel in zip(clients, channels, strict=True):
        client.send_request("POST", channel, lines(MAX, size=60), NDJSON)
    server.stop()
    stored = []
    for client in clients:
        try:
            reply = client.read_reply()
            assert (reply.status, reply.total) == (200, MAX)
            stored.append(True)
        except Closed:
            stored.append(False)
        client.close()
    server.start()
    for channel, was_acknowledged in zip(channels, stored, strict=True):
        assert server.get(f"{channel}?ts=-1").total in ((MAX,) if was_acknowledged else (0, MAX))


# --- memory ---


@pytest.mark.skipif(SLOW, reason="a sanitizer's memory is not the program's")
@pytest.mark.providers("sqlite")
def test_batches_stay_within_buffer_size(serve):
    """Small bodies that each become 15 MiB of updates, and requests that stay unfinished beside them."""
    buffer_mib, mib = 64, 1 << 20
    server = serve(BUFFER_SIZE=buffer_mib, CACHE_SIZE=8, LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=30)
    channels = [server.channel() for _ in range(100)]
    headers = {**NDJSON, "X-Long": "x" * 1200}
    left, worst, statuses = len(channels), 0, set()

    with Swarm(server.address) as swarm:

        def answered(_wire, reply):
            nonlocal left, worst
            left -= 1
            statuses.add(reply.status)
            worst = max(worst, server.rss_bytes())

        for channel in channels:
            swarm.open(answered).send(request_bytes("POST", channel, b"[]\n" * MAX, headers))
        swarm.run(lambda: not left, 120, "all batches")
    assert 200 in statuses and statuses <= {200, 503}
    assert worst <= (buffer_mib + 8 + 16) * mib, f"{worst / mib:.0f} MiB"
    assert server.metric("longline_buffer_bytes") < 65536
