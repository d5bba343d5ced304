"""What README.md and SECURITY.md say to do with keys, done as it stands there."""

import re
import subprocess

import pytest

from keys import after, new_keys
from longline_server import BINARY, REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store


def section(path, heading):
    text = (REPOSITORY / path).read_text("utf-8")
    return re.search(rf"^#+ {heading}\n(.*?)(?=^##|\Z)", text, re.M | re.S)[1]


def shell(command, **variables):
    env = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.check_output(["bash", "-c", command], env=env, text=True, timeout=20)


def without_letters(text):
    return re.sub(r"_[a-z2-7]{26}", "_", text)


def test_the_readme_shows_what_each_address_does(server):
    session = re.search(r"```console\n(.*?)```", section("README.md", "An address that only sends"), re.S)[1]
    making, *requests = re.findall(r"^\$ (.*)\n((?:[^$].*\n)+)", session, re.M)
    # What it prints has the form that is shown, and the keys shown are one channel's.
    keys = re.findall(r"[rvw]_[a-z2-7]{26}$", making[1], re.M)
    assert keys == [keys[0], after(keys[0]), after(after(keys[0]))]
    printed = shell(making[0].replace("build/longline", str(BINARY)))
    assert without_letters(printed) == without_letters(making[1])
    server.channels.update(keys)
    assert len(requests) == 3
    for command, reply in requests:
        there = shell(command.replace("http://localhost:3000/", server.url("/")).replace("curl", "curl -s"))
        assert there == reply.rstrip("\n"), command


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
