"""The tables of docs/protocol.md that say what becomes of a body: each of their rows is pushed."""

import re
import shlex

import pytest

from longline_server import REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

ROW = re.compile(r"^\|(.*)\|$")


def cell(text):
    return text.strip().removeprefix("`").removesuffix("`")


def examples():
    """The rows of each table with the columns `body` and `update`, as dicts by column."""
    columns = None
    for line in (REPOSITORY / "docs/protocol.md").read_text("utf-8").splitlines():
        found = ROW.match(line)
        if not found:
            columns = None
            continue
        cells = [cell(text) for text in re.split(r" ?\| ?", found[1].strip() if columns is None else found[1])]
        if columns is None:
            columns = cells
        elif "Content-Type" in columns and "update" in columns and not line.startswith("|---"):
            yield dict(zip(columns, cells, strict=True))


EXAMPLES = list(examples())


def test_there_are_examples():
    assert len(EXAMPLES) == 20


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["body"] or "empty")
def test_what_the_protocol_says_of_a_body(server, channel, example):
    query = f"?{example['query']}" if "query" in example else ""
    server.push(channel + query, example["body"], {"Content-Type": example["Content-Type"]})
    assert server.get(channel).text == f'{{"ok":true,"ts":1,"updates":[{example["update"]}]}}'


# --- Consoles ---

COMMAND = re.compile(r"\$ curl (?:-X (?P<method>\w+) )?(?P<url>\S+)$")
VARIES = re.compile(r'"at":\d+')


def consoles(section):
    """The commands of a section's consoles that are one curl, each with the reply's body."""
    text = (REPOSITORY / "docs/protocol.md").read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    for console in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = console.splitlines()
        assert len(lines) % 2 == 0, console
        for command, body in zip(lines[::2], lines[1::2], strict=True):
            found = COMMAND.match(command)
            assert found, command
            (url,) = shlex.split(found["url"])
            yield found["method"] or "GET", url.removeprefix("$URL"), body


def test_what_the_protocol_says_of_consumers(server, channel):
    for n in range(1, 4):
        server.push(channel, '{"n":%d}' % n)
    examples = list(consoles("Consumers"))
    assert len(examples) == 9
    for method, behind, body in examples:
        assert VARIES.sub("", server.request(method, channel + behind).text) == VARIES.sub("", body), (method, behind)
