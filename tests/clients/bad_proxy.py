"""A proxy in front of a server that does what proxies do on a bad day: it cuts polls that last, answers
with pages of its own, loses half of a reply, and goes away."""

import http.client
import socket
import struct
import threading

from standin import bound_socket, hang_up, read_request, reply_bytes, stop_listening

HTML = {"Content-Type": "text/html"}


def page(status, text="<html><h1>Sorry</h1></html>", **headers):
    """A reply of the proxy's own, as HTML."""
    return reply_bytes({"status": status, "headers": {**HTML, **headers}, "text": text})


# How a poll ends that was cut: the bytes that its client gets before the connection closes, or "reset".
CUTS = [b"", "reset", page(502), page(504), page(524), page(500), page(408), b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", page(503)]

# What a proxy says without asking the server.
PASSING = [page(404), page(404, ""), page(403), page(403, '{"ok":false,"error_code":404}'), page(200, ""), page(200, "{}"), page(401), page(302, Location="/login"), page(200), page(502), page(503), b""]


class BadProxy:
    """Serves on `port` for the server at `backend_port`.

    `mood(number)` says what to do with a request, counted from 0: ("pass",); ("cut", seconds, bytes or "reset"),
    if the server has not answered by then; ("say", bytes); or ("half",) of the server's reply.
    """

    def __init__(self, backend_port, mood):
        self.backend_port = backend_port
        self.mood = mood
        self.count = 0
        self.cuts = 0
        self._lock = threading.Lock()
        self._connections = set()
        self._listener = bound_socket(0)
        self.port = self._listener.getsockname()[1]
        self.come_back()

    def come_back(self):
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def go_away(self):
        """Closes all connections, and refuses new ones until come_back()."""
        stop_listening(self._listener)
        with self._lock:
            for connection in self._connections:
                hang_up(connection)
        self._listener = bound_socket(self.port)

    def end(self):
        self.go_away()
        self._listener.close()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        buffer, stays_open = b"", True
        try:
            while stays_open:
                request, buffer = read_request(connection, buffer)
                if request is None:
                    break
                with self._lock:
                    number = self.count
                    self.count += 1
                stays_open = self._answer(connection, request, *self.mood(number))
        except OSError:
            pass  # The client hung up, or the proxy went away.
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection, request, mood, *how):
        """Returns whether the connection stays open."""
        if mood == "say":
            connection.sendall(how[0])
            return bool(how[0])
        reply = self._ask(request, how[0] if mood == "cut" else 100)
        if reply is not None:
            connection.sendall(reply[: len(reply) // 2] if mood == "half" else reply)
            return mood != "half"
        if mood != "cut":
            connection.sendall(page(502))
            return True
        self.cuts += 1
        if how[1] == "reset":
            # A close that waits for nothing sends a RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.sendall(how[1])
        return False

    def _ask(self, request, timeout_s):
        """The server's reply, or None if there is none in time."""
        backend = http.client.HTTPConnection("127.0.0.1", self.backend_port, timeout=timeout_s)
        try:
            backend.request(request.method, request.target, request.body, {"Content-Type": request.headers.get("content-type", "")})
            reply = backend.getresponse()
            text = reply.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            backend.close()
        kept = {name: value for name, value in reply.getheaders() if name not in ("Content-Length", "Connection")}
        return reply_bytes({"status": reply.status, "headers": kept, "text": text})
