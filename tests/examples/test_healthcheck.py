"""Servers that watch each other."""

import importlib
import sys
import time

import pytest

from longline_server import wait_until
from program import EXAMPLES, PYTHON

PEER_NAMES = ("paris", "tokyo", "lima")


def start(run, name, url):
    return run(PYTHON, EXAMPLES / "healthcheck/healthcheck.py", name, url)


def start_all(run, url):
    """All three, once they have all heard each other."""
    peers = {name: start(run, name, url) for name in PEER_NAMES}
    for name, peer in peers.items():
        for other in PEER_NAMES:
            if other != name:
                peer.wait_for_line(f"{other} is there")
    return peers


def reports(peer):
    return [line for line in peer.lines if not line.endswith("is there")]


@pytest.mark.timed
def test_one_is_killed_and_the_others_report_it_and_its_return(server, url, run):
    peers = start_all(run, url)
    killed_at = time.monotonic()
    peers["tokyo"].kill()
    left = [peers["paris"], peers["lima"]]
    for peer in left:
        peer.wait_for_line("tokyo is DOWN", timeout_s=5 - (time.monotonic() - killed_at))
    assert time.monotonic() - killed_at < 5

    start(run, "tokyo", url)
    for peer in left:
        peer.wait_for_line("tokyo is back")
        assert [line.split(":")[0] for line in reports(peer)] == ["tokyo is DOWN", "tokyo is back"]
        assert peer.stderr == ""


@pytest.mark.timed
def test_nobody_is_called_down_when_the_line_is(server, url, run):
    peers = start_all(run, url)
    server.stop()
    stopped_at = time.monotonic()
    for peer in peers.values():
        peer.wait_for_note("cannot tell that I am alive")
    # Longer than the silence that is tolerated.
    wait_until(lambda: time.monotonic() - stopped_at > 3.5)
    server.start()
    # Once another death is reported, any report about the outage would be there too.
    peers["tokyo"].kill()
    for name, other in (("paris", "lima"), ("lima", "paris")):
        peers[name].wait_for_line("tokyo is DOWN")
        assert [line for line in peers[name].lines if other in line] == [f"{other} is there"]


@pytest.fixture
def watch(monkeypatch):
    """A Watch of paris, which has heard tokyo and lima."""
    monkeypatch.syspath_prepend(EXAMPLES / "healthcheck")
    watch = importlib.import_module("healthcheck").Watch("paris")
    hear(watch, "tokyo lima")
    yield watch
    del sys.modules["healthcheck"]


def hear(watch, names):
    for name in names.split():
        watch.hear(name)


def test_silence_is_counted_in_its_own_beats(watch, capsys):
    hear(watch, "paris paris tokyo paris lima paris tokyo paris paris")
    assert capsys.readouterr().out.splitlines() == []
    hear(watch, "tokyo paris")
    assert capsys.readouterr().out.splitlines() == ["lima is DOWN: silent for more than 3 s"]
    hear(watch, "tokyo paris tokyo paris")
    assert capsys.readouterr().out.splitlines() == []
    hear(watch, "lima")
    assert capsys.readouterr().out.splitlines() == ["lima is back"]
