"""The write-ahead log while somebody reads the file: it is synced all the same, and shrinks afterwards."""

import errno
import json
import sqlite3

import pytest

from faults import Faults
from longline_server import wait_until

MIB = 1 << 20


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


class Reader:
    """Holds on to a moment of the file, as the documented backup does."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("BEGIN")
        self.db.execute("SELECT 1 FROM channel LIMIT 1").fetchall()

    def end(self):
        self.db.close()


def wal_bytes(server):
    return server.data_path.with_name(server.data_path.name + "-wal").stat().st_size


# --- syncing ---


def test_an_interval_syncs_while_somebody_reads(start, faults):
    server = start(SYNC="interval", **faults.settings())
    channel = server.channel()
    server.push(channel)
    reader = Reader(server.data_path)
    for _ in range(3):
        server.push(channel)
        syncs = faults["syncs"]
        wait_until(lambda syncs=syncs: faults["syncs"] > syncs, "a sync behind the push")
    reader.end()


def test_an_interval_that_cannot_sync_says_so(start, faults):
    server = start(SYNC="interval", **faults.settings())
    channel = server.channel()
    assert server.get("/-/health").status == 200
    faults["sync_error"] = errno.EIO
    assert server.push(channel) == 1
    wait_until(lambda: server.get("/-/health").status == 503, "the failed sync")
    assert server.push(channel) == 2
    assert server.get("/-/health").status == 503, "a push that is not synced makes nothing well"
    assert 'doing="sync of the write-ahead log"' in server.log()
    faults["sync_error"] = 0
    wait_until(lambda: server.get("/-/health").status == 200, "the next sync")


# --- size ---


def push_mib(server, channel, count):
    body = json.dumps({"x": "y" * (MIB - 100)})
    for _ in range(count):
        server.push(channel, body)


@pytest.mark.parametrize("bound_mib, settings", [(64, {}), (4, {"DATA_MAX_BYTES": 16 * MIB})], ids=["64", "quarter"])
def test_it_shrinks_when_the_reader_is_gone(start, bound_mib, settings):
    server = start(SYNC="never", LOG_LEVEL="info", **settings)
    channel = server.channel()
    server.push(channel)
    reader = Reader(server.data_path)
    push_mib(server, channel, bound_mib + 16)
    assert wal_bytes(server) > (bound_mib + 16) * MIB
    reader.end()

    def has_shrunk():
        server.push(channel)
        return wal_bytes(server) <= (bound_mib + 2) * MIB

    wait_until(has_shrunk, "the log to be cut")
