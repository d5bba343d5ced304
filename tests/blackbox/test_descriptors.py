"""No descriptor left: whoever is connected is served, nothing spins, and it all goes on when there are some again."""

import contextlib
import resource
import select
import signal
import time

import pytest

from http_client import GONE
from longline_server import PATIENCE_S, SLOW, wait_until

CPU_SHARE = 0.2 if SLOW else 0.05
SERVED_S = PATIENCE_S if SLOW else 1


class Limit:
    """The server's bound on descriptors, which a test lowers until there are none."""

    def __init__(self, server):
        self.server = server
        self.before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        self.crowd = []

    def exhaust(self, count=0):
        """`count` more clients get in. Others wait, so that whatever is given back is taken."""
        self.set(self.server.descriptor_count() + count)
        for _ in range(count + 5):
            client = self.server.client()
            with contextlib.suppress(*GONE):
                client.send_request("GET", "/-/health")
            self.crowd.append(client)

    def set(self, descriptors):
        resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, (descriptors, self.before[1]))

    def lift(self):
        self.set(self.before[0])

    def disperse(self):
        for client in self.crowd:
            client.close()
        self.crowd = []


@pytest.fixture
def limit():
    """limit(server) makes its Limit."""
    limits = []
    yield lambda server: limits.append(Limit(server)) or limits[-1]
    for made in limits:
        made.disperse()


def cpu_share(server, while_s=2):
    before, began = server.cpu_seconds(), time.monotonic()
    select.select([], [], [], while_s)
    return (server.cpu_seconds() - before) / (time.monotonic() - began)


@contextlib.contextmanager
def poll(server, channel):
    """A poll that waits."""
    with server.client() as client:
        client.send_request("GET", f"{channel}?sleep=60")
        server.wait_for_parked(1)
        yield client


def answer(client):
    return client.read_reply().json()


@pytest.mark.parametrize("how", ["lift", "disperse"])
def test_who_is_there_is_served_and_who_comes_waits(start, limit, how):
    """The limit is lifted, or others hang up."""
    server = start()
    channel = server.channel()
    none = limit(server)
    with poll(server, channel) as parked, server.client() as working:
        working.get("/-/health")
        none.exhaust(3)
        assert (share := cpu_share(server)) < CPU_SHARE, f"{share:.1%} of the CPU"
        with server.client() as late:
            late.send_request("GET", "/-/health")
            assert working.post(channel, '{"n":1}').total == 1
            assert answer(parked)["updates"] == [{"n": 1}]
            began = time.monotonic()
            getattr(none, how)()
            assert late.read_reply().status == 200
            took = time.monotonic() - began
        none.lift()
    print(f"{how}: {share:.1%} of the CPU; served {took:.2f} s after there were descriptors")
    assert took < SERVED_S


def test_the_store_needs_no_more_of_them(start, limit):
    """Whatever is asked of it, and a stop; what cannot be opened then is done without."""
    server = start(CHANNEL_STORAGE_MAXSIZE=20, DATA_MAX_BYTES=4 << 20)
    channel, other = server.channel(), server.channel()
    with server.client() as client:
        client.get("/-/health")
        limit(server).exhaust()
        for n in range(1, 61):
            assert client.post(channel, '{"n":%d,"x":"%s"}' % (n, "x" * 30_000)).total == n
        assert client.post(other, b'{"n":1}\n{"n":2}\n', {"Content-Type": "application/x-ndjson"}).total == 2
        assert client.get(f"{other}?as=bot&ts=1").json()["updates"] == [{"n": 2}]
        assert client.request("DELETE", f"{other}?upto=1").json()["gone"] == 1
        assert client.get("/-/health").status == 200
    server.restart()
    page = server.get(channel).json()
    assert [update["n"] for update in page["updates"]] == list(range(41, 61)) and page["missed"] == 40
    assert server.get(other).json() == {"ok": True, "ts": 2, "missed": 1, "updates": [{"n": 2}]}
    assert server.push(other) == 3


@pytest.mark.parametrize("more", [0, 2])
def test_an_upgrade_without_them(start, limit, more):
    """It is refused, or done; nobody who waits notices."""
    server = start(LOG_LEVEL="info")
    channel = server.channel()
    with poll(server, channel) as parked:
        none = limit(server)
        none.set(server.descriptor_count() + more)
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: server.upgraded() or "upgrade failed" in server.log(), "the upgrade, or its refusal")
        if more == 0:
            assert server.upgraded() == 0
        none.lift()
        if not server.upgraded():
            server.upgrade()
        assert server.push(channel, '{"n":1}') == 1
        assert answer(parked)["updates"] == [{"n": 1}]


def test_a_redis_that_comes_back(start, redis, limit):
    """Its connections have gone to clients: pushes are refused, and work again when some hang up."""
    server = start(**redis.settings())
    channel = server.channel()
    with poll(server, channel) as parked, server.client() as working:
        working.get("/-/health")
        none = limit(server)
        none.exhaust(1)
        redis.kill9()
        wait_until(lambda: working.post(channel).status == 503, "the outage")
        wait_until(lambda: server.descriptor_count() >= resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0], "no descriptor")
        redis.start()
        assert (share := cpu_share(server)) < CPU_SHARE, f"{share:.1%} of the CPU"
        assert working.post(channel).status == 503, "there was a descriptor left: this test tests nothing"
        none.disperse()
        wait_until(lambda: working.post(channel, '{"n":1}').status == 200, "Redis to be there")
        page = answer(parked)
        assert page.get("updates") == [{"n": 1}], page
