"""Every allocation fails once, and all from it on: no crash, no false 200, no leak, no deaf server.

The short form takes a sample of the allocations; `script/torture` takes every one (ALLOCATIONS=1000000).
"""

import json
import os
import select
import subprocess

import pytest

from faults import Faults
from http_client import Closed, chunked, request_bytes
from longline_server import BINARY, LISTENING, PATIENCE_S, environment, wait_until

# How many of the allocations are tried one by one; behind them the gaps grow.
FIRST = int(os.environ.get("ALLOCATIONS", "8"))
SHORT = FIRST == 8
GONE = (Closed, BrokenPipeError, ConnectionResetError)
LARGE = b'{"x":"%s"}' % (b"y" * 200_000)


def sample(provider):
    """Which allocations fail. Over Redis each costs a connection to it, and so half a second."""
    nth, first = 0, 2 if SHORT and provider == "redis" else FIRST
    while True:
        nth += 1 + max(0, nth - first) // 2
        yield nth


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


# --- What a client does meanwhile: each may be refused or closed, and returns what was acknowledged ---


class Visit:
    """The requests of one client, on connections that were open before, while allocations fail."""

    def __init__(self, server, target, known, faults):
        self.faults = faults
        self.server = server
        self.target = target
        self.known = known
        self.acknowledged = 0
        self.clients = [server.client(), server.client()]
        for client in self.clients:
            assert client.get("/").status == 200

    def close(self):
        for client in self.clients:
            client.close()

    def talk(self, data, replies=1):
        """Sends `data`, and returns the replies that came before the connection was closed, if it was."""
        found, client = [], self.clients[0]
        try:
            client.send(data)
            for _ in range(replies):
                found.append(client.read_reply())
                assert found[-1].status in (200, 503), found[-1]
        except GONE:
            pass
        return found

    def note(self, replies):
        """Of pushes."""
        self.acknowledged += sum(reply.status == 200 for reply in replies)

    def push(self):
        body = b'{"a":"1","b":[1,2,{"c":null}]}'
        self.note(self.talk(request_bytes("POST", self.target + "?a=2&d=%41&a=3", body, {"X-Y": "z", "X-Z": '"'})))

    def push_in_chunks(self):
        head = {"Transfer-Encoding": "chunked", "Content-Type": "text/plain"}
        self.note(self.talk(request_bytes("POST", self.target, chunked(b"x" * 3000, b"y" * 70_000, b"z"), head)))

    def push_a_batch(self):
        """Too large to be made in one turn."""
        line = b'{"a":"%s"}' % (b"x" * 50_000)
        head = {"Content-Type": "application/x-ndjson"}
        replies = self.talk(request_bytes("POST", self.target + "?a=2&d=%41", b"\n".join([line] * 8), head))
        self.acknowledged += sum(8 for reply in replies if reply.status == 200)

    def poll(self):
        self.talk(request_bytes("GET", self.target))

    def poll_from_the_store(self):
        """More than is kept in memory of any channel."""
        for reply in self.talk(request_bytes("GET", self.server.long_target)):
            assert reply.status == 503 or len(reply.updates) == 300

    def poll_unknown(self):
        for reply in self.talk(request_bytes("GET", self.server.channel() + "?ts=-3")):
            assert reply.status == 503 or reply.updates == []

    def poll_large(self):
        for reply in self.talk(request_bytes("GET", self.server.large_target)):
            assert reply.status == 503 or len(reply.updates[0]["x"]) == 200_000

    def poll_in_full(self):
        self.talk(request_bytes("GET", self.target + "?view=full"))

    def poll_as(self):
        """As a consumer, who is listed and forgotten."""
        for query in ("?as=bot&limit=1", f"?as=bot&ts={self.known}&confirm=now", "?as=%C3%A4&sleep=0.05&where=body.a:*", "/consumers"):
            for reply in self.talk(request_bytes("GET", self.target + query)):
                assert reply.status == 503 or reply.json()["ok"], reply
        self.talk(request_bytes("DELETE", self.target + "?as=bot"))

    def purge(self):
        """A part, and all that the last purge has left."""
        for query in ("?upto=1", ""):
            for reply in self.talk(request_bytes("DELETE", self.target + query)):
                assert reply.status == 503 or reply.json()["gone"]

    def wait_and_wake(self):
        """A poll parks and a push wakes it; both lines are open when memory runs out."""
        poller = self.clients[1]
        try:
            poller.send(request_bytes("GET", f"{self.target}?ts={self.known}&sleep=0.1"))
            self.push()
            reply = poller.read_reply()
            assert reply.status in (200, 503), reply
            if reply.status == 200 and reply.updates:
                assert reply.ts == self.known + 1
        except GONE:
            pass

    def stream(self):
        """One parks and a push wakes it: it has the update, ends, or is cut, and never falls silent.

        Over Redis it may wait until there is memory to read with.
        """
        client, before = self.clients[1], self.acknowledged
        try:
            client.send(request_bytes("GET", f"{self.target}?feed=sse&view=full&where=method:P*&ts={self.known}"))
            self.push()
            marks = (b"data: ", b"\r\n0\r\n\r\n", b" 503 ")
            while self.acknowledged > before and not any(mark in client.buffer for mark in marks):
                assert b"\n:\n" not in client.buffer, "it fell silent"
                if not select.select([client], [], [], 2)[0] and self.server.settings.get("DATA_PROVIDER") == "redis":
                    self.faults.stop()
                data = client.sock.recv(65536)
                if not data:
                    return
                client.buffer += data
        except GONE:
            pass

    def poll_many(self):
        """One channel is in memory, one is read from the store, and one must be written by the worker."""
        names = (self.target, self.server.long_target, self.server.large_target, self.server.empty_target)
        body = json.dumps(dict.fromkeys(names, 0))
        for query in ("view=full", "where=method:P*&epoch="):
            for reply in self.talk(request_bytes("POST", f"/-/poll?{query}", body)):
                assert reply.status == 503 or reply.json()["channels"]

    def wait_on_many(self):
        """The same as wait_and_wake()."""
        poller, names = self.clients[1], (self.target, self.server.empty_target)
        try:
            body = json.dumps({names[0]: self.known, names[1]: "now"})
            poller.send(request_bytes("POST", "/-/poll?sleep=0.1", body))
            self.push()
            reply = poller.read_reply()
            assert reply.status in (200, 503), reply
            if reply.status == 200:
                page = reply.json()["channels"].get(names[0], {"ts": self.known})
                assert page.get("error_code") == 503 or page["ts"] in (self.known, self.known + 1)
        except GONE:
            pass

    def wait_for_nothing(self):
        for reply in self.talk(request_bytes("GET", self.server.empty_target + "?sleep=0.05")):
            assert reply.status == 503 or reply.updates == []

    def pipeline(self):
        data = request_bytes("POST", self.target, b"[1]") + request_bytes("POST", self.target, b"[2]")
        self.note(self.talk(data * 4, 8))

    def reports(self):
        paths = ("/-/health", "/-/metrics", "/", "/-/chat")
        self.talk(b"".join(request_bytes("GET", path) for path in paths), len(paths))


DEEP_VISITS = ("push", "poll_as", "wait_and_wake", "stream")
VISITS = [name for name in vars(Visit) if not name.startswith("_") and name not in ("talk", "note", "close")]


def look(server, target, known):
    """After the visit all is as before, and no acknowledged update is missing. Returns the total."""
    with server.client() as client:

        def ask(method, target, body=None):
            """The reply; over Redis, once the connection that needed memory is back."""
            reply = client.request(method, target, body)
            assert reply.status == 200 or "Redis" in reply.json()["error_description"], reply
            return reply.status == 200 and reply

        total = wait_until(lambda: ask("GET", target), "the store").total
        assert total >= known, "an acknowledged update is missing"
        pushed = wait_until(lambda: ask("POST", target, b'{"after":true}'), "the store")
        assert pushed.total > total
        assert ask("GET", f"{target}?ts={pushed.total - 1}").updates == [{"after": True}]
    return pushed.total


def prepare(server):
    server.long_target, server.large_target, server.empty_target = (server.channel() for _ in range(3))
    with server.client() as client:
        client.send(request_bytes("POST", server.long_target, b"{}") * 300)
        for _ in range(300):
            assert client.read_reply().status == 200
    server.push(server.large_target, LARGE)


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
@pytest.mark.parametrize("visit", VISITS)
def test_no_memory_while_serving(serve, provider, faults, visit, forever):
    if SHORT and provider != "sqlite" and visit not in DEEP_VISITS:
        pytest.skip("the short form: above the store all providers are alike")
    server = serve(LOG_LEVEL="info", **faults.settings())
    prepare(server)
    target = server.channel()
    known = look(server, target, 0)
    for nth in sample(provider):
        guest = Visit(server, target, known, faults)
        faults.fail_allocation(nth, forever)
        getattr(guest, visit)()
        reached = faults["failed"]
        faults.stop()
        guest.close()
        known = look(server, target, known + guest.acknowledged)
        if not reached:
            break
    server.wait_for_parked(0)
    server.wait_for_metric("longline_buffer_bytes", 0)


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
def test_no_memory_at_the_stop(serve, faults, forever):
    server = serve(LOG_LEVEL="info", **faults.settings())
    target = server.channel()
    acknowledged = 0
    for nth in (1, 3, 8) if SHORT else range(1, 60):
        with server.client() as poller, server.client() as pusher:
            poller.send(request_bytes("GET", server.channel() + "?as=bot&sleep=60"))
            server.wait_for_parked(1)
            faults.fail_allocation(nth, forever)
            pusher.send(request_bytes("POST", target, b"{}"))
            server.send_signal()
            try:
                acknowledged += pusher.read_reply().status == 200
            except GONE:
                pass
            try:
                assert poller.read_reply().status in (200, 503)
            except GONE:
                pass
        assert server.wait_for_exit() == 0
        faults.stop()
        server.start()
        if server.settings.get("DATA_PROVIDER") == "memory":
            acknowledged = 0
        total = server.get(target).total
        assert total >= acknowledged, "an acknowledged update is missing"
        acknowledged = total


def start_ends(server):
    """Starts the server; returns its exit code, or None when it serves."""
    server.log_path.write_bytes(b"")
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen(
            [BINARY, "serve"], cwd=server.directory, env=environment(server.settings), stdin=subprocess.DEVNULL, stderr=log
        )
    wait_until(lambda: server.process.poll() is not None or LISTENING.search(server.log()), "its start or end", PATIENCE_S)
    return server.process.poll()


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
def test_no_memory_at_the_start(serve, provider, faults, forever):
    server = serve(LOG_LEVEL="info", **faults.settings())
    server.push(server.channel())
    server.stop()
    for nth in sample(provider):
        faults["calls"] = faults["failed"] = 0
        faults["first"], faults["until"] = nth, 2**64 - 1 if forever else nth + 1
        code = start_ends(server)
        reached = faults["failed"]
        faults.stop()
        if code is None:
            server.addresses = LISTENING.findall(server.log())
            wait_until(lambda: server.get("/-/health").status == 200, "its store")  # Redis may need a second try
            server.stop()
        else:
            server.process = None
            lines = [line for line in server.log().splitlines() if line.startswith("longline: ")]
            assert code == 1 and len(lines) == 1 and "out of memory" in lines[0], (nth, code, server.log())
        if not reached:
            break
