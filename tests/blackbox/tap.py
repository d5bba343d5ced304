"""Between a proxy and longline: hears all that passes, and compares how many requests each of them takes it for.

A proxy puts its mark into every request that it sees. What it sends is read here once more, by the grammar of RFC 9112 and no other.
"""

import contextlib
import re
import selectors
import socket
import threading

from redis_server import HOST
from reverse_proxy import SAW

REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.[01]")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")


class Ambiguous(Exception):
    """Bytes that are no request: longline must refuse them, and close."""


class Partial(Exception):
    """They end before the request does."""


def _body_end(head, data, at):
    """Where the body ends that begins at `at`."""
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        match = FIELD.fullmatch(line)
        if not match:
            raise Ambiguous
        fields.setdefault(match[1].lower(), []).append(match[2].rstrip(b" \t"))
    lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1 or not all(length.isdigit() for length in lengths):
        raise Ambiguous
    if lengths:
        return at + int(lengths[0])
    if not codings:
        return at
    if codings[0].lower() != b"chunked":
        raise Ambiguous
    return _chunks_end(data, at)


def _chunks_end(data, at):
    while True:
        line_end = data.find(b"\n", at)
        if line_end < 0:
            raise Partial
        line = CHUNK_LINE.fullmatch(data, at, line_end + 1)
        if not line:
            raise Ambiguous
        at, size = line.end(), int(line[1], 16)
        if not size:
            break
        if len(data) < at + size + 2:
            raise Partial
        at += size + 2
        if data[at - 2 : at] != b"\r\n":
            raise Ambiguous
    while not data.startswith(b"\r\n", at):  # trailers
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            raise Partial
        if not FIELD.fullmatch(data, at, line_end):
            raise Ambiguous
        at = line_end + 2
    return at + 2


def read_requests(data):
    """(heads, how many of them are whole, whether what follows is no request)."""
    heads, whole, at = [], 0, 0
    try:
        while at < len(data):
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                break
            head = data[at:end]
            heads.append(head)
            if not REQUEST_LINE.fullmatch(head.split(b"\r\n")[0]):
                raise Ambiguous
            at = _body_end(head, data, end + 4)
            if at > len(data):
                break
            whole += 1
    except Partial:
        pass
    except Ambiguous:
        return heads, whole, True
    return heads, whole, False


def read_replies(data, heads):
    """The heads of the replies to these requests."""
    replies, at = [], 0
    while (end := data.find(b"\r\n\r\n", at)) >= 0:
        head = data[at : end + 2]
        at = end + 4
        if head.startswith(b"HTTP/1.1 1"):
            continue
        assert head.startswith(b"HTTP/1.1 "), f"no reply: {data[at:][:200]}"
        is_head = len(replies) < len(heads) and heads[len(replies)].startswith(b"HEAD ")
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.I)
        if not is_head and head[9:12] not in (b"204", b"304"):
            at += int(length[1])
        if at > len(data):
            break
        replies.append(head)
    return replies


class Line:
    """One connection, both ways."""

    def __init__(self, proxy, longline):
        self.ends = {proxy: longline, longline: proxy}
        self.proxy, self.longline = proxy, longline
        self.asked, self.answered = bytearray(), bytearray()
        self.is_closed = False  # by longline

    def take(self, end):
        """Passes on what has come from that end. Returns False when nothing more will."""
        try:
            data = end.recv(262144)
        except OSError:
            data = b""
        (self.asked if end is self.proxy else self.answered).extend(data)
        with contextlib.suppress(OSError):
            self.ends[end].sendall(data)
        if not data and end is self.longline:
            self.is_closed = True
            with contextlib.suppress(OSError):
                self.proxy.shutdown(socket.SHUT_RDWR)
        return bool(data)

    def complaint(self, mark):
        """What is wrong, None when nothing is; longline may not have answered yet."""
        heads, whole, is_ambiguous = read_requests(bytes(self.asked))
        replies = read_replies(bytes(self.answered), heads)
        saw = b"%s: %s" % (SAW.lower().encode(), mark)
        marks = [head.lower().count(saw) for head in heads]
        if replies and b"\r\nConnection: close\r\n" in replies[-1]:
            # It has read nothing behind what it answered last, which it may have refused before its end.
            is_one_each = marks[: len(replies)] in ([1] * len(replies), [1] * (len(replies) - 1))
            return None if is_one_each and self.is_closed else f"{len(replies)} replies, the last of which closes; marks: {marks}"
        if is_ambiguous:
            return "no request, and longline does not refuse it"
        if not (bytes(self.asked).lower().count(saw) == sum(marks) == len(heads)):
            return f"{len(heads)} requests that the proxy takes for {marks}"
        return None if len(replies) == whole else f"{len(replies)} replies, {whole} requests"

    def transcript(self):
        return f"{bytes(self.asked)[-3000:]!r}\n→ {bytes(self.answered)[-3000:]!r}"


class Tap:
    """Listens on a port, in front of that of longline."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.listener = socket.create_server((HOST, 0), backlog=500)
        self.port = self.listener.getsockname()[1]
        self.lines = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.is_open = True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_open = False
        socket.create_connection((HOST, self.port)).close()
        self.thread.join()
        for line in self.lines:
            for end in line.ends:
                end.close()
        self.listener.close()
        self.selector.close()

    def _run(self):
        while self.is_open:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    self._accept()
                elif not key.data.take(key.fileobj):
                    # When the proxy has left, what longline makes of its requests is heard all the same.
                    self.selector.unregister(key.fileobj)

    def _accept(self):
        proxy, _ = self.listener.accept()
        line = Line(proxy, socket.create_connection((HOST, self.upstream)))
        self.lines.append(line)
        for end in line.ends:
            end.settimeout(50)
            self.selector.register(end, selectors.EVENT_READ, line)
