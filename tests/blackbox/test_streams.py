"""Streams: a poll that asks again by itself, as server-sent events or as lines."""

import json
import random
import socket
import threading
import time

import pytest

from http_client import Closed
from keys import new_keys
from longline_server import SLOW, wait_until
from streams import BEAT_S, END_S, Stream
from test_drain import ask_as_it_stops

FEEDS = pytest.mark.parametrize("feed", ["sse", "lines"])
# To whoever talks to Redis, a clock that jumps is an outage.
WITHOUT_REDIS = pytest.mark.providers("sqlite", "memory")
MIB = 1 << 20


def push_numbers(server, channel, first, last):
    for n in range(first, last + 1):
        assert server.push(channel, '{"n":%d}' % n) == n


def wait_for_streams(server, count):
    server.wait_for_metric("longline_streams", count)


def next_heartbeat(stream):
    """The next thing must be one."""
    found = stream.next()
    if stream.is_lines:
        assert found == ""
    else:
        assert found.comments == [""] and found.data is None
    return found


# --- What it looks like ---


@pytest.mark.parametrize("query, headers", [("?feed=sse", {}), ("", {"Accept": "text/event-stream"})])
def test_events(server, channel, query, headers):
    server.push(channel, '{"n":1}')
    with Stream(server, channel + query, headers) as stream:
        fields = stream.reply.headers
        assert stream.reply.status == 200
        assert fields["content-type"] == "text/event-stream; charset=utf-8"
        assert fields["cache-control"] == "no-store, no-transform"
        assert fields["x-accel-buffering"] == "no"
        assert fields["access-control-allow-origin"] == "*"
        assert fields["x-total-updates"] == "1"
        assert "content-length" not in fields and not stream.reply.closes
        opening = stream.next()
        assert (opening.retry, opening.id, opening.data) == ("1000", "1", None)
        push_numbers(server, channel, 2, 3)
        for n in (2, 3):
            event = stream.next()
            assert (event.id, event.event, event.data) == (str(n), None, '{"n":%d}' % n)


def test_lines(server, channel):
    with Stream(server, channel + "?feed=lines") as stream:
        assert stream.reply.headers["content-type"] == "application/x-ndjson; charset=utf-8"
        assert stream.next() == '{"ts":0}'
        server.push(channel, '{\r\n "n":\n1}\n')
        assert stream.next() == '{"ts":1,"update":{   "n": 1} }'


def test_what_accept_may_look_like(server, channel):
    for accept in ("text/event-stream, */*", "text/html, Text/Event-Stream;q=0.9", "text/event-stream ;x=y"):
        with Stream(server, channel, {"Accept": accept}) as stream:
            assert stream.next().id == "0"
    for accepts in (("*/*", "text/event-stream"), ("text/event-stream", "*/*")):  # several headers are one list
        with server.client() as client:
            lines = "".join(f"Accept: {accept}\r\n" for accept in accepts)
            client.send(f"HEAD {channel} HTTP/1.1\r\nHost: longline.test\r\n{lines}\r\n".encode())
            assert client.read_reply(has_body=False).headers["content-type"].startswith("text/event-stream")
    for accept in ("*/*", "text/event", "application/json", ""):
        assert server.get(channel, {"Accept": accept}).updates == []


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_text_with_line_breaks_has_several_data_lines(server, channel, ending):
    update = ending.join(["{", '"a":"b",', "", '"c":[1,', "2]}", ""])
    with Stream(server, channel + "?feed=sse") as stream:
        stream.next()
        server.push(channel, update)
        event = stream.next()
        assert event.json() == {"a": "b", "c": [1, 2]}
        assert event.data.count("\n") == (0 if ending == "\r" else 5)
        server.push(channel, '{"n":2}')
        assert stream.next().data == '{"n":2}'


def test_a_text_of_line_breaks_is_not_blown_up(server, channel):
    """Each of them would be a line of its own, behind a `data:`."""
    breaks = 1 << 20
    with Stream(server, channel + "?feed=sse") as stream:
        stream.next()
        server.push(channel, "{" + "\n" * breaks + '"a":1}')
        event = stream.next()
        assert event.data == "{" + " " * breaks + '"a":1}'


@FEEDS
def test_many_that_come_together(server, channel, feed):
    """As many as do not fit into one page."""
    filler = "x" * 300
    with Stream(server, f"{channel}?feed={feed}") as stream:
        for first in range(1, 16001, 8000):
            lines = "".join('{"n":%d,"x":"%s"}\n' % (n, filler) for n in range(first, first + 8000))
            reply = server.post(channel, lines, {"Content-Type": "application/x-ndjson"})
            assert reply.status == 200
        for n in range(1, 1001):
            found = stream.update()
            if feed == "sse" and found.event == "missed" or feed == "lines" and "missed" in found:
                pytest.fail("the stream lost what it waited for")
            assert (found.json() if feed == "sse" else found["update"])["n"] == n


# --- Where it begins ---


@pytest.mark.parametrize(
    "query, headers, first",
    [
        ("", {}, 6),
        ("ts=now", {}, 6),
        ("ts=0", {}, 1),
        ("ts=3", {}, 4),
        ("ts=-2", {}, 4),
        ("since=1h", {}, 1),
        ("", {"Last-Event-ID": "2"}, 3),
        ("ts=0", {"Last-Event-ID": "4"}, 5),
        ("since=1h", {"last-event-id": " 4 "}, 5),
        ("ts=2", {"Last-Event-ID": ""}, 3),
    ],
)
def test_where_it_begins(server, channel, query, headers, first):
    push_numbers(server, channel, 1, 5)
    with Stream(server, f"{channel}?feed=sse&{query}", headers) as stream:
        assert stream.next().id == str(first - 1)
        server.push(channel, '{"n":6}')
        for n in range(first, 7):
            event = stream.next()
            assert (event.ts, event.json()) == (n, {"n": n})


@pytest.mark.parametrize("value", ["x", "-1", "1-", "4.0", "now", "9" * 19])
def test_an_id_that_is_none(server, channel, value):
    reply = server.get(channel + "?feed=sse", {"Last-Event-ID": value})
    assert (reply.status, "Last-Event-ID" in reply.json()["error_description"]) == (400, True)
    assert server.get(channel, {"Last-Event-ID": value}).status == 200  # a poll knows no such header


@pytest.mark.parametrize("query", ["feed=json", "feed=SSE", "feed=sse&view=raw", "feed=sse&ts=x", "feed=lines&ts=1&since=1h"])
def test_what_is_no_stream(server, channel, query):
    assert server.get(f"{channel}?{query}").status == 400


def test_an_empty_feed_is_a_poll(server, channel):
    assert server.get(channel + "?feed=").updates == []


@FEEDS
def test_what_is_gone_is_missed(serve, feed):
    server = serve(CHANNEL_STORAGE_MAXSIZE=3)
    channel = server.channel()
    push_numbers(server, channel, 1, 5)
    with Stream(server, f"{channel}?feed={feed}&ts=1") as stream:
        found = stream.update()
        if feed == "sse":
            assert (found.event, found.id, found.json()) == ("missed", "2", {"ts": 2, "missed": 1})
            assert [stream.update().ts for _ in range(3)] == [3, 4, 5]
        else:
            assert found == {"ts": 2, "missed": 1}
            assert [stream.update()["ts"] for _ in range(3)] == [3, 4, 5]


@FEEDS
def test_a_cursor_that_is_ahead_is_reset(server, channel, feed):
    push_numbers(server, channel, 1, 2)
    with Stream(server, f"{channel}?feed={feed}&ts=9") as stream:
        found = stream.update()
        if feed == "sse":
            assert (found.event, found.id, found.json()) == ("reset", "2", {"ts": 2, "reset": True})
        else:
            assert found == {"ts": 2, "reset": True}
        server.push(channel, '{"n":3}')
        assert (stream.update().ts if feed == "sse" else stream.update()["ts"]) == 3


# --- What it brings ---


@FEEDS
def test_the_full_view(server, channel, feed):
    with Stream(server, f"{channel}?feed={feed}&view=full") as stream:
        server.post(channel + "/v1?a=b", '{\n"n":1}', {"X-Event": "push"})
        found = stream.update()
        full = found.json() if feed == "sse" else found
        assert full == server.get(channel + "?view=full").updates[0]
        assert full["raw"] == '{\n"n":1}'
        assert "\n" not in (found.data if feed == "sse" else "")


@FEEDS
@pytest.mark.parametrize("size", [300 << 10, 3 * MIB])
def test_what_is_large(server, channel, feed, size):
    """The worker writes it; streams that wake together share it."""
    streams = [Stream(server, f"{channel}?feed={feed}&view=full") for _ in range(3)]
    streams += [Stream(server, f"{channel}?feed={feed}") for _ in range(3)]
    body = '{"text":"%s"}' % ("\\u00e9" * (size // 6))
    server.push(channel, body)
    server.push(channel, '{"n":2}')
    for stream in streams:
        first, second = stream.update(), stream.update()
        if feed == "lines":
            assert body == (first.get("raw") or json.dumps(first["update"], separators=(",", ":")))
            assert second["ts"] == 2
        else:
            assert body in (first.data, first.json().get("raw"))
            assert second.ts == 2
        stream.close()


def test_a_filter(server, channel):
    with Stream(server, channel + "?feed=sse&where=body.even:true") as stream:
        stream.next()
        for n in range(1, 8):
            server.push(channel, json.dumps({"n": n, "even": n % 2 == 0}))
        assert [stream.update().json()["n"] for _ in range(3)] == [2, 4, 6]


def test_a_filter_over_what_is_there(server, channel):
    for n in range(1, 8):
        server.push(channel, json.dumps({"n": n, "even": n % 2 == 0}))
    with Stream(server, channel + "?feed=sse&ts=0&where=body.even:true") as stream:
        assert [stream.update().json()["n"] for _ in range(3)] == [2, 4, 6]
        assert stream.next().id == "7"  # what it left out is passed


def test_epochs(server, channel):
    """With `epoch`, ids carry it: so a browser notices that data was lost, although it only knows its last id."""
    push_numbers(server, channel, 1, 2)
    epoch = server.get(channel + "?epoch=").json()["epoch"]
    with Stream(server, channel + "?feed=sse&epoch=&ts=1") as stream:
        assert stream.next().id == f"1-{epoch}"
        assert stream.next().id == f"2-{epoch}"
    with Stream(server, channel + "?feed=sse&epoch=", {"Last-Event-ID": f"1-{epoch}"}) as stream:
        stream.next()
        assert stream.next().id == f"2-{epoch}"
    for headers, query in [({"Last-Event-ID": "2-0123456789abcdef"}, "epoch="), ({}, "epoch=0123456789abcdef&ts=2")]:
        with Stream(server, f"{channel}?feed=sse&{query}", headers) as stream:
            event = stream.update()
            assert (event.event, event.id) == ("reset", f"0-{epoch}")
            assert event.json() == {"ts": 0, "epoch": epoch, "reset": True}
            assert [stream.next().id for _ in range(2)] == [f"1-{epoch}", f"2-{epoch}"]
    with Stream(server, channel + "?feed=lines&epoch=&ts=1") as stream:
        assert json.loads(stream.next()) == {"ts": 1, "epoch": epoch}
        assert stream.update() == {"ts": 2, "epoch": epoch, "update": {"n": 2}}


def test_an_epoch_of_a_channel_that_does_not_exist(server, channel):
    with Stream(server, channel + "?feed=sse&epoch=") as stream:
        assert stream.next().id == "0-0"
        server.push(channel, '{"n":1}')
        assert stream.next().ts == 1


# --- Named consumers ---


def lag(server, channel):
    return {c["name"]: c["lag"] for c in server.get(channel + "/consumers").json()["consumers"]}


def test_a_consumer_confirms_by_the_id_that_it_sends_next(server, channel):
    push_numbers(server, channel, 1, 3)
    with Stream(server, channel + "?feed=sse&as=bot") as stream:
        assert [stream.update().ts for _ in range(3)] == [1, 2, 3]
        assert lag(server, channel) == {"bot": 3}  # it may never have arrived
        assert server.request("HEAD", channel + "?as=bot&ts=1").status == 200
        assert lag(server, channel) == {"bot": 2}
    with Stream(server, channel + "?feed=sse&as=bot") as stream:
        assert [stream.update().ts for _ in range(2)] == [2, 3]
    with Stream(server, channel + "?feed=sse&as=bot", {"Last-Event-ID": "3"}) as stream:
        assert stream.next().id == "3"
        assert lag(server, channel) == {"bot": 0}
        server.push(channel, '{"n":4}')
        assert stream.update().ts == 4
        assert lag(server, channel) == {"bot": 1}
    wait_for_streams(server, 0)
    with Stream(server, channel + "?feed=lines&as=bot") as stream:
        assert stream.update()["ts"] == 4


def test_a_consumer_that_confirms_what_is_sent(server, channel):
    push_numbers(server, channel, 1, 2)
    with Stream(server, channel + "?feed=sse&as=bot&confirm=now") as stream:
        assert [stream.update().ts for _ in range(2)] == [1, 2]
        assert lag(server, channel) == {"bot": 0}
        server.push(channel, '{"n":3}')
        assert stream.update().ts == 3
        assert lag(server, channel) == {"bot": 0}
    with Stream(server, channel + "?feed=sse&as=bot&confirm=now") as stream:
        assert stream.next().id == "3"


# --- The connection ---


def test_http_1_0_has_no_chunks(server, channel):
    push_numbers(server, channel, 1, 1)
    with Stream(server, channel + "?feed=sse&ts=0", version="HTTP/1.0") as stream:
        assert not stream.is_chunked and stream.reply.closes
        assert stream.update().ts == 1
        server.push(channel, '{"n":2}')
        assert stream.update().ts == 2


def test_head(server, channel):
    with server.client() as client:
        reply = client.request("HEAD", channel + "?feed=sse")
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert client.get(channel).status == 200
    wait_for_streams(server, 0)


def test_a_client_that_hangs_up_leaves_nothing_behind(serve):
    server = serve()
    channel = server.channel()
    streams = [Stream(server, f"{channel}?feed=sse" + ("&where=body.n:1" if i % 2 else "")) for i in range(20)]
    server.wait_for_parked(20)
    wait_for_streams(server, 20)
    for i, stream in enumerate(streams):
        stream.client.abort() if i % 3 else stream.close()
    server.wait_for_parked(0)
    wait_for_streams(server, 0)


def test_a_client_that_says_it_is_done_has_hung_up(serve):
    """Also before its stream began: while its channel is read, nobody waits for anything yet."""
    server = serve()
    clients = [server.client() for _ in range(20)]
    for client in clients:
        client.send_request("GET", server.channel() + "?feed=sse")
        client.sock.shutdown(socket.SHUT_WR)
    for client in clients:
        client.read_to_end()
        client.close()
    wait_for_streams(server, 0)


@pytest.mark.parametrize("filtered", ["", "&where=body.n:1"])
def test_a_flush_is_said_although_nothing_comes(redis, start, filtered):
    """As to a poll, which comes back: with a heartbeat, what is there is looked at."""
    server = start(**redis.settings())
    channel = server.channel()
    for _ in range(5):
        server.push(channel)
    with Stream(server, f"{channel}?feed=sse&ts=5{filtered}") as stream:
        assert stream.next().id == "5"
        server.wait_for_parked(1)
        redis.command("FLUSHALL")
        next_heartbeat(stream)
        assert stream.next().event == "reset"
        server.push(channel, '{"n":1}')
        assert stream.update().ts == 1


def test_only_a_key_that_reads(server, channel):
    everything, reads, sends = new_keys()
    assert server.get(f"/{sends}?feed=sse").status == 403
    with Stream(server, f"/{reads}?feed=sse") as stream, Stream(server, f"/{everything}?feed=lines") as other:
        ts = server.push(f"/{sends}", '{"n":1}')
        assert stream.update().ts == ts and other.update()["ts"] == ts


@FEEDS
def test_a_stop_ends_streams_cleanly(serve, feed):
    server = serve()
    channel = server.channel()
    streams = [Stream(server, f"{channel}?feed={feed}") for _ in range(30)]
    old = Stream(server, f"{channel}?feed={feed}", version="HTTP/1.0")
    server.wait_for_parked(31)
    server.send_signal()
    for stream in [*streams, old]:
        stream.next()
        assert stream.next() is None
        assert stream.client.read_to_end() == b""
        stream.close()
    assert server.wait_for_exit() == 0


def test_one_that_comes_while_the_server_stops_gets_what_is_there(start):
    server = start()
    channel = server.channel()
    push_numbers(server, channel, 1, 2)
    reply = ask_as_it_stops(server, "GET", channel + "?feed=sse&ts=0")
    assert reply.body.count(b"data: ") == 2


# --- Time ---


@WITHOUT_REDIS
@FEEDS
def test_heartbeats_and_the_end(serve, clock, feed):
    """After a quarter of an hour it ends, and the connection goes on with the request behind it."""
    server = serve(**clock.settings)
    channel = server.channel()
    with Stream(server, f"{channel}?feed={feed}") as stream:
        stream.client.send_request("GET", channel + "?ts=0")
        stream.next()
        for beat in range(1, END_S // BEAT_S):
            server.wait_for_parked(1)
            clock.forward(server, BEAT_S)
            next_heartbeat(stream)
            if beat == 20:
                server.push(channel, '{"n":1}')
                assert stream.update() is not None
        server.wait_for_parked(1)
        clock.forward(server, BEAT_S)
        assert stream.next() is None
        assert stream.client.read_reply().updates == [{"n": 1}]
    wait_for_streams(server, 0)


def test_no_heartbeat_comes_early(start, clock):
    server = start(**clock.settings)

    def comes_first():
        """What comes when not all of the time has passed: an update, unless this took too long by itself."""
        channel, began = server.channel(), time.monotonic()
        with Stream(server, channel + "?feed=sse") as stream:
            stream.next()
            clock.forward(server, BEAT_S - 3)
            server.push(channel, '{"n":1}')
            found, took_s = stream.next(), time.monotonic() - began
            assert found.id == "1" or took_s >= 3, f"a heartbeat after {BEAT_S - 3 + took_s:.1f} s"
            return found.id == "1"

    wait_until(comes_first, "a stream that is quick enough")


@WITHOUT_REDIS
def test_a_heartbeat_says_what_the_filter_passed(serve, clock):
    """So a client that connects again does not have it looked through once more."""
    server = serve(**clock.settings)
    channel = server.channel()
    with Stream(server, channel + "?feed=sse&where=body.n:9") as stream:
        stream.next()
        server.wait_for_parked(1)
        push_numbers(server, channel, 1, 5)
        wait_until(lambda: server.metric("longline_filter_looks_total") >= 5, "the filter to see them")
        clock.forward(server, BEAT_S)
        next_heartbeat(stream)
        assert stream.next().id == "5"


# --- Slow readers ---


def fill(server, channel, mib):
    """Pushes until there are so many MiB."""
    body = json.dumps({"x": "y" * 65000})
    for _ in range(mib * 16):
        server.push(channel, body)


@FEEDS
def test_a_slow_reader_is_cut_and_goes_on_without_a_gap(serve, feed):
    server = serve(CHANNEL_STORAGE_MAXSIZE=10000)
    channel = server.channel()
    slow = Stream(server, f"{channel}?feed={feed}", receive_buffer=4096)
    slow.next()
    pushed = 0

    def is_cut():
        nonlocal pushed
        for _ in range(16):
            pushed = server.push(channel, json.dumps({"n": pushed + 1, "x": "y" * 65000}))
        return server.metric("longline_streams_cut_total") == 1

    wait_until(is_cut, "the reader to be cut")
    wait_for_streams(server, 0)
    seen = []
    with pytest.raises(Closed):
        while True:
            found = slow.update()
            seen.append(found.json()["n"] if feed == "sse" else found["update"]["n"])
    assert seen == list(range(1, len(seen) + 1)) and len(seen) < pushed
    with Stream(server, f"{channel}?feed={feed}&ts={len(seen)}") as again:
        while len(seen) < pushed:
            found = again.update()
            seen.append(found.json()["n"] if feed == "sse" else found["update"]["n"])
    assert seen == list(range(1, pushed + 1))


def test_who_catches_up_slowly_is_not_cut(serve):
    """Nothing is kept for it but one page: the rest waits in the store."""
    server = serve(CHANNEL_STORAGE_MAXSIZE=10000)
    channel = server.channel()
    fill(server, channel, 12)
    with Stream(server, channel + "?feed=sse&ts=0", receive_buffer=4096) as stream:
        for n in range(1, 12 * 16 + 1):
            assert stream.update().ts == n
            assert server.metric("longline_buffer_bytes") < 3 * MIB
    assert server.metric("longline_streams_cut_total") == 0


@WITHOUT_REDIS
def test_who_reads_nothing_for_a_minute_is_cut(serve, clock):
    server = serve(CHANNEL_STORAGE_MAXSIZE=10000, **clock.settings)
    channel = server.channel()
    fill(server, channel, 12)
    with Stream(server, channel + "?feed=sse&ts=0", receive_buffer=4096):
        wait_until(lambda: server.metric("longline_buffer_bytes") > 0, "the socket to be full")
        for _ in range(4):
            assert server.metric("longline_streams") == 1
            clock.forward(server, BEAT_S)

        def is_cut():
            clock.forward(server, BEAT_S)
            return server.metric("longline_streams_cut_total") == 1

        wait_until(is_cut, "the stream to be cut")
        assert server.metric("longline_streams") == 0


@WITHOUT_REDIS
def test_who_catches_up_between_looks_is_not_cut(serve, clock):
    """However little of it the socket has taken whenever the server looks."""
    server = serve(CHANNEL_STORAGE_MAXSIZE=10000, **clock.settings)
    channel = server.channel()
    body = json.dumps({"x": "y" * 65000})
    with Stream(server, channel + "?feed=sse", receive_buffer=4096) as stream:
        stream.next()
        for _ in range(6):
            while server.metric("longline_buffer_bytes") == 0:
                last = server.push(channel, body)
            for _ in range(2):
                last = server.push(channel, '{"n":1}')
            clock.forward(server, BEAT_S)
            while stream.update().ts < last:
                pass
            server.wait_for_metric("longline_buffer_bytes", 0)
    assert server.metric("longline_streams_cut_total") == 0


# --- Together ---


@FEEDS
def test_many_streams_get_everything_in_order(server, channel, feed):
    streams = [Stream(server, f"{channel}?feed={feed}" + ("&epoch=" if i % 3 == 0 else "")) for i in range(60)]
    streams += [Stream(server, f"{channel}?feed={feed}&where=body.n:*") for i in range(20)]
    push_numbers(server, channel, 1, 200)
    for stream in streams:
        for n in range(1, 201):
            found = stream.update()
            assert (found.ts if feed == "sse" else found["ts"]) == n
        stream.close()


def test_a_purge_while_streams_run(server, channel):
    """What is purged does not come again; who has seen it does not miss it, and who has not is told."""
    push_numbers(server, channel, 1, 10)
    with Stream(server, channel + "?feed=sse&ts=0") as stream:
        assert [stream.update().ts for _ in range(10)] == list(range(1, 11))
        server.wait_for_parked(1)
        assert server.request("DELETE", channel).json()["gone"] == 10
        push_numbers(server, channel, 11, 12)
        assert [stream.update().ts for _ in range(2)] == [11, 12]
        with Stream(server, channel + "?feed=sse&ts=4") as late:
            missed = late.update()
            assert (missed.event, missed.json()) == ("missed", {"ts": 10, "missed": 6})
            assert [late.update().ts for _ in range(2)] == [11, 12]


def test_purges_while_one_pushes_and_streams_read(server, channel):
    """In any order: ids go up, and each is either delivered or missed."""
    last = 400

    def disturb():
        for n in range(1, last + 1):
            server_client.post(channel, '{"n":%d}' % n)
            if n % 40 == 0:
                server_client.request("DELETE", f"{channel}?upto={n - 3}")

    streams = [Stream(server, channel + "?feed=sse&ts=0") for _ in range(5)]
    server.saw_target(channel)
    with server.client() as server_client:
        thread = threading.Thread(target=disturb)
        thread.start()
        for stream in streams:
            seen = 0
            while seen < last:
                found = stream.update()
                assert found.ts > seen
                assert found.ts - seen == (found.json()["missed"] if found.event == "missed" else 1)
                seen = found.ts
            stream.close()
        thread.join()


# --- kill -9 ---

UPDATES = 10_000


def read_through(server, address, channel, last, kill_client, seen):
    """Reads as EventSource would: after a cut on from the last id. Appends each update's number."""
    last_id = None
    while len(seen) < last:
        try:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            with Stream(server, channel + "?feed=sse&ts=0&epoch=", headers, address=address) as stream:
                if stream.reply.status != 200:
                    continue
                while len(seen) < last:
                    event = stream.next()
                    if event is None:
                        break
                    last_id = event.id or last_id
                    if event.data is None:
                        continue
                    assert event.event is None, event
                    seen.append(event.json()["n"])
                    if kill_client():
                        stream.client.abort()
                        raise Closed("killed")
        except (Closed, OSError):
            pass


@pytest.mark.providers("sqlite", "redis")
def test_no_gap_and_no_double_over_kills_of_client_and_server(serve):
    """The server is killed while it delivers, the client wherever it is; each goes on where it was."""
    server = serve(CHANNEL_STORAGE_MAXSIZE=UPDATES).keep_address()
    channel = server.channel()
    chance = random.Random(16)
    seen = []
    arguments = (server, server.address, channel, UPDATES, lambda: chance.random() < 0.003, seen)
    reader = threading.Thread(target=read_through, args=arguments, daemon=True)
    reader.start()
    kills = 0
    for n in range(0, UPDATES, 50):
        if n % 1000 == 500:
            server.kill9()
            server.start()
            kills += 1
        batch = "".join('{"n":%d}\n' % i for i in range(n + 1, n + 51))
        reply = server.post(channel, batch, {"Content-Type": "application/x-ndjson"})
        assert reply.status == 200
    wait_until(lambda: len(seen) == UPDATES or not reader.is_alive(), "all to arrive", 120)
    reader.join()
    assert seen == list(range(1, UPDATES + 1)) and kills == 10


# --- What it costs ---


@pytest.mark.skipif(SLOW, reason="a sanitizer has its own idea of memory")
def test_an_idle_stream_takes_no_more_memory_than_a_parked_poll(start):
    count = 2000
    sizes = []
    for query in ("?sleep=60", "?feed=sse"):
        server = start(MAX_CONNECTIONS=3000)
        channel = server.channel()
        before = server.rss_bytes()
        clients = [server.client() for _ in range(count)]
        for client in clients:
            client.send_request("GET", channel + query)
        server.wait_for_parked(count)
        sizes.append((server.rss_bytes() - before) / count)
        for client in clients:
            client.close()
    poll, stream = sizes
    assert stream < poll + 64, sizes
