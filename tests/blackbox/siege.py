"""A crowd of attackers on one epoll loop, in a process of its own: each connects once, and stays for as long as it is let.

    siege.py HOST PORT COUNT PARK_S

writes "ready" when all have connected, and ends when its stdin does. Each kind is a way to cost a server much for little.
"""

import select
import socket
import sys
import time

from http_client import connect, request_bytes

PAGE, BUSY = "/siege-page", "/siege-busy"
MIB = 1 << 20
FEW = 50  # of those whose cost is the kernel's buffers
DRIP_S, TURNS = 1, 100

HALF = {"Content-Length": "100000"}
CHUNKED = {"Transfer-Encoding": "chunked"}

# kind: (share of all, what it sends first, what it sends now and then, whether its receive buffer is small)
KINDS = {
    "silent": (0.3, b"", b"", False),
    "slow headers": (0.25, b"GET /siege HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n", False),
    "slow body": (0.15, request_bytes("POST", "/siege", None, HALF), b"x", False),
    "slow chunks": (0.1, request_bytes("POST", "/siege", None, CHUNKED), b"1\r\nx\r\n", False),
    "slow request line": (0.1, b"GET /", b"x", False),
    "parked": (0.1, request_bytes("GET", "/siege-parked?sleep=PARK_S"), b"", True),
    "never reads a page": (0, request_bytes("GET", PAGE) * 5, b"", True),
    "never reads its pipeline": (0, request_bytes("GET", PAGE) * 20, request_bytes("GET", PAGE) * 20, True),
    "never reads its stream": (0, request_bytes("GET", BUSY + "?feed=lines"), b"", True),
    "half-closed": (0, b"POST /siege HTTP/1.1\r\n", None, False),
}


def open_one(address, kind, park_s):
    _, first, _, is_small = KINDS[kind]
    client = connect(address, receive_buffer=4096 if is_small else None)
    client.sendall(first.replace(b"PARK_S", park_s.encode()))
    if kind == "half-closed":
        client.shutdown(socket.SHUT_WR)
    client.setblocking(False)
    return client


def drip(clients):
    """Those that send a little now and then do so."""
    for client, kind in clients:
        more = KINDS[kind][2]
        if more:
            try:
                client.send(more)
            except OSError:
                pass


def main(host, port, count, park_s):
    clients = []
    for kind, (share, *_) in KINDS.items():
        clients += [(open_one((host, int(port)), kind, park_s), kind) for _ in range(int(share * int(count)) or min(FEW, int(count) // 10))]
    pusher = connect((host, int(port)))
    poll = select.poll()
    for waited in (sys.stdin, pusher):
        poll.register(waited, select.POLLIN)
    print("ready", len(clients), flush=True)
    turn = 0
    while True:  # they are not in step with each other
        began = time.monotonic()
        drip(clients[turn % TURNS :: TURNS])
        if turn % TURNS == 0:
            pusher.sendall(request_bytes("POST", BUSY, b'["%s"]' % (b"x" * 500_000)))
        turn += 1
        left = 1
        while left > 0:  # it listens also when it is late
            left = began + DRIP_S / TURNS - time.monotonic()
            readable = [fd for fd, _ in poll.poll(max(0, 1000 * left))]
            if sys.stdin.fileno() in readable or readable and not pusher.recv(65536):
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
