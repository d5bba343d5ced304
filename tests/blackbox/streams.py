"""A stream as its client sees it."""

import json
import time

from http_client import Client, Closed, Reply, request_bytes
from longline_server import PATIENCE_S

BEAT_S, END_S = 15, 900


class Event:
    """What stands between two empty lines of an event stream."""

    def __init__(self, block):
        self.id = self.event = self.retry = self.data = None
        self.comments = []
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                self.comments.append(value)
            elif name == "data" and self.data is not None:
                self.data += "\n" + value
            else:
                assert name in ("id", "event", "retry", "data"), block
                setattr(self, name, value)

    @property
    def ts(self):
        return int(self.id.split("-")[0])

    def json(self):
        return json.loads(self.data)

    def __repr__(self):
        return f"<Event {self.event or ''} id={self.id} data={self.data!r} comments={self.comments}>"


class Stream:
    """An open stream on a connection of its own: its head, and what comes."""

    def __init__(self, server, target, headers=None, version="HTTP/1.1", receive_buffer=None, address=None, client=None):
        """Over a connection of its own: to the server, to that address, or over that client's."""
        server.saw_target(target)
        self.client = client or Client(address or server.address, receive_buffer=receive_buffer)
        self.client.send(request_bytes("GET", target, headers=headers, version=version))
        self.raw, self.text = self.client.buffer, bytearray()
        self.is_ended = False
        while b"\r\n\r\n" not in self.raw:
            self._receive()
        head, _, rest = bytes(self.raw).partition(b"\r\n\r\n")
        self.reply = Reply(head, b"")
        self.raw[:] = rest
        self.is_chunked = self.reply.headers.get("transfer-encoding") == "chunked"
        self.is_lines = "ndjson" in self.reply.headers["content-type"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def _receive(self):
        try:
            data = self.client.sock.recv(262144)
        except ConnectionResetError as error:
            raise Closed("reset") from error
        if not data:
            raise Closed("closed")
        self.raw += data

    def _decode(self):
        """Moves what is there of the body to `text`."""
        if not self.is_chunked:
            self.text += self.raw
            self.raw.clear()
            return
        while not self.is_ended:
            size, end, _ = self.raw.partition(b"\r\n")
            if not end or len(self.raw) < len(size) + 2 + int(size, 16) + 2:
                return
            at, count = len(size) + 2, int(size, 16)
            assert self.raw[at + count : at + count + 2] == b"\r\n"
            self.text += self.raw[at : at + count]
            del self.raw[: at + count + 2]
            self.is_ended = count == 0

    def next(self):
        """The next event, or the next line, as text; None where the stream ends cleanly. Closed: it is cut."""
        separator = b"\n" if self.is_lines else b"\n\n"
        while True:
            self._decode()
            block, end, _ = self.text.partition(separator)
            if end:
                del self.text[: len(block) + len(separator)]
                return block.decode() if self.is_lines else Event(block.decode())
            if self.is_ended:
                assert not self.text
                return None
            try:
                self._receive()
            except Closed:
                if not self.is_chunked and not self.text:
                    return None
                raise

    def update(self):
        """The next event with data, or the object of the next line that says more than where the stream is."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.next()) is not None:
            assert time.monotonic() < deadline, "only heartbeats"
            if not self.is_lines and found.data is not None:
                return found
            if self.is_lines and found and (line := json.loads(found)).keys() - {"ts", "epoch"}:
                return line
        return None

    def close(self):
        self.client.close()
