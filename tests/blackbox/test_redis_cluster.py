"""Redis Cluster: found by itself, each channel on one node, and followed when a node fails or a slot moves."""

import json
import re
import subprocess
import time

import pytest

from http_client import request_bytes
from load import Load, refusal
from longline_server import PATIENCE_S, wait_until
from redis_server import CLUSTER_DOWN, DAMAGED, HOST, KIND, NO_ANSWER, UNREACHABLE, Cluster
from swarm import Swarm
from test_purge import purge, push_some, read
from test_redis import P, away, check_serves, healthy, push_when_it_can
from test_redis_access import documented_rights
from test_redis_purge import CANARY, canaries, from_memory, load

KEEP_ALL = {"CHANNEL_STORAGE_MAXSIZE": 1_000_000, "LOG_LEVEL": "info"}


@pytest.fixture(scope="module")
def lasting_cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster") / "nodes") as cluster:
        yield cluster


@pytest.fixture
def cluster(lasting_cluster):
    """The module's cluster, whole again whatever the test before did to it."""
    lasting_cluster.wait_until_whole()
    return lasting_cluster


def key(kind, name):
    """The key of a channel whose name has nothing to escape."""
    return f"{P}{kind}:{{{name}}}"


def slot_of(cluster, channel):
    return cluster.slot(key("total", channel[1:]))


def node_of(cluster, channel):
    """The master that serves the channel."""
    return cluster.master_of(slot_of(cluster, channel))


def channels_by_node(cluster, server, count):
    """So many fresh channels on each master, by the master's port."""
    found = {node.port: [] for node in cluster.masters}
    while min(map(len, found.values())) < count:
        channel = server.channel()
        found[node_of(cluster, channel).port].append(channel)
    return {port: channels[:count] for port, channels in found.items()}


def share_channels(servers):
    for server in servers:
        server.channels |= servers[0].channels


def park(server, targets):
    """One parked poll of each."""
    parked = int(server.metric("longline_polls_parked"))
    clients = [server.client() for _ in targets]
    for client, target in zip(clients, targets):
        client.send_request("GET", target)
    server.wait_for_parked(parked + len(clients))
    return clients


# --- layout ---


def test_the_cluster_is_found_from_any_of_its_nodes(cluster, start):
    """Masters and replicas."""
    first = None
    for node in range(6):
        server = start(**cluster.settings(node))
        first = first or server
        channel = check_serves(server)
        first.channels |= server.channels
        assert first.get(channel).updates == [{"n": 1}]
        server.stop()
        if server is first:
            server.start()
        assert re.search(r"\bredis \d+\.", healthy(first)["store"])
    server.start()


def test_the_documented_rights_are_enough(cluster, start):
    for node in cluster.nodes:
        node.command("ACL", "LOG", "RESET")
        node.command("ACL", "SETUSER", "limited", "on", ">x", *documented_rights("in a cluster"))
    server = start(**cluster.settings(REDIS_USER="limited", REDIS_PASS="x"))
    healthy(server)
    for channels in channels_by_node(cluster, server, 1).values():
        (client,) = park(server, [channels[0] + "?sleep=60"])
        server.push(channels[0], '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]
    slot = slot_of(cluster, channels[0])
    target = next(node for node in cluster.masters if node is not cluster.master_of(slot))
    for _step in cluster.moving(slot, target):
        server.post(channels[0])
    push_when_it_can(server, channels[0])
    assert [node.command("ACL", "LOG") for node in cluster.nodes] == [[]] * 6


@pytest.mark.parametrize("right", ["cluster|slots", "cluster|nodes", "asking", "ssubscribe", "spublish", "rpush"])
@pytest.mark.parametrize("is_early", [True, False], ids=["from the start on", "later"])
def test_a_right_that_is_missing_is_named_and_helps_again(cluster, start, right, is_early):
    def allow(sign):
        for node in cluster.nodes:
            node.command("ACL", "SETUSER", "limited", "on", ">x", *documented_rights("in a cluster"), sign + right)

    allow("-" if is_early else "+")
    server = start(**cluster.settings(REDIS_USER="limited", REDIS_PASS="x"))
    if not is_early:
        healthy(server)
        allow("-")
    command = right.upper().replace("|", " ")
    words = rf"for {command}|{command.replace(' ', '.')}"
    wait_until(lambda: re.search(words, away(server)["store"], re.I), "the right to be named")
    allow("+")
    healthy(server)
    for channels in channels_by_node(cluster, server, 1).values():
        (client,) = park(server, [channels[0] + "?sleep=60"])
        server.push(channels[0], '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]


def test_a_poll_of_many_channels_spans_the_nodes(cluster, start):
    server = start(**cluster.settings())
    healthy(server)
    channels = [channel for some in channels_by_node(cluster, server, 3).values() for channel in some]
    for n, channel in enumerate(channels, start=1):
        server.push(channel, f'{{"n":{n}}}')
    body = json.dumps({channel: 0 for channel in channels})
    found = server.post("/-/poll", body).json()["channels"]
    assert found == {channel: {"ts": 1, "updates": [{"n": n}]} for n, channel in enumerate(channels, start=1)}
    cursors = json.dumps(dict.fromkeys(channels, 1))
    for channel in (channels[0], channels[4], channels[8]):
        with server.client() as client:
            client.send(request_bytes("POST", "/-/poll?sleep=60", cursors))
            server.wait_for_parked(len(channels))
            assert server.push(channel, '{"n":0}') == 2
            assert client.read_reply().json()["channels"] == {channel: {"ts": 2, "updates": [{"n": 0}]}}
        cursors = cursors.replace(f'"{channel}": 1', f'"{channel}": 2')
    server.wait_for_parked(0)


def test_a_channel_whose_keys_are_damaged(cluster, start):
    server = start(**cluster.settings())
    healthy(server)
    for channels in channels_by_node(cluster, server, 1).values():
        node, name = node_of(cluster, channels[0]), channels[0][1:]
        assert server.push(channels[0], '{"n":1}') == 1
        node.command("RPUSH", key("updates", name), "{")
        node.command("INCR", key("total", name))
        assert server.get(channels[0] + "?ts=1").json() == {"ok": True, "ts": 2, "missed": 1, "updates": []}
        node.command("DEL", key("meta", name))
        node.command("SET", key("meta", name), "x")
        assert refusal(server.post(channels[0])) == DAMAGED
        assert node.command("GET", key("total", name)) == "2"


@pytest.mark.parametrize(
    "target,tag",
    [
        ("/plain-0123456789", "plain-0123456789"),
        ("/%7Bx%7D-0123456789", "%7Bx%7D-0123456789"),
        ("/%7B%7D-0123456789", "%7B%7D-0123456789"),
        ("/a%7Db%7Bc-0123456789", "a%7Db%7Bc-0123456789"),
        ("/100%25-0123456789", "100%25-0123456789"),
        ("/%257Bx%257D-0123456789", "%257Bx%257D-0123456789"),
        ("/a%20b:*-0123456789", "a b:*-0123456789"),
        ("/%D0%BF%D1%80%D0%B8-0123", "при-0123"),
    ],
)
def test_the_name_is_the_hash_tag(cluster, start, target, tag):
    first, second = start(**cluster.settings(0)), start(**cluster.settings(1))
    healthy(first), healthy(second)
    (client,) = park(second, [target + "?sleep=60"])
    node = cluster.master_of(cluster.slot(key("total", tag)))
    assert f"{P}news:{{{tag}}}" in [name for each in cluster.alive for name in each.command("PUBSUB", "SHARDCHANNELS")]
    first.push(target + "?q=1", "text", {"Content-Type": "text/plain"})
    assert client.read_reply().updates == [{"body": "text", "q": "1"}]
    client.close()
    found = [name for name in node.keys() if tag in name]
    assert found == sorted(key(kind, tag) for kind in ("epoch", "meta", "total", "updates"))
    assert node.command("GET", key("total", tag)) == "1"
    assert node.command("LRANGE", key("updates", tag), 0, -1) == ['{"body":"text","q":"1"}']
    (item,) = second.get(target + "?view=full").updates
    assert item["raw"] == "text" and item["query"] == "q=1"


def test_names_that_differ_only_in_what_is_escaped_are_two_channels(cluster, start):
    server = start(**cluster.settings())
    healthy(server)
    assert server.push("/%7Bx%7D-differ-0123") == 1
    assert server.push("/%257Bx%257D-differ-0123") == 1
    assert server.get("/%7Bx%7D-differ-0123").total == 1


def test_a_prefix_with_a_hash_tag_of_its_own(cluster, start):
    """All keys of a channel are together still."""
    server = start(**cluster.settings(REDIS_PREFIX="{inbox}:"))
    for _ in range(5):
        check_serves(server)


def test_retention_is_as_without_a_cluster(cluster, start):
    server = start(CHANNEL_STORAGE_MAXSIZE=10, DATA_TTL=1000, **cluster.settings())
    healthy(server)
    channel = server.channel()
    for i in range(1, 26):
        assert server.push(channel, '{"i":%d}' % i) == i
    page = server.get(channel).json()
    assert (page["missed"], [u["i"] for u in page["updates"]]) == (15, list(range(16, 26)))
    node, name = node_of(cluster, channel), channel[1:]
    assert node.command("LLEN", key("updates", name)) == node.command("LLEN", key("meta", name)) == 10
    assert 990 <= node.command("TTL", key("updates", name)) <= 1010
    assert node.command("TTL", key("total", name)) > 364 * 86400


def test_polls_on_300_channels_of_all_nodes_are_woken_through_another_server(cluster, start):
    first, second = start(LOG_LEVEL="info", **cluster.settings(0)), start(LOG_LEVEL="info", **cluster.settings(4))
    healthy(first), healthy(second)
    channels = [channel for some in channels_by_node(cluster, first, 100).values() for channel in some]
    share_channels([first, second])
    got = {}
    with Swarm(second.address) as swarm:
        for channel in channels:
            wire = swarm.open(lambda _wire, reply, channel=channel: got.setdefault(channel, reply.updates))
            wire.send(request_bytes("GET", channel + "?sleep=60"))
        swarm.run(lambda: second.metric("longline_polls_parked") == 300, 60, "parking")
        for n, channel in enumerate(channels):
            assert first.push(channel, '{"n":%d}' % n) == 1
        swarm.run(lambda: len(got) == 300, PATIENCE_S, "waking")
    assert got == {channel: [{"n": n}] for n, channel in enumerate(channels)}


def test_news_stay_on_their_shard(cluster, start):
    """SPUBLISH: a push costs its own node something, not all."""
    server = start(**cluster.settings())
    healthy(server)
    channel = server.channel()
    (client,) = park(server, [channel + "?sleep=60"])
    news = key("news", channel[1:])
    holders = {node.port for node in cluster.alive if node.command("PUBSUB", "SHARDNUMSUB", news)[1]}
    assert len(holders) == 1
    assert not [node.port for node in cluster.alive if node.command("PUBSUB", "CHANNELS", P + "*")]
    server.push(channel)
    assert client.read_reply().ts == 1
    client.close()


def test_a_purge(cluster, start):
    """Its news goes to the subscribers of the channel's node."""
    one, two = (start(**cluster.settings(node)) for node in (0, 1))
    share_channels([one, two])
    for channels in channels_by_node(cluster, one, 1).values():
        channel = channels[0]
        share_channels([one, two])
        push_some(one, channel, 1, 4)
        one.push(channel, json.dumps({"n": CANARY}))
        load(two, channel, 5)
        assert purge(one, channel, "?upto=2") == 2
        expected = {"ok": True, "ts": 5, "missed": 1, "updates": [{"n": 3}, {"n": 4}, {"n": CANARY}]}
        wait_until(lambda: from_memory(two, channel, 1) == expected, "the news of the purge")
        assert purge(two, channel) == 5
        assert read(one, channel) == {"ok": True, "ts": 5, "missed": 5, "updates": []}
    assert [canaries(master) for master in cluster.masters] == [[]] * 3


# --- nodes that fail ---


def test_a_killed_master_under_load(cluster, start):
    """What only it had is lost, and whoever had seen it is told to reset; all go on with its replica."""
    servers = [start(**KEEP_ALL, **cluster.settings(node)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    by_node = channels_by_node(cluster, servers[0], 2)
    channels = [channel for some in by_node.values() for channel in some]
    old = node_of(cluster, channels[0])
    with Load(servers, channels=channels, publishers=24, lossy=True) as load:
        load.run_for(pushes=600)
        old.kill9()
        load.during(lambda: cluster.wait_for_failover(old))
        load.run_for(pushes=200, of=by_node[old.port])
        load.settle()
        lost = load.lost()
        print(f"lost {len(lost)} of {load}")
        assert not [entry for entry in lost if entry[0] not in by_node[old.port]], "a node that did not fail lost something"


@pytest.mark.parametrize("timeout_ms", [900, 5000], ids=["given up", "waited for"])
def test_an_old_master_that_thaws_acknowledges_nothing(cluster, start, timeout_ms):
    """It thaws as soon as its replica has taken its place."""
    servers = [start(**KEEP_ALL, **cluster.settings(node, REDIS_TIMEOUT=timeout_ms)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    by_node = channels_by_node(cluster, servers[0], 2)
    old = cluster.masters[-1]
    replica = cluster.replica_of(old)
    with Load(servers, channels=[c for some in by_node.values() for c in some], publishers=24, lossy=True) as load:
        load.run_for(pushes=300)
        old.freeze()
        load.during(lambda: wait_until(lambda: replica.is_master, "the election", 60))
        before = len(load.acknowledged)
        old.thaw()
        load.run_for(pushes=200, of=by_node[old.port])
        load.settle()
        lost = load.lost()
        print(f"lost {len(lost)} of {load}")
        assert not set(lost) & set(load.acknowledged[before:])


def test_a_master_that_hands_over_in_good_order_loses_nothing(cluster, start):
    servers = [start(**KEEP_ALL, **cluster.settings(node)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    by_node = channels_by_node(cluster, servers[0], 2)
    with Load(servers, channels=[c for some in by_node.values() for c in some], publishers=24) as load:
        for port, some in by_node.items():
            load.run_for(pushes=100, of=some)
            master = next(node for node in cluster.nodes if node.port == port)
            load.during(lambda: cluster.hand_over(master))
            load.run_for(pushes=100, of=some)
        load.settle()
        assert load.lost() == []
        print(load)


def test_parked_polls_live_through_the_death_of_their_node(cluster, start):
    server = start(**cluster.settings())
    healthy(server)
    by_node = channels_by_node(cluster, server, 3)
    channels = [channel for some in by_node.values() for channel in some]
    for channel in channels:
        server.push(channel)
    old = node_of(cluster, channels[0])
    replica = cluster.replica_of(old)
    for channel in by_node[old.port]:
        wait_until(lambda: key("total", channel[1:]) in replica.keys(), "the replica's copy")
    clients = park(server, [channel + "?ts=1&sleep=60" for channel in channels])
    old.kill9()
    # The other nodes' channels are served; this node's are when its replica has taken its place.
    cluster.wait_for_failover(old)
    for channel in channels:
        assert push_when_it_can(server, channel, '{"n":2}') == 2
    for client in clients:
        assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"n": 2}]}
        client.close()


def test_a_frozen_node_harms_only_its_own_channels(cluster, start):
    server = start(**cluster.settings(0))
    healthy(server)
    channels = {port: some[0] for port, some in channels_by_node(cluster, server, 1).items()}
    frozen = cluster.masters[-1]
    with frozen.frozen():
        assert refusal(server.post(channels[frozen.port])) in (NO_ANSWER, UNREACHABLE, CLUSTER_DOWN)
        for port, channel in channels.items():
            if port != frozen.port:
                assert server.post(channel).status == 200
    assert push_when_it_can(server, channels[frozen.port]) >= 1


def test_a_frozen_node_holds_up_a_poll_of_many_channels_only_for_a_moment(cluster, start):
    server = start(**cluster.settings(0))
    healthy(server)
    channels = {port: some[0] for port, some in channels_by_node(cluster, server, 1).items()}
    for channel in channels.values():
        server.push(channel, '{"n":1}')
    frozen = cluster.masters[-1]
    slow = channels.pop(frozen.port)
    good = list(channels.values())
    with frozen.frozen():
        for query in ("", "?sleep=60"):
            reply = server.post("/-/poll" + query, json.dumps({slow: 0, good[0]: 0, good[1]: 1}))
            assert reply.json()["channels"] == {good[0]: {"ts": 1, "updates": [{"n": 1}]}}
        with server.client() as client:  # nothing else to say: its outcome is waited for
            client.send(request_bytes("POST", "/-/poll", json.dumps({slow: 0, good[0]: 1})))
            time.sleep(0.5)
            frozen.thaw()
            assert list(client.read_reply().json()["channels"]) == [slow]


def test_a_cluster_that_is_down_says_so(cluster, start):
    """A master and its replica are gone: the rest will not serve either (cluster-require-full-coverage)."""
    server = start(**cluster.settings(0))
    healthy(server)
    channels = {port: some[0] for port, some in channels_by_node(cluster, server, 1).items()}
    gone = cluster.masters[-1]
    clients = park(server, [channel + "?sleep=60" for channel in channels.values()])
    cluster.replica_of(gone).kill9()
    gone.kill9()
    for port, channel in channels.items():
        if port != gone.port:
            wait_until(lambda: server.post(channel).status == 503, "the cluster to be down")
            wait_until(lambda: refusal(server.post(channel)) == CLUSTER_DOWN, "the refusal that says so")
            began = time.monotonic()
            assert refusal(server.get(channel)) == CLUSTER_DOWN
            assert time.monotonic() - began < 30, "a refusal is no sign that Redis serves others"
        else:
            assert refusal(server.post(channel)) in (UNREACHABLE, CLUSTER_DOWN)
    for client in clients:
        client.close()
    cluster.wait_until_whole()
    for channel in channels.values():
        push_when_it_can(server, channel)


# --- slots that move ---


@pytest.mark.parametrize("keys_at_a_time", [1, 100])
def test_a_slot_that_moves_under_load_loses_nothing(cluster, start, keys_at_a_time):
    servers = [start(**KEEP_ALL, **cluster.settings(node)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    moved, other = servers[0].channel(), servers[0].channel()
    slot = slot_of(cluster, moved)
    with Load(servers, channels=[moved, other], publishers=16) as load:
        load.run_for(pushes=200, of=[moved])
        for _ in range(2):
            target = next(node for node in cluster.masters if node is not cluster.master_of(slot))
            for _step in cluster.moving(slot, target, keys_at_a_time):
                load.run_for(pushes=20)
            load.run_for(pushes=100, of=[moved])
        load.settle()
        assert load.lost() == []
        print(load)


def test_parked_polls_of_a_slot_that_moved_are_woken_by_the_next_push(cluster, start):
    servers = [start(**cluster.settings(node)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    channels = [servers[0].channel() for _ in range(5)]
    share_channels(servers)
    clients = {}
    for channel in channels:
        servers[0].push(channel)
        clients[channel] = [c for server in servers for c in park(server, [channel + "?ts=1&sleep=60"] * 3)]
    for channel in channels:
        slot = slot_of(cluster, channel)
        source = cluster.master_of(slot)
        target = next(node for node in cluster.masters if node is not source)
        for _step in cluster.moving(slot, target):
            pass
        assert servers[0].metric("longline_polls_parked") == 3 * len(clients), "nobody is woken by a move"
        assert push_when_it_can(servers[1], channel, '{"n":2}') == 2
        for client in clients.pop(channel):
            assert client.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"n": 2}]}
            client.close()


# When a push's time is over, one of its attempts may be under way.
REFUSED_MEANWHILE = (CLUSTER_DOWN, NO_ANSWER)


def test_a_push_while_its_keys_are_on_their_way_is_served_or_refused_in_time(cluster, start):
    """TRYAGAIN: some of the channel's keys have moved, some have not."""
    server = start(**cluster.settings())
    healthy(server)
    channel = server.channel()
    server.push(channel)
    slot = slot_of(cluster, channel)
    target = next(node for node in cluster.masters if node is not cluster.master_of(slot))
    (client,) = park(server, [channel + "?ts=1&sleep=60"])
    halfway, taken, unsure = False, 1, 0
    for step in cluster.moving(slot, target):
        reply = server.post(channel, '{"n":2}')
        if reply.status == 503:
            assert step == "a key moved" and refusal(reply) in REFUSED_MEANWHILE
            halfway = True
            unsure += refusal(reply) == NO_ANSWER
        else:
            assert reply.status == 200 and taken < reply.total <= taken + 1 + unsure
            taken, unsure = reply.total, 0
    assert halfway, "the keys were together all the time"
    assert taken < server.push(channel) <= taken + 1 + unsure
    assert client.read_reply().ts >= 2
    client.close()


def test_a_new_channel_in_a_slot_that_is_on_its_way(cluster, start):
    server = start(**cluster.settings())
    healthy(server)
    channel = server.channel()
    slot = slot_of(cluster, channel)
    target = next(node for node in cluster.masters if node is not cluster.master_of(slot))
    for _step in cluster.moving(slot, target):
        assert server.get(channel + "?sleep=0.01").status in (200, 503)
        reply = server.post(channel)
        assert reply.status == 200 or refusal(reply) in REFUSED_MEANWHILE
    assert push_when_it_can(server, channel) >= 1


@pytest.mark.torture
def test_thousands_of_slots_resharded_under_load(cluster, start):
    """As an operator does it: redis-cli --cluster reshard, and back again."""
    servers = [start(**KEEP_ALL, **cluster.settings(node)) for node in (0, 1)]
    for server in servers:
        healthy(server)
    by_node = channels_by_node(cluster, servers[0], 20)
    masters = cluster.masters
    with Load(servers, channels=[c for some in by_node.values() for c in some], publishers=60) as load:
        load.run_for(pushes=1000)
        for source, target in ((masters[0], masters[1]), (masters[1], masters[0])):
            command = [f"{KIND}-cli", "--cluster", "reshard", f"{HOST}:{source.port}", "--cluster-from", source.id, "--cluster-to", target.id]
            command += ["--cluster-slots", "2000", "--cluster-yes"]
            done = load.during(lambda: subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL))
            assert done.returncode == 0, done.stdout[-2000:]
            load.run_for(pushes=1000)
        load.settle()
        assert load.lost() == []
        print(load)


@pytest.mark.torture
def test_each_node_killed_in_turn(cluster, start):
    servers = [start(**KEEP_ALL, **cluster.settings(node)) for node in range(3)]
    for server in servers:
        healthy(server)
    by_node = channels_by_node(cluster, servers[0], 4)
    with Load(servers, channels=[c for some in by_node.values() for c in some], publishers=48, lossy=True) as load:
        for node in cluster.nodes * 2:
            load.run_for(pushes=500)
            was_master = node.is_master
            node.kill9()
            if was_master:
                load.during(lambda: cluster.wait_for_failover(node))
            load.run_for(pushes=500)
            load.during(cluster.wait_until_whole)
        load.settle()
        print(f"lost {len(load.lost())} of {load}")
