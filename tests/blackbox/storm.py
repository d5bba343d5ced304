"""Publishers, pollers, deadlines and hang-ups, all racing on one channel of one server or of several that share a store.

Every reply is checked.

What is checked, for every poll that asked for the updates after N:
- its reply holds exactly the updates N+1 to T, each the one that its id stands for everywhere else: none missed, none doubled;
- an empty reply comes neither before its deadline nor when an update after N was acknowledged before the poll was sent;
- it ends at all: a round is over only when every poller has seen every update, and most polls sleep for a minute.
"""

import json
import random
import time
from collections import Counter

from http_client import request_bytes
from swarm import Swarm

ROUND_S = 30


class Poller:
    def __init__(self, storm):
        self.storm = storm
        self.ts = 0
        self.connect()

    def connect(self):
        """To any of the servers: who hangs up may go on with another."""
        address = self.storm.rng.choice(self.storm.addresses)
        self.wire = self.storm.swarm.open(self.answered, self.storm.lost, address)
        self.poll()

    def poll(self):
        rng = self.storm.rng
        kind = rng.random()
        if kind < 0.45:
            self.sleep_s = 60
        elif kind < 0.60:
            self.sleep_s = 0
        else:
            self.sleep_s = rng.randint(1, 20) / 1000
        self.asked_at = time.monotonic()
        self.acknowledged_before = self.storm.acknowledged
        self.wire.send(self.storm.poll_request(self.ts, self.sleep_s))
        if rng.random() < 0.08:
            self.hang_up_later(rng.choice((0, rng.random() * 0.01)), reset=rng.random() < 0.5)

    def hang_up_later(self, seconds, reset):
        wire = self.wire

        def hang_up():
            if wire.is_open and self.wire is wire:
                wire.close(reset)
                self.storm.outcomes["hang-up"] += 1
                self.connect()

        self.storm.swarm.after(seconds, hang_up)

    def answered(self, _wire, reply):
        storm = self.storm
        assert reply.status == 200, reply
        answer = reply.json()
        assert answer.keys() == {"ok", "ts", "updates"}, f"after {self.ts}: {answer}"
        updates = answer["updates"]
        assert answer["ts"] == self.ts + len(updates), f"after {self.ts}: {answer}"
        for id_, update in enumerate(updates, start=self.ts + 1):
            storm.saw(id_, update["p"], update["n"])
        if updates:
            storm.outcomes["update"] += 1
        else:
            waited_s = time.monotonic() - self.asked_at
            assert self.acknowledged_before <= self.ts, f"missed: {self.acknowledged_before} was there, asked after {self.ts}"
            assert waited_s >= self.sleep_s, f"early: after {waited_s} of {self.sleep_s} s"
            storm.outcomes["deadline"] += 1
        self.ts = answer["ts"]
        self.poll()


class Publisher:
    def __init__(self, storm, address, number):
        self.storm = storm
        self.address = address
        self.number = number
        self.sent = 0
        self.unanswered = []
        self.connect()

    def connect(self):
        self.unanswered = []
        self.wire = self.storm.swarm.open(self.answered, self.storm.lost, self.address)

    def publish(self):
        """One to three pushes at once; now and then it does not wait for the answer."""
        data = b""
        for _ in range(self.storm.rng.randint(1, 3)):
            self.sent += 1
            self.unanswered.append(self.sent)
            data += self.storm.push_request(self.number, self.sent)
        self.wire.send(data)
        if self.storm.rng.random() < 0.03:
            self.wire.close(reset=self.storm.rng.random() < 0.5)
            self.storm.outcomes["publisher gone"] += 1
            self.connect()

    def answered(self, _wire, reply):
        assert (reply.status, reply.body) == (200, b"OK"), reply
        self.storm.saw(reply.total, self.number, self.unanswered.pop(0))
        self.storm.acknowledged = max(self.storm.acknowledged, reply.total)


class Storm:
    def __init__(self, addresses, channel, seed, pollers=150, publishers=6):
        self.rng = random.Random(seed)
        self.addresses = addresses
        self.channel = channel
        self.swarm = Swarm()
        self.update_of = {}
        self.id_of = {}
        self.acknowledged = 0
        self.outcomes = Counter()
        self.publishers = [Publisher(self, addresses[n % len(addresses)], n) for n in range(publishers)]
        self.pollers = [Poller(self) for _ in range(pollers)]

    def poll_request(self, ts, sleep_s):
        return f"GET {self.channel}?ts={ts}&sleep={sleep_s} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    def push_request(self, publisher, n):
        return request_bytes("POST", self.channel, json.dumps({"p": publisher, "n": n}))

    def lost(self, _wire):
        raise AssertionError("the server closed a connection")

    def saw(self, id_, publisher, n):
        """An id stands for one push, and a push for one id, for everyone and for ever."""
        update = (publisher, n)
        assert self.update_of.setdefault(id_, update) == update, f"id {id_} is {self.update_of[id_]} and {update}"
        assert self.id_of.setdefault(update, id_) == id_, f"{update} is {self.id_of[update]} and {id_}"

    def races(self):
        return self.outcomes["update"] + self.outcomes["deadline"] + self.outcomes["hang-up"]

    def run(self, races):
        with self.swarm:
            while self.races() < races:
                self.round()

    def round(self):
        """Every publisher publishes at a moment of its own; over when every poller has seen everything."""
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
            last = {poller.ts for poller in self.pollers}
            return len(last) == 1 and last.pop() >= self.acknowledged

        self.swarm.run(settled, ROUND_S, "a round (a poll was not woken)")
