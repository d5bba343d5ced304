"""Flips single bits in the files of a stopped server, and looks at what the next one makes of them.

Whatever is flipped, a server either refuses to start, with a line that names the file, or: what it delivers is what was pushed;
consumers get past whatever is missing, and are told how much that is; no id is given twice; and somebody is told.
"""

import sqlite3

CHANNELS = 3
UPDATES = 30
SUFFIXES = ("", "-wal")


def fill(server):
    """Pushes updates of every kind; {channel: [update as view=full tells it]}."""
    channels = [server.channel() for _ in range(CHANNELS)]
    for n in range(1, UPDATES + 1):
        for index, channel in enumerate(channels):
            size = (20, 200, 3000, 20000)[(n + index) % 4]
            query = f"?app=bot{index}" if n % 3 == 0 else ""
            body = '{"n":%d,"x":"%s"}' % (n, "x" * size)
            assert server.push(channel + query, body, {"X-Number": str(n)}) == n
    return {channel: read(server, channel)[0] for channel in channels}


def read(server, channel):
    """All that a consumer gets, by ts, and how many it is told that it missed."""
    ts, updates, missed = 0, {}, 0
    while True:
        page = server.get(f"{channel}?ts={ts}&view=full").json()
        missed += page.get("missed", 0)
        assert "reset" not in page, "the ids began again"
        updates.update((update["ts"], update) for update in page["updates"])
        if page["ts"] == ts:
            return updates, missed
        assert page["ts"] > ts
        ts = page["ts"]


class Files:
    """The data file of a stopped server, and what is left of its write-ahead log, to be damaged again and again."""

    def __init__(self, server, expected):
        self.server, self.expected = server, expected
        server.may_be_damaged = True
        self.kept = {suffix: path.read_bytes() for suffix in SUFFIXES if (path := self.path(suffix)).exists()}

    def path(self, suffix=""):
        return self.server.data_path.with_name(self.server.data_path.name + suffix)

    def restore(self):
        for suffix in (*SUFFIXES, "-shm"):
            self.path(suffix).unlink(missing_ok=True)
        for suffix, content in self.kept.items():
            self.path(suffix).write_bytes(content)

    def flip(self, suffix, bit):
        content = bytearray(self.kept[suffix])
        content[bit // 8] ^= 1 << bit % 8
        self.path(suffix).write_bytes(content)

    def bits(self, suffix):
        return len(self.kept.get(suffix, b"")) * 8

    def flip_column(self, table, column, chance):
        """Flips a bit of a value, as if it had been written so; what was flipped."""
        with sqlite3.connect(self.path()) as database:
            key = "key" if table == "meta" else "rowid"
            rows = database.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            row, value = chance.choice(rows)
            bit = chance.randrange(63 if isinstance(value, int) else 8 * len(value) or 1)
            if isinstance(value, int):
                # Mostly a bit that is near the value.
                bit = min(62, chance.randrange(max(value.bit_length(), 1) + 2)) if chance.random() < 0.8 else bit
                flipped = value ^ 1 << bit
            else:
                content = bytearray(value if isinstance(value, bytes) else value.encode("latin-1"))
                content[bit // 8 : bit // 8 + 1] = bytes([content[bit // 8] ^ 1 << bit % 8]) if content else b"\1"
                flipped = bytes(content)
            cast = "" if isinstance(flipped, int) or isinstance(value, bytes) else "CAST(?1 AS TEXT)"
            try:
                database.execute(f"UPDATE {table} SET {column} = {cast or '?1'} WHERE {key} = ?2", (flipped, row))
            except sqlite3.IntegrityError:
                return None
        database.close()
        return f"{table}.{column} of {row}: bit {bit}"

    def columns(self):
        with sqlite3.connect(self.path()) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            columns = [(t, row[1]) for t in tables for row in database.execute(f"PRAGMA table_info({t})")]
        database.close()
        return columns

    # --- judging ---

    def try_start(self):
        """Starts the server; False if it refused, in the right way."""
        start = self.server.log_path.stat().st_size
        try:
            self.server.start()
            return True
        except AssertionError:
            process, self.server.process = self.server.process, None
            if process.poll() is None:
                process.kill()
                process.wait()
                raise
            log = self.server.log(start)
            assert process.returncode == 1, f"exit code {process.returncode}: {log[-2000:]}"
            last = log.strip().splitlines()[-1]
            assert last.startswith("longline: ") and str(self.path()) in last, last
            return False

    def takes_pushes(self):
        """Whether it stores, with the right ids. If the page that comes next is damaged it cannot, and says so."""
        for channel, expected in self.expected.items():
            reply = self.server.post(channel, "{}")
            if reply.status == 503:
                health = self.server.get("/-/health")
                assert (health.status, health.json()["store"]) == (503, "database disk image is malformed")
                return False
            assert reply.total == len(expected) + 1, "an id was given twice, or skipped"
            assert self.server.get(f"{channel}?ts={len(expected)}").updates == [{}]
        return True

    def judge(self):
        """'same', 'missing N', 'takes no pushes' or 'refused': anything else fails."""
        start = self.server.log_path.stat().st_size
        if not self.try_start():
            return "refused"
        lost = 0
        for channel, expected in self.expected.items():
            updates, missed = read(self.server, channel)
            for ts, update in updates.items():
                assert update == expected[ts], f"update {ts} is served changed"
            gone = len(expected) - len(updates)
            assert missed == gone, f"{gone} updates are missing, and the consumer heard of {missed}"
            lost += gone
        if not self.takes_pushes():
            self.server.stop()
            return "takes no pushes"
        if lost:
            log = self.server.log(start)
            assert "damaged" in log, "nobody is told"
            assert self.server.metric("longline_store_damaged_total") >= 1
            assert "damaged" in self.server.get("/-/health").json()["store"]
        self.server.stop()
        return f"missing {lost}" if lost else "same"


def judge_all(files, flips):
    """flips: functions that flip, and say what. How often each outcome came; all failures, at the end."""
    outcomes, failures = {}, []
    for number, flip in enumerate(flips):
        files.restore()
        what = flip()
        if what is None:
            continue
        try:
            outcome = files.judge()
        except Exception as failure:  # whatever a client may stumble over
            outcome = "BAD"
            failures.append(f"{number}: {what}: {failure!r:.1500}")
            if files.server.process:
                files.server.kill9()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)
    files.restore()
    assert not failures, f"{len(failures)} of {number + 1}:\n" + "\n".join(failures)
    return outcomes
