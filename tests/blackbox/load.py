"""Publishers and followers that go on while the Redis behind their servers fails.

It is killed, cut off, replaced or moved. A push may be refused with 503; what was acknowledged is
remembered. Followers poll their channel again and again, mostly with a minute's sleep, or read it by
streams. Beside what crowd.py checks: "reset" is said only if the load says that updates may be `lossy`,
and only to go back.

settle() ends when every follower has seen all that its channel holds: no poll was left asleep.
"""

import time
from collections import Counter

from crowd import Crowd, Follower, Publisher, Streamer
from longline_server import PATIENCE_S, wait_until

AGAIN_S = 0.02


def refusal(reply):
    """The description of a 503, which must be like every other."""
    error = reply.json()
    assert (reply.status, error["ok"], error["error_code"]) == (503, False, 503), reply
    assert int(reply.headers["retry-after"]) >= 1 and not reply.closes, reply
    return error["error_description"]


class SteadyPublisher(Publisher):
    """Pushes the next update as soon as the last one is answered."""

    def connect(self):
        super().connect()
        self.publish()

    def publish(self):
        self.idle = not self.crowd.publishing
        if not self.idle:
            self.asked_at = time.monotonic()
            self.push()

    def answered(self, wire, reply):
        self.crowd.slowest_push_s = max(self.crowd.slowest_push_s, time.monotonic() - self.asked_at)
        super().answered(wire, reply)

    def accepted(self):
        self.publish()

    def refused(self, reply):
        self.crowd.refused["push: " + refusal(reply)] += 1
        self.crowd.swarm.after(AGAIN_S, self.publish)


class SteadyFollower(Follower):
    """Polls for ever, on any of the servers, as if they were behind a load balancer."""

    def __init__(self, load, channel):
        super().__init__(load, channel)
        self.wires = [load.swarm.open(self.answered, load.closed, server.address) for server in load.servers]
        self.poll()

    def poll(self):
        sleep_s = self.crowd.rng.choice((60, 60, 60, 0.1, 0))
        self.ask(self.crowd.rng.choice(self.wires), sleep_s)

    def handled(self, _updates):
        # Some come back at once, some only after much has happened.
        self.crowd.swarm.after(self.crowd.rng.choice((0, 0, AGAIN_S, 0.2)), self.poll)

    def reset(self, answer):
        if not self.crowd.lossy:
            super().reset(answer)
        assert "missed" not in answer, answer
        assert answer["ts"] <= self.ts and answer["updates"] == [], f"after {self.ts}: {answer}"
        self.crowd.resets += 1

    def refused(self, reply):
        self.crowd.refused["poll: " + refusal(reply)] += 1
        self.crowd.swarm.after(AGAIN_S, self.poll)


class SteadyStreamer(Streamer):
    """A stream that goes on whenever one ends, as it does when Redis fails."""

    def __init__(self, load, channel, address):
        super().__init__(load, channel)
        self.open_stream(address)

    def reset(self, answer):
        if not self.crowd.lossy:
            super().reset(answer)
        assert answer["ts"] <= self.ts, f"after {self.ts}: {answer}"
        self.crowd.resets += 1

    def ended(self, _wire):
        self.crowd.outcomes["stream ended"] += 1
        self.crowd.swarm.after(AGAIN_S, self.begin)

    def refused(self, reply):
        self.crowd.refused["stream: " + refusal(reply)] += 1
        self.crowd.swarm.after(AGAIN_S, self.begin)


class Load(Crowd):
    """`servers` share a store. Use it as a context manager."""

    def __init__(self, servers, channels=4, publishers=16, followers=4, lossy=False, seed=1):
        super().__init__(seed, lossy)
        self.servers = servers
        self.lossy = lossy
        self.publishing = True
        self.acknowledged = []  # (channel, id, update)
        self.refused = Counter()
        self.resets = 0
        self.slowest_push_s = 0
        self.channels = channels if isinstance(channels, list) else [servers[0].channel() for _ in range(channels)]
        for server in servers:
            server.channels.update(channel[1:] for channel in self.channels)
        self.followers = [SteadyFollower(self, channel) for channel in self.channels for _ in range(followers)]
        self.followers += [SteadyStreamer(self, channel, server.address) for channel in self.channels for server in servers]
        self.publishers = [
            SteadyPublisher(self, n, self.channels[n % len(self.channels)], servers[n % len(servers)].address)
            for n in range(publishers)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.swarm.__exit__()

    def acknowledge(self, channel, id_, update):
        super().acknowledge(channel, id_, update)
        self.acknowledged.append((channel, id_, update))

    def run(self, until, what="the load", timeout_s=2 * PATIENCE_S):
        self.swarm.run(until, timeout_s, what)

    def run_for(self, pushes, of=None):
        """Runs until that many more pushes are acknowledged, counting only the channels in `of`."""

        def count():
            return len(self.acknowledged) if of is None else sum(1 for channel, _, _ in self.acknowledged if channel in of)

        wanted = count() + pushes
        self.run(lambda: count() >= wanted, f"{pushes} more pushes ({dict(self.refused)})")

    def run_until_refused(self):
        """Runs until one more push is refused."""
        before = self.refusals
        self.run(lambda: self.refusals > before, "a push to be refused")

    @property
    def refusals(self):
        return sum(count for what, count in self.refused.items() if what.startswith("push"))

    def during(self, action):
        """Goes on while `action` runs in a thread; returns its result."""
        return self.swarm.during(action)

    def settle(self):
        """Stops publishing; ends when every push is answered and every follower has seen it all."""
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
        """What was acknowledged and is not stored under its id, as (channel, id, update).

        Nothing may be stored twice.
        """
        stored = {}
        for channel in self.channels:
            updates = [(u["p"], u["n"]) for _, u in (server or self.servers[0]).read_all(channel)]
            assert len(set(updates)) == len(updates), "an update is stored twice"
            stored[channel] = dict(enumerate(updates, start=1))
        return [(channel, id_, update) for channel, id_, update in self.acknowledged if stored[channel].get(id_) != update]

    def __str__(self):
        return (
            f"{len(self.acknowledged)} acknowledged, refused {dict(self.refused)}, {self.resets} told to reset, "
            f"{self.outcomes['stream ended']} streams ended, "
            f"slowest push {self.slowest_push_s:.2f} s"
        )
