"""The tables of docs/protocol.md that say what becomes of a body, or of a poll: each of their rows is sent."""

import os
import re
import subprocess

import pytest

from keys import after, new_keys
from longline_server import REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

ROW = re.compile(r"^\|(.*)\|$")


def cell(text):
    return text.strip().removeprefix("`").removesuffix("`").replace("\\|", "|")


def examples(*wanted):
    """The rows of each table with these columns, as dicts by column."""
    columns = None
    for line in (REPOSITORY / "docs/protocol.md").read_text("utf-8").splitlines():
        found = ROW.match(line)
        if not found:
            columns = None
            continue
        cells = [cell(text) for text in re.split(r" ?(?<!\\)\| ?", found[1].strip() if columns is None else found[1])]
        if columns is None:
            columns = cells
        elif set(wanted) <= set(columns) and not line.startswith("|---"):
            yield dict(zip(columns, cells, strict=True))


EXAMPLES = list(examples("Content-Type", "update"))
POLLS_OF_MANY = list(examples("channels", "reply"))
FILTERED = list(examples("pushed to"))
FILTERS = list(examples("query", "brings"))
POLLS = [row for row in examples("query", "reply") if set(row) == {"query", "reply"}]


def test_there_are_examples():
    assert len(EXAMPLES) == 20
    assert len(POLLS_OF_MANY) == 8
    assert (len(FILTERED), len(FILTERS), len(POLLS)) == (3, 12, 10)


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


@pytest.fixture(scope="module")
def filtered(module_server):
    channel = module_server.channel()
    for row in FILTERED:
        headers = dict([row["header"].split(": ")]) if row["header"] else {}
        module_server.push(row["pushed to"].replace("$URL", channel), row["body"], headers)
    return channel


@pytest.mark.parametrize("example", FILTERS, ids=lambda example: example["query"])
def test_what_the_protocol_says_of_a_filter(module_server, filtered, example):
    reply = module_server.get(f"{filtered}?{example['query']}")
    assert reply.status == 200
    assert ", ".join(str(update["n"]) for update in reply.updates) == example["brings"]


@pytest.fixture(scope="module")
def three(module_server):
    channel = module_server.channel()
    for n in (1, 2, 3):
        module_server.push(channel, f'{{"n":{n}}}')
    return channel, module_server.get(channel + "?epoch=").json()["epoch"]


@pytest.mark.parametrize("example", POLLS, ids=lambda example: example["query"])
def test_what_the_protocol_says_of_a_poll(module_server, three, example):
    channel, epoch = three
    query, reply = (example[name].replace("$EPOCH", epoch) for name in ("query", "reply"))
    assert module_server.get(f"{channel}?{query}").text == reply


# --- Keys ---


def test_the_keys_of_the_protocol_follow_from_each_other():
    vectors = list(examples("r_", "v_", "w_"))
    assert len(vectors) == 3
    for row in vectors:
        assert (row["v_"], row["w_"]) == (after(row["r_"]), after(row["v_"]))


def test_what_each_kind_of_key_may_do(server, channel):
    names = {f"{key[:2]}…": "/" + key for key in new_keys()} | {"any other": channel}
    requests = {"send": ("POST", ""), "read": ("GET", ""), "delete": ("DELETE", "?as=bob")}
    rows = list(examples("for whom", "send", "read", "delete"))
    assert [row["the name"] for row in rows] == list(names)
    for row in rows:
        for right, (method, query) in requests.items():
            reply = server.request(method, names[row["the name"]] + query)
            assert reply.status == {"yes": 200, "no": 403}[row[right]], (row, right)


def test_the_shell_derives_keys():
    text = (REPOSITORY / "docs/protocol.md").read_text("utf-8").split("\n## Keys\n")[1]
    script = re.search(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]
    for row in examples("r_", "v_", "w_"):
        ended = subprocess.run(["sh", "-c", script + 'echo "$read $send"'], env={"all": row["r_"], "PATH": os.environ["PATH"]}, capture_output=True, text=True)
        assert ended.stdout == f"{row['v_']} {row['w_']}\n", ended.stderr
