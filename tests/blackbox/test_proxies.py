"""Behind nginx, Caddy and HAProxy, with the configurations of packaging/: what comes in arrives as it was, polls wait and wake,
clients are told apart, and no log tells a secret. In the configurations are other ports and paths; the inner of two proxies speaks no TLS.

Clients come from 127.0.0.2 and up, proxies from 127.0.0.1, which is all that longline trusts where it counts clients.
"""

import base64
import contextlib
import gzip
import json
import re
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from http_client import Closed, request_bytes
from longline_server import PATIENCE_S, REPOSITORY, wait_until
from redis_server import HOST, free_port
from reverse_proxy import KINDS, NAME, Proxies, ProxyClient
from streams import Stream

# What a proxy does is the same over every store.
pytestmark = pytest.mark.providers("memory")

MIB = 1 << 20
MAX_BODY = 32 * MIB


@pytest.fixture(scope="module")
def module_proxies(tmp_path_factory, module_server, authority):
    """One of each in front of the module's server, over TLS."""
    proxies = Proxies(tmp_path_factory.mktemp("proxies"))
    yield {kind: proxies.start(kind, module_server.port, authority) for kind in KINDS}
    proxies.finish()


@pytest.fixture(params=KINDS)
def proxy(request, module_proxies):
    return module_proxies[request.param]


@pytest.fixture
def proxies(tmp_path):
    """Proxies of the test's own."""
    proxies = Proxies(tmp_path)
    yield proxies
    proxies.finish()


@contextlib.contextmanager
def breaking_upstream():
    """(port, requests): takes requests, answers each connection's first, and hangs up on the next one. Nobody is told that it will."""
    requests = []

    def serve(connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as incoming:
            while head := b"".join(iter(incoming.readline, b"\r\n")):
                length = re.search(rb"content-length: (\d+)", head, re.I)
                requests.append(head + incoming.read(int(length[1]) if length else 0))
                if b"second" in head:
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], requests
        listener.shutdown(socket.SHUT_RDWR)


def test_the_proxy_finds_nothing_to_say_about_its_configuration(proxy):
    check = subprocess.run(proxy.check, env=proxy.environment, capture_output=True, text=True)
    # Caddy warns of a certificate without OCSP, as the test's is.
    said = "".join(line for line in (check.stdout + check.stderr).splitlines() if "no OCSP server specified" not in line)
    assert check.returncode == 0 and not re.search(r"warn|alert|error", said, re.I), said


# --- requests ---


def test_a_push_wakes_a_poll(server, proxy):
    channel = server.channel()
    with proxy.client() as client:
        client.send_request("GET", channel + "?sleep=60")
        server.wait_for_parked(1)
        assert proxy.request("POST", channel, '{"n":1}').total == 1
        reply = client.read_reply()
        assert (reply.updates, reply.total) == ([{"n": 1}], 1)
        assert client.get(channel + "?ts=1").updates == [], "the connection is kept"


def test_a_push_wakes_a_poll_over_http_2(server, proxy):
    channel = server.channel()
    poll = subprocess.Popen(
        ["curl", "-sS", "--http2", "-w", " %{http_version}", "--cacert", proxy.authority.certificate]
        + ["--resolve", f"{NAME}:{proxy.port}:{HOST}", f"https://{NAME}:{proxy.port}{channel}?sleep=60"],
        stdout=subprocess.PIPE,
    )
    server.wait_for_parked(1)
    server.push(channel, '{"n":1}')
    assert poll.communicate(timeout=PATIENCE_S)[0] == b'{"ok":true,"ts":1,"updates":[{"n":1}]} 2'


@pytest.mark.parametrize("hang_up", [ProxyClient.close, ProxyClient.abort])
def test_a_client_that_hangs_up_ends_its_poll(server, proxy, hang_up):
    client = proxy.client()
    client.send_request("GET", server.channel() + "?sleep=60")
    server.wait_for_parked(1)
    hang_up(client)
    server.wait_for_parked(0)


@pytest.mark.parametrize("feed", ["sse", "lines"])
@pytest.mark.parametrize("hang_up", [ProxyClient.close, ProxyClient.abort])
def test_a_stream_is_not_held_back(server, proxy, feed, hang_up):
    """Each update comes while the stream is open; and when the client hangs up, it ends."""
    channel = server.channel()
    with Stream(server, f"{channel}?feed={feed}", {"Host": NAME}, client=proxy.client()) as stream:
        assert stream.next() and stream.reply.headers["cache-control"] == "no-store, no-transform"
        for n in range(1, 4):
            server.push(channel, '{"n":%d}' % n)
            found = stream.update()
            assert (found.ts if feed == "sse" else found["ts"]) == n
        hang_up(stream.client)
        server.wait_for_metric("longline_streams", 0)


def test_a_stream_over_http_2(server, proxy):
    channel = server.channel()
    command = ["curl", "-sSN", "--http2", "--cacert", proxy.authority.certificate, "-H", "Accept: text/event-stream"]
    command += ["--resolve", f"{NAME}:{proxy.port}:{HOST}", f"https://{NAME}:{proxy.port}{channel}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stream:
        try:
            assert [stream.stdout.readline() for _ in range(3)] == [b"retry: 1000\n", b"id: 0\n", b"\n"]
            for n in (1, 2):
                server.push(channel, '{"n":%d}' % n)
                event = [stream.stdout.readline() for _ in range(3)]
                assert event == [b"id: %d\n" % n, b'data: {"n":%d}\n' % n, b"\n"]
        finally:
            stream.terminate()
    server.wait_for_metric("longline_streams", 0)


@pytest.mark.parametrize("sleep_s", [3, pytest.param(60, marks=pytest.mark.torture)])
def test_a_poll_waits_to_its_end(server, module_proxies, sleep_s):
    def poll(proxy):
        channel = server.channel()
        reply = proxy.request("GET", f"{channel}?sleep={sleep_s}")
        return reply.status, reply.body

    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(poll, module_proxies.values()))
    assert ends == [(200, b'{"ok":true,"ts":0,"updates":[]}')] * len(KINDS)


@pytest.mark.parametrize(
    "name,query",
    [
        ("%D0%BF%D1%80%D0%B8", "?a=%ff%zz&b=x+y;z&&c"),
        ("a%20b+c%2Bd", "?a=1&a=2&%61=3"),
        ("100%25%41", "?q=%2F..%2F&e="),
        ("%7bx%7D~!$'()*,:@", "?"),
        ("a%3Fb%23c", ""),
        ("a..b", "?x=/../y//z"),
    ],
)
def test_the_path_and_the_query_are_passed_on_as_they_came(server, proxy, name, query):
    target = f"{server.channel()}{name}"
    assert proxy.request("POST", target + query, "{}").total == 1
    assert proxy.request("POST", target + "/pushUpdates" + query, "{}").total == 2
    direct = server.post(target + query, "{}")
    assert direct.total == 3
    queries = [item["query"] for item in proxy.request("GET", target + "?view=full").updates]
    assert queries == [query[1:]] * 3


def test_the_body_and_the_headers_are_passed_on_as_they_came(server, proxy):
    channel = server.channel()
    headers = {"X-Hub-Signature-256": "sha256=0123", "Content-Type": "application/octet-stream", "User-Agent": "GitHub-Hookshot/1"}
    body = bytes(range(256)) * (MIB // 256)
    assert proxy.request("POST", channel, body, headers).status == 200
    (update,) = proxy.request("GET", channel + "?view=full").updates
    assert base64.b64decode(update["raw_base64"]) == body
    assert all(update["headers"][name.lower()] == value for name, value in headers.items())


def test_a_body_beyond_max_body_is_413(server, proxy):
    channel = server.channel()
    with contextlib.suppress(OSError, Closed), proxy.client() as client:
        # Caddy may close the connection while the client still sends.
        body = b"x" * (1000 if proxy.kind != "caddy" else MAX_BODY + 1)
        client.send_request("POST", channel, body, {"Host": NAME, "Content-Length": str(MAX_BODY + 1)})
        reply = client.read_reply()
        assert reply.status == 413
    assert proxy.kind == "caddy" or reply.status == 413
    assert server.get(channel).total == 0
    assert proxy.request("POST", channel, "x" * MAX_BODY, {"Content-Type": "text/plain"}).total == 1


def test_25_megabytes_of_json_pass(server, proxy):
    channel = server.channel()
    body = json.dumps([{"n": n, "text": "é" * 200} for n in range(60_000)], ensure_ascii=False).encode()
    body += b" " * (25_000_000 - len(body))
    assert proxy.request("POST", channel, body, {"Content-Type": "application/json"}).total == 1
    assert body in proxy.request("GET", channel).body
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert proxy.request("POST", channel, gzip.compress(body, 1), packed).total == 2
    page = proxy.request("GET", channel + "?ts=1&view=full").updates[0]
    assert page["raw"].encode() == body


def test_a_page_of_a_mebibyte_passes(server, proxy):
    channel = server.channel()
    update = json.dumps({"x": "y" * 500_000})
    for _ in range(3):
        server.push(channel, update)
    assert proxy.request("GET", channel).body == server.get(channel).body


def test_the_pages_pass(server, proxy):
    for path in ("/", "/-/chat", "/-/web/longline.js", "/favicon.ico", "/robots.txt"):
        direct, through = server.get(path), proxy.request("GET", path)
        assert (through.status, through.body) == (200, direct.body), path
        for name in ("content-type", "etag", "content-security-policy", "referrer-policy", "cache-control"):
            assert through.headers.get(name) == direct.headers.get(name), (path, name)
    tag = server.get("/").headers["etag"]
    assert proxy.request("GET", "/", headers={"If-None-Match": tag}).status == 304
    gzip = {"Accept-Encoding": "gzip"}
    assert proxy.request("GET", "/", headers=gzip).body == server.get("/", gzip).body != server.get("/").body


@pytest.mark.parametrize("path", ["/-/metrics", "/-/health"])
def test_metrics_and_health_do_not_pass(server, proxy, path):
    assert server.get(path).status == 200
    for target in (path, path + "?x", path + "/", "/" + path, path.replace("e", "%65"), path.upper(), f"http://{NAME}{path}"):
        for method in ("GET", "HEAD", "POST"):
            reply = proxy.request(method, target)
            assert reply.status in (400, 404, 405), (method, target)
            assert b"longline_" not in reply.body and b"serving" not in reply.body


def test_connections_to_longline_are_kept(server, proxy):
    channel = server.channel()
    before = server.metric("longline_connections_accepted_total")
    with proxy.client() as client:
        for _ in range(30):
            assert client.post(channel, "{}").status == 200
    assert server.metric("longline_connections_accepted_total") - before < 10


def test_nginx_writes_no_body_to_a_file(server, module_proxies):
    proxy = module_proxies["nginx"]
    before = (proxy.directory / "client_body").stat().st_mtime_ns
    request = request_bytes("POST", server.channel(), json.dumps({"x": "y" * 25_000_000}), {"Host": NAME})
    with proxy.client() as client:
        client.send(request[:-1])
        client.send(request[-1:])
        assert client.read_reply().status == 200
    assert (proxy.directory / "client_body").stat().st_mtime_ns == before


# --- no push is doubled ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_that_got_no_answer_is_not_sent_again(proxies, kind):
    with breaking_upstream() as (port, requests):
        proxy = proxies.start(kind, port)
        with proxy.client() as client:
            assert client.post("/first", "{}").status == 200
            try:
                assert client.post("/second", "{}").status in (502, 504)
            except Closed:
                pass
            assert [head.split()[1] for head in requests] == [b"/first", b"/second"]


@pytest.mark.parametrize("kind,method", [("caddy", "GET"), ("haproxy", "GET"), ("haproxy", "POST")])
def test_a_request_waits_for_a_longline_that_is_being_restarted(start, proxies, kind, method):
    server = start(LISTEN=f"{HOST}:{free_port()}")
    proxy = proxies.start(kind, server.port)
    channel = server.channel()
    server.push(channel)
    server.stop()
    with proxy.client() as client:
        client.send_request(method, channel, "{}" if method == "POST" else None)
        server.start()
        assert client.read_reply().status == 200
    assert server.get(channel).total == (2 if method == "POST" else 1)


# --- the client's address ---


def budget(proxy, channel, source, forwarded=lambda i: None, count=7):
    """What a client gets that asks so often."""
    with proxy.client(source) as client:
        headers = [{"X-Forwarded-For": value} if (value := forwarded(i)) else {} for i in range(count)]
        return [client.get(channel, fields).status for fields in headers]


SPENT = [200] * 5 + [429] * 2


def check_addresses(proxy, server):
    """Each client has five requests, whatever it says about its address."""
    channel = server.channel()
    assert budget(proxy, channel, "127.0.0.2") == SPENT
    assert budget(proxy, channel, "127.0.0.3", lambda i: f"198.51.100.{i}") == SPENT
    assert budget(proxy, channel, "127.0.0.4", lambda i: f"198.51.100.{i}, 127.0.0.1") == SPENT
    assert budget(proxy, channel, "127.0.0.5", lambda i: "127.0.0.6") == SPENT
    assert budget(proxy, channel, "127.0.0.6") == SPENT, "nobody spends what is another's"


@pytest.fixture
def limited(start):
    return start(DATA_PROVIDER="memory", RATE_LIMIT_LIMIT=5, TRUST_PROXY="127.0.0.1")


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_limit_counts_the_client(limited, proxies, authority, kind):
    check_addresses(proxies.start(kind, limited.port, authority), limited)


@pytest.mark.parametrize("outer,inner", [("nginx", "caddy"), ("caddy", "haproxy"), ("haproxy", "nginx")])
def test_the_rate_limit_counts_the_client_two_proxies_deep(limited, proxies, authority, outer, inner):
    check_addresses(proxies.start(outer, proxies.start(inner, limited.port).port, authority), limited)


# --- logs ---


def go_wrong(proxy, target, patience_s=PATIENCE_S):
    """Requests with the secret in them that no proxy likes, and clients that leave before their end."""
    referer = {"Referer": f"https://{NAME}{target}", "X-Original-URI": target}
    requests = [
        ("POST", "", "{}", referer),
        ("GET", "", None, referer),
        ("GET", "?ts=x", None, {}),
        ("GET", "%zz", None, {}),
        ("GET", "/../..", None, {}),
        ("PUT", "", "{}", {}),
        ("POST", "", "x", {"Content-Length": str(MAX_BODY + 1)}),
        ("GET", "?" + "x" * 70_000, None, {}),
        ("GET", "", None, {"X-Long": "x" * 70_000}),
        ("GET", "", None, {"Bad Name": "x"}),
        ("POST", "", "zz\r\n", {"Transfer-Encoding": "chunked"}),
        ("GET", "", None, {"Host": f"other.example.com{target}"}),
    ]

    if proxy.kind == "caddy" and proxy.authority:  # it redirects to https, and the Location has the path
        with socket.create_connection((HOST, proxy.redirect_port)) as plain:
            plain.sendall(request_bytes("GET", target, headers={"Host": NAME, "Connection": "close"}))
            assert b" 308 " in plain.recv(4096)

    def send(request):
        method, suffix, body, headers = request
        with contextlib.suppress(OSError), proxy.client() as client:
            client.sock.settimeout(patience_s)
            client.send_request(method, target + suffix, body, {"Connection": "close", **headers})
            client.read_to_end()

    with proxy.client() as client:
        client.send_request("POST", target, "x" * 1000, {"Content-Length": "100000"})
    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(send, requests))


@pytest.mark.parametrize("file,timeout", [("nginx/longline.conf", r"proxy_read_timeout (\d+)s;"), ("haproxy/haproxy.cfg", r"timeout server (\d+)s")])
def test_a_reply_may_take_longer_than_a_poll(file, timeout):
    """The poll of 60 seconds itself is in script/torture."""
    assert int(re.search(timeout, (REPOSITORY / "packaging" / file).read_text())[1]) > 60


@pytest.mark.parametrize("kind", KINDS)
def test_no_log_tells_a_secret(start, proxies, authority, kind):
    server = start(DATA_PROVIDER="memory")
    # So few that nginx can take all clients below, but not pass on all their polls.
    proxy = proxies.start(kind, server.port, authority, connections=40)
    target = server.channel()
    go_wrong(proxy, target)
    total = server.get(target).total
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.client()) for _ in range(30)]
        poll = request_bytes("GET", f"{target}?ts={total}&sleep=60", headers={"Host": NAME})
        for part in (poll[:-1], poll[-1:]):
            for client in clients:
                client.send(part)
        wait_until(lambda: server.metric("longline_polls_parked") > 3, "polls")
    server.wait_for_parked(0)
    server.kill9()
    go_wrong(proxy, target, patience_s=1)
    with breaking_upstream() as (port, _):
        go_wrong(proxies.start(kind, port, authority), target + "second", patience_s=1)
    proxies.finish()
    log = "".join(proxy.log() for proxy in proxies.running)
    assert all(word in log for word in ("127.0.0.2", "POST", "200", "413", "502")), log
    told = [line for line in log.splitlines() if target[1:] in line]
    assert not told, told[:3]
