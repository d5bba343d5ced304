"""Each kind of work over and over: what it takes of the heap, it gives back.

A leak is a thing of operations, not of hours. A round is the same work LEAK_ROUND times; when all clients have gone, what is on the
heap is counted (tests/faults/faults.c), but for SQLite's pages. Caches and tables fill in the first rounds; what leaks grows in every one. So rounds go on until
two in a row have left nothing behind: what the first of them began with may still have been on its way.
"""

import gzip
import json
import os

import pytest

from faults import Faults
from http_client import chunked, request_bytes
from keys import new_keys
from longline_server import wait_until

MIB = 1 << 20
ROUND = int(os.environ.get("LEAK_ROUND", 40))
ROUNDS = 60
IS_LONG = ROUND >= 1000
BYTES, BLOCKS = 8, 0.25  # left behind by one piece of work: less is none,
KEPT_BYTES = 128 << 10  # and so is what buffers keep for the next
KEPT = 20  # updates of a channel
AT_ONCE = 20
LARGE = b'{"x":"%s"}' % (b"y" * 1_200_000)
COMPRESSED = gzip.compress(LARGE)


def new():
    """A name that nobody has used."""
    return os.urandom(8).hex()


class Work:
    """The requests of one server. A kind of work does about `n` pieces, and says how many."""

    def __init__(self, server):
        self.server = server
        self.channels = [server.channel() for _ in range(4)]
        self.keys, self.purged = new_keys(), server.channel()
        lines = b"\n".join([b'{"n":1,"pick":1}'] * KEPT)
        for channel in self.channels:
            server.push(channel, lines, {"Content-Type": "application/x-ndjson"})
        self.large = server.channel()
        server.get(self.channels[0] + "?as=bot0")  # with the first one a table is made for them
        for _ in range(KEPT):
            server.push(self.large, LARGE)

    def ask(self, requests, fine=(200,)):
        """All of them on one connection, some at a time."""
        requests = list(requests)
        with self.server.client() as client:
            for at in range(0, len(requests), AT_ONCE):
                part = requests[at : at + AT_ONCE]
                client.send(b"".join(part))
                for _ in part:
                    reply = client.read_reply()
                    assert reply.status in fine, reply
        return len(requests)

    def each(self, n):
        return ((i, self.channels[i % len(self.channels)]) for i in range(n))

    def together(self, n, polls, push):
        """Polls that wait, each on its connection, are woken by a push, again and again."""
        clients = [self.server.client() for _ in polls]
        for _ in range(n // len(polls)):
            total = self.server.get(self.channels[0]).total
            for client, poll in zip(clients, polls):
                client.send(poll(total))
            push()
            for client in clients:
                assert client.read_reply().status == 200
        for client in clients:
            client.close()
        return n

    def push_one(self, body=b'{"pick":1}'):
        self.server.push(self.channels[0], body)

    # --- the kinds ---

    def push(self, n):
        return self.ask(request_bytes("POST", channel, b'{"pick":%d}' % i) for i, channel in self.each(n))

    def push_in_chunks(self, n):
        head = {"Transfer-Encoding": "chunked", "Content-Type": "text/plain"}
        return self.ask(request_bytes("POST", channel, chunked(b"x" * 300, b"y" * 7000), head) for _, channel in self.each(n))

    def push_batches(self, n):
        lines = b"\n".join([b'{"n":1}'] * 10)
        return self.ask(request_bytes("POST", channel, lines, {"Content-Type": "application/x-ndjson"}) for _, channel in self.each(n // 4))

    def push_large(self, n):
        """The worker makes them updates."""
        return self.ask(request_bytes("POST", self.large, COMPRESSED, {"Content-Encoding": "gzip"}) for _ in range(n // 10))

    def push_what_is_coded(self, n):
        part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        form = part % (b"_charset_", b"latin1") + part % (b"a", b"\xe9") + b"--x--\r\n"
        bodies = (
            (form, {"Content-Type": "multipart/form-data; boundary=x"}),
            (b"\x80" * 200, {"Content-Type": "text/plain; charset=windows-1252"}),
            (gzip.compress(b'{"a":1}'), {"Content-Encoding": "gzip"}),
            (b"a=1&b=%41", {"Content-Type": "application/x-www-form-urlencoded"}),
        )
        return self.ask(request_bytes("POST", channel, *bodies[i // 4 % 4]) for i, channel in self.each(n))

    def push_with_ids(self, n):
        """They come again."""
        ids = ({"X-GitHub-Delivery": f"{i % 20}"} for i in range(n))
        return self.ask(request_bytes("POST", channel + "?.once" * (i % 3 == 0), b"{}", next(ids)) for i, channel in self.each(n))

    def be_refused(self, n):
        count = self.ask((request_bytes("PUT", "/-/health") for _ in range(n // 2)), fine=(405,))
        count += self.ask(request_bytes("GET", channel + "/refused") for _, channel in self.each(n // 2))
        for _ in range(n // 8):
            with self.server.client() as client:
                client.send(request_bytes("POST", self.channels[0], b'{"a":1}', {"Content-Length": "99999999"}))
                assert client.read_reply().status == 413
        return count

    def be_malformed(self, n):
        for _ in range(n // 4):
            with self.server.client() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
                assert client.read_reply().status == 400
        return n // 4

    def use_keys(self, n):
        everything, reads, sends = self.keys
        count = self.ask(request_bytes("POST", "/" + sends, b"{}") for _ in range(n // 4))
        count += self.ask(request_bytes("GET", f"/{(everything, reads)[i % 2]}?ts=-2") for i in range(n // 4))
        return count + self.ask((request_bytes("POST", "/" + reads, b"{}") for _ in range(n // 2)), fine=(403,))

    def shake_hands(self, n):
        count = self.ask(request_bytes("GET", channel + "?hub.mode=subscribe&hub.challenge=abc") for _, channel in self.each(n // 2))
        return count + self.ask((request_bytes("POST", channel + "?.reply=ok&.status=201", b"{}") for _, channel in self.each(n // 2)), fine=(201,))

    def poll(self, n):
        queries = ("?ts=-3&view=full", "?ts=0&limit=2", "?ts=-1", "?ts=0")
        return self.ask(request_bytes("GET", channel + queries[i // 4 % 4]) for i, channel in self.each(n))

    def poll_large(self, n):
        """From the store: no more than one fits into the cache."""
        return self.ask(request_bytes("GET", f"{self.large}?ts=-{i % 3 + 1}&view=full") for i in range(n // 10))

    def poll_and_wake(self, n):
        polls = [lambda ts: request_bytes("GET", f"{self.channels[0]}?ts={ts}&sleep=20")] * 4
        return self.together(n, polls, self.push_one)

    def poll_in_vain(self, n):
        clients = [self.server.client() for _ in range(n)]
        for i, client in enumerate(clients):
            client.send(request_bytes("GET", f"{self.channels[1]}?sleep=0.0{i % 3}"))
        for client in clients:
            assert client.read_reply().status == 200
            client.close()
        return n

    def poll_and_hang_up(self, n):
        queries = ("?sleep=30", "?sleep=30&where=body.never:1", "?sleep=30&as=gone", "?feed=lines", "?ts=0")
        for i, channel in self.each(n):
            client = self.server.client()
            client.send(request_bytes("GET", channel + queries[i % 5]))
            if i % 3:
                client.send(request_bytes("GET", "/-/health"))
            client.abort() if i % 2 else client.close()
        return n

    def poll_with_filters(self, n):
        def push():
            for pick in (b"0", b"1", b"[0,1]"):
                self.push_one(b'{"pick":%s}' % pick)

        polls = [lambda ts, pick=i % 2: request_bytes("GET", f"{self.channels[0]}?ts={ts}&sleep=20&where=body.pick:{pick}") for i in range(4)]
        return self.together(n, polls, push)

    def poll_with_other_filters(self, n):
        return self.ask(request_bytes("GET", f"{self.channels[0]}?ts=-9&where=body.n:{new()}") for _ in range(4 * n))

    def poll_by_name(self, n):
        count = 0
        for query in ("?as=bot{}&limit=1", "?as=bot{}&ts=3&confirm=now&limit=1", "/consumers"):
            count += self.ask(request_bytes("GET", channel + query.format(i % 3)) for i, channel in self.each(n // 2))
        return count

    def forget_names(self, n):
        for i, channel in self.each(n // 4):
            name = new()
            self.ask(request_bytes(method, f"{channel}?as={name}") for method in ("GET", "DELETE"))
            if i % 100 == 0:
                self.push_one()  # cursors wait for it
        self.push_one()
        return n // 4

    def poll_many(self, n):
        def poll(ts):
            return request_bytes("POST", "/-/poll?sleep=20", json.dumps({self.channels[0]: ts, self.channels[1]: "now", self.large: "now"}))

        everything = json.dumps(dict.fromkeys(self.channels, 0))
        return self.together(n, [poll] * 4, self.push_one) + self.ask(request_bytes("POST", "/-/poll", everything) for _ in range(n // 4))

    def stream(self, n):
        for i in range(n // 4):
            with self.server.client() as client:
                client.send(request_bytes("GET", f"{self.channels[0]}?ts=now&feed={('lines', 'sse')[i % 2]}"))
                text = client.sock.recv(65536)
                assert b" 200 " in text, text
                self.push_one()
                while b"pick" not in text:
                    more = client.sock.recv(65536)
                    assert more, text
                    text += more
        return n // 4

    def read_nothing(self, n):
        """Of replies and streams of megabytes."""
        for i in range(n // 10):
            client = self.server.client(receive_buffer=4096)
            client.send(request_bytes("GET", f"{self.large}?ts=0{('', '&feed=lines')[i % 2]}") * 3)
            wait_until(lambda: self.server.metric("longline_buffer_bytes") > 0, "something that is not sent")
            client.abort() if i % 4 > 1 else client.close()
        return n // 10

    def purge(self, n):
        for i in range(n // 4):
            query = ("", "?upto=1000000", "?upto=1")[i % 3]
            self.ask([request_bytes("POST", self.purged, b"{}")] * 2 + [request_bytes("DELETE", self.purged + query)])
        return n // 4

    def connect(self, n):
        for i in range(n):
            client = self.server.client()
            if i % 2:
                client.send(b"POST /" + b"x" * 200 + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b"y" * 500)
            client.abort() if i % 4 > 1 else client.close()
        return n

    def look_around(self, n):
        targets = ("/-/health", "/-/metrics", "/", "/-/nothing")
        count = self.ask((request_bytes("GET", targets[i % 4]) for i in range(n // 2)), fine=(200, 404))
        return count + self.ask((request_bytes("OPTIONS", channel) for _, channel in self.each(n // 2)), fine=(200, 204))


    # --- What nobody has used before: as much of it is remembered as there is room for ---

    def poll_new_channels(self, n):
        return self.ask(request_bytes("GET", f"/{new()}") for _ in range(n))

    def wait_on_new_channels(self, n):
        for _ in range(n // 8):
            with self.server.client() as client:
                client.send(request_bytes("POST", "/-/poll?sleep=10", json.dumps({new(): 0 for _ in range(8)})))
                client.send(request_bytes("GET", "/-/health"))
        return n

    def poll_new_channels_by_name(self, n):
        return self.ask(request_bytes("GET", f"/{new()}?as=bot&where=body.a:1") for _ in range(n))

    def purge_new_channels(self, n):
        return self.ask(request_bytes("DELETE", f"/{new()}") for _ in range(n))

    def be_refused_with_new_keys(self, n):
        return self.ask((request_bytes("POST", f"/{new_keys()[1]}", b"{}") for _ in range(n)), fine=(403,))

    def push_with_new_ids(self, n):
        return self.ask(request_bytes("POST", channel, b"{}", {"X-GitHub-Delivery": new()}) for _, channel in self.each(n))

    def come_from_new_addresses(self, n):
        addresses = (".".join(map(str, (10, *os.urandom(3)))) for _ in range(4 * n))
        return self.ask(request_bytes("GET", self.channels[0] + "?limit=1", None, {"X-Forwarded-For": address}) for address in addresses)


TOOLS = ("ask", "each", "together", "push_one")
KINDS = [name for name in vars(Work) if name not in TOOLS and not name.startswith("_") and (IS_LONG or "new_" not in name)]


class Heap:
    """What a server has on the heap when nobody wants anything of it."""

    def __init__(self, server, faults):
        self.server, self.faults = server, faults

    def is_idle(self):
        metrics = self.server.metrics()
        return metrics["longline_connections"] == 1 and not metrics["longline_buffer_bytes"]

    def settled(self):
        """Bytes and blocks, as soon as they do not change any more."""
        last = None

        def is_settled():
            nonlocal last
            before, last = last, self.is_idle() and (self.faults["live_bytes"], self.faults["live_blocks"])
            return last and last == before

        wait_until(is_settled, "an idle server")
        return last

    def rounds(self, act, n):
        """Does rounds until two have left nothing behind; returns what each has left."""
        left, now, in_a_row = [], self.settled(), 0
        while in_a_row < 2:
            assert len(left) < ROUNDS, f"{pieces} times this leave behind, bytes and blocks: {left}"
            pieces, before = act(n), now
            now = self.settled()
            left.append((now[0] - before[0], now[1] - before[1]))
            is_nothing = left[-1][0] < BYTES * pieces + KEPT_BYTES and left[-1][1] < BLOCKS * pieces
            in_a_row = in_a_row + 1 if is_nothing else 0
        return left


@pytest.fixture(scope="module")
def work(module_start, tmp_path_factory):
    faults = Faults(tmp_path_factory.mktemp("faults"))
    server = module_start(**faults.settings(), CACHE_SIZE=1, CHANNEL_STORAGE_MAXSIZE=KEPT, SYNC="never", RATE_LIMIT_LIMIT=10**9, LOG_LEVEL="info")
    return Work(server), Heap(server, faults)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_stays(work, kind):
    work, heap = work
    left = heap.rounds(getattr(work, kind), ROUND)
    print(f"bytes and blocks left behind by each round: {left}; {heap.server.rss_bytes() / MIB:.1f} MiB resident")
