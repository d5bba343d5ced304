"""Every allocation fails once, and all from it on: no crash, no false 200, no leak, no deaf server.

The short form takes a sample of the allocations; `script/torture` takes every one (ALLOCATIONS=1000000).
"""

import gzip
import json
import os
import select
import signal
import subprocess
import zlib

import pytest

from commands import Target
from faults import Faults
from http_client import GONE, chunked, request_bytes
from keys import new_keys
from longline_server import BINARY, LISTENING, PATIENCE_S, environment, wait_until

# How many of the allocations are tried one by one; behind them the gaps grow.
SHORT = "ALLOCATIONS" not in os.environ
FIRST = int(os.environ.get("ALLOCATIONS", "4"))
LARGE = b'{"x":"%s"}' % (b"y" * 200_000)


def sample(provider):
    """Which allocations fail. Over Redis each costs a connection to it, and so half a second."""
    nth, first = 0, 2 if SHORT and provider == "redis" else FIRST
    while True:
        nth += 1 + max(0, nth - first)
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

    def talk(self, data, replies=1, fine=(200, 503)):
        """Sends `data`, and returns the replies that came before the connection was closed, if it was."""
        found, client = [], self.clients[0]
        try:
            client.send(data)
            for _ in range(replies):
                found.append(client.read_reply())
                assert found[-1].status in fine, found[-1]
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

    def push_a_form(self):
        """With a field in another charset, and a file."""
        part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        body = part % (b"_charset_", b"", b"latin1") + part % (b"a", b"", b"\xe9") + part % (b"f", b'; filename="f"', bytes(300)) + b"--x--\r\n"
        self.note(self.talk(request_bytes("POST", self.target, body, {"Content-Type": "multipart/form-data; boundary=x"})))

    def push_compressed(self):
        """The coded bytes are kept, and read back."""
        body = json.dumps({"a": "x" * 500}).encode()
        head = {"Content-Encoding": "deflate, gzip" if self.known % 2 else "gzip", "Content-Type": "application/json"}
        coded = gzip.compress(zlib.compress(body) if self.known % 2 else body)
        replies = self.talk(request_bytes("POST", self.target, coded, head))
        self.note(replies)
        for reply in self.talk(request_bytes("GET", f"{self.target}?ts={self.known}&view=full")) if replies else ():
            assert reply.status == 503 or not reply.updates or "coded_base64" in reply.updates[0]

    def push_in_a_charset(self):
        head = {"Content-Type": "text/plain; charset=windows-1252"}
        self.note(self.talk(request_bytes("POST", self.target, b"\x80" * 200, head)))

    def push_large(self):
        """The worker makes it an update."""
        body = b'{"x":"%s"}' % (b"y" * 1_500_000)
        self.note(self.talk(request_bytes("POST", self.target, gzip.compress(body), {"Content-Encoding": "gzip", "Content-Type": "application/json"})))

    def push_with_an_id(self):
        """A delivery that comes again is one, however often memory ran out for it."""
        for query, head in (("", {"X-GitHub-Delivery": f"a{self.known}"}), ("?.key=body.id", {})):
            data = request_bytes("POST", self.target + query, b'{"id":"b%d"}' % self.known, head)
            once = request_bytes("POST", f"{self.target}?.once{query.replace('?', '&')}", b'{"id":"b%d"}' % self.known, head)
            first = self.talk(data)
            self.note(first)
            for again in self.talk(once):
                if again.status == 200 and first and first[0].status == 200:
                    assert again.total == first[0].total, "the delivery was stored twice"

    def be_refused(self):
        """And read why."""
        self.talk(request_bytes("POST", self.target + "?a=1", b'{"a":' + b"[" * 150 + b"]" * 150 + b'}', {"Content-Length": "99999999"}), fine=(413, 503))
        for reply in self.talk(request_bytes("GET", self.target + "/refused")):
            assert reply.status == 503 or reply.json()["ok"]

    def use_keys(self):
        everything, reads, sends = new_keys()
        self.talk(request_bytes("POST", "/" + sends, b"{}"))
        self.talk(request_bytes("GET", f"/{reads}?ts=0"))
        self.talk(request_bytes("POST", "/" + reads, b"{}"), fine=(403, 503))
        self.talk(request_bytes("DELETE", "/" + everything))

    def shake_hands(self):
        replies = self.talk(request_bytes("GET", self.target + "?hub.mode=subscribe&hub.challenge=abc"))
        # 200: it is stored, and there was no memory for the reply that it wants.
        self.talk(request_bytes("POST", self.server.empty_target + "?.reply=ok&.status=204", b"{}"), fine=(200, 204, 503))
        for reply in replies:
            assert reply.status == 503 or reply.body == b"abc"

    def poll(self):
        self.talk(request_bytes("GET", f"{self.target}?ts={self.known - 1}"))

    def poll_from_the_store(self):
        """More than is kept in memory of any channel. Of a page from Redis there may be memory for a part."""
        for reply in self.talk(request_bytes("GET", self.server.long_target)):
            kept = range(1, 301) if self.server.settings.get("DATA_PROVIDER") == "redis" else (300,)
            assert reply.status == 503 or (len(reply.updates) in kept and reply.ts == len(reply.updates))

    def poll_unknown(self):
        for reply in self.talk(request_bytes("GET", self.server.channel() + "?ts=-3")):
            assert reply.status == 503 or reply.updates == []

    def poll_large(self):
        for reply in self.talk(request_bytes("GET", self.server.large_target)):
            assert reply.status == 503 or len(reply.updates[0]["x"]) == 200_000

    def poll_in_full(self):
        self.talk(request_bytes("GET", f"{self.target}?view=full&ts={self.known - 1}"))

    def poll_as(self):
        """As a consumer, who is listed and forgotten."""
        for query in ("?as=bot&limit=1", f"?as=bot&ts={self.known}&confirm=now", f"?as=%C3%A4&ts={self.known}&sleep=0.05&where=body.a:*", "/consumers"):
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

    def wait_for_a_filter(self):
        """Two polls share a view; one of them is woken by what it wants."""
        poller = self.clients[1]
        try:
            poller.send(request_bytes("GET", f"{self.target}?ts={self.known}&sleep=0.2&where=method:P*&where=body.n:*"))
            self.note(self.talk(request_bytes("POST", self.target, b'{"m":1}')))
            self.note(self.talk(request_bytes("POST", self.target, b'{"n":1}')))
            reply = poller.read_reply()
            assert reply.status in (200, 503), reply
            assert reply.status == 503 or reply.updates in ([], [{"n": 1}])
        except GONE:
            pass

    def stream_lines(self):
        self.stream("lines", b'"method":')

    def stream(self, feed="sse", update=b"data: "):
        """One parks and a push wakes it: it has the update, ends, or is cut, and never falls silent.

        Over Redis it may wait until there is memory to read with.
        """
        client, before = self.clients[1], self.acknowledged
        try:
            client.send(request_bytes("GET", f"{self.target}?feed={feed}&view=full&where=method:P*&ts={self.known}"))
            self.push()
            marks = (update, b"\r\n0\r\n\r\n", b" 503 ")
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
        body = json.dumps({**dict.fromkeys(names, 0), self.target: self.known - 1})
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


DEEP_VISITS = ("push", "push_with_an_id", "poll_as", "wait_and_wake", "stream")
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


@pytest.mark.providers("redis")
def test_no_memory_behind_a_large_reply_of_redis(serve, faults):
    """What the next reply is read into is made anew then."""
    server = serve(LOG_LEVEL="info", **faults.settings())
    prepare(server)
    target = server.channel()
    known = look(server, target, 0)
    for nth in 2 * list(range(1, 9)):
        wait_until(lambda: server.get(server.large_target).status == 200, "the store")
        guest = Visit(server, target, known, faults)
        faults.fail_allocation(nth)
        guest.poll()
        faults.stop()
        guest.close()
        known = look(server, target, known)


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


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
@pytest.mark.providers("sqlite", "redis")
def test_no_memory_at_an_upgrade(serve, faults, forever):
    """In the program that is replaced, in its check, and in the next one while it takes over.

    It serves on, as the one or as the other. It may end only where memory never comes back, with one line.
    """
    server = serve(LOG_LEVEL="info", SANDBOX="off", **faults.settings())  # within it the next one could not count
    server.keep_address()
    target = server.channel()
    known = server.push(target)
    for nth in (1, 5, 40, 200, 700) if SHORT else range(1, 3000, max(1, 3000 // FIRST)):
        with server.client() as poller, server.client() as pusher:
            poller.send(request_bytes("GET", f"{target}?ts={known}&sleep=60"))
            pusher.send(request_bytes("POST", target, b'{"n":1}')[:-3])
            server.wait_for_parked(1)
            log_start, before = server.log_path.stat().st_size, server.upgraded()
            faults.fail_allocation(nth, forever)
            server.send_signal(signal.SIGUSR2)
            wait_until(
                lambda: server.upgraded() > before or "the old version goes on" in server.log(log_start) or server.process.poll() is not None,
                "the end of the upgrade",
            )
            reached = faults["failed"]
            faults.stop()
            if server.process.poll() is not None:
                assert forever and server.wait_for_exit() == 1, server.log(log_start)
                server.start()
                known = look(server, target, known)
                continue
            acknowledged = 0
            try:
                pusher.send(b":1}")
                acknowledged = pusher.read_reply().status == 200
            except GONE:
                pass
            pushed = look(server, target, known + acknowledged)
            try:
                reply = poller.read_reply()
                assert reply.status == 503 or (not reply.json().get("missed") and reply.ts <= reply.total), reply
                # A poll that waits does not learn of trouble with Redis: it ends.
                assert reply.status == 503 or reply.updates or server.settings.get("DATA_PROVIDER") == "redis", reply
            except GONE:
                pass
        known = look(server, target, pushed)
        if not reached:
            break
    server.wait_for_parked(0)


def run_without_memory(server, faults, nth, forever, arguments, seen):
    """Runs a command until it ends, or until `seen(stdout)`: then it is stopped. What is to be said of its end.

    One that goes on trying without memory says so.
    """
    faults["calls"] = faults["failed"] = 0
    faults["first"], faults["until"] = nth, 2**64 - 1 if forever else nth + 1
    out, errors = server.directory / "out", server.directory / "errors"
    settings = {**faults.settings(), "XDG_STATE_HOME": server.directory / "state"}
    with open(out, "wb") as stdout, open(errors, "wb") as stderr:
        process = subprocess.Popen([BINARY, *map(str, arguments)], env=environment(settings), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    try:
        wait_until(
            lambda: process.poll() is not None or seen(out.read_bytes()) or (forever and errors.read_bytes().count(b"out of memory") > 1),
            f"the end of case {nth}",
        )
        faults.stop()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    lines = errors.read_text().splitlines() or out.read_text().splitlines()
    assert code >= 0, (nth, code, lines)
    if code == 127 and "thread-local" in lines[-1]:  # glibc's own end: a thread of a library that was loaded
        return code
    assert code == 0 or (code in (1, 2, 69, 71, 73, 74, 75) and lines), (nth, code, lines)
    return code


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
@pytest.mark.parametrize("command", ["send", "tail", "forward", "exec", "backup", "check", "new", "health"])
@pytest.mark.providers("sqlite")
def test_no_memory_for_a_command(serve, faults, command, forever):
    """It does its work, or ends with one line; and does it when there is memory."""
    if SHORT and command not in ("send", "backup"):
        pytest.skip("the short form")
    server = serve(LOG_LEVEL="info")
    target = server.channel()
    server.push(target, '{"n":1}')
    copy = server.directory / "copy.db"
    with Target() as web:
        arguments, seen = {
            "send": (("send", server.url(target), "n=2"), None),
            "tail": (("tail", "--ts=0", "--sleep=1", server.url(target)), lambda out: b'"n":1' in out),
            "forward": (("forward", "--ts=0", "--restart", "--sleep=1", server.url(target), web.url), lambda _: web.received),
            "exec": (("exec", "--ts=0", "--restart", "--sleep=1", server.url(target), "--", "echo", "done"), lambda out: b"done" in out),
            "backup": (("backup", copy, f"--data-path={server.data_path}"), None),
            "check": (("check", server.data_path), None),
            "new": (("new", "--keys"), None),
            "health": (("health", f"--listen={server.addresses[0]}"), None),
        }[command]
        for nth in sample("sqlite"):
            copy.unlink(missing_ok=True)
            web.received.clear()
            run_without_memory(server, faults, nth, forever, arguments, seen or (lambda out: False))
            if not faults["failed"]:
                break
        web.received.clear()
        copy.unlink(missing_ok=True)
        assert run_without_memory(server, faults, 2**63, False, arguments, seen or (lambda out: False)) == 0
    assert server.get(target).total >= 1


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
