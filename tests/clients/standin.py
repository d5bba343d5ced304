"""A server that plays a script: everything that a client meets on a bad day, one entry a request.

The script of a case in clients/conformance.json is a list of entries. Each has one of

    "reply"   {"status", "headers", "json" or "text", "chunked"}: a complete reply; the connection
              stays open, unless the headers say Connection: close
    "cut"     these bytes, and then the connection closes
    "close"   the connection closes without a byte
    "reset"   the connection is reset (RST) without a byte
    "refuse"  all connections close, and new ones are refused until the client has reported that
              many refusals

and may have "within_ms" (how soon the request must follow the one before it), "delay_ms" (the time
before the answer; "sleep": as long as the poll wants to wait) and "expect", what the request's query
must contain. A parameter is given there as

    "text"              its value
    ["one", "two"]      its values, as it is repeated
    {"from", "to"}      a number between these; an absent parameter is 0
    false               it must not be there
    null                it is not looked at

Without "expect", limit must be 100, and epoch what the last whole reply gave, at first empty.
After the script's end every request is held until the stand-in ends.
"""

import json
import re
import socket
import ssl
import struct
import threading
import time
from urllib.parse import parse_qs, urlsplit

from longline_server import PATIENCE_S, wait_until

TARGET = "/conformance-channel"

# Short ways to write the entries of a script.


def reply(ts, *updates, **fields):
    return {"reply": {"json": {"ok": True, "ts": ts, **fields, "updates": list(updates)}}}


def pushed(ts, **more):
    return {"reply": {"headers": {"X-Total-Updates": str(ts)}, "text": "OK", **more}}


def refusal(status, description="No", **headers):
    body = {"ok": False, "error_code": status, "error_description": description}
    return {"reply": {"status": status, "headers": {n.replace("_", "-"): v for n, v in headers.items()}, "json": body}}


def tls_context(authority, *names):
    """The SSLContext of a server with these names ("DNS:localhost", "IP:127.0.0.1")."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(*names))
    return context


CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Request:
    """A request as it came, and when it came."""

    def __init__(self, head: bytes, body: bytes):
        self.at = time.monotonic()
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = line.split(" ")
        self.headers = {n.lower(): v.strip() for n, _, v in (field.partition(":") for field in fields)}
        self.body = body
        self.path = urlsplit(self.target).path
        self.queries = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        self.query = {name: values[-1] for name, values in self.queries.items()}

    def __repr__(self):
        return f"{self.method} {self.target}"


class StandIn:
    """Plays `script`. `requests` is what came, and `problems` what was wrong with it.

    `tls` is an SSLContext, to speak TLS. "refuse" needs `errors_told`, which returns how many errors
    the client has reported so far.
    """

    def __init__(self, script, tls=None, errors_told=None):
        self.script = script
        self.tls = tls
        self.errors_told = errors_told
        self.requests = []
        self.problems = []
        self._epoch = ""
        self._changed = threading.Condition()
        self._ended = False
        self._connections = set()
        self._listener = bound_socket(0)
        self.port = self._listener.getsockname()[1]
        self._listen()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{TARGET}"

    def end(self):
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            connections = list(self._connections)
        stop_listening(self._listener)
        for connection in connections:
            hang_up(connection)

    # --- what a test waits for ---

    def wait_for_requests(self, count, alive=lambda: True):
        """Waits until `count` requests have come, or until `alive` says that no more will."""

        def came():
            assert len(self.requests) >= count or alive(), f"the client ended after {self.requests}"
            return len(self.requests) >= count

        wait_until(came, f"{count} requests")

    def wait_for_held(self, alive=lambda: True):
        """Waits until the script is over and the client has asked for more."""
        self.wait_for_requests(len(self.script) + 1, alive)

    # --- the server ---

    def _listen(self):
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                if self._ended:
                    hang_up(connection)
                    return
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection
        try:
            if self.tls:
                stream = self.tls.wrap_socket(connection.dup(), server_side=True)
            buffer = b""
            while True:
                request, buffer = read_request(stream, buffer)
                if request is None or not self._answer(stream, request):
                    return
        except OSError:
            pass  # The client hung up, or the test is over.
        finally:
            with self._changed:
                self._connections.discard(connection)
            hang_up(connection)
            connection.close()
            stream.close()

    def _answer(self, connection, request):
        """Answers according to the script. Returns whether the connection stays open."""
        with self._changed:
            entry = self.script[len(self.requests)] if len(self.requests) < len(self.script) else None
            self._check(request, entry)
            self.requests.append(request)
            self._changed.notify_all()
            if entry is None:
                while not self._ended:
                    self._changed.wait()
                return False
        time.sleep(delay_s(entry, request))
        if "refuse" in entry:
            self._refuse(entry["refuse"])
        elif "reset" in entry:
            # A close that waits for nothing sends a RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        elif "cut" in entry:
            connection.sendall(entry["cut"].encode())
        elif "reply" in entry:
            self._epoch = epoch_of(entry["reply"]) or self._epoch
            connection.sendall(reply_bytes(entry["reply"]))
            return entry["reply"].get("headers", {}).get("Connection") != "close"
        return False

    def _check(self, request, entry):
        expected = (entry or {}).get("expect", {})
        where = f"request {len(self.requests) + 1}, {request}"
        if request.method != "GET" or request.path != TARGET:
            self.problems.append(f"{where}: not a poll of {TARGET}")
        for name, wanted in {"limit": "100", "epoch": self._epoch, **expected}.items():
            if not fits(request.queries.get(name, []), wanted):
                self.problems.append(f"{where}: {name} is not {wanted}")
        if "within_ms" in (entry or {}) and (request.at - self.requests[-1].at) * 1000 > entry["within_ms"]:
            self.problems.append(f"{where}: not within {entry['within_ms']} ms")
        if "ts" not in expected and not re.fullmatch(r"-?\d+", request.query.get("ts", "")):
            self.problems.append(f"{where}: ts is not a whole number")

    def _refuse(self, count):
        """Closes all connections, then refuses new ones until the client has reported `count`.

        The client must count them, because the kernel counts those of the whole machine.
        """
        stop_listening(self._listener)
        self._listener = bound_socket(self.port)
        enough = self.errors_told() + 1 + count
        with self._changed:
            connections = list(self._connections)
        for each in connections:  # a client may have kept more than one
            hang_up(each)
        deadline = time.monotonic() + PATIENCE_S
        while self.errors_told() < enough and time.monotonic() < deadline and not self._ended:
            time.sleep(0.002)
        if self.errors_told() < enough:
            self.problems.append(f"fewer than {count} connections were refused")
        self._listen()


def fits(values, wanted):
    """Whether the values of a parameter are what a script expects of it."""
    if wanted is None:
        return True
    if wanted is False:
        return values == []
    if isinstance(wanted, dict):
        try:
            return wanted["from"] <= float((values or ["0"])[-1]) <= wanted["to"]
        except ValueError:
            return False
    return values == wanted if isinstance(wanted, list) else values[-1:] == [wanted]


def delay_s(entry, request):
    """How long to wait before the answer."""
    delay_ms = entry.get("delay_ms", 0)
    return float(request.query.get("sleep", 0)) if delay_ms == "sleep" else delay_ms / 1000


def epoch_of(reply):
    """The epoch that a reply gives, if it gives one."""
    try:
        body = reply["json"] if "json" in reply else json.loads(reply["text"])
        return body.get("epoch")
    except (ValueError, KeyError, AttributeError):
        return None


def bound_socket(port):
    """A socket that has the port but does not listen, so that connections are refused."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            return sock
        except OSError:
            # The accept() of the socket before it has not returned yet.
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def stop_listening(listener):
    hang_up(listener)
    listener.close()


def hang_up(sock):
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def read_request(connection, buffer):
    """The next request and what follows it, or (None, b"") if the client is done."""
    while b"\r\n\r\n" not in buffer:
        data = connection.recv(65536)
        if not data:
            return None, b""
        buffer += data
    head, _, rest = buffer.partition(b"\r\n\r\n")
    length = CONTENT_LENGTH.search(head)
    length = int(length[1]) if length else 0
    while len(rest) < length:
        data = connection.recv(65536)
        if not data:
            return None, b""
        rest += data
    return Request(head, rest[:length]), rest[length:]


def reply_bytes(reply):
    status = reply.get("status", 200)
    body = reply["text"] if "text" in reply else json.dumps(reply.get("json", {}), ensure_ascii=False)
    body = body.encode()
    fields = {"Content-Type": "application/json; charset=utf-8", **reply.get("headers", {})}
    if reply.get("chunked"):
        fields["Transfer-Encoding"] = "chunked"
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        fields["Content-Length"] = str(len(body))
    head = f"HTTP/1.1 {status} Told\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode("latin-1") + b"\r\n" + body
