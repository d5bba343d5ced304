"""What /-/health says while Redis answers, but not as it should: rights, memory, eviction. It is right again without a restart."""

import re

import pytest

from fake_redis import FakeNode
from load import refusal
from longline_server import wait_until
from redis_server import NO_ACCESS, OUT_OF_MEMORY, READ_ONLY, TOO_FEW_REPLICAS, free_port
from test_redis import away, healthy, log_reasons, names, push_when_it_can, upstream_push
from test_redis_access import documented_rights

USER = "app"


@pytest.fixture
def locked(redis):
    """A Redis with a user who has the documented rights and no others."""
    redis.command("ACL", "SETUSER", USER, "on", ">x", *documented_rights())
    return redis


@pytest.fixture
def server(locked, start):
    server = start(**locked.settings(REDIS_USER=USER, REDIS_PASS="x"))
    healthy(server)
    return server


def unwell(server, words):
    """The health that is 503 and says `words`; waits for it."""
    return wait_until(lambda: re.search(words, text := away(server)["store"]) and text, f"health to say {words!r}")


# A command, and what health says that the user may not do.
RIGHTS = {
    "evalsha": "EVALSHA",
    "eval": "EVAL",
    "get": "GET lpolling:total:*",
    "incr": "INCR lpolling:total:*",
    "llen": "LLEN lpolling:updates:*, LLEN lpolling:meta:*",
    "lrange": "LRANGE lpolling:updates:*, LRANGE lpolling:meta:*",
    "rpush": "RPUSH lpolling:updates:*, RPUSH lpolling:meta:*",
    "ltrim": "LTRIM lpolling:updates:*, LTRIM lpolling:meta:*",
    "lpop": "LPOP lpolling:updates:*, LPOP lpolling:meta:*",
    "lindex": "LINDEX lpolling:meta:*",
    "pttl": "PTTL lpolling:updates:*",
    "pexpire": "PEXPIRE lpolling:total:*, PEXPIRE lpolling:updates:*, PEXPIRE lpolling:meta:*",
    "time": "TIME",
    "ping": "PING",
    "publish": "PUBLISH lpolling:news:*",
    "subscribe": "SUBSCRIBE lpolling:news:*",
    "unsubscribe": "UNSUBSCRIBE lpolling:news:*",
}


@pytest.mark.parametrize("command", RIGHTS)
def test_a_right_that_is_missing_is_named(locked, server, command):
    """Nobody pushes, nobody polls."""
    locked.command("ACL", "SETUSER", USER, "-" + command)
    unwell(server, rf"the user has no right at \S+ for {re.escape(RIGHTS[command])}(;|$)")
    locked.command("ACL", "SETUSER", USER, "+" + command)
    assert "no right" not in healthy(server)["store"]
    assert re.search(r"error +redis user lacks rights ", server.log())


@pytest.mark.parametrize(
    "rules,says",
    [
        (["resetchannels"], "PUBLISH lpolling:news:*, SUBSCRIBE lpolling:news:*"),
        (["resetkeys"], "EVALSHA, GET lpolling:total:*, INCR lpolling:total:*"),
        (["resetkeys", "~lpolling:total:*", "~lpolling:updates:*"], "EVALSHA, LLEN lpolling:meta:*"),
        (["nocommands"], "EVAL"),
    ],
)
def test_keys_and_channels_that_are_missing_are_named(locked, server, rules, says):
    locked.command("ACL", "SETUSER", USER, *rules)
    unwell(server, "no right at .* for " + re.escape(says))
    locked.command("ACL", "SETUSER", USER, *documented_rights())
    healthy(server)


def test_a_right_that_is_missing_from_the_start_on(locked, start):
    locked.command("ACL", "SETUSER", USER, "-subscribe")
    server = start(**locked.settings(REDIS_USER=USER, REDIS_PASS="x"))
    unwell(server, "SUBSCRIBE")
    channel = server.channel()
    assert server.push(channel, '{"n":1}') == 1
    assert refusal(server.get(channel + "?ts=1&sleep=60")) == NO_ACCESS, "who would wait in vain learns why"
    assert server.get(channel).updates == [{"n": 1}]
    locked.command("ACL", "SETUSER", USER, "+subscribe")
    healthy(server)
    with server.client() as client:
        client.send_request("GET", channel + "?ts=1&sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":2}')
        assert client.read_reply().updates == [{"n": 2}]


def test_wait_is_asked_for_where_it_is_used(locked, start):
    server = start(**locked.settings(REDIS_USER=USER, REDIS_PASS="x", REDIS_WAIT="1:100"))
    unwell(server, "no right at .* for WAIT$")
    locked.command("ACL", "SETUSER", USER, "+wait")
    healthy(server)


def test_optional_rights_are_no_illness(locked, start):
    locked.command("ACL", "SETUSER", USER, "-info", "-config|get", "-cluster|slots")
    server = start(**locked.settings(REDIS_USER=USER, REDIS_PASS="x"))
    healthy(server)
    channel = server.channel()
    assert server.push(channel) == 1
    assert "no right" not in healthy(server)["store"]


@pytest.mark.parametrize("allowed", ["total updates meta", "total updates meta seen consumers"])
def test_a_user_without_the_keys_that_are_optional(locked, start, allowed):
    """Pushes and polls are served; the log says once what is not kept, and health for as long."""
    locked.command("ACL", "SETUSER", USER, "resetkeys", *(f"~lpolling:{kind}:*" for kind in allowed.split()))
    server = start(**locked.settings(REDIS_USER=USER, REDIS_PASS="x"))
    wait_until(lambda: "not kept: the user has no right at" in healthy(server)["store"], "health to say it")
    channel = server.channel()
    assert [server.push(channel, f'{{"n":{n}}}') for n in (1, 2)] == [1, 2]
    assert server.get(channel + "?ts=1").updates == [{"n": 2}]
    with server.client() as client:
        client.send_request("GET", channel + "?ts=2&sleep=60")
        server.wait_for_parked(1)
        server.push(channel, '{"n":3}')
        assert client.read_reply().updates == [{"n": 3}]
    store = healthy(server)["store"]
    assert "SET lpolling:epoch:*" in store and ("HLEN lpolling:consumers:*" in store) == ("consumers" not in allowed)
    assert len(re.findall(r"warn +redis user lacks optional rights", server.log())) == 1
    assert "tidy up" not in server.log() and "redis refused" not in server.log()
    locked.command("ACL", "SETUSER", USER, *documented_rights())
    wait_until(lambda: "not kept" not in healthy(server)["store"], "health to be silent again")


class OldRedis(FakeNode):
    """A Redis of before 7: it has no scripts that ask for rights, and is no cluster."""

    may_subscribe = False

    def answer(self, name, words):
        if name == "CLUSTER SLOTS":
            return Exception("ERR This instance has cluster support disabled")
        if name == "EVAL":
            return Exception("ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'")
        if name == "SUBSCRIBE" and not self.may_subscribe:
            return Exception("NOPERM this user has no permissions to access one of the channels used as arguments")
        if name in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return [name.lower().encode(), words[1].encode(), 1]
        return super().answer(name, words)


def test_an_old_redis_that_refuses_subscriptions(start):
    """Its refusals are all that is known."""
    with OldRedis() as redis:
        server = start(**redis.settings())
        healthy(server)
        channel = server.channel()
        with server.client() as client:
            client.send_request("GET", channel + "?sleep=60")
            unwell(server, "Redis refuses subscriptions: NOPERM")
            assert refusal(client.read_reply()) == NO_ACCESS
            redis.may_subscribe = True
            client.send_request("GET", channel + "?sleep=60")
            server.wait_for_parked(1)
        healthy(server)


# --- what Redis would say to a push ---


def hinder(redis, how):
    redis.command(*{"memory": ("CONFIG", "SET", "maxmemory", 1), "replica": ("REPLICAOF", "127.0.0.1", free_port()), "replicas": ("CONFIG", "SET", "min-replicas-to-write", 1)}[how])


def help_again(redis, how):
    redis.command(*{"memory": ("CONFIG", "SET", "maxmemory", 0), "replica": ("REPLICAOF", "NO", "ONE"), "replicas": ("CONFIG", "SET", "min-replicas-to-write", 0)}[how])


@pytest.mark.parametrize("how,says,refused", [("memory", "OOM", OUT_OF_MEMORY), ("replica", "READONLY", READ_ONLY), ("replicas", "NOREPLICAS", TOO_FEW_REPLICAS)])
def test_health_says_why_pushes_are_refused_while_they_are(redis, start, how, says, refused):
    """Also where nobody has tried to push."""
    server = start(**redis.settings())
    healthy(server)
    hinder(redis, how)
    unwell(server, rf"refuses pushes: {says} ")
    channel = server.channel()
    assert refusal(server.post(channel)) == refused
    unwell(server, rf"refuses pushes: {says} ")
    help_again(redis, how)
    assert push_when_it_can(server, channel) == 1
    wait_until(lambda: server.get("/-/health").status == 200, "the health to be well")


# --- eviction ---


def test_a_policy_that_evicts_is_warned_of_as_long_as_it_does(redis, start):
    server = start(**redis.settings())
    assert "warning" not in healthy(server)["store"]
    redis.config("maxmemory", "1gb")
    redis.config("maxmemory-policy", "allkeys-lru")
    warning = "warning: maxmemory-policy evicts: when memory is short, Redis deletes updates and counters"
    wait_until(lambda: warning in healthy(server)["store"], "the warning")
    redis.config("maxmemory-policy", "noeviction")
    wait_until(lambda: "warning" not in healthy(server)["store"], "no warning")


def test_evicted_keys_are_said(redis_servers, start):
    redis = redis_servers.start(maxmemory="1gb", maxmemory_policy="allkeys-lru")
    server = start(**redis.settings())
    healthy(server)
    for _ in range(5):
        server.push(server.channel())
    redis.config("maxmemory", 1)
    for key in redis.keys():
        redis.command("GETRANGE", key, 0, 0) if "total" in key else redis.command("LLEN", key)
    wait_until(lambda: re.search(r"warning: Redis is evicting keys: \d+ so far", server.get("/-/health").json()["store"]), "the warning")
    assert re.search(r"warn +redis evicts keys .*keys=\d+", server.log())


# --- damage ---


def test_damage_is_a_warning_and_no_illness(redis, start):
    server = start(**redis.settings())
    assert "warning" not in healthy(server)["store"]
    channel = server.channel()
    upstream_push(redis, channel, "{")
    server.get(channel)
    server.get(channel)
    assert "warning: damaged updates were left out 2 times" in healthy(server)["store"]
    redis.command("SET", names(channel)[1], "x")
    assert server.post(channel).status == 503
    health = server.get("/-/health")
    assert health.status == 200, "the other channels are served"
    assert "warning: the keys of a channel are damaged" in health.json()["store"]
    assert len(log_reasons(server, "error +redis refused an append")) == 1
