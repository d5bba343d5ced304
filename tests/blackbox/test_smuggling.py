"""Behind nginx, Caddy and HAProxy, nothing is read as two requests that the proxy took for one, or as one that it took for two.

Everything malformed or ambiguous is sent through each of them (smuggling.py, http2.py). A tap between proxy and longline counts requests and
replies (tap.py), and behind each vector comes somebody else, whose reply must be theirs. SMUGGLING=all adds every byte in every place.
"""

import contextlib
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import http2
import smuggling
from http_client import Closed, request_bytes
from longline_server import SLOW, wait_until
from reverse_proxy import KINDS, NAME, Proxies
from tap import Tap, read_requests

# What a proxy makes of a request is the same over every store.
pytestmark = pytest.mark.providers("memory")

# A vector that is not answered for so long is not waited for: most of those are requests that never end.
PATIENCE_S = 0.5 if SLOW else 0.2
TOGETHER = 24  # most of them wait
LAST = request_bytes("GET", "/last", headers={"Host": NAME, "Connection": "close"})


@pytest.fixture
def tapped(server, tmp_path, authority):
    """tapped(kind, authority=None): (proxy, tap), with a tap between that proxy and the server."""
    proxies = Proxies(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(proxies.finish)

        def start(kind, with_tls=False):
            tap = stack.enter_context(Tap(server.port))
            return proxies.start(kind, tap.port, authority if with_tls else None, mark=secrets.token_hex(8)), tap

        yield start


def send(proxy, text):
    """Sends it, and what the same client asks next, as a client that leaves when nothing more comes."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", proxy.port), 30) as sock:
        sock.sendall(text + LAST)
        sock.settimeout(PATIENCE_S)
        while sock.recv(262144):
            pass


class Another:
    """Somebody else behind the same proxy, on a connection that stays open."""

    def __init__(self, server, proxy):
        self.server, self.client = server, proxy.client()

    def ask(self):
        """A push and a poll whose answers are known."""
        channel, secret = self.server.channel(), secrets.token_hex(8)
        assert self.client.post(channel, f'["{secret}"]').total == 1
        assert self.client.get(channel).updates == [[secret]]


def attack(server, proxy, tap, vectors, send_one):
    """Sends all, and checks every connection between proxy and longline."""
    own = threading.local()

    def one(item):
        send_one(proxy, item[1])
        own.another = getattr(own, "another", None) or Another(server, proxy)
        try:
            own.another.ask()
        except (AssertionError, Closed, OSError, ValueError) as error:
            raise AssertionError(f"behind {item[0]}: {error!r}") from error

    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(one, vectors.items()))
    mark = proxy.mark.encode()

    def complaints():
        return [(complaint, line.transcript()) for line in list(tap.lines) if (complaint := line.complaint(mark))]

    with contextlib.suppress(AssertionError):  # what is under way may still be answered
        wait_until(lambda: not complaints())
    assert not complaints(), "\n".join(map("\n".join, complaints()[:3]))
    passed = sum(len(read_requests(bytes(line.asked))[0]) for line in tap.lines) - 2 * len(vectors)
    print(f"{proxy.kind}: {len(vectors)} vectors, {passed} requests of theirs passed on, on {len(tap.lines)} connections")
    assert passed > 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_one_request(server, tapped, kind):
    vectors = smuggling.vectors()
    assert len(vectors) > 900
    attack(server, *tapped(kind), vectors, send)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_of_http_2_is_one_request(server, tapped, kind):
    vectors = http2.vectors()
    assert len(vectors) > 200
    attack(server, *tapped(kind, with_tls=True), vectors, lambda proxy, frames: http2.send(proxy, frames, PATIENCE_S))
