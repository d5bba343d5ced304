"""Publishers and followers that go on while the Redis behind their servers is killed, cut off, replaced or moved.

A push may be refused (503); what was acknowledged is remembered. Followers poll their channel on and on, most of the time with a
minute's sleep; every reply is checked:
- to a poll that asked for the updates after N it brings N+1 to T, none left out, each the one that its id stands for everywhere;
- a T below N never comes without "reset", and never at all unless the load is told that updates may be `lossy`.

settle() is over when every follower has seen all that its channel holds: no poll was left asleep on data.
"""

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from http_client import request_bytes
from longline_server import PATIENCE_S, wait_until
from swarm import Swarm

AGAIN_S = 0.02


def refusal(reply):
    """The description of a 503, which must be like every other."""
    error = reply.json()
    assert (reply.status, error["ok"], error["error_code"]) == (503, False, 503), reply
    assert int(reply.headers["retry-after"]) >= 1 and not reply.closes, reply
    return error["error_description"]


class Publisher:
    """Pushes one update after another to its channel, the next when the last is answered."""

    def __init__(self, load, number, channel, address):
        self.load = load
        self.number = number
        self.channel = channel
        self.n = 0
        self.wire = load.swarm.open(self.answered, load.lost_connection, address)
        self.push()

    def push(self):
        self.idle = not self.load.publishing
        if not self.idle:
            self.n += 1
            self.asked_at = time.monotonic()
            self.wire.send(request_bytes("POST", self.channel, json.dumps({"p": self.number, "n": self.n})))

    def answered(self, _wire, reply):
        load = self.load
        load.slowest_push_s = max(load.slowest_push_s, time.monotonic() - self.asked_at)
        if reply.status == 200:
            load.acknowledged.append((self.channel, reply.total, (self.number, self.n)))
            load.saw(self.channel, reply.total, (self.number, self.n), "acknowledged")
            self.push()
        else:
            load.refused["push: " + refusal(reply)] += 1
            load.swarm.after(AGAIN_S, self.push)


class Follower:
    """Polls its channel from the beginning on, for ever, now on this server and now on that, as behind a load balancer."""

    def __init__(self, load, channel):
        self.load = load
        self.channel = channel
        self.ts = 0
        self.wires = [load.swarm.open(self.answered, load.lost_connection, server.address) for server in load.servers]
        self.poll()

    def poll(self):
        sleep = self.load.rng.choice((60, 60, 60, 0.1, 0))
        self.load.rng.choice(self.wires).send(request_bytes("GET", f"{self.channel}?ts={self.ts}&sleep={sleep}"))

    def answered(self, _wire, reply):
        load = self.load
        if reply.status == 503:
            load.refused["poll: " + refusal(reply)] += 1
            load.swarm.after(AGAIN_S, self.poll)
            return
        assert reply.status == 200, reply
        answer = reply.json()
        assert "missed" not in answer, answer
        if "reset" in answer:
            assert load.lossy, f"nothing may be lost, but after {self.ts}: {answer}"
            assert answer["ts"] <= self.ts and answer["updates"] == [], f"after {self.ts}: {answer}"
            load.resets += 1
        else:
            assert answer["ts"] == self.ts + len(answer["updates"]), f"after {self.ts}: {answer}"
            for id_, update in enumerate(answer["updates"], start=self.ts + 1):
                load.saw(self.channel, id_, (update["p"], update["n"]), "delivered")
        self.ts = answer["ts"]
        # Some come back at once, some when much has come since.
        load.swarm.after(load.rng.choice((0, 0, AGAIN_S, 0.2)), self.poll)


class Load:
    """`servers` share a store. Use it as a context manager."""

    def __init__(self, servers, channels=4, publishers=16, followers=4, lossy=False, seed=1):
        self.servers = servers
        self.lossy = lossy
        self.rng = random.Random(seed)
        self.swarm = Swarm()
        self.publishing = True
        self.acknowledged = []  # (channel, id, update)
        self.update_of = {}
        self.refused = Counter()
        self.resets = 0
        self.slowest_push_s = 0
        self.channels = channels if isinstance(channels, list) else [servers[0].channel() for _ in range(channels)]
        for server in servers:
            server.channels.update(channel[1:] for channel in self.channels)
        self.followers = [Follower(self, channel) for channel in self.channels for _ in range(followers)]
        self.publishers = [
            Publisher(self, n, self.channels[n % len(self.channels)], servers[n % len(servers)].address) for n in range(publishers)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.swarm.__exit__()

    def lost_connection(self, _wire):
        raise AssertionError("longline closed a connection")

    def saw(self, channel, id_, update, how):
        """Where nothing may be lost, an id stands for one update, for everyone and for ever."""
        known, how_known = self.update_of.setdefault((channel, id_), (update, how))
        assert self.lossy or known == update, f"{channel}: id {id_} was {how_known} as {known}, and is {how} as {update}"

    def run(self, until, what="the load", timeout_s=2 * PATIENCE_S):
        self.swarm.run(until, timeout_s, what)

    def run_for(self, pushes, of=None):
        """Until so many more pushes are acknowledged (of the publishers that `of` picks)."""

        def count():
            return len(self.acknowledged) if of is None else sum(1 for channel, _, _ in self.acknowledged if channel in of)

        wanted = count() + pushes
        self.run(lambda: count() >= wanted, f"{pushes} more pushes ({dict(self.refused)})")

    def run_until_refused(self):
        """Until a push is refused anew."""
        before = self.refusals
        self.run(lambda: self.refusals > before, "a push to be refused")

    @property
    def refusals(self):
        return sum(count for what, count in self.refused.items() if what.startswith("push"))

    def during(self, action):
        """Goes on while `action` runs in a thread; returns what that returns."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(action)
            self.run(done.done, "what went on beside the load", 120)
            return done.result()

    def settle(self):
        """Publishes no more; over when every push is answered and every follower has seen what there is."""
        self.publishing = False
        self.run(lambda: all(publisher.idle for publisher in self.publishers), "the last pushes to be answered")
        total = {channel: self._total(channel) for channel in self.channels}

        def asleep():
            return [(f.ts, total[f.channel]) for f in self.followers if f.ts != total[f.channel]]

        try:
            self.run(lambda: not asleep(), "every poll to see everything")
        except AssertionError as error:
            raise AssertionError(f"{error}: {len(asleep())} of {len(self.followers)}, (at, of) {asleep()[:5]}") from None

    def _total(self, channel):
        return wait_until(lambda: (r := self.servers[0].get(channel + "?ts=-1")).status == 200 and r, "a poll's answer").total

    def lost(self, server=None):
        """What was acknowledged and is not there under its id, as (channel, id, update); nothing is there twice."""
        stored = {}
        for channel in self.channels:
            updates = [(u["p"], u["n"]) for _, u in (server or self.servers[0]).read_all(channel)]
            assert len(set(updates)) == len(updates), "an update is stored twice"
            stored[channel] = dict(enumerate(updates, start=1))
        return [(channel, id_, update) for channel, id_, update in self.acknowledged if stored[channel].get(id_) != update]

    def __str__(self):
        return (
            f"{len(self.acknowledged)} acknowledged, refused {dict(self.refused)}, {self.resets} told to reset, "
            f"slowest push {self.slowest_push_s:.2f} s"
        )
