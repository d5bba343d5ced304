"""`longline doctor` and what waits: a proxy that holds a stream back, one that cuts what is silent; nginx, Caddy and HAProxy as well."""

import contextlib
import os
import pty
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from authority import Authority
from between import Between, everything
from longline_server import BINARY
from redis_server import HOST, free_port
from reverse_proxy import KINDS, Proxy
from test_cli_doctor import BAD, TOPICS, UNREACHABLE, WELL, bad, doctor, seconds_in

POLLS_SEE_IT = "a poll sees it at once, and needs no change"
CUT = r"cut after (\d+\.\d) s"


@pytest.fixture
def server(start):
    """Of small bodies, which are soon sent."""
    return start(DATA_PROVIDER="memory", MAX_BODY="600000")


def doctors(urls, *options):
    """What each of them finds, all at the same time: most of it is waiting."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda url: doctor(url, *options), urls))


# --- held back ---


def head_first(upstream):
    """The head at once, the rest when it has ended."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := upstream.recv(65536)):
        data += piece
    yield data
    yield everything(upstream)


def a_little_later(upstream):
    for piece in iter(lambda: upstream.recv(65536), b""):
        time.sleep(1.5)  # which is what such a proxy does
        yield piece


def whole(upstream):
    yield everything(upstream)


def takes_gzip(received):
    return "gzip" in received.headers.get("Accept-Encoding", "")


HELD = {
    "whole replies": (lambda received: whole, r"the proxy buffers streams: an update has not come after 5 s, nor the head of the reply; "),
    "bodies": (lambda received: head_first, r"the proxy buffers streams: an update has not come after 5 s; "),
    "one kind": (lambda received: "feed=lines" in received.target and whole, r"the proxy buffers feed=lines: "),
    "for browsers": (lambda received: takes_gzip(received) and whole, r"the proxy buffers compressed streams, as browsers ask for: "),
    "for a while": (lambda received: a_little_later, r"the proxy buffers streams: an update comes [1-4]\.\d s after its push; "),
}


def test_proxies_that_buffer(server):
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(Between(server, hold=hold)) for hold, _ in HELD.values()]
        found = doctors([proxy.url + "/x" for proxy in proxies])
    for (what, (_, text)), (code, findings) in zip(HELD.items(), found):
        assert (code, list(findings), bad(findings)) == (BAD, TOPICS, ["stream"]), what
        assert re.match(text, findings["stream"]["text"]) and findings["stream"]["text"].endswith(POLLS_SEE_IT), what
        advice = findings["stream"]["advice"]
        assert "proxy_buffering off;" in advice and ("gzip_types" in advice) == (what == "for browsers"), what


@pytest.mark.parametrize(
    "answer,text",
    [
        ((502, {}, b"<html>"), "it ends before its update comes: status 502, and not from longline"),
        ((200, {}, b"<html>"), "it ends at once: the server knows no streams"),
        (None, "it ends before its update comes: "),
    ],
)
def test_a_proxy_that_does_not_know_streams(server, answer, text):
    with Between(server, lambda received: answer if "feed=" in received.target else "pass") as proxy:
        code, findings = doctor(proxy.url + "/x")
    assert (code, bad(findings)) == (BAD, ["stream", "idle stream"])
    assert findings["stream"]["text"].startswith(text) and re.match(CUT, findings["idle stream"]["text"])


# --- real proxies ---

NGINX = """
daemon off; {user} pid pid; error_log stderr; events {{ worker_connections 100; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    access_log off;
    server {{
        listen {address} {tls};
        location / {{ {settings} proxy_pass http://{upstream}; }}
    }}
}}
"""

CADDY = """
{{
    admin off
    default_bind {host}
    http_port {spare}
}}
http://{address} {{
    reverse_proxy {upstream} {{
        {settings}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
frontend f
    bind {address}
    default_backend b
backend b
    {settings}
    server s {upstream}
"""


class Misconfigured(Proxy):
    """A proxy with little configuration but `settings`."""

    def __init__(self, kind, directory, upstream, settings="", tls=""):
        self.kind, self.directory, self.authority = kind, directory, None
        self.port = free_port()
        self.ports = [self.port]
        self.url = f"http{'s' if tls else ''}://{HOST}:{self.port}"
        self.environment = {**os.environ, "HOME": str(directory)}
        directory.mkdir()
        path = directory / kind
        text, self.command = {
            "nginx": (NGINX, ["nginx", "-e", "stderr", "-p", directory, "-c", path]),
            "caddy": (CADDY, ["caddy", "run", "--adapter", "caddyfile", "--config", path]),
            "haproxy": (HAPROXY, ["haproxy", "-db", "-f", path]),
        }[kind]
        facts = {"address": f"{HOST}:{self.port}", "upstream": f"{HOST}:{upstream}", "host": HOST, "tls": tls, "settings": settings}
        facts |= {"spare": free_port(), "user": "user root;" if os.getuid() == 0 else ""}
        path.write_text(text.format(**facts))

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.finish()


@pytest.fixture
def misconfigured(tmp_path):
    return lambda kind, server, *settings, **more: Misconfigured(kind, tmp_path / secrets.token_hex(4), server.port, *settings, **more)


BUFFERS = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on; "
COMPRESSES = "proxy_http_version 1.1; gzip on; gzip_min_length 0; gzip_proxied any; gzip_types text/event-stream; "


def test_real_ones_that_buffer(server, misconfigured):
    with (
        misconfigured("nginx", server, BUFFERS) as nginx,
        misconfigured("nginx", server, BUFFERS + COMPRESSES) as compresses,
        misconfigured("haproxy", server, "http-response wait-for-body time 20s") as haproxy,
    ):
        found = doctors([proxy.url + "/x" for proxy in (nginx, compresses, haproxy)])
    for (code, findings), which in zip(found, ("streams", "compressed streams", "streams")):
        assert (code, bad(findings)) == (BAD, ["stream"]) and findings["stream"]["text"].startswith(f"the proxy buffers {which}")
        assert findings["stream"]["text"].endswith(POLLS_SEE_IT)


CUTS = {
    "nginx": "proxy_read_timeout 1s;",
    "caddy": "transport http {\n read_timeout 1s\n }\n lb_try_duration 0",
    "haproxy": "timeout server 1s",
}


def test_real_ones_that_cut_what_is_silent(server, misconfigured):
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(misconfigured(kind, server, settings)) for kind, settings in CUTS.items()]
        found = doctors([proxy.url + "/x" for proxy in proxies], "--sleep=14")
    for kind, (code, findings) in zip(CUTS, found):
        assert (code, list(findings), bad(findings)) == (BAD, TOPICS, ["idle poll", "idle stream"]), kind
        assert seconds_in(findings["idle poll"], CUT + ": status 50[24]") >= 1, kind
        assert seconds_in(findings["idle stream"], CUT + "; it has a heartbeat every 15 s: ") >= 1, kind
        for topic in ("idle poll", "idle stream"):
            assert all(word in findings[topic]["advice"] for word in ("proxy_read_timeout 75s", "timeout server 75s", "read_timeout"))


def test_nginx_with_a_limit_of_1_mb(start, misconfigured):
    server = start(DATA_PROVIDER="memory")
    with misconfigured("nginx", server, "client_max_body_size 1m;") as proxy:
        code, findings = doctor(proxy.url + "/x")
    assert (code, bad(findings)) == (BAD, ["body"])
    assert findings["body"]["text"].startswith("1.0 MiB pass, 2.0 MiB do not: status 413, and not from longline")


def test_nginx_with_a_certificate_that_has_expired(server, misconfigured, tmp_path, clock):
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue(f"IP:{HOST}")
    with misconfigured("nginx", server, tls=f"ssl; ssl_certificate {certificate}; ssl_certificate_key {key}") as proxy:
        code, findings = doctor(proxy.url + "/x", CURL_CA_BUNDLE=str(authority.certificate))
        assert (code, list(findings), bad(findings)) == (BAD, [TOPICS[0], "certificate", *TOPICS[1:]], ["certificate"])
        clock.set(30)
        code, findings = doctor(proxy.url + "/x", CURL_CA_BUNDLE=str(authority.certificate), **clock.settings)
    assert (code, list(findings)) == (UNREACHABLE, ["certificate"])
    assert "expired" in findings["certificate"]["text"] and "Renew" in findings["certificate"]["advice"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_configurations_of_packaging_are_well(start, tmp_path, kind):
    server = start(DATA_PROVIDER="memory")
    proxy = Proxy(kind, tmp_path / kind, server.port)
    if kind == "caddy":
        proxy.environment["LONGLINE_SITE"] = f"http://{HOST}:{proxy.port}"
    try:
        proxy.start()
        code, findings = doctor(f"http://{HOST}:{proxy.port}/x")
    finally:
        proxy.finish()
    assert (code, list(findings)) == (WELL, TOPICS), findings
    assert "/-/health is not shown" in findings["server"]["text"] and "32.0 MiB pass" in findings["body"]["text"]


@pytest.mark.torture
def test_nginx_that_cuts_after_30_seconds(server, misconfigured):
    """At the defaults: one minute for both, and heartbeats keep the stream."""
    began_s = time.monotonic()
    with misconfigured("nginx", server, "proxy_read_timeout 30s;") as proxy:
        code, findings = doctor(proxy.url + "/x", "--sleep=60", patience_s=100)
    assert (code, bad(findings)) == (BAD, ["idle poll"]) and time.monotonic() - began_s > 60
    assert seconds_in(findings["idle poll"], CUT + ", which is enough for polls of 25 s: status 504") >= 30
    assert re.fullmatch(r"not cut for 60\.0 s, with [34] heartbeats", findings["idle stream"]["text"])


@pytest.mark.torture
def test_haproxy_that_cuts_after_10_seconds(server, misconfigured):
    with misconfigured("haproxy", server, "timeout server 10s") as proxy:
        code, findings = doctor(proxy.url + "/x", "--sleep=30", patience_s=60)
    assert (code, bad(findings)) == (BAD, ["idle poll", "idle stream"])
    assert seconds_in(findings["idle poll"], CUT) >= 10 and seconds_in(findings["idle stream"], CUT + "; ") >= 10


# --- a terminal ---


def test_progress_is_for_terminals(server):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(BINARY, [BINARY, "doctor", server.url(server.channel()), "--sleep=1.5"], {**os.environ, "NO_COLOR": "1", "TERM": "xterm"})
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:
        pass  # it has ended
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == WELL
    assert re.search(rb"\rwaiting for an idle poll and an idle stream: \d+ s", shown) and b"sending 0.5 MiB" in shown
    left = [line.rsplit("\r", 1)[-1] for line in shown.decode().split("\r\n")]
    assert [line[5:17].strip() for line in left if line] == TOPICS, "the line that waits is wiped out"
