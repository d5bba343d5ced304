"""Redis under Sentinels: the master is found, and found again when another takes its place. What a failover loses is counted."""

import re

import pytest

from load import Load, refusal
from longline_server import wait_until
from redis_server import DURABLE, HOST, UNREACHABLE, SentinelSetup, free_port
from test_redis import away, check_serves, healthy, names, push_when_it_can

KEEP_ALL = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """For tests that leave everyone in their place."""
    with SentinelSetup(tmp_path_factory.mktemp("sentinel") / "servers") as setup:
        yield setup


@pytest.fixture
def sentinels(tmp_path):
    """For tests in which another becomes the master."""
    with SentinelSetup(tmp_path / "redis") as setup:
        yield setup


# --- finding the master ---


def test_the_sentinels_tell_the_master(lasting, start):
    server = start(**lasting.settings())
    channel = check_serves(server)
    assert lasting.master.command("GET", names(channel)[1]) == "1"
    assert "2 replicas" in healthy(server)["store"]


def test_sentinels_that_do_not_answer_are_passed_over(lasting, start):
    """One is dead, one is another kind of server, one knows."""
    other = start(DATA_PROVIDER="memory")
    addresses = f"{HOST}:{free_port()},{HOST}:{other.port},{HOST}:{lasting.sentinels[0].port}"
    check_serves(start(**lasting.settings(REDIS_SENTINEL=addresses)))


def test_a_frozen_sentinel_is_passed_over(lasting, start):
    with lasting.sentinels[0].frozen():
        check_serves(start(**lasting.settings()))


def test_a_master_that_no_sentinel_knows(lasting, start):
    server = start(**lasting.settings(REDIS_MASTER="unheard-of"))
    assert re.search("unheard-of|REDIS_MASTER", away(server)["store"])
    assert refusal(server.post(server.channel())) == UNREACHABLE
    told = re.findall("warn +redis away (.*)", server.log())  # of each Sentinel
    assert len(set(told)) == len(told), told


def test_no_sentinel_at_all(lasting, start):
    server = start(**lasting.settings(REDIS_SENTINEL=f"{HOST}:{free_port()},{HOST}:{free_port()}"))
    away(server)
    assert refusal(server.post(server.channel())) == UNREACHABLE


def test_a_database_number_goes_with_sentinels(lasting, start):
    channel = check_serves(start(**lasting.settings(REDIS_DB=2)))
    with lasting.master.connect() as client:
        client.command("SELECT", 2)
        assert client.command("GET", names(channel)[1]) == "1"


def test_passwords_of_the_sentinels_and_of_redis(tmp_path, start):
    with SentinelSetup(tmp_path / "redis", sentinel_password="open-sentinel") as setup:
        check_serves(start(**setup.settings()))
        wrong = start(**setup.settings(REDIS_SENTINEL_PASS="wrong-word"))
        reason = away(wrong)["store"]
        assert "wrong-word" not in wrong.log() + reason and "open-sentinel" not in wrong.log()


def test_pushes_go_on_while_all_sentinels_are_away(tmp_path, start):
    """They are asked when a master is looked for, not when there is one."""
    with SentinelSetup(tmp_path / "redis") as setup:
        server = start(**setup.settings())
        channel = check_serves(server)
        for sentinel in setup.sentinels:
            sentinel.kill9()
        for i in range(2, 50):
            assert server.push(channel) == i


# --- failover ---


def killed(setup, master):
    master.kill9()


def frozen(setup, master):
    master.freeze()


def asked_to_hand_over(setup, master):
    assert setup.sentinels[0].command("SENTINEL", "FAILOVER", setup.name) == "OK"


def count_lost(load, how):
    """Prints what the failover lost; no more than a stretch at the end of the old master's time can be."""
    lost = load.lost()
    print(f"{how}: lost {len(lost)} of {load}")
    return lost


def wait_until_left(load, old):
    """Waits until no server writes to the old master, who lives, any more."""

    def left():
        before = old.calls()["evalsha"]
        load.run_for(pushes=100)
        return old.calls()["evalsha"] == before

    wait_until(left, "the servers to leave the old master")


@pytest.mark.parametrize("how", [killed, frozen, asked_to_hand_over])
def test_a_failover_under_load_is_silent_about_nothing(sentinels, start, how):
    """What only the old master had is lost; whoever had seen it is told to reset. All go on with the new one."""
    servers = [start(**KEEP_ALL, **sentinels.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    old = sentinels.master
    with Load(servers, lossy=True) as load:
        load.run_for(pushes=500)
        how(sentinels, old)
        new = load.during(lambda: sentinels.wait_for_failover(old))
        if how is asked_to_hand_over:
            wait_until_left(load, old)
        before = len(load.acknowledged)
        load.run_for(pushes=500)
        if how is frozen:
            # It still takes itself for the master. Nobody who serves the inbox may believe it.
            old.thaw()
            load.run_for(pushes=500)
        load.settle()
        lost = count_lost(load, how.__name__)
        assert not set(lost) & set(load.acknowledged[before:]), "the new master lost what it had acknowledged itself"
        for channel in load.channels:
            assert int(new.command("GET", names(channel)[1])) == servers[0].get(channel + "?ts=-1").total
    for server in servers:
        assert healthy(server)["store"].startswith("redis ")


@pytest.mark.parametrize("timeout_ms", [900, 5000], ids=["given up", "waited for"])
def test_an_old_master_that_thaws_before_the_sentinels_name_the_new_one(sentinels, start, timeout_ms):
    """Seconds pass until they do. Whatever it still takes, none of that is acknowledged."""
    servers = [start(**KEEP_ALL, **sentinels.settings(REDIS_TIMEOUT=timeout_ms)) for _ in range(2)]
    for server in servers:
        healthy(server)
    old, replicas = sentinels.master, sentinels.replicas

    def promoted():
        return any(replica.info("replication")["role"] == "master" for replica in replicas)

    with Load(servers, lossy=True) as load:
        load.run_for(pushes=300)
        old.freeze()
        load.during(lambda: wait_until(promoted, "a promotion", 60))
        before = len(load.acknowledged)
        old.thaw()
        load.during(lambda: sentinels.wait_for_failover(old))
        load.run_for(pushes=1000)
        load.settle()
        lost = count_lost(load, "thawed")
        assert not set(lost) & set(load.acknowledged[before:])


def test_parked_polls_live_through_a_failover(sentinels, start):
    """No one pushes meanwhile; the polls wait for the new master's news."""
    servers = [start(**sentinels.settings()) for _ in range(2)]
    for server in servers:
        healthy(server)
    channel = servers[0].channel()
    servers[1].channels |= servers[0].channels
    servers[0].push(channel)
    old = sentinels.master
    for replica in sentinels.replicas:
        wait_until(lambda: replica.command("GET", names(channel)[1]) == "1", "the replica's copy")
    clients = [server.client() for server in servers for _ in range(10)]
    for client in clients:
        client.send_request("GET", channel + "?ts=1&sleep=60")
    for server in servers:
        server.wait_for_parked(10)
    old.kill9()
    sentinels.wait_for_failover(old)
    assert push_when_it_can(servers[0], channel, '{"n":2}') == 2
    for client in clients:
        assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"n": 2}]}
        client.close()


def test_a_failover_loses_nothing_that_redis_wait_waited_for(sentinels, start):
    """Both replicas have all that was acknowledged, whichever becomes the master."""
    servers = [start(**KEEP_ALL, **sentinels.settings(REDIS_WAIT="2:2000")) for _ in range(2)]
    for server in servers:
        healthy(server)
    old = sentinels.master
    with Load(servers) as load:
        load.run_for(pushes=300)
        old.kill9()
        load.during(lambda: sentinels.wait_for_failover(old))
        # With one replica fewer, nothing is acknowledged until the old master is back as one.
        load.during(lambda: old.start(ready=False).command("REPLICAOF", HOST, sentinels.master.port))
        load.run_for(pushes=300)
        load.settle()
        assert load.lost() == []
        print(load)


@pytest.mark.torture
def test_ten_failovers_in_a_row(tmp_path, start):
    # Under this load a master is late now and then: the Sentinels are not to take it for dead.
    with SentinelSetup(tmp_path / "redis", down_after_ms=6000, **DURABLE) as sentinels:
        servers = [start(**KEEP_ALL, **sentinels.settings()) for _ in range(3)]
        for server in servers:
            healthy(server)
        with Load(servers, channels=8, publishers=48, lossy=True) as load:
            for n in range(10):
                old = sentinels.master
                load.run_for(pushes=500)
                old.kill9()
                load.during(lambda: sentinels.wait_for_failover(old))
                load.run_for(pushes=500)
                load.during(lambda: (old.start(ready=False), sentinels._wait_until_whole()))
            load.settle()
            count_lost(load, "ten kills")
