"""The tables of docs/protocol.md that say what becomes of a body: each of their rows is pushed."""

import re

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
