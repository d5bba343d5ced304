"""A script of requests to a server that may die or refuse at any moment, and what must be true afterwards.

It notes what it sent and what it was told. Then, of each channel:
- what was acknowledged is there under its id, unless it was purged or is past the bound;
- what was refused is not there; what was not answered may be, a batch as a whole or not at all;
- the order is that in which it was sent, the ids are dense, and nothing is there twice;
- nothing that was purged comes back, and no consumer is taken past what it confirmed.
"""

import copy
import hashlib
import json

from http_client import GONE, request_bytes

REFUSED = "refused"
BATCH = {"Content-Type": "application/x-ndjson"}


class Ledger:
    """One channel: the numbers that were sent, in order, and what is known of each."""

    def __init__(self, channel, bound=None):
        self.channel = channel
        self.bound = bound  # CHANNEL_STORAGE_MAXSIZE
        self.told = {}  # number → id, REFUSED or None: nobody knows
        self.batches = []  # the numbers of each
        self.floors = {0}  # up to where it may be purged; the lowest certainly is

    @property
    def total(self):
        return max((id_ for id_ in self.told.values() if isinstance(id_, int)), default=0)

    def check(self, server):
        """Returns the newest id."""
        base, ids, total = read_kept(server, self.channel)
        allowed = {max(0, total - self.bound)} if self.bound else {floor for floor in self.floors if floor <= total}
        assert base in allowed, f"{base} updates are gone, not one of {allowed}"
        assert total >= self.total, f"the newest id is {total}, and was {self.total}"
        numbers = list(ids.values())
        assert numbers == sorted(set(numbers)), f"not in order, or twice: {numbers}"
        assert set(numbers) <= self.told.keys(), f"never sent: {set(numbers) - self.told.keys()}"
        for number, told in self.told.items():
            if told == REFUSED:
                assert number not in numbers, f"{number} was refused, and is there"
            elif told is not None and told > base:
                assert ids.get(told) == number, f"id {told} was {number}, and is {ids.get(told)}"
        for batch in self.batches:
            there = [number for number in batch if number in numbers]
            assert there in ([], batch) or base > 0, f"a part of a batch: {there} of {batch}"
        self.floors = {floor for floor in self.floors if floor >= base}
        return total


def read_kept(server, channel):
    """What a channel keeps: how many before are gone, {id: number}, and the newest id."""
    base, ids, ts = None, {}, 0
    while True:
        page = server.get(f"{channel}?ts={ts}").json()
        assert "reset" not in page, page
        missed = page.get("missed", 0)
        assert base is None or missed == 0, page
        base = missed if base is None else base
        first = ts + missed + 1
        ids.update(enumerate((update["n"] for update in page["updates"]), first))
        assert page["ts"] == first + len(page["updates"]) - 1, f"ids are not dense: {page}"
        ts = page["ts"]
        if not page["updates"]:
            return base, ids, ts


class Script:
    """`bound` is the server's CHANNEL_STORAGE_MAXSIZE, if channels have more than that."""

    def __init__(self, server, bound=None):
        self.server = server
        self.number = 0
        self.client = None
        self.ledgers = [Ledger(server.channel(), bound) for _ in range(5)]
        self.confirmed = 0  # what a consumer may have confirmed at most
        self.refusals = 0
        self.was_cut_off = False

    def fork(self, bound=None):
        """Another one that goes on from here."""
        new = Script(self.server)
        new.number, new.confirmed = self.number, self.confirmed
        new.ledgers = copy.deepcopy(self.ledgers)
        for ledger in new.ledgers:
            ledger.bound = bound
        return new

    @property
    def plain(self):
        return self.ledgers[0]

    # --- what is sent ---

    def ask(self, *requests):
        """Sends requests at once; returns their replies, and None for each that is not answered."""
        replies = []
        try:
            if self.client is None:
                self.client = self.server.client()
            self.client.send(b"".join(requests))
            for _ in requests:
                replies.append(self.client.read_reply())
        except GONE:
            self.was_cut_off = True
            self.hang_up()
        if replies and replies[-1].closes:
            self.hang_up()
        for reply in replies:
            assert reply.status in (200, 503), reply
            self.refusals += reply.status == 503
        return replies + [None] * (len(requests) - len(replies))

    def hang_up(self):
        if self.client:
            self.client.close()
            self.client = None

    def next_update(self, size):
        """No two are alike: where a page is written over one that differs in one bit, half of that looks like a flipped bit."""
        self.number += 1
        digest = hashlib.sha256(b"%d" % self.number).hexdigest()
        return self.number, json.dumps({"n": self.number, "x": (digest * (size // len(digest) + 1))[:size]})

    def push(self, ledger, count=1, size=10, headers=None, query=""):
        updates = [self.next_update(size) for _ in range(count)]
        for number, _ in updates:
            ledger.told[number] = None
        replies = self.ask(*(request_bytes("POST", ledger.channel + query, text, headers) for _, text in updates))
        for (number, _), reply in zip(updates, replies):
            if reply:
                ledger.told[number] = reply.total if reply.status == 200 else REFUSED

    def push_batch(self, ledger, count=5):
        updates = [self.next_update(10) for _ in range(count)]
        numbers = [number for number, _ in updates]
        ledger.told.update(dict.fromkeys(numbers))
        ledger.batches.append(numbers)
        (reply,) = self.ask(request_bytes("POST", ledger.channel, "\n".join(text for _, text in updates), BATCH))
        if reply:
            for n, number in enumerate(numbers):
                ledger.told[number] = reply.total - count + 1 + n if reply.status == 200 else REFUSED

    def purge(self, ledger):
        before = set(ledger.floors)
        unknown = sum(told is None for told in ledger.told.values())
        ledger.floors |= set(range(ledger.total, ledger.total + unknown + 1))
        (reply,) = self.ask(request_bytes("DELETE", ledger.channel))
        if reply:
            ledger.floors = {json.loads(reply.body)["gone"]} if reply.status == 200 else before

    def follow(self, ledger):
        """A consumer that goes on behind what it has confirmed, and confirms what it got."""
        (reply,) = self.ask(request_bytes("GET", f"{ledger.channel}?as=bot"))
        if reply and reply.status == 200:
            page = reply.json()
            assert page["ts"] - page["lag"] <= self.confirmed, f"taken past {self.confirmed}: {page}"
            self.confirmed = page["ts"]
            self.ask(request_bytes("GET", f"{ledger.channel}?as=bot&ts={page['ts']}"))

    def play(self):
        """Each kind of request, some of them pipelined so that they are stored together."""
        plain, batched, purged, named, once = self.ledgers
        self.push(plain, 3)
        self.push_batch(batched)
        self.push(named, 2)
        self.follow(named)
        self.push(plain, size=30_000)
        self.push(purged, 2)
        self.purge(purged)
        self.push(once, headers={"Webhook-Id": f"id-{self.number}"}, query="?.once")
        self.push(purged)
        self.push_batch(batched)
        self.follow(named)

    # --- what must be true ---

    def check(self):
        """Of a server that runs undisturbed: what it has, and that it goes on."""
        self.hang_up()
        for ledger in self.ledgers:
            total = ledger.check(self.server)
            self.push(ledger)
            assert ledger.told[self.number] == total + 1, f"behind {total} comes {ledger.told[self.number]}"
        self.follow(self.ledgers[3])
        self.hang_up()
