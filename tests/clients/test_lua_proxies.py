"""The Lua client: through the proxy that the environment names, and behind one that cuts."""

import itertools
import time

import pytest
from bad_proxy import CUTS, BadProxy, page
from longline_server import wait_until
from proxies import ForwardProxy
from standin import pushed, tls_context

PUSH = "out(longline.new(URL):publish({ n = 1 }))"


@pytest.fixture
def forward():
    proxies = []

    def start(**options):
        proxies.append(ForwardProxy(**options))
        return proxies[-1]

    yield start
    for each in proxies:
        each.end()


@pytest.fixture
def with_environment(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)

    def set_all(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_http_proxy(lua, server, forward, with_environment, name):
    proxy, channel = forward(user="user@home:pass"), server.channel()
    with_environment(**{name: f"http://user%40home:pass@127.0.0.1:{proxy.port}"})
    assert lua(PUSH, URL=server.url(channel)).finish() == [[True, 200, 1]]
    [request] = proxy.requests
    assert (request.method, request.target) == ("POST", server.url(channel))


def test_https_proxy(lua, stand_in, authority, forward, with_environment):
    server = stand_in([pushed(1)], tls=tls_context(authority, "IP:127.0.0.1"))
    proxy = forward()
    with_environment(HTTPS_PROXY=f"127.0.0.1:{proxy.port}", http_proxy="http://127.0.0.1:1")
    source = f"longline.tls.cafile = CA\n{PUSH}"
    assert lua(source, URL=server.url, CA=authority.certificate).finish() == [[True, 200, 1]]
    [request] = proxy.requests
    assert (request.method, request.target, request.headers["host"]) == ("CONNECT", f"127.0.0.1:{server.port}", f"127.0.0.1:{server.port}")
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_that_refuses_the_tunnel(lua, stand_in, authority, forward, with_environment):
    server, proxy = stand_in([], tls=tls_context(authority, "IP:127.0.0.1")), forward(user="ann:secret")
    with_environment(https_proxy=f"http://127.0.0.1:{proxy.port}")
    assert lua(PUSH, URL=server.url).finish() == [[False, "the proxy answered with status 407"]]
    assert server.requests == []


@pytest.mark.parametrize(
    "variables",
    [
        {"NO_PROXY": "example.com, 127.0.0.1"},
        {"no_proxy": "*"},
        {"NO_PROXY": "127.0.0.0/8"},
        {"HTTPS_PROXY": "http://127.0.0.1:1"},
        {"http_proxy": ""},
        # In a CGI program this is the Proxy header of whoever sent the request.
        {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "", "REQUEST_METHOD": "GET"},
    ],
    ids=lambda variables: ",".join(variables),
)
def test_no_proxy(lua, server, with_environment, variables):
    with_environment(**{"http_proxy": "http://127.0.0.1:1", **variables} if "NO_PROXY" in map(str.upper, variables) else variables)
    assert lua(PUSH, URL=server.url(server.channel())).finish() == [[True, 200, 1]]


@pytest.mark.parametrize("exempt", ["27.0.0.1", ".0.0.1", "10.0.0.0/8", "127.0.0.2/32", "0.1", "example.com"])
def test_no_proxy_of_other_hosts(lua, server, forward, with_environment, exempt):
    proxy = forward()
    with_environment(http_proxy=f"http://127.0.0.1:{proxy.port}", no_proxy=exempt)
    assert lua(PUSH, URL=server.url(server.channel())).finish() == [[True, 200, 1]]
    assert len(proxy.requests) == 1


def test_the_domains_of_no_proxy(lua, with_environment):
    with_environment(http_proxy="https://no.such", NO_PROXY=".example.invalid other.invalid")
    source = """
    for _, host in ipairs({ "example.invalid", "A.Example.invalid", "x.other.invalid.", "another.invalid" }) do
      out((select(2, longline.new("http://" .. host .. "/c"):publish({}))))
    end
    """
    told = [one[0] for one in lua(source).finish()]
    assert told[3] == "a proxy's address begins with http:// and a host"
    assert not any("proxy" in error for error in told[:3]), told


def test_a_proxy_that_is_set(lua, server, forward, with_environment):
    proxy = forward()
    with_environment(http_proxy="http://127.0.0.1:1")
    source = f"""
    longline.proxy = false {PUSH}
    longline.proxy = "http://127.0.0.1:{proxy.port}" {PUSH}
    """
    assert lua(source, URL=server.url(server.channel())).finish() == [[True, 200, 1], [True, 200, 2]]
    assert len(proxy.requests) == 1


HEARS = """
local client = longline.new(URL)
function client.on_error(err, status) io.stderr:write(tostring(status), "\\n") end
client:subscribe(function(update) out(update.n) end)
"""


@pytest.fixture(params=["copas", "game"])
def hears(request, start_script, game):
    """hears(url) starts a script that subscribes. Its stderr has the status of each error."""

    def start(url):
        if request.param == "game":
            return game(HEARS + "gmod.run(line_is_there)", URL=url)
        return start_script("luajit", 'longline = require "longline"\n' + HEARS + "copas.loop()", URL=url)

    return start


def hear_at_once(hears, server, mood, cuts):
    """Waits for that many cuts first. Returns how many there were, and how many errors were told."""
    channel = server.channel()
    proxy = BadProxy(server.port, mood)
    script = hears(f"http://127.0.0.1:{proxy.port}{channel}")
    wait_until(lambda: proxy.cuts >= cuts, "cuts")
    told = script.stderr.count("\n")
    cuts = proxy.cuts
    late = []
    for n in range(1, 7):
        server.push(channel, b'{"n":%d}' % n)
        pushed_at = time.monotonic()
        script.wait_for_told(n)
        late.append(time.monotonic() - pushed_at)
        time.sleep(0.37)
    proxy.end()
    assert script.told[:6] == [[n] for n in range(1, 7)]
    assert max(late) < 1, late
    return cuts, told


@pytest.mark.timed
def test_nothing_is_late_behind_a_proxy_that_cuts_after_a_second(hears, server):
    cuts = itertools.cycle(CUTS)
    # A failure between cuts is the first in a row.
    hear_at_once(hears, server, lambda number: ("say", b"") if number % 2 else ("cut", 1, next(cuts)), len(CUTS))


@pytest.mark.timed
def test_nothing_is_late_behind_a_proxy_that_cuts_every_poll_after_a_second(hears, server):
    cuts = itertools.cycle(CUTS)
    hear_at_once(hears, server, lambda _: ("cut", 0.95, next(cuts)), 4)


@pytest.mark.timed
def test_a_quiet_channel_behind_a_proxy_that_cuts_is_no_outage(hears, server):
    """Most polls last their whole time: after 2 s one is cut, and then they grow from 1.5 s."""
    cuts, told = hear_at_once(hears, server, lambda _: ("cut", 2, b""), 3)
    assert told < cuts / 2


@pytest.mark.timed
def test_an_outage_that_looks_like_cuts_is_told_and_paced(hears, server):
    came = []

    def mood(_):
        came.append(time.monotonic())
        time.sleep(0.6)  # and no server that may answer after all, if this is late
        return "say", page(502, Connection="close")

    proxy = BadProxy(server.port, mood)
    script = hears(f"http://127.0.0.1:{proxy.port}{server.channel()}")
    wait_until(lambda: proxy.count >= 7, "seven polls")
    waits = [after - before for before, after in zip(came, came[1:])]
    proxy.end()
    assert min(waits[2:]) >= 0.84, waits
    assert script.stderr.startswith("502\n" * 5), script.describe()
