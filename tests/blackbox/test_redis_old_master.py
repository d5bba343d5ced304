"""A master that comes back after another has taken its place: it does not know, and nothing that it says is believed.

The moments that matter last some milliseconds in a real failover. Here Sentinels and nodes of a cluster that play their part (fake_redis.py)
keep quiet as long as the test wants. What real ones do is in test_redis_sentinel.py and test_redis_cluster.py.
"""

import contextlib
import signal

import pytest

from fake_redis import FakeNode, FakeSentinel
from http_client import request_bytes
from load import refusal
from longline_server import wait_until
from redis_server import CLUSTER_DOWN, HOST, NO_ANSWER, TOO_FEW_REPLICAS, UNREACHABLE
from test_redis import away, check_serves, healthy, names, push_when_it_can, upstream_push

PATIENT = {"REDIS_TIMEOUT": 30_000}  # no connection is given up while a Redis is frozen for a second


class Pair:
    """A master, its replica, and a Sentinel that names the one that the test wants."""

    def __init__(self, servers, sentinel):
        self.old, self.new, self.sentinel = *servers, sentinel

    def promote(self):
        """The replica becomes a master; nobody is told."""
        assert self.new.command("REPLICAOF", "NO", "ONE") == "OK"

    def name_new(self):
        """The Sentinel answers again, and names the new master."""
        self.sentinel.name(self.new, epoch=2)
        self.sentinel.speak()

    def wait_while_asked(self, times):
        """Until the Sentinel has been asked so many times more: ten times a second, or when it is quiet, twice."""
        wanted = self.sentinel.questions + times
        wait_until(lambda: self.sentinel.questions >= wanted, "the questions")


@pytest.fixture
def pair(redis_servers):
    old = redis_servers.start()
    new = redis_servers.start(replicaof=f"{HOST} {old.port}")
    wait_until(lambda: new.info("replication")["master_link_status"] == "up", "the replica's copy")
    with FakeSentinel(old) as sentinel:
        yield Pair((old, new), sentinel)


def connected(redis):
    """How many connections a longline has to this Redis that have said who they are."""
    lines = redis.command("CLIENT", "LIST").splitlines()
    return sum(f"laddr={HOST}" in line and "cmd=NULL" not in line and "flags=S" not in line for line in lines)


def total(redis, channel):
    return int(redis.command("GET", names(channel)[1]) or 0)


def in_step(pair, server):
    """A channel that holds one update, which the replica has too."""
    channel = check_serves(server)
    wait_until(lambda: total(pair.new, channel) == 1, "the replica's copy")
    return channel


def comes_back(pair, server):
    """Freezes the old master until the server has given it up; a while later it is there again, and another is the master.

    Only the Sentinel, which is quiet, could tell.
    """
    pair.old.freeze()
    away(server)
    pair.sentinel.hush()
    pair.promote()
    pair.old.thaw()
    wait_until(lambda: connected(pair.old) >= 3, "the server to be back at the old master")


# --- a master that was given up, and is there again ---


def test_nothing_is_pushed_to_a_master_that_is_back_before_a_sentinel_names_it(pair, start):
    server = start(**pair.sentinel.settings())
    channel = in_step(pair, server)
    comes_back(pair, server)
    for _ in range(3):
        assert refusal(server.post(channel)) == UNREACHABLE
    assert away(server)
    assert total(pair.old, channel) == 1
    pair.name_new()
    stored = push_when_it_can(server, channel)
    assert (total(pair.old, channel), total(pair.new, channel)) == (1, stored)


def test_a_master_that_is_back_and_is_named_is_used_again(pair, start):
    server = start(**pair.sentinel.settings())
    channel = check_serves(server)
    pair.old.freeze()
    away(server)
    pair.old.thaw()
    healthy(server)
    assert push_when_it_can(server, channel) >= 2


def test_no_poll_is_told_to_reset_by_a_master_that_is_back(pair, start):
    """The consumer has seen three updates, two of them through another longline, at the new master."""
    server = start(**pair.sentinel.settings())
    channel = in_step(pair, server)
    comes_back(pair, server)
    for n in (2, 3):
        upstream_push(pair.new, channel, '{"n":%d}' % n)
    for query in ("?ts=3", "?ts=3&sleep=60", "?ts=1"):
        assert refusal(server.get(channel + query)) == UNREACHABLE
    pair.name_new()
    healthy(server)
    assert server.get(channel + "?ts=3").json() == {"ok": True, "ts": 3, "updates": []}
    assert server.get(channel + "?ts=1").updates == [{"n": 2}, {"n": 3}]


def test_no_poll_is_woken_by_a_master_that_is_back(pair, start):
    """Another longline, whom nobody has told, pushes there."""
    server = start(**pair.sentinel.settings())
    channel = in_step(pair, server)
    with FakeSentinel(pair.old) as misled, server.client() as client:
        other = start(**misled.settings())
        other.channels |= server.channels
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        comes_back(pair, server)
        assert push_when_it_can(other, channel, '{"n":"of the old"}') == 2
        pair.name_new()
        assert push_when_it_can(server, channel, '{"n":"of the new"}') == 2
        assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"n": "of the new"}]}


# --- a master that was not given up: it answers late ---


def pushed(server, channel):
    """A client whose push is under way: the server has sent it."""
    client = server.client()
    client.send(request_bytes("POST", channel, b'{"n":2}'))
    server.wait_for_metric("longline_connections", 2)
    server.get("/-/health")
    return client


def sent(trio, server, channel):
    """The same for a push to the old master of a cluster, which says nothing from now on."""
    trio.old.hush("EVALSHA")
    asked = trio.old.asked["EVALSHA"]
    client = pushed(server, channel)
    wait_until(lambda: trio.old.asked["EVALSHA"] == asked + 1, "the push to be sent")
    trio.old.hush()
    return client


def is_frozen(pair, server, channel):
    """Freezes the old master, sends it a push, and waits until it was silent for long; returns the client of the push."""
    pair.old.freeze()
    client = pushed(server, channel)
    pair.wait_while_asked(12)
    return client


def test_a_push_that_the_old_master_has_not_answered_is_not_known_when_another_is_named(pair, start):
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    client = is_frozen(pair, server, channel)
    pair.promote()
    pair.name_new()
    wait_until(lambda: f"redis master address={HOST}:{pair.new.port}" in server.log(), "the server to hear of it")
    pair.old.thaw()
    assert refusal(client.read_reply()) == NO_ANSWER
    assert push_when_it_can(server, channel) == total(pair.new, channel)
    client.close()


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "still the master"])
def test_a_late_answer_to_a_push_waits_for_a_sentinel(pair, start, is_replaced):
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    client = is_frozen(pair, server, channel)
    pair.sentinel.hush()
    if is_replaced:
        pair.promote()
    pair.old.thaw()
    wait_until(lambda: total(pair.old, channel) == 2, "the old master to take the push")
    assert away(server)
    if is_replaced:
        pair.name_new()
        assert refusal(client.read_reply()) == NO_ANSWER
        assert push_when_it_can(server, channel) == total(pair.new, channel)
    else:
        pair.sentinel.speak()
        reply = client.read_reply()
        assert (reply.status, reply.total) == (200, 2)
        assert server.push(channel) == 3
    client.close()


def test_a_late_answer_to_a_poll_is_not_given(pair, start):
    """What it says is old: the poll is answered by the new master."""
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    pair.old.freeze()
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2")
        pair.wait_while_asked(12)
        pair.sentinel.hush()
        pair.promote()
        upstream_push(pair.new, channel, '{"n":2}')
        pair.old.thaw()
        wait_until(lambda: pair.old.calls()["evalsha"] >= 2, "the old master to answer the poll")
        pair.name_new()
        assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": []}


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "still the master"])
def test_late_news_wait_for_a_sentinel(pair, start, is_replaced):
    """Another longline, whose Sentinel is misled, has pushed."""
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    with FakeSentinel(pair.old) as misled, server.client() as client:
        other = start(**misled.settings(**PATIENT))
        healthy(other)
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        with contextlib.closing(is_frozen(pair, other, channel)) as pusher:
            pair.sentinel.hush()
            if is_replaced:
                pair.promote()
            pair.old.thaw()
            assert pusher.read_reply().status == 200
            away(server)
            assert server.metric("longline_polls_parked") == 1
            if is_replaced:
                pair.name_new()
                assert push_when_it_can(server, channel, '{"n":"of the new"}') == 2
            else:
                pair.sentinel.speak()
            assert client.read_reply().updates == [{"n": "of the new"} if is_replaced else {"n": 2}]


def test_a_longline_that_was_frozen_with_its_master_and_its_sentinel(pair, start):
    """As when a machine is paused. Another Sentinel, elsewhere, knows."""
    with FakeSentinel(pair.old) as elsewhere:
        server = start(**pair.sentinel.settings(elsewhere))
        channel = in_step(pair, server)
        witness = start(**pair.sentinel.settings())  # its questions tell the time
        healthy(witness)
        with server.client() as client, pair.old.frozen():
            server.send_signal(signal.SIGSTOP)
            pair.promote()
            client.send(request_bytes("POST", channel, b'{"n":2}'))
            pair.wait_while_asked(12)
            elsewhere.name(pair.new, epoch=2)
            pair.old.thaw()
            server.send_signal(signal.SIGCONT)
            reply = client.read_reply()
        if reply.status == 200:
            assert (reply.total, total(pair.new, channel)) == (2, 2)
        elif refusal(reply) != NO_ANSWER:  # it has noticed before it had sent the push
            assert (refusal(reply), total(pair.new, channel)) == (UNREACHABLE, 1)
        assert push_when_it_can(server, channel) == total(pair.new, channel)


# --- what the Sentinels say ---


def test_a_sentinel_that_has_not_heard_of_the_failover_is_passed_over(pair, start):
    """It names the old master, of an older configuration, again and again."""
    with FakeSentinel(pair.old, epoch=1) as behind:
        server = start(**pair.sentinel.settings(behind))
        channel = in_step(pair, server)
        pair.promote()
        pair.name_new()
        assert wait_until(lambda: server.post(channel).status == 200 and total(pair.new, channel) >= 2, "the new master")
        pair.sentinel.hush()
        taken = [total(redis, channel) for redis in (pair.old, pair.new)]
        asked = behind.questions
        pair.new.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: behind.questions >= asked + 3, "it to be asked")
        assert refusal(server.post(channel)) == UNREACHABLE
        pair.sentinel.speak()
        assert push_when_it_can(server, channel) == taken[1] + 1
        assert [total(redis, channel) for redis in (pair.old, pair.new)] == [taken[0], taken[1] + 1]


def test_nothing_is_acknowledged_while_a_sentinel_replaces_the_master(pair, start):
    """The others have not noticed anything yet."""
    with FakeSentinel(pair.old) as unaware:
        server = start(**unaware.settings(pair.sentinel, **PATIENT))
        channel = in_step(pair, server)
        pair.sentinel.is_replacing(pair.old)
        away(server)
        taken = total(pair.old, channel)
        with server.client() as client:
            client.send(request_bytes("POST", channel, b"{}"))
            pair.wait_while_asked(12)
            pair.promote()
            pair.name_new()
            reply = client.read_reply()
        assert (reply.status, reply.total) == (200, taken + 1) == (200, total(pair.new, channel))
        assert total(pair.old, channel) == taken


def test_a_failover_that_is_given_up_costs_no_push(pair, start):
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    pair.sentinel.is_replacing(pair.old)
    away(server)
    with contextlib.closing(pushed(server, channel)) as client:
        pair.wait_while_asked(3)
        pair.sentinel.name(pair.old, epoch=1)
        assert client.read_reply().status == 200
    healthy(server)


def test_the_newest_configuration_counts(pair, start):
    with FakeSentinel(pair.new, epoch=2) as ahead:
        pair.promote()
        server = start(**pair.sentinel.settings(ahead))
        channel = check_serves(server)
        assert (total(pair.old, channel), total(pair.new, channel)) == (0, 1)


def test_a_push_that_finds_too_few_replicas_is_done_by_the_next_master(pair, start):
    server = start(**pair.sentinel.settings(**PATIENT))
    channel = in_step(pair, server)
    pair.old.config("min-replicas-to-write", 1)
    pair.promote()
    wait_until(lambda: pair.old.info("replication")["connected_slaves"] == "0", "the replica to leave")
    with contextlib.closing(pushed(server, channel)) as client:
        wait_until(lambda: pair.old.calls().get("evalsha", 0) >= 5, "it to be tried again")
        pair.name_new()
        reply = client.read_reply()
    assert (reply.status, reply.total, total(pair.old, channel)) == (200, 2, 1)


def test_too_few_replicas_are_said_in_the_end(redis, start):
    with FakeSentinel(redis) as sentinel:
        for settings in (redis.settings(), sentinel.settings()):
            redis.config("min-replicas-to-write", 0)
            server = start(**settings)
            healthy(server)
            redis.config("min-replicas-to-write", 1)
            channel = server.channel()
            assert refusal(server.post(channel)) == TOO_FEW_REPLICAS
            assert total(redis, channel) == 0


# --- the same in a cluster ---


@pytest.fixture
def trio():
    """Three masters. The first is about to lose its place to a fourth node."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(FakeNode()) for _ in range(4)]
        for node in nodes:
            node.view = nodes[:3]
        yield Trio(nodes)


class Trio:
    def __init__(self, nodes):
        self.old, self.second, self.third, self.new = nodes
        self.old_view, self.new_view = [self.old, self.second, self.third], [self.new, self.second, self.third]

    @property
    def others(self):
        return self.second, self.third

    def hush_others(self):
        """Nobody says who serves what."""
        for node in self.others:
            node.hush("CLUSTER SLOTS")

    def name(self, view):
        for node in (*self.others, self.new):
            node.view = view
        for node in self.others:
            node.speak()

    def channel_of_old(self, server):
        """A channel that the first node serves, with one update."""
        healthy(server)
        while True:
            channel = server.channel()
            before = self.old.totals.total()
            assert server.push(channel) == 1
            if self.old.totals.total() > before:
                return channel


def test_a_push_waits_until_another_node_says_that_the_old_master_is_one(trio, start):
    server = start(**trio.second.settings())
    channel = trio.channel_of_old(server)
    trio.old.hush()
    away(server)
    trio.hush_others()
    before, greeted = trio.old.totals.total(), trio.old.answered["PING"]
    trio.old.speak()
    wait_until(lambda: trio.old.answered["PING"] >= greeted + 3, "the server to be back at the old master")
    for _ in range(3):
        assert refusal(server.post(channel)) in (UNREACHABLE, CLUSTER_DOWN)
    assert trio.old.totals.total() == before
    trio.name(trio.new_view)
    # A push whose answer was late may be stored as well.
    assert push_when_it_can(server, channel) == trio.new.totals.total()
    assert trio.old.totals.total() == before


def test_the_old_master_is_used_again_when_another_node_says_that_it_is_one(trio, start):
    server = start(**trio.second.settings())
    channel = trio.channel_of_old(server)
    trio.old.hush()
    away(server)
    trio.old.speak()
    healthy(server)
    assert server.push(channel) >= 2


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "still a master"])
def test_a_late_answer_of_a_node_waits_for_another_node(trio, start, is_replaced):
    server = start(**trio.second.settings(**PATIENT))
    channel = trio.channel_of_old(server)
    trio.hush_others()
    with contextlib.closing(sent(trio, server, channel)) as client:
        # A node that is not asked anything else is pinged or looked at twice a second: it tells the time.
        beats = trio.second.beats
        wait_until(lambda: trio.second.beats >= beats + 6, "a silence")
        before = trio.old.totals.total()
        trio.old.speak()
        wait_until(lambda: trio.old.totals.total() == before + 1, "the old master to take the push")
        away(server)
        trio.name(trio.new_view if is_replaced else trio.old_view)
        reply = client.read_reply()
    if is_replaced:
        assert refusal(reply) == NO_ANSWER
        assert push_when_it_can(server, channel) == trio.new.totals.total()  # one whose answer was late may be stored as well
    else:
        assert (reply.status, reply.total) == (200, 2)


def test_a_node_that_serves_nothing_any_more_answers_late(trio, start):
    """The others have said so while it was silent."""
    server = start(**trio.second.settings(**PATIENT))
    channel = trio.channel_of_old(server)
    with contextlib.closing(sent(trio, server, channel)) as client:
        trio.name(trio.new_view)
        trio.third.cut()  # a reason to ask
        wait_until(lambda: trio.new.answered["PING"] >= 3, "the server to go to the new master")
        assert push_when_it_can(server, channel) == trio.new.totals.total()
        trio.old.speak()
        assert refusal(client.read_reply()) == NO_ANSWER
