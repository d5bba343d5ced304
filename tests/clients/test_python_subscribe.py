"""The Python client: what the conformance cases do not ask of it."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from drivers import PYTHON, REPOSITORY
from longline_server import wait_until
from standin import bound_socket

CLIENT = REPOSITORY / "clients/python"
sys.path.insert(0, str(CLIENT / "src"))

from longline import AsyncChannel, Channel, Entry, LonglineError
from longline import _protocol as protocol
from longline._sync import Stopped

STOP_S = 0.1
TRIES = 5


@pytest.fixture
def url(server):
    return server.url(server.channel())


@pytest.fixture
def channel(url):
    with Channel(url) as channel:
        yield channel


@pytest.fixture
def refused_url():
    """An address that refuses connections."""
    with bound_socket(0) as sock:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/channel"


@pytest.fixture
def silent_url():
    """An address where a connect neither succeeds nor fails: its queue is full."""
    with bound_socket(0) as sock, contextlib.ExitStack() as held:
        sock.listen(0)
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/channel"


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """(the server's context, the client's context) of a fresh certificate for 127.0.0.1."""
    directory = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert -days 2"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *subject], cwd=directory, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert", directory / "key")
    return context, ssl.create_default_context(cafile=str(directory / "cert"))


def reply(ts, *updates, **fields):
    return {"reply": {"json": {"ok": True, "ts": ts, **fields, "updates": list(updates)}}}


def pushed(ts, **more):
    return {"reply": {"headers": {"X-Total-Updates": str(ts)}, "text": "OK", **more}}


def refusal(status, description="No", **headers):
    body = {"ok": False, "error_code": status, "error_description": description}
    return {"reply": {"status": status, "headers": {n.replace("_", "-"): v for n, v in headers.items()}, "json": body}}


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


async def take_async(iterator, count):
    return [await iterator.__anext__() for _ in range(count)]


async def push_async(url, update, **options):
    async with AsyncChannel(url, **options) as channel:
        return await channel.push(update)


def push_sync(url, update, **options):
    with Channel(url, **options) as channel:
        return channel.push(update)


@pytest.fixture(params=["sync", "asyncio"])
def push(request):
    """push(url, update): with either client."""
    return push_sync if request.param == "sync" else lambda *a, **kw: asyncio.run(push_async(*a, **kw))


# --- push ---


def test_push_returns_the_ts(push, url, server):
    assert [push(url, {"n": n}) for n in (1, 2)] == [1, 2]
    assert push(url, ["naïve ✓ 😀", 9007199254740993, None]) == 3
    assert push(url, {"half": "\ud83d"}) == 4
    with Channel(url) as channel:
        texts = [entry.text for entry in take(channel.entries(), 4)]
    assert texts == ['{"n":1}', '{"n":2}', '["naïve ✓ 😀",9007199254740993,null]', '{"half":"\\ud83d"}']


def test_push_takes_the_query_of_the_address_along(push, url, channel):
    push(f"{url}?appname=my bot", {"a": 1})
    assert next(channel.updates()) == {"a": 1, "appname": "my bot"}


def test_poll_works_with_a_query_in_the_address(url, channel):
    channel.push([1])
    with Channel(f"{url}?appname=x") as other:
        assert next(other.updates()) == [1]


def test_push_that_the_server_refuses(push, url):
    with pytest.raises(LonglineError) as caught:
        push(url, "a string is no update")
    assert (caught.value.status, caught.value.retry_after) == (400, None)
    assert caught.value.description == "Malformed JSON payload: an object or an array is expected"
    assert str(caught.value) == "400 Malformed JSON payload: an object or an array is expected"


def test_push_refused_for_a_while(push, stand_in):
    server = stand_in([refusal(429, "Too many requests", Retry_After="17")])
    with pytest.raises(LonglineError) as caught:
        push(server.url, {})
    assert (caught.value.status, caught.value.description, caught.value.retry_after) == (429, "Too many requests", 17)


def test_push_refused_by_a_proxy(push, stand_in):
    server = stand_in([{"reply": {"status": 502, "text": "<html>"}}])
    with pytest.raises(LonglineError, match="502 the server answered with status 502"):
        push(server.url, {})


def test_push_answered_by_something_else(push, stand_in):
    server = stand_in([{"reply": {"status": 200, "text": "<html>Welcome"}}])
    with pytest.raises(LonglineError) as caught:
        push(server.url, {})
    assert (caught.value.status, caught.value.description) == (200, "the reply is not one of longline's")


def test_push_without_a_server(push, refused_url):
    with pytest.raises(LonglineError) as caught:
        push(refused_url, {})
    assert caught.value.status == 0
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_push_is_never_repeated(push, stand_in):
    server = stand_in([{"close": True}])
    with pytest.raises(LonglineError) as caught:
        push(server.url, {})
    assert caught.value.status == 0 and str(caught.value)
    assert len(server.requests) == 1


def test_push_into_silence(push, stand_in):
    with pytest.raises(LonglineError) as caught:
        push(stand_in([]).url, {}, timeout=0.05)
    assert caught.value.status == 0


def test_push_of_what_json_cannot_say(push, url):
    with pytest.raises(ValueError):
        push(url, {"a": float("nan")})
    with pytest.raises(TypeError):
        push(url, {"a": object()})


def test_push_request(push, stand_in):
    server = stand_in([pushed(7)])
    assert push(server.url, {"a": "é"}, headers={"X-Proxy": "yes"}) == 7
    (request,) = server.requests
    assert (request.method, request.body) == ("POST", '{"a":"é"}'.encode())
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["x-proxy"] == "yes"


def test_pushes_share_a_connection(server, url):
    def connections():
        return server.metric("longline_connections_accepted_total")

    with Channel(url) as channel:
        channel.push([])
        before = connections()
        for _ in range(5):
            channel.push([])
        assert connections() == before

    async def push_six():
        async with AsyncChannel(url) as channel:
            await channel.push([])
            before = connections()
            for _ in range(5):
                await channel.push([])
            assert connections() == before

    asyncio.run(push_six())


def test_a_kept_connection_that_the_server_closed_is_not_used(start_server):
    server = start_server()
    url = server.url(server.channel())
    with Channel(url) as channel:
        assert channel.push([]) == 1
        server.restart()
        assert channel.push([]) == 2

    async def with_asyncio():
        async with AsyncChannel(url) as channel:
            assert await channel.push([]) == 3
            await asyncio.to_thread(server.restart)
            assert await channel.push([]) == 4

    asyncio.run(with_asyncio())


def test_pushes_from_many_threads(channel):
    got = []
    threads = [threading.Thread(target=lambda: got.extend(channel.push([]) for _ in range(10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 81))


def test_pushes_of_many_tasks(url):
    async def run():
        async with AsyncChannel(url) as channel:
            return await asyncio.gather(*(channel.push([]) for _ in range(40)))

    assert sorted(asyncio.run(run())) == list(range(1, 41))


def test_push_of_a_task_that_is_cancelled(stand_in):
    async def run():
        async with AsyncChannel(server.url) as channel:
            task = asyncio.ensure_future(channel.push([1]))
            await asyncio.to_thread(server.wait_for_requests, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The reply to it must not be taken for the reply to the next one.
            return await channel.push([2])

    # The first reply comes late, on a connection that is not used any more.
    server = stand_in([{**pushed(1), "delay_ms": 200}, pushed(2)])
    assert asyncio.run(run()) == 2


REDIRECTS = [("https://lp.example.com/Secret", ", at https://lp.example.com"), ("/Secret", "")]


@pytest.mark.parametrize("location, where", REDIRECTS)
def test_redirects_are_not_followed(push, stand_in, location, where):
    redirect = {"reply": {"status": 301, "headers": {"Location": location}, "text": "<html>Moved"}}
    server = stand_in([redirect, redirect])
    for request in (lambda: push(server.url, {}), lambda: next(Channel(server.url).updates())):
        with pytest.raises(LonglineError) as caught:
            request()
        assert caught.value.status == 301
        assert caught.value.description.endswith(f"not followed, give the address that it leads to{where}")
    assert [request.method for request in server.requests] == ["POST", "GET"]


# --- addresses ---


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
    """They must not hold up the subscription; the text has them."""
    target = url[url.rindex("/") :]
    digits = "7" * 5000
    server.push(target, f'{{"n":{digits}}}'.encode())
    server.push(target, b"[" * 500 + b"]" * 500)
    with Channel(url) as channel:
        big, deep = take(channel.entries(), 2)
    assert str(big.update["n"]) == digits and big.text == f'{{"n":{digits}}}'
    assert deep.text == "[" * 500 + "]" * 500


SIGNED = b'{ "action":"opened", "t":"na\\u00efve \xf0\x9f\x98\x80", "n":12345678901234567890 }'


def check_full_entries(signed, binary):
    assert signed.update == {**json.loads(SIGNED), "appname": "x y"}
    assert (signed.ts, signed.method, signed.query) == (1, "POST", "appname=x%20y")
    assert signed.text == SIGNED.decode()[:-1] + ',"appname":"x y"}'
    assert signed.raw == SIGNED
    assert hmac.compare_digest(
        signed.headers["x-hub-signature-256"], hmac.new(b"secret", signed.raw, hashlib.sha256).hexdigest()
    )
    assert abs(signed.at / 1000 - time.time()) < 300
    assert (binary.ts, binary.raw, binary.update) == (2, b"\xff\xfe", {"body_base64": "//4="})


def test_full_entries(server, url):
    target = url[url.rindex("/") :]
    signature = hmac.new(b"secret", SIGNED, hashlib.sha256).hexdigest()
    server.push(f"{target}?appname=x%20y", SIGNED, {"X-Hub-Signature-256": signature})
    server.push(target, b"\xff\xfe", {"Content-Type": "text/plain"})
    with Channel(url) as channel:
        check_full_entries(*take(channel.entries(full=True), 2))

    async def run():
        async with AsyncChannel(url) as channel:
            return await take_async(channel.entries(full=True), 2)

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
    assert lines[1].startswith("503 Down; the next try is in 0.0 s")
    assert lines[2:] == [
        "the channel has begun anew; going on from ts 3",
        "5 updates are no longer kept and have been missed",
    ]
    assert "conformance-channel" not in caplog.text


def test_an_error_that_is_raised_leaves_the_subscription_usable(stand_in):
    server = stand_in([reply(1, [1]), refusal(404), reply(2, [2])])
    with Channel(server.url) as channel:
        updates = channel.updates()
        assert next(updates) == [1]
        with pytest.raises(LonglineError) as caught:
            next(updates)
        assert (caught.value.status, updates.ts) == (404, 1)
        assert next(updates) == [2]


def test_the_backoff():
    cursor = protocol.Cursor(0, 60, 100, False, 0.5)
    for step in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert 0.5 * step <= cursor.delay(LonglineError(0, "")) <= step
    cursor.page(protocol.Reply(200, {}, b'{"ok":true,"ts":0,"updates":[]}'))
    assert cursor.delay(LonglineError(500, "")) <= 0.5
    assert cursor.delay(LonglineError(429, "", 7)) == 7
    assert cursor.delay(LonglineError(503, "", 3600)) == 60
    # A server that says 0 must not be asked without a pause.
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


# --- stop and close ---


class Loop:
    """A thread that loops over a channel's updates."""

    def __init__(self, channel, **options):
        self.updates = channel.updates(**options)
        self.got = []
        self.failure = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            for update in self.updates:
                self.got.append(update)
            self.ended_at = time.monotonic()
        except BaseException as failure:
            self.failure = failure

    def end_with(self, stop):
        """Calls stop() and returns how long the loop took to end."""
        asked_at = time.monotonic()
        stop()
        self.thread.join(15)
        assert not self.thread.is_alive() and self.failure is None, self.failure
        return self.ended_at - asked_at


def best_of(tries, measure):
    times = []
    for _ in range(tries):
        times.append(measure())
        if times[-1] <= STOP_S:
            return
    pytest.fail(f"stopped after {times} s, {STOP_S} are allowed")


@pytest.mark.parametrize("how", ["channel.stop", "channel.close", "updates.stop", "updates.close"])
def test_stop_ends_a_waiting_poll(server, url, how):
    def measure():
        channel = Channel(url)
        loop = Loop(channel, sleep=60)
        server.wait_for_parked(1)
        owner = {"channel": channel, "updates": loop.updates}[how.split(".")[0]]
        seconds = loop.end_with(getattr(owner, how.split(".")[1]))
        server.wait_for_parked(0)
        channel.close()
        return seconds

    best_of(TRIES, measure)


def test_stop_ends_a_poll_over_tls(stand_in, tls):
    def measure():
        server = stand_in([reply(1, ["over TLS"])], tls=tls[0])
        channel = Channel(server.url, context=tls[1])
        loop = Loop(channel)
        server.wait_for_held()
        seconds = loop.end_with(channel.stop)
        assert loop.got == [["over TLS"]]
        return seconds

    best_of(TRIES, measure)


def test_stop_ends_a_tls_handshake():
    def measure():
        with bound_socket(0) as sock:
            sock.listen()
            channel = Channel(f"https://127.0.0.1:{sock.getsockname()[1]}/a")
            loop = Loop(channel)
            peer, _ = sock.accept()
            with peer:
                peer.recv(1)
                return loop.end_with(channel.stop)

    best_of(TRIES, measure)


def test_stop_ends_a_backoff(stand_in):
    def measure():
        server = stand_in([refusal(503, Retry_After="60")])
        told = threading.Event()
        channel = Channel(server.url)
        loop = Loop(channel, on_error=lambda _: told.set())
        assert told.wait(15)
        return loop.end_with(channel.stop)

    best_of(TRIES, measure)


def test_stop_ends_a_connect(silent_url):
    def measure():
        channel = Channel(silent_url)
        loop = Loop(channel)
        wait_until(lambda: loop.updates._connection._socket, "the connect")
        return loop.end_with(channel.stop)

    best_of(TRIES, measure)


def test_stop_ends_the_resolution_of_a_name(monkeypatch):
    called, over = threading.Event(), threading.Event()

    def hang(*_, **__):
        called.set()
        over.wait()
        raise socket.gaierror("over")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    def measure():
        called.clear()
        channel = Channel("http://name.example/a")
        loop = Loop(channel)
        assert called.wait(15)
        return loop.end_with(channel.stop)

    try:
        best_of(TRIES, measure)
        with pytest.raises(LonglineError, match="could not be resolved in time"):
            push_sync("http://name.example/a", {}, timeout=0.05)
    finally:
        over.set()


def test_a_connect_that_is_not_answered(silent_url, push):
    with pytest.raises(LonglineError):
        push(silent_url, {}, timeout=0.05)


def test_after_close(channel):
    channel.close()
    assert list(channel.updates()) == []
    with pytest.raises(LonglineError, match="closed"):
        channel.push({})


def test_after_close_asyncio(url):
    async def run():
        channel = AsyncChannel(url)
        await channel.push({})
        await channel.close()
        assert [update async for update in channel.updates()] == []
        with pytest.raises(LonglineError, match="closed"):
            await channel.push({})

    asyncio.run(run())


def test_a_subscription_that_is_left_closes_its_connection(server, url):
    channel = Channel(url)
    channel.push([1])
    open_before = server.metric("longline_connections")
    with channel.updates() as updates:
        next(updates)
        assert server.metric("longline_connections") == open_before + 1
    server.wait_for_metric("longline_connections", open_before)
    for _ in channel.updates():
        break
    server.wait_for_metric("longline_connections", open_before)
    channel.close()


def test_close_closes_what_an_iterator_holds(channel, url):
    channel.push([1])
    for close in (lambda: other.close(), lambda: updates.close()):
        other = Channel(url)
        updates = other.updates()
        next(updates)
        held = updates._connection._socket
        close()
        assert held.fileno() == -1

    async def run():
        for close in (lambda: other.close(), lambda: updates.close()):
            other = AsyncChannel(url)
            updates = other.updates()
            await updates.__anext__()
            held = updates._connection._writer.get_extra_info("socket")
            await close()
            assert held.fileno() == -1

    asyncio.run(run())


def test_close_of_a_loop_that_waits(server, url):
    channel = Channel(url)
    loop = Loop(channel)
    server.wait_for_parked(1)
    held = loop.updates._connection._socket
    loop.end_with(channel.close)
    assert held.fileno() == -1

    async def run():
        channel = AsyncChannel(url)
        updates = channel.updates()
        task = asyncio.ensure_future(updates.__anext__())
        await asyncio.to_thread(server.wait_for_parked, 1)
        held = updates._connection._writer.get_extra_info("socket")
        await channel.close()
        assert held.fileno() == -1
        with pytest.raises(StopAsyncIteration):
            await task

    server.wait_for_parked(0)
    asyncio.run(run())


@pytest.mark.parametrize("end", ["channel", "updates"])
def test_close_from_a_callback(stand_in, end):
    """The loop is at work on the connection then, and closes it itself."""
    channel = Channel(stand_in([reply(5, [5], missed=4)]).url)
    held = []

    def close(_):
        held.append(updates._connection._socket)
        {"channel": channel, "updates": updates}[end].close()

    updates = channel.updates(on_missed=close)
    assert list(updates) == []
    assert held[0].fileno() == -1


def at_every_line(begin):
    """Does what begin() returns, (work, handler, check), with handler() called before each of its lines in turn."""
    source = (str(CLIENT / "src"), threading.__file__)
    nth = lines = 0
    while lines >= nth:
        nth, lines = nth + 1, 0
        work, handler, check = begin()

        def trace(frame, event, _):
            nonlocal lines
            if not frame.f_code.co_filename.startswith(source):
                return None
            if event == "line":
                lines += 1
                if lines == nth:
                    handler()
            return trace

        outcome = []

        def run():
            sys.settrace(trace)
            try:
                outcome.append(work())
            except Exception as error:
                outcome.append(error)
            finally:
                sys.settrace(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(15)
        assert outcome, f"it hangs when the handler is called at its line {nth}"
        if lines >= nth:
            check(*outcome)
    assert nth > 1


def test_a_signals_handler_may_call_close(url):
    """Whatever the thread that it interrupts is about to do."""

    def subscribe():
        channel = Channel(url)

        def check(updates):
            assert updates._connection.stopped

        return channel.updates, channel.close, check

    def wait():
        connection = Channel(url).updates()._connection

        def check(outcome):
            assert isinstance(outcome, Stopped)

        return lambda: connection.wait(0.2), connection.stop, check

    def push():
        channel = Channel(url)

        def check(outcome):
            assert isinstance(outcome, (int, LonglineError)), outcome
            assert all(connection._socket is None for connection in channel._idle)

        return lambda: channel.push([]), channel.close, check

    for begin in (subscribe, wait, push):
        at_every_line(begin)


def stop_async(url, ready, **options):
    """Seconds that a waiting loop takes to end. ready() is called in a thread and returns once it waits."""

    async def run():
        channel = AsyncChannel(url, **options)

        async def loop():
            async for _ in channel.updates():
                pass
            return time.monotonic()

        task = asyncio.ensure_future(loop())
        await asyncio.to_thread(ready)
        asked_at = time.monotonic()
        channel.stop()
        return await task - asked_at

    return asyncio.run(run())


def test_stop_asyncio(server, url, stand_in, tls, silent_url):
    best_of(TRIES, lambda: stop_async(url, lambda: server.wait_for_parked(1)))
    server.wait_for_parked(0)
    over_tls = stand_in([reply(1, [1])], tls=tls[0])
    best_of(TRIES, lambda: stop_async(over_tls.url, over_tls.wait_for_held, context=tls[1]))
    refused = stand_in([refusal(503, Retry_After="60")] * TRIES)
    tries = iter(range(1, TRIES + 1))
    best_of(TRIES, lambda: stop_async(refused.url, lambda: refused.wait_for_requests(next(tries))))
    best_of(TRIES, lambda: stop_async(silent_url, lambda: None))


def test_a_task_that_is_cancelled_loses_nothing(server, url, channel):
    async def run():
        async with AsyncChannel(url) as other:
            updates = other.updates()
            for _ in range(3):
                task = asyncio.ensure_future(updates.__anext__())
                await asyncio.to_thread(server.wait_for_parked, 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(server.wait_for_parked, 0)
            channel.push([1])
            return await updates.__anext__(), updates.ts

    assert asyncio.run(run()) == ([1], 0)


def test_tls(stand_in, tls, push):
    server = stand_in([pushed(1)], tls=tls[0])
    assert push(server.url, [1], context=tls[1]) == 1


def test_a_certificate_that_nobody_vouches_for(stand_in, tls, push):
    server = stand_in([], tls=tls[0])
    with pytest.raises(LonglineError, match="(?i)certificate"):
        push(server.url, [1])
    assert server.requests == []


# --- Ctrl-C ---

PROGRAM = """
import sys
sys.path.insert(0, {source!r})
from longline import Channel
for update in Channel(sys.argv[1]).updates():
    print(update, flush=True)
"""

ASYNCIO_PROGRAM = """
import asyncio, sys
sys.path.insert(0, {source!r})
from longline import AsyncChannel
async def main():
    async for update in AsyncChannel(sys.argv[1]).updates():
        print(update, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [PROGRAM, ASYNCIO_PROGRAM], ids=["sync", "asyncio"])
@pytest.mark.parametrize("state", ["waiting", "backing off"])
def test_ctrl_c_ends_at_once(stand_in, program, state):
    script = [reply(1, [1])] + ([] if state == "waiting" else [refusal(503, Retry_After="60")])
    server = stand_in(script)
    command = [PYTHON, "-B", "-W", "error", "-c", program.format(source=str(CLIENT / "src")), server.url]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        try:
            if state == "waiting":
                server.wait_for_held()
            else:
                assert "the next try is in 60.0 s" in process.stderr.readline()
            asked_at = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=15)
            seconds = time.monotonic() - asked_at
        finally:
            process.kill()
    assert out == "[1]\n"
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert process.returncode == -signal.SIGINT
    assert seconds < 1, seconds


if shutil.which("mypy"):

    def test_types():
        check = subprocess.run(["mypy", "--cache-dir=/dev/null"], cwd=CLIENT, capture_output=True, text=True)
        assert check.returncode == 0, check.stdout
