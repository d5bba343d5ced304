"""Every case of clients/conformance.json with every driver of every client.

tests/clients/README.md describes what a driver does and what a case looks like.
"""

import json
from pathlib import Path

import pytest
from http_client import request_bytes
from longline_server import wait_until
from python_client import Channel
from standin import refusal
from stops import check_stops_at_once

CASES = json.loads((Path(__file__).resolve().parents[2] / "clients/conformance.json").read_text("utf-8"))["cases"]
SCRIPTED = [case for case in CASES if not case.get("real")]


def same(a, b):
    """Equality of JSON values that tells true from 1, and a rounded number from an exact one."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def check_event(event, wanted, driver):
    """Compares an event with the wanted one: `text` if the client has it, not an error's words."""
    if "error" in wanted:
        assert event.get("status") == wanted["status"] and event.get("error"), (event, wanted)
        return
    if "ts" not in wanted:
        assert event == wanted
        return
    assert "update" in event and event.get("ts") == wanted["ts"], (event, wanted)
    if "update" in wanted:
        assert same(event["update"], wanted["update"]), (event, wanted)
    if driver.text:
        assert isinstance(event.get("text"), str), f"no text: {event}"
    if "text" in wanted and event.get("text") is not None:
        assert event["text"] == wanted["text"], (event, wanted)


def check_events(run, wanted):
    assert len(run.events) == len(wanted), f"{len(run.events)} events in place of {len(wanted)}\n{run.describe()}"
    for event, one in zip(run.events, wanted):
        check_event(event, one, run.driver)


@pytest.mark.timed
@pytest.mark.parametrize("case", SCRIPTED, ids=lambda case: case["name"])
def test_script(case, run, stand_in):
    server = stand_in(case["script"], errors_told=run.errors_told)
    told = {name: case[name] for name in ("ts", "sleep", "backoff_ms", "options") if name in case}
    client = run(server.url, **told)
    events = case["events"]
    if events and "error" in events[-1]:
        assert client.wait() == 3, client.describe()
        assert len(server.requests) == len(case["script"]), server.requests
    else:
        try:
            server.wait_for_held(lambda: client.is_alive)
            client.wait_for_events(len(events))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{server.problems}\n{client.describe()}") from None
        took_ms = (server.requests[-1].at - server.requests[0].at) * 1000
        stopped, _ = client.stop()
        assert stopped.get("ts") == case["end_ts"], stopped
        assert server.requests[-1].query["ts"] == str(case["end_ts"]), server.requests
        assert case.get("min_ms", 0) <= took_ms <= 10000, took_ms
    check_events(client, events)
    assert not server.problems, server.problems


def real(name):
    """The test of a case that needs the real server."""
    assert any(case["name"] == name and case.get("real") for case in CASES), name
    return lambda function: function


def test_every_real_case_is_tested():
    source = Path(__file__).read_text("utf-8")
    untested = [case["name"] for case in CASES if case.get("real") and f'@real("{case["name"]}")' not in source]
    assert not untested


def updates_from(first, last):
    return [{"update": {"n": n}, "ts": n} for n in range(first, last + 1)]


def push(server, channel, n):
    assert server.push(channel, b'{"n":%d}' % n) == n


@real("real: a server restarted in mid-poll")
def test_restart(run, start_server):
    server = start_server()
    channel = server.channel()
    push(server, channel, 1)
    client = run(server.url(channel), sleep=60)
    client.wait_for_events(1)
    server.wait_for_parked(1)
    server.restart()
    push(server, channel, 2)
    client.wait_for_events(2)
    server.wait_for_parked(1)
    push(server, channel, 3)
    client.wait_for_events(3)
    assert client.stop()[0]["ts"] in (2, 3)
    check_events(client, updates_from(1, 3))


@real("real: a server killed in mid-poll")
def test_kill(run, start_server):
    server = start_server()
    channel = server.channel()
    push(server, channel, 1)
    client = run(server.url(channel), sleep=60)
    client.wait_for_events(1)
    server.wait_for_parked(1)
    server.kill9()
    server.start()
    push(server, channel, 2)
    client.wait_for_events(2)
    server.wait_for_parked(1)
    assert client.stop()[0]["ts"] == 2
    check_events(client, updates_from(1, 2))


@real("real: a gap")
def test_gap(run, start_server):
    server = start_server(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=3)
    channel = server.channel()
    for n in range(1, 6):
        push(server, channel, n)
    client = run(server.url(channel), ts=1, sleep=60)
    client.wait_for_events(4)
    server.wait_for_parked(1)
    assert client.stop()[0]["ts"] == 5
    check_events(client, [{"missed": 1}, *updates_from(3, 5)])


@real("real: a reset")
def test_reset(run, server):
    channel = server.channel()
    push(server, channel, 1)
    client = run(server.url(channel), ts=21, sleep=60)
    client.wait_for_events(1)
    push(server, channel, 2)
    client.wait_for_events(2)
    assert client.stop()[0]["ts"] in (1, 2)
    check_events(client, [{"reset": 1}, *updates_from(2, 2)])


@real("real: each of a channel's three addresses")
def test_three_addresses(run, keys):
    """What only sends cannot be read, and says so at once; the others read what it has sent."""
    assert Channel(keys.send_only_url).push({"n": 1}) == 1
    clients = [run(keys.url, sleep=60), run(keys.read_only_url, sleep=60)]
    refused = run(keys.send_only_url, sleep=60)
    assert refused.wait() == 3, refused.describe()
    check_events(refused, [{"error": "", "status": 403}])
    assert "v_ or r_" in refused.events[0]["error"]
    for client in clients:
        client.wait_for_events(1)
        client.stop()
        check_events(client, updates_from(1, 1))


@real("real: a purge")
def test_purge(run, server):
    """Who is behind is told what is missed; who waits is not disturbed."""
    channel = server.channel()
    for n in range(1, 4):
        push(server, channel, n)
    server.wait_for_parked(0)
    waits = run(server.url(channel), ts=3, sleep=60)
    server.wait_for_parked(1)
    assert Channel(server.url(channel)).purge(upto=2) == 2
    behind = run(server.url(channel), ts=1, sleep=60)
    behind.wait_for_events(2)
    assert Channel(server.url(channel)).purge() == 3
    push(server, channel, 4)
    behind.wait_for_events(3)
    waits.wait_for_events(1)
    for client in (waits, behind):
        assert client.stop()[0]["ts"] in (3, 4)
    check_events(waits, updates_from(4, 4))
    check_events(behind, [{"missed": 1}, *updates_from(3, 4)])


@real("real: 52-bit ids and text, byte for byte")
def test_exact(run, server):
    channel = server.channel()
    texts = [
        '{"id":9007199254740991,"other":4503599627370497}',
        '{"id":12345678901234567890,"price":1.10,"a":1,"a":2}',
        '{"t":"na\\u00efve \\u2713 \\ud83d\\ude00 – naïve ✓ 😀 日本語","e":"\\"\\\\\\/\\b\\f\\n\\r\\t"}',
        '[ {"a" : [1, 2]} ]',
    ]
    for text in texts:
        server.push(channel, text.encode())
    client = run(server.url(channel), sleep=60)
    client.wait_for_events(len(texts))
    client.stop()
    wanted = [{"text": text, "ts": ts} for ts, text in enumerate(texts, 1)]
    for index in (0, 2, 3):
        wanted[index]["update"] = json.loads(texts[index])
    check_events(client, wanted)


@pytest.fixture(scope="module")
def ten_thousand(shared_server):
    """A channel with 10,000 updates."""
    channel = shared_server.channel()
    with shared_server.client() as connection:
        for first in range(1, 10001, 100):
            pushes = [request_bytes("POST", channel, b'{"n":%d}' % n) for n in range(first, first + 100)]
            connection.send(b"".join(pushes))
            for n in range(first, first + 100):
                assert connection.read_reply().total == n
    return channel


@real("real: 10,000 updates through 100-update pages")
def test_ten_thousand(run, server, ten_thousand):
    client = run(server.url(ten_thousand), sleep=60)
    client.wait_for_events(10000)
    client.stop()
    check_events(client, updates_from(1, 10000))


@real("real: a consumer with a name that is killed again and again")
def test_kill_of_a_consumer_with_a_name(run, server):
    """It goes on where it was: only what it had not confirmed comes again, and nothing is skipped."""
    channel, last = server.channel(), 0
    for _ in range(4):
        client = run(server.url(channel), ts=None, sleep=60, options={"name": "bot"})
        for n in range(last + 1, last + 4):
            push(server, channel, n)
            client.wait_for(lambda _: {"n": n} in [event.get("update") for event in client.events], f"update {n}")
        client.kill()
        first = client.events[0]["ts"]
        assert first in (last, last + 1)
        check_events(client, updates_from(first, first + len(client.events) - 1))
        last += 3


def check_driver_stops_at_once(start_and_wait):
    """Closing a driver's stdin ends its wait at once. start_and_wait() returns one that waits."""

    def stop():
        stopped, seconds = start_and_wait().stop()
        assert stopped["ts"] == 0
        return seconds

    check_stops_at_once(stop)


@real("real: stop while waiting")
def test_stop(run, server):
    url = server.url(server.channel())

    def start_and_wait():
        server.wait_for_parked(0)
        client = run(url, sleep=60)
        server.wait_for_parked(1)
        return client

    check_driver_stops_at_once(start_and_wait)
    server.wait_for_parked(0)


@real("real: stop while waiting to try again")
def test_stop_in_backoff(run, stand_in):
    def start_and_wait():
        server = stand_in([refusal(503, Retry_After="60")])
        client = run(server.url)
        server.wait_for_requests(1, lambda: client.is_alive)
        return client

    check_driver_stops_at_once(start_and_wait)


@real("real: clients that were told to wait come back one by one")
def test_spread_of_retry_after(driver, run, stand_in):
    """Retry-After is stretched at random, by up to a half."""
    servers = [stand_in([refusal(429, Retry_After="1")]) for _ in range(8)]
    clients = [run(server.url) for server in servers]
    waits_s = []
    for server, client in zip(servers, clients):
        server.wait_for_held(lambda client=client: client.is_alive)
        waits_s.append(server.requests[1].at - server.requests[0].at)
    assert min(waits_s) >= 0.98, waits_s
    # Evenly spread over half a second, eight are never that close; a slow machine spreads them more.
    assert max(waits_s) - min(waits_s) >= 0.06, waits_s


@real("real: stop while connections are refused")
def test_stop_while_refused(run, start_server):
    server = start_server(DATA_PROVIDER="memory")
    url = server.url(server.channel())

    def start_and_wait():
        client = run(url, sleep=60, backoff_ms=60000)
        server.wait_for_parked(1)
        parked_over = server.process.pid
        server.kill9()
        wait_until(lambda: not Path(f"/proc/{parked_over}").exists(), "the server's end")
        return client

    def start_again():
        if server.process is None:
            server.start()
        return start_and_wait()

    check_driver_stops_at_once(start_again)
    server.start()
