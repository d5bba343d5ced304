"""`longline forward`: every request arrives as it was sent, at least once and in order, whatever fails."""

import contextlib
import gzip
import hashlib
import hmac
import json
import random
import signal
import threading
import time
import zlib

import pytest
from commands import Command, Target, is_refused, run
from http_client import chunked
from keys import new_keys
from longline_server import PATIENCE_S, wait_until
from proxy import Proxy
from redis_server import free_port
from test_real_webhooks import github_payloads

USAGE, REJECTED, NO_STATE, LOCKED, NO_PERMISSION = 64, 65, 73, 75, 77


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=10000)


@pytest.fixture
def forward(tmp_path):
    """forward(URL, TARGET, OPTION…, VARIABLE=value) starts one; all are killed in the end."""
    with contextlib.ExitStack() as stack:
        counter = iter(range(1000))

        def start(url, target, *options, **environment):
            settings = {"XDG_STATE_HOME": str(tmp_path / "state"), **environment}
            command = Command(tmp_path / f"forward-{next(counter)}", "forward", url, target, "--backoff=0.05", *options, **settings)
            stack.callback(command.kill)
            return command

        yield start


def wait_for_requests(target, count, command=None):
    try:
        wait_until(lambda: len(target.received) >= count, f"{count} requests")
    except AssertionError as error:
        raise AssertionError(f"{error}: {len(target.received)}\n{command.describe() if command else ''}") from None


def numbers(target):
    return [json.loads(received.body)["n"] for received in target.received]


def without_repeats(values):
    return [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]


def push(server, channel, *numbers):
    for n in numbers:
        server.push(channel, b'{"n":%d}' % n)


def ready(server, command):
    """Waits until it has begun: what comes from now on is forwarded."""
    server.wait_for_parked(1)
    return command


# --- what arrives ---


def test_a_request_arrives_as_it_was_sent(server, forward):
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url + "/hooks?secret=1"))
        headers = {"Content-Type": "application/x-thing", "X-Empty": "", "User-Agent": "Svc/1", "Authorization": "Bearer x", "TE": "trailers", "X-Two": "a, b"}
        server.request("PUT", channel + "/v1/a%20b?x=%41&y=", b"\x00\xff{", headers)
        wait_for_requests(target, 1, command)
    (got,) = target.received
    assert (got.method, got.target, got.body) == ("PUT", "/hooks/v1/a%20b?secret=1&x=%41&y=", b"\x00\xff{")
    sent = {name.lower(): value for name, value in headers.items() if name != "TE"}
    assert {name.lower(): value for name, value in got.headers.items()} == {**sent, "host": f"127.0.0.1:{target.port}", "content-length": "3"}
    assert command.wait_for(lambda lines: lines, "its line")[0].split("  ")[1:4] == ["#1", "PUT /v1/a%20b", "status 200"]


def test_nothing_is_added(server, forward):
    """A request without a type, an agent and a body gets none."""
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        server.post(channel)
        server.get(channel + "/pushUpdates?a=1")
        wait_for_requests(target, 2, command)
    post, get = target.received
    assert (post.method, post.target, post.body) == ("POST", "/", b"") and sorted(post.header_names) == ["content-length", "host"]
    assert (get.method, get.target, get.header_names) == ("GET", "/?a=1", ["host"])


def test_nobody_leaves_the_path_of_the_target(server, forward):
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url + "/hooks/"))
        for path in ("/../admin", "/%2e%2e/admin", "/a/b", ""):
            server.post(channel + path, b"{}")
        wait_for_requests(target, 4, command)
    assert [got.target for got in target.received] == ["/hooks/", "/hooks/", "/hooks/a/b", "/hooks/"]


def test_the_host_of_the_service(server, forward):
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url, "--keep-host"))
        push(server, channel, 1)
        wait_for_requests(target, 1, command)
    assert target.received[0].headers["Host"] != f"127.0.0.1:{target.port}"


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BODIES = {
    "binary": (bytes(range(256)) * 300, {"Content-Type": "application/octet-stream"}),
    "form": (b"a=1&b=%e4&c=x+y", FORM),
    "UTF-16": ('{"a":"☃"}'.encode("utf-16"), {"Content-Type": "application/json"}),
    "latin-1": ("naïve".encode("latin-1"), {"Content-Type": "text/plain; charset=iso-8859-1"}),
    "escapes": (b'{ "a" : "\\u00e9\\ud83c \\/" }\r\n', {"Content-Type": "application/json"}),
    "BOM": (b'\xef\xbb\xbf{"a":1}', {}),
    "NUL": (b"\x00", {}),
    "large": (b'{"a":"' + b"x" * 3_000_000 + b'"}', {}),
    "gzip": (gzip.compress(b'{"a":1}'), {"Content-Encoding": "gzip"}),
    "gzip of a form": (gzip.compress(b"a=%d0%b9"), {**FORM, "Content-Encoding": "gzip"}),
    "deflate": (zlib.compress(b"text"), {"Content-Encoding": "deflate"}),
    "broken gzip": (gzip.compress(b"x" * 1000)[:-5], {"Content-Encoding": "gzip"}),
    "brotli": (b"\x8b\x00\x80x\x03", {"Content-Encoding": "br"}),
}


def test_bodies_arrive_byte_for_byte(server, forward):
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        for body, headers in BODIES.values():
            server.push(channel, body, headers)
        wait_for_requests(target, len(BODIES), command)
    for got, (name, (body, headers)) in zip(target.received, BODIES.items()):
        assert got.body == body, name
        for header, value in headers.items():
            assert got.headers[header] == value, name


def test_a_body_that_is_not_what_its_coding_says(server, forward):
    """It came in chunks, so no length tells that nothing was undone."""
    channel = server.channel()
    bodies = [("deflate", b"hello there"), ("gzip", b"\x00\xff"), ("gzip", b"")]
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        for coding, body in bodies:
            with server.client() as client:
                head = f"POST {channel} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Encoding: {coding}\r\n\r\n"
                client.send(head.encode() + chunked(*([body] if body else [])))
                assert client.read_reply().status == 200
        wait_for_requests(target, len(bodies), command)
    assert [(got.headers["Content-Encoding"], got.body) for got in target.received] == bodies


def test_a_line_of_a_compressed_batch_arrives_as_plain_bytes(server, forward):
    channel = server.channel()
    batch = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        server.push(channel, gzip.compress(b'{"a":1}\n{"a":2}\n'), batch)
        wait_for_requests(target, 2, command)
    for got, body in zip(target.received, (b'{"a":1}', b'{"a":2}')):
        assert got.body == body and "content-encoding" not in got.header_names


def test_signatures_verify_for_every_payload_of_github(server, forward):
    """As GitHub and Stripe sign: over the exact bytes, which are not always those of any JSON library."""
    secret, channel, payloads = b"s3cret", server.channel(), github_payloads()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        for name, text in payloads:
            body = text.encode()
            stripe = f"t=1,v1={hmac.new(secret, b'1.' + body, hashlib.sha256).hexdigest()}"
            github = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
            server.push(channel, body, {"X-GitHub-Event": name, "X-Hub-Signature-256": github, "Stripe-Signature": stripe, "Content-Type": "application/json"})
        wait_until(lambda: len(target.received) >= len(payloads), "all payloads", 8 * PATIENCE_S)
    assert len(payloads) > 1400
    for received, (_, text) in zip(target.received, payloads):
        assert received.body == text.encode()
        assert received.headers["X-Hub-Signature-256"] == "sha256=" + hmac.new(secret, received.body, hashlib.sha256).hexdigest()
        assert received.headers["Stripe-Signature"] == f"t=1,v1={hmac.new(secret, b'1.' + received.body, hashlib.sha256).hexdigest()}"
    assert f"  {payloads[0][0]}  " in command.lines[0]


def full(ts, **fields):
    item = {"ts": ts, "at": 1, "method": "POST", "query": "", "headers": {}, "body": {}, "raw": "{}", **fields}
    return 200, {}, json.dumps({"ok": True, "ts": ts, "updates": [item]}).encode()


def test_a_server_that_smuggles_gets_nothing_through(forward):
    """Whoever answers in its place cannot write requests of its own to the target."""
    bad = {"headers": {"X-A": "1\r\nX-B: 2", "X C": "1", "X-D:": "1", "": "1", "X-N": "a\0b", "Good": "yes"}, "path": "/a b\r\nX: y", "query": "a\r\n", "method": "GET /x"}
    pages = iter([full(1, **bad)])
    with Target() as target, Target(lambda *_: next(pages, 503)) as source:
        wait_for_requests(target, 1, forward(source.url + "/secret", target.url, "--ts=0"))
        (got,) = target.received
    assert (got.method, got.target, got.body) == ("POST", "/", b"{}") and sorted(got.header_names) == ["content-length", "good", "host"]


# --- at least once, in order ---


def test_a_target_that_fails_gets_it_again(server, forward):
    """Nothing is skipped, nothing overtakes."""
    channel = server.channel()
    answers = [500, None, 503, 408, 425, 429, lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Len"), 200]
    push(server, channel, 1, 2)
    with Target(lambda number, _: answers[number] if number < len(answers) else 204) as target:
        command = forward(server.url(channel), target.url, "--ts=0")
        wait_for_requests(target, len(answers) + 1, command)
        assert numbers(target) == [1] * len(answers) + [2]
        command.wait_for_line("status 204")
    assert "again in" in command.lines[0] and "1 waiting" in command.lines[-2] and "again" not in command.lines[-2]


def test_retry_after_is_obeyed(server, forward):
    channel, at = server.channel(), []

    def answer(number, _):
        at.append(time.monotonic())
        return (503, {"Retry-After": "1"}, b"") if number == 0 else 200

    with Target(answer) as target:
        command = ready(server, forward(server.url(channel), target.url))
        push(server, channel, 1)
        wait_for_requests(target, 2, command)
    assert at[1] - at[0] >= 0.98


def test_a_target_that_hangs(server, forward):
    channel = server.channel()

    def hang(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    with Target(lambda number, _: 200 if number else hang) as target:
        command = ready(server, forward(server.url(channel), target.url, "--timeout=0.5"))
        push(server, channel, 1)
        wait_for_requests(target, 2, command)
    assert "no answer in time" in command.lines[0]


def test_a_target_that_is_down_and_comes(server, forward):
    channel, port = server.channel(), free_port()
    command = ready(server, forward(server.url(channel), f"http://127.0.0.1:{port}"))
    push(server, channel, 1, 2)
    command.wait_for_line("again in")
    with Target(port=port) as target:
        wait_for_requests(target, 2, command)
        assert numbers(target) == [1, 2]


@pytest.mark.parametrize("status", [400, 404, 410, 422, 301, 304])
def test_a_refusal_stops_it(server, forward, status):
    """And the next run begins with the one that was refused."""
    channel = server.channel()
    with Target(lambda *_: (status, {"Location": "/elsewhere"}, b"")) as target:
        command = ready(server, forward(server.url(channel), target.url))
        push(server, channel, 1, 2)
        assert command.wait() == REJECTED and "update 1 is refused" in command.stderr
        assert numbers(target) == [1]
        target.answer = lambda *_: 200
        wait_for_requests(target, 3, forward(server.url(channel), target.url))
        assert numbers(target) == [1, 1, 2]


def test_a_refusal_is_skipped(server, forward):
    channel = server.channel()
    with Target(lambda number, _: 200 if number else 422) as target:
        command = ready(server, forward(server.url(channel), target.url, "--on-reject=skip"))
        push(server, channel, 1, 2)
        wait_for_requests(target, 2, command)
        command.wait_for(lambda lines: len(lines) == 2, "two lines")
    assert "skipped" in command.lines[0] and numbers(target) == [1, 2]


def test_json_for_programs(server, forward):
    channel = server.channel()
    with Target(lambda number, _: 200 if number else 500) as target:
        command = ready(server, forward(server.url(channel), target.url, "--json"))
        server.push(channel + "/p", b'{"type":"charge.succeeded"}')
        command.wait_for(lambda lines: len(lines) == 2, "two lines")
    failed, confirmed = map(json.loads, command.lines)
    assert failed["again_in_ms"] > 0 and failed["result"] == "failed" and failed["status"] == 500
    assert {**confirmed, "at": 0, "ms": 0} == {"ts": 1, "at": 0, "event": "charge.succeeded", "method": "POST", "path": "/p", "result": "confirmed", "status": 200, "ms": 0, "waiting": 0}


# --- its place ---


def test_it_goes_on_where_it_stopped(server, forward, tmp_path):
    channel = server.channel()
    push(server, channel, 0)
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        push(server, channel, 1)
        command.wait_for(lambda lines: lines, "its confirmation")
        assert command.terminate() == 0 and command.stderr == ""
        push(server, channel, 2, 3)
        command = ready(server, forward(server.url(channel), target.url, "--since=7d"))
        wait_for_requests(target, 3, command)
        assert numbers(target) == [1, 2, 3], "what is kept wins over where it is told to begin"
        command.kill()
        wait_for_requests(target, 7, forward(server.url(channel), target.url, "--ts=0", "--restart"))
        assert numbers(target)[3:] == [0, 1, 2, 3]
    (state,) = (tmp_path / "state/longline").glob("forward-????????????????")
    wait_until(lambda: state.read_text().startswith("4 "), "the last place")
    assert state.stat().st_mode & 0o77 == 0
    assert channel.strip("/") not in "".join(map(str, (tmp_path / "state").rglob("*"))) + state.read_text()


def test_what_it_has_not_seen_yet_is_not_lost(server, forward):
    """It is killed before its first update: the next run goes on from where the first one began."""
    channel = server.channel()
    with Target() as target:
        ready(server, forward(server.url(channel), target.url)).kill()
        push(server, channel, 1)
        wait_for_requests(target, 1, forward(server.url(channel), target.url))


def test_the_second_copy_says_so(server, forward, tmp_path):
    channel = server.channel()
    with Target() as target:
        first = ready(server, forward(server.url(channel), target.url, f"--state={tmp_path}/place"))
        line = is_refused(run("forward", server.url(channel), target.url, f"--state={tmp_path}/place"), LOCKED)
        assert "another copy" in line
        first.kill()
        server.wait_for_parked(0)
        ready(server, forward(server.url(channel), target.url, f"--state={tmp_path}/place"))
        spelled = server.url(channel).replace("http:", "HTTP:") + "/"
        is_refused(run("forward", spelled, target.url, f"--state={tmp_path}/place"), LOCKED)
        ready_other = forward(server.url(channel), target.url + "/other")
        server.wait_for_parked(2)
        assert ready_other.is_alive, "another target has another place"


def test_a_file_that_is_no_place(server, tmp_path):
    place = tmp_path / "place"
    for text in ("", "7", "x y\n", "7 abc", "-1 abc\n", "7 " + "a" * 99 + "\n", "7 a b\n"):
        place.write_text(text)
        assert "holds no place" in is_refused(run("forward", server.url("/x"), "http://127.0.0.1:1", f"--state={place}"), NO_STATE)
        assert place.read_text() == text
    is_refused(run("forward", server.url("/x"), "http://127.0.0.1:1", "--state=/proc/nowhere/place"), NO_STATE)
    is_refused(run("forward", server.url("/x"), "http://127.0.0.1:1", HOME="", XDG_STATE_HOME="relative"), NO_STATE)


def test_a_server_that_has_lost_its_data(start, forward):
    server = start(DATA_PROVIDER="memory").keep_address()
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        push(server, channel, 1, 2)
        wait_for_requests(target, 2, command)
        server.kill9()
        server.start()
        push(server, channel, 3, 4, 5)
        wait_for_requests(target, 5, command)
        assert numbers(target) == [1, 2, 3, 4, 5] and "not what it was" in command.stderr


def test_a_name_that_the_server_knows(server, forward, tmp_path):
    """It goes on where the name is, also on another machine; what this one has done is not repeated."""
    channel = server.channel()
    push(server, channel, 1, 2)
    with Target() as target:
        here = forward(server.url(channel), target.url, "--as=bot")
        wait_for_requests(target, 2, here)
        server.wait_for_parked(1)
        here.kill()
        server.wait_for_parked(0)
        push(server, channel, 3)
        there = forward(server.url(channel), target.url, "--as=bot", XDG_STATE_HOME=str(tmp_path / "there"))
        wait_for_requests(target, 3, there)
        server.wait_for_parked(1)
        there.kill()
        server.wait_for_parked(0)
        push(server, channel, 4)
        wait_for_requests(target, 4, forward(server.url(channel), target.url, "--as=bot"))
        assert numbers(target) == [1, 2, 3, 4]


def test_filters_pass_what_they_leave_out(server, forward, tmp_path):
    channel, place = server.channel(), tmp_path / "place"
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url, "--where=body.n:2", f"--state={place}", "--sleep=0.5"))
        push(server, channel, 1, 2, 3)
        wait_for_requests(target, 1, command)
        wait_until(lambda: place.read_text().startswith("3 "), "the place behind all three")
        assert numbers(target) == [2]


# --- kills, and lines that die ---


def test_killed_at_random(server, forward):
    """No update is skipped; at most the one that was not confirmed comes again."""
    channel, count, kills = server.channel(), 300, 0
    choose = random.Random(7)

    def answer(number, _):
        return choose.choice([200] * 9 + [500, None])

    with Target(answer) as target:
        ready(server, forward(server.url(channel), target.url)).kill()
        push(server, channel, *range(count))
        while kills < 12 or not target.received or numbers(target)[-1] != count - 1:
            command = forward(server.url(channel), target.url)
            until = len(target.received) + choose.randrange(1, 60) if kills < 12 else 10**9
            wait_until(lambda: len(target.received) >= until or (target.received and numbers(target)[-1] == count - 1), "more")
            command.kill()
            kills += 1
        assert without_repeats(numbers(target)) == list(range(count))


def test_the_server_is_killed_at_random(start, forward):
    server = start().keep_address()
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url))
        for first in range(0, 60, 20):
            push(server, channel, *range(first, first + 20))
            server.kill9()
            server.start()
        wait_until(lambda: target.received and numbers(target)[-1] == 59, "the last one")
        assert without_repeats(numbers(target)) == list(range(60)), command.stderr


def test_a_line_that_is_cut_without_a_word(server, forward):
    channel = server.channel()
    with Proxy(("127.0.0.1", server.port)) as proxy, Target() as target:
        command = ready(server, forward(f"http://127.0.0.1:{proxy.port}{channel}", target.url, "--sleep=1"))
        for line in proxy.open_lines():
            line.flows.clear()
        push(server, channel, 1)
        wait_until(lambda: target.received, "the update")
        assert "nothing comes" in command.stderr


def test_stopped_for_a_while(server, forward):
    channel = server.channel()
    with Target() as target:
        command = ready(server, forward(server.url(channel), target.url, "--sleep=1"))
        command.process.send_signal(signal.SIGSTOP)
        push(server, channel, 1)
        server.wait_for_parked(0)
        push(server, channel, 2)
        command.process.send_signal(signal.SIGCONT)
        wait_for_requests(target, 2, command)
        assert numbers(target) == [1, 2]


@pytest.mark.torture
def test_within_90_seconds(server, forward):
    """With the polls that it has by itself: a line that is cut without a word, and a laptop that sleeps for two minutes."""
    channel = server.channel()
    with Proxy(("127.0.0.1", server.port)) as proxy, Target() as target:
        command = ready(server, forward(f"http://127.0.0.1:{proxy.port}{channel}", target.url))
        for line in proxy.open_lines():
            line.flows.clear()
        push(server, channel, 1)
        wait_until(lambda: target.received, "the update", 90)
        server.wait_for_parked(1)
        command.process.send_signal(signal.SIGSTOP)
        push(server, channel, 2)
        for line in proxy.open_lines():
            line.flows.clear()
        time.sleep(120)  # which is what is tested
        push(server, channel, 3)
        command.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(target.received) >= 3, "the others", 90)
        assert numbers(target) == [1, 2, 3]


def test_a_signal_ends_it_whatever_it_waits_for(server, forward):
    """For the target's reply, and for the time of the next attempt."""
    channel, asked = server.channel(), threading.Event()

    def hang(connection):
        asked.set()
        with contextlib.suppress(OSError):
            connection.recv(1)

    with Target(lambda *_: hang) as target:
        command = ready(server, forward(server.url(channel), target.url))
        push(server, channel, 1)
        assert asked.wait(PATIENCE_S)
        assert command.terminate() == 0
    command = forward(server.url(channel), f"http://127.0.0.1:{free_port()}", "--ts=0", "--backoff=60")
    command.wait_for_line("again in")
    assert command.terminate() == 0


# --- usage ---


def test_each_address(server, forward, tmp_path):
    keys = new_keys()
    push(server, "/" + keys[2], 1)
    with Target() as target:
        for count, key in enumerate(keys[:2], 1):
            wait_for_requests(target, count, forward(server.url("/" + key), target.url, "--ts=0"))
    ended = run("forward", server.url("/" + keys[2]), target.url, XDG_STATE_HOME=str(tmp_path))
    assert "v_ or r_" in is_refused(ended, NO_PERMISSION)


@pytest.mark.parametrize(
    "arguments",
    [[], ["http://h/x"], ["http://h/x", "localhost:80"], ["http://h/x", "http://a", "http://b"], ["http://h/x", "http://a", "--on-reject=perhaps"]]
    + [["http://h/x", "http://a", "--timeout=0"], ["http://h/x", "http://a", "-n1"], ["http://h/x", "http://a", "--since=1d", "--ts=1"]],
)
def test_bad_usage_is_one_line(arguments, tmp_path):
    is_refused(run("forward", *arguments, XDG_STATE_HOME=str(tmp_path)), USAGE)
