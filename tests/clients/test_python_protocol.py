"""The Python client: what it decides without a connection."""

import json
import random
import shutil
import subprocess

import pytest
from python_client import CLIENT, AsyncChannel, Channel, LonglineError, feed, protocol

# --- addresses and options ---


@pytest.mark.parametrize("address", ["ftp://host/a", "host/a", "", "http:///a", "http://user:word@host/a"])
def test_addresses_that_are_refused(address):
    for kind in (Channel, AsyncChannel):
        with pytest.raises(ValueError):
            kind(address)


def test_addresses():
    def of(url, query=""):
        address = protocol.Address(url)
        return address.authority, address.target(query)

    assert of("http://host") == ("host", "/")
    assert of("http://host:80/a#fragment") == ("host", "/a")
    assert of("https://host:443/a", "ts=1") == ("host", "/a?ts=1")
    assert of("https://host:80/a?b=1", "ts=1") == ("host:80", "/a?b=1&ts=1")
    assert of("http://[::1]:3000/a") == ("[::1]:3000", "/a")
    assert of("http://bücher.example/a") == ("xn--bcher-kva.example", "/a")
    assert of("http://host/a b/%2F/é?x=ä&y=%zz") == ("host", "/a%20b/%2F/%C3%A9?x=%C3%A4&y=%zz")


@pytest.mark.parametrize("header", [("a", "b\r\nc"), ("a b", "c"), ("", "a"), ("a:", "b"), ("a", "✓")])
def test_headers_that_are_refused(header):
    for kind in (Channel, AsyncChannel):
        with pytest.raises(ValueError, match="cannot be sent"):
            kind("http://host/a", headers=dict([header]))


def test_a_ts_that_is_text_is_refused():
    for kind in (Channel, AsyncChannel):
        with pytest.raises(TypeError):
            kind("http://host/a").updates(ts="5")


@pytest.mark.parametrize("sleep, text", [(60, "60"), (0.5, "0.5"), (1e-3, "0.001"), (4e-4, "0.001"), (1e-9, "0.001")])
def test_how_sleep_is_written(sleep, text):
    assert protocol.Cursor(0, sleep, 100, False, 0.5).query() == f"ts=0&sleep={text}&limit=100"


@pytest.mark.parametrize("options", [{"sleep": 0}, {"sleep": 61}, {"sleep": float("nan")}, {"limit": 0}])
def test_options_that_are_refused(options):
    for kind in (Channel, AsyncChannel):
        with pytest.raises(ValueError):
            kind("http://host/a").updates(**options)

# --- when to ask again ---


def test_the_backoff():
    cursor = protocol.Cursor(0, 60, 100, False, 0.5)
    for step in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert 0.5 * step <= cursor.delay(LonglineError(0, "")) <= step
    cursor.page(protocol.Reply(200, {}, b'{"ok":true,"ts":0,"updates":[]}'))
    assert cursor.delay(LonglineError(500, "")) <= 0.5
    assert cursor.delay(LonglineError(429, "", 7)) == 7
    assert cursor.delay(LonglineError(503, "", 3600)) == 60
    # Even if a server says 0, ask it only after a pause.
    assert cursor.delay(LonglineError(503, "", 0)) > 0
    assert cursor.delay(LonglineError(500, "", 7)) <= 2
    for status in (400, 401, 404, 405, 413, 301, 304):
        with pytest.raises(LonglineError):
            cursor.delay(LonglineError(status, ""))


def test_the_rest_after_nothing():
    cursor = protocol.Cursor(5, 60, 100, False, 0.5)
    assert 0.25 <= cursor.rest(protocol.Page(5, 0, False, []), 0.4) <= 0.5
    assert cursor.rest(protocol.Page(5, 0, False, []), 0.6) == 0
    for page in (protocol.Page(6, 0, False, []), protocol.Page(5, 1, False, []), protocol.Page(5, 0, True, [])):
        assert cursor.rest(page, 0) == 0

# --- the steps of a subscription ---


def new_feed(**callbacks):
    cursor = protocol.Cursor(0, 60, 100, False, 0.5)
    callbacks = feed.Callbacks(**{"on_missed": None, "on_reset": None, "on_error": None, **callbacks})
    return feed.Feed(protocol.Address("http://host/a?b=1"), 15, cursor, lambda entry: entry.update, callbacks)


def page(ts, *updates, **fields):
    return protocol.Reply(200, {}, json.dumps({"ok": True, "ts": ts, **fields, "updates": updates}).encode())


def test_the_steps_after_a_reply():
    steps = new_feed(on_missed="missed", on_reset="reset")
    steps.resume()
    assert steps.next() == feed.Ask("/a?b=1&ts=0&sleep=60&limit=100", 75)
    steps.replied(page(9, [8], [9], missed=7, reset=True))
    assert steps.next() == feed.Tell("reset", 9)
    assert steps.next() == feed.Tell("missed", 7)
    for given, ts in (([8], 0), ([9], 8)):
        assert steps.next() == feed.Give(given)
        assert steps.ts == ts
        steps.resume()
    assert steps.next() == feed.Ask("/a?b=1&ts=9&sleep=60&limit=100", 75)


def test_the_steps_after_an_error():
    steps = new_feed(on_error="error")
    ask, error = steps.next(), LonglineError(503, "", 7)
    steps.failed(error)
    assert steps.next() == feed.Tell("error", error)
    assert steps.next() == feed.Rest(7)
    assert steps.next() == ask
    with pytest.raises(LonglineError):
        steps.failed(LonglineError(404, ""))
    assert steps.next() == ask


def test_a_rest_that_was_interrupted_is_over():
    steps = new_feed(on_error="error")
    ask = steps.next()
    steps.failed(LonglineError(503, "", 7))
    steps.next()
    steps.resume()
    assert steps.next() == ask


def test_an_empty_reply_that_comes_at_once_is_followed_by_a_rest():
    steps = new_feed()
    ask = steps.next()
    steps.replied(page(0))
    assert isinstance(steps.next(), feed.Rest)
    assert steps.next() == ask


# --- a reply and its texts ---


def random_json(source, depth):
    kind = source.randrange(9 if depth else 6)
    if kind == 0:
        return source.choice([True, False, None])
    if kind == 1:
        return source.randrange(-(10**20), 10**20)
    if kind == 2:
        return source.random()
    if kind <= 5:
        return "".join(source.choice('ab"\\]}[{,: \n\u00e9\U0001f600') for _ in range(source.randrange(6)))
    if kind == 6:
        return [random_json(source, depth - 1) for _ in range(source.randrange(4))]
    return {f"{random_json(source, 0)}": random_json(source, depth - 1) for _ in range(source.randrange(4))}


def test_texts_are_cut_where_the_updates_are():
    source = random.Random(7)
    for round_number in range(300):
        updates = [random_json(source, 4) for _ in range(source.randrange(5))]
        options = {"ensure_ascii": source.random() < 0.5, "indent": source.choice([None, 1])}
        texts = [json.dumps(update, **options) for update in updates]
        space = source.choice(["", " ", "\r\n\t"])
        array = f"[{space}{f'{space},{space}'.join(texts)}{space}]"
        text = f'{space}{{{space}"ts"{space}:{space}50,"updates":{array}{space}}}{space}'
        page = protocol.parse_page(text)
        assert [entry.text for entry in page.entries] == texts, round_number
        assert [entry.update for entry in page.entries] == updates
        assert [entry.ts for entry in page.entries] == list(range(51 - len(updates), 51))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "null", "1", '"x"', "[]", "[1]", "{", "{}", '{"ok":true}', '{"ts":1}', '{"updates":[]}',
        '{"ts":"1","updates":[]}', '{"ts":1.5,"updates":[]}', '{"ts":1,"updates":{}}', '{"ts":1,"updates":null}',
        '{"ts":1,"updates":[}', '{"ts":1,"updates":[1', '{"ts":1,"updates":[1 2]}', '{"ts":1,"updates":[,]}',
        '{"ts":1,"updates":[]', '{"ts":1,"updates":[]}}', '{"ts":1,"updates":[]} {}', '{"ts":1 "updates":[]}',
        '{"ts" 1,"updates":[]}', '{ts:1,"updates":[]}', '{1:1,"ts":1,"updates":[]}',
        '{"ts":1,"missed":"2","updates":[]}', "[" * 100000, '{"ts":1,"updates":' + "[" * 100000,
    ],
    ids=lambda text: text[:40] or "empty",
)  # fmt: skip
def test_what_is_no_reply(text):
    for full in (False, True):
        cursor = protocol.Cursor(0, 60, 100, full, 0.5)
        with pytest.raises(LonglineError) as caught:
            cursor.page(protocol.Reply(200, {}, text.encode()))
        assert caught.value.status == 0


def test_full_items_that_are_none():
    cursor = protocol.Cursor(0, 60, 100, True, 0.5)
    whole = {"ts": 1, "at": 0, "method": "POST", "query": "", "headers": {}, "body": {}, "raw": "{}"}
    items = [[], None, {}, *({k: v for k, v in whole.items() if k != name} for name in whole if name != "ts")]
    for item in items:
        with pytest.raises(LonglineError):
            cursor.page(protocol.Reply(200, {}, json.dumps({"ts": 1, "updates": [item]}).encode()))
    cursor.page(protocol.Reply(200, {}, json.dumps({"ts": 1, "updates": [whole]}).encode()))

# --- types ---


if shutil.which("mypy"):

    def test_types():
        check = subprocess.run(["mypy", "--cache-dir=/dev/null"], cwd=CLIENT, capture_output=True, text=True)
        assert check.returncode == 0, check.stdout
