"""A data file that is lost, replaced or put back: whoever has seen more learns it, and nobody else.

ROUNDS says how often the server is killed or stopped. script/torture sets it to a thousand.
"""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess

import pytest

from longline_server import BINARY, SANITIZER_REPORT

ROUNDS = int(os.environ.get("ROUNDS", 15))


def ask(server, channel, ts, epoch):
    return server.get(f"{channel}?ts={ts}&epoch={epoch}").json()


def epoch_of(server, channel):
    return ask(server, channel, 0, "")["epoch"]


def push(server, channel, count):
    for _ in range(count):
        last = server.push(channel)
    return last


def check_goes_on(server, channel, ts, epoch):
    reply = ask(server, channel, ts, epoch)
    assert "reset" not in reply and "missed" not in reply, reply
    return reply["epoch"]


def check_reset(server, channel, ts, epoch, to):
    reply = ask(server, channel, ts, epoch)
    assert reply == {"ok": True, "ts": to, "epoch": reply["epoch"], "reset": True, "updates": []}
    assert reply["epoch"] != epoch
    return reply["epoch"]


def data_files(server):
    return server.directory.glob("longline.db*")


def put_back(server, copy):
    """The whole directory, its lock file among it."""
    for path in data_files(server):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy2(path, server.directory)


def keep(server, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in data_files(server):
        shutil.copy2(path, copy)
    return copy


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_stop_and_a_start_change_nothing(start, sync):
    server = start(SYNC=sync)
    channel, other = server.channel(), server.channel()
    push(server, channel, 3)
    push(server, other, 3)
    epoch = epoch_of(server, channel)
    assert int(epoch, 16) and epoch != epoch_of(server, other)
    for _ in range(3):
        server.restart()
        assert check_goes_on(server, channel, 3, epoch) == epoch
        push(server, other, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_starts_that_fail_change_nothing(start, count):
    """The last of its ports is taken, again and again."""
    taken = start()
    server = start()
    channel = server.channel()
    push(server, channel, 3)
    epoch = epoch_of(server, channel)
    server.stop()
    listen = ",".join(["127.0.0.1:0", taken.addresses[0]][-count:])
    for _ in range(3):
        ended = subprocess.run(
            [BINARY, "serve", "--listen", listen, "--data-path", server.data_path], capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 1 and f"cannot listen on {taken.addresses[0]}" in ended.stderr, ended
        assert not SANITIZER_REPORT.search(ended.stderr), ended
    server.start()
    assert check_goes_on(server, channel, 3, epoch) == epoch
    with contextlib.closing(sqlite3.connect(server.data_path)) as database:
        assert database.execute("SELECT count(*) FROM epoch").fetchone() == (1,)


def test_a_kill_loses_nothing_and_resets_nobody(start):
    """A consumer that lives through kills, restarts and pushes; it sees each update once."""
    server = start(CHANNEL_STORAGE_MAXSIZE=1_000_000)
    channel, rng = server.channel(), random.Random(14)
    ts, epoch, seen, pushed = 0, "", [], 0
    for _ in range(ROUNDS):
        for _ in range(rng.randrange(10)):
            pushed += 1
            server.push(channel, '{"n":%d}' % pushed)
        server.kill9() if rng.randrange(3) else server.stop()
        server.start()
        reply = ask(server, channel, ts, epoch)
        assert "reset" not in reply, reply
        ts, epoch = reply["ts"], reply["epoch"]
        seen += [update["n"] for update in reply["updates"]]
    assert seen == list(range(1, pushed + 1))


def test_a_file_that_is_gone(start):
    server = start()
    channel = server.channel()
    push(server, channel, 3)
    epoch = epoch_of(server, channel)
    server.stop()
    for path in data_files(server):
        path.unlink()
    server.start()
    assert ask(server, channel, 3, epoch) == {"ok": True, "ts": 0, "epoch": "0", "reset": True, "updates": []}
    push(server, channel, 5)
    check_reset(server, channel, 3, epoch, 0)
    assert ask(server, channel, 0, epoch_of(server, channel))["ts"] == 5


def test_memory_is_lost_with_the_process(start):
    server = start(DATA_PROVIDER="memory")
    channel = server.channel()
    push(server, channel, 3)
    epoch = epoch_of(server, channel)
    server.restart()
    push(server, channel, 5)
    check_reset(server, channel, 3, epoch, 0)


def by_cp(server, copy):
    """In place: the file keeps its inode."""
    for name in ("longline.db-wal", "longline.db-shm"):
        (server.directory / name).unlink(missing_ok=True)
    subprocess.run(["cp", copy / "longline.db", server.directory / "longline.db"], check=True)


def by_cp_with_times(server, copy):
    by_cp(server, copy)
    shutil.copystat(copy / "longline.db", server.directory / "longline.db")


def by_restore(server, copy):
    subprocess.run(["sqlite3", server.directory / "longline.db", f".restore {copy}/longline.db"], check=True)


@pytest.mark.parametrize("restore", [by_cp, by_cp_with_times, by_restore, put_back])
def test_a_backup_of_a_stopped_server(start, tmp_path, restore):
    server = start()
    channel = server.channel()
    push(server, channel, 3)
    server.stop()
    copy = keep(server, tmp_path)
    server.start()
    old = epoch_of(server, channel)
    push(server, channel, 4)
    for _ in range(2):
        server.stop()
        restore(server, copy)
        server.start()
        check_goes_on(server, channel, 3, old)
        check_reset(server, channel, 4, old, 3)
        push(server, channel, 10)
        new = check_reset(server, channel, 4, old, 3)
        check_goes_on(server, channel, 13, new)
    server.restart()
    assert check_goes_on(server, channel, 13, new) == new


def test_a_copy_of_a_running_servers_directory(start, tmp_path):
    """What a snapshot of the disk holds. No stop leaves a stamp in it."""
    server = start()
    channel = server.channel()
    push(server, channel, 3)
    server.restart()
    old = epoch_of(server, channel)
    copy = keep(server, tmp_path)
    push(server, channel, 4)
    server.kill9()
    put_back(server, copy)
    server.start()
    push(server, channel, 10)
    check_goes_on(server, channel, 3, old)
    check_reset(server, channel, 4, old, 3)


@pytest.mark.parametrize("table, what", [("consumer", "a consumer's cursor"), ("epoch", "an epoch")])
def test_damage_of_what_consumers_are_known_by(start, table, what):
    """It is found, said, and in no push's way."""
    server = start()
    server.may_be_damaged = True
    channel = server.channel()
    push(server, channel, 3)
    epoch = epoch_of(server, channel)
    assert server.get(f"{channel}?as=bot&ts=2").json()["lag"] == 1
    server.stop()
    column = "ts" if table == "consumer" else "name"
    with sqlite3.connect(server.data_path) as database:
        assert database.execute(f"UPDATE {table} SET {column} = {column} + 1").rowcount == 1
    database.close()
    check = subprocess.run([BINARY, "check", server.data_path], capture_output=True, text=True, timeout=300)
    assert check.returncode == 1 and what in check.stdout, check.stdout
    server.start()
    assert push(server, channel, 1) == 4
    if table == "epoch":
        check_reset(server, channel, 3, epoch, 0)
        assert server.get(f"{channel}?as=bot").json()["lag"] == 2
    else:
        check_goes_on(server, channel, 3, epoch)
        assert server.get(f"{channel}?as=bot").json()["lag"] == 4
