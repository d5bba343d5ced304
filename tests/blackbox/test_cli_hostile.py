"""A server that is an attacker: what it answers costs a command little, controls no terminal, and gets it to no other place."""

import contextlib
import gzip
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands import Command, Target
from longline_server import PATIENCE_S, SLOW, wait_until

MIB = 1 << 20
MEMORY = (600 if SLOW else 64) * MIB
SECRET = "/a-secret-channel-name"
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\r\n\x08"
COMMANDS = ("tail", "tail --json", "forward", "exec", "send", "doctor", "health")
HARMLESS = ("controls-in-an-epoch", "large-numbers", "the-largest-number", "fewer-than-there-are")  # to `send`, which only wants the id
GO_ON = ("tail", "tail --json", "forward", "exec")


def endless(start, more):
    def answer(connection):
        with contextlib.suppress(OSError):
            connection.sendall(start)
            while True:
                connection.sendall(more)

    return lambda *_: answer


def raw(text):
    def answer(connection):
        with contextlib.suppress(OSError):
            connection.sendall(text)
        return None

    return lambda *_: answer


def page(**members):
    body = json.dumps({"ok": True, "ts": 1, "updates": [], **members}).encode()
    return lambda *_: (200, {"X-Total-Updates": "1"}, body)


def body(data, status=200, **headers):
    return lambda *_: (status, headers, data)


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(b"\0" * (100 * MIB), 9)
REFUSAL = json.dumps({"ok": False, "error_code": 400, "error_description": ESCAPES}).encode()

ANSWERS = {
    "headers-without-end": endless(OK, b"X-Header: %s\r\n" % (b"x" * 1000)),
    "empty-headers-without-end": endless(OK, b"X:\r\n" * 1000),
    "a-header-without-end": endless(OK + b"X-Header: ", b"x" * 65536),
    "a-status-without-end": endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "interim-replies-without-end": endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100),
    "continue-without-end": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "trailers-without-end": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: %s\r\n" % (b"x" * 1000)),
    "a-bomb-of-gzip": body(BOMB, **{"Content-Encoding": "gzip"}),
    "a-bomb-of-bombs": body(gzip.compress(BOMB), **{"Content-Encoding": "gzip, gzip"}),
    "many-codings": body(b"x", **{"Content-Encoding": ", ".join(["gzip"] * 5000)}),
    "controls-in-the-status": raw(b"HTTP/1.1 400 " + ESCAPES.encode("latin-1")[:-3] + b"\r\nContent-Length: 0\r\n\r\n"),
    "controls-in-an-error": body(REFUSAL, 400),
    "controls-in-a-wrong-status": body(REFUSAL, 503),
    "controls-in-an-epoch": page(epoch=ESCAPES, reset=True),
    "controls-in-an-address": body(b"", 302, Location="http://x/" + "\x1b[31m"),
    "no-http": raw(ESCAPES.encode("latin-1") * 100),
    "http-0.9": raw(b'{"ok":true,"ts":1,"updates":[{}]}'),
    "a-deep-page": body(b'{"ok":true,"ts":1,"updates":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a-deep-error": body(b'{"ok":false,"error_description":' + b"[" * 100_000, 400),
    "large-numbers": page(ts=1 << 70, missed=1 << 70, skipped=1 << 70),
    "the-largest-number": page(ts=(1 << 63) - 1, updates=[{}] * 3, missed=(1 << 63) - 1),
    "fewer-than-there-are": page(ts=0, updates=[{}] * 3, skipped=1),
    "wrong-types": body(b'{"ok":"true","ts":"1","updates":{"a":1},"reset":1,"missed":-1}'),
    "not-utf-8": body(b'{"ok":true,"ts":1,"updates":["\xff\xfe"]}'),
    "a-long-wait": body(b"{}", 503, **{"Retry-After": "99999999999999999999"}),
    "status-999": body(b"", 999),
    "status-0": raw(b"HTTP/1.1 000 \r\nContent-Length: 0\r\n\r\n"),
    "switching": raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    "two-lengths": raw(OK + b"Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello"),
    "a-negative-length": raw(OK + b"Content-Length: -5\r\n\r\nhello"),
    "cookies": body(b"", 401, **{"Set-Cookie": "a=" + "x" * 4000, "WWW-Authenticate": 'Digest realm="x", nonce="y"'}),
}


def arguments(command, url, target):
    name, *options = command.split()
    if name == "health":
        return [name, f"--listen={url.removeprefix('http://')}"]
    more = {"forward": [target], "exec": ["--", "cat"], "send": ["a=1"]}.get(name, [])
    return [name, *options, url + SECRET, *more]


def environment(directory):
    return {"HOME": str(directory), "XDG_STATE_HOME": str(directory)}


def peak_bytes(process):
    """The most memory that it has had so far, 0 when it has ended."""
    with contextlib.suppress(OSError):
        return int((re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()) or [0, 0])[1]) * 1024
    return 0


def check_words(text):
    """What a command says of a server, which may say anything."""
    bad = re.search(r"[^\n\x20-\x7e\xa0-\U0010ffff]", text)
    assert not bad, f"{bad[0]!r} in {text[:500]!r}"
    assert SECRET[1:] not in text and "Sanitizer" not in text and "runtime error" not in text, text[:3000]


def suffer(directory, command, answer, fails=True):
    """Runs the command against that answer until it ends, or has asked twice, and ends it."""
    with Target(answer) as target, Target() as own, contextlib.ExitStack() as stack:
        running = Command(directory, *arguments(command, target.url, own.url), **environment(directory))
        stack.callback(running.kill)
        process, peak = running.process, 0
        process.stdin.close()

        def has_enough():
            nonlocal peak
            peak = max(peak, peak_bytes(process))
            return process.poll() is not None or len(target.received) >= 2 and command in GO_ON

        wait_until(has_enough, "its end" if command not in GO_ON else "another request", 3 * PATIENCE_S)
        if process.poll() is None:
            assert running.terminate() == 0
        assert process.returncode >= (command not in GO_ON and fails), process.returncode
        assert peak < MEMORY, f"{peak >> 20} MiB"
        check_words(running.stderr)


def suffer_all(directory, command, answers):
    def one(name):
        try:
            suffer(directory / name, command, answers[name], name not in HARMLESS)
        except AssertionError as failure:
            return f"{name}: {failure}"

    with ThreadPoolExecutor(12) as pool:
        failures = list(filter(None, pool.map(one, answers)))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_a_server_says_does_harm(tmp_path, command):
    suffer_all(tmp_path, command, ANSWERS)


@pytest.mark.torture
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_read_over_without_end_is_silence(tmp_path, command):
    suffer(tmp_path / "command", command, endless(OK + b"Transfer-Encoding: chunked\r\n\r\n2;", b"x" * 65536))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_redirect_is_followed(tmp_path, command):
    with Target() as elsewhere:
        places = (elsewhere.url + "/x", "file:///etc/passwd", "//" + elsewhere.url.split("/")[2] + "/x", "gopher://127.0.0.1:9/x")
        cases = [(302, place) for place in places] + [(status, places[0]) for status in (301, 303, 307, 308)]
        answers = {f"{i}-{status}": body(b"", status, Location=place, Refresh=f"0; url={place}") for i, (status, place) in enumerate(cases)}
        suffer_all(tmp_path, command, answers)
        assert not elsewhere.received
