"""The Python client: pushing."""

import asyncio
import threading

import pytest
from python_client import AsyncChannel, Channel, LonglineError, push_batch_async, push_batch_sync, take
from standin import pushed, refusal, reply


def test_push_returns_the_ts(push, url, server):
    assert [push(url, {"n": n}) for n in (1, 2)] == [1, 2]
    assert push(url, ["naïve ✓ 😀", 9007199254740993, None]) == 3
    assert push(url, {"half": "\ud83d"}) == 4
    with Channel(url) as channel:
        texts = [entry.text for entry in take(channel.entries(), 4)]
    assert texts == ['{"n":1}', '{"n":2}', '["naïve ✓ 😀",9007199254740993,null]', '{"half":"\\ufffd"}']


def test_push_takes_the_query_of_the_address_along(push, url, channel):
    push(f"{url}?appname=my bot", {"a": 1})
    assert next(channel.updates()) == {"a": 1, "appname": "my bot"}


def test_poll_works_with_a_query_in_the_address(url, channel):
    channel.push([1])
    with Channel(f"{url}?appname=x") as other:
        assert next(other.updates()) == [1]


def test_push_that_the_server_refuses(push, start_server):
    with pytest.raises(LonglineError) as caught:
        push(start_server(STRICT_JSON="on").url("/channel"), nested(201))
    assert (caught.value.status, caught.value.retry_after) == (400, None)
    assert "200 levels" in caught.value.description
    assert str(caught.value) == f"400 {caught.value.description}"


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_what_is_no_update_is_refused_before_anything_is_sent(push, stand_in):
    server = stand_in([])
    for update in ("x", "", "{}", 3, None, True, 1.5):
        with pytest.raises(TypeError, match="an object or an array"):
            push(server.url, update)
        with pytest.raises(TypeError, match="an object or an array"):
            push_batch_sync(server.url, [{}, update])
    assert server.requests == []


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
            # Its reply must not be taken for the reply to the next push.
            return await channel.push([2])

    # The first reply comes late, on a connection that is no longer used.
    server = stand_in([{**pushed(1), "delay_ms": 200}, pushed(2)])
    assert asyncio.run(run()) == 2


both_batches = pytest.mark.parametrize(
    "push_batch", [push_batch_sync, lambda *a: asyncio.run(push_batch_async(*a))], ids=["sync", "asyncio"]
)


@both_batches
def test_batches(push_batch, url, channel):
    channel.push({"n": 0})
    assert push_batch(f"{url}?q=1", ({"n": n, "text": "two\nlines é \ud83d"} for n in range(1, 301))) == 301
    assert push_batch(url, [[1]]) == 302
    entries = take(channel.entries(), 302)
    assert [entry.ts for entry in entries] == list(range(1, 303))
    assert entries[300].update == {"n": 300, "text": "two\nlines é \ufffd", "q": "1"}
    with pytest.raises(LonglineError, match="400 A batch needs a line"):
        push_batch(url, [])
    assert channel.push({}) == 303


@both_batches
def test_a_batch_that_the_server_refuses(push_batch, start_server):
    with pytest.raises(LonglineError, match="400 Line 2: .*200 levels"):
        push_batch(start_server(STRICT_JSON="on").url("/channel"), [{}, nested(201), {}])


@both_batches
def test_a_batch_that_the_server_takes_for_one_update(push_batch, stand_in):
    three = {"headers": {"X-Total-Updates": "3", "X-Updates": "3"}}
    server = stand_in([pushed(1), pushed(3, **three), pushed(3, **three)])
    with pytest.raises(LonglineError) as caught:
        push_batch(server.url, [{}, {}])
    assert caught.value.status == 200
    assert caught.value.description == "the server does not know batches; it has stored the text as one update"
    with pytest.raises(LonglineError, match="200 the server has stored 3 updates, not 2"):
        push_batch(server.url, [{}, {}])
    assert push_batch(server.url, [{}, {}, {}]) == 3


REDIRECTS = [("https://lp.example.com/Secret", ", at https://lp.example.com"), ("/Secret", "")]


@pytest.mark.parametrize("location, where", REDIRECTS)
def test_redirects_are_not_followed(push, stand_in, location, where):
    """A push raises, and a loop asks the same address again: a login page passes."""
    redirect = {"reply": {"status": 301, "headers": {"Location": location}, "text": "<html>Moved"}}
    server = stand_in([redirect, redirect, reply(1, [1])])
    errors = []
    with pytest.raises(LonglineError) as caught:
        push(server.url, {})
    with Channel(server.url) as channel:
        assert next(channel.updates(on_error=errors.append, backoff=0.001)) == [1]
    for error in [caught.value, *errors]:
        assert error.status == 301
        assert error.description.endswith(f"not followed, give the address that it leads to{where}")
    assert [request.method for request in server.requests] == ["POST", "GET", "GET"]


def test_tls(stand_in, tls, push):
    server = stand_in([pushed(1)], tls=tls[0])
    assert push(server.url, [1], context=tls[1]) == 1


def test_a_certificate_that_nobody_vouches_for(stand_in, tls, push):
    server = stand_in([], tls=tls[0])
    with pytest.raises(LonglineError, match="(?i)certificate"):
        push(server.url, [1])
    assert server.requests == []
