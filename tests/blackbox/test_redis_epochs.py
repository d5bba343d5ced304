"""Epochs over Redis: one for all servers, another one for another life of a channel's counter, and the same one wherever the counter goes."""

import pytest

from longline_server import wait_until
from test_redis import all_names, healthy, names, push_when_it_can, upstream_push
from test_redis_cluster import channels_by_node, cluster, lasting_cluster, node_of, share_channels, slot_of  # noqa: F401
from test_redis_sentinel import sentinels  # noqa: F401


def poll(server, channel, **query):
    return server.get(channel + "?" + "&".join(f"{name}={value}" for name, value in query.items())).json()


def two_servers(redis, start, **more):
    servers = [start(**redis.settings(**more)) for _ in range(2)]
    for server in servers:
        healthy(server)
    channel = servers[0].channel()
    share_channels(servers)
    return *servers, channel


def lose_all(redis, channel):
    redis.command("FLUSHALL")


def lose_the_counter(redis, channel):
    redis.command("DEL", names(channel)[1])


def expire(redis, channel):
    for name in all_names(channel):
        redis.command("PEXPIRE", name, 1)
    wait_until(lambda: not redis.command("EXISTS", *all_names(channel)), "the keys to expire")


def test_all_servers_say_the_same(redis, start):
    a, b, channel = two_servers(redis, start)
    assert poll(a, channel, epoch="") == {"ok": True, "ts": 0, "epoch": "0", "updates": []}
    a.push(channel, '{"n":1}')
    epoch = redis.command("GET", all_names(channel)[0])
    for server in (a, b):
        assert poll(server, channel, epoch="") == {"ok": True, "ts": 1, "epoch": epoch, "updates": [{"n": 1}]}
        assert poll(server, channel, epoch=epoch, ts=1) == {"ok": True, "ts": 1, "epoch": epoch, "updates": []}
    with b.client() as client:
        client.send_request("GET", f"{channel}?ts=1&sleep=60&epoch={epoch}")
        b.wait_for_parked(1)
        a.push(channel, '{"n":2}')
        assert client.read_reply().json() == {"ok": True, "ts": 2, "epoch": epoch, "updates": [{"n": 2}]}


def without_an_epoch(redis, start, count):
    """A channel whose data are of an older longline, or of lua-long-polling."""
    server = start(**redis.settings())
    healthy(server)
    channel = server.channel()
    for n in range(count):
        server.push(channel, f'{{"n":{n}}}')
    redis.command("DEL", all_names(channel)[0])
    return server, channel


def test_a_poll_of_older_data_reads_once_and_waits(redis, start):
    server, channel = without_an_epoch(redis, start, 5)
    assert server.get(f"{channel}?ts=5&sleep=0.1").updates == []
    epoch = poll(server, channel, ts=0, epoch="")["epoch"]
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts=5&sleep=60&epoch={epoch}")
        server.wait_for_parked(1)
        redis.command("CONFIG", "RESETSTAT")
        server.push(channel, "{}")
        assert client.read_reply().total == 6
        assert redis.calls()["evalsha"] == 1


def test_who_asks_for_no_epoch_is_not_reset_by_another(redis, start):
    server, channel = without_an_epoch(redis, start, 5)
    with server.client() as plain:
        plain.send_request("GET", f"{channel}?ts=5&sleep=60")
        server.wait_for_parked(1)
        for _ in range(2):
            redis.command("DEL", all_names(channel)[0])
            epoch = poll(server, channel, ts=0, epoch="")["epoch"]
            with server.client() as asks:
                asks.send_request("GET", f"{channel}?ts=5&sleep=60&epoch={epoch}")
                server.wait_for_parked(2)
            server.wait_for_parked(1)
        server.push(channel, "{}")
        assert plain.read_reply().json() == {"ok": True, "ts": 6, "updates": [{}]}


@pytest.mark.parametrize("lose", [lose_all, lose_the_counter, expire])
def test_lost_data_is_said_although_the_counter_has_passed_again(redis, start, lose):
    a, b, channel = two_servers(redis, start)
    for n in range(3):
        a.push(channel, f'{{"n":{n}}}')
    epoch = poll(a, channel, epoch="")["epoch"]
    lose(redis, channel)
    for n in range(3, 8):
        b.push(channel, f'{{"n":{n}}}')
    for server in (a, b, start(**redis.settings())):
        reset = poll(server, channel, ts=3, epoch=epoch, sleep=60)
        assert reset == {"ok": True, "ts": 0, "epoch": reset["epoch"], "reset": True, "updates": []}
        assert reset["epoch"] not in (epoch, "0")
        again = poll(server, channel, ts=0, epoch=reset["epoch"])
        assert again == {"ok": True, "ts": 5, "epoch": reset["epoch"], "updates": [{"n": n} for n in range(3, 8)]}


def test_who_waits_learns_of_another_life(redis, start):
    a, b, channel = two_servers(redis, start)
    for _ in range(3):
        a.push(channel)
    epoch = poll(b, channel, epoch="")["epoch"]
    with b.client() as client:
        client.send_request("GET", f"{channel}?ts=3&sleep=60&epoch={epoch}")
        b.wait_for_parked(1)
        redis.command("FLUSHALL")
        a.push(channel, '{"n":1}')
        reply = client.read_reply().json()
        assert reply["reset"] and reply["epoch"] == redis.command("GET", all_names(channel)[0])
        assert poll(b, channel, ts=0, epoch=reply["epoch"])["updates"] == [{"n": 1}]


def test_upstreams_channels_have_an_epoch_as_soon_as_somebody_asks(redis, start):
    a, b, channel = two_servers(redis, start)
    upstream_push(redis, channel, '{"n":1}')
    assert a.get(channel).json() == {"ok": True, "ts": 1, "updates": [{"n": 1}]}
    assert not redis.command("EXISTS", all_names(channel)[0])
    epoch = poll(a, channel, epoch="")["epoch"]
    upstream_push(redis, channel, '{"n":2}')
    assert poll(b, channel, ts=1, epoch=epoch) == {"ok": True, "ts": 2, "epoch": epoch, "updates": [{"n": 2}]}


@pytest.mark.parametrize("keys_at_a_time", [1, 100])
def test_a_slot_that_moves_resets_nobody(cluster, start, keys_at_a_time):  # noqa: F811
    a, b = (start(**cluster.settings(i)) for i in range(2))
    for server in (a, b):
        healthy(server)
    channel = a.channel()
    share_channels((a, b))
    for n in range(5):
        a.push(channel, f'{{"n":{n}}}')
    epoch, seen = poll(a, channel, epoch="")["epoch"], set()
    slot = slot_of(cluster, channel)
    for _ in range(2):
        target = next(node for node in cluster.masters if node is not node_of(cluster, channel))
        for _step in cluster.moving(slot, target, keys_at_a_time):
            for server in (a, b, start(**cluster.settings())):
                reply = server.get(f"{channel}?ts=1&epoch={epoch}")
                seen.add(reply.json().get("epoch") if reply.status == 200 else None)
                assert reply.status == 503 or reply.updates == [{"n": n} for n in range(1, 5)]
        wait_until(lambda: a.get(f"{channel}?ts=1&epoch={epoch}").status == 200, "the slot to have arrived")
        assert poll(b, channel, ts=1, epoch=epoch)["epoch"] == epoch
    assert seen <= {epoch, None}
    assert push_when_it_can(a, channel) == 6


def test_another_master_has_the_same_epoch(sentinels, start):  # noqa: F811
    server = start(**sentinels.settings(REDIS_WAIT="2:5000"))
    healthy(server)
    channel = server.channel()
    assert push_when_it_can(server, channel) == 1
    epoch = poll(server, channel, epoch="")["epoch"]
    old = sentinels.master
    old.kill9()
    sentinels.wait_for_failover(old)
    reply = wait_until(lambda: (r := server.get(f"{channel}?ts=1&epoch={epoch}")).status == 200 and r, "a reply").json()
    assert reply == {"ok": True, "ts": 1, "epoch": epoch, "updates": []}
