"""`longline tail`: what it prints, how it ends, and that it goes on whatever happens to the line.

tests/clients runs the cases of clients/conformance.json against it as well.
"""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading

import pytest
from commands import Command, Target, is_refused, run
from keys import new_keys
from longline_server import BINARY, PATIENCE_S, wait_until
from proxy import Proxy

USAGE, NO_PERMISSION = 64, 77


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory")


@pytest.fixture
def tail(tmp_path):
    """tail(URL, OPTION…, VARIABLE=value) starts one; all are killed in the end."""
    with contextlib.ExitStack() as stack:
        counter = iter(range(100))

        def start(url, *options, **environment):
            command = Command(tmp_path / f"tail-{next(counter)}", "tail", url, *options, **environment)
            stack.callback(command.kill)
            return command

        yield start


def wait_for_lines(command, *lines):
    command.wait_for(lambda got: len(got) >= len(lines), f"{len(lines)} lines")
    assert command.lines == list(lines)


def push(server, channel, *numbers):
    for n in numbers:
        assert server.push(channel, b'{"n":%d}' % n)


# --- what it prints ---


def test_the_last_ten_and_what_comes(server, tail):
    channel = server.channel()
    push(server, channel, *range(1, 13))
    command = tail(server.url(channel))
    server.wait_for_parked(1)
    push(server, channel, 13)
    wait_for_lines(command, *(f'{{"n":{n}}}' for n in range(3, 14)))
    assert command.terminate() == 0 and command.stderr == ""


@pytest.mark.parametrize("options,first", [(["-n", "2"], 3), (["-n0"], 5), (["--ts=1"], 2), (["--ts=now"], 5), (["--since=10m"], 1), (["--since", "2020-01-01"], 1)])
def test_where_it_begins(server, tail, options, first):
    channel = server.channel()
    push(server, channel, 1, 2, 3, 4)
    command = tail(server.url(channel), *options)
    server.wait_for_parked(1)
    push(server, channel, 5)
    wait_for_lines(command, *(f'{{"n":{n}}}' for n in range(first, 6)))


def test_an_empty_channel(server, tail):
    """Its first update comes, although a poll of the last ten would not wait behind it."""
    channel = server.channel()
    command = tail(server.url(channel))
    server.wait_for_parked(1)
    push(server, channel, 1)
    wait_for_lines(command, '{"n":1}')


def test_each_update_is_one_line_of_its_own_text(server, tail):
    channel = server.channel()
    server.push(channel, b'{\r\n  "a" : 1.10,\n\t"b":"x\\ny \xe2\x98\x83 \xc2\x9b"\n}\n')
    server.push(channel, b"no JSON")
    command = tail(server.url(channel), "--ts=0")
    wait_for_lines(command, '{  "a" : 1.10,\t"b":"x\\ny ☃ \x9b"}', '{"body":"no JSON"}')


def test_full_is_the_whole_request(server, tail):
    channel = server.channel()
    server.push(channel + "/v1?app=shop", b'{"n":1}', {"X-GitHub-Event": "push"})
    command = tail(server.url(channel), "--full")
    command.wait_for(lambda lines: lines, "an update")
    assert json.loads(command.lines[0]) == server.get(channel + "?view=full").updates[0]


def test_json_says_everything(start, tail):
    server = start(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=3)
    channel = server.channel()
    push(server, channel, *range(1, 6))
    command = tail(server.url(channel), "--json", "--ts=1")
    server.wait_for_parked(1)
    wait_for_lines(command, '{"missed":1}', *(f'{{"ts":{n},"update":{{"n":{n}}}}}' for n in (3, 4, 5)))
    assert command.terminate() == 0
    assert command.lines[-1] == '{"stopped":true,"ts":5}'
    ahead = tail(server.url(channel), "--json", "--ts=21")
    wait_for_lines(ahead, '{"reset":5}')


def test_gaps_go_to_standard_error(start, tail):
    server = start(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=3)
    channel = server.channel()
    push(server, channel, *range(1, 6))
    command = tail(server.url(channel), "--ts=0")
    wait_for_lines(command, *(f'{{"n":{n}}}' for n in (3, 4, 5)))
    assert "2 updates are missed: no longer kept\n" in command.stderr
    ahead = tail(server.url(channel), "--ts=21")
    ahead.wait_for_note("going on behind update 5")


def test_filters(server, tail):
    channel = server.channel()
    command = tail(server.url(channel), "--where=body.n:2|5", "--where", "!body.x:*", "--json")
    push(server, channel, *range(1, 6))
    wait_for_lines(command, '{"ts":2,"update":{"n":2}}', '{"ts":5,"update":{"n":5}}')


def test_a_name_goes_on_where_it_was(server, tail):
    channel = server.channel()
    push(server, channel, 1, 2)
    first = tail(server.url(channel), "--as=bot")
    wait_for_lines(first, '{"n":1}', '{"n":2}')
    server.wait_for_parked(1)
    first.kill()
    server.wait_for_parked(0)
    push(server, channel, 3)
    wait_for_lines(tail(server.url(channel), "--as=bot"), '{"n":3}')


def test_each_address(server, tail):
    keys = new_keys()
    push(server, "/" + keys[2], 1)
    for key in keys[:2]:
        wait_for_lines(tail(server.url("/" + key)), '{"n":1}')
    assert "v_ or r_" in is_refused(run("tail", server.url("/" + keys[2])), NO_PERMISSION)


def test_an_address_with_a_query_and_a_fragment(server, tail):
    channel = server.channel()
    push(server, channel, 1)
    wait_for_lines(tail(server.url(channel) + "?app=shop#x"), '{"n":1}')


def test_a_sleep_of_the_machine_ends_a_pause(tail, clock):
    """However long it was to be: what it waited for is long over."""
    answer = (503, {"Retry-After": "60"}, b'{"ok":false,"error_code":503,"error_description":"busy"}')
    with Target(lambda *_: answer) as target:
        command = tail(target.url + "/c", **clock.settings)
        command.wait_for_note("busy; again in")
        clock.set(1)
        wait_until(lambda: len(target.received) > 1, "the next poll")


def test_an_outage_and_its_end_are_told(start, tail):
    server = start(DATA_PROVIDER="memory").keep_address()
    channel = server.channel()
    server.kill9()
    command = tail(server.url(channel), "--sleep=1")
    command.wait_for_note("again in")
    server.start()
    command.wait_for_note("longline: connected again\n")
    assert "longline: connected\n" not in command.stderr


def test_what_a_server_says_is_one_line_and_controls_no_terminal():
    said = json.dumps({"ok": False, "error_code": 403, "error_description": "x\x1b]0;y\x07\nlongline: all is well"})
    with Target(lambda number, received: (403, {}, said.encode())) as liar:
        for words in (("tail",), ("send", "-d{}")):
            line = is_refused(run(words[0], liar.url + "/c", *words[1:]), NO_PERMISSION)
            assert "x\\u001b]0;y\\u0007\\u000alongline: all is well" in line


# --- a terminal ---


def on_terminal(url, text, *options, **environment):
    """What it shows on a terminal, until that has `text` in it."""
    ours, its = pty.openpty()
    settings = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen([BINARY, "tail", url, *options], stdin=its, stdout=its, stderr=its, env=settings, start_new_session=True)
    os.close(its)
    shown = b""
    try:
        while text not in shown:
            shown += os.read(ours, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()


def test_a_terminal_gets_colours_and_lines(server):
    channel = server.channel()
    server.push(channel + "/v1?a=b", b'{"x":[1,{}],"y":"\xc2\x9b\x7f"}')
    shown = on_terminal(server.url(channel), b"\n}\r\n")
    connected, plain = re.sub(r"\x1b\[\d+m", "", shown).replace("\r", "").split("\n", 1)
    assert connected == "longline: connected"
    assert "\x1b[32m" in shown
    assert re.match(r"#1 \d\d:\d\d:\d\d POST /v1 \?a=b from 127\.0\.0\.1\n", plain), plain
    assert plain.split("\n", 1)[1] == '{\n  "x": [\n    1,\n    {}\n  ],\n  "y": "\\u009b\\u007f",\n  "a": "b"\n}\n'
    for no in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(server.url(channel), b"\n}\r\n", **no)


def test_json_on_a_terminal_is_escaped_and_the_same(server):
    channel = server.channel()
    update = '{"x":"\x9b31m\u202e"}'
    server.push(channel, update.encode())
    shown = on_terminal(server.url(channel), b"}\r\n", "--json").rstrip().splitlines()[-1]
    assert shown == '{"ts":1,"update":{"x":"\\u009b31m\\u202e"}}' and json.loads(shown)["update"] == json.loads(update)


# --- how it ends ---


def test_head_ends_it_quietly(server):
    """At once: without waiting for another update."""
    channel = server.channel()
    push(server, channel, 1, 2)
    shell = f"set -o pipefail; '{BINARY}' tail '{server.url(channel)}' | head -1"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=4 * PATIENCE_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, '{"n":1}\n', "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_quietly(server, tail, number):
    command = tail(server.url(server.channel()))
    server.wait_for_parked(1)
    command.process.send_signal(number)
    assert (command.wait(), command.stderr) == (0, "")


def test_a_full_disk_is_told(server):
    channel = server.channel()
    push(server, channel, 1)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([BINARY, "tail", server.url(channel)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=4 * PATIENCE_S)
    assert ended.returncode == 74 and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["http://h/x", "y"], ["http://h/x", "-n", "many"], ["http://h/x", "-n", "1", "--ts=1"], ["http://h/x", "--ts=x"]]
    + [["http://h/x", "--sleep=0"], ["http://h/x", "--sleep=90"], ["http://h/x", "--keep-host"], ["http://h/"]],
)
def test_bad_usage_is_one_line(arguments):
    is_refused(run("tail", *arguments), USAGE)


def test_what_the_server_calls_a_mistake(server):
    url = server.url(server.channel())
    assert "since is how long ago" in is_refused(run("tail", url, "--since=yesterday"), USAGE)
    assert "where is FIELD:TEXT" in is_refused(run("tail", url, "--where=x"), USAGE)


# --- the line ---


def test_a_server_that_goes_and_comes(start, tail):
    server = start()
    server.keep_address()
    channel = server.channel()
    push(server, channel, 1)
    command = tail(server.url(channel))
    server.wait_for_parked(1)
    server.kill9()
    command.wait_for_note("again in")
    server.start()
    push(server, channel, 2)
    wait_for_lines(command, '{"n":1}', '{"n":2}')
    assert channel.strip("/") not in command.stderr


def test_a_line_that_is_cut_without_a_word(server, tail):
    """Nothing comes through any more, and nobody says so: it is noticed, and delivery goes on."""
    channel = server.channel()
    with Proxy(("127.0.0.1", server.port)) as proxy:
        command = tail(f"http://127.0.0.1:{proxy.port}{channel}", "--sleep=1")
        push(server, channel, 1)
        wait_for_lines(command, '{"n":1}')
        server.wait_for_parked(1)
        for line in proxy.open_lines():
            line.flows.clear()
        push(server, channel, 2)
        command.wait_for(lambda lines: len(lines) == 2, "the other update")
        assert command.lines == ['{"n":1}', '{"n":2}'] and "nothing comes" in command.stderr


def test_a_machine_that_slept(server, tail, clock):
    """Its line may be dead: it asks again at once, over another one."""
    channel = server.channel()
    with Proxy(("127.0.0.1", server.port)) as proxy:
        command = tail(f"http://127.0.0.1:{proxy.port}{channel}", **clock.settings)
        server.wait_for_parked(1)
        (line,) = proxy.open_lines()
        line.flows.clear()
        clock.set(1)
        command.wait_for_note("this machine has slept")
        push(server, channel, 1)
        wait_for_lines(command, '{"n":1}')


def test_stopped_for_a_while(server, tail):
    """As by SIGSTOP: what came meanwhile is not lost."""
    channel = server.channel()
    command = tail(server.url(channel), "--sleep=1")
    server.wait_for_parked(1)
    command.process.send_signal(signal.SIGSTOP)
    push(server, channel, 1)
    server.wait_for_parked(0)
    push(server, channel, 2)
    command.process.send_signal(signal.SIGCONT)
    wait_for_lines(command, '{"n":1}', '{"n":2}')


def test_a_redirect_is_not_followed(tail):
    with Target() as elsewhere, Target(lambda *_: (302, {"Location": elsewhere.url}, b"")) as target:
        command = tail(target.url + "/secret")
        command.wait_for_note("status 302")
        wait_until(lambda: len(target.received) >= 2, "another poll")
        assert not elsewhere.received


def test_an_endless_reply_ends(tail):
    """A server that drips without end holds nothing up: its reply is no page, and stopping works."""
    connected = threading.Event()

    def drip(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{")
        connected.set()
        with contextlib.suppress(OSError):
            connection.recv(1)

    with Target(lambda *_: drip) as target:
        command = tail(target.url + "/secret")
        assert connected.wait(PATIENCE_S)
        assert command.terminate() == 0


def test_a_reply_that_drips_is_given_up(tail, clock):
    """A byte a second is no progress: it asks again."""

    def drip(connection):
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{")
            while not select.select([connection], [], [], 0.02)[0]:
                clock.set_forward(1, wall=True)
                connection.sendall(b" ")

    with Target(lambda *_: drip) as target:
        command = tail(target.url + "/secret", **clock.settings)
        wait_until(lambda: len(target.received) >= 2, "another poll")
        assert "nothing comes" in command.stderr
