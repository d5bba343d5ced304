"""Flips single bits in the files of a stopped server, and looks at what the next one makes of them.

Whatever is flipped, a server either refuses to start, with a line that names the file, or: what it delivers is what was pushed;
consumers get past whatever is missing, and are told how much that is; no id is given twice; and somebody is told.
What is purged stays unread, a named consumer goes on where it was or begins anew, a delivery id means its own update or none.
"""

import gzip
import sqlite3

CHANNELS = 3
UPDATES = 30
CONFIRMED = 15  # by the consumer "bot" of each channel
PURGED = 5  # of the last channel, the first
SUFFIXES = ("", "-wal")


def purge(server, channel, upto):
    assert server.request("DELETE", f"{channel}?upto={upto}").json()["gone"] == upto


def delivery(n):
    return {"X-GitHub-Delivery": f"id-{n}"}


def fill(server):
    """Pushes updates of every kind; {channel: [update as view=full tells it]}."""
    channels = [server.channel() for _ in range(CHANNELS)]
    for n in range(1, UPDATES + 1):
        for index, channel in enumerate(channels):
            size = (20, 200, 3000, 20000)[(n + index) % 4]
            query = f"?app=bot{index}" if n % 3 == 0 else ""
            body = '{"n":%d,"x":"%s"}' % (n, "x" * size)
            headers = {"X-Number": str(n), **(delivery(n) if n % 2 else {})}
            if n % 5 == 0:
                body, headers = gzip.compress(body.encode()), {**headers, "Content-Encoding": "gzip"}
            assert server.push(channel + query, body, headers) == n
        if n == PURGED * 2:
            purge(server, channels[-1], PURGED)
            server.upgrade()
        if n == CONFIRMED:
            for channel in channels:
                assert server.get(f"{channel}?as=bot&ts={n}&limit=1").status == 200
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
            keys = [name for _, name, *_, place in database.execute(f"PRAGMA table_info({table})") if place]
            rows = database.execute(f"SELECT {column}, {', '.join(keys)} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            if (table, column) == ("channel", "name"):
                # SQL changes the index as well, and of the last channel the purge has taken the log's copy: nobody could tell.
                rows = [row for row in rows if row[1] < CHANNELS]
            if not rows:
                return None
            value, *row = chance.choice(rows)
            bit = chance.randrange(63 if isinstance(value, int) else 8 * len(value) or 1)
            if isinstance(value, int):
                # Mostly a bit that is near the value.
                bit = min(62, chance.randrange(max(value.bit_length(), 1) + 2)) if chance.random() < 0.8 else bit
                flipped = value ^ 1 << bit
            else:
                content = bytearray(value if isinstance(value, bytes) else value.encode("latin-1"))
                content[bit // 8 : bit // 8 + 1] = bytes([content[bit // 8] ^ 1 << bit % 8]) if content else b"\1"
                flipped = bytes(content)
            cast = "" if isinstance(flipped, int) or isinstance(value, bytes) else "CAST(? AS TEXT)"
            try:
                database.execute(f"UPDATE {table} SET {column} = {cast or '?'} WHERE {' AND '.join(f'{key} = ?' for key in keys)}", (flipped, *row))
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
        for channel in self.expected:
            reply = self.server.post(channel, "{}")
            if reply.status == 503:
                health = self.server.get("/-/health")
                assert (health.status, health.json()["store"]) == (503, "database disk image is malformed")
                return False
            assert reply.total == UPDATES + 1, "an id was given twice, or skipped"
            assert self.server.get(f"{channel}?ts={UPDATES}").updates == [{}]
        return True

    def judge_names(self):
        """Consumers, and deliveries that come again."""
        for channel in self.expected:
            page = self.server.get(f"{channel}?as=bot&limit=1").json()
            assert page["lag"] in (UPDATES - CONFIRMED + 1, UPDATES + 1), f"the consumer has jumped: {page['lag']}"
            for n in (1, 7, UPDATES - 1):
                reply = self.server.post(f"{channel}?.once", "{}", delivery(n))
                if reply.status == 503:  # it meets the damage; from then on it is known
                    reply = self.server.post(f"{channel}?.once", "{}", delivery(n))
                assert reply.status == 200, reply
                assert reply.total in (n, self.server.get(channel).total), f"delivery {n} is taken for {reply.total}"

    def judge(self):
        """'same', 'missing N', 'takes no pushes' or 'refused': anything else fails."""
        start = self.server.log_path.stat().st_size
        if not self.try_start():
            return "refused"
        lost = 0
        for channel, expected in self.expected.items():
            updates, missed = read(self.server, channel)
            for ts, update in updates.items():
                assert ts in expected, f"update {ts} was purged, and is served"
                assert update == expected[ts], f"update {ts} is served changed"
            gone = UPDATES - len(updates)
            assert missed == gone, f"{gone} updates are missing, and the consumer heard of {missed}"
            lost += len(expected) - len(updates)
        if not self.takes_pushes():
            self.server.stop()
            return "takes no pushes"
        self.judge_names()
        self.server._hang_up()
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
