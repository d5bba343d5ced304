"""Canaries: secrets, keys and bodies that must stand nowhere but where they were sent, whatever happens to the requests that hold them."""

import json
import re
import secrets
import signal
from pathlib import Path

import pytest

from http_client import request_bytes
from keys import new_keys
from longline_server import Server, wait_until

JSON = {"Content-Type": "application/json"}
LIMIT = 30


class Cage:
    """A server, and all that it is told. Each request seems to come from a client of its own, unless it says from whom."""

    def __init__(self, directory, settings):
        directory.mkdir(parents=True)
        self.stdout_path = directory / "stdout.log"
        self.server = Server(
            directory / "server", **settings, MAX_BODY=100_000, REQUEST_TIMEOUT=1, RATE_LIMIT_LIMIT=LIMIT, TRUST_PROXY="all", STRICT_JSON="on"
        )
        self.canaries, self.clients = {}, 0
        self.errors = {}  # bodies by status
        self.plain = self.canary("plain")
        self.all, self.read, self.send = new_keys()
        self.canaries.update(all=self.all, read=self.read, send=self.send)

    def canary(self, name):
        return self.canaries.setdefault(name, f"canary{secrets.token_hex(8)}")

    def ask(self, method, target, body=None, headers=None, client=None):
        self.clients += 1
        client = client or f"198.51.{self.clients // 250}.{self.clients % 250}"
        headers = {"X-Canary": self.canary("header"), "Cookie": f"a={self.canary('cookie')}", "X-Forwarded-For": client, **(headers or {})}
        with self.server.client() as connection:
            connection.send(request_bytes(method, target, body, headers))
            return self.note(connection.read_reply(has_body=method != "HEAD"))

    def note(self, reply):
        if reply.status >= 400:
            self.errors.setdefault(reply.status, []).append(reply.head + reply.body)
        return reply

    def names(self):
        return self.plain, self.all, self.read, self.send


def push(cage, name):
    query, body = cage.canary("query"), json.dumps({"a": cage.canary("body"), "type": "url_verification", "challenge": cage.canary("challenge")})
    for method in ("POST", "PUT", "PATCH", "OPTIONS"):
        for place in ("", f"/{cage.canary('path')}", "/pushUpdates"):
            cage.ask(method, f"/{name}{place}?q={query}&{cage.canary('parameter')}=1", body, JSON)
    cage.ask("POST", f"/{name}?.once=on&.key=body.a", body, JSON)
    cage.ask("POST", f"/{name}", body + "\n" + body, {"Content-Type": "application/x-ndjson"})
    cage.ask("GET", f"/{name}/pushUpdates?q={query}")
    cage.ask("GET", f"/{name}?hub.mode=subscribe&hub.challenge={cage.canary('challenge')}")


def poll(cage, name):
    for method in ("GET", "HEAD", "DELETE"):
        for query in ("", "ts=0&view=full", f"as={cage.canary('consumer')}", f"where=body.a:{cage.canary('where')}", "ts=-1&epoch="):
            cage.ask(method, f"/{name}?{query}")
        for place in ("/consumers", "/refused", "/getUpdates", f"/{cage.canary('path')}"):
            cage.ask(method, f"/{name}{place}")
    cage.ask("POST", "/-/poll", json.dumps({name: 0}), JSON)
    cage.ask("POST", "/-/poll", json.dumps({name: cage.canary("cursor")}), JSON)
    cage.ask("POST", f"/-/poll?where=body.a:{cage.canary('where')}", json.dumps({name: 0, "other": 0}), JSON)


def stream(cage, name):
    """Streams of each kind: one that begins, one that is refused, and one that another program takes over."""
    canary = cage.canary("event")
    for query in ("feed=sse", "feed=lines", f"feed={canary}", f"feed=lines&where=body.a:{cage.canary('where')}", f"feed=sse&as={cage.canary('consumer')}"):
        with cage.server.client() as connection:
            connection.send(request_bytes("GET", f"/{name}?{query}", None, {"Last-Event-ID": canary, "X-Canary": cage.canary("header")}))
            connection.sock.recv(4096)
    connection = cage.server.client()
    connection.send(request_bytes("GET", f"/{name}?ts=now&feed=sse", None, {"X-Canary": cage.canary("header")}))
    return connection


def be_refused(cage, name):
    canary = cage.canary("refused")
    cage.ask("POST", f"/{name}/{canary}", canary + "x" * 100_000, JSON)  # 413
    cage.ask("POST", f"/{name}/{canary}", "{" + canary, JSON)  # 400
    cage.ask("POST", f"/{name}/getUpdates?{canary}", canary, JSON)  # 405
    cage.ask("POST", f"/{name}?{canary}{'x' * 9000}", canary)  # 414
    cage.ask("POST", f"/{name}", canary, {"Expect": canary})  # 417
    cage.ask("POST", f"/{name}", canary, {"X": canary + "x" * 40_000})  # 431
    cage.ask("POST", f"/{name}", None, {"Transfer-Encoding": canary})  # 501
    cage.ask(canary.upper(), f"/{name}/{canary}")
    cage.ask("GET", f"/{name}%{canary}")
    cage.ask("GET", f"/{name}%0a{canary}")
    cage.ask("GET", f"/{name}%2f{canary}")  # 404
    for query in ("ts", "sleep", "since", "where", "limit", "view", "confirm", "as"):
        cage.ask("GET", f"/{name}?{query}={canary}%00")
        cage.ask("DELETE", f"/{name}?{query}={canary}%00")
    cage.ask("POST", f"/-/{name}", canary)
    for _ in range(LIMIT + 1):
        cage.ask("POST", f"/{name}/{canary}", canary, client="203.0.113.7")  # 429
    late = cage.server.client()
    late.send(request_bytes("POST", f"/{name}/{canary}", None, {"Content-Length": 99, "X": canary}) + canary.encode())
    return late  # 408


def redis_names(redis):
    return redis.command("KEYS", "*") + redis.command("PUBSUB", "CHANNELS")


@pytest.fixture(params=["text", "json"])
def cage(request, tmp_path, provider, redis_servers):
    cage_settings = {"DATA_PROVIDER": provider}
    redis = None
    if provider == "redis":
        redis = redis_servers.start()
        cage_settings = redis.settings()
    cage = Cage(tmp_path / "cage", {**cage_settings, "LOG_LEVEL": "debug", "LOG_FORMAT": request.param})
    cage.redis = redis
    with open(cage.stdout_path, "wb") as cage.server.stdout:
        cage.server.start()
        yield cage
        cage.server.finish()


@pytest.mark.providers("sqlite", "redis")  # memory is SQLite's code without a file
def test_no_canary_leaves_its_cage(cage):
    late = []
    for name in cage.names():
        push(cage, name)
        poll(cage, name)
    streams = [stream(cage, name) for name in cage.names()]
    cage.server.send_signal(signal.SIGUSR2)
    wait_until(lambda: re.search(r'( |")upgraded[ "]', cage.server.log()), "another program")
    for name in cage.names():
        push(cage, name)
        late.append(be_refused(cage, name))
    for connection in late:
        assert cage.note(connection.read_reply()).status == 408
        connection.close()
    assert set(cage.errors) >= {400, 403, 404, 405, 408, 413, 414, 417, 429, 431, 501}
    waiting = cage.server.client()
    waiting.send(request_bytes("GET", f"/{cage.read}?ts=now&sleep=60"))
    wait_until(lambda: b"longline_polls_parked 4\n" in cage.ask("GET", "/-/metrics").body, "a poll that waits, and the streams of the names that read")

    places = {f"a reply of {status}": b"".join(replies) for status, replies in cage.errors.items()}
    places |= {page: cage.ask("GET", page).body for page in ("/-/metrics", "/-/health")}
    process = Path(f"/proc/{cage.server.pid}")
    places |= {str(path): path.read_bytes() for path in [process / "cmdline", *process.glob("task/*/comm")]}
    held = json.dumps(redis_names(cage.redis)) if cage.redis else ""
    for connection in (waiting, *streams):
        connection.close()
    cage.server.stop()
    places |= {"stderr": cage.server.log().encode(), "stdout": cage.stdout_path.read_bytes()}
    assert b"push refused" in places["stderr"] and places["stdout"] == b""
    for place, text in places.items():
        found = [name for name, canary in cage.canaries.items() if canary.encode().lower() in text.lower()]
        assert not found, f"{found} in {place}"
    # Redis' keys (docs/decisions/2026-11-24-redis-layout.md) and pub/sub channels are named after a channel, and hold nothing else.
    found = {name for name, canary in cage.canaries.items() if canary in held}
    assert found == ({"plain", "send"} if cage.redis else set())
