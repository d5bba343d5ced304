"""since and ts=now: where a poll begins; and POLL_MAX."""

import subprocess
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest

from longline_server import BINARY, PATIENCE_S, environment, wait_until


def numbers(reply):
    assert reply.status == 200, reply
    return [update["n"] for update in reply.updates]


def times(server, channel):
    """When each update was stored, in milliseconds."""
    return [update["at"] for update in server.get(channel + "?view=full").updates]


def fill(server, channel, count):
    """Updates {"n":1} to {"n":count}, each in a millisecond of its own."""
    for n in range(1, count + 1):
        server.push(channel, '{"n":%d}' % n)
        at = times(server, channel)[-1]
        wait_until(lambda: time.time() * 1000 > at + 5, "the next milliseconds")
    return times(server, channel)


def seconds(ms):
    return f"{ms // 1000}.{ms % 1000:03}"


def iso(ms, zone=timezone.utc):
    return datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="milliseconds")


# --- since --------------------------------------------------------------------------------------


def test_the_updates_from_a_time_on(server, channel):
    at = fill(server, channel, 5)
    assert at == sorted(set(at))
    for n, ms in enumerate(at, start=1):
        assert numbers(server.get(f"{channel}?since={seconds(ms)}")) == list(range(n, 6))
        assert numbers(server.get(f"{channel}?since={seconds(ms + 1)}")) == list(range(n + 1, 6))
        for zone in (timezone.utc, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))):
            text = iso(ms, zone)
            assert numbers(server.get(f"{channel}?since={text}")) == list(range(n, 6))
            assert numbers(server.get(f"{channel}?since={quote(text, safe='')}")) == list(range(n, 6))
        naive = iso(ms).removesuffix("+00:00")
        for text in (naive, naive + "Z", naive.replace("T", "%20")):
            assert numbers(server.get(f"{channel}?since={text}")) == list(range(n, 6))


@pytest.mark.parametrize("text", ["90s", "10m", "36h", "7d", "0", "1795506304", "1700000000.5", "2023-11-29", "2023-11-29T10:00", "99999999999d"])
def test_what_reaches_back_far_brings_all_that_is_kept(server, channel, text):
    fill(server, channel, 3)
    if text == "1795506304":
        text = str(int(time.time()) - 1000)
    reply = server.get(f"{channel}?since={text}")
    assert reply.json() == {"ok": True, "ts": 3, "updates": [{"n": 1}, {"n": 2}, {"n": 3}]}


def test_what_is_not_kept_is_not_missed(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=3)
    channel = server.channel()
    fill(server, channel, 8)
    assert server.get(f"{channel}?since=1h").json() == {"ok": True, "ts": 8, "updates": [{"n": 6}, {"n": 7}, {"n": 8}]}
    assert server.get(f"{channel}?ts=1").json()["missed"] == 4


def test_a_time_to_come(server, channel):
    fill(server, channel, 2)
    assert server.get(f"{channel}?since=9999-12-31").json() == {"ok": True, "ts": 2, "updates": []}
    with server.client() as client:
        client.send_request("GET", f"{channel}?since=9999-12-31&sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":3}')
        assert client.read_reply().json() == {"ok": True, "ts": 3, "updates": [{"n": 3}]}


def test_since_waits_for_what_comes(server, channel):
    with server.client() as client:
        client.send_request("GET", f"{channel}?since=10m&sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":1}')
        assert client.read_reply().json() == {"ok": True, "ts": 1, "updates": [{"n": 1}]}


def test_since_with_a_limit_and_a_filter(server, channel):
    at = fill(server, channel, 6)
    reply = server.get(f"{channel}?since={seconds(at[1])}&limit=2")
    assert numbers(reply) == [2, 3] and reply.ts == 3
    reply = server.get(f"{channel}?since={seconds(at[1])}&where=body.n:3|5")
    assert reply.json() == {"ok": True, "ts": 6, "skipped": 3, "updates": [{"n": 3}, {"n": 5}]}


def test_since_of_an_unknown_channel(server, channel):
    assert server.get(f"{channel}?since=10m").json() == {"ok": True, "ts": 0, "updates": []}


@pytest.mark.parametrize("ts", ["0", "5", "-1", "now"])
def test_since_with_a_ts(server, channel, ts):
    for query in (f"since=10m&ts={ts}", f"ts={ts}&since=10m"):
        reply = server.get(f"{channel}?{query}")
        assert reply.status == 400 and "since" in reply.json()["error_description"]
    assert server.get(f"{channel}?since=10m&ts=").status == 200


@pytest.mark.parametrize("text", ["x", "now", "-1", "10", "10M", "1.5h", "1w", "2026-02-30", "2026-11-29T25:00", "2026-11-29T10:00+2", "%00"])
def test_what_is_no_time(server, channel, text):
    status = 200 if text == "10" else 400
    assert server.get(f"{channel}?since={text}").status == status


@pytest.mark.providers("sqlite", "redis")
def test_since_through_a_restart(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=5000, LOG_LEVEL="info")
    channel = server.channel()
    lines = "\n".join('{"n":%d}' % n for n in range(1, 1001))
    server.push(channel, lines, {"Content-Type": "application/x-ndjson"})
    first = times(server, channel)[-1]
    wait_until(lambda: time.time() * 1000 > first + 5, "the next milliseconds")
    for n in range(1001, 1301):
        server.push(channel, '{"n":%d}' % n)
    at = times(server, channel)
    expected = {ms: next(n for n, t in enumerate(at, start=1) if t >= ms) for ms in at[999::37]}
    for _ in range(2):
        for ms, n in expected.items():
            assert numbers(server.get(f"{channel}?since={seconds(ms)}&limit=1")) == [n]
        server.restart()


# --- ts=now -------------------------------------------------------------------------------------


def test_now_is_behind_the_newest(server, channel):
    assert server.get(f"{channel}?ts=now").json() == {"ok": True, "ts": 0, "updates": []}
    fill(server, channel, 3)
    reply = server.get(f"{channel}?ts=now")
    assert reply.json() == {"ok": True, "ts": 3, "updates": []} and reply.total == 3


def test_now_waits_for_what_comes(server, channel):
    for n in (1, 2, 3):
        with server.client() as client:
            client.send_request("GET", f"{channel}?ts=now&sleep=60")
            server.wait_for_parked(1)
            server.push(channel, '{"n":%d}' % n)
            assert client.read_reply().json() == {"ok": True, "ts": n, "updates": [{"n": n}]}


@pytest.mark.parametrize("ts", ["Now", "NOW", "now1", "-now", "now%00", "nowadays"])
def test_what_is_not_now(server, channel, ts):
    assert server.get(f"{channel}?ts={ts}").status == 400


@pytest.mark.providers("sqlite", "redis")
def test_now_through_a_restart(serve):
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    server.restart()
    assert server.get(f"{channel}?ts=now").json() == {"ok": True, "ts": 3, "updates": []}


# --- POLL_MAX -----------------------------------------------------------------------------------


@pytest.mark.providers("sqlite")
def test_poll_max_cuts_a_sleep(start):
    server = start(POLL_MAX=1)
    channel = server.channel()
    for sleep in ("60", "3600", "999999999999999999999"):
        began = time.monotonic()
        assert server.get(f"{channel}?sleep={sleep}").json() == {"ok": True, "ts": 0, "updates": []}
        assert 0.9 <= time.monotonic() - began < PATIENCE_S

    def is_shorter():
        began = time.monotonic()
        server.get(f"{channel}?sleep=0.01")
        return time.monotonic() - began < 0.9

    wait_until(is_shorter, "a poll that is not lengthened")


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("value", ["0", "3601", "-1", "x", "1.5"])
def test_a_poll_max_that_cannot_be(tmp_path, value):
    settings = {"POLL_MAX": value, "LISTEN": "127.0.0.1:0", "DATA_PATH": tmp_path / "longline.db"}
    result = subprocess.run([BINARY, "serve"], env=environment(settings), capture_output=True, text=True, timeout=4 * PATIENCE_S)
    assert result.returncode != 0 and "POLL_MAX" in result.stderr and len(result.stderr.splitlines()) == 1
