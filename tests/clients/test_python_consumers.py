"""The Python client: where a loop starts, what it wants, consumers with names, lost data, several channels."""

import datetime
import json
import threading

import pytest
from python_client import Consumer, LonglineError, take
from standin import refusal, reply


def push_when_parked(server, channel, update):
    server.wait_for_parked(1)
    channel.push(update)

# --- where a loop starts, and what it wants ---


def test_now(half, stand_in):
    """Where that is is asked without a wait, so that nothing is lost between two polls."""
    server = stand_in([refusal(503), reply(40, epoch="aa"), {"delay_ms": 600, "close": True}, reply(41, [41])])
    got, loop = half.take(server.url, 1, ts="now", backoff=0.001)
    assert (got, loop.ts, loop.epoch) == ([[41]], 40, "aa")
    queries = [(request.query["ts"], "sleep" in request.query) for request in server.requests]
    assert queries == [("now", False), ("now", False), ("40", True), ("40", True)]


def test_a_cut_poll_for_the_last_ones_loses_none(half, stand_in):
    server = stand_in([reply(0, epoch="0"), {"delay_ms": 600, "close": True}, reply(3, [1], [2], [3])])
    assert half.take(server.url, 3, ts=-2, backoff=0.001)[0] == [[1], [2], [3]]
    queries = [(request.query["ts"], "sleep" in request.query) for request in server.requests]
    assert queries == [("-2", False), ("0", True), ("0", True)]


def test_now_is_behind_what_is_there(half, server, url, channel):
    channel.push([1])
    script = threading.Thread(target=push_when_parked, args=(server, channel, [2]), daemon=True)
    script.start()
    assert half.take(url, 1, ts="now")[0] == [[2]]
    script.join()


def test_since(half, url, channel):
    channel.push([1])
    for since in ("1h", datetime.timedelta(hours=1), datetime.datetime.now() - datetime.timedelta(hours=1), 0):
        assert half.take(url, 1, since=since)[0] == [[1]]


def test_conditions(half, url, channel):
    for n in range(1, 11):
        channel.push({"n": n, "kind": "even" if n % 2 == 0 else "odd", "third": n % 3 == 0})
    got, loop = half.take(url, 5, where="body.kind:even")
    assert [update["n"] for update in got] == [2, 4, 6, 8, 10]
    assert loop.ts == 8, "the last one is not handled yet"
    both = ["body.kind:even", "!body.third:true"]
    got, loop = half.take(url, 4, call="entries", where=both)
    assert [(entry.ts, entry.update["n"], entry.at) for entry in got] == [(n, n, None) for n in (2, 4, 8, 10)]
    assert got[0].text == '{"n":2,"kind":"even","third":false}'
    got, _ = half.take(url, 1, call="entries", where=both, full=True, ts=4)
    assert (got[0].ts, got[0].method) == (8, "POST")
    with pytest.raises(LonglineError, match="400 where"):
        half.take(url, 1, where="nonsense")


def test_a_loop_that_is_taken_up_again_at_its_ts_misses_none(url, channel):
    """With conditions too, at whatever update it was left; nor does it repeat one."""
    for n in range(1, 31):
        channel.push({"n": n, "third": n % 3 == 0})
    wanted = list(range(3, 31, 3))
    for handled in range(len(wanted)):
        updates = channel.updates(where="body.third:true")
        first = [update["n"] for update in take(updates, handled + 1)]
        rest = channel.updates(where="body.third:true", ts=updates.ts)
        again = [update["n"] for update in take(rest, len(wanted) - handled)]
        assert first[:-1] == wanted[:handled]
        assert first[:-1] + again == wanted

# --- consumers with names ---


def test_a_consumer_with_a_name(half, url, channel):
    for n in range(1, 6):
        channel.push([n])
    name = "bot é&1"
    got, loop = half.take(url, 4, name=name, limit=2)
    assert (got, loop.lag) == ([[1], [2], [3], [4]], 3), "the second poll has confirmed the first page"
    got, loop = half.take(url, 3, name=name, limit=2)
    assert (got, loop.lag) == ([[3], [4], [5]], 1)
    (consumer,) = half.call(url, "consumers")
    assert isinstance(consumer, Consumer)
    assert (consumer.name, consumer.ts, consumer.lag) == (name, 4, 1)
    assert abs(consumer.at / 1000 - datetime.datetime.now().timestamp()) < 300
    assert half.call(url, "forget_consumer", name) is None
    assert half.call(url, "forget_consumer", "nobody") is None
    assert half.call(url, "consumers") == []
    assert half.take(url, 1, name=name)[0] == [[1]]
    assert half.take(url, 1)[1].lag is None


def test_consumers_that_cannot_be_told(half, stand_in, refused_url):
    with pytest.raises(LonglineError):
        half.call(refused_url, "consumers")
    for answer, status in ((refusal(404), 404), ({"reply": {"text": "<html>"}}, 200), (reply(1, [1]), 200)):
        with pytest.raises(LonglineError) as caught:
            half.call(stand_in([answer]).url, "consumers")
        assert caught.value.status == status
    with pytest.raises(LonglineError, match="503 Down"):
        half.call(stand_in([refusal(503, "Down")]).url, "forget_consumer", "bot")

# --- lost data ---


def test_a_server_that_has_lost_its_data(half, start_server):
    """Also where its counter has passed what was seen: nothing of the new data is missed."""
    server = start_server()
    channel = server.channel()
    for n in range(3):
        server.push(channel, b'{"old":%d}' % n)
    _, loop = half.take(server.url(channel), 3)
    assert len(loop.epoch) == 16
    server.stop()
    for path in server.directory.glob("longline.db*"):
        path.unlink()
    server.start()
    for n in range(5):
        server.push(channel, b'{"new":%d}' % n)
    resets = []
    got, again = half.take(server.url(channel), 5, ts=3, epoch=loop.epoch, on_reset=resets.append)
    assert [update["new"] for update in got] == [0, 1, 2, 3, 4]
    assert resets == [0] and again.epoch not in ("", loop.epoch)

# --- several channels ---


def channels_reply(**channels):
    return {"reply": {"json": {"ok": True, "channels": channels}}}


def one(ts, *updates, **fields):
    return {"ts": ts, **fields, "updates": list(updates)}


def whole(ts, update):
    """An update with its request, as conditions need it."""
    return {"ts": ts, "at": 0, "method": "POST", "query": "", "headers": {}, "raw": json.dumps(update), "body": update}


def asked(request):
    return json.loads(request.body)


def test_the_polls_of_several_channels(half, stand_in):
    server = stand_in([
        channels_reply(
            a=one(2, whole(1, [1]), whole(2, [2]), epoch="aa"), **{"b é": one(7, whole(7, [7]), epoch="bb", missed=6)}
        ),
        channels_reply(),
        channels_reply(a=one(0, epoch="ff", reset=True)),
        channels_reply(a=one(5, whole(5, [5]), epoch="ff", skipped=4)),
    ])  # fmt: skip
    told = []
    got, loop = half.take(
        f"http://127.0.0.1:{server.port}/prefix/",
        4,
        many=True,
        ts={"a": 0, "b é": 0},
        where="body.x:*",
        backoff=0.001,
        on_missed=lambda name, count: told.append(("missed", name, count)),
        on_reset=lambda name, ts: told.append(("reset", name, ts)),
    )
    assert got == [("a", [1]), ("a", [2]), ("b é", [7]), ("a", [5])]
    assert told == [("missed", "b é", 6), ("reset", "a", 0)]
    assert (loop.ts, loop.epochs) == ({"a": 0, "b é": 7}, {"a": "ff", "b é": "bb"})
    first = server.requests[0]
    assert (first.method, first.path, first.headers["content-type"]) == ("POST", "/prefix/-/poll", "application/json")
    assert first.query == {"sleep": "25", "limit": "100", "view": "full", "where": "body.x:*", "epoch": ""}
    places = [{"a": 0, "b é": 0}, *[{"a": {"ts": 2, "epoch": "aa"}, "b é": {"ts": 7, "epoch": "bb"}}] * 2]
    assert [asked(request) for request in server.requests[:3]] == places
    assert asked(server.requests[3]) == {"a": {"ts": 0, "epoch": "ff"}, "b é": {"ts": 7, "epoch": "bb"}}


def test_now_of_several_channels(half, stand_in):
    """Where that is is asked without a wait."""
    found = {"a/b": one(41, epoch="aa"), "/c": one(7)}
    server = stand_in([refusal(503), channels_reply(**found), channels_reply(a=one(42, [42]))])
    url = f"http://127.0.0.1:{server.port}"
    got, _ = half.take(url, 1, many=True, ts={"a/b": "now", "/c": "now", "a": 9}, backoff=0.001, epochs={"a": "99"})
    assert got == [("a", [42])]
    a = {"ts": 9, "epoch": "99"}
    assert [asked(request) for request in server.requests] == [
        *[{"a/b": "now", "/c": "now", "a": a}] * 2, {"a/b": {"ts": 41, "epoch": "aa"}, "/c": 7, "a": a}
    ]  # fmt: skip
    assert ["sleep" in request.query for request in server.requests] == [False, False, True]


def test_the_last_ones_of_several_channels(half, stand_in):
    """They are asked for without a wait: on a channel without any, a poll that is cut would lose what comes."""
    server = stand_in([channels_reply(a=one(0)), channels_reply(a=one(9, [9]))])
    half.take(f"http://127.0.0.1:{server.port}", 1, many=True, ts={"a": -5, "b": 3}, backoff=0.001)
    assert [asked(request) for request in server.requests] == [{"a": -5, "b": 3}, {"a": 0, "b": 3}]
    assert ["sleep" in request.query for request in server.requests] == [False, True]


def test_errors_of_several_channels(half, stand_in):
    error = {"error_code": 503, "error_description": "Down"}
    server = stand_in([channels_reply(a=error), channels_reply(a=error, b=one(1, [1])), refusal(400, "A body")])
    errors = []
    url = f"http://127.0.0.1:{server.port}"
    assert half.take(url, 1, many=True, ts={"a": 0, "b": 0}, backoff=0.001, on_error=errors.append)[0] == [("b", [1])]
    assert [(error.status, error.description, error.channel) for error in errors] == [(503, "Down", "a")] * 2
    with pytest.raises(LonglineError, match="400 A body"):
        half.take(url, 1, many=True, ts={"a": 0})
    with pytest.raises(ValueError):
        half.take(url, 1, many=True, ts={})


def test_several_channels(half, server):
    names = [server.channel()[1:] for _ in range(3)]
    for n, name in enumerate(names):
        server.push(f"/{name}", b'{"n":%d}' % n)
    url = server.url("/")
    got, loop = half.take(url, 2, many=True, call="entries", ts={names[0]: 0, names[1]: -1, names[2]: "now"})
    assert sorted((name, entry.text) for name, entry in got) == sorted((names[n], '{"n":%d}' % n) for n in (0, 1))
    server.push(f"/{names[2]}", b'{"n":9}')
    got, _ = half.take(url, 1, many=True, ts={**loop.ts, names[0]: 1, names[1]: 1}, epochs=loop.epochs)
    assert got == [(names[2], {"n": 9})]
