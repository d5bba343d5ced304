"""What was acknowledged survives: kill -9, a stop, and a start that goes wrong.

ROUNDS says how often the server is killed. script/torture sets it to a thousand.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from http_client import request_bytes
from longline_server import BINARY, PATIENCE_S, SLOW, environment
from swarm import Swarm, push_all

ROUNDS = int(os.environ.get("ROUNDS", 10))
SEED = int(os.environ.get("SEED", 20261124))
KEEP_ALL = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}


class Writers:
    """64 connections that push without pause until the server is killed."""

    def __init__(self, server, channels, rng, count=64):
        self.server = server
        self.rng = rng
        self.acknowledged = {channel: {} for channel in channels}  # channel → id → (writer, n)
        self.next_n = [0] * count
        self.channel_of = [channels[i % len(channels)] for i in range(count)]
        self.open_wires = count

    def push(self, wire, writer):
        self.next_n[writer] += 1
        update = json.dumps({"w": writer, "n": self.next_n[writer]})
        wire.unanswered.append(self.next_n[writer])
        wire.send(request_bytes("POST", self.channel_of[writer], update))

    def run_until_killed(self, after_s, upgrade_after_s=None):
        with Swarm(self.server.address) as swarm:
            for writer in range(len(self.next_n)):
                self.start(swarm, writer)
            if upgrade_after_s is not None:
                swarm.after(upgrade_after_s, lambda: self.server.send_signal(signal.SIGUSR2))
            swarm.after(after_s, self.server.kill9)
            # Replies that left the server before it died are still in the sockets. They count.
            swarm.run(lambda: self.open_wires == 0, 120, "the kill")

    def start(self, swarm, writer):
        def answered(wire, reply):
            assert (reply.status, reply.body) == (200, b"OK"), reply
            known = self.acknowledged[self.channel_of[writer]]
            assert reply.total not in known, f"id {reply.total} was given twice"
            known[reply.total] = (writer, wire.unanswered.pop(0))
            self.push(wire, writer)

        def closed(_wire):
            self.open_wires -= 1

        wire = swarm.open(answered, closed)
        wire.unanswered = []
        for _ in range(self.rng.choice((1, 1, 1, 4))):
            if wire.is_open:
                self.push(wire, writer)


def check_channel(server, channel, acknowledged, ts=0):
    """Everything acknowledged is there under its id, in each writer's order and without a gap.

    Returns the last id.
    """
    updates = server.read_all(channel, ts)
    stored = {id_: (update["w"], update["n"]) for id_, update in updates}
    for id_, update in acknowledged.items():
        assert stored.get(id_) == update, f"{channel}: id {id_} was {update}, now {stored.get(id_)}"
    assert len(set(stored.values())) == len(stored), "an update is stored twice"
    last_n = {}
    for writer, n in stored.values():
        assert n > last_n.get(writer, 0), f"writer {writer}: {n} behind {last_n[writer]}"
        last_n[writer] = n
    return ts + len(updates)


def test_kill_dash_nine_loses_nothing_that_was_acknowledged(start):
    rng = random.Random(SEED)
    server = start(**KEEP_ALL)
    lasting, lasting_total = server.channel(), 0
    acknowledged = 0
    for round_ in range(ROUNDS):
        channels = [lasting] + [server.channel() for _ in range(15)]
        writers = Writers(server, channels, rng)
        writers.run_until_killed(rng.random() * 0.4)
        server.start()
        # Writer numbers start over in each round: a marker in the lasting channel ends the round.
        for channel in channels:
            ts = lasting_total if channel == lasting else 0
            last = check_channel(server, channel, writers.acknowledged[channel], ts)
            assert server.push(channel, '{"w":-1,"n":%d}' % (round_ + 1)) == last + 1, "an id was reused or skipped"
            if channel == lasting:
                lasting_total = last + 1
        acknowledged += sum(map(len, writers.acknowledged.values()))
    print(f"seed {SEED}: {acknowledged} acknowledged in {ROUNDS} rounds")
    assert acknowledged > 64 * ROUNDS / 2


def test_kills_in_a_row_without_a_clean_stop_between(start):
    """A start may be killed too, while it replays the log."""
    server = start(**KEEP_ALL)
    channel = server.channel()
    for i in range(1, 200):
        assert server.push(channel, '{"n":%d}' % i) == i
    for i in range(200, 210):
        server.kill9()
        server.start()
        assert server.push(channel, '{"n":%d}' % i) == i
    assert [u["n"] for _, u in server.read_all(channel)] == list(range(1, 210))


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_clean_stop_keeps_everything(start, sync):
    server = start(SYNC=sync, **KEEP_ALL)
    channels = [server.channel() for _ in range(20)]
    push_all(server.address, [request_bytes("POST", c, b'{"n":%d}' % n) for n in range(50) for c in channels], connections=1)
    server.restart()
    for channel in channels:
        assert server.read_all(channel) == [(n + 1, {"n": n}) for n in range(50)]
        assert server.push(channel) == 51


def test_everything_of_every_format_outlives_a_restart(start):
    server = start()
    channel = server.channel()
    server.push(channel + "?q=1", '{"a": 1.10}')
    server.push(channel, b"\xff\x00", {"Content-Type": "application/octet-stream"})
    server.push(channel, "a=1", {"Content-Type": "application/x-www-form-urlencoded"})
    server.push(channel, "[1]")
    before = server.get(channel).text
    server.kill9()
    server.start()
    assert server.get(channel).text == before
    server.restart()
    assert server.get(channel).text == before


def test_a_poll_of_before_goes_on_after_a_restart(start):
    server = start()
    channel = server.channel()
    server.push(channel, '{"n":1}')
    server.restart()
    with server.client() as client:
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        assert server.push(channel, '{"n":2}') == 2
        assert client.read_reply().updates == [{"n": 2}]


# --- ids ---


def wait_until_swept(server):
    server.wait_for_metric("longline_store_updates", 0)


def test_ids_are_never_reused_even_when_everything_is_deleted(start):
    server = start(DATA_TTL=1)
    channel = server.channel()
    for i in range(1, 6):
        assert server.push(channel) == i
    wait_until_swept(server)
    assert server.get(channel).json() == {"ok": True, "ts": 5, "updates": [], "missed": 5}
    assert server.get(channel + "?ts=5").json() == {"ok": True, "ts": 5, "updates": []}
    assert server.push(channel) == 6
    wait_until_swept(server)
    server.restart()
    assert server.get(channel + "?ts=6").total == 6
    assert server.push(channel) == 7
    wait_until_swept(server)
    server.kill9()
    server.start()
    assert server.get(channel).total == 7
    assert server.push(channel) == 8


def test_ids_go_on_over_many_channels_after_a_kill_right_behind_the_sweep(start):
    server = start(DATA_TTL=1, LOG_LEVEL="info")
    channels = [server.channel() for _ in range(200)]
    for n, channel in enumerate(channels):
        for i in range(n % 3 + 1):
            server.push(channel)
    wait_until_swept(server)
    server.kill9()
    server.start()
    for n, channel in enumerate(channels):
        assert server.push(channel) == n % 3 + 2


# --- restart with much data ---


def make_data(server, channels, updates):
    def requests():
        for n in range(updates):
            for c in range(channels):
                yield request_bytes("POST", f"/restart-{c}", b'{"n":%d}' % n)

    count = 0
    for reply in push_all(server.address, requests(), connections=1 if channels < 10_000 else 32, depth=256, timeout_s=1800):
        assert reply.status == 200
        count += 1
    assert count == channels * updates


def check_data(server, channels, updates):
    rng = random.Random(SEED)
    for c in rng.sample(range(channels), min(channels, 500)):
        reply = server.get(f"/restart-{c}")
        assert reply.total == updates
        assert sorted(u["n"] for u in reply.updates) == list(range(updates))


def first_answer_s(server):
    """Starts the server. Returns how long it took to answer a poll of a channel with updates."""
    began = time.monotonic()
    server.start()
    assert server.get("/restart-7").total > 0
    return time.monotonic() - began


def test_a_restart_with_many_channels_finds_them_all(start):
    channels, updates = 2000, 10
    server = start(LOG_LEVEL="info")
    make_data(server, channels, updates)
    server.kill9()
    server.start()
    check_data(server, channels, updates)
    server.restart()
    check_data(server, channels, updates)
    for c in range(0, channels, 100):
        assert server.push(f"/restart-{c}") == updates + 1


@pytest.mark.torture
def test_a_restart_after_a_million_updates_answers_within_two_seconds(start):
    channels, updates = 100_000, 10
    server = start(LOG_LEVEL="info")
    make_data(server, channels, updates)
    server.kill9()
    after_kill = first_answer_s(server)
    check_data(server, channels, updates)
    server.stop()
    after_stop = first_answer_s(server)
    print(f"first answer {after_kill:.2f} s after kill -9, {after_stop:.2f} s after a stop")
    check_data(server, channels, updates)
    if not SLOW:
        assert after_kill < 2 and after_stop < 2, (after_kill, after_stop)


# --- starts that must fail ---


def failed_start(**settings):
    """A start that must end by itself. Returns its exit code and its lines on stderr."""
    settings = {"LISTEN": "127.0.0.1:0", **settings}
    ended = subprocess.run(
        [BINARY, "serve"], env=environment(settings), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr.splitlines()


def test_one_process_per_data_file(start, tmp_path):
    server = start()
    channel = server.channel()
    server.push(channel)
    link = tmp_path / "link.db"
    link.symlink_to(server.data_path)
    for path in (server.data_path, server.data_path.parent / ".." / server.data_path.parent.name / "longline.db", link):
        code, lines = failed_start(DATA_PATH=path)
        assert code == 1 and "listening" not in "".join(lines)
        assert "in use" in lines[-1], lines
    assert server.push(channel) == 2
    server.restart()
    assert server.push(channel) == 3


def test_a_killed_process_leaves_no_lock(start):
    server = start()
    server.kill9()
    server.start()
    assert server.get("/-/health").status == 200


def set_user_version(path, version):
    with sqlite3.connect(path) as database:
        (before,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version={version}")
    database.close()
    return before


@pytest.mark.parametrize("version", [0, 3, 9999, -1])
def test_an_unknown_schema_version_stops_the_start_and_touches_nothing(start, version):
    server = start()
    channel = server.channel()
    server.push(channel, '{"kept":true}')
    server.stop()
    known = set_user_version(server.data_path, version)
    assert known > 0 and known != version
    code, lines = failed_start(DATA_PATH=server.data_path)
    assert code == 1 and "version" in lines[-1], lines
    assert set_user_version(server.data_path, known) == version
    server.start()
    assert server.get(channel).updates == [{"kept": True}]


def test_a_file_that_is_no_database_stops_the_start_and_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious notes\n" * 1000)
    code, lines = failed_start(DATA_PATH=path)
    assert code == 1 and lines
    assert path.read_text() == "precious notes\n" * 1000


def test_another_programs_database_stops_the_start_and_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE precious (x)")
        database.execute("INSERT INTO precious VALUES (1)")
    database.close()
    code, _ = failed_start(DATA_PATH=path)
    assert code == 1
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]


def test_a_data_path_in_no_directory_stops_the_start(tmp_path):
    code, lines = failed_start(DATA_PATH=tmp_path / "nowhere" / "longline.db")
    assert code == 1 and lines


def test_the_file_is_a_sqlite_database_that_anyone_can_read(start):
    server = start()
    channel = server.channel()
    server.push(channel, '{"a":{"b":[1,2,3]}}')
    server.stop()
    database = sqlite3.connect(server.data_path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    row = database.execute("SELECT ts, json_extract(body, '$.a.b[2]'), method FROM update_log").fetchone()
    assert row == (1, 3, "POST 127.0.0.1")
    name, total = database.execute("SELECT name, total FROM channel").fetchone()
    assert (name if isinstance(name, bytes) else name.encode(), total) == (channel[1:].encode(), 1)


def test_a_copy_of_the_file_and_its_log_taken_at_any_time_is_a_backup(start, tmp_path):
    server = start()
    channel = server.channel()
    for i in range(1, 101):
        server.push(channel, '{"n":%d}' % i)
    server.kill9()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in server.directory.glob("longline.db*"):
        shutil.copy(file, copy)
    server.start()
    other = start(DATA_PATH=copy / "longline.db")
    assert [u["n"] for _, u in other.read_all(channel)] == list(range(1, 101))
