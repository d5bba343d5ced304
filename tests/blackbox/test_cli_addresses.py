"""Every command takes the address of the console or the chat: the channel stands behind its #."""

import json

import pytest
from commands import Command, Target, run


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory")


@pytest.mark.parametrize("page", ["/#{}", "/#{}/room/filter", "/-/chat#{}", "/?x=1#{}"])
def test_the_address_of_a_page(server, tmp_path, page):
    channel = server.channel()
    url = server.url(page.format(channel[1:]))
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    assert run("send", url, "n:=1").stdout == "1\n"
    assert server.get(channel + "?ts=0").updates == [{"n": 1} | ({"x": "1"} if "?" in page else {})]
    with Target() as target:
        commands = [
            Command(tmp_path / "tail", "tail", url, "--json", "--ts=0", **environment),
            Command(tmp_path / "forward", "forward", url, target.url, "--json", "--ts=0", **environment),
            Command(tmp_path / "exec", "exec", url, "--ts=0", "--", "cat", **environment),
        ]
        try:
            assert json.loads(commands[0].wait_for_line('"ts":1'))["update"]["n"] == 1
            assert json.loads(commands[1].wait_for_line('"ts":1'))["result"] == "confirmed"
            commands[2].wait_for_note("#1  POST  exit 0")
        finally:
            for command in commands:
                command.kill()


def test_a_page_that_shows_no_channel(server):
    for page in ("/", "/#", "/#/room", "/-/chat#x?y"):
        ended = run("send", server.url(page), "n:=1")
        assert (ended.returncode, ended.stdout) == (64, "") and "URL" in ended.stderr, page


def test_a_place_is_that_of_the_channel(server, tmp_path):
    """`forward` goes on where it stopped, whichever address of the channel it gets."""
    channel = server.channel()
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with Target() as target:
        for number, url in enumerate((server.url(channel), server.url("/#" + channel[1:])), 1):
            server.push(channel, '{"n":%d}' % number)
            forward = Command(tmp_path / str(number), "forward", url, target.url, "--ts=0", **environment)
            try:
                forward.wait_for_line(f"#{number} ")
                assert forward.terminate() == 0
            finally:
                forward.kill()
        assert [received.body for received in target.received] == [b'{"n":1}', b'{"n":2}']
