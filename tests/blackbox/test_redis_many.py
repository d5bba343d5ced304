"""POST /-/poll over Redis: what one channel's error, an outage and another server mean for the others."""

from longline_server import wait_until
from test_many import MANY, SIXTY_FOUR, ask, body_of, ns, numbers, send, told


def spoil(redis, channel):
    """No push or poll of this channel can succeed any more."""
    (name,) = [key for key in redis.keys() if key.startswith("lpolling:total:") and channel[1:] in key]
    redis.command("DEL", name)
    redis.command("LPUSH", name, "x")


def test_the_error_of_one_channel_is_its_own(redis, start):
    server = start(**redis.settings())
    good, bad, new = (server.channel() for _ in range(3))
    for channel in (good, bad):
        numbers(server, channel, 1)
    server.stop()
    spoil(redis, bad)
    server.start()
    error = server.get(bad).json()
    assert error.pop("ok") is False and error["error_code"] == 503
    assert ask(server, {bad: 0, good: 0, new: 0}) == {bad: error, good: {"ts": 1, "updates": [{"n": 1}]}}
    wait_until(lambda: ask(server, {bad: 0, good: 1}, "sleep=0.3") == {bad: error}, "the error")
    with server.client() as client:
        send(client, {bad: 0, good: 1, new: 0}, "sleep=60")
        server.wait_for_parked(2)  # it ends no wait
        numbers(server, new, 2)
        reply = told(client.read_reply())
    assert reply.pop(new) == {"ts": 1, "updates": [{"n": 2}]}
    assert reply in ({bad: error}, {})  # it is read after a pause, since it failed before: perhaps too late for this reply
    reply = server.post(f"{MANY}?sleep=60", body_of({bad: 0}))
    assert reply.status == 503 and reply.json() == {"ok": False, **error} and reply.headers["retry-after"] == "1"


def test_parked_through_an_outage(redis_servers, start):
    redis = redis_servers.start()
    server = start(**redis.settings())
    asked = [server.channel() for _ in range(10)]
    with server.client() as client:
        send(client, dict.fromkeys(asked, 0), "sleep=60")
        server.wait_for_parked(10)
        redis.restart()
        wait_until(lambda: server.post(asked[3], '{"n":4}').status == 200, "Redis")
        assert ns(told(client.read_reply())[asked[3]])[0] == 4
    server.wait_for_parked(0)


def test_all_channels_fail_when_redis_is_away(redis_servers, start):
    redis = redis_servers.start()
    server = start(**redis.settings(REDIS_TIMEOUT=2000))
    redis.kill9()
    reply = server.post(f"{MANY}?sleep=60", body_of({server.channel(): 0 for _ in range(5)}))
    assert reply.status == 503 and "Redis" in reply.json()["error_description"]
    redis.start()


def test_news_of_another_server(redis, start):
    one, other = start(**redis.settings()), start(**redis.settings())
    asked = [one.channel() for _ in range(SIXTY_FOUR)]
    other.channels |= one.channels
    with one.client() as client:
        send(client, dict.fromkeys(asked, 0), "sleep=60")
        one.wait_for_parked(SIXTY_FOUR)
        numbers(other, asked[40], 1)
        assert told(client.read_reply()) == {asked[40]: {"ts": 1, "updates": [{"n": 1}]}}
