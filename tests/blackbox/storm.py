"""Publishers, pollers, streams, deadlines and hang-ups, all racing on one channel.

One server serves the channel, or several that share a store. Beside what crowd.py checks:
- a poll is not answered empty before its deadline, nor when an update that it asked for was
  acknowledged before it was sent;
- every poll ends: a round is over only when every poller has seen every update, and most polls
  sleep for a minute;
- a poller with a filter gets all that it wants and nothing else, in order, and what it is not told
  of is counted.
"""

import time
from urllib.parse import quote

from crowd import Crowd, Follower, Publisher, Streamer
from http_client import request_bytes

ROUND_S = 30


class Poller(Follower):
    def __init__(self, storm):
        super().__init__(storm, storm.channel)
        self.connect()

    def connect(self):
        """Connects to any of the servers: after a hang-up it may go on with another one."""
        address = self.crowd.rng.choice(self.crowd.addresses)
        self.wire = self.crowd.swarm.open(self.answered, self.crowd.closed, address)
        self.poll()

    def poll(self):
        rng = self.crowd.rng
        kind = rng.random()
        if kind < 0.45:
            self.sleep_s = 60
        elif kind < 0.60:
            self.sleep_s = 0
        else:
            self.sleep_s = rng.randint(1, 20) / 1000
        self.asked_at = time.monotonic()
        self.acknowledged_before = self.crowd.acknowledged
        self.ask(self.wire, self.sleep_s)
        if rng.random() < 0.08:
            self.hang_up_later(rng.choice((0, rng.random() * 0.01)), reset=rng.random() < 0.5)

    def hang_up_later(self, seconds, reset):
        wire = self.wire

        def hang_up():
            if wire.is_open and self.wire is wire:
                wire.close(reset)
                self.crowd.outcomes["hang-up"] += 1
                self.connect()

        self.crowd.swarm.after(seconds, hang_up)

    def handled(self, updates):
        if updates:
            self.crowd.outcomes["update"] += 1
        else:
            waited_s = time.monotonic() - self.asked_at
            before = self.acknowledged_before
            assert before <= self.ts, f"missed: {before} was there, asked after {self.ts}"
            assert waited_s >= self.sleep_s, f"early: after {waited_s} of {self.sleep_s} s"
            self.crowd.outcomes["deadline"] += 1
        self.poll()


# Filters, and what they mean.
FILTERS = (
    ("body.p:0|2", lambda p, n: p in (0, 2)),
    ("body.p:1", lambda p, n: p == 1),
    ("!body.n:*3|*7", lambda p, n: n % 10 not in (3, 7)),
    ("body.n:*00", lambda p, n: n % 100 == 0),
    ("!body.p:*", lambda p, n: False),
)


class Picker(Poller):
    """A poller with a filter."""

    def __init__(self, storm, number):
        self.where, self.wants = FILTERS[number % len(FILTERS)]
        self.seen = set()  # of those that are not checked yet
        self.checked = 0
        super().__init__(storm)

    def ask(self, wire, sleep_s):
        query = f"ts={self.ts}&sleep={sleep_s}&view=full&where={quote(self.where, safe='')}"
        wire.send(request_bytes("GET", f"{self.channel}?{query}"))

    def take(self, answer):
        assert answer.keys() <= {"ok", "ts", "skipped", "updates"}, f"after {self.ts}: {answer}"
        ids = [update["ts"] for update in answer["updates"]]
        assert ids == sorted(set(ids)) and all(self.ts < id_ <= answer["ts"] for id_ in ids), f"after {self.ts}: {answer}"
        skipped = answer.get("skipped", 0)
        assert answer["ts"] == self.ts + skipped + len(ids), f"after {self.ts}: {answer}"
        for update in answer["updates"]:
            body = update["body"]
            assert self.wants(body["p"], body["n"]), f"{self.where}: {body}"
            self.crowd.record.saw(self.channel, update["ts"], (body["p"], body["n"]), "picked")
        self.seen.update(ids)
        self.crowd.outcomes["picked"] += len(ids)

    def has_all(self, last):
        """Whether it has got all that it wants up to that id, which others have seen."""
        while self.checked < last:
            id_ = self.checked + 1
            update, _how = self.crowd.record.update_of[self.channel, id_]
            if self.wants(*update):
                if id_ not in self.seen:
                    assert self.ts < id_, f"{self.where}: {id_} was passed over"
                    return False
                self.seen.remove(id_)
            self.checked = id_
        return True


class Watcher(Streamer):
    """A stream that hangs up now and then, and goes on at any of the servers."""

    def __init__(self, storm):
        super().__init__(storm, storm.channel)
        self.connect()

    def connect(self):
        self.open_stream(self.crowd.rng.choice(self.crowd.addresses))

    def read_line(self, wire, line):
        super().read_line(wire, line)
        rng = self.crowd.rng
        if rng.random() < 0.02:
            wire.close(reset=rng.random() < 0.5)
            self.crowd.outcomes["stream hang-up"] += 1
            self.connect()


class Burst(Publisher):
    def publish(self):
        """Pushes one to three times at once, or a batch; now and then it does not wait for the answer."""
        rng = self.crowd.rng
        if rng.random() < 0.2:
            self.push_batch(rng.randint(1, 40))
        else:
            self.push(rng.randint(1, 3))
        if rng.random() < 0.03:
            self.wire.close(reset=rng.random() < 0.5)
            self.crowd.outcomes["publisher gone"] += 1
            self.connect()


class Storm(Crowd):
    def __init__(self, addresses, channel, seed, pollers=120, pickers=40, streams=12, publishers=6):
        super().__init__(seed)
        self.addresses = addresses
        self.channel = channel
        self.acknowledged = 0  # the newest id that a push was answered with
        self.publishers = [Burst(self, n, channel, addresses[n % len(addresses)]) for n in range(publishers)]
        self.pollers = [Poller(self) for _ in range(pollers)]
        self.watchers = [Watcher(self) for _ in range(streams)]
        self.pickers = [Picker(self, n) for n in range(pickers)]

    def acknowledge(self, channel, id_, update):
        super().acknowledge(channel, id_, update)
        self.acknowledged = max(self.acknowledged, id_)

    def races(self):
        return self.outcomes["update"] + self.outcomes["deadline"] + self.outcomes["hang-up"]

    def run(self, races):
        with self.swarm:
            while self.races() < races:
                self.round()

    def round(self):
        """Lets each publisher publish at its own moment; ends when every poller and stream has seen it all."""
        waiting = len(self.publishers)

        def publish(publisher):
            nonlocal waiting
            publisher.publish()
            waiting -= 1

        for publisher in self.publishers:
            self.swarm.after(self.rng.random() * 0.01, lambda publisher=publisher: publish(publisher))

        def settled():
            if waiting or any(publisher.unanswered for publisher in self.publishers):
                return False
            last = {follower.ts for follower in self.pollers + self.watchers}
            if len(last) != 1:
                return False
            newest = last.pop()
            return newest >= self.acknowledged and all(picker.has_all(newest) for picker in self.pickers)

        self.swarm.run(settled, ROUND_S, "a round (a poll or stream was not woken)")
