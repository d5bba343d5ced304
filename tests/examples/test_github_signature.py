"""GitHub's webhooks: signed, forged, altered and unsigned."""

import hashlib
import hmac
import json

import pytest

from longline_server import REPOSITORY
from program import EXAMPLES, PYTHON

SECRET = "It's a Secret to Everybody"
EXAMPLE_PAYLOADS = REPOSITORY / "tests/node_modules/@octokit/webhooks-examples/api.github.com/index.json"


def payloads():
    """One payload of each event, as (event, text), compact and pretty-printed."""
    assert EXAMPLE_PAYLOADS.exists(), f"no payloads: run `npm ci` in {REPOSITORY / 'tests'}"
    for event in json.loads(EXAMPLE_PAYLOADS.read_text()):
        example = event["examples"][0]
        yield event["name"], json.dumps(example, separators=(",", ":"), ensure_ascii=False)
        yield event["name"], json.dumps(example, indent=2)


def signature(text, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def verify(run, read_url):
    return lambda secret=SECRET: run(
        PYTHON, EXAMPLES / "github-signature/verify.py", read_url, "github.ts", GITHUB_SECRET=secret
    )


@pytest.fixture
def push(server, send_url):
    """push(text, signature=None, query="") as GitHub or a forger. Returns the update's id."""

    def push(text, signature=None, query="", event="pull_request"):
        headers = {"Content-Type": "application/json", "X-GitHub-Event": event}
        if signature is not None:
            headers["X-Hub-Signature-256"] = signature
        return server.push("/" + send_url.rsplit("/", 1)[1] + query, text.encode(), headers)

    return push


PULL_REQUEST = json.dumps({"action": "opened", "number": 1.10, "repository": {"full_name": "Codertocat/Hello-World"}})


def test_githubs_own_vector():
    """The example in GitHub's documentation."""
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signature("Hello, World!") == expected


def test_every_signed_payload_is_accepted(push, verify):
    count = 0
    for event, text in payloads():
        push(text, signature(text), query="?appname=github", event=event)
        count += 1
    assert count > 100
    program = verify()
    program.wait_for(lambda lines: len(lines) == count, f"{count} lines")
    assert [line for line in program.lines if not line.startswith("accepted ")] == []
    assert any(line.startswith("accepted pull_request ") and "Codertocat/Hello-World" in line for line in program.lines)


@pytest.mark.parametrize(
    "forged",
    [
        signature(PULL_REQUEST, "another secret"),
        signature(PULL_REQUEST, ""),
        signature(PULL_REQUEST)[:-1],
        signature(PULL_REQUEST).upper(),
        signature(PULL_REQUEST).removeprefix("sha256="),
        "sha256=",
        "",
        "sha256=" + "é" * 64,
    ],
)
def test_a_forged_signature_is_refused(push, verify, forged):
    push(PULL_REQUEST, forged)
    push(PULL_REQUEST, signature(PULL_REQUEST))
    program = verify()
    program.wait_for_line("accepted")
    assert program.lines == [
        "REFUSED 1: the signature is wrong",
        "accepted pull_request opened Codertocat/Hello-World",
    ]


def test_an_altered_body_is_refused(push, verify):
    for altered in (
        PULL_REQUEST.replace("opened", "closed"),
        PULL_REQUEST.replace(", ", ","),
        PULL_REQUEST.replace("1.1", "1.10"),
        PULL_REQUEST + "\n",
        "",
    ):
        assert altered != PULL_REQUEST
        push(altered, signature(PULL_REQUEST))
    program = verify()
    program.wait_for(lambda lines: len(lines) == 5, "five lines")
    assert program.lines == [f"REFUSED {ts}: the signature is wrong" for ts in range(1, 6)]


def test_without_a_signature_it_is_refused(push, verify):
    push(PULL_REQUEST)
    program = verify()
    program.wait_for_line("REFUSED 1: no signature")


def test_the_query_changes_nothing_of_what_was_signed(push, verify):
    """Whoever knows the sending address can push a signed text again, and merge a query into the update."""
    push(PULL_REQUEST, signature(PULL_REQUEST), query="?action=closed&repository=evil")
    program = verify()
    program.wait_for_line("accepted pull_request opened Codertocat/Hello-World")


def test_a_signed_text_that_is_no_object_does_not_stop_it(push, verify):
    push("[1]", signature("[1]"))
    push(PULL_REQUEST, signature(PULL_REQUEST))
    program = verify()
    program.wait_for_line("accepted")
    assert program.lines[0] == "REFUSED 1: no JSON object"


def test_it_goes_on_where_it_was(push, verify, tmp_path):
    push(PULL_REQUEST, signature(PULL_REQUEST))
    first = verify()
    first.wait_for(lambda _: (tmp_path / "github.ts").exists() and (tmp_path / "github.ts").read_text().split(" ")[0] == "1", "its cursor")
    first.kill()
    closed = PULL_REQUEST.replace("opened", "closed")
    push(closed, signature(closed))
    second = verify()
    second.wait_for_line("accepted")
    assert second.lines == ["accepted pull_request closed Codertocat/Hello-World"]


def test_it_does_not_run_without_a_secret(verify):
    program = verify(secret="")
    assert program.wait() == 1
    assert "GITHUB_SECRET is empty" in program.stderr
