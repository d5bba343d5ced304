"""`longline send`: what it sends, and whether its exit code tells the truth."""

import json
import os
import pty
import socket
import subprocess
import threading

import pytest
from commands import Target, is_refused, run
from keys import new_keys
from longline_server import BINARY, PATIENCE_S
from redis_server import free_port

USAGE, REFUSED, NO_INPUT, UNAVAILABLE, UNKNOWN, NOT_LONGLINE, NO_PERMISSION = 64, 65, 66, 69, 75, 76, 77


def sent(server, channel, *arguments, stdin=b"", count=1):
    """Sends, and returns the whole update, which is checked to be the one with the printed id."""
    ended = run("send", server.url(channel), *arguments, stdin=stdin)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    page = server.get(f"{channel}?view=full&ts=-{count}").json()
    assert ended.stdout == f"{page['ts']}\n"
    return page["updates"][-1]


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory", STRICT_JSON="off")


def test_it_prints_the_id(server):
    channel = server.channel()
    for n in range(1, 4):
        assert run("send", server.url(channel), f"n={n}").stdout == f"{n}\n"


def test_fields_become_an_object(server):
    update = sent(server, server.channel(), "text=a=b ☃", "n:=1.10", 'list:=[1, {"a":null}]', 'q"=', "x:y=z")
    assert update["raw"] == '{"text":"a=b ☃","n":1.10,"list":[1, {"a":null}],"q\\"":"","x:y":"z"}'
    assert update["headers"]["content-type"] == "application/json" and update["method"] == "POST"
    assert "expect" not in update["headers"]


@pytest.mark.parametrize("how", ["argument", "file", "-d @-", "stdin"])
def test_json_is_sent_as_it_is(server, tmp_path, how):
    text = '{"a" : 1.10,\n "b":"☃"}'
    (tmp_path / "body").write_text(text)
    arguments = {"argument": ["-d", text], "file": ["-d", f"@{tmp_path / 'body'}"], "-d @-": ["--data=@-"], "stdin": []}[how]
    stdin = text.encode() if how in ("stdin", "-d @-") else b""
    update = sent(server, server.channel(), *arguments, stdin=stdin)
    assert update["raw"] == text and update["headers"]["content-type"] == "application/json"


def test_bytes_are_sent_as_they_are(server):
    body = bytes(range(256)) * 1000
    channel = server.channel()
    update = sent(server, channel, stdin=body)
    assert "content-type" not in update["headers"] and int(update["headers"]["content-length"]) == len(body)
    assert update["body"] == {"body_base64": update["raw_base64"]} and len(update["raw_base64"]) == (len(body) + 2) // 3 * 4
    assert sent(server, channel, stdin=b"plain text")["body"] == {"body": "plain text"}
    assert sent(server, channel)["body"] == {}, "nothing is an empty update"


def test_headers_batches_and_queries(server):
    channel = server.channel()
    url = server.url(channel)
    batch = run("send", url, "-H", "Content-Type: application/x-ndjson", "--json", stdin=b'{"n":1}\n{"n":2}\n')
    assert json.loads(batch.stdout) == {"ts": 2, "updates": 2}
    for _ in range(2):
        ended = run("send", url + "?.once&app=shop", "-H", "Idempotency-Key: 7", "--json", "n=3")
    assert json.loads(ended.stdout) == {"ts": 3, "duplicate": 3}
    assert server.get(f"{channel}?ts=2").updates == [{"n": "3", "app": "shop"}]


def test_below_a_channel(server):
    channel = server.channel()
    assert run("send", server.url(channel) + "/v1/alerts", "a=1").stdout == "1\n"
    assert server.get(f"{channel}?view=full").updates[0]["path"] == "/v1/alerts"


def test_each_address(server):
    for number, key in enumerate(new_keys()):
        ended = run("send", server.url("/" + key), "a=1")
        if number == 1:
            assert "w_ or r_" in is_refused(ended, NO_PERMISSION)
        else:
            assert ended.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["ftp://localhost/x"], ["localhost:3000/x"], ["http://localhost:3000/"], ["http://localhost:3000"], ["nonsense", "a=1"], ["http://h/x", "a"], ["http://h/x", "=1"]]
    + [["http://h/x", "a:=oops"], ["http://h/x", "-d", "{oops"], ["http://h/x", "-d", "1", "a=1"], ["http://h/x", "--nope"], ["http://h/x", "-d"], ["http://h/x", "--json=1"]],
)
def test_bad_usage_is_one_line(arguments):
    is_refused(run("send", *arguments), USAGE)


def test_a_terminal_is_not_waited_for(server):
    """Who gives no data by mistake is told, and does not sit in front of a silent program."""
    ours, its = pty.openpty()
    with os.fdopen(its, "rb") as terminal, os.fdopen(ours):
        assert "nothing to send" in is_refused(run_with(terminal, "send", server.url(server.channel())), USAGE)


def run_with(stdin, *arguments):
    return subprocess.run([BINARY, *arguments], stdin=stdin, capture_output=True, text=True, timeout=4 * PATIENCE_S)


def test_a_file_that_is_not_there(tmp_path):
    assert "nowhere" in is_refused(run("send", "http://h/x", "-d", f"@{tmp_path / 'nowhere'}"), NO_INPUT)


def test_a_dead_server():
    for url in (f"http://127.0.0.1:{free_port()}/secret", "http://nowhere.invalid/secret"):
        line = is_refused(run("send", url, "a=1"), UNAVAILABLE)
        assert line.startswith("longline: not stored: ") and "secret" not in line


def test_what_the_server_refuses(start):
    server = start(DATA_PROVIDER="memory", STRICT_JSON="on", MAX_BODY="1000")
    url = server.url(server.channel())
    assert "400" in is_refused(run("send", url, "-d", "5"), REFUSED)
    assert "413" in is_refused(run("send", url, "a=" + "x" * 2000), REFUSED)
    assert server.get(url[url.rindex("/") :]).total == 0


def error(status, text):
    body = json.dumps({"ok": False, "error_code": status, "error_description": text})
    return status, {"Content-Type": "application/json"}, body.encode()


@pytest.mark.parametrize(
    "answer,code",
    [
        (error(429, "Too many requests"), UNAVAILABLE),
        (error(503, "Redis cannot be reached; nothing was stored"), UNAVAILABLE),
        (error(503, "Redis did not answer in time; whether this was stored is not known"), UNKNOWN),
        (error(503, "Stored, but not replicated: fewer replicas have it than REDIS_WAIT asks for"), UNKNOWN),
        (error(404, "No such path; channels are at /{channel}"), REFUSED),
        ((502, {}, b"<html>Bad gateway"), NOT_LONGLINE),
        ((200, {}, b"<html>Welcome to the hotel's network"), NOT_LONGLINE),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), UNAVAILABLE),
        (None, UNKNOWN),
        (lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nX-Total-Updates: 4\r\nContent-Le"), UNKNOWN),
    ],
    ids=str,
)
def test_what_others_answer(answer, code):
    with Target(lambda *_: answer) as target:
        line = is_refused(run("send", target.url + "/secret", "a=1"), code)
        assert ("not stored" in line) == (code in (UNAVAILABLE, REFUSED)) and "secret" not in line
        assert len(target.received) == 1, "it is not sent twice"


@pytest.mark.parametrize("words", [["-Hnocolon", "a=1"], ["-H: x", "a=1"], [b"a=\xff"], ["-d", "@"]])
def test_what_could_not_be_sent_as_it_is(words):
    with Target() as target:
        ended = subprocess.run([BINARY, "send", target.url + "/c", *words], capture_output=True, text=True, errors="replace", timeout=300)
        assert "\n" not in is_refused(ended, USAGE).rstrip() and not target.received


NO_CURL = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
void *dlopen(const char *name, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    return name && strstr(name, "curl") ? NULL : next(name, flags);
}
"""


def test_without_libcurl(server, tmp_path):
    """Its commands say so, and still help; a server does not have it in memory."""
    source, library = tmp_path / "no_curl.c", tmp_path / "no_curl.so"
    source.write_text(NO_CURL)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    missing = {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    assert "install libcurl (Debian and Ubuntu: libcurl4)" in is_refused(run("send", "http://h/x", "a=1", **missing), UNAVAILABLE)
    assert run("send", "--help", **missing).returncode == 0
    with open(f"/proc/{server.process.pid}/maps") as maps:
        assert "libcurl" not in maps.read()


def test_through_a_proxy(server):
    """The environment's proxy is asked, as by curl."""
    got = []

    def serve(listener):
        connection, _ = listener.accept()
        with connection:
            got.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Total-Updates: 7\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        ended = run("send", "http://hooks.invalid/secret", "a=1", http_proxy=f"http://127.0.0.1:{listener.getsockname()[1]}", no_proxy="")
        thread.join()
    assert ended.stdout == "7\n" and got[0].startswith(b"POST http://hooks.invalid/secret HTTP/1.1\r\n")


def test_help_says_the_exit_codes():
    ended = run("send", "--help")
    assert ended.returncode == 0 and ended.stderr == ""
    for code in (USAGE, REFUSED, NO_INPUT, UNAVAILABLE, UNKNOWN, NOT_LONGLINE, NO_PERMISSION):
        assert f"  {code}  " in ended.stdout
