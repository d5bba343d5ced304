"""What clients did and were told, and the proof that one log per channel explains all of it.

A history is linearizable if every operation can be given one moment between its beginning and its end, so that in the order of
these moments each reply is the one that a channel gives which does one thing at a time. Channels are independent of each other,
and so judged one by one. A channel is a list of updates that only grows at its end, and a floor that only rises: an update is
there if its id is above it.

- a push appends its updates, in a row, all or none; a push that was refused appends nothing; one whose fate its client does not
  know appends at most once;
- a read sees the updates behind its cursor as they are at its moment: those up to the floor are `missed`, none is left out,
  and none is there that is not pushed yet;
- a purge raises the floor.

check() looks at each reply by itself first, and then builds a graph of what must come before what: by the clock (an operation
that ended before another began) and by the replies (who saw an update comes after its push; who did not, before). If it has a
cycle, there is no such order. (Of several purges that can have raised the floor, any may have been the first.)
"""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from math import inf

STORED, REFUSED, UNKNOWN = "stored", "refused", "unknown"
LATE_S = 2  # what a consumer has confirmed so long before a crash is saved


@dataclass(eq=False)
class Operation:
    channel: object
    began: float
    ended: float = inf  # of one that was not answered: when it can no longer have done anything


@dataclass(eq=False)
class Push(Operation):
    updates: list = field(default_factory=list)  # each unlike any other of the history
    fate: str = STORED
    last: int | None = None  # the id that it was answered with


@dataclass(eq=False)
class Read(Operation):
    """What a poll, a part of one, or the line of a stream said."""

    after: int = 0  # where it began
    ts: int = 0
    found: list = field(default_factory=list)  # (id, update)
    missed: int = 0
    skipped: int = 0
    total: int | None = None  # the newest id, if it said so
    wants: object = None  # update → whether its filter wants it; then what is missed need not come first
    wanted_last: int | None = None  # it asked for the last so many
    sent_epoch: str | None = None
    epoch: str | None = None
    reset: bool = False
    is_foreign: bool = False  # its cursor was of data that are lost
    may_be_stale: bool = False  # unless it says that nothing is new, or the store was away meanwhile, its moment may lie before its beginning


@dataclass(eq=False)
class Purge(Operation):
    upto: int | None = None
    fate: str = STORED
    gone: int | None = None


@dataclass(eq=False)
class Confirmation(Operation):
    """What a named consumer has confirmed by a poll, or where a poll without a cursor began."""

    name: str = ""
    confirms: float | None = None  # inf: it is not known how much
    begins: int | None = None


class Violation(AssertionError):
    pass


def require(condition, what, *operations):
    if not condition:
        raise Violation("\n  ".join([what, *map(str, operations)]))


@dataclass
class History:
    operations: list = field(default_factory=list)
    crashes: list = field(default_factory=list)  # (from, to): an epoch may end, and what was confirmed just before may be lost
    outages: list = field(default_factory=list)  # the same of a store that several servers share: what was confirmed may be saved later
    is_shared: bool = False  # by several servers: they hear late what a consumer has confirmed, and cut from a read what is purged meanwhile

    def add(self, operation):
        self.operations.append(operation)
        return operation

    def check(self):
        """Raises a Violation, or returns how many operations it has explained."""
        channels = defaultdict(list)
        for operation in self.operations:
            channels[operation.channel].append(operation)
        for operations in channels.values():
            log = Log(operations)
            Order(log, self.is_shared, self.outages).check()
            check_epochs(log.reads, self.crashes)
            check_consumers([o for o in operations if isinstance(o, Confirmation)], self.crashes + self.outages, self.is_shared)
        return len(self.operations)


# --- Each reply by itself: which update every id stands for ---------------------------------------------


class Log:
    """The updates of one channel, as all replies together tell them."""

    def __init__(self, operations):
        self.pushes = [o for o in operations if isinstance(o, Push)]
        self.reads = [o for o in operations if isinstance(o, Read)]
        self.purges = [o for o in operations if isinstance(o, Purge)]
        self.update_of, self.id_of = {}, {}
        self.push_of = {update: push for push in self.pushes for update in push.updates}
        self.place_answers()
        self.place_findings()
        self.place_batches()
        told = [r.ts for r in self.reads] + [r.total or 0 for r in self.reads] + [p.gone or 0 for p in self.purges]
        self.newest = max([0, *self.update_of, *told])
        self.check_unknown()
        for read in self.reads:
            self.check_page(read)

    def place(self, id_, update, operation):
        require(self.update_of.setdefault(id_, update) == update, f"id {id_} is {self.update_of[id_]} and {update}", operation)
        require(self.id_of.setdefault(update, id_) == id_, f"{update} has the ids {self.id_of[update]} and {id_}", operation)

    def place_answers(self):
        for push in self.pushes:
            if push.fate == STORED:
                for id_, update in enumerate(push.updates, push.last - len(push.updates) + 1):
                    require(id_ > 0, "an id below 1", push)
                    self.place(id_, update, push)

    def place_findings(self):
        for read in self.reads:
            for id_, update in read.found:
                push = self.push_of.get(update)
                require(push, f"{update} was pushed by nobody", read)
                require(push.fate != REFUSED, f"{update} was refused, and is read", push, read)
                self.place(id_, update, read)

    def place_batches(self):
        """One update of a batch says where all are."""
        for push in self.pushes:
            firsts = {self.id_of[update] - i for i, update in enumerate(push.updates) if update in self.id_of}
            require(len(firsts) <= 1, "the updates of a batch are not in a row", push)
            for first in firsts:
                push.last = first + len(push.updates) - 1
                for id_, update in enumerate(push.updates, first):
                    self.place(id_, update, push)

    def check_unknown(self):
        """Ids of which nobody saw the update are those of pushes whose fate is not known."""
        nameless = self.newest - len(self.update_of)
        lost = sum(len(push.updates) for push in self.pushes if push.fate == UNKNOWN and push.last is None)
        require(nameless <= lost, f"{nameless} ids have no update, but only {lost} updates may have been stored unseen")

    def may_be_forgotten(self, read):
        """After a new epoch, nobody knows any more where the cursor was if that is purged: the reader gets what is kept in any case."""
        purged = any(p.began < read.ended and (p.upto is None or p.upto > read.after) for p in self.purges)
        return purged and read.sent_epoch not in (None, read.epoch)

    def check_page(self, read):
        require(read.reset or not read.is_foreign, "no reset, but data were lost", read)
        require(not read.reset or read.is_foreign or self.may_be_forgotten(read), "a reset, and nothing was lost", read)
        if read.reset:
            require(read.ts == 0 and not read.found, "a reset to where no data are", read)
            return
        ids = [id_ for id_, _ in read.found]
        floor = read.after if read.wants else read.after + read.missed
        require(ids == sorted(set(ids)) and all(floor < id_ <= read.ts for id_ in ids), "ids that are not in order or not in the page", read)
        require(read.ts == read.after + read.missed + read.skipped + len(ids), "ids are left out", read)
        require(read.wants or not read.skipped, "skipped without a filter", read)
        require(read.total is None or read.ts <= read.total, "ts is ahead of the channel", read)
        if read.wants:
            passed = [id_ for id_ in set(range(read.after + 1, read.ts + 1)).difference(ids) if id_ in self.update_of and read.wants(self.update_of[id_])]
            purged = [id_ for id_ in passed if any(p.began < read.ended and (p.upto is None or p.upto >= id_) for p in self.purges)]
            require(passed == purged and len(passed) <= read.missed, f"the filter wants {passed[:3]}, which is left out", read)
            strange = [update for _, update in read.found if not read.wants(update)]
            require(not strange, f"the filter does not want {strange[:3]}", read)


# --- All together: an order ----------------------------------------------------------------------------


class Order:
    """The graph of one channel. A node is a moment: of the clock, of an operation, of a change of the log or the floor."""

    def __init__(self, log, is_shared, outages):
        self.log, self.is_shared, self.outages = log, is_shared, outages
        self.after = []  # of each node, the nodes that come later
        self.names = []
        self.moments = {}  # operation → (begin, end)
        self.chain_clock([*log.pushes, *log.reads, *log.purges])
        self.chain_appends()
        self.chain_floors()
        for push in log.pushes:
            if push.last is not None:
                self.within(push, self.appends[self.append_at[push.last]])
        for read in log.reads:
            if not read.reset:
                self.add_read(read)
        for purge in log.purges:
            if purge.fate == STORED:
                self.add_purge(purge)

    def node(self, name):
        self.after.append([])
        self.names.append(name)
        return len(self.names) - 1

    def before(self, first, second):
        if first is not None and second is not None:
            self.after[first].append(second)

    def chain(self, nodes):
        for first, second in zip(nodes, nodes[1:]):
            self.before(first, second)

    def chain_clock(self, operations):
        """Operations that touch are concurrent."""
        events = sorted([(o.began, 0, i) for i, o in enumerate(operations)] + [(o.ended, 1, i) for i, o in enumerate(operations)])
        nodes = {(is_end, i): self.node(("ends" if is_end else "begins", operations[i])) for _, is_end, i in events}
        self.chain([nodes[is_end, i] for _, is_end, i in events])
        self.moments = {o: (nodes[0, i], nodes[1, i]) for i, o in enumerate(operations)}

    def within(self, operation, node, may_be_stale=False):
        began, ended = self.moments[operation]
        if not may_be_stale:
            self.before(began, node)
        self.before(node, ended)

    def chain_appends(self):
        """One moment for each push that was stored; one for each id of which nobody knows the push."""
        self.appends, self.append_at, self.lasts = [], {}, []
        id_ = 0
        while id_ < self.log.newest:
            push = self.log.push_of.get(self.log.update_of.get(id_ + 1))
            last = push.last if push else id_ + 1
            self.append_at.update(dict.fromkeys(range(id_ + 1, last + 1), len(self.appends)))
            self.appends.append(self.node(f"the log grows to {last}, by {push}"))
            self.lasts.append(last)
            id_ = last
        self.chain(self.appends)

    def chain_floors(self):
        """The floor takes the values that replies tell, and each of them by a purge."""
        values = {r.after + r.missed for r in self.log.reads if r.missed and not r.wants} | {p.gone for p in self.log.purges if p.gone}
        values |= {r.after for r in self.log.reads if self.tells_floor(r)} - {0}
        self.floors = sorted(values)
        self.floor_nodes = {value: self.node(f"the floor rises to {value}") for value in self.floors}
        self.chain([self.floor_nodes[value] for value in self.floors])
        for value in self.floors:
            self.explain_floor(value)

    @staticmethod
    def tells_floor(read):
        """The last K, and there were fewer."""
        return read.wanted_last is not None and len(read.found) < read.wanted_last and not read.wants

    def explain_floor(self, value):
        causes = [p for p in self.log.purges if p.fate != REFUSED and (p.upto is None or p.upto >= value)]
        require(causes, f"updates up to {value} are gone, and nobody purged them")
        node = self.floor_nodes[value]
        self.before(self.appends[self.append_at[value]], node)
        self.before(self.moments[min(causes, key=lambda p: p.began)][0], node)
        self.before(node, self.moments[max(causes, key=lambda p: p.ended)][1])

    def next_floor(self, value):
        at = bisect_right(self.floors, value)
        return self.floor_nodes[self.floors[at]] if at < len(self.floors) else None

    def sees_total(self, node, total, operation):
        """At that moment the newest id is `total`."""
        if total:
            at = self.append_at[total]
            require(self.lasts[at] == total, "a batch is seen in part", operation)
            self.before(self.appends[at], node)
            self.before(node, self.appends[at + 1] if at + 1 < len(self.appends) else None)
        elif self.appends:
            self.before(node, self.appends[0])

    def add_read(self, read):
        node = floor_node = self.node(read)
        is_in_outage = any(began < read.ended and read.began < ended for began, ended in self.outages)
        is_stale = read.may_be_stale and (read.ts > read.after or read.wanted_last is not None or is_in_outage)
        self.within(read, node, is_stale)
        if self.is_shared:
            floor_node = self.node(f"what is purged is cut from {read}")
            self.within(read, floor_node, is_stale)
            self.before(node, floor_node)
        if read.total is not None:
            self.sees_total(node, read.total, read)
        if read.ts:
            self.before(self.appends[self.append_at[read.ts]], node)
        floor = read.after + read.missed
        if read.wants:  # it may have looked at the first ones before they were purged: what it brings is there
            floor = read.found[0][0] - 1 if read.found else self.log.newest
        elif read.missed or self.tells_floor(read):
            self.before(self.floor_nodes.get(floor), floor_node)
        self.before(floor_node, self.next_floor(floor))

    def add_purge(self, purge):
        node = self.node(purge)
        self.within(purge, node)
        self.before(self.floor_nodes.get(purge.gone), node)
        self.before(node, self.next_floor(purge.gone))
        if purge.upto is None or purge.gone < purge.upto:
            self.sees_total(node, purge.gone, purge)

    def check(self):
        """Takes away what nothing comes before, until nothing is left: the rest has a cycle."""
        waits = [0] * len(self.after)
        for nodes in self.after:
            for node in nodes:
                waits[node] += 1
        free = [node for node, count in enumerate(waits) if not count]
        while free:
            for node in self.after[free.pop()]:
                waits[node] -= 1
                if not waits[node]:
                    free.append(node)
        if any(waits):
            cycle = self.cycle({node for node, count in enumerate(waits) if count})
            require(False, "no order explains this, each before the next:", *[self.names[node] for node in cycle])

    def cycle(self, rest):
        """Every node of the rest has one of the rest before it: going back, we come to where we were."""
        before = {node: first for first in rest for node in self.after[first] if node in rest}
        path, node = {}, next(iter(rest))  # a node, and how far it is
        while node not in path:
            path[node] = len(path)
            node = before[node]
        return list(path)[path[node] :][::-1]


# --- Epochs and consumers ------------------------------------------------------------------------------


def check_epochs(reads, crashes):
    """A channel has one epoch after the other, and another only where data may have been lost."""
    spans = {}
    for read in reads:
        if read.epoch not in (None, "0"):
            first, last = spans.get(read.epoch, (inf, -inf))
            spans[read.epoch] = min(first, read.ended), max(last, read.began)
    order = sorted(spans.items(), key=lambda item: item[1])
    for (old, (_, last)), (new, (first, _)) in zip(order, order[1:]):
        require(last <= first, f"the epoch {old} comes back behind {new}")
        require(any(last <= to and start <= first for start, to in crashes), f"the epoch {old} became {new}, and no data were lost")


def check_consumers(confirmations, crashes, are_late):
    """A poll without a cursor begins where the consumer is: behind all that was confirmed before, not ahead of what was."""

    def is_saved(confirmation, read):
        if are_late and read.began < confirmation.ended + LATE_S:
            return False
        return not any(confirmation.ended + LATE_S > start and to > confirmation.ended and start < read.ended for start, to in crashes)

    for read in confirmations:
        if read.begins is None:
            continue
        others = [c for c in confirmations if c.name == read.name and c.confirms is not None and c is not read]
        lowest = max([0, *(c.confirms for c in others if c.ended < read.began and c.confirms != inf and is_saved(c, read))])
        highest = max([0, *(c.confirms for c in others if c.began < read.ended)])
        require(read.begins >= lowest, f"{lowest} was confirmed, and is told again", read)
        require(read.begins <= highest, f"no more than {highest} was confirmed, and what follows is left out", read)
