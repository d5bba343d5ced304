"""The Python client: subscriptions."""

import asyncio
import gzip
import hashlib
import hmac
import json
import time
from urllib.parse import urlsplit

import pytest
from python_client import AsyncChannel, AsyncChannels, Channel, Channels, Entry, LonglineError, take, take_async
from standin import refusal, reply

# --- the cursor ---


def test_ts_moves_on_when_the_next_one_is_asked_for(channel):
    for n in (1, 2, 3):
        channel.push({"n": n})
    updates = channel.updates(ts=1)
    assert updates.ts == 1
    assert next(updates) == {"n": 2}
    assert updates.ts == 1
    assert next(updates) == {"n": 3}
    assert updates.ts == 2

    seen = []
    updates = channel.updates()
    for update in updates:
        seen.append((update["n"], updates.ts))
        if update["n"] == 3:
            channel.stop()
    assert seen == [(1, 0), (2, 1), (3, 2)]
    assert updates.ts == 3


def test_ts_moves_on_when_the_next_one_is_asked_for_asyncio(channel, url):
    for n in (1, 2, 3):
        channel.push({"n": n})

    async def run():
        seen = []
        async with AsyncChannel(url) as channel:
            updates = channel.updates()
            async for update in updates:
                seen.append((update["n"], updates.ts))
                if update["n"] == 3:
                    channel.stop()
            return seen, updates.ts

    assert asyncio.run(run()) == ([(1, 0), (2, 1), (3, 2)], 3)


def test_a_loop_that_throws_has_not_handled_its_update(channel):
    for n in (1, 2):
        channel.push({"n": n})
    updates = channel.updates()
    with pytest.raises(ZeroDivisionError):
        for update in updates:
            1 / (update["n"] - 2)
    assert updates.ts == 1
    assert next(channel.updates(ts=updates.ts)) == {"n": 2}


def test_nothing_is_handed_out_after_stop(channel):
    for n in range(5):
        channel.push({"n": n})
    updates = channel.updates()
    take(updates, 2)
    updates.stop()
    assert list(updates) == []
    assert updates.ts == 2


def test_two_subscriptions_of_one_channel(channel):
    for n in (1, 2):
        channel.push({"n": n})
    first, second = channel.updates(), channel.updates(ts=1)
    assert next(first) == {"n": 1}
    assert next(second) == {"n": 2}
    first.stop()
    channel.push({"n": 3})
    assert next(second) == {"n": 3}
    assert list(first) == []

# --- entries ---


def test_entries(channel):
    channel.push([1])
    channel.push({"a": 1.10})
    assert take(channel.entries(), 2) == [Entry(1, [1], "[1]"), Entry(2, {"a": 1.1}, '{"a":1.1}')]


def test_numbers_that_python_will_not_make_an_int_of(server, url):
    """They must not stop the subscription. The text has them."""
    target = url[url.rindex("/") :]
    digits = "7" * 5000
    server.push(target, f'{{"n":{digits}}}'.encode())
    server.push(target, b"[" * 200 + b"]" * 200)
    with Channel(url) as channel:
        big, deep = take(channel.entries(), 2)
    assert str(big.update["n"]) == digits and big.text == f'{{"n":{digits}}}'
    assert deep.text == "[" * 200 + "]" * 200


SIGNED = b'{ "action":"opened", "t":"na\\u00efve \xf0\x9f\x98\x80", "n":12345678901234567890 }'
PACKED = gzip.compress(b'{"z":1}')


def check_full_entries(signed, binary, packed):
    assert signed.update == {**json.loads(SIGNED), "appname": "x y"}
    assert (signed.ts, signed.method, signed.query) == (1, "POST", "appname=x%20y")
    assert signed.text == SIGNED.decode()[:-1] + ',"appname":"x y"}'
    assert signed.raw == SIGNED
    assert (signed.path, signed.from_, signed.same_as) == ("/hook", "127.0.0.1", None)
    assert (binary.path, binary.from_, binary.same_as) == (None, "127.0.0.1", 1)
    assert hmac.compare_digest(
        signed.headers["x-hub-signature-256"], hmac.new(b"secret", signed.raw, hashlib.sha256).hexdigest()
    )
    assert abs(signed.at / 1000 - time.time()) < 300
    assert (binary.ts, binary.raw, binary.update) == (2, b"\xff\x00", {"body_base64": "/wA="})
    assert (packed.raw, packed.coded, binary.coded) == (b'{"z":1}', PACKED, None)


def test_full_entries(server, url):
    target = url[url.rindex("/") :]
    signature = hmac.new(b"secret", SIGNED, hashlib.sha256).hexdigest()
    server.push(f"{target}/hook?appname=x%20y", SIGNED, {"X-Hub-Signature-256": signature, "Webhook-Id": "1"})
    server.push(target, b"\xff\x00", {"Content-Type": "text/plain", "Webhook-Id": "1"})
    server.push(target, PACKED, {"Content-Encoding": "gzip"})
    with Channel(url) as channel:
        check_full_entries(*take(channel.entries(full=True), 3))

    async def run():
        async with AsyncChannel(url) as channel:
            return await take_async(channel.entries(full=True), 3)

    check_full_entries(*asyncio.run(run()))

# --- callbacks and errors ---


def test_callbacks(stand_in):
    script = [refusal(503), reply(0, reset=True), reply(5, [5], missed=4)]
    expected = [("error", 503), ("reset", 0), ("missed", 4)]

    def callbacks(told):
        return {
            "on_error": lambda error: told.append(("error", error.status)),
            "on_reset": lambda ts: told.append(("reset", ts)),
            "on_missed": lambda count: told.append(("missed", count)),
            "backoff": 0.001,
        }

    told = []
    with Channel(stand_in(script).url) as channel:
        updates = channel.updates(ts=9, **callbacks(told))
        assert next(updates) == [5]
    assert told == expected

    def later(callback):
        async def coroutine(argument):
            await asyncio.sleep(0)
            callback(argument)

        return coroutine if callable(callback) else callback

    async def run(options):
        async with AsyncChannel(server.url) as channel:
            return await take_async(channel.updates(ts=9, **options), 1)

    for wrap in (lambda callback: callback, later):
        server = stand_in(script)
        told = []
        assert asyncio.run(run({name: wrap(value) for name, value in callbacks(told).items()})) == [[5]]
        assert told == expected


def test_a_callback_that_throws_loses_nothing(stand_in):
    def throw(_):
        raise RuntimeError("thrown")

    with Channel(stand_in([reply(5, [4], [5], missed=3)]).url) as channel:
        updates = channel.updates(on_missed=throw)
        with pytest.raises(RuntimeError):
            next(updates)
        assert take(updates, 2) == [[4], [5]]


def test_what_has_no_callback_is_logged_without_the_address(stand_in, caplog):
    server = stand_in([{"close": True}, refusal(503, "Down"), reply(3, reset=True), reply(9, [9], missed=5)])
    with Channel(server.url) as channel:
        assert next(channel.updates(ts=4, backoff=0.001)) == [9]
    lines = [record.getMessage() for record in caplog.records if record.name == "longline"]
    assert len(lines) == 4
    assert all(line.startswith(f"longline (127.0.0.1:{urlsplit(server.url).port}): ") for line in lines)
    texts = [line.split(": ", 1)[1] for line in lines]
    assert texts[1].startswith("503 Down; the next try is in 0.0 s")
    assert texts[2:] == [
        "the channel's data is not what it was; going on from ts 3",
        "5 updates are no longer kept and have been missed",
    ]
    assert "conformance-channel" not in caplog.text


def test_repr_shows_the_host_and_not_the_path():
    told = [repr(kind(url)) for kind, url in (
        (Channel, "http://localhost:3000/secret?a=b"),
        (AsyncChannel, "https://hooks.example/secret"),
        (Channels, "http://[::1]:3000"),
        (AsyncChannels, "http://hooks.example:80/"),
    )]  # fmt: skip
    assert told == [
        "<Channel of localhost:3000>",
        "<AsyncChannel of hooks.example>",
        "<Channels of [::1]:3000>",
        "<AsyncChannels of hooks.example>",
    ]


def test_an_error_that_is_raised_leaves_the_subscription_usable(stand_in):
    server = stand_in([reply(1, [1]), refusal(404), reply(2, [2])])
    with Channel(server.url) as channel:
        updates = channel.updates()
        assert next(updates) == [1]
        with pytest.raises(LonglineError) as caught:
            next(updates)
        assert (caught.value.status, updates.ts) == (404, 1)
        assert next(updates) == [2]
