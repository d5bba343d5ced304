"""A small HTTP/1.1 client that sends exactly what it is told to send.

http.client tidies requests up, and these tests need to see what the server does with untidy ones.
"""

import json
import re
import socket
import struct

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)

TIMEOUT_S = 120  # longer than the tests wait for a condition


class Closed(Exception):
    """The server closed the connection where a reply was expected."""


GONE = (Closed, ConnectionError)  # what a client sees when the server has gone, or wants no more of it


class Reply:
    """One reply: its status, its header fields and its body."""

    def __init__(self, head: bytes, body: bytes):
        self.head = head
        self.status = int(head[9:12])
        self.body = body

    @property
    def headers(self):
        """Fields by lower-case name; a repeated field is joined with ', '."""
        fields = {}
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            name = name.lower()
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
        return fields

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        return json.loads(self.body)

    @property
    def total(self):
        return int(self.headers["x-total-updates"])

    @property
    def ts(self):
        return self.json()["ts"]

    @property
    def updates(self):
        return self.json()["updates"]

    @property
    def closes(self):
        return self.headers.get("connection", "").lower() == "close"

    def __repr__(self):
        return f"<Reply {self.head!r} {self.body[:200]!r}{'…' if len(self.body) > 200 else ''}>"


def take_reply(buffer: bytearray, has_body=True):
    """Takes one complete reply off the front of `buffer`. Returns None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end])
    start = end + 4
    status = int(head[9:12])
    if not has_body or status in (204, 304) or status < 200:
        del buffer[:start]
        return Reply(head, b"")
    if CHUNKED.search(head):
        body, after = _unchunk(buffer, start)
        if body is None:
            return None
        del buffer[:after]
        return Reply(head, body)
    length = CONTENT_LENGTH.search(head)
    assert length, f"a reply without a length: {head!r}"
    after = start + int(length[1])
    if len(buffer) < after:
        return None
    body = bytes(buffer[start:after])
    del buffer[:after]
    return Reply(head, body)


def _unchunk(buffer, at):
    body = b""
    while True:
        line_end = buffer.find(b"\r\n", at)
        if line_end < 0:
            return None, 0
        size = int(bytes(buffer[at:line_end]).split(b";")[0], 16)
        at = line_end + 2
        if len(buffer) < at + size + 2:
            return None, 0
        body += buffer[at : at + size]
        at += size + 2
        if size == 0:
            return body, at


def connect(address, timeout=TIMEOUT_S, receive_buffer=None):
    """A connected socket; `address` is (host, port) or the path of a unix socket."""
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(address)
    if family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset_on_close(sock):
    """Makes close() send RST instead of FIN, as the kernel of a crashed client would."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def request_bytes(method, target, body=None, headers=None, version="HTTP/1.1"):
    """A plain, correct request. Adds Host and Content-Length if `headers`, a dict, lacks them."""
    fields = dict(headers or {})
    names = {name.lower() for name in fields}
    if "host" not in names:
        fields = {"Host": "longline.test", **fields}
    if isinstance(body, str):
        body = body.encode()
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        fields["Content-Length"] = str(len(body))
    head = f"{method} {target} {version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items())
    return head.encode("latin-1") + b"\r\n" + (body or b"")


def chunked(*parts: bytes, end=b"0\r\n\r\n"):
    """The parts as a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


class Client:
    """One blocking connection that is kept alive between requests."""

    def __init__(self, address, timeout=TIMEOUT_S, receive_buffer=None, on_target=None):
        self.sock = connect(address, timeout, receive_buffer)
        self.buffer = bytearray()
        self.on_target = on_target

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        return self.sock.fileno()

    def send(self, data: bytes):
        self.sock.sendall(data)

    def send_request(self, method, target, body=None, headers=None, version="HTTP/1.1"):
        if self.on_target:
            self.on_target(target)
        self.send(request_bytes(method, target, body, headers, version))

    def read_reply(self, has_body=True):
        """The next reply; raises Closed if the server closes first."""
        while True:
            reply = take_reply(self.buffer, has_body)
            if reply:
                return reply
            try:
                data = self.sock.recv(262144)
            except ConnectionResetError as error:
                raise Closed(f"reset, with {bytes(self.buffer)!r} unread") from error
            if not data:
                raise Closed(f"closed, with {bytes(self.buffer)!r} unread")
            self.buffer += data

    def request(self, method, target, body=None, headers=None, version="HTTP/1.1"):
        self.send_request(method, target, body, headers, version)
        return self.read_reply(has_body=method != "HEAD")

    def get(self, target, headers=None):
        return self.request("GET", target, headers=headers)

    def post(self, target, body=None, headers=None):
        return self.request("POST", target, body if body is not None else b"", headers)

    def read_to_end(self):
        """Everything up to the server's close. A reset counts as a close."""
        data = bytes(self.buffer)
        self.buffer.clear()
        while True:
            try:
                more = self.sock.recv(262144)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def close(self):
        self.sock.close()

    def abort(self):
        reset_on_close(self.sock)
        self.sock.close()
