"""DELETE /{channel}: updates gone for good, from replies at once, and from the files of SQLite soon."""

import json
import random
import re
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from http_client import request_bytes
from longline_server import BINARY, wait_until

ALL = (None, "?upto=9223372036854775807")
JSON = {"Content-Type": "application/json"}
GONE_WITHIN_S = 10
LOOKS = "longline_filter_looks_total"


def push_some(server, channel, first, last):
    for n in range(first, last + 1):
        assert server.push(channel, f'{{"n":{n}}}') == n


def purge(server, channel, query=""):
    reply = server.request("DELETE", channel + (query or ""))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8"), reply
    answer = reply.json()
    assert set(answer) == {"ok", "gone"} and answer["ok"] is True
    return answer["gone"]


def read(server, channel, query="ts=0"):
    return server.get(f"{channel}?{query}").json()


def check_error(reply, status, text):
    error = reply.json()
    assert (reply.status, error["ok"], error["error_code"]) == (status, False, status), reply
    assert text in error["error_description"]


# --- What a purge does ---


@pytest.mark.parametrize("query", ALL)
def test_all(server, channel, query):
    push_some(server, channel, 1, 5)
    assert purge(server, channel, query) == 5
    assert read(server, channel) == {"ok": True, "ts": 5, "missed": 5, "updates": []}
    assert read(server, channel, "ts=3") == {"ok": True, "ts": 5, "missed": 2, "updates": []}
    assert read(server, channel, "ts=-10") == {"ok": True, "ts": 5, "updates": []}
    assert read(server, channel, "since=1h") == {"ok": True, "ts": 5, "updates": []}
    assert server.get(channel + "?view=full").json()["updates"] == []
    assert purge(server, channel, query) == 5, "once more"
    push_some(server, channel, 6, 7)
    assert read(server, channel) == {"ok": True, "ts": 7, "missed": 5, "updates": [{"n": 6}, {"n": 7}]}
    assert read(server, channel, "ts=5") == {"ok": True, "ts": 7, "updates": [{"n": 6}, {"n": 7}]}
    assert purge(server, channel) == 7


def test_upto(server, channel):
    push_some(server, channel, 1, 300)
    assert purge(server, channel, "?upto=0") == 0
    assert read(server, channel, "limit=1")["updates"] == [{"n": 1}]
    for upto in (1, 2, 127, 128, 130, 256, 299):
        assert purge(server, channel, f"?upto={upto}") == upto
        found = read(server, channel)
        assert (found["missed"], found["ts"]) == (upto, 300)
        assert found["updates"] == [{"n": n} for n in range(upto + 1, 301)]
        assert read(server, channel, f"ts={upto}") == {"ok": True, "ts": 300, "updates": found["updates"]}
        assert read(server, channel, "ts=-300")["updates"] == found["updates"]
    assert purge(server, channel, "?upto=5") == 299, "what is gone stays gone"
    assert purge(server, channel, "?upto=300") == 300


def test_an_unknown_channel(server, channel):
    assert purge(server, channel) == 0
    assert purge(server, channel, "?upto=7") == 0
    assert read(server, channel) == {"ok": True, "ts": 0, "updates": []}
    push_some(server, channel, 1, 2)
    assert read(server, channel)["updates"] == [{"n": 1}, {"n": 2}]


def test_others_are_not_touched(server, channel):
    other = channel + "x"
    for n in range(1, 50):
        server.push(channel, f'{{"n":{n}}}')
        server.push(other, f'{{"n":{n}}}')
    assert purge(server, channel) == 49
    assert read(server, other)["updates"] == [{"n": n} for n in range(1, 50)]


def test_consumers_stay_where_they_are(server, channel):
    push_some(server, channel, 1, 4)
    read(server, channel, "as=ahead&ts=4")
    read(server, channel, "as=behind&ts=1")
    purge(server, channel, "?upto=3")
    assert read(server, channel, "as=behind") == {"ok": True, "ts": 4, "missed": 2, "lag": 3, "updates": [{"n": 4}]}
    assert read(server, channel, "as=ahead") == {"ok": True, "ts": 4, "lag": 0, "updates": []}
    names = [consumer["name"] for consumer in server.get(f"{channel}/consumers").json()["consumers"]]
    assert names == ["ahead", "behind"]


def test_a_delivery_that_comes_again_is_known(server, channel):
    headers = {**JSON, "Idempotency-Key": "purged-once"}
    assert server.push(channel + "?.once", "{}", headers) == 1
    purge(server, channel)
    server.post(channel + "?.once", "{}", headers)
    assert server.get(channel).total == 1


def test_the_trace_of_refused_pushes(server, channel):
    def refused():
        return len(server.get(f"{channel}/refused").json()["refused"])

    for _ in range(2):
        server.push(channel)
        assert server.post(channel, "\n", {"Content-Type": "application/x-ndjson"}).status == 400
    assert refused() == 2
    purge(server, channel, "?upto=1")
    assert refused() == 2
    purge(server, channel)
    assert refused() == 0


def test_it_is_counted_and_logged(server, channel):
    server.push(channel)
    before = server.metric("longline_purges_total")
    purge(server, channel)
    purge(server, channel + "-unknown")
    assert server.metric("longline_purges_total") == before + 1
    assert re.search(r"info  channel purged channel=[0-9a-f]{8} upto=1\n", server.log())


def test_strangers_do_not_fill_the_log(serve):
    server = serve()
    channel = server.channel()
    server.push(channel)
    began = time.monotonic()
    for _ in range(100):
        purge(server, channel)
    seconds = int(time.monotonic() - began) + 2
    assert server.metric("longline_purges_total") == 100
    assert server.log().count("channel purged") <= 10 * seconds


# --- What it refuses ---

SLIPS = ["?", "?&", "?upto", "?upto=", "?upto=-1", "?upto=+1", "?upto=1.0", "?upto=1e3", "?upto=x", "?upto=0x1", "?upto=1%20", "?upto=%31"]
SLIPS += ["?upto=9223372036854775808", "?upto=18446744073709551617", "?upto=1&upto=1", "?upto=1&as=bot", "?as=bot&upto=1", "?upto=1&x"]
SLIPS += ["?ts=1", "?all", "?UPTO=1", "?as", "?as=", "?sleep=1", "?upto=1&upto="]


def test_a_slip_purges_nothing(server, channel):
    push_some(server, channel, 1, 2)
    for slip in SLIPS:
        check_error(server.request("DELETE", channel + slip), 400, "DELETE takes upto=N, as=NAME, or no query")
    for below in ("/consumers", "/getUpdates", "/pushUpdates", "/refused", "/x"):
        assert server.request("DELETE", f"{channel}{below}").status == 405
    assert read(server, channel)["updates"] == [{"n": 1}, {"n": 2}]


def test_it_can_be_turned_off(serve):
    server = serve(PURGE="off")
    channel = server.channel()
    push_some(server, channel, 1, 2)
    read(server, channel, "as=bot&ts=1")
    for query in ("", "?upto=1", "?upto=0"):
        check_error(server.request("DELETE", channel + query), 403, "This server does not purge (PURGE=off)")
    check_error(server.request("DELETE", channel + "?x"), 400, "DELETE takes")
    assert server.request("DELETE", channel + "?as=bot").json() == {"ok": True}
    assert read(server, channel)["updates"] == [{"n": 1}, {"n": 2}]


# --- Polls that wait ---


@pytest.mark.parametrize("query", ALL)
def test_polls_that_wait_go_on_waiting(server, channel, query):
    other = channel + "x"
    push_some(server, channel, 1, 3)
    with server.client() as plain, server.client() as filtered, server.client() as named, server.client() as many:
        plain.send_request("GET", f"{channel}?ts=3&sleep=60")
        filtered.send_request("GET", f"{channel}?ts=3&sleep=60&where=body.n:4")
        named.send_request("GET", f"{channel}?ts=3&sleep=60&as=bot")
        many.send_request("POST", "/-/poll?sleep=60", f'{{"{channel[1:]}":3,"{other[1:]}":0}}', JSON)
        server.wait_for_parked(5)
        assert purge(server, channel, query) == 3
        assert server.metric("longline_polls_parked") == 5
        push_some(server, channel, 4, 4)
        expected = {"ok": True, "ts": 4, "updates": [{"n": 4}]}
        assert plain.read_reply().json() == expected
        assert filtered.read_reply().json() == expected
        assert named.read_reply().json() == {**expected, "lag": 1}
        found = many.read_reply().json()["channels"]
        assert found[channel[1:]]["updates"] == [{"n": 4}] and "missed" not in found[channel[1:]]


def test_a_filter_that_has_looked_through_what_is_purged(server, channel):
    """Its poll has seen those updates, though it was not woken by them."""
    before = server.metric(LOOKS)
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts=0&sleep=60&where=body.n:9")
        server.wait_for_parked(1)
        push_some(server, channel, 1, 5)
        wait_until(lambda: server.metric(LOOKS) == before + 5, "the filter to see them")
        purge(server, channel)
        push_some(server, channel, 6, 9)
        assert client.read_reply().json() == {"ok": True, "ts": 9, "skipped": 8, "updates": [{"n": 9}]}


def test_pushes_and_polls_meanwhile(server, channel):
    """What was answered before a purge is gone, what is pushed later stays; nobody gets it twice, or not at all."""
    stop = threading.Event()
    totals, failures = [0], []

    def pushes():
        with server.client() as client:
            while not stop.is_set():
                totals.append(client.post(channel, f'{{"n":{totals[-1] + 1}}}', JSON).total)

    def polls(where):
        ts = 0
        with server.client() as client:
            while not stop.is_set():
                gone = floor[0]
                answer = client.get(f"{channel}?ts={ts}&sleep=1{where}").json()
                first = answer["ts"] - len(answer["updates"]) + 1
                if not where and answer["updates"] != [{"n": n} for n in range(first, answer["ts"] + 1)]:
                    failures.append(answer)
                if answer["updates"] and answer["updates"][0]["n"] <= gone:
                    failures.append((gone, answer))
                if not where and first != ts + 1 + answer.get("missed", 0):
                    failures.append((ts, answer))
                ts = answer["ts"]

    floor = [0]
    threads = [threading.Thread(target=pushes)] + [threading.Thread(target=polls, args=[w]) for w in ("", "&where=header.content-type:*")]
    for thread in threads:
        thread.start()
    purges = 0
    while purges < 60 or len(totals) <= 20 and threads[0].is_alive():
        before = totals[-1]
        gone = purge(server, channel, "" if purges % 2 else f"?upto={before}")
        purges += 1
        floor[0] = gone
        if gone < before:
            failures.append((before, gone))
    stop.set()
    threads[0].join()
    server.push(channel, f'{{"n":{len(totals)}}}')  # wakes those that wait
    for thread in threads[1:]:
        thread.join()
    assert not failures, failures[:3]
    assert len(totals) > 20 and totals == list(range(len(totals)))


def test_what_strangers_purge_keeps_nothing_from_a_poll_of_many_channels(server, channel):
    channels = [f"{channel}-{i}" for i in range(64)]
    for each in channels:
        for _ in range(3):
            server.push(each, '{"n":1}')
    stop = threading.Event()

    def purges():
        with server.client() as client:
            while not stop.is_set():
                push_and_purge = request_bytes("POST", channel + "-gone", "{}") + request_bytes("DELETE", channel + "-gone")
                client.send((request_bytes("DELETE", channel + "-unknown") + push_and_purge) * 8)
                for _ in range(24):
                    assert client.read_reply().status == 200

    stranger = threading.Thread(target=purges)
    stranger.start()
    asked = json.dumps(dict.fromkeys((each[1:] for each in channels), 0))
    told = [server.post("/-/poll?limit=3", asked, JSON).json()["channels"] for _ in range(20)]
    stop.set()
    stranger.join()
    assert all(any(each["updates"] for each in page.values()) for page in told), [len(page) for page in told]


def test_a_client_that_goes_away(server, channel):
    """Its purge goes on."""
    for _ in range(20):
        server.push(channel)
        with server.client() as client:
            client.send_request("DELETE", channel)
    wait_until(lambda: read(server, channel)["updates"] == [], "the purge")


# --- What is kept in the files ---


def check(server):
    done = subprocess.run([BINARY, "check", server.directory / "longline.db"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def count(server, canary):
    """How often it stands in the data file and in its write-ahead log."""
    paths = [path for path in Path(server.directory).iterdir() if path.name.startswith("longline.db")]
    assert any(path.name == "longline.db" for path in paths)
    return sum(path.read_bytes().count(canary) for path in paths)


def wait_until_overwritten(server, canary):
    assert wait_until(lambda: count(server, canary) == 0, f"the end of {canary}", GONE_WITHIN_S) is True


def jobs(server):
    """Purges that the data file has not done with."""
    with sqlite3.connect(f"file:{server.directory}/longline.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT count(*) FROM purge_job").fetchone()[0]
    db.close()
    return found


def push_of_every_kind(server, channel, canary, rng, count=60):
    """Updates of all sizes; each begins and ends with the canary."""
    for _ in range(count):
        size = rng.choice([0, 50, 300, 1500, 4000, 8000, 20000, 100_000])
        text = f"{canary}{'y' * size}{canary}"
        kind = rng.randrange(4)
        if kind == 0:
            lines = "\n".join(f'{{"x":"{text[: 3000]}{canary}"}}' for _ in range(5))
            reply = server.post(channel, lines, {"Content-Type": "application/x-ndjson"})
        elif kind == 1:
            part = f'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n{text}\r\n--b--\r\n'
            reply = server.post(channel, part, {"Content-Type": "multipart/form-data; boundary=b"})
        elif kind == 2:
            reply = server.post(f"{channel}/{canary}?q={canary}", text, {"Content-Type": "text/plain", "X-Canary": canary})
        else:
            reply = server.post(channel, f'{{"x":"{text}"}}', JSON)
        assert reply.status == 200, reply


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("seed", range(3))
def test_the_bytes_are_overwritten(start, seed):
    rng = random.Random(seed)
    server = start(CHANNEL_STORAGE_MAXSIZE=rng.choice([20, 60, 1000]))
    channels = {name: server.channel() for name in ("leaked", "other", "third")}
    for _ in range(12):
        for name in rng.sample(sorted(channels), 3):
            push_of_every_kind(server, channels[name], f"canary-{name}-", rng, rng.randrange(8))
    before = read(server, channels["other"], "view=full")
    assert count(server, b"canary-leaked-") and count(server, b"canary-other-")
    purge(server, channels["leaked"])
    wait_until_overwritten(server, b"canary-leaked-")
    assert read(server, channels["other"], "view=full") == before
    assert count(server, b"canary-other-")
    wait_until(lambda: not jobs(server), "the end of the job")
    server.stop()
    check(server)
    assert not count(server, b"canary-leaked-")


@pytest.mark.providers("sqlite")
def test_what_retention_has_deleted_is_overwritten_too(start):
    server = start(CHANNEL_STORAGE_MAXSIZE=1)
    channel = server.channel()
    for i in range(40):
        server.push(channel, f'"canary-{"y" * (i * 500)}-canary"')
    assert server.get(channel + "?ts=0").json()["missed"] == 39
    server.restart()  # its checkpoint lets the sweeper begin
    server.wait_for_metric("longline_store_updates", 1)
    purge(server, channel)
    wait_until_overwritten(server, b"canary")
    check(server)


@pytest.mark.providers("sqlite")
def test_a_part_is_overwritten(start):
    server = start()
    channel = server.channel()
    for n in range(1, 201):
        server.push(channel, f'{{"n":{n},"x":"{"leaked" if n <= 120 else "kept"}-canary-{"y" * (n * 30)}"}}')
    purge(server, channel, "?upto=120")
    wait_until_overwritten(server, b"leaked-canary")
    server.restart()
    found = read(server, channel)
    assert (found["missed"], [update["n"] for update in found["updates"]]) == (120, list(range(121, 201)))
    server.stop()
    check(server)


@pytest.mark.providers("sqlite")
def test_while_somebody_reads_the_file(start):
    """A backup keeps the write-ahead log from being copied; when it is done, that is made good."""
    server = start()
    channel = server.channel()
    for _ in range(50):
        server.push(channel, f'"canary-{"y" * 3000}"')
    reader = sqlite3.connect(f"{server.directory}/longline.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM update_log").fetchone() == (50,)
    assert purge(server, channel) == 50
    assert read(server, channel)["missed"] == 50
    server.push(channel, '"later"')
    assert count(server, b"canary")
    assert reader.execute("SELECT count(*) FROM update_log").fetchone() == (50,)
    reader.execute("COMMIT")
    reader.close()
    wait_until_overwritten(server, b"canary")
    assert read(server, channel, "ts=50")["updates"] == [{"body": "later"}]
    check(server)


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_purge_survives_a_restart(start, sync):
    server = start(SYNC=sync)
    channel = server.channel()
    push_some(server, channel, 1, 200)
    purge(server, channel, "?upto=150")
    server.kill9()
    server.start()
    assert read(server, channel)["updates"] == [{"n": n} for n in range(151, 201)]
    purge(server, channel)
    server.restart()
    assert read(server, channel) == {"ok": True, "ts": 200, "missed": 200, "updates": []}
    server.kill9()
    server.start()
    push_some(server, channel, 201, 202)
    assert read(server, channel, "ts=199") == {"ok": True, "ts": 202, "missed": 1, "updates": [{"n": 201}, {"n": 202}]}
    server.stop()
    check(server)


@pytest.mark.providers("sqlite")
def test_killed_at_any_moment(start):
    """What is not purged is whole, what is purged is gone, and the purge goes on after the start."""
    server = start(CHANNEL_STORAGE_MAXSIZE=100_000)
    rng = random.Random(15)
    kept, pushed = server.channel(), 0
    for round in range(7):
        leaked, canary = server.channel(), f"canary-{round}-"
        for _ in range(30):
            batch = "\n".join(f'{{"x":"{canary}{"y" * rng.randrange(3000)}"}}' for _ in range(20))
            assert server.post(leaked, batch, {"Content-Type": "application/x-ndjson"}).status == 200
            pushed += 1
            assert server.push(kept, f'{{"n":{pushed},"y":"{"k" * rng.randrange(9000)}"}}') == pushed
        assert purge(server, leaked) == 600
        time.sleep(rng.random() * 0.15)
        server.kill9()
        server.start()
        assert read(server, leaked) == {"ok": True, "ts": 600, "missed": 600, "updates": []}
        wait_until_overwritten(server, canary.encode())
    assert [update["n"] for _, update in server.read_all(kept)] == list(range(1, pushed + 1))
    wait_until(lambda: not jobs(server), "the end of the jobs")
    server.stop()
    check(server)
