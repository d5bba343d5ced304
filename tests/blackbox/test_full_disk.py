"""A full disk: pushes get 503, nothing acknowledged is lost, and room makes it work again.

ROUNDS says how often it is full at a start. script/torture sets it to a hundred.
"""

import contextlib
import json
import os
import subprocess

import pytest

from longline_server import wait_until

MIB = 1 << 20
ROUNDS = int(os.environ.get("ROUNDS", 3))


def as_root(*command):
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return subprocess.run([*sudo, *command], capture_output=True, text=True)


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of eight mebibytes, or of as many as the test's parameter says."""
    path = tmp_path / "disk"
    path.mkdir()
    size_mib = getattr(request, "param", 8)
    try:
        mounted = as_root("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=777", "tmpfs", path)
    except FileNotFoundError:
        pytest.skip("mounting a small disk needs root or sudo")
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk needs root or `sudo -n`: {mounted.stderr.strip()}")
    yield path
    as_root("umount", "-l", path)


def push(server, channel, n, size=8000):
    return server.post(channel, json.dumps({"n": n, "x": "y" * size}))


def fill_up(server, channel, acknowledged):
    """Pushes until a push is refused. Records the others in `acknowledged`, by id."""
    n = max(acknowledged, default=0)
    while True:
        n += 1
        reply = push(server, channel, n)
        if reply.status != 200:
            return reply
        assert reply.total == n
        acknowledged[n] = n
        assert n < 5000, "the disk never filled up"


def stored(server, channel):
    return {id_: update["n"] for id_, update in server.read_all(channel)}


def test_a_full_disk_refuses_pushes_and_loses_nothing(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MIB))
    server = start(DATA_PATH=small_disk / "longline.db", LOG_LEVEL="info")
    channel, other = server.channel(), server.channel()
    acknowledged = {}

    reply = fill_up(server, channel, acknowledged)
    assert reply.status == 503 and reply.json()["error_code"] == 503
    assert int(reply.headers["retry-after"]) >= 1 and not reply.closes
    assert len(acknowledged) > 20
    wait_until(lambda: server.metric("longline_store_errors_total") >= 1, "the failure to be counted")

    # Polls still work, and nobody has seen what was refused.
    assert stored(server, channel) == acknowledged
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts={len(acknowledged)}&sleep=60")
        server.wait_for_parked(1)
        for _ in range(3):
            assert push(server, channel, 0, size=200_000).status == 503
        assert server.metric("longline_polls_parked") == 1
        assert server.get(channel).total == len(acknowledged)
        assert server.get(other).total == 0

        ballast.unlink()
        reply = wait_until(lambda: (r := push(server, channel, len(acknowledged) + 1)).status == 200 and r, "room")
        assert reply.total == len(acknowledged) + 1
        acknowledged[reply.total] = reply.total
        assert [update["n"] for update in client.read_reply().updates] == [reply.total]

    assert server.push(other) == 1
    assert stored(server, channel) == acknowledged
    server.restart()
    assert stored(server, channel) == acknowledged
    assert server.push(channel, '{"n":0}') == len(acknowledged) + 1


def test_a_batch_on_a_full_disk_is_stored_whole_or_not_at_all(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MIB))
    server = start(DATA_PATH=small_disk / "longline.db", LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=1_000_000)
    channel = server.channel()
    batch = b'{"x":"%s"}\n' % (b"y" * 500) * 1000
    total = 0
    with server.client() as client:
        while (reply := server.post(channel, batch, {"Content-Type": "application/x-ndjson"})).status == 200:
            total += 1000
            assert reply.total == total
        assert reply.status == 503 and total
        assert server.get(f"{channel}?ts=-1").total == total
        client.send_request("GET", f"{channel}?ts={total}&sleep=60")
        server.wait_for_parked(1)
        assert server.post(channel, batch, {"Content-Type": "application/x-ndjson"}).status == 503
        assert server.metric("longline_polls_parked") == 1
        ballast.unlink()
        wait_until(lambda: server.get("/-/health").status == 200, "room")
        assert server.push(channel) == total + 1
        assert client.read_reply().total == total + 1
    server.kill9()
    server.start()
    assert len(server.read_all(channel)) == total + 1


def test_a_kill_on_a_full_disk_loses_nothing_either(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MIB))
    server = start(DATA_PATH=small_disk / "longline.db", LOG_LEVEL="info")
    channel = server.channel()
    acknowledged = {}
    assert fill_up(server, channel, acknowledged).status == 503
    server.kill9()
    ballast.unlink()
    server.start()
    assert stored(server, channel) == acknowledged
    assert server.push(channel, '{"n":0}') == len(acknowledged) + 1


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_bound_well_below_the_disks_size_never_fills_it(start, small_disk):
    server = start(DATA_PATH=small_disk / "longline.db", DATA_MAX_BYTES=4 * MIB, LOG_LEVEL="info")
    channel = server.channel()
    for n in range(1, 3000):
        reply = push(server, channel, n, size=50_000)
        assert reply.status == 200, f"refused after {n}: {reply}"


def fill_to_the_last_byte(disk):
    """A file that takes what is left of the disk."""
    crumbs = disk / "crumbs"
    with contextlib.suppress(OSError), open(crumbs, "wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return crumbs


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_it_starts_on_a_full_disk(start, small_disk, end):
    """Polls are served, pushes refused, and room makes it work again without a restart."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MIB))
    server = start(DATA_PATH=small_disk / "longline.db", LOG_LEVEL="info")
    channel = server.channel()
    acknowledged = {}
    assert fill_up(server, channel, acknowledged).status == 503
    getattr(server, end)()
    fill_to_the_last_byte(small_disk)
    server.start()
    assert stored(server, channel) == acknowledged
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts={len(acknowledged)}&sleep=60")
        server.wait_for_parked(1)
        assert push(server, channel, 0).status == 503
        wait_until(lambda: server.get("/-/health").status == 503, "health to say it")
        health = server.get("/-/health").json()
        assert (health["status"], health["store"]) == ("store failing", "database or disk is full")

        ballast.unlink()
        # Nobody has to push for it to notice.
        wait_until(lambda: server.get("/-/health").status == 200, "room")
        reply = push(server, channel, len(acknowledged) + 1)
        assert (reply.status, reply.total) == (200, len(acknowledged) + 1)
        assert client.read_reply().total == reply.total
        acknowledged[reply.total] = reply.total
    server.restart()
    assert stored(server, channel) == acknowledged


@pytest.mark.parametrize("small_disk", [16], indirect=True)
def test_full_again_and_again(start, small_disk):
    """Any end, any start, with room and without: what was acknowledged is there."""
    server = start(DATA_PATH=small_disk / "longline.db", LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=200)
    channel = server.channel()
    total = refused = 0
    for round_ in range(ROUNDS):
        crumbs = fill_to_the_last_byte(small_disk)
        while (reply := push(server, channel, total + 1)).status == 200:
            total += 1
            assert reply.total == total
        refused += 1
        assert reply.status == 503
        (server.stop if round_ % 2 else server.kill9)()
        server.start()
        assert newest(server, channel, total) == kept(total)
        total += push(server, channel, total + 1).status == 200  # the end may have made some room
        crumbs.unlink()
        wait_until(lambda: server.get("/-/health").status == 200, "room")
        for _ in range(20):
            total += 1
            assert push(server, channel, total).total == total
        if round_ % 3 == 0:
            server.restart()
        assert newest(server, channel, total) == kept(total)
    print(f"{ROUNDS} starts on a full disk, {total} acknowledged, {refused} times refused")


def newest(server, channel, total):
    return [update["n"] for _, update in server.read_all(channel, max(0, total - 200))]


def kept(total):
    return list(range(max(1, total - 199), total + 1))


def test_a_purge_on_a_full_disk(start, small_disk):
    """It is done, or refused and nothing is gone; with room, it overwrites what it said was gone."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MIB))
    server = start(DATA_PATH=small_disk / "longline.db")
    channel, other = server.channel(), server.channel()
    server.post(channel, '{"x":"canary"}')
    acknowledged = {}
    fill_up(server, other, acknowledged)
    (small_disk / "more").write_bytes(b"")
    with contextlib.suppress(OSError), open(small_disk / "more", "ab", buffering=0) as more:
        while True:
            more.write(b"\0" * 4096)
    reply = server.request("DELETE", channel)
    assert reply.status in (200, 503), reply
    kept = 1 if reply.status == 503 else 0
    assert len(server.get(channel).updates) == kept
    server.kill9()
    (small_disk / "more").unlink()
    ballast.unlink()
    server.start()
    assert len(server.get(channel).updates) == kept, "as it was said"
    assert server.request("DELETE", channel).json() == {"ok": True, "gone": 1}
    files = (small_disk / "longline.db", small_disk / "longline.db-wal")
    wait_until(lambda: not any(b"canary" in file.read_bytes() for file in files), "the end of the canary")
    assert stored(server, other) == acknowledged
