"""GET: what a poll returns, and how much. Waiting is in test_waiting.py."""

import json
import sqlite3

import pytest

MIB = 1 << 20


def fill(server, channel, count):
    for i in range(1, count + 1):
        assert server.push(channel, json.dumps({"i": i})) == i


def numbers(reply):
    return [update["i"] for update in reply.updates]


@pytest.fixture
def five(server, channel):
    """A channel with {"i":1} to {"i":5}."""
    fill(server, channel, 5)
    return channel


# --- ts ---


def test_an_unknown_channel_looks_like_an_empty_one(server, channel):
    reply = server.get(channel)
    assert (reply.status, reply.text, reply.total) == (200, '{"ok":true,"ts":0,"updates":[]}', 0)
    assert reply.headers["content-type"].startswith("application/json")


def test_asking_for_unknown_channels_costs_nothing_on_disk(start):
    server = start()
    for sleep in [0] * 100 + [0.001] * 20:
        assert server.get(server.channel() + f"?ts=0&sleep={sleep}").total == 0
    server.stop()
    assert sqlite3.connect(server.data_path).execute("SELECT count(*) FROM channel").fetchone() == (0,)


@pytest.mark.parametrize(
    "query,expected",
    [
        ("", [1, 2, 3, 4, 5]),
        ("?ts=", [1, 2, 3, 4, 5]),
        ("?ts=&sleep=", [1, 2, 3, 4, 5]),
        ("?ts=0", [1, 2, 3, 4, 5]),
        ("?ts=3", [4, 5]),
        ("?ts=5", []),
        ("?ts=003", [4, 5]),
        ("?ts=-1", [5]),
        ("?ts=-2", [4, 5]),
        ("?ts=-5", [1, 2, 3, 4, 5]),
        ("?ts=-100", [1, 2, 3, 4, 5]),
        ("?ts=%33", [4, 5]),
        ("?timeout=10&nocache=1&ts=4", [5]),
    ],
)
def test_ts_says_after_which_update(server, five, query, expected):
    for alias in ("", "/getUpdates"):
        reply = server.get(five + alias + query)
        assert reply.status == 200 and numbers(reply) == expected
        assert (reply.ts, reply.total) == (5, 5)
        assert reply.json().keys() == {"ok", "ts", "updates"}


def test_a_negative_ts_of_an_unknown_channel(server, channel):
    assert server.get(channel + "?ts=-3").json() == {"ok": True, "ts": 0, "updates": []}


@pytest.mark.parametrize("ts", ["abc", "1abc", "1.5", "0x1", "1e3", "%20", "+1", "-", "--1", "1%00", "%ff", "NaN"])
def test_a_garbage_ts_is_400(server, five, ts):
    reply = server.get(f"{five}?ts={ts}")
    assert reply.status == 400 and reply.json()["error_code"] == 400
    assert not reply.closes


@pytest.mark.parametrize("ts", ["9" * 19, "9" * 30, "-" + "9" * 19, "-" + "9" * 30, "9223372036854775808"])
def test_a_huge_ts_is_either_garbage_or_out_of_range(server, five, ts):
    reply = server.get(f"{five}?ts={ts}")
    if reply.status != 400:
        assert reply.status == 200
        assert numbers(reply) == ([1, 2, 3, 4, 5] if ts[0] == "-" else [])
        assert reply.json().get("reset", False) is (ts[0] != "-")


def test_a_ts_ahead_of_the_channel_answers_at_once_and_says_reset(server, five, channel):
    assert server.get(five + "?ts=6&sleep=60").json() == {"ok": True, "ts": 5, "updates": [], "reset": True}
    assert server.get(server.channel() + "?ts=1&sleep=60").json() == {"ok": True, "ts": 0, "updates": [], "reset": True}


# --- sleep (what is refused; the waiting itself is in test_waiting.py) ---


@pytest.mark.parametrize("sleep", ["abc", "1s", "-1", "-0.5", "nan", "inf", "0x1", "%20", "1,5"])
def test_a_garbage_or_negative_sleep_is_400(server, five, sleep):
    assert server.get(f"{five}?ts=0&sleep={sleep}").status == 400
    assert server.get(f"{five}?ts=5&sleep={sleep}").status == 400


@pytest.mark.parametrize("sleep", ["0", "0.0", "60", "61", "1000000", "999999999999999999999", "0.5", ".5", "1.", "007"])
def test_a_sleep_of_any_size_is_fine_when_there_is_something_to_read(server, five, sleep):
    if sleep in (".5", "1."):
        assert server.get(f"{five}?ts=0&sleep={sleep}").status in (200, 400)
    else:
        assert numbers(server.get(f"{five}?ts=4&sleep={sleep}")) == [5]


# --- limit and paging ---


def test_limit_caps_the_count_and_ts_is_the_last_id_of_the_reply(server, five):
    reply = server.get(five + "?ts=1&limit=2")
    assert numbers(reply) == [2, 3]
    assert (reply.ts, reply.total) == (3, 5)


def test_paging_with_limit_reads_everything_once(server, channel):
    fill(server, channel, 23)
    seen, ts = [], 0
    while ts < 23:
        reply = server.get(f"{channel}?ts={ts}&limit=5")
        assert 1 <= len(reply.updates) <= 5 and reply.total == 23
        seen += numbers(reply)
        ts = reply.ts
    assert seen == list(range(1, 24))


@pytest.mark.parametrize("limit", ["1", "5", "6", "10000", "10001", "99999999"])
def test_a_limit_of_one_and_up(server, five, limit):
    assert numbers(server.get(f"{five}?limit={limit}")) == list(range(1, min(5, int(limit)) + 1))


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "1.5", "1x", "%20"])
def test_a_garbage_limit_is_400(server, five, limit):
    assert server.get(f"{five}?limit={limit}").status == 400


def test_an_empty_limit_is_no_limit(server, five):
    assert len(server.get(five + "?limit=").updates) == 5


def test_limit_with_a_negative_ts_counts_from_the_older_end(server, five):
    reply = server.get(five + "?ts=-3&limit=2")
    assert numbers(reply) == [3, 4] and reply.ts == 4


def test_a_reply_stops_at_a_mebibyte(server, channel):
    size = 100_000
    body = json.dumps({"x": "y" * (size - 8)}).encode()
    for _ in range(30):
        server.push(channel, body)
    ts, pages = 0, []
    while ts < 30:
        reply = server.get(f"{channel}?ts={ts}")
        assert reply.ts == ts + len(reply.updates) and reply.total == 30
        assert len(reply.body) < MIB + size
        pages.append(len(reply.updates))
        ts = reply.ts
    assert pages[0] in (10, 11) and sum(pages) == 30


def test_a_reply_holds_at_least_one_update_however_big(serve):
    server = serve(MAX_BODY=4 * MIB)
    channel = server.channel()
    body = json.dumps({"x": "y" * (3 * MIB)})
    for i in (1, 2):
        assert server.push(channel, body) == i
    for ts in (0, 1):
        reply = server.get(f"{channel}?ts={ts}")
        assert reply.ts == ts + 1 and len(reply.updates) == 1
        assert body in reply.text


def test_a_reply_holds_at_most_10000_updates(serve):
    from http_client import request_bytes
    from swarm import push_all

    server = serve(CHANNEL_STORAGE_MAXSIZE=20_000)
    channel = server.channel()
    replies = push_all(server.address, [request_bytes("POST", channel, b"{}")] * 10_500, connections=4)
    assert {reply.status for reply in replies} == {200}
    reply = server.get(channel + "?limit=20000")
    assert (len(reply.updates), reply.ts, reply.total) == (10_000, 10_000, 10_500)
    reply = server.get(channel + "?ts=10000")
    assert (len(reply.updates), reply.ts) == (500, 10_500)


# --- retention seen from a poll ---


def test_missed_says_how_many_are_gone(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=10)
    channel = server.channel()
    fill(server, channel, 25)
    for ts, missed in ((0, 15), (1, 14), (14, 1)):
        reply = server.get(f"{channel}?ts={ts}")
        assert reply.json()["missed"] == missed and numbers(reply) == list(range(16, 26))
    for ts in (15, 16, 25):
        reply = server.get(f"{channel}?ts={ts}")
        assert "missed" not in reply.json() and numbers(reply) == list(range(ts + 1, 26))
    page = server.get(f"{channel}?ts=2&limit=4")
    assert (page.json()["missed"], numbers(page), page.ts) == (13, [16, 17, 18, 19], 19)
    assert numbers(server.get(f"{channel}?ts=-4")) == [22, 23, 24, 25]


def test_cold_channels_are_read_back_from_the_store(serve):
    """Far more than CACHE_SIZE: most channels are not in memory when they are polled."""
    server = serve(CACHE_SIZE=1)
    channels = [server.channel() for _ in range(600)]
    filler = "x" * 3000
    for round_ in (1, 2):
        for n, channel in enumerate(channels):
            assert server.push(channel, json.dumps({"n": n, "round": round_, "x": filler})) == round_
    reads_before = server.metric("longline_store_reads_total")
    for n, channel in enumerate(channels):
        assert [(u["n"], u["round"]) for u in server.get(channel).updates] == [(n, 1), (n, 2)]
        assert [u["round"] for u in server.get(channel + "?ts=1").updates] == [2]
    assert server.metric("longline_store_reads_total") > reads_before
    assert server.metric("longline_cache_bytes") <= 1.5 * MIB
