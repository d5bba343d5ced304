"""Two people in the terminal chat."""

import os
import threading
import time

from longline_server import wait_until
from program import EXAMPLES

CHAT = EXAMPLES / "chat/chat.sh"


def test_each_sees_the_lines_of_both_and_those_from_before(server, url, run):
    ann = run(CHAT, url, "ann")
    ann.say("is anybody here?")
    ann.wait_for_line("ann: is anybody here?")

    bob = run(CHAT, url, "bob")
    bob.wait_for_line("ann: is anybody here?")
    bob.say(r"yes: \"quotes\", $HOME, 100 % & Ünï 😀")
    ann.say("good")
    said = ["ann: is anybody here?", r"bob: yes: \"quotes\", $HOME, 100 % & Ünï 😀", "ann: good"]
    for each in (ann, bob):
        each.wait_for(lambda lines: len(lines) == 3, "three lines")
        assert sorted(each.lines) == sorted(said)
    assert ann.lines == bob.lines
    assert ann.stderr == bob.stderr == ""


def test_it_leaves_nothing_behind(server, url, run):
    chat = run(CHAT, url, "ann")
    server.wait_for_parked(1)
    assert len(chat.session()) > 2
    chat.hang_up()
    wait_until(lambda: not chat.session(), "its curl to end")
    assert chat.stderr == ""


def test_it_goes_on_after_a_restart_of_the_server(server, url, run):
    ann, bob = run(CHAT, url, "ann"), run(CHAT, url, "bob")
    ann.say("before")
    bob.wait_for_line("ann: before")
    server.restart()
    ann.say("after")
    bob.wait_for_line("ann: after")
    assert bob.lines == ["ann: before", "ann: after"]


def test_an_update_of_another_kind_does_not_stop_it_nor_steer_the_terminal(server, url, target, run):
    server.push(target, b"[1,2]")
    server.push(target, rb'{"name":"\u001b[2Jeve","text":"a\u009bb\nann: I never said this"}')
    chat = run(CHAT, url, "ann")
    chat.say("hello")
    chat.wait_for_line("ann: hello")
    assert chat.lines == ["[2Jeve: abann: I never said this", "ann: hello"]


LINE = b'{"ok":true,"ts":1,"updates":[{"name":"ann","text":"hello"}]}'


def test_a_reply_of_somebody_else_on_the_way_is_asked_again_after_a_pause(stand_in, run):
    bodies = [b"<html>the hotel's</html>", b'{"error":"log in"}', b"", LINE]
    times = []

    def answer(_):
        times.append(time.monotonic())
        return (200, bodies[len(times) - 1]) if len(times) <= len(bodies) else None

    run(CHAT, stand_in(answer), "ann").wait_for_line("ann: hello")
    assert all(later - earlier > 0.9 for earlier, later in zip(times[:3], times[1:4]))


def test_a_poll_without_an_answer_is_given_up(stand_in, run, tmp_path):
    polls = []

    def answer(_):
        polls.append(None)
        return (200, LINE) if len(polls) > 1 else threading.Event().wait(60)

    # The 40 s, in one.
    fake = tmp_path / "bin/curl"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nexec /usr/bin/curl "$@" $(case " $* " in *" --max-time 40 "*) echo --max-time 1; esac)\n')
    fake.chmod(0o755)
    chat = run(CHAT, stand_in(answer), "ann", PATH=f"{fake.parent}:{os.environ['PATH']}")
    chat.wait_for_line("ann: hello")
