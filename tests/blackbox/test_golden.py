"""The answers of lua-long-polling 1.5.0 (tests/compat/golden.json), in order, on a fresh server."""

import json

import pytest

from longline_server import REPOSITORY

STEPS = json.loads((REPOSITORY / "tests/compat/golden.json").read_text())["steps"]
RING = '40 updates {"i":1}..{"i":40} pushed to /R with CHANNEL_STORAGE_MAXSIZE=30'


def prepare(server, before):
    assert before == RING, f"an unknown preparation: {before}"
    if server.get("/R").total == 0:
        for i in range(1, 41):
            assert server.push("/R", json.dumps({"i": i})) == i


def expected_of(step):
    """What longline must answer: what upstream answers, or the difference that we decided on."""
    upstream = step["lua_long_polling"]
    expected = step.get("longline", {k: v for k, v in upstream.items() if k != "content_type"})
    if "same_plus" in expected:
        expected = {"status": upstream["status"], "json": {**upstream["json"], **expected["same_plus"]}}
    return expected


def check(reply, expected):
    for what, value in expected.items():
        if what == "why":
            continue
        if what == "status":
            assert reply.status == value
        elif what == "json":
            assert reply.json() == value
        elif what == "json_has":
            assert value.items() <= reply.json().items()
        elif what == "text":
            assert reply.text == value
        elif what == "text_has":
            assert value in reply.text
        elif what == "x_total_updates":
            assert reply.total == value
        elif what == "content_type":
            assert reply.headers["content-type"].startswith(value)
        elif what == "why":
            continue
        else:
            raise AssertionError(f"an unknown expectation: {what}")


def test_every_recorded_answer_in_order(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=30)
    failures = []
    for step in STEPS:
        if "before" in step:
            prepare(server, step["before"])
        request = step["request"]
        reply = server.request(request["method"], request["path"], request["body"], request["headers"])
        try:
            check(reply, expected_of(step))
        except (AssertionError, KeyError, ValueError) as failure:
            failures.append(f"{step['name']}: {failure!r}\n{reply}")
    assert not failures, "\n\n".join(failures)


def test_the_recording_is_whole():
    assert len(STEPS) == 31
    with pytest.raises(AssertionError):
        check(type("Reply", (), {"status": 500})(), {"status": 200})
