"""A bit that flips in the data file: what is delivered is right, or left out and said (damage.py).

FLIPS says how many bits each test flips. script/torture sets it to hundreds.
"""

import os
import random
import re
import secrets
import sqlite3
import subprocess

import pytest

from damage import PURGED, SUFFIXES, Files, fill, judge_all, purge
from doc_blocks import run_script, scripts
from longline_server import BINARY

FLIPS = int(os.environ.get("FLIPS", 12))
SEED = os.environ.get("SEED") or secrets.token_hex(4)


@pytest.fixture
def chance():
    print(f"SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def closed(start):
    server = start(LOG_LEVEL="info")
    expected = fill(server)
    server.stop()
    return Files(server, expected)


@pytest.fixture
def purging(start):
    """Killed while it deletes and overwrites what is purged."""
    server = start(LOG_LEVEL="info")
    expected = fill(server)
    first = next(iter(expected))
    purge(server, first, PURGED)
    server.kill9()
    return Files(server, {**expected, first: {ts: update for ts, update in expected[first].items() if ts > PURGED}})


@pytest.fixture
def killed(start):
    server = start(LOG_LEVEL="info")
    expected = fill(server)
    server.kill9()
    return Files(server, expected)


def test_any_bit_of_a_closed_file(closed, chance):
    def flip():
        bit = chance.randrange(closed.bits(""))
        closed.flip("", bit)
        return f"bit {bit}"

    judge_all(closed, [flip] * FLIPS)


def test_any_bit_of_the_pages_that_hold_it_together(closed, chance):
    """Headers, cell pointers and interior pages are few bits of a file: here they are all."""
    page = int.from_bytes(closed.kept[""][16:18], "big")
    pages = len(closed.kept[""]) // page

    def flip():
        number = chance.randrange(pages)
        start = 100 if number == 0 else 0
        byte = chance.randrange(100) if number == 0 and chance.random() < 0.5 else start + chance.randrange(120)
        bit = (number * page + byte) * 8 + chance.randrange(8)
        closed.flip("", bit)
        return f"bit {bit} (page {number + 1}, byte {byte})"

    judge_all(closed, [flip] * FLIPS)


def test_every_column(closed, chance):
    columns = closed.columns()

    def flip(table, column):
        return lambda: closed.flip_column(table, column, chance)

    rounds = max(1, 2 * FLIPS // len(columns))
    judge_all(closed, [flip(*column) for _ in range(rounds) for column in columns])


@pytest.mark.parametrize("damage, doubtful", [("name = x'6221'", 1), ("total = total + 1", 0)])
def test_a_name_in_doubt_is_told(start, damage, doubtful):
    """SQLite changes the index, too: table and index agree on the name."""
    server = start()
    server.may_be_damaged = True
    for _ in range(3):
        server.push("/a")
    server.stop()
    with sqlite3.connect(server.directory / "longline.db") as database:
        database.execute("DELETE FROM update_log WHERE ts = 1")
        database.execute(f"UPDATE channel SET {damage}")
    database.close()
    before = server.log_path.stat().st_size
    server.start()
    assert re.search(rf"rows made again\W+1\b.*names in doubt\W+{doubtful}\b", server.log(before))


def test_any_bit_of_the_write_ahead_log(killed, chance):
    def flip():
        bit = chance.randrange(killed.bits("-wal"))
        killed.flip("-wal", bit)
        return f"bit {bit}"

    outcomes = judge_all(killed, [flip] * FLIPS)
    # Some of the first page's bits that fit several places may stop the start.
    assert outcomes["same"] > FLIPS / 2 and outcomes.get("refused", 0) <= 1 + FLIPS / 50, "most of its bits can be put right"


def test_any_bit_in_the_midst_of_a_purge(purging, chance):
    def flip():
        bit = chance.randrange(sum(map(purging.bits, SUFFIXES)))
        suffix = "-wal" if bit >= purging.bits("") else ""
        bit -= purging.bits("") if suffix else 0
        purging.flip(suffix, bit)
        return f"bit {bit} of {suffix or 'the file'}"

    judge_all(purging, [flip] * FLIPS)


def test_what_can_be_read_moves_to_a_new_file(closed):
    """The document's commands, for a file whose page of the newest updates is damaged."""
    page = int.from_bytes(closed.kept[""][16:18], "big")
    with sqlite3.connect(closed.path()) as database:
        (number,) = database.execute("SELECT pageno FROM dbstat WHERE name = 'update_log' AND pagetype = 'leaf' ORDER BY path DESC").fetchone()
    database.close()
    closed.flip("", ((number - 1) * page + 2) * 8)
    assert closed.judge() == "takes no pushes"
    assert check(closed.path())[0] == 1
    (script,) = [block for block in scripts("docs/data.md") if ".dump" in block]
    run_script(closed.server, script)
    assert check(closed.path())[0] == 0
    assert closed.judge() == "same"


# --- longline check ---


def check(path):
    done = subprocess.run([BINARY, "check", path], capture_output=True, text=True, timeout=300)
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def test_check_says_that_a_file_is_whole_and_leaves_nothing_behind(closed):
    before = sorted(closed.server.directory.iterdir())
    code, said = check(closed.path())
    assert code == 0 and "85 updates and 3 channels read" in said and said.endswith("is whole\n")
    assert sorted(closed.server.directory.iterdir()) == before


def test_check_of_a_running_server_and_of_a_killed_one(killed):
    assert check(killed.path())[0] == 0
    killed.server.start()
    code, said = check(killed.path())
    assert code == 0 and "the server is running" in said
    killed.server.stop()


def test_check_names_what_is_damaged(closed, chance):
    for table, column in closed.columns():
        closed.restore()
        what = closed.flip_column(table, column, chance)
        if not what:
            continue
        code, said = check(closed.path())
        assert code == 1 and "damaged" in said, f"{what}: {said}"
        assert check(closed.path())[0] == 1


def test_check_finds_a_flipped_bit_of_the_write_ahead_log(killed, chance):
    for _ in range(FLIPS):
        bit = chance.randrange(killed.bits("-wal"))
        killed.flip("-wal", bit)
        code, said = check(killed.path())
        assert code == 1 and "the write-ahead log" in said, f"bit {bit}: {said}"
        assert killed.path("-wal").read_bytes() != killed.kept["-wal"], "it changes nothing"


def test_check_of_what_is_no_data_file(tmp_path):
    assert check(tmp_path / "none.db")[0] == 2
    (tmp_path / "text").write_text("no database " * 1000)
    assert check(tmp_path / "text")[0] == 2
