"""Redis away, back, slow, full, read-only, loading, flushed, and lines that are cut: nobody hangs, no poll misses, each case has its own words."""

import contextlib
import json
import random
import select
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from http_client import request_bytes
from load import Load, refusal
from longline_server import PATIENCE_S, SLOW, wait_until
from proxy import Proxy
from redis_server import DURABLE, LOADING, NO_ANSWER, OUT_OF_MEMORY, READ_ONLY, UNREACHABLE, free_port
from streams import Stream
from swarm import Swarm
from test_redis import away, check_serves, healthy, log_reasons, names, push_when_it_can, upstream_push

MIB = 1 << 20
KEEP_ALL = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}


@pytest.fixture
def durable(redis_servers):
    """A Redis that keeps what it acknowledges."""
    return redis_servers.start(**DURABLE)


def quickly_refused(server, method, target):
    """The description of the 503, which must come long before a poll's or a request's own time is over."""
    began = time.monotonic()
    told = refusal(server.request(method, target, b"{}" if method == "POST" else None))
    assert time.monotonic() - began < PATIENCE_S
    return told


def park(server, target, count=1):
    parked = int(server.metric("longline_polls_parked"))
    clients = [server.client() for _ in range(count)]
    for client in clients:
        client.send_request("GET", target)
    server.wait_for_parked(parked + count)
    return clients


def is_idle(server, while_s=1):
    """Whether it uses hardly any CPU for a while."""
    before, began = server.cpu_seconds(), time.monotonic()
    select.select([], [], [], while_s)
    return server.cpu_seconds() - before < 0.15 * (time.monotonic() - began)


# --- each error its own words ---


def test_a_dead_redis(durable, start):
    server = start(**durable.settings())
    channel = check_serves(server)
    durable.kill9()
    for _ in range(5):
        assert quickly_refused(server, "POST", channel) in (UNREACHABLE, NO_ANSWER)
    # The first may have been on its way; by now it is clear.
    assert quickly_refused(server, "POST", channel) == UNREACHABLE
    for query in ("", "?ts=1", "?ts=1&sleep=60", "?ts=-1", "?view=full"):
        assert quickly_refused(server, "GET", channel + query) == UNREACHABLE
    assert server.request("HEAD", channel).status == 503
    assert away(server)
    assert server.metric("longline_store_up") == 0
    durable.start()
    assert push_when_it_can(server, channel) == 2
    assert healthy(server)["store"].startswith("redis ")
    assert server.metric("longline_store_up") == 1
    assert server.metric("longline_store_reconnects_total") >= 1


def test_a_redis_that_is_stopped_in_good_order(durable, start):
    server = start(**durable.settings())
    channel = check_serves(server)
    durable.stop()
    away(server)
    assert quickly_refused(server, "POST", channel) == UNREACHABLE
    durable.start()
    assert push_when_it_can(server, channel) == 2
    healthy(server)


def test_a_read_only_redis(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    redis.command("REPLICAOF", "127.0.0.1", free_port())
    for _ in range(3):
        assert quickly_refused(server, "POST", channel) == READ_ONLY
    redis.command("REPLICAOF", "NO", "ONE")
    assert push_when_it_can(server, channel) == 2


def test_a_redis_that_is_loading(redis_servers, start):
    redis = redis_servers.start(rdbcompression="no", loading_process_events_interval_bytes=1024, enable_debug_command="local")
    server = start(**redis.settings())
    channel = check_serves(server)
    redis.command("DEBUG", "POPULATE", 20_000, "filler", 100)
    redis.command("SAVE")
    away_at = len(server.log())
    redis.stop()
    with open(redis.config_path, "a") as config:
        config.write("key-load-delay 5000\n")
    redis.start(ready=False)
    wait_until(lambda: refusal(server.post(channel)) == LOADING, "the refusal that says so")
    assert quickly_refused(server, "POST", channel) == LOADING
    assert "redis away" in server.log()[away_at:]
    assert away(server)["store"]
    redis.command("CONFIG", "SET", "key-load-delay", 0)
    assert push_when_it_can(server, channel) == 2
    healthy(server)


def test_a_redis_without_memory(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    redis.config("maxmemory", 1)
    for _ in range(3):
        assert quickly_refused(server, "POST", channel) == OUT_OF_MEMORY
    assert server.get(channel).updates == [{"n": 1}], "it can be read all the same"
    (client,) = park(server, channel + "?ts=1&sleep=60")
    redis.config("maxmemory", 0)
    assert server.push(channel, '{"n":2}') == 2, "what was refused has no id"
    assert client.read_reply().updates == [{"n": 2}]
    client.close()


@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
def test_a_paused_redis(redis, start, mode):
    server = start(**redis.settings(REDIS_TIMEOUT=2000))
    channel = check_serves(server)
    (client,) = park(server, channel + "?ts=1&sleep=60")
    redis.command("CLIENT", "PAUSE", 6000, mode)
    assert quickly_refused(server, "POST", channel) == NO_ANSWER
    assert server.metric("longline_polls_parked") == 1
    total = push_when_it_can(server, channel)
    # What was not answered in time may have been stored; the poll that waited tells.
    assert 2 <= client.read_reply().ts <= total <= 3
    client.close()


def test_a_frozen_redis(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    with redis.frozen():
        assert quickly_refused(server, "POST", channel) == NO_ANSWER
        for method in ("POST", "GET") * 3:
            assert quickly_refused(server, method, channel) in (NO_ANSWER, UNREACHABLE)
        away(server)
    assert push_when_it_can(server, channel) >= 2
    healthy(server)


def test_a_frozen_redis_is_noticed_by_itself(redis, start):
    """Nobody pushes, nobody polls."""
    server = start(**redis.settings())
    healthy(server)
    with redis.frozen():
        away(server)
    healthy(server)


@pytest.mark.timed
def test_redis_timeout_is_a_deadline(redis, start):
    server = start(**redis.settings(REDIS_TIMEOUT=900))
    channel = server.channel()
    push_when_it_can(server, channel)
    with redis.frozen():
        began = time.monotonic()
        assert refusal(server.post(channel)) in (NO_ANSWER, UNREACHABLE)
        assert 0.8 <= time.monotonic() - began < (PATIENCE_S if SLOW else 1)


def test_a_port_where_something_else_listens(start, tmp_path):
    """Another longline: it answers, but not as a Redis."""
    other = start(DATA_PROVIDER="memory")
    server = start(DATA_PROVIDER="redis", REDIS_PORT=other.port)
    away(server)
    assert quickly_refused(server, "POST", server.channel()) == UNREACHABLE
    assert is_idle(server)


def test_a_host_that_does_not_exist(start):
    server = start(DATA_PROVIDER="redis", REDIS_HOST="no-such-host.invalid")
    away(server)
    assert quickly_refused(server, "POST", server.channel()) == UNREACHABLE
    assert server.get("/-/metrics").status == 200


def test_a_redis_that_is_away_at_the_start(redis_servers, start):
    redis = redis_servers.add()
    server = start(**redis.settings())
    channel = server.channel()
    assert away(server)
    assert quickly_refused(server, "POST", channel) == quickly_refused(server, "GET", channel + "?sleep=60") == UNREACHABLE
    assert log_reasons(server, "warn +redis away")
    assert "redis ready" not in server.log()
    redis.start()
    assert push_when_it_can(server, channel) == 1
    healthy(server)
    assert "redis ready" in server.log()
    check_serves(server)


def test_a_key_of_another_kind_harms_no_one_else(redis, start):
    server = start(**redis.settings())
    broken = server.channel()
    redis.command("SET", names(broken)[2], "this is no list")
    assert server.post(broken).status in (500, 503)
    assert server.get(broken).status in (500, 503)
    check_serves(server)


# --- the log ---


def test_an_outage_is_one_line_for_each_of_its_reasons(durable, start):
    server = start(**durable.settings())
    channel = check_serves(server)
    durable.kill9()
    for _ in range(10):
        assert server.post(channel).status == 503
    away(server)
    assert is_idle(server), "it tries again and again"
    reasons = log_reasons(server, "warn +redis away")
    assert 1 <= len(reasons) == len(set(reasons)) <= 3, reasons
    durable.start()
    push_when_it_can(server, channel)
    healthy(server)
    assert server.log().count("redis ready") == 2


# --- parked polls ---


def test_parked_polls_stay_until_their_deadline_and_then_are_answered_empty(durable, start):
    server = start(**durable.settings())
    channel = check_serves(server)
    long = park(server, channel + "?ts=1&sleep=60", 20)
    short, began = server.client(), time.monotonic()
    short.send_request("GET", channel + "?ts=1&sleep=2.5")
    wait_until(lambda: server.metric("longline_polls_parked") == 21 or time.monotonic() > began + 2.5, "the poll")
    durable.kill9()
    away(server)
    assert server.metric("longline_polls_parked") in (20, 21)
    reply = short.read_reply()
    assert time.monotonic() - began >= 2.5
    assert reply.json() == {"ok": True, "ts": 1, "updates": []}
    assert server.metric("longline_polls_parked") == 20
    durable.start()
    push_when_it_can(server, channel, '{"n":2}')
    for client in long:
        assert client.read_reply().updates[0] == {"n": 2}
        client.close()
    short.close()


def test_what_was_pushed_elsewhere_during_the_outage_wakes_the_polls(durable, start):
    """The line of one server fails; the other goes on."""
    with Proxy(durable.address) as proxy:
        far, near = start(**proxy.settings()), start(**durable.settings())
        channels = [near.channel() for _ in range(10)]
        far.channels |= near.channels
        healthy(far)
        clients = [client for channel in channels for client in park(far, channel + "?sleep=60", 3)]
        for line in proxy.open_lines():
            line.stall()
        away(far)
        for channel in channels:
            near.push(channel, '{"n":1}')
        for line in proxy.open_lines():
            line.cut()
        for client in clients:
            assert client.read_reply().updates == [{"n": 1}]
            client.close()


def test_streams_live_through_an_outage(durable, start):
    """With heartbeats, and they get what comes at once."""
    server = start(**durable.settings())
    healthy(server)
    channel = server.channel()
    with Stream(server, channel + "?feed=sse") as whole, Stream(server, channel + "?feed=sse&where=body.n:*") as some:
        durable.kill9()
        assert [stream.next().comments for _ in range(3) for stream in (whole, some)][2:] == [[""]] * 4
        durable.start()
        push_when_it_can(server, channel, '{"n":1}')
        assert whole.update().json() == some.update().json() == {"n": 1}


def test_a_stop_while_redis_is_frozen(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    clients = park(server, channel + "?ts=1&sleep=60", 10)
    with redis.frozen(), server.client() as pusher:
        pusher.send(request_bytes("POST", channel, b"{}"))
        server.stop()
        for client in clients:
            reply = client.read_reply()
            assert reply.json() == {"ok": True, "ts": 1, "updates": []} and reply.closes
            client.close()


def test_a_stop_while_redis_is_away(start):
    server = start(DATA_PROVIDER="redis", REDIS_PORT=free_port())
    away(server)
    server.stop()


# --- what an outage costs ---


def test_an_outage_costs_neither_cpu_nor_memory(redis, start):
    """Polls wait, pushes with a big body come and are refused, over and over; the server stays as it is."""
    server = start(LOG_LEVEL="info", BUFFER_SIZE=16, **redis.settings())
    channel = check_serves(server)
    waiting = park(server, channel + "?ts=1&sleep=60", 200)
    body = json.dumps({"x": "y" * (MIB - 100)})
    refused = 0

    def answered(wire, reply):
        nonlocal refused
        assert reply.status == 503, reply
        refused += 1
        wire.send(request_bytes("POST", channel, body))

    def push_big_ones(count):
        with Swarm(server.address) as swarm:
            for _ in range(40):
                swarm.open(answered).send(request_bytes("POST", channel, body))
            wanted = refused + count
            swarm.run(lambda: refused >= wanted, 120, "the refusals")

    with redis.frozen():
        push_big_ones(200)
        first = server.rss_bytes()
        push_big_ones(400)
        assert server.metric("longline_buffer_bytes") <= 18 * MIB
        assert SLOW or server.rss_bytes() - first <= 16 * MIB
        server.wait_for_metric("longline_connections", 201)
        away(server)
        assert is_idle(server), "it spins"
        assert server.metric("longline_polls_parked") == 200
        descriptors = server.descriptor_count()
        assert is_idle(server)
        assert server.descriptor_count() <= descriptors + 4, "each attempt leaves something"
    total = push_when_it_can(server, channel)
    for client in waiting:
        reply = client.read_reply()
        assert 2 <= reply.ts <= total
        client.close()


def test_a_dead_redis_is_not_asked_without_pause(start):
    port = free_port()
    server = start(DATA_PROVIDER="redis", REDIS_PORT=port)
    away(server)
    assert is_idle(server)
    descriptors = server.descriptor_count()
    assert is_idle(server)
    assert server.descriptor_count() <= descriptors + 4


def test_attempts_come_ever_less_often(start):
    """Somebody takes every connection and closes it."""
    attempts = 0

    def close_them():
        nonlocal attempts
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()
                attempts += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=close_them, daemon=True).start()
        server = start(DATA_PROVIDER="redis", REDIS_PORT=listener.getsockname()[1])
        away(server)
        assert is_idle(server, 3)
        wait_until(lambda: attempts >= 3, "three attempts")
        before, began = attempts, time.monotonic()
        assert is_idle(server)
        assert attempts - before <= 9 * (time.monotonic() - began), f"{attempts - before} in a second"
        listener.shutdown(socket.SHUT_RDWR)


# --- killed under load ---


def test_redis_killed_under_load_loses_nothing_and_leaves_no_poll_asleep(durable, start):
    servers = [start(**KEEP_ALL, **durable.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    with Load(servers) as load:
        for _ in range(3):
            load.run_for(pushes=300)
            durable.kill9()
            load.run_until_refused()
            durable.start()
            load.run_for(pushes=300)
        load.settle()
        assert load.lost() == []
    print(load)


@pytest.mark.torture
def test_redis_killed_a_hundred_times_loses_nothing(durable, start):
    servers = [start(**KEEP_ALL, **durable.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    with Load(servers, channels=8, publishers=48) as load:
        for _ in range(100):
            load.run_for(pushes=load.rng.randint(1, 500))
            durable.kill9()
            load.during(durable.start)
        load.settle()
        assert load.lost() == []
    print(load)


def test_redis_frozen_and_paused_under_load(durable, start):
    servers = [start(**KEEP_ALL, **durable.settings(REDIS_TIMEOUT=300)) for _ in range(2)]
    for server in servers:
        healthy(server)
    with Load(servers) as load:
        for _ in range(2):
            load.run_for(pushes=200)
            with durable.frozen():
                load.run_until_refused()
            load.run_for(pushes=200)
            durable.command("CLIENT", "PAUSE", 3000, "ALL")
            load.run_until_refused()
        load.run_for(pushes=200)
        load.settle()
        assert load.lost() == []
    print(load)


def test_a_longline_killed_under_load_loses_nothing(durable, start):
    lasting, killed = (start(**KEEP_ALL, **durable.settings()) for _ in range(2))
    healthy(lasting), healthy(killed)
    channel = lasting.channel()
    killed.channels |= lasting.channels
    acknowledged = {}

    with Load([lasting], channels=[channel], publishers=4) as load:
        gone = 0

        def closed(_wire):
            nonlocal gone
            gone += 1

        for writer in range(16):

            def answered(wire, reply, writer=writer):
                assert reply.status == 200, reply
                acknowledged[reply.total] = (100 + writer, wire.n)
                push(wire, writer)

            def push(wire, writer):
                wire.n += 1
                wire.send(request_bytes("POST", channel, json.dumps({"p": 100 + writer, "n": wire.n})))

            wire = load.swarm.open(answered, closed, killed.address)
            wire.n = 0
            push(wire, writer)
        load.run(lambda: len(acknowledged) > 200)
        killed.kill9()
        load.run(lambda: gone == 16)
        load.settle()
        assert load.lost() == []
        stored = {id_: (u["p"], u["n"]) for id_, u in lasting.read_all(channel)}
        assert {id_: stored[id_] for id_ in acknowledged} == acknowledged


# --- lines that are cut ---


def test_the_news_line_cut_alone_while_pushes_go_on(redis, start):
    """Every push is answered, and every poll sees it, however often the subscriptions are lost."""
    servers = [start(**KEEP_ALL, **redis.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    with Load(servers, channels=8) as load:
        cuts = 0
        while cuts < 12:
            cuts += redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            load.run_for(pushes=25)
        load.settle()
        assert load.lost() == []
    assert not [what for what in load.refused if what.startswith("push")], f"pushes have a line of their own: {load}"
    print(cuts, load)


def test_the_news_line_cut_right_before_one_push(redis, start):
    first, second = start(**redis.settings()), start(**redis.settings())
    channel = first.channel()
    second.channels |= first.channels
    healthy(first)
    for i in range(1, 11):
        (client,) = park(second, f"{channel}?ts={i - 1}&sleep=60")
        assert redis.command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        assert first.push(channel, '{"n":%d}' % i) == i
        assert client.read_reply().updates == [{"n": i}]
        client.close()


def test_the_command_lines_cut_while_pushes_go_on(durable, start):
    servers = [start(**KEEP_ALL, **durable.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    with Load(servers) as load:
        for _ in range(12):
            durable.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            load.run_for(pushes=25)
        load.settle()
        assert load.lost() == []
    print(load)


def test_all_lines_cut_at_random(durable, start):
    """The first hop of one server loses connections in the midst of whatever they carry."""
    with Proxy(durable.address) as proxy:
        servers = [start(**KEEP_ALL, **proxy.settings()), start(**KEEP_ALL, **durable.settings())]
        for server in servers:
            healthy(server)
        with Load(servers, publishers=32) as load:
            for _ in range(40):
                load.run_for(pushes=30)
                if lines := proxy.open_lines():
                    load.rng.choice(lines).cut()
            load.settle()
            assert load.lost() == []
        print(load)


@pytest.mark.parametrize("delay_s,news_delay_s", [(0, 0.03), (0.03, 0), (0.01, 0.03)])
def test_news_and_answers_that_overtake_each_other(redis, start, delay_s, news_delay_s):
    """One of the servers has a slow line; pushes of upstream's leave holes in its news, which it has to read."""
    rng = random.Random(5)
    with Proxy(redis.address, delay_s, news_delay_s) as proxy:
        far, near = start(**KEEP_ALL, **proxy.settings()), start(**KEEP_ALL, **redis.settings())
        healthy(far), healthy(near)
        with Load([far, near], channels=3, publishers=12, followers=8) as load:
            for i in range(60):
                load.run_for(pushes=20)
                upstream_push(redis, rng.choice(load.channels), '{"p":-1,"n":%d}' % i, max_updates=1_000_000)
            load.settle()
            assert load.lost() == []
        print(load)


@pytest.mark.parametrize("subscribed", [True, False], ids=["news", "commands"])
def test_a_line_that_fails_silently_is_given_up(durable, start, subscribed):
    """As when a firewall forgets a connection: nothing is closed, nothing passes. The other lines are well."""
    with Proxy(durable.address) as proxy:
        far, near = start(**proxy.settings()), start(**durable.settings())
        channel = near.channel()
        far.channels |= near.channels
        healthy(far)
        (client,) = park(far, channel + "?sleep=60")
        stalled = proxy.open_lines(subscribed)
        assert stalled
        for line in stalled:
            line.stall()
        near.push(channel, '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]
        assert push_when_it_can(far, channel) >= 2
        client.close()


def test_news_too_big_for_redis_to_hold_are_read(redis, start):
    """client-output-buffer-limit: Redis closes the line of whoever does not take the news fast enough."""
    redis.config("client-output-buffer-limit", "pubsub 65536 65536 0")
    first, second = start(MAX_BODY=4 * MIB, **redis.settings()), start(MAX_BODY=4 * MIB, **redis.settings())
    channel = first.channel()
    second.channels |= first.channels
    body = json.dumps({"x": "y" * (3 * MIB)})
    for i in range(1, 4):
        clients = park(second, f"{channel}?ts={i - 1}&sleep=60", 3)
        assert first.push(channel, body) == i
        for client in clients:
            assert client.read_reply().ts == i
            client.close()


def test_idle_lines_that_redis_closes_are_no_outage(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    redis.config("timeout", 1)
    wait_until(lambda: int(redis.info("clients")["connected_clients"]) > 0 and is_idle(server, 2.5), "a quiet time")
    assert server.push(channel, '{"n":2}') == 2
    assert server.get(channel + "?ts=1").updates == [{"n": 2}]


def test_more_clients_than_redis_takes(redis, start):
    server = start(**redis.settings())
    channel = check_serves(server)
    redis.config("maxclients", 1)
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: server.post(channel).status == 503, "a refusal")
    assert is_idle(server)
    redis.config("maxclients", 1000)
    healthy(server)
    assert push_when_it_can(server, channel) == 2


# --- reset ---


def test_a_flush_is_said_to_those_who_wait_when_the_next_update_comes(redis, start):
    servers = [start(**redis.settings()) for _ in range(2)]
    channel = servers[0].channel()
    servers[1].channels |= servers[0].channels
    for _ in range(5):
        servers[0].push(channel)
    clients = [client for server in servers for client in park(server, channel + "?ts=5&sleep=60", 3)]
    redis.command("FLUSHALL")
    assert servers[0].push(channel, '{"n":1}') == 1
    for client in clients:
        answer = client.read_reply().json()
        assert answer == {"ok": True, "ts": answer["ts"], "updates": [], "reset": True} and answer["ts"] in (0, 1), answer
        client.close()
    for server in servers:
        assert server.get(channel).updates == [{"n": 1}]


@pytest.mark.parametrize("sleep", ["", "&sleep=60"])
@pytest.mark.parametrize("others_wait", [False, True], ids=["alone", "others wait"])
def test_a_flush_is_said_at_once_to_whoever_asks(redis, start, sleep, others_wait):
    server = start(**redis.settings())
    channel = server.channel()
    for _ in range(5):
        server.push(channel)
    clients = park(server, channel + "?ts=5&sleep=60", 3) if others_wait else []
    redis.command("FLUSHALL")
    assert server.get(f"{channel}?ts=5{sleep}").json() == {"ok": True, "ts": 0, "updates": [], "reset": True}
    for client in clients:
        client.close()


def test_a_redis_that_comes_back_empty_resets_the_polls(redis, start):
    server = start(**redis.settings())
    ahead, at_zero = server.channel(), server.channel()
    for _ in range(5):
        server.push(ahead)
    reset = park(server, ahead + "?ts=5&sleep=60", 3)
    (waiting,) = park(server, at_zero + "?sleep=60")
    redis.kill9()
    redis.start()
    for client in reset:
        assert client.read_reply().json() == {"ok": True, "ts": 0, "updates": [], "reset": True}
        client.close()
    assert server.metric("longline_polls_parked") == 1
    server.push(at_zero, '{"n":1}')
    assert waiting.read_reply().updates == [{"n": 1}]
    waiting.close()


def test_a_redis_that_comes_back_older_resets_the_polls(redis, start):
    """It had saved three of five."""
    server = start(**redis.settings())
    channel = server.channel()
    for n in range(1, 4):
        server.push(channel, '{"n":%d}' % n)
    redis.command("SAVE")
    for n in (4, 5):
        server.push(channel, '{"n":%d}' % n)
    at_five, = park(server, channel + "?ts=5&sleep=60")
    redis.kill9()
    redis.start()
    assert at_five.read_reply().json() == {"ok": True, "ts": 3, "updates": [], "reset": True}
    assert [u["n"] for u in server.get(channel).updates] == [1, 2, 3]
    assert server.push(channel, '{"n":"4 again"}') == 4
    assert server.get(channel + "?ts=3").updates == [{"n": "4 again"}], "nothing of what is gone is told"
    at_five.close()


def test_the_suite_notices_a_lost_update_and_a_sleeping_poll(redis, start):
    server = start(**KEEP_ALL, **redis.settings())
    healthy(server)
    with Load([server], channels=1, publishers=2) as load:
        load.run_for(pushes=20)
        load.settle()
        channel = load.channels[0]
        assert load.lost() == []
        redis.command("LSET", names(channel)[2], 3, '{"p":9,"n":9}')
        assert [id_ for _, id_, _ in load.lost()] == [4]
        load.followers.append(SimpleNamespace(channel=channel, ts=19))
        load.run = lambda until, what, timeout_s=0: Load.run(load, until, what, 0.2)
        with pytest.raises(AssertionError, match="1 of 6"):
            load.settle()
