"""Clients that record what they do (histories.py), while servers are stopped, killed and upgraded.

Each does one thing after the other, on a channel and of a kind that it draws: pushes, also those that are cut off or refused;
polls of every kind; streams; purges. A connection that breaks is opened again; what was under way on it is of unknown fate.
"""

import json
import random
import time
from math import inf
from urllib.parse import quote

from histories import REFUSED, STORED, UNKNOWN, Confirmation, History, Purge, Push, Read
from http_client import request_bytes
from longline_server import PATIENCE_S, SLOW
from redis_server import NO_ANSWER, NOT_REPLICATED
from swarm import StreamWire, Swarm, Wire

AGAIN_S = 0.02
PICKS = 4  # a filter wants one in so many


def wants(update):
    return update[1] % PICKS == 1


def key_of(body):
    return body["c"], body["n"]


class Client:
    """One connection and one thing at a time: act() begins it, and done(reply) ends it, or lost()."""

    kind = Wire

    def __init__(self, play, number):
        self.play, self.number = play, number
        self.rng = random.Random(f"{play.seed} {number}")
        self.wire = None
        self.is_idle = True
        self.connect()

    def connect(self):
        if self.play.is_over:
            return
        self.life = self.play.life
        try:
            self.wire = self.play.swarm.open(self.answered, self.closed, self.rng.choice(self.play.addresses), self.kind)
        except OSError:
            self.play.swarm.after(AGAIN_S, self.connect)
            return
        if self.life == self.play.life:
            self.begin()
        else:  # there is another process by now
            self.hang_up()

    def begin(self):
        self.is_idle = self.play.is_over
        if not self.is_idle:
            self.done = self.lost = None
            self.began = time.monotonic()
            self.act()

    def answered(self, _wire, reply):
        self.ended, self.closes = time.monotonic(), reply.closes
        self.is_idle = True
        self.done(reply)
        if not reply.closes:
            self.play.swarm.after(AGAIN_S if reply.status == 503 else self.rng.choice((0, 0, 0.002)), self.next)

    def next(self):
        if self.is_idle and self.wire and self.wire.is_open:
            self.begin()

    def closed(self, _wire):
        self.ended = time.monotonic()
        if not self.is_idle and self.lost:
            self.lost()
        self.is_idle = True
        self.play.swarm.after(AGAIN_S, self.connect)

    def hang_up(self):
        self.wire.close(reset=self.rng.random() < 0.5)
        self.is_idle = True
        self.play.swarm.after(0, self.connect)

    def send(self, method, target, body=None, headers=None):
        self.wire.send(request_bytes(method, target, body, headers))

    def channel_of(self, channel):
        """What the history calls it: data that are lost were another channel."""
        return channel, self.life


class Writer(Client):
    n = 0

    def act(self):
        channel, kind = self.rng.choice(self.play.channels), self.rng.random()
        count = self.rng.randint(2, 30) if kind > 0.75 else 1
        updates = [(self.number, self.n + i) for i in range(1, count + 1)]
        self.n += count
        push = self.play.history.add(Push(self.channel_of(channel), self.began, updates=updates, fate=UNKNOWN))
        body = "\n".join(json.dumps({"c": c, "n": n, "pick": n % PICKS}) for c, n in updates)
        headers = {"Content-Type": "application/x-ndjson"} if count > 1 else {}
        target = channel + ("/getUpdates" if kind < 0.03 else "")
        self.done, self.lost = lambda reply: self.judge(push, reply), lambda: self.end(push)
        if 0.03 <= kind < 0.06:  # never complete
            push.fate = REFUSED
            self.wire.send(request_bytes("POST", target, body, {**headers, "Content-Length": str(len(body) + 1)}))
            self.hang_up()
            return
        self.send("POST", target, body, headers)
        if 0.06 <= kind < 0.09:
            self.hang_up()

    def judge(self, push, reply):
        push.ended = self.ended
        if reply.status == 200:
            push.fate, push.last = STORED, reply.total
        elif reply.status == 405:
            push.fate = REFUSED
        else:
            assert reply.status == 503, reply
            said = reply.json()["error_description"]
            push.fate = UNKNOWN if said in (NO_ANSWER, NOT_REPLICATED) else REFUSED
            if push.fate == UNKNOWN:
                push.ended = inf

    def end(self, push):
        """The server is dead, and what it did is done; only Redis may still get to hear of it."""
        if not self.play.is_shared:
            push.ended = self.ended


class Purger(Client):
    def act(self):
        channel = self.rng.choice(self.play.channels)
        newest = self.play.newest.get(self.channel_of(channel), 0)
        upto = None if self.rng.random() < 0.2 else max(0, newest - self.rng.randint(0, 40))
        purge = self.play.history.add(Purge(self.channel_of(channel), self.began, upto=upto, fate=UNKNOWN))
        self.done = lambda reply: self.judge(purge, reply)
        self.send("DELETE", channel + ("" if upto is None else f"?upto={upto}"))

    def judge(self, purge, reply):
        if reply.status == 200:
            purge.fate, purge.gone, purge.ended = STORED, reply.json()["gone"], self.ended
        else:
            assert reply.status == 503, reply

    def next(self):
        self.play.swarm.after(self.rng.random() * 0.1, super().next)


class Reader(Client):
    """Polls one channel in every way, from where it is or from anywhere."""

    def __init__(self, play, number):
        self.cursors = {}  # channel → (ts, epoch, life)
        super().__init__(play, number)

    def act(self):
        channel = self.rng.choice(self.play.channels)
        ts, epoch, life = self.cursors.get(channel, (0, "", self.life))
        kind, sleep_s = self.rng.random(), self.rng.choice((0, 0, 0, 0.05, 0.3))
        read = Read(self.channel_of(channel), self.began, after=ts, sent_epoch=epoch)
        query = f"?ts={ts}&epoch={epoch}"
        if kind < 0.1 and life == self.life:
            read.after = self.rng.randint(0, ts)
            query = f"?ts={read.after}&epoch={epoch}"
        elif kind < 0.2:
            read.wanted_last = self.rng.randint(1, 9)
            query = f"?ts=-{read.wanted_last}&epoch="
        elif kind < 0.3:
            read.after = None
            query = "?ts=now&epoch="
        read.is_foreign = life != self.life and read.wanted_last is None and bool(read.after)
        if kind > 0.7 and read.wanted_last is None:
            read.wants, query = wants, query + "&where=" + quote("body.pick:1")
        limit = self.rng.choice((1, 3, 10_000, 10_000)) if read.wanted_last is None else 10_000
        read.may_be_stale = self.play.is_shared and sleep_s > 0
        self.query = query
        self.done = lambda reply: self.judge(read, reply, sleep_s)
        self.send("GET", f"{channel}{query}&sleep={sleep_s}&limit={limit}&view=full")

    def judge(self, read, reply, sleep_s):
        if reply.status == 503:
            return
        assert reply.status == 200, reply
        answer = reply.json()
        read.total = reply.total
        take(read, answer, self.ended)
        if sleep_s and not answer["updates"] and not self.closes and read.ts == read.after and read.wanted_last is None:
            assert self.ended - self.began >= sleep_s, f"empty after {self.ended - self.began} s of {sleep_s}: {self.query} {answer}"
        self.play.saw(read)
        self.cursors[read.channel[0]] = (read.ts, answer.get("epoch", ""), self.life)


def take(read, answer, ended):
    """Fills in what the answer says, of an item of view=full or of a line."""
    read.ended, read.ts = ended, answer["ts"]
    read.missed, read.skipped = answer.get("missed", 0), answer.get("skipped", 0)
    read.reset, read.epoch = "reset" in answer, answer.get("epoch")
    read.found = [(update["ts"], key_of(update["body"])) for update in answer["updates"]]
    if read.after is None or read.wanted_last is not None:
        read.after = read.ts - len(read.found) - read.missed - read.skipped
    if read.missed:  # what came while it waited
        read.wanted_last = None


class Consumer(Client):
    """A named one, which confirms what it got, or forgets where it was. No other client has its name."""

    def __init__(self, play, number):
        self.place = {}  # channel → the ts that it would confirm
        super().__init__(play, number)

    def act(self):
        channel = self.rng.choice(self.play.channels)
        key = self.channel_of(channel)
        ts = self.place.pop(key, None) if self.rng.random() < 0.6 else None
        now = self.rng.random() < 0.2
        confirms = inf if now else ts
        mark = self.play.history.add(Confirmation(key, self.began, name=f"c{self.number}", confirms=confirms))
        self.done = lambda reply: self.judge(mark, ts, now, reply)
        query = f"?as=c{self.number}&view=full&epoch=" + ("" if ts is None else f"&ts={ts}") + ("&confirm=now" if now else "")
        self.send("GET", channel + query)

    def judge(self, mark, ts, now, reply):
        if reply.status == 503:
            return
        answer = reply.json()
        read = self.play.history.add(Read(mark.channel, mark.began, after=ts, total=reply.total))
        take(read, answer, self.ended)
        mark.ended = self.ended
        if ts is None:
            mark.begins = read.after
        if now:
            mark.confirms = read.ts
        self.place[mark.channel] = read.ts
        assert "reset" in answer or answer["lag"] == reply.total - (mark.confirms if mark.confirms is not None else read.after), answer
        self.play.saw(read, is_new=False)


class Gatherer(Client):
    """Polls all channels at once."""

    def __init__(self, play, number):
        self.cursors = {}
        super().__init__(play, number)

    def act(self):
        asked, reads = {}, {}
        stale = self.play.is_shared
        for channel in self.play.channels:
            ts, epoch, life = self.cursors.get(channel, (0, "", self.life))
            asked[channel] = {"ts": ts, "epoch": epoch}
            read = Read(self.channel_of(channel), self.began, after=ts, sent_epoch=epoch, may_be_stale=stale)
            read.is_foreign = life != self.life and ts > 0
            reads[channel] = read
        sleep_s = self.rng.choice((0, 0.2))
        self.done = lambda reply: self.judge(reads, asked, reply)
        self.send("POST", f"/-/poll?view=full&sleep={sleep_s}&limit=50", json.dumps(asked))

    def judge(self, reads, asked, reply):
        if reply.status == 503:
            return
        answers = reply.json()["channels"]
        for channel, read in reads.items():
            answer = answers.get(channel)
            if answer is None and not answers:  # it has said that nothing is new anywhere
                answer = {"ts": read.after, "updates": []}
                read.total = read.after
            if answer and "error_code" not in answer:
                take(read, answer, self.ended)
                if read.found or read.missed or read.reset or not answers:  # else it tells a ts or an epoch only
                    self.play.saw(read)
                self.cursors[channel] = (read.ts, answer.get("epoch", asked[channel]["epoch"]), self.life)


class Streamer(Client):
    """A stream of one channel, from where it is. Each line is a read; all of them begin when the stream does."""

    kind = StreamWire

    def __init__(self, play, number):
        self.channel = play.channels[number % len(play.channels)]
        self.ts, self.epoch, self.cursor_life = 0, "", None
        super().__init__(play, number)

    def connect(self):
        super().connect()
        if self.wire and self.wire.is_open:
            self.wire.on_line, self.wire.on_end = self.read_line, lambda _wire: self.closed_cleanly()

    def act(self):
        self.done = lambda reply: None
        self.is_first = True
        self.send("GET", f"{self.channel}?feed=lines&view=full&ts={self.ts}&epoch={self.epoch}")

    def closed_cleanly(self):
        self.is_idle = True
        self.play.swarm.after(AGAIN_S, self.next)

    def read_line(self, _wire, line):
        if not line:
            return
        said = json.loads(line)
        if self.is_first and said.keys() == {"ts", "epoch"} and said["ts"] == self.ts:
            return  # where it begins
        read = Read(self.channel_of(self.channel), self.began, after=self.ts, sent_epoch=self.epoch, may_be_stale=self.play.is_shared)
        read.is_foreign = self.is_first and self.cursor_life not in (None, self.life) and self.ts > 0
        answer = {"updates": [said] if "body" in said else [], **said}
        take(read, answer, time.monotonic())
        self.play.saw(read)
        self.is_first, self.cursor_life = False, self.life
        self.ts, self.epoch = read.ts, said.get("epoch", self.epoch)
        if self.rng.random() < 0.01:
            self.hang_up()


class Play:
    """Clients at `servers`, which share a store, or are one. It is a context manager."""

    KINDS = ((Writer, 6), (Reader, 10), (Consumer, 2), (Gatherer, 3), (Streamer, 4), (Purger, 1))

    def __init__(self, servers, seed, channels=3, is_lost_with_process=False):
        self.servers, self.seed = servers, seed
        self.rng = random.Random(seed)
        self.addresses = [server.address for server in servers]  # which they keep
        self.is_shared = len(servers) > 1
        self.is_lost_with_process = is_lost_with_process
        self.channels = [servers[0].channel() for _ in range(channels)]
        for server in servers:
            server.channels.update(channel[1:] for channel in self.channels)
        self.history = History(is_shared=self.is_shared)
        self.newest = {}  # (channel, life) → the newest id that was seen
        self.life = 0
        self.is_over = False
        self.swarm = Swarm()
        kinds = [kind for kind, count in self.KINDS for _ in range(count)]
        self.clients = [kind(self, number) for number, kind in enumerate(kinds)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.swarm.__exit__()

    def saw(self, read, is_new=True):
        if is_new:
            self.history.add(read)
        self.newest[read.channel] = max(self.newest.get(read.channel, 0), read.ts)

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        self.swarm.run(lambda: time.monotonic() >= end, seconds + PATIENCE_S)

    def outage(self, act):
        began = time.monotonic()
        self.swarm.during(act)
        self.history.outages.append((began, time.monotonic()))

    def restart(self, server, end, is_crash):
        """Ends a server by `end` and starts it again."""

        def act():
            began = time.monotonic()
            end()
            if self.is_lost_with_process:
                self.life += 1
            server.start()
            if is_crash:
                self.history.crashes.append((began, time.monotonic()))

        self.swarm.during(act)

    def finish(self):
        """Lets everything end, reads all that there is, and judges it. Returns how many operations the history has."""
        self.is_over = True
        pollers = [client for client in self.clients if not isinstance(client, Streamer)]
        self.swarm.run(lambda: all(client.is_idle for client in pollers), 2 * PATIENCE_S, "the last replies")
        ends = {channel: self.read_to_end(channel) for channel in self.channels}
        self.swarm.run(lambda: not self.behind(ends), 2 * PATIENCE_S, "every stream to bring everything")
        return self.history.check()

    def behind(self, ends):
        """The streams that go on and have not brought everything."""
        return [s for s in self.clients if isinstance(s, Streamer) and not s.is_idle and s.ts != ends[s.channel]]

    def read_to_end(self, channel):
        """One more reader, of each server: whatever was acknowledged, it finds. Returns the newest id."""
        for server in self.servers:
            ts = 0
            while True:
                read = Read((channel, self.life), time.monotonic(), after=ts)
                reply = server.get(f"{channel}?ts={ts}&view=full&epoch=")
                read.total = reply.total
                take(read, reply.json(), time.monotonic())
                self.history.add(read)
                if read.ts == ts:
                    break
                ts = read.ts
        return ts


def bounds():
    """Of a part of a history: how long the clients go on between two faults."""
    return (0.3, 0.6) if SLOW else (0.1, 0.3)
