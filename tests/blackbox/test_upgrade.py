"""A data file of the first version, which had no checksums: it is upgraded in place, whenever it is killed."""

import os
import random
import secrets
import sqlite3
import time

import pytest

from longline_server import wait_until

FIRST_VERSION = """
CREATE TABLE channel (
  id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, total INTEGER NOT NULL,
  head INTEGER NOT NULL, mark INTEGER NOT NULL, last_at INTEGER NOT NULL);
CREATE TABLE update_log (
  seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL, ts INTEGER NOT NULL, prev INTEGER NOT NULL,
  skip INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, name BLOB, body TEXT NOT NULL,
  raw, method TEXT NOT NULL, query TEXT NOT NULL, headers TEXT);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 0x6c6f6e67;
PRAGMA user_version = 1;
"""
SKIP = 128
KILLS = int(os.environ.get("ROUNDS", 10))


def write_old_file(path, names, updates, at_ms, step_ms=1, jump_ms=0):
    """`updates` of each of the channels. The last tenth is not in the rows of `channel` yet, as after a kill.

    Halfway the clock is set by `jump_ms`.
    """
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA page_size = 8192")
        database.execute("PRAGMA journal_mode = wal")
        database.executescript(FIRST_VERSION)
        heads, marks = [0] * len(names), [0] * len(names)
        checkpoint, seq = 0, 0
        for ts in range(1, updates + 1):
            at_ms += jump_ms if ts == updates // 2 else 0
            for index, name in enumerate(names):
                seq += 1
                at_ms += step_ms
                body = '{"n":%d,"x":"%s"}' % (ts, "x" * (ts * 7 % 900))
                row = (seq, index + 1, ts, heads[index], marks[index], at_ms, len(body), name if ts == 1 else None, body)
                database.execute("INSERT INTO update_log VALUES (?,?,?,?,?,?,?,?,?,NULL,'POST','',NULL)", row)
                heads[index] = seq
                if ts % SKIP == 0:
                    marks[index] = seq
                if ts <= updates * 9 // 10:
                    checkpoint = seq
                    channel = (index + 1, name, ts, seq, marks[index], at_ms)
                    database.execute("INSERT OR REPLACE INTO channel VALUES (?,?,?,?,?,?)", channel)
        counts = {"checkpoint": checkpoint, "last_channel": len(names), "channel_max": 1000, "counted_seq": checkpoint}
        for key, value in {**counts, "rows": checkpoint, "excess": 0}.items():
            database.execute("INSERT INTO meta VALUES (?,?)", (key, value))
    database.close()


YEAR_MS = 365 * 86_400_000


def now_ms():
    return int(time.time() * 1000)


@pytest.fixture
def names():
    return [secrets.token_urlsafe(16).encode() for _ in range(3)]


def check_all(server, names, updates, pushed=0):
    for name in names:
        channel = "/" + name.decode()
        server.channels.add(name.decode())
        assert [update["n"] for _, update in server.read_all(channel)] == list(range(1, updates + pushed + 1))


def test_everything_is_there_and_goes_on(start, tmp_path, names):
    path = tmp_path / "longline.db"
    write_old_file(path, names, 300, now_ms())
    server = start(DATA_PATH=path, LOG_LEVEL="info")
    check_all(server, names, 300)
    assert "the data file is upgraded" in server.log()
    for name in names:
        assert server.push("/" + name.decode(), '{"n":301}') == 301
    server.restart()
    check_all(server, names, 301)
    assert server.log().count("the data file is upgraded") == 1
    server.kill9()
    server.start()
    check_all(server, names, 301)
    assert server.metric("longline_store_updates") == 903


def test_killed_while_it_is_upgraded(start, tmp_path, names):
    path = tmp_path / "longline.db"
    write_old_file(path, names, 300, now_ms())
    server = start(LOG_LEVEL="info")  # of another file: it shows how to start one
    server.stop()
    server.settings["DATA_PATH"] = server.data_path = path
    chance = random.Random(secrets.token_bytes(8))
    for _ in range(KILLS):
        server.launch()
        # Any moment of the upgrade, and some before and after it: no condition to wait for.
        time.sleep(chance.random() * 0.3)
        server.kill9()
    server.start()
    check_all(server, names, 300)
    assert server.metric("longline_store_updates") == 900


def test_a_clock_that_ran_ahead_keeps_nothing_for_ever_and_deletes_nothing(start, tmp_path, names):
    """The first version aged by the wall clock, which may have been a year ahead for some pushes."""
    path = tmp_path / "longline.db"
    write_old_file(path, names, 50, now_ms() + YEAR_MS, jump_ms=-YEAR_MS)
    server = start(DATA_PATH=path, LOG_LEVEL="info", DATA_TTL=3)
    check_all(server, names, 50)
    server.wait_for_metric("longline_store_updates", 0)
    wait_until(lambda: server.get("/" + names[0].decode()).updates == [], "the updates to be too old")


def test_a_clock_that_was_a_year_behind_deletes_nothing(start, tmp_path, names):
    path = tmp_path / "longline.db"
    write_old_file(path, names, 50, now_ms() - YEAR_MS, jump_ms=YEAR_MS)
    check_all(start(DATA_PATH=path, LOG_LEVEL="info", DATA_TTL=3 * 86_400), names, 50)


def test_the_oldest_are_still_the_oldest(start, tmp_path, names):
    """An hour lies between two updates: all but the last ten are past a bound of ten hours."""
    path = tmp_path / "longline.db"
    write_old_file(path, names[:1], 30, now_ms() - 30 * 3_600_000, 3_600_000)
    server = start(DATA_PATH=path, LOG_LEVEL="info", DATA_TTL=36_000 + 1800)
    page = server.get("/" + names[0].decode()).json()
    server.channels.add(names[0].decode())
    assert [update["n"] for update in page["updates"]] == list(range(20, 31))
    assert page["missed"] == 19
