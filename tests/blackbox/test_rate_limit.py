"""The rate limit: which clients it counts, what it answers, and what it leaves alone."""

import pytest

from longline_server import wait_until

# The store has no part in the rate limit.
pytestmark = pytest.mark.providers("sqlite", "memory")


def statuses(server, count, channel, forwarded=None):
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return [server.get(channel, headers).status for _ in range(count)]


@pytest.fixture
def limited(serve):
    """A server that allows each client five requests a minute."""
    return serve(RATE_LIMIT_LIMIT=5, RATE_LIMIT_FRAME=60)


def test_over_the_limit_is_429_with_what_a_client_needs_to_know(limited):
    channel = limited.channel()
    for remaining in (4, 3, 2, 1, 0):
        reply = limited.get(channel)
        assert reply.status == 200
        assert reply.headers["x-ratelimit-limit"] == "5"
        assert reply.headers["x-ratelimit-remaining"] == str(remaining)
        assert "retry-after" not in reply.headers
    for method in ("GET", "POST"):
        reply = limited.request(method, channel)
        assert reply.status == 429 and reply.json()["error_code"] == 429
        assert not reply.closes
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert reply.headers["x-ratelimit-limit"] == "5"
        assert reply.headers["x-ratelimit-remaining"] == "0"
    assert limited.metric("longline_rate_limited_total") == 2


def test_pushes_polls_and_channels_share_one_budget(limited):
    for _ in range(2):
        assert limited.post(limited.channel()).status == 200
        assert limited.get(limited.channel()).status == 200
    assert limited.request("HEAD", limited.channel()).status == 200
    assert limited.post(limited.channel()).status == 429


def test_health_and_metrics_are_not_limited(limited):
    channel = limited.channel()
    assert statuses(limited, 6, channel) == [200] * 5 + [429]
    for _ in range(10):
        assert limited.get("/-/health").status == 200
        assert limited.get("/-/metrics").status == 200


def test_it_is_off_unless_set(serve):
    server = serve()
    channel = server.channel()
    for _ in range(200):
        reply = server.get(channel)
        assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


def test_a_refused_push_is_not_stored(limited):
    channel = limited.channel()
    for _ in range(5):
        limited.push(channel)
    assert limited.post(channel).status == 429
    assert limited.get(channel, {"X-Forwarded-For": "192.0.2.1"}).total == 5


def test_it_works_again_after_the_frame(serve):
    server = serve(RATE_LIMIT_LIMIT=3, RATE_LIMIT_FRAME=1)
    channel = server.channel()
    wait_until(lambda: server.get(channel).status == 429, "the limit")
    wait_until(lambda: server.get(channel).status == 200, "the next frame")


def test_each_client_behind_a_trusted_proxy_has_its_own_budget(limited):
    channel = limited.channel()
    assert statuses(limited, 6, channel, "192.0.2.1") == [200] * 5 + [429]
    assert statuses(limited, 6, channel, "192.0.2.2") == [200] * 5 + [429]
    assert statuses(limited, 6, channel) == [200] * 5 + [429]


def test_the_rightmost_untrusted_address_is_the_client(limited):
    channel = limited.channel()
    assert statuses(limited, 5, channel, "203.0.113.7") == [200] * 5
    for chain in ("203.0.113.7, 10.0.0.1", "6.6.6.6, 203.0.113.7", "6.6.6.6,203.0.113.7 ,192.168.1.1, 127.0.0.1"):
        assert statuses(limited, 1, channel, chain) == [429], chain
    assert statuses(limited, 1, channel, "203.0.113.7, 6.6.6.6") == [200]


def test_a_forged_address_in_front_gives_no_new_budget(limited):
    channel = limited.channel()
    got = [statuses(limited, 1, channel, f"198.51.100.{i}, 203.0.113.9")[0] for i in range(8)]
    assert got == [200] * 5 + [429] * 3


def test_an_untrusted_peer_says_nothing_about_others(serve):
    server = serve(RATE_LIMIT_LIMIT=5, TRUST_PROXY="private")
    channel = server.channel()
    got = [statuses(server, 1, channel, f"192.0.2.{i}")[0] for i in range(7)]
    assert got == [200] * 5 + [429] * 2


def test_ipv6_clients_are_counted_by_their_64(limited):
    channel = limited.channel()
    got = [statuses(limited, 1, channel, f"2001:db8:1:2::{i:x}")[0] for i in range(7)]
    assert got == [200] * 5 + [429] * 2
    assert statuses(limited, 1, channel, "2001:db8:1:3::1") == [200]


@pytest.mark.parametrize("garbage", ["unknown", "999.1.1.1", "", ",,,", "é", "1.2.3.4:x", "a" * 5000])
def test_a_garbage_forwarded_for_never_fails_a_request(limited, garbage):
    channel = limited.channel()
    assert statuses(limited, 6, channel, garbage) == [200] * 5 + [429]


def test_each_proxy_may_add_a_header_of_its_own(limited):
    """The client's forged address stands before those of the proxies, and is ignored."""
    channel = limited.channel()

    def ask(*forwarded):
        lines = "".join(f"X-Forwarded-For: {value}\r\n" for value in forwarded)
        with limited.client() as client:
            client.send(f"GET {channel} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            return client.read_reply().status

    assert [ask(f"198.51.100.{i}", "203.0.113.7", "10.0.0.2") for i in range(6)] == [200] * 5 + [429]
    assert ask("203.0.113.7", "", "10.0.0.2") == 429
    assert ask("203.0.113.8", "10.0.0.2") == 200
    assert ask("203.0.113.7", "unknown", "10.0.0.2") == 200, "10.0.0.2 itself"
