"""What SECURITY.md says to do with keys, done as it stands there."""

import re
import subprocess

import pytest

from keys import new_keys
from longline_server import BINARY, REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store


def section(path, heading):
    text = (REPOSITORY / path).read_text("utf-8")
    return re.search(rf"^#+ {heading}\n(.*?)(?=^##|\Z)", text, re.M | re.S)[1]


def shell(command, **variables):
    env = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.check_output(["bash", "-c", command], env=env, text=True, timeout=60)


def test_what_security_says_to_do_when_an_address_has_leaked(server):
    text = section("SECURITY.md", "An address has leaked")
    commands = [line.split("  #")[0].strip() for line in re.findall(r"^ +(?:\$ )?((?:curl|longline) .*)$", text, re.M)]
    commands += re.findall(r"`(curl [^`]*)`", text)
    make, arrives, handled, drain, everything, later = commands
    assert shell(make.replace("longline", str(BINARY))).count("https://hooks.example.com/") == 3

    (old, _, old_send), (_, read, send) = new_keys(), new_keys()
    server.channels.update((old, old_send, read, send))
    for n in range(1, 41):
        server.push("/" + old_send, b'{"old":%d}' % n)
    server.push("/" + send, b'{"new":1}')

    def run(command, ts="0"):
        urls = {"OLD": server.url("/" + old), "READ": server.url("/" + read), "SEND": server.url("/" + send), "TS": ts}
        return shell(command.replace("curl", "curl -s").replace("sleep=25", "sleep=0"), **urls)

    assert '{"new":1}' in run(arrives)
    assert run(handled, ts="30") == '{"ok":true,"gone":30}'
    server.push("/" + old_send, b'{"old":41}')
    assert run(drain, ts="30").count('"old"') == 11
    assert run(drain, ts="41") == '{"ok":true,"ts":41,"updates":[]}'
    assert run(everything) in text
    server.push("/" + old_send, b'{"old":42}')
    assert '"body":{"old":42}' in run(later)
    assert server.get("/" + old).updates == [{"old": 42}]
    assert server.get("/" + read).updates == [{"new": 1}]
