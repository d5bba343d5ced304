"""How a Redis is reached: addresses, databases, logins and rights, TLS."""

import json
import re
from pathlib import Path

import pytest

from authority import Authority, tls_settings
from load import refusal
from longline_server import wait_until
from redis_server import HOST, NO_ACCESS, UNREACHABLE, free_port
from test_redis import P, all_names, away, check_serves, healthy, push_when_it_can

MIB = 1 << 20
PAGE = Path(__file__).parents[2] / "docs/redis.md"


def in_database(redis, number):
    with redis.connect() as client:
        client.command("SELECT", number)
        return sorted(client.command("KEYS", "*"))


ADDRESSES = {
    "host and port": lambda redis: ({"REDIS_HOST": "localhost", "REDIS_PORT": redis.port}, 0),
    "unix socket": lambda redis: ({"REDIS_HOST": redis.socket_path, "REDIS_PORT": 1}, 0),
    "database": lambda redis: ({"REDIS_HOST": HOST, "REDIS_PORT": redis.port, "REDIS_DB": 3}, 3),
    "url": lambda redis: ({"REDIS_URL": f"redis://{HOST}:{redis.port}"}, 0),
    "url with slash": lambda redis: ({"REDIS_URL": f"redis://{HOST}:{redis.port}/"}, 0),
    "url with name and database": lambda redis: ({"REDIS_URL": f"redis://localhost:{redis.port}/5"}, 5),
    "url of a socket": lambda redis: ({"REDIS_URL": f"unix://{redis.socket_path}"}, 0),
    "url of a socket with database": lambda redis: ({"REDIS_URL": f"unix://{redis.socket_path}?db=7"}, 7),
    "url beats the rest": lambda redis: (
        {"REDIS_URL": f"redis://{HOST}:{redis.port}/2", "REDIS_HOST": "192.0.2.1", "REDIS_PORT": 1, "REDIS_DB": 9},
        2,
    ),
}


@pytest.mark.parametrize("how", ADDRESSES)
def test_an_address(redis, start, how):
    settings, database = ADDRESSES[how](redis)
    channel = check_serves(start(DATA_PROVIDER="redis", **settings))
    assert in_database(redis, database) == all_names(channel)


def test_an_address_by_flags(redis, start):
    server = start(flags=["--data-provider=redis", "--redis-host", HOST, f"--redis-port={redis.port}", "--redis-db=4"])
    channel = check_serves(server)
    assert in_database(redis, 4) == all_names(channel)


@pytest.mark.parametrize("database,news", [(0, P + "news:"), (3, P + "news@3:")])
def test_news_of_each_database_have_their_own_channel(redis, start, database, news):
    server = start(**redis.settings(REDIS_DB=database))
    other = start(**redis.settings(REDIS_DB=1))
    channel = server.channel()
    other.channels |= server.channels
    with server.client() as client:
        client.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        assert redis.command("PUBSUB", "CHANNELS") == [news + channel[1:]]
        other.push(channel, '{"of":"another database"}')
        server.push(channel, '{"n":1}')
        assert client.read_reply().json() == {"ok": True, "ts": 1, "updates": [{"n": 1}]}


SECRET = "hunter2/secret@home: 100%"
SECRET_ENCODED = "hunter2%2Fsecret%40home%3A%20100%25"
NAME = "app@home"
NAME_ENCODED = "app%40home"

LOGINS = {
    "password": lambda redis: redis.settings(REDIS_PASS="sesame"),
    "password in the url": lambda redis: {"REDIS_URL": f"redis://:sesame@{HOST}:{redis.port}"},
    "user": lambda redis: redis.settings(REDIS_USER=NAME, REDIS_PASS=SECRET),
    "user in the url": lambda redis: {"REDIS_URL": f"redis://{NAME_ENCODED}:{SECRET_ENCODED}@{HOST}:{redis.port}/0"},
    "user in the url beats the rest": lambda redis: {
        "REDIS_URL": f"redis://{NAME_ENCODED}:{SECRET_ENCODED}@{HOST}:{redis.port}/0",
        "REDIS_USER": "nobody",
        "REDIS_PASS": "wrong",
    },
}


@pytest.fixture
def locked_redis(redis_servers):
    """A Redis that asks for a password, and that knows one more user."""
    redis = redis_servers.start(requirepass="sesame")
    redis.command("ACL", "SETUSER", NAME, "on", ">" + SECRET, "~*", "&*", "+@all")
    return redis


@pytest.mark.parametrize("how", LOGINS)
def test_a_login(locked_redis, start, how):
    server = start(**{"DATA_PROVIDER": "redis", **LOGINS[how](locked_redis)})
    check_serves(server)
    for secret in ("sesame", SECRET, SECRET_ENCODED, "hunter2"):
        assert secret not in server.log() + server.get("/-/metrics").text + server.get("/-/health").text


@pytest.mark.parametrize(
    "login", [{}, {"REDIS_PASS": "wrong-word"}, {"REDIS_USER": NAME, "REDIS_PASS": "wrong-word"}, {"REDIS_USER": "no", "REDIS_PASS": "x"}]
)
def test_a_wrong_login_is_said_and_the_right_one_helps(locked_redis, start, login):
    server = start(**locked_redis.settings(), **login)
    health = away(server)
    channel = server.channel()
    assert refusal(server.post(channel)) == NO_ACCESS
    assert refusal(server.get(channel)) == NO_ACCESS
    assert "redis away" in server.log()
    assert "wrong-word" not in server.log() + json.dumps(health)
    locked_redis.config("requirepass", login.get("REDIS_PASS", ""))
    for user in {login.get("REDIS_USER", "default")} - {"default"}:
        locked_redis.command("ACL", "SETUSER", user, "on", "resetpass", ">" + login["REDIS_PASS"], "~*", "&*", "+@all")
    assert push_when_it_can(server, channel) == 1
    healthy(server)


@pytest.mark.parametrize("rule", ["-evalsha", "resetkeys"])
def test_a_user_who_may_not_write_is_said(locked_redis, start, rule):
    server = start(**locked_redis.settings(REDIS_USER=NAME, REDIS_PASS=SECRET))
    healthy(server)
    channel = server.channel()
    locked_redis.command("ACL", "SETUSER", NAME, rule)
    assert refusal(server.post(channel)) == NO_ACCESS
    assert locked_redis.keys() == []
    locked_redis.command("ACL", "SETUSER", NAME, "+@all", "~*")
    assert push_when_it_can(server, channel) == 1


def documented_rights(*more):
    """What docs/redis.md says that a user needs, as words of ACL SETUSER; `more` are the cases that it names."""
    rows = re.findall(r"^\| (always|in a cluster|with `REDIS_WAIT`) \| `(.*)` \|$", PAGE.read_text(), re.M)
    words = " ".join(rights for case, rights in rows if case in ("always", *more)).split()
    return [word.replace("{prefix}", P).replace("\\|", "|") for word in words]


def test_the_documented_rights_are_enough(redis_servers, locked_redis, start):
    replica = redis_servers.start(replicaof=f"{HOST} {locked_redis.port}", masterauth="sesame")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica's copy")
    locked_redis.command("ACL", "SETUSER", "limited", "on", ">x", *documented_rights("with `REDIS_WAIT`"))
    server = start(**locked_redis.settings(REDIS_USER="limited", REDIS_PASS="x", REDIS_WAIT="1:5000"))
    check_serves(server)
    assert not locked_redis.command("ACL", "LOG"), locked_redis.command("ACL", "LOG")


def test_a_user_who_may_not_publish_stores_each_push_once(locked_redis, start):
    server = start(**locked_redis.settings(REDIS_USER=NAME, REDIS_PASS=SECRET))
    healthy(server)
    channel = server.channel()
    locked_redis.command("ACL", "SETUSER", NAME, "resetchannels")
    assert server.push(channel, '{"n":1}') == 1
    assert server.get(channel).updates == [{"n": 1}]
    assert "redis stored an update, but may not tell of it" in server.log()


def test_a_redis_whose_auth_has_another_name_does_not_get_the_password_into_the_log(redis_servers, start):
    """Such a Redis repeats in its error what it was sent."""
    redis = redis_servers.start(rename_command='AUTH ""')
    server = start(**redis.settings(REDIS_PASS="sesame-word"))
    health = away(server)
    assert "unknown command" in health["store"]
    assert "sesame" not in json.dumps(health) + server.log()


# --- TLS ---


@pytest.fixture
def tls_redis(redis_servers, authority):
    """start(*names): a Redis that speaks nothing but TLS, with a certificate for these names."""

    def start_tls(*certified):
        port = free_port()
        redis = redis_servers.start(port="0", tls_port=port, **tls_settings(authority, *certified))
        redis.port = port
        return redis

    return start_tls


@pytest.mark.parametrize(
    "certified,how",
    [
        (["DNS:localhost"], lambda port: {"REDIS_URL": f"rediss://localhost:{port}"}),
        (["DNS:localhost"], lambda port: {"REDIS_HOST": "localhost", "REDIS_PORT": port, "REDIS_TLS": "on"}),
        (["DNS:redis.example", "IP:127.0.0.1"], lambda port: {"REDIS_URL": f"rediss://127.0.0.1:{port}/1"}),
    ],
    ids=["url", "setting", "address"],
)
def test_tls_with_a_private_authority(tls_redis, authority, start, certified, how):
    redis = tls_redis(*certified)
    server = start(DATA_PROVIDER="redis", REDIS_TLS_CA=authority.certificate, **how(redis.port))
    check_serves(server)
    body = json.dumps({"x": "y" * (MIB - 100)})  # many TLS records
    channel = server.channel()
    for i in (1, 2):
        assert server.push(channel, body) == i
        assert server.get(f"{channel}?ts={i - 1}").updates == [json.loads(body)]


def refuses_tls(server, why):
    """Waits for that reason, and returns it: `localhost` may have a second address, where nothing listens, and each try takes the next one."""
    reason = wait_until(lambda: (text := away(server)["store"]) and re.search(why, text, re.I) and text, f"the reason to be {why}")
    assert refusal(server.post(server.channel())) == UNREACHABLE
    return reason


@pytest.mark.parametrize("certified,host", [(["DNS:redis.example"], "localhost"), (["DNS:localhost"], HOST), (["IP:127.0.0.1"], "localhost")])
def test_a_certificate_for_another_host_is_refused(tls_redis, authority, start, certified, host):
    redis = tls_redis(*certified)
    server = start(DATA_PROVIDER="redis", REDIS_URL=f"rediss://{host}:{redis.port}", REDIS_TLS_CA=authority.certificate)
    refuses_tls(server, "(host|address).*mismatch")


def test_a_certificate_of_an_unknown_authority_is_refused(tls_redis, start, tmp_path):
    redis = tls_redis("DNS:localhost")
    stranger = Authority(tmp_path / "stranger")
    for settings in ({}, {"REDIS_TLS_CA": stranger.certificate}):
        server = start(DATA_PROVIDER="redis", REDIS_URL=f"rediss://localhost:{redis.port}", **settings)
        refuses_tls(server, "certificate")


def test_tls_where_there_is_none_and_none_where_there_is(redis, tls_redis, authority, start):
    settings = {"DATA_PROVIDER": "redis", "REDIS_TLS_CA": authority.certificate}
    for url in f"rediss://{HOST}:{redis.port}", f"redis://{HOST}:{tls_redis('IP:127.0.0.1').port}":
        reason = refuses_tls(start(REDIS_URL=url, **settings), ".")
        assert "refused" not in reason
