"""A proxy that does what proxies do on a bad day: it cuts polls that last, answers with pages of its own,
loses half of a reply, and goes away."""

import select
import socket
import struct
import threading

from proxies import Proxy, read_reply, request_bytes
from standin import bound_socket, hang_up, read_request, reply_bytes, stop_listening


def page(status, text="<html><h1>Sorry</h1></html>", **headers):
    """A reply of the proxy's own, as HTML."""
    return reply_bytes({"status": status, "headers": {"Content-Type": "text/html", **headers}, "text": text})


# How a poll ends that was cut: the bytes that its client gets before the connection closes, or "reset".
CUTS = [b"", "reset", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"]
CUTS[2:2] = [page(status, Connection="close") for status in (502, 504, 524, 500, 408, 503)]

# What a proxy says without asking the server.
PASSING = [page(404), page(404, ""), page(403), page(403, '{"ok":false,"error_code":404}'), page(200, ""), page(200, "{}")]
PASSING += [page(401), page(302, Location="/login"), page(200), page(502), page(503), b""]


class BadProxy(Proxy):
    """Leads to the server at `server_port`.

    `mood(number)` says what to do with a request, counted from 0: ("pass",); ("cut", seconds, bytes or "reset"),
    if the server has not answered by then; ("say", bytes); or ("half",) of the server's reply.
    """

    def __init__(self, server_port, mood):
        self.server_port = server_port
        self.mood = mood
        self.count = 0
        self.cuts = 0
        self._counting = threading.Lock()
        super().__init__()

    def go_away(self):
        """Closes all connections, and refuses new ones until come_back()."""
        stop_listening(self._listener)
        for connection in list(self._open):
            hang_up(connection)
        self._listener = bound_socket(self.port)

    def come_back(self):
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def serve(self, connection):
        buffer, stays_open = b"", True
        while stays_open:
            request, buffer = read_request(connection, buffer)
            if request is None:
                return
            with self._counting:
                number = self.count
                self.count += 1
            stays_open = self._answer(connection, request, *self.mood(number))

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

    def _ask(self, request, after_s):
        """The server's reply, or None if it does not come in time."""
        try:
            with socket.create_connection(("127.0.0.1", self.server_port)) as server:
                server.sendall(request_bytes(request, request.target))
                return read_reply(server) if select.select([server], [], [], after_s)[0] else None
        except OSError:
            return None
