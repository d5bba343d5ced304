"""Many connections on one epoll loop, for load, storms and crowds."""

import heapq
import itertools
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from http_client import connect, reset_on_close, take_reply


class Wire:
    """One non-blocking keep-alive connection of a Swarm.

    on_reply(wire, reply) is called for every reply, and on_close(wire) once if the server closes.
    """

    def __init__(self, swarm, sock, on_reply, on_close):
        self.swarm = swarm
        self.sock = sock
        self.on_reply = on_reply
        self.on_close = on_close
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def send(self, data: bytes):
        """Sends what the kernel takes now, and the rest when the socket is writable."""
        if self.outgoing:
            self.outgoing += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        if sent < len(data):
            self.outgoing += data[sent:]
            self.swarm.poller.modify(self.sock, select.EPOLLIN | select.EPOLLOUT)

    def close(self, reset=False):
        """Hangs up. on_close is not called."""
        if self.sock is None:
            return
        self.swarm.forget(self.sock)
        if reset:
            reset_on_close(self.sock)
        self.sock.close()
        self.sock = None

    @property
    def is_open(self):
        return self.sock is not None

    def _ready(self, events):
        if events & select.EPOLLOUT and self.outgoing:
            self._flush()
        if self.sock is not None and events & ~select.EPOLLOUT:
            self._read()

    def _flush(self):
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        del self.outgoing[:sent]
        if not self.outgoing:
            self.swarm.poller.modify(self.sock, select.EPOLLIN)

    def _read(self):
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self.incoming += data
        while self.sock is not None and self._take():
            pass

    def _take(self):
        """Takes one thing off what came; false when it is not there yet."""
        reply = take_reply(self.incoming)
        if reply is not None:
            self.on_reply(self, reply)
        return reply is not None

    def _lost(self):
        self.close()
        if self.on_close:
            self.on_close(self)


class StreamWire(Wire):
    """A connection for a stream of lines: on_line(wire, line) for each, and on_end(wire) where one ends cleanly.

    on_reply gets what is no stream.
    """

    on_line = on_end = None
    is_streaming = False
    text = b""

    def _take(self):
        if not self.is_streaming:
            head, end, rest = self.incoming.partition(b"\r\n\r\n")
            if not end or b"application/x-ndjson" not in head:
                return super()._take()
            self.is_streaming = True
            self.incoming = rest
            return True
        size, end, _ = self.incoming.partition(b"\r\n")
        at, count = len(size) + 2, int(size or b"0", 16)
        if not end or len(self.incoming) < at + count + 2:
            return False
        self.text += self.incoming[at : at + count]
        del self.incoming[: at + count + 2]
        if count:
            *lines, self.text = self.text.split(b"\n")
            for line in lines:
                if self.sock is not None:
                    self.on_line(self, line)
        else:
            assert not self.text, "a stream ended within a line"
            self.is_streaming = False
            self.on_end(self)
        return True


class Swarm:
    """The loop: open() wires, after() for timers, run() until a condition holds."""

    def __init__(self, address=None):
        self.address = address
        self.poller = select.epoll()
        self.wires = {}
        self.timers = []
        self.order = itertools.count()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for wire in list(self.wires.values()):
            wire.close()
        self.poller.close()

    def open(self, on_reply, on_close=None, address=None, kind=Wire):
        """A connection to `address`, by default to the swarm's own."""
        sock = connect(address or self.address)
        sock.setblocking(False)
        wire = kind(self, sock, on_reply, on_close)
        self.wires[sock.fileno()] = wire
        self.poller.register(sock, select.EPOLLIN)
        return wire

    def forget(self, sock: socket.socket):
        self.poller.unregister(sock)
        del self.wires[sock.fileno()]

    def after(self, seconds, callback):
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.order), callback))

    def run(self, until, timeout_s, what="the swarm"):
        """Runs the loop until until() is true. Fails after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not until():
            now = time.monotonic()
            assert now < deadline, f"{what}: not done after {timeout_s} s"
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()
            pause = min(self.timers[0][0], deadline) - now if self.timers else deadline - now
            for fd, events in self.poller.poll(max(0, min(pause, 0.1)), 1024):
                wire = self.wires.get(fd)
                if wire is not None:
                    wire._ready(events)

    def during(self, action):
        """Runs the loop while `action` runs in a thread; returns its result."""
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(action)
            self.run(done.done, 120, "what went on beside the clients")
            return done.result()


def push_all(address, requests, connections=16, depth=64, timeout_s=600):
    """Sends every request of an iterable over pipelined connections. Returns unordered replies.

    The requests of one connection are answered in order, but any connection may take any request.
    If the order matters, use connections=1.
    """
    pending = iter(requests)
    replies = []
    open_requests = 0

    def feed(wire, count):
        nonlocal open_requests
        batch = list(itertools.islice(pending, count))
        open_requests += len(batch)
        if batch:
            wire.send(b"".join(batch))

    credit = {}

    def on_reply(wire, reply):
        nonlocal open_requests
        replies.append(reply)
        open_requests -= 1
        credit[wire] += 1
        if credit[wire] >= depth // 2:
            feed(wire, credit[wire])
            credit[wire] = 0

    def on_close(_wire):
        raise AssertionError("the server closed a connection under load")

    with Swarm(address) as swarm:
        for _ in range(connections):
            wire = swarm.open(on_reply, on_close)
            credit[wire] = 0
            feed(wire, depth)
        swarm.run(lambda: open_requests == 0, timeout_s, "push_all")
    return replies
