"""Many clients, restarts, kills: whatever they were told, one log per channel explains it (histories.py).

HISTORIES says how many histories are recorded of each store. script/torture sets it to a hundred.
"""

import os
import random
import signal

import pytest

from histories import REFUSED, STORED, UNKNOWN, Confirmation, History, Purge, Push, Read, Violation
from longline_server import PATIENCE_S, wait_until
from recorders import Play, bounds
from redis_server import DURABLE

HISTORIES = int(os.environ.get("HISTORIES", 1))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 30)))
SETTINGS = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}


# --- The checker itself: what is sound passes, and each fault is seen ---------------------------------


def push(began, ended, updates, last, channel="c", **more):
    return Push(channel, began, ended, updates=updates.split(), last=last, **more)


def lost_push(began, updates, ended=float("inf")):
    return Push("c", began, ended, updates=updates.split(), fate=UNKNOWN)


def read(began, ended, after, updates, ts=None, **more):
    """Of updates that stand in a row, `missed` ones before them."""
    first = after + more.get("missed", 0) + 1
    found = list(enumerate(updates.split(), first))
    return Read("c", began, ended, after=after, ts=found[-1][0] if ts is None else ts, found=found, **more)


def purge(began, ended, upto, gone, **more):
    return Purge("c", began, ended, upto=upto, gone=gone, **more)


def confirmed(began, ended, confirms=None, begins=None):
    return Confirmation("c", began, ended, name="bot", confirms=confirms, begins=begins)


def history_of(*operations, **more):
    return History(list(operations), **more)


A = push(0, 1, "a", 1)
BC = push(2, 3, "b c", 3)
WANTS = {"wants": lambda update: update in "ac"}

SOUND = {
    "nothing": [],
    "a push that is read": [A, read(2, 3, 0, "a", total=1)],
    "a read beside the push sees it": [push(0, 9, "a", 1), read(1, 2, 0, "a")],
    "a read beside the push does not": [push(0, 9, "a", 1), read(1, 2, 0, "", ts=0, total=0)],
    "pushes side by side, in either order": [push(0, 9, "a", 2), push(1, 8, "b", 1), read(9.5, 10, 0, "b a")],
    "an unknown push that is stored later": [lost_push(0, "a"), read(1, 2, 0, "", ts=0, total=0), read(3, 4, 0, "a")],
    "an unknown push that never is": [lost_push(0, "x"), A, read(2, 3, 0, "a", total=1)],
    "a page": [A, BC, read(4, 5, 0, "a b", total=3), read(6, 7, 2, "c", total=3)],
    "a filter": [A, BC, Read("c", 4, 5, after=0, ts=3, found=[(1, "a"), (3, "c")], skipped=1, **WANTS)],
    "a purge": [A, BC, purge(4, 5, 1, 1), read(6, 7, 0, "b c", missed=1, total=3)],
    "a read beside a purge": [A, BC, purge(4, 9, 1, 1), read(5, 6, 0, "a b c"), read(7, 8, 0, "b c", missed=1)],
    "a purge of all, beside a push": [A, purge(2, 9, None, 1), push(2, 9, "b", 2), read(10, 11, 0, "b", missed=1)],
    "an unknown purge that was done": [A, BC, Purge("c", 4, upto=1, fate=UNKNOWN), read(9, 10, 0, "b c", missed=1)],
    "purged unseen": [lost_push(0, "x"), push(2, 3, "a", 2), purge(4, 5, 1, 1), read(6, 7, 0, "a", missed=1)],
    "the newest is purged unseen": [A, lost_push(2, "x"), purge(4, 5, None, 2), read(6, 7, 0, "", ts=2, missed=2)],
    "a stale read where it is allowed": [A, push(2, 3, "b", 2), read(4, 5, 0, "a", total=1, may_be_stale=True)],
    "data that are lost, and told": [Read("c", 0, 1, after=7, ts=0, reset=True, is_foreign=True)],
    "a consumer": [confirmed(0, 1, confirms=3), confirmed(2, 3, begins=3), confirmed(4, 5, confirms=5), confirmed(4, 6, begins=3)],
}

UNSOUND = {
    "not read by a later poll": ("no order", [A, read(2, 3, 0, "", ts=0, total=0)]),
    "the newest is not read by a later poll": ("no order", [A, BC, read(4, 5, 0, "a", total=1)]),
    "read before its push": ("no order", [read(0, 1, 0, "a"), push(2, 3, "a", 1)]),
    "read by one, and then not by another": ("no order", [push(0, 9, "a", 1), read(1, 2, 0, "a"), read(3, 4, 0, "", ts=0, total=0)]),
    "pushes in the wrong order": ("no order", [push(0, 1, "a", 2), push(2, 3, "b", 1)]),
    "an unknown push stored after its server died": ("no order", [lost_push(0, "x", ended=1), push(2, 3, "a", 1), read(4, 5, 0, "a x")]),
    "a batch in part": ("a batch is seen in part", [A, BC, read(2, 4, 0, "a b", total=2)]),
    "a batch not in a row": ("not in a row", [lost_push(0, "b c"), Read("c", 1, 2, ts=3, found=[(1, "b"), (2, "x"), (3, "c")]), lost_push(0, "x")]),
    "a poll that ended after a later push was answered sees only that": ("no order", [A, push(2, 3, "b", 2), read(0, 1.5, 0, "a b")]),
    "an id twice": ("id 1 is", [A, push(2, 3, "b", 1)]),
    "an update twice": ("has the ids", [lost_push(0, "a"), read(1, 2, 0, "a"), read(3, 4, 1, "a", ts=2)]),
    "stored under another id": ("id 1 is", [A, lost_push(0, "x"), read(2, 3, 0, "x a")]),
    "an update of nobody": ("pushed by nobody", [read(0, 1, 0, "a")]),
    "an id of nobody": ("have no update", [push(0, 1, "a", 2)]),
    "refused, and read": ("was refused", [push(0, 1, "a", None, fate=REFUSED), read(2, 3, 0, "a")]),
    "a gap in a page": ("left out", [A, BC, Read("c", 4, 5, ts=3, found=[(1, "a"), (3, "c")])]),
    "a page out of order": ("not in order", [A, BC, Read("c", 4, 5, ts=3, found=[(1, "a"), (3, "c"), (2, "b")])]),
    "ts too far": ("left out", [A, BC, read(4, 5, 0, "a b", ts=3)]),
    "ts ahead": ("ahead of the channel", [A, BC, read(4, 5, 0, "a b c", total=2)]),
    "missed, and nobody purged": ("nobody purged", [A, BC, read(4, 5, 0, "b c", missed=1)]),
    "missed too much": ("nobody purged", [A, BC, purge(4, 5, 1, 1), read(6, 7, 0, "c", missed=2)]),
    "missed before the purge": ("no order", [A, BC, read(4, 5, 0, "b c", missed=1), purge(6, 7, 1, 1)]),
    "read after the purge": ("no order", [A, BC, purge(4, 5, 1, 1), read(6, 7, 0, "a b c")]),
    "a purge that comes undone": ("no order", [A, BC, purge(4, 9, 1, 1), read(5, 6, 0, "b c", missed=1), read(7, 8, 0, "a b c")]),
    "purges in the wrong order": ("no order", [A, BC, purge(4, 5, 3, 3), purge(6, 7, 1, 1)]),
    "a purge of all that leaves something": ("no order", [A, push(2, 3, "b", 2), purge(4, 5, None, 1)]),
    "a purge that takes what came after it": ("no order", [A, purge(2, 3, None, 2), push(4, 5, "b", 2)]),
    "a purge of less": ("no order", [A, push(2, 3, "b", 2), push(4, 5, "d", 3), purge(6, 7, 2, 1)]),
    "a purge of what nobody pushed": ("have no update", [A, purge(2, 3, None, 2)]),
    "a purge of too much": ("nobody purged", [A, BC, purge(4, 5, 1, 3), read(6, 7, 1, "b c")]),
    "the last two are fewer, and nobody purged": ("nobody purged", [A, BC, read(4, 5, 2, "c", wanted_last=2, total=3)]),
    "the filter leaves out too much": ("the filter wants", [A, BC, Read("c", 4, 5, ts=3, found=[(1, "a")], skipped=2, **WANTS)]),
    "the filter lets through": ("does not want", [A, BC, Read("c", 4, 5, ts=3, found=[(1, "a"), (2, "b"), (3, "c")], **WANTS)]),
    "skipped without a filter": ("skipped", [A, BC, Read("c", 4, 5, ts=3, found=[(1, "a"), (3, "c")], skipped=1)]),
    "a reset for nothing": ("nothing was lost", [A, Read("c", 4, 5, after=1, ts=0, reset=True)]),
    "a loss that is not told": ("no reset", [A, Read("c", 4, 5, after=0, ts=1, found=[(1, "a")], is_foreign=True)]),
    "stale, and empty": ("no order", [A, read(2, 3, 0, "", ts=0, total=0, may_be_stale=True)]),
    "stale, but of the future": ("no order", [read(0, 1, 0, "a", may_be_stale=True), push(2, 3, "a", 1)]),
    "an epoch that changes": ("no data were lost", [A, read(2, 3, 0, "a", epoch="e"), read(4, 5, 0, "a", epoch="f")]),
    "a consumer that goes back": ("told again", [confirmed(0, 1, confirms=3), confirmed(2, 3, begins=2)]),
    "a consumer that goes ahead": ("left out", [confirmed(0, 1, confirms=3), confirmed(2, 3, begins=4)]),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_history(name):
    assert history_of(*SOUND[name]).check() == len(SOUND[name])


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_history(name):
    what, operations = UNSOUND[name]
    with pytest.raises(Violation, match=what):
        history_of(*operations).check()


def test_channels_are_judged_by_themselves():
    other = push(0, 1, "x", 1, channel="d")
    assert history_of(A, other, read(2, 3, 0, "a", total=1)).check() == 3


def test_what_is_purged_while_a_reply_is_on_its_way():
    """Over a shared store a read may come of before a push, and lack what was purged behind it; never the other way."""
    cut = [A, BC, push(5, 6, "d", 4), purge(7, 8, 1, 1), read(4, 9, 0, "b c", missed=1, total=3)]
    history_of(*cut, is_shared=True).check()
    with pytest.raises(Violation, match="no order"):
        history_of(*cut).check()
    late = [A, BC, purge(4, 5, 1, 1), push(6, 7, "d", 4), read(3.5, 9, 0, "a b c d", total=4)]
    with pytest.raises(Violation, match="no order"):
        history_of(*late, is_shared=True).check()


def test_an_outage_ends_who_waits():
    """A poll that waited may end as if there were nothing new, if the store was away meanwhile."""
    empty = A, read(2, 3, 0, "", ts=0, total=0, may_be_stale=True)
    history_of(*empty, is_shared=True, outages=[(2.5, 4)]).check()
    with pytest.raises(Violation, match="no order"):
        history_of(*empty, is_shared=True, outages=[(0, 1), (8, 9)]).check()


def test_epochs_and_crashes():
    old, new = read(2, 3, 0, "a", epoch="e"), read(6, 7, 0, "a", epoch="f")
    history_of(A, old, new, crashes=[(4, 5)]).check()
    with pytest.raises(Violation, match="no data were lost"):
        history_of(A, old, new, crashes=[(0, 1), (8, 9)]).check()
    with pytest.raises(Violation, match="comes back"):
        history_of(A, old, new, read(10, 11, 0, "a", epoch="e"), crashes=[(4, 5), (8, 9)]).check()


def test_consumers_and_crashes():
    back = confirmed(0, 1, confirms=3), confirmed(9, 10, begins=2)
    history_of(*back, crashes=[(2, 3)]).check()
    history_of(*back, outages=[(2, 3)]).check()
    with pytest.raises(Violation, match="told again"):
        history_of(*back, crashes=[(3, 4)]).check()


# --- Real ones --------------------------------------------------------------------------------------


def play(servers, seed, faults, **options):
    """The clients at those servers, while faults come; each fault takes the play."""
    with Play(servers, seed, **options) as clients:
        for fault in faults:
            clients.run_for(clients.rng.uniform(*bounds()))
            fault(clients)
        clients.run_for(clients.rng.uniform(*bounds()))
        return clients.finish()


def kill(server):
    return lambda clients: clients.restart(server, server.kill9, is_crash=True)


def stop(server):
    return lambda clients: clients.restart(server, server.stop, is_crash=False)


def upgrade(server):
    return lambda clients: clients.swarm.during(server.upgrade)


def kill_in_upgrade(server):
    def end():
        server.send_signal(signal.SIGUSR2)
        server.kill9()

    return lambda clients: clients.restart(server, end, is_crash=True)


def tell(store, counts):
    print(f"{store}, seed {SEED}: {len(counts)} histories, {sum(counts)} operations explained")


def test_histories_of_sqlite(start):
    counts = []
    for n in range(HISTORIES):
        server = start(**SETTINGS).keep_address()
        faults = [kill(server), upgrade(server), stop(server), kill_in_upgrade(server)]
        random.Random(SEED + n).shuffle(faults)
        counts.append(play([server], SEED + n, faults))
        server.stop()
    tell("sqlite", counts)


def test_histories_of_memory(start):
    counts = []
    for n in range(HISTORIES):
        server = start(DATA_PROVIDER="memory", **SETTINGS).keep_address()
        counts.append(play([server], SEED + n, [kill(server), stop(server)], is_lost_with_process=True))
        server.stop()
    tell("memory", counts)


def test_a_store_that_loses_data_is_found_out(start):
    server = start(DATA_PROVIDER="memory", **SETTINGS).keep_address()

    def has_stored(clients):
        def has():
            return any(isinstance(operation, Push) and operation.fate == STORED for operation in clients.history.operations)

        clients.swarm.run(has, PATIENCE_S, "something to lose")

    with pytest.raises(Violation):
        play([server], SEED, [has_stored, kill(server)])


def test_histories_of_redis(start, redis_servers):
    redis = redis_servers.start(**DURABLE)

    def kill_redis(clients):
        def act():
            redis.kill9()
            redis.start()
            for server in servers:
                wait_until(lambda server=server: server.get("/-/health").status == 200, "Redis to be back")

        clients.outage(act)

    counts = []
    for n in range(HISTORIES):
        servers = [start(**redis.settings(REDIS_PREFIX=f"{n}:"), **SETTINGS).keep_address() for _ in range(2)]
        faults = [kill(servers[0]), kill_redis, upgrade(servers[1]), stop(servers[1])]
        random.Random(SEED + n).shuffle(faults)
        counts.append(play(servers, SEED + n, faults))
        for server in servers:
            server.stop()
    tell("redis", counts)
