"""A stand-in for systemd: it hears what a service notifies, and passes sockets to it."""

import fcntl
import os
import secrets
import socket
import time

from longline_server import PATIENCE_S


class Notifications:
    """NOTIFY_SOCKET, on a path or with an abstract name."""

    def __init__(self, directory, is_abstract=False):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = "longline-" + secrets.token_hex(8)
        self.name = "@" + name if is_abstract else str(directory / "notify")
        self.sock.bind("\0" + name if is_abstract else self.name)
        self.sock.settimeout(PATIENCE_S)
        self.settings = {"NOTIFY_SOCKET": self.name}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def next(self):
        """The next message, as a dict."""
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())

    def until(self, **wanted):
        """Reads until a message has all of that; returns it. Watchdogs in between do not count."""
        while True:
            message = self.next()
            if wanted.items() <= message.items():
                return message
            assert message.get("WATCHDOG") == "1", (message, wanted)


def passing(*socks, names=None, pid=None, count=None):
    """For a child: makes the sockets descriptors 3, 4 and so on, and returns the variables that say so."""
    fds = [sock.fileno() for sock in socks]

    def pass_on():
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
        for index, fd in enumerate(copies):
            os.dup2(fd, 3 + index, inheritable=True)
        told = {"LISTEN_FDS": len(fds) if count is None else count, "LISTEN_PID": pid or os.getpid()}
        return {name: str(value) for name, value in told.items()} | ({"LISTEN_FDNAMES": names} if names else {})

    return pass_on


def listening(family=socket.AF_INET, address=("127.0.0.1", 0), kind=socket.SOCK_STREAM, listens=True):
    sock = socket.socket(family, kind)
    sock.bind(address)
    if listens:
        sock.listen(64)
    return sock


def is_monotonic_now(microseconds):
    return abs(int(microseconds) / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < PATIENCE_S
