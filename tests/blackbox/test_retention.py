"""What is kept and for how long, and that the file stops growing."""

import json
import time

import pytest

from http_client import request_bytes
from longline_server import wait_until
from swarm import push_all

MIB = 1 << 20


def numbers(reply):
    return [update["n"] for update in reply.updates]


def push_numbers(server, channel, first, last, padding=0):
    filler = ',"x":"%s"' % ("x" * padding) if padding else ""
    for n in range(first, last + 1):
        assert server.push(channel, '{"n":%d%s}' % (n, filler)) == n


# --- count ---


def test_at_most_channel_storage_maxsize_updates_are_kept(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=10)
    channel, other = server.channel(), server.channel()
    push_numbers(server, other, 1, 10)
    push_numbers(server, channel, 1, 35)
    reply = server.get(channel)
    assert numbers(reply) == list(range(26, 36)) and reply.json()["missed"] == 25
    assert "missed" not in server.get(other).json()


# Redis forgets at once, without a sweeper (test_redis.py checks its lists).
@pytest.mark.providers("sqlite", "memory")
def test_the_store_lets_go_of_what_is_past_the_count(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=10, LOG_LEVEL="info")
    channels = [server.channel() for _ in range(5)]
    for channel in channels:
        push_numbers(server, channel, 1, 60)
    wait_until(lambda: server.metric("longline_store_swept_total") >= 5 * 50, "the sweeper")
    assert server.metric("longline_store_updates") == 5 * 10
    for channel in channels:
        assert numbers(server.get(channel)) == list(range(51, 61))


def test_one_update_a_channel_can_be_kept(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=1)
    channel = server.channel()
    push_numbers(server, channel, 1, 5)
    assert numbers(server.get(channel)) == [5]
    assert numbers(server.get(channel + "?ts=4")) == [5]
    with server.client() as client:
        client.send_request("GET", channel + "?ts=5&sleep=60")
        server.wait_for_parked(1)
        push_numbers(server, channel, 6, 6)
        assert numbers(client.read_reply()) == [6]


def test_a_smaller_count_counts_from_the_next_start(start):
    server = start()
    channel = server.channel()
    push_numbers(server, channel, 1, 50)
    server.stop()
    server.settings["CHANNEL_STORAGE_MAXSIZE"] = 5
    server.start()
    reply = server.get(channel)
    assert numbers(reply) == [46, 47, 48, 49, 50] and reply.json()["missed"] == 45


# --- age ---


def wait_until_forgotten(server, provider, channel):
    """Waits until the channel's updates are too old, and no longer stored either."""
    wait_until(lambda: server.get(channel).updates == [], "the updates to be too old")
    if provider != "redis":  # which cannot count what all its servers keep
        server.wait_for_metric("longline_store_updates", 0)


def test_updates_older_than_data_ttl_are_gone(serve, provider):
    server = serve(DATA_TTL=1)
    channel = server.channel()
    began = time.monotonic()
    push_numbers(server, channel, 1, 3)
    assert numbers(server.get(channel)) == [1, 2, 3] or time.monotonic() - began > 1
    wait_until_forgotten(server, provider, channel)
    assert server.get(channel).json() == {"ok": True, "ts": 3, "updates": [], "missed": 3}
    if provider != "redis":
        assert server.metric("longline_store_swept_total") == 3
    began = time.monotonic()
    push_numbers(server, channel, 4, 4)
    page = server.get(channel + "?ts=1").json()
    assert page == {"ok": True, "ts": 4, "updates": [{"n": 4}], "missed": 2} or time.monotonic() - began > 1


def test_a_poll_waits_at_the_head_of_a_channel_whose_updates_are_gone(serve, provider):
    server = serve(DATA_TTL=1)
    channel = server.channel()
    push_numbers(server, channel, 1, 2)
    wait_until_forgotten(server, provider, channel)
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2&sleep=60")
        server.wait_for_parked(1)
        push_numbers(server, channel, 3, 3)
        assert numbers(client.read_reply()) == [3]


def test_upstreams_name_for_the_ttl_is_accepted(start):
    server = start(REDIS_DATA_TTL=1)
    channel = server.channel()
    server.push(channel)
    wait_until(lambda: server.get(channel).json().get("missed") == 1, "the update to be too old")


# --- bytes ---


# A Redis has its own limit, maxmemory.
@pytest.mark.providers("sqlite", "memory")
def test_over_data_max_bytes_the_oldest_go_and_nothing_is_refused(serve):
    server = serve(DATA_MAX_BYTES=MIB, LOG_LEVEL="info")
    first, last = server.channel(), server.channel()
    push_numbers(server, first, 1, 150, padding=8000)
    push_numbers(server, last, 1, 150, padding=8000)
    wait_until(lambda: server.metric("longline_store_swept_total") >= 150, "the sweeper")
    wait_until(lambda: server.metric("longline_store_bytes") <= MIB, "the sweeper")
    assert numbers(server.get(last + "?ts=149")) == [150]
    if server.data_path.exists():
        server.restart()  # what is still in memory may be read, although it is no longer stored
        gone = server.get(first)
        assert gone.updates == [] and gone.json()["missed"] == 150
        kept = server.get(last)
        assert 30 <= 150 - kept.json()["missed"] <= 140
    push_numbers(server, first, 151, 151)
    assert numbers(server.get(first + "?ts=150")) == [151]


# The log is copied into the database at 64 MiB at the latest, between two commits.
WAL_MAX_BYTES = 72 * MIB


@pytest.mark.parametrize("bound", [{"CHANNEL_STORAGE_MAXSIZE": 20}, {"DATA_MAX_BYTES": 2 * MIB}], ids=["count", "bytes"])
def test_the_file_stops_growing_under_a_steady_load(start, bound):
    server = start(LOG_LEVEL="info", SYNC="never", **bound)
    channels = [server.channel() for _ in range(50)]
    body = json.dumps({"x": "y" * 900})
    sizes = []
    for _ in range(60):
        requests = [request_bytes("POST", channel, body) for _ in range(20) for channel in channels]
        replies = push_all(server.address, requests, connections=4)
        assert {reply.status for reply in replies} == {200}
        sizes.append(server.data_path.stat().st_size)
        wal = server.data_path.with_name(server.data_path.name + "-wal")
        assert wal.stat().st_size < WAL_MAX_BYTES
    # It grows until the first sweep. Then only the sweeper's lag counts: 1 MiB a round, of 60.
    third = len(sizes) // 3
    assert max(sizes[2 * third :]) <= 1.3 * max(sizes[third : 2 * third]) + 2 * MIB, f"it grows: {sizes}"
    for channel in channels:
        assert server.get(channel + "?ts=-1").updates == [json.loads(body)]
