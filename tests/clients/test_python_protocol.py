"""The Python client: what it decides without a connection."""

import asyncio
import datetime
import json
import random
import shutil
import subprocess
import time

import pytest
from python_client import CLIENT, AsyncChannel, Channel, Cursor, LonglineError, Pace, feed, protocol, wanted

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
    assert Pace(sleep, 0.5).sleep_text() == text


REFUSED = [{"sleep": 0}, {"sleep": 3601}, {"sleep": float("nan")}, {"limit": 0}, {"ts": 0, "since": "10m"}]


@pytest.mark.parametrize("options", REFUSED)
def test_options_that_are_refused(options):
    for kind in (Channel, AsyncChannel):
        with pytest.raises(ValueError):
            kind("http://host/a").updates(**options)

# --- when to ask again ---


def own_error(status, **headers):
    body = {"ok": False, "error_code": status, "error_description": "No"}
    return protocol.error_of(protocol.Reply(status, headers, json.dumps(body).encode()))


def proxys_error(status, body=b"<h1>No", **headers):
    return protocol.error_of(protocol.Reply(status, headers, body))


def test_the_backoff():
    pace = Pace(60, 0.5)
    for step in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert 0.5 * step <= pace.failed(LonglineError(0, ""), 0).seconds <= step
    assert pace.replied(False, 0) == 0
    assert pace.failed(own_error(500), 0).seconds <= 0.5
    # Even if a server says 0, ask it only after a pause.
    assert pace.failed(LonglineError(503, "", 0), 0).seconds > 0
    assert pace.failed(LonglineError(500, "", 7), 0).seconds <= 2


def test_retry_after_is_spread():
    """Of a thousand clients, each tenth of the time gets its share."""
    for after, least in ((7, 7), (3600, 60)):
        waits = [Pace(60, 0.5).failed(LonglineError(429, "", after), 0).seconds / least for _ in range(1000)]
        shares = [sum(1 + n / 20 <= wait <= 1.05 + n / 20 for wait in waits) for n in range(10)]
        assert sum(shares) == 1000 and min(shares) > 50, shares


def test_what_is_final():
    for status in (400, 401, 403, 404, 405, 409, 413, 414):
        assert own_error(status).is_final
    for status in (408, 425, 429, 500, 503, 301):
        assert not own_error(status).is_final
    other = [
        b"", b"<h1>No", b"null", b"[]", b'{"ok":false}', b'{"error_code":404}', b'{"ok":false,"error_code":400}',
        b'{"ok":true,"error_code":404}', b'{"ok":0,"error_code":404}', b"[" * 100000,
    ]  # fmt: skip
    for body in other:
        assert not proxys_error(404, body).is_final
        assert Pace(60, 0.5).failed(proxys_error(404, body), 10).seconds > 0


CUTS = [
    *(proxys_error(status) for status in (502, 504, 524, 500, 503, 408)),
    proxys_error(504, b""),
    protocol.no_reply(ConnectionResetError("reset"), False),
    protocol.no_reply(EOFError(), False),
]
FAILURES = [
    own_error(503),
    own_error(408),
    proxys_error(404),
    proxys_error(302),
    proxys_error(503, **{"retry-after": "3"}),
    protocol.no_reply(TimeoutError(), False),
    protocol.no_reply(asyncio.TimeoutError(), False),
    protocol.not_longlines(0),
]


def test_what_is_a_cut():
    for error in CUTS:
        assert Pace(25, 0.5).failed(error, 7) == (0, False), error
        assert Pace(25, 0.5).failed(error, 0.4).seconds > 0, "it has not waited"
        # Whatever had been alive would have answered: this is how a proxy tells of a dead server.
        assert Pace(25, 0.5).failed(error, 31).seconds > 0, error
    for error in FAILURES:
        assert Pace(25, 0.5).failed(error, 7).seconds > 0, error


@pytest.mark.parametrize("cut_s", [1, 7, 10, 24])
def test_the_sleep_behind_a_proxy_that_cuts(cut_s):
    """It is cut now and then, and never asks for less than it must."""
    pace, cuts = Pace(25, 0.5), 0
    for _ in range(100):
        if pace.sleep_s < cut_s:
            assert pace.replied(True, pace.sleep_s) == 0
        else:
            cuts += 1
            pause = pace.failed(CUTS[0], cut_s)
            assert pause.seconds <= 0.5 and (pause == (0, False) or cut_s == 1)
        assert max(1, 0.75 * cut_s) <= pace.sleep_s <= 25
    assert cuts < 50 or cut_s == 1


def test_the_sleep_grows_again():
    pace = Pace(25, 0.5)
    pace.failed(CUTS[0], 1)
    assert pace.sleep_s == 1
    pace.replied(True, 0.6)
    assert pace.sleep_s == 1, "only a poll that lasted its whole time shows that the next one may be longer"
    for n in range(20):
        pace.replied(n % 2 == 0, pace.sleep_s)  # Behind a filter the reply that ends a wait has a new ts.
    assert pace.sleep_s == 25


def test_cuts_in_a_row():
    """They are told once, and a dead server behind a slow proxy is not asked without a pause."""
    pace = Pace(25, 0.01)
    for _ in range(2):
        pauses = [pace.failed(CUTS[0], 2) for _ in range(9)]
        assert pauses[:2] == [(0, False), (0, True)]
        assert all(0.25 <= pause.seconds <= 0.5 and not pause.is_told for pause in pauses[2:])
        pace.replied(True, 2)


def test_silence_makes_polls_shorter():
    """A proxy may drop a connection and tell nobody."""
    pace = Pace(25, 0.5)
    assert pace.failed(protocol.no_reply(TimeoutError(), False), 40).seconds > 0
    assert pace.sleep_s == 18.75
    assert pace.failed(protocol.no_reply(TimeoutError(), False), 0).seconds > 0
    assert pace.sleep_s == 18.75, "this one did not even connect"


def test_a_kept_connection_that_has_been_closed_is_no_failure():
    pace = Pace(25, 0.5)
    assert pace.failed(protocol.no_reply(ConnectionResetError(), True), 0.001) == (0, False)
    assert pace.sleep_s == 25
    assert pace.failed(protocol.no_reply(TimeoutError(), True), 40).seconds > 0


def test_the_rest_after_nothing():
    pace = Pace(60, 0.5)
    assert 0.25 <= pace.replied(True, 0.4) <= 0.5
    assert pace.replied(True, 0.6) == 0
    assert pace.replied(False, 0) == 0
    here = Cursor(5)
    assert here.is_idle(protocol.Page(5, 0, False, []))
    for page in (protocol.Page(6, 0, False, []), protocol.Page(5, 1, False, []), protocol.Page(5, 0, True, [])):
        assert not here.is_idle(page)

# --- where to start ---


def test_where_a_poll_begins():
    assert Cursor().query() == Cursor(0).query() == "ts=0"
    assert Cursor(-5).query() == "ts=-5"
    assert Cursor("now").query() == "ts=now"
    assert Cursor(name="bot").query() == ""
    assert Cursor(7, name="bot").query() == "ts=7"
    at = datetime.datetime(2026, 11, 29, 10, tzinfo=datetime.timezone.utc)
    sinces = {
        "2026-11-29T10:00:00+02:00": "2026-11-29T10%3A00%3A00%2B02%3A00",
        at: "1795946400",
        at + datetime.timedelta(milliseconds=250): "1795946400.25",
        datetime.timedelta(minutes=10): "600s",
        datetime.timedelta(seconds=0.2): "1s",
        1795946400: "1795946400",
        0.5: "0.5",
    }
    for since, text in sinces.items():
        assert Cursor(since=since).query() == f"since={text}"
    for wrong in ("soon", 1.5):
        with pytest.raises(TypeError):
            Cursor(wrong)


def test_ten_minutes_ago_does_not_move_while_nobody_answers(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ago, at = Cursor(since="10m"), Cursor(since="2026-11-29")
    assert (ago.query(), at.query()) == ("since=10m", "since=2026-11-29")
    now += 89.5
    assert (ago.query(), at.query()) == ("since=690s", "since=2026-11-29")


def test_a_poll_waits_only_where_it_can_begin_again():
    assert Cursor().may_wait() and Cursor(name="bot").may_wait()
    for cursor in (Cursor("now"), Cursor(since="10m"), Cursor(-5)):
        assert not cursor.may_wait()
        cursor.move(cursor.take(protocol.Page(9, 0, False, [])))
        assert cursor.may_wait() and cursor.query() == "ts=9"


@pytest.mark.parametrize("start", [{"ts": -3}, {"since": "1d"}, {"name": "bot"}])
def test_the_place_before_the_first_update_is_known_with_the_first_reply(start):
    cursor = Cursor(**start)
    end = cursor.take(protocol.Page(9, 0, False, [protocol.Entry(n, {}, "{}") for n in (7, 8, 9)], "abc", 2))
    assert (cursor.position, end, cursor.lag) == ((6, "abc"), (9, "abc"), 2)

# --- the steps of a subscription ---


def new_feed(sleep=60, cursor=None, **callbacks):
    callbacks = feed.Callbacks(**{"on_missed": None, "on_reset": None, "on_error": None, **callbacks})
    address, wants = protocol.Address("http://host/a?b=1"), wanted(100, False)
    start = cursor or Cursor(0)
    return feed.ChannelFeed(address, 15, Pace(sleep, 0.5), False, callbacks, start, wants, lambda entry: entry.update)


def page(ts, *updates, **fields):
    return protocol.Reply(200, {}, json.dumps({"ok": True, "ts": ts, **fields, "updates": updates}).encode())


def test_the_steps_after_a_reply():
    steps = new_feed(on_missed="missed", on_reset="reset")
    steps.resume()
    assert steps.next() == feed.Ask("/a?b=1&ts=0&sleep=60&limit=100&epoch=", 75)
    steps.replied(page(9, [8], [9], missed=7, reset=True, epoch="abc"), 1)
    assert steps.next() == feed.Tell("reset", 9)
    assert steps.next() == feed.Tell("missed", 7)
    for given, place in (([8], (0, "")), ([9], (8, "abc"))):
        assert steps.next() == feed.Give(given)
        assert steps.cursor.position == place, "the ts and its epoch move together"
        steps.resume()
    assert steps.next() == feed.Ask("/a?b=1&ts=9&sleep=60&limit=100&epoch=abc", 75)


def test_the_steps_after_an_error():
    steps = new_feed(on_error="error")
    ask, error = steps.next(), LonglineError(503, "", 7)
    steps.failed(error, 1)
    assert steps.next() == feed.Tell("error", error)
    rest = steps.next()
    assert isinstance(rest, feed.Rest) and 7 <= rest.seconds <= 10.5
    assert steps.next() == ask
    with pytest.raises(LonglineError):
        steps.failed(own_error(404), 1)
    assert steps.next() == ask


def test_the_steps_after_a_cut():
    """It is told to nobody but with a second one, and the next poll follows at once."""
    steps = new_feed(on_error="error")
    steps.next()
    steps.failed(CUTS[0], 8)
    assert steps.next() == feed.Ask("/a?b=1&ts=0&sleep=6&limit=100&epoch=", 21)
    steps.failed(CUTS[0], 5)
    assert steps.next() == feed.Tell("error", CUTS[0])
    assert isinstance(steps.next(), feed.Ask)


def test_what_does_not_wait_cannot_be_cut():
    """However long it takes: that is a failure. Nor does it say anything about how long polls may wait."""
    steps = new_feed(cursor=Cursor("now"), on_error="error")
    ask = steps.next()
    steps.failed(CUTS[0], 8)
    assert steps.next() == feed.Tell("error", CUTS[0])
    assert isinstance(steps.next(), feed.Rest)
    assert steps.next() == ask
    steps.failed(protocol.no_reply(TimeoutError(), False), 15)
    steps.next(), steps.next(), steps.next()
    steps.replied(page(7), 8)
    assert "&sleep=60&" in steps.next().target


def test_a_rest_that_was_interrupted_is_over():
    steps = new_feed(on_error="error")
    ask = steps.next()
    steps.failed(LonglineError(503, "", 7), 0)
    steps.next()
    steps.resume()
    assert steps.next() == ask


def test_an_empty_reply_that_comes_at_once_is_followed_by_a_rest():
    steps = new_feed()
    ask = steps.next()
    steps.replied(page(0), 0.1)
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
        page = protocol.page_of(protocol.Reply(200, {}, text.encode()), False)
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
        for parse in (protocol.page_of, protocol.pages_of):
            with pytest.raises(LonglineError) as caught:
                parse(protocol.Reply(200, {}, text.encode()), full)
            assert (caught.value.status, caught.value.is_cut, caught.value.is_final) == (0, False, False)


def test_full_items_that_are_none():
    whole = {"ts": 1, "at": 0, "method": "POST", "query": "", "headers": {}, "body": {}, "raw": "{}"}
    items = [[], None, {}, *({k: v for k, v in whole.items() if k != name} for name in whole)]
    for item in [*items, {**whole, "ts": "1"}]:
        with pytest.raises(LonglineError):
            protocol.page_of(page(1, item), True)
    protocol.page_of(page(1, whole), True)


def test_the_ts_of_updates_where_some_were_skipped():
    """Without view=full it is the least that it can be; the last update's is the reply's."""
    ids = [entry.ts for entry in protocol.page_of(page(12, [1], [2], [3], missed=2, skipped=5), False).entries]
    assert ids == [5, 6, 12]
    item = {"at": 0, "method": "POST", "query": "", "headers": {}, "body": {}, "raw": "{}"}
    full = protocol.page_of(page(12, *({**item, "ts": ts} for ts in (5, 8, 11)), missed=2, skipped=5), True)
    assert [entry.ts for entry in full.entries] == [5, 8, 11] and full.ts == 12

# --- types ---


if shutil.which("mypy"):

    def test_types():
        check = subprocess.run(["mypy", "--cache-dir=/dev/null"], cwd=CLIENT, capture_output=True, text=True)
        assert check.returncode == 0, check.stdout
