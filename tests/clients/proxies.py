"""Proxies for tests: one that cuts what is silent for too long, and one that clients are told to use."""

import base64
import select
import socket
import struct
import threading

from standin import CONTENT_LENGTH, bound_socket, hang_up, read_request, stop_listening

PAGE = "HTTP/1.1 {} Told\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\r\n<h1>No</h1>"

# How a proxy ends a poll: what it sends before it closes the connection.
CUTS = {
    "close": b"",
    "reset": None,
    "502": PAGE.format(502).encode(),
    "504": PAGE.format(504).encode(),
    "524": PAGE.format(524).encode(),
    "500": PAGE.format(500).encode(),
}


def request_bytes(request, target):
    """The request as a proxy passes it on."""
    fields = [f"{n}: {v}" for n, v in request.headers.items() if not n.startswith("proxy-")]
    return "\r\n".join([f"{request.method} {target} HTTP/1.1", *fields, "", ""]).encode("latin-1") + request.body


def read_reply(server):
    """A reply that says how long it is."""
    reply = b""
    while b"\r\n\r\n" not in reply or len(reply) < reply.index(b"\r\n\r\n") + 4 + int(CONTENT_LENGTH.search(reply)[1]):
        data = server.recv(65536)
        if not data:
            raise OSError("the reply is not whole")
        reply += data
    return reply


class Proxy:
    """Takes connections, each in a thread of its own."""

    def __init__(self):
        self._open = set()
        self._listener = bound_socket(0)
        self.port = self._listener.getsockname()[1]
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self):
        stop_listening(self._listener)
        for connection in list(self._open):
            hang_up(connection)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve_and_close, args=(connection,), daemon=True).start()

    def _serve_and_close(self, connection):
        try:
            self.serve(connection)
        except OSError:
            pass  # The client hung up, or the test is over.
        finally:
            connection.close()
            self._open.discard(connection)

    def serve(self, connection):
        raise NotImplementedError


class CuttingProxy(Proxy):
    """Leads to a server, and ends every request that is not answered after `after_s`.

    `ends` counts the requests that are over, and `cuts` those that it ended.
    """

    def __init__(self, server_port, after_s, how):
        self.server_port, self.after_s, self.how = server_port, after_s, how
        self.ends = self.cuts = 0
        super().__init__()

    def serve(self, connection):
        request, rest = read_request(connection, b"")
        while request is not None:
            reply = self._ask(request)
            if reply is None:
                self._cut(connection)
                return
            connection.sendall(reply)
            self.ends += 1
            request, rest = read_request(connection, rest)

    def _ask(self, request):
        """The server's reply to the request, or None if it does not come in time."""
        with socket.create_connection(("127.0.0.1", self.server_port)) as server:
            server.sendall(request_bytes(request, request.target))
            return read_reply(server) if select.select([server], [], [], self.after_s)[0] else None

    def _cut(self, connection):
        self.ends += 1
        self.cuts += 1
        if CUTS[self.how] is None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.sendall(CUTS[self.how])


class ForwardProxy(Proxy):
    """An HTTP proxy as HTTP_PROXY names one. `requests` is what it was asked."""

    def __init__(self, user=None):
        self.requests = []
        self.wanted = user and "Basic " + base64.b64encode(user.encode()).decode()
        super().__init__()

    def serve(self, connection):
        request, rest = read_request(connection, b"")
        while request is not None:
            self.requests.append(request)
            if self.wanted and request.headers.get("proxy-authorization") != self.wanted:
                connection.sendall(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
            elif request.method == "CONNECT":
                self._tunnel(connection, *request.target.rsplit(":", 1))
                return
            else:
                connection.sendall(self._forward(request))
            request, rest = read_request(connection, rest)

    def _forward(self, request):
        scheme, _, host, path = request.target.split("/", 3)
        assert scheme == "http:" and request.headers["host"] == host
        with socket.create_connection(self._address(*host.rsplit(":", 1))) as server:
            server.sendall(request_bytes(request, f"/{path}"))
            return read_reply(server)

    def _tunnel(self, connection, host, port):
        with socket.create_connection(self._address(host, port)) as server:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            while True:
                for source in select.select([connection, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (server if source is connection else connection).sendall(data)

    @staticmethod
    def _address(_, port):
        """Every name leads to this machine."""
        return "127.0.0.1", int(port)
