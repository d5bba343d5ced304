"""A proxy of a test's own in front of a server: it passes on what comes, holds it back, or answers by itself."""

import contextlib
import socket

from commands import Target
from http_client import Client, request_bytes

HOP_BY_HOP = ("content-length", "connection")


def everything(upstream):
    """What comes, until it ends."""
    return b"".join(iter(lambda: upstream.recv(65536), b""))


class Between(Target):
    """What `rule(received)` does not answer is asked of the server, below `prefix` of the proxy.

    A stream is passed on as it comes, or as `hold(received)` says: that is None, or a function that takes the connection
    to the server and gives what is passed on, piece by piece.
    """

    def __init__(self, server, rule=lambda received: "pass", hold=lambda received: None, prefix="", context=None):
        def answer(_, received):
            assert received.target.startswith(prefix), received.target
            own = rule(received)
            if own != "pass":
                return own
            target = received.target[len(prefix) :]
            if "feed=" in target:
                return lambda connection: self._pass_stream(connection, server, target, received)
            with Client(server.address) as client:
                reply = client.request(received.method, target, received.body)
            headers = {name: value for name, value in reply.headers.items() if name not in HOP_BY_HOP}
            return reply.status, headers, reply.body

        self.hold = hold
        super().__init__(answer, context=context)

    def _pass_stream(self, connection, server, target, received):
        pieces = self.hold(received) or (lambda upstream: iter(lambda: upstream.recv(65536), b""))
        with contextlib.suppress(OSError), socket.create_connection(server.address) as upstream:
            upstream.sendall(request_bytes("GET", target))
            for piece in pieces(upstream):
                connection.sendall(piece)
