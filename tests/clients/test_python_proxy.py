"""The Python client behind proxies that cut its polls, and through proxies that it is told to use."""

import asyncio
import threading
import time

import pytest
from longline_server import PATIENCE_S, SLOW, wait_until
from proxies import CUTS, CuttingProxy, ForwardProxy
from python_client import AsyncChannel, Channel, LonglineError, proxy
from standin import pushed, reply

# --- proxies that cut ---


@pytest.fixture
def proxies():
    """proxies(kind, …) starts a proxy; it ends with the test."""
    started = []

    def start(kind, *arguments, **options):
        started.append(kind(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def read_sync(url, got, failures):
    """Reads a channel in a thread. Returns how to stop it."""
    channel = Channel(url)

    def run():
        for update in channel.updates(on_error=failures.append):
            got.append((update["n"], time.monotonic()))

    threading.Thread(target=run, daemon=True).start()
    return channel.close


def read_asyncio(url, got, failures):
    channel = AsyncChannel(url)
    loop = asyncio.new_event_loop()

    async def run():
        async for update in channel.updates(on_error=failures.append):
            got.append((update["n"], time.monotonic()))

    threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True).start()
    return lambda: loop.call_soon_threadsafe(channel.stop)


def measure_delays(server, gate, read, ends, rounds):
    """Pushes after every few polls that ended at a proxy. Returns how long each update took, in seconds."""
    channel = server.channel()
    got, failures, delays = [], [], []
    stop = read(f"http://127.0.0.1:{gate.port}{channel}", got, failures)
    try:
        for n in range(1, rounds + 1):
            seen = gate.ends
            wait_until(lambda: gate.ends >= seen + ends, "polls that end", 120)
            pushed_at = time.monotonic()
            server.push(channel, b'{"n":%d}' % n)
            wait_until(lambda: len(got) >= n, f"update {n}")
            delays.append(got[-1][1] - pushed_at)
    finally:
        stop()
    assert [n for n, _ in got] == list(range(1, rounds + 1))
    # Cut before a second has passed, a quiet channel looks like a dead one: that is told once, until a reply comes.
    assert gate.cuts and len(failures) <= rounds + 1, (gate.how, failures)
    return delays


def check_no_update_is_late(server, proxies, after_s, ends, rounds):
    delays = {}

    def measure(how, read):
        gate = proxies(CuttingProxy, server.port, after_s, how)
        delays[how, read.__name__] = measure_delays(server, gate, read, ends, rounds)

    threads = [threading.Thread(target=measure, args=(how, read)) for how in CUTS for read in (read_sync, read_asyncio)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(delays) == 2 * len(CUTS)
    assert max(map(max, delays.values())) < 1, delays


@pytest.mark.timed
def test_no_update_is_late_behind_a_proxy_that_cuts(server, proxies):
    """A client that takes cut polls for failures is deaf for seconds after three of them."""
    check_no_update_is_late(server, proxies, after_s=0.8, ends=3, rounds=3)


@pytest.mark.timed
def test_a_dead_server_behind_a_slow_proxy(proxies):
    """It answers 502 after a while, for ever: that is told, and it is not asked without a pause."""

    class Dead(CuttingProxy):
        def _ask(self, request):
            time.sleep(0.6)

    for read in (read_sync, read_asyncio):
        gate, failures = proxies(Dead, 0, 0, "502"), []
        stop = read(f"http://127.0.0.1:{gate.port}/a", [], failures)
        try:
            began = time.monotonic()
            wait_until(lambda: failures, "an error that is told")
            assert gate.cuts == 2
            wait_until(lambda: gate.cuts == 5, "more polls")
            assert time.monotonic() - began > 5 * 0.6 + 2 * 0.25
            assert [failure.status for failure in failures] == [502]
        finally:
            stop()


if SLOW:

    @pytest.mark.timed
    def test_no_update_is_late_behind_a_slower_proxy_that_cuts(server, proxies):
        check_no_update_is_late(server, proxies, after_s=7, ends=3, rounds=3)


# --- proxies that the client is told to use ---


@pytest.fixture
def environment(monkeypatch):
    """environment(http_proxy=…): variables about proxies."""

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def push_and_poll_sync(url, **options):
    with Channel(url, **options) as channel:
        return channel.push({}), next(channel.updates())


async def push_and_poll_async(url, **options):
    async with AsyncChannel(url, **options) as channel:
        return await channel.push({}), await channel.updates().__anext__()


both = pytest.mark.parametrize(
    "push_and_poll",
    [push_and_poll_sync, lambda url, **options: asyncio.run(push_and_poll_async(url, **options))],
    ids=["sync", "asyncio"],
)

SCRIPT = [pushed(1), reply(1, ["via"])]


@both
def test_http_through_a_proxy(push_and_poll, stand_in, proxies, environment):
    gate = proxies(ForwardProxy, user="me:p@ss é")
    port = stand_in(SCRIPT).port
    environment(http_proxy=f"http://me:p%40ss%20%C3%A9@127.0.0.1:{gate.port}")
    assert push_and_poll(f"http://hooks.example:{port}/conformance-channel") == (1, ["via"])
    first = gate.requests[0]
    assert (first.method, first.target) == ("POST", f"http://hooks.example:{port}/conformance-channel")
    assert first.headers["host"] == f"hooks.example:{port}"


@both
def test_https_through_a_proxy(push_and_poll, stand_in, proxies, environment, tls):
    gate = proxies(ForwardProxy, user="me:secret")
    server = stand_in(SCRIPT, tls=tls[0])
    environment(HTTPS_PROXY=f"me:secret@127.0.0.1:{gate.port}")
    assert push_and_poll(server.url, context=tls[1]) == (1, ["via"])
    assert [request.method for request in gate.requests] == ["CONNECT"] * 2, "one for pushes, one for the loop"
    assert gate.requests[0].target == gate.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
    assert all("proxy-authorization" not in request.headers for request in server.requests)


@both
def test_a_certificate_is_checked_through_a_proxy(push_and_poll, stand_in, proxies, tls):
    gate, server = proxies(ForwardProxy), stand_in(SCRIPT, tls=tls[0])
    for url, context in ((server.url, None), (f"https://hooks.example:{server.port}/a", tls[1])):
        with pytest.raises(LonglineError, match="(?i)certificate"):
            push_and_poll(url, context=context, proxy=f"http://127.0.0.1:{gate.port}")
    assert server.requests == []


@both
def test_a_proxy_that_refuses(push_and_poll, stand_in, proxies, tls):
    """It is no word of longline's: a push raises, and a loop would go on."""
    gate, server = proxies(ForwardProxy, user="me:secret"), stand_in(SCRIPT, tls=tls[0])
    for url, status in ((server.url, 0), (f"http://127.0.0.1:{server.port}/a", 407)):
        with pytest.raises(LonglineError, match="status 407") as caught:
            push_and_poll(url, proxy=f"http://127.0.0.1:{gate.port}")
        assert (caught.value.status, caught.value.is_final) == (status, False)


@both
def test_the_argument_wins(push_and_poll, stand_in, proxies, environment, refused_url):
    environment(HTTP_PROXY=refused_url)
    gate = proxies(ForwardProxy)
    assert push_and_poll(stand_in(SCRIPT).url, proxy="") == (1, ["via"])
    assert gate.requests == []
    assert push_and_poll(stand_in(SCRIPT).url, proxy=f"127.0.0.1:{gate.port}") == (1, ["via"])
    with pytest.raises(LonglineError):
        push_and_poll(stand_in(SCRIPT).url)
    environment(NO_PROXY="127.0.0.0/8")
    assert push_and_poll(stand_in(SCRIPT).url) == (1, ["via"])


def test_stop_ends_a_wait_for_a_proxy(proxies):
    """It has taken the connection and does not answer."""

    class Silent(ForwardProxy):
        def serve(self, connection):
            connection.recv(1)
            asked.set()
            connection.recv(65536)
            connection.recv(65536)

    asked = threading.Event()
    gate = proxies(Silent)
    channel = Channel("https://hooks.example/a", proxy=f"http://127.0.0.1:{gate.port}")
    thread = threading.Thread(target=lambda: list(channel.updates()), daemon=True)
    thread.start()
    assert asked.wait(PATIENCE_S)
    channel.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_which_proxy():
    def of(tls, host, **environment):
        found = proxy.find_proxy(tls, host, environment)
        return found and (found.host, found.port)

    both_kinds = {"http_proxy": "http://a:1", "HTTPS_PROXY": "b:2"}
    assert of(False, "host", **both_kinds) == ("a", 1)
    assert of(True, "host", **both_kinds) == ("b", 2)
    assert of(True, "host", http_proxy="a", HTTP_PROXY="a") is None
    assert of(False, "host", HTTP_PROXY="http://[::1]/") == ("::1", 1080)
    assert of(False, "host", http_proxy="small", HTTP_PROXY="large") == ("small", 1080)
    # A CGI program's HTTP_PROXY is a header of the request.
    assert of(False, "host", HTTP_PROXY="a", REQUEST_METHOD="GET") is None
    assert of(False, "host", http_proxy="a", REQUEST_METHOD="GET") == ("a", 1080)
    assert of(True, "host", HTTPS_PROXY="a", REQUEST_METHOD="GET") == ("a", 1080)
    assert of(False, "host", http_proxy="") is None
    assert of(False, "host.example", http_proxy="a", no_proxy="example") is None
    assert of(False, "host.example", http_proxy="a", NO_PROXY="other") == ("a", 1080)


@pytest.mark.parametrize("url", ["socks5://a:1", "https://a", "http://", "http://a:port"])
def test_proxies_that_are_refused(url):
    for kind in (Channel, AsyncChannel):
        with pytest.raises(ValueError):
            kind("http://host/a", proxy=url)


EXEMPT = [
    ("a.example", "a.example", True),
    ("A.Example.", "a.example", True),
    ("x.a.example", "a.example", True),
    ("x.a.example", ".a.example", True),
    ("a.example", ".a.example", True),
    ("xa.example", "a.example", False),
    ("a.example", "b,  a.example ,c", True),
    ("a.example", "b a.example", True),
    ("a.example", "*", True),
    ("10.1.2.3", "*", True),
    ("a.example", "*.example", False),
    ("a.example", "", False),
    ("a.example", ",.,", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "2.3", False),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("11.1.2.3", "10.0.0.0/8", False),
    ("a.example", "10.0.0.0/8", False),
    ("::1", "[::1]", True),
    ("fd00::7", "fd00::/8", True),
    ("::1", "10.0.0.0/8", False),
]


@pytest.mark.parametrize("host, exempt, is_exempt", EXEMPT)
def test_who_needs_no_proxy(host, exempt, is_exempt):
    assert proxy.is_exempt(host, exempt) is is_exempt
