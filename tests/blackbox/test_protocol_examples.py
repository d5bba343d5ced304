"""The tables of docs/protocol.md that say what becomes of a body, or of a poll: each of their rows is sent."""

import re

import pytest

from longline_server import REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

ROW = re.compile(r"^\|(.*)\|$")


def cell(text):
    return text.strip().removeprefix("`").removesuffix("`")


def examples(*wanted):
    """The rows of each table with these columns, as dicts by column."""
    columns = None
    for line in (REPOSITORY / "docs/protocol.md").read_text("utf-8").splitlines():
        found = ROW.match(line)
        if not found:
            columns = None
            continue
        cells = [cell(text) for text in re.split(r" ?\| ?", found[1].strip() if columns is None else found[1])]
        if columns is None:
            columns = cells
        elif set(wanted) <= set(columns) and not line.startswith("|---"):
            yield dict(zip(columns, cells, strict=True))


EXAMPLES = list(examples("Content-Type", "update"))
POLLS_OF_MANY = list(examples("channels", "reply"))


def test_there_are_examples():
    assert len(EXAMPLES) == 20
    assert len(POLLS_OF_MANY) == 8


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["body"] or "empty")
def test_what_the_protocol_says_of_a_body(server, channel, example):
    query = f"?{example['query']}" if "query" in example else ""
    server.push(channel + query, example["body"], {"Content-Type": example["Content-Type"]})
    assert server.get(channel).text == f'{{"ok":true,"ts":1,"updates":[{example["update"]}]}}'


@pytest.fixture(scope="module")
def orders(module_server):
    for n in (1, 2):
        module_server.push("/orders", f'{{"n":{n}}}')


@pytest.mark.parametrize("example", POLLS_OF_MANY, ids=lambda example: example["channels"])
def test_what_the_protocol_says_of_a_poll_of_many_channels(server, orders, example):
    assert server.post(f"/-/poll?{example['query']}", example["channels"]).text == example["reply"]
