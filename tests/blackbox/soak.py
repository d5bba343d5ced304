"""Everything at once, at a low rate, for as long as you like: who pushes and reads, what is sampled, and what counts as growth.

Most pushes go to a few channels, which pollers of all kinds and streams follow; the others to some thousands that nobody
watches. They have 100 bytes to 20 MB. Clients hang up, read slowly, filter, confirm, purge. What the followers get must be
without a gap, beside what is told as `missed`.

Every now and then they rest: nobody pushes, slow readers have gone, and what others were sent has arrived. What the server has on its
heap then, without its caches, must be what it had before.
"""

import json
import random
import socket
import statistics
import time
from pathlib import Path
from urllib.parse import quote

from http_client import request_bytes
from longline_server import PATIENCE_S, wait_until
from swarm import StreamWire, Swarm, push_all

MIB = 1 << 20
IDLE_CHANNELS = 2_000
AGAIN_S = 0.05
QUIET_BYTES = 64 << 10  # polls that wait have that much


class Client:
    """Sends one request after the other; connects again whenever it has lost its connection."""

    kind = None
    rests = False  # when all rest, it does nothing

    def __init__(self, soak, number):
        self.soak, self.number, self.rng = soak, number, random.Random(f"{soak.seed} {type(self).__name__} {number}")
        self.connect()

    def connect(self):
        try:
            self.wire = self.soak.swarm.open(self.answered, self.closed, self.soak.address, **({"kind": self.kind} if self.kind else {}))
        except OSError:
            self.soak.swarm.after(AGAIN_S, self.connect)
        else:
            self.begin()

    def closed(self, _wire):
        if not self.soak.is_over:
            self.soak.count("connections lost")
            self.soak.swarm.after(AGAIN_S, self.connect)

    def hang_up(self):
        self.soak.count("hang-ups")
        self.wire.close(reset=self.rng.random() < 0.5)
        self.connect()

    def begin(self):
        """The connection is new."""
        self.go_on()

    def go_on(self):
        if self.rests and self.soak.is_resting:
            self.soak.resting[self] = True
        elif not self.soak.is_over:
            self.act()

    def answered(self, _wire, reply):
        if reply.status == 200:
            self.took(reply)
        else:
            assert reply.status == 503, reply
            self.soak.count("503")
        if not reply.closes:
            self.soak.swarm.after(self.pause(), self.next)

    def next(self):
        if self.wire.is_open:
            self.go_on()

    def pause(self):
        return 0

    def send(self, method, target, body=None, headers=None):
        self.wire.send(request_bytes(method, target, body, headers))


class Pusher(Client):
    rests = True

    def pause(self):
        return self.rng.expovariate(self.soak.rate / self.soak.PUSHERS)

    def size(self):
        draw = self.rng.random()
        if draw < 0.001:
            return 20_000_000
        if draw < 0.01:
            return 1_000_000
        return int(100 * 10 ** (self.rng.random() ** 2 * 2.8))

    def act(self):
        is_followed = self.rng.random() < 0.7
        self.channel = self.rng.choice(self.soak.channels) if is_followed else f"/{self.soak.prefix}{self.rng.randrange(IDLE_CHANNELS)}"
        headers = {}
        if self.rng.random() < 0.05:
            body = "\n".join(self.update(self.rng.randint(100, 500)) for _ in range(self.rng.randint(2, 50)))
            headers = {"Content-Type": "application/x-ndjson"}
        else:
            body = self.update(self.size())
        self.send("POST", self.channel, body, headers)
        if self.rng.random() < 0.005:
            self.hang_up()

    def update(self, size):
        return json.dumps({"pick": self.rng.randrange(4), "x": "x" * size})

    def took(self, reply):
        self.soak.count("updates", int(reply.headers.get("x-updates", 1)))


class Follower(Client):
    """A long poll after the other, of one channel, from where it is."""

    where = name = ""

    def __init__(self, soak, number):
        self.channel, self.ts = soak.channels[number % len(soak.channels)], -1
        super().__init__(soak, number)

    def act(self):
        self.send("GET", f"{self.channel}?ts={self.ts}&sleep=20{self.where}{self.name}")
        if self.rng.random() < 0.01:
            self.hang_up()

    def took(self, reply):
        self.take(self.ts, reply.json())

    def take(self, after, answer):
        updates = answer["updates"]
        passed = answer.get("missed", 0) + answer.get("skipped", 0) + len(updates)
        if after >= 0 and "reset" not in answer:
            assert answer["ts"] == after + passed, f"a gap behind {after}: {answer['ts']}, {passed}"
        self.soak.count("missed", answer.get("missed", 0))
        self.soak.count("resets", "reset" in answer)
        self.soak.count("delivered", len(updates))
        self.ts = answer["ts"]


class Picker(Follower):
    where = "&where=" + quote("body.pick:1")


class Named(Follower):
    name = "&as=bot"

    def act(self):
        if self.rng.random() < 0.2:
            self.ts = ""  # behind what it has confirmed
        super().act()

    def take(self, after, answer):
        super().take(-1 if after == "" else after, answer)


class Gatherer(Follower):
    """One poll of all channels."""

    def act(self):
        if self.ts == -1:
            self.ts = dict.fromkeys(self.soak.channels, "now")
        self.send("POST", "/-/poll?sleep=20", json.dumps(self.ts))

    def took(self, reply):
        for channel, answer in reply.json()["channels"].items():
            self.soak.count("delivered", len(answer.get("updates", ())))
            self.ts[channel] = answer.get("ts", self.ts[channel])


class Watcher(Follower):
    """A stream."""

    kind = StreamWire

    def begin(self):
        self.wire.on_line, self.wire.on_end = self.read_line, lambda _wire: self.soak.swarm.after(AGAIN_S, self.next)
        super().begin()

    def act(self):
        self.send("GET", f"{self.channel}?feed=lines&ts={self.ts if self.ts >= 0 else 'now'}")

    def read_line(self, wire, line):
        if line:
            said = json.loads(line)
            self.take(self.ts, {"updates": [said["update"]] if "update" in said else [], **said})
            if self.rng.random() < 0.002:
                self.hang_up()


class SlowReader(Client):
    """Wants everything of a channel by a stream, and reads a little a second: it is cut, and comes again."""

    rests = True

    def act(self):
        self.channel = self.rng.choice(self.soak.channels)
        self.soak.swarm.poller.modify(self.wire.sock, 0)
        self.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.send("GET", f"{self.channel}?feed=lines&ts=0")
        self.read_some(self.wire)

    def read_some(self, wire):
        if wire.is_open and not self.soak.is_over:
            try:
                is_cut = wire.sock.recv(4096) == b""
            except BlockingIOError:
                is_cut = False
            except OSError:
                is_cut = True
            if self.soak.is_resting:
                self.hang_up()
            elif is_cut:
                wire.close()
                self.closed(wire)
            else:
                self.soak.swarm.after(1, lambda: self.read_some(wire))


class Purger(Client):
    rests = True

    def pause(self):
        return self.rng.uniform(5, 15)

    def act(self):
        channel = self.rng.choice(self.soak.channels)
        self.send("DELETE", channel + self.rng.choice(("", "?upto=1000000000", "?upto=7")))

    def took(self, _reply):
        self.soak.count("purges")


class Visitor(Client):
    """Looks at what nobody follows."""

    rests = True

    def pause(self):
        return self.rng.uniform(0.5, 1.5)

    def act(self):
        self.send("GET", f"/{self.soak.prefix}{self.rng.randrange(IDLE_CHANNELS)}?ts=-3&view=full")

    def took(self, reply):
        self.soak.count("visits")


class Soak:
    """The clients of one server, which keeps its address. A context manager."""

    PUSHERS = 8
    KINDS = (
        (Pusher, PUSHERS), (Follower, 16), (Picker, 6), (Named, 6), (Gatherer, 2), (Watcher, 10), (SlowReader, 3), (Purger, 1), (Visitor, 1),
    )  # fmt: skip

    def __init__(self, server, rate, seed):
        self.server, self.address, self.rate, self.seed = server, server.address, rate, seed
        self.channels = [server.channel() for _ in range(8)]
        server.channels.update(channel[1:] for channel in self.channels)
        self.prefix = server.channel()[1:9]
        push_all(server.address, (request_bytes("POST", f"/{self.prefix}{n}", b"{}") for n in range(IDLE_CHANNELS)), connections=4)
        self.counts, self.is_over = {}, False
        self.resting, self.is_resting = {}, False
        self.swarm = Swarm()
        for kind, count in self.KINDS:
            for number in range(count):
                kind(self, number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.swarm.__exit__()

    def count(self, what, by=1):
        self.counts[what] = self.counts.get(what, 0) + by

    def run_until(self, moment):
        self.swarm.run(lambda: time.monotonic() >= moment, max(1, moment - time.monotonic()) + 60, "the soak")

    def rest(self, look):
        """Returns what look() sees while all rest."""

        def look_at_rest():
            wait_until(lambda: self.server.metric("longline_buffer_bytes") < QUIET_BYTES, "all to have what they were sent", 2 * PATIENCE_S)
            return look()

        self.is_resting = True
        seen = self.swarm.during(look_at_rest)
        self.is_resting = False
        resting, self.resting = self.resting, {}
        for client in resting:
            client.next()
        return seen


# --- Samples ------------------------------------------------------------------------------------------


def sample(server, faults, redis=None):
    """What must not grow, and the commits so far."""
    metrics = server.metrics()
    log = Path(f"{server.data_path}-wal")
    return {
        "at": time.monotonic(),
        # Beside what settings bound: channels and recent updates, and SQLite's pages.
        "heap": faults["live_bytes"] - int(metrics["longline_cache_bytes"]),
        "pages": faults["page_bytes"],
        "resident": server.rss_bytes(),
        "cache": metrics["longline_cache_bytes"],
        "store": metrics["longline_store_bytes"],
        "descriptors": server.descriptor_count(),
        "threads": len(list(Path(f"/proc/{server.pid}/task").iterdir())),
        "file": server.data_path.stat().st_size if server.data_path.exists() else 0,
        "redis": int(redis.info("memory")["used_memory"]) if redis else 0,
        "log": log.stat().st_size if log.exists() else 0,
        "cpu": server.cpu_seconds(),
        "commits": metrics.get("longline_store_commits_total", 0),
        "commit_s": metrics.get("longline_store_commit_seconds_sum", 0),
    }


def growth(values):
    """By how much a series grows from its beginning to its end: what the median slope makes of it."""
    size = len(values)
    slopes = [(values[j] - values[i]) / (j - i) for i in range(size) for j in range(i + 1, size)]
    return statistics.median(slopes) * (size - 1)


def may_grow(what, values):
    """The goal: of the median, a share, and what is noise in a small number.

    Redis has some updates of 20 MB more or less. SQLite's pages come and go, up to 16 MiB of them with a file, and the allocator keeps
    some of what they leave.
    """
    share, noise = {
        "heap": (0.05, MIB / 4), "pages": (0.05, 20 * MIB), "resident": (0.05, 16 * MIB), "file": (0.05, 8 * MIB), "log": (0.05, 8 * MIB), "redis": (0.05, 64 * MIB),
        "descriptors": (0, 3), "threads": (0, 0.5),
    }[what]  # fmt: skip
    return share * statistics.median(values) + noise


def worst_commit_s(samples):
    """The longest mean of the commits between two samples of one process."""
    means = [
        (b["commit_s"] - a["commit_s"]) / (b["commits"] - a["commits"]) for a, b in zip(samples, samples[1:]) if b["commits"] > a["commits"]
    ]
    return max(means, default=0)
