"""Publishers and followers on one epoll loop, and the record of what they have seen.

storm.py and load.py say when they push, poll and hang up. What is checked of every reply is here:
- the answer to a poll for the updates after N holds exactly N+1 to T, with none left out;
- a stream brings every update, one after the other, from where it begins;
- an id stands for the same update everywhere, and an update has the same id everywhere.
"""

import json
import random
from collections import Counter

from http_client import request_bytes
from swarm import StreamWire, Swarm


class Record:
    """Which update each id stands for, as everyone has seen it.

    If updates may be `lossy`, an id may come to stand for another update.
    """

    def __init__(self, lossy=False):
        self.lossy = lossy
        self.update_of = {}
        self.id_of = {}

    def saw(self, channel, id_, update, how="seen"):
        """`how`: what happened to the update, for the message of a failure."""
        known, how_known = self.update_of.setdefault((channel, id_), (update, how))
        if self.lossy:
            return
        assert known == update, f"{channel}: id {id_} was {how_known} as {known}, and is {how} as {update}"
        known_id = self.id_of.setdefault((channel, update), id_)
        assert known_id == id_, f"{channel}: {update} has the ids {known_id} and {id_}"


class Crowd:
    """What publishers and followers share."""

    def __init__(self, seed, lossy=False):
        self.rng = random.Random(seed)
        self.swarm = Swarm()
        self.record = Record(lossy)
        self.outcomes = Counter()

    def acknowledge(self, channel, id_, update):
        """A push was answered with 200."""
        self.record.saw(channel, id_, update, "acknowledged")

    def closed(self, _wire):
        raise AssertionError("the server closed a connection")


class Publisher:
    """Pushes numbered updates to one channel."""

    def __init__(self, crowd, number, channel, address):
        self.crowd = crowd
        self.number = number
        self.channel = channel
        self.address = address
        self.sent = 0
        self.connect()

    def connect(self):
        self.unanswered = []
        self.wire = self.crowd.swarm.open(self.answered, self.crowd.closed, self.address)

    def push(self, count=1):
        """Sends that many pushes at once."""
        data = b""
        for _ in range(count):
            data += request_bytes("POST", self.channel, self.next_updates(1))
        self.wire.send(data)

    def push_batch(self, count):
        """Sends that many updates as one push."""
        self.wire.send(request_bytes("POST", self.channel, self.next_updates(count), {"Content-Type": "application/x-ndjson"}))

    def next_updates(self, count):
        numbers = range(self.sent + 1, self.sent + 1 + count)
        self.sent += count
        self.unanswered.append(numbers)
        return "\n".join(json.dumps({"p": self.number, "n": n}) for n in numbers)

    def answered(self, _wire, reply):
        numbers = self.unanswered.pop(0)
        if reply.status != 200:
            self.refused(reply)
            return
        assert reply.body == b"OK", reply
        for id_, n in enumerate(numbers, start=reply.total - len(numbers) + 1):
            self.crowd.acknowledge(self.channel, id_, (self.number, n))
        self.accepted()

    def accepted(self):
        """A push was acknowledged."""

    def refused(self, reply):
        raise AssertionError(reply)


class Follower:
    """Reads one channel from its beginning. Its kinds say when it polls, in poll()."""

    def __init__(self, crowd, channel):
        self.crowd = crowd
        self.channel = channel
        self.ts = 0

    def ask(self, wire, sleep_s):
        wire.send(request_bytes("GET", f"{self.channel}?ts={self.ts}&sleep={sleep_s}"))

    def answered(self, _wire, reply):
        if reply.status != 200:
            self.refused(reply)
            return
        answer = reply.json()
        if "reset" in answer:
            self.reset(answer)
        else:
            self.take(answer)
        self.ts = answer["ts"]
        self.handled(answer["updates"])

    def take(self, answer):
        assert answer.keys() == {"ok", "ts", "updates"}, f"after {self.ts}: {answer}"
        assert answer["ts"] == self.ts + len(answer["updates"]), f"after {self.ts}: {answer}"
        for id_, update in enumerate(answer["updates"], start=self.ts + 1):
            self.crowd.record.saw(self.channel, id_, (update["p"], update["n"]), "delivered")

    def handled(self, updates):
        """An answer was taken; these updates came with it."""
        raise NotImplementedError

    def reset(self, answer):
        raise AssertionError(f"nothing may be lost, but after {self.ts}: {answer}")

    def refused(self, reply):
        raise AssertionError(reply)


class Streamer(Follower):
    """Reads one channel by streams, each from where the one before it ended."""

    def open_stream(self, address):
        self.wire = self.crowd.swarm.open(self.answered, self.crowd.closed, address, StreamWire)
        self.wire.on_line, self.wire.on_end = self.read_line, self.ended
        self.begin()

    def begin(self):
        self.wire.send(request_bytes("GET", f"{self.channel}?feed=lines&ts={self.ts}"))

    def read_line(self, _wire, line):
        if not line:  # a heartbeat
            return
        said = json.loads(line)
        if "reset" in said:
            self.reset({"ts": said["ts"], "updates": []})
        elif "update" in said:
            assert said.keys() == {"ts", "update"} and said["ts"] == self.ts + 1, f"after {self.ts}: {said}"
            self.crowd.record.saw(self.channel, said["ts"], (said["update"]["p"], said["update"]["n"]), "streamed")
            self.crowd.outcomes["streamed"] += 1
        else:
            assert said == {"ts": self.ts}, f"after {self.ts}: {said}"
        self.ts = said["ts"]

    def answered(self, _wire, reply):
        self.refused(reply)

    def ended(self, _wire):
        raise AssertionError("a stream ended")
