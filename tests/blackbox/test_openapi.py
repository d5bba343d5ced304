"""docs/openapi.yaml and docs/schema.json describe the real server: its paths, methods and parameters, and each reply."""

import json
import re

import jsonschema
import pytest
import yaml

from keys import new_keys
from longline_server import REPOSITORY
from streams import Stream

API = yaml.safe_load((REPOSITORY / "docs/openapi.yaml").read_text("utf-8"))
SCHEMA = json.loads((REPOSITORY / "docs/schema.json").read_text("utf-8"))
PROTOCOL = (REPOSITORY / "docs/protocol.md").read_text("utf-8")
NDJSON = {"Content-Type": "application/x-ndjson"}
NOT_UTF8 = b"\xff\xfe\x00"


def strict(schema):
    """A schema that knows no other members: readers must ignore them, but we must document them."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if "properties" in schema and "additionalProperties" not in schema else {}
    return {**{key: strict(value) for key, value in schema.items()}, **more}


DEFS = strict(SCHEMA["$defs"])


def resolve(item):
    while "$ref" in item and item["$ref"].startswith("#/"):
        ref = item["$ref"]
        item = API
        for part in ref[2:].split("/"):
            item = item[part]
    return item


def check(instance, schema):
    """Checks an instance against a schema of openapi.yaml, or a name in schema.json."""
    schema = {"$ref": schema.removeprefix("schema.json")} if isinstance(schema, str) else schema
    if "$ref" in schema:
        schema = {"$ref": schema["$ref"].removeprefix("schema.json")}
    jsonschema.Draft202012Validator({**schema, "$defs": DEFS}).validate(instance)


def operations():
    for path, item in API["paths"].items():
        for method in item:
            if method != "parameters":
                yield method.upper(), path


def parameters_of(method, path):
    return {resolve(parameter)["name"] for parameter in API["paths"][path][method.lower()].get("parameters", [])}


def check_reply(reply, method, path):
    """Checks a reply against what the operation says of its status, type, headers and body."""
    responses = API["paths"][path][method.lower()]["responses"]
    status = str(reply.status)
    said = resolve(responses.get(status) or responses.get(status[0] + "XX") or responses["default"])
    assert status[0] == "2" or status == "503" or said is resolve(responses["default"])
    told = {name.lower() for name in said.get("headers", {})}
    counted = {name for name in map(str.lower, reply.headers) if name.startswith("x-") and name not in ("x-content-type-options",)}
    assert counted <= told, counted - told
    if reply.body:
        schema = said["content"][reply.headers["content-type"]]["schema"]
        is_json = "json" in reply.headers["content-type"]
        check(json.loads(reply.body) if is_json else reply.text, schema)


# --- The description itself ---


def refs(item):
    if isinstance(item, dict):
        yield from (value for key, value in item.items() if key == "$ref")
        for value in item.values():
            yield from refs(value)
    elif isinstance(item, list):
        for value in item:
            yield from refs(value)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name in (ref.removeprefix("#/$defs/").split("/")[0] for ref in refs(SCHEMA)):
        assert name in SCHEMA["$defs"]


def test_every_reference_leads_somewhere():
    found = set(refs(API))
    assert len(found) > 20
    for ref in found:
        file, _, name = ref.partition("#/")
        assert file in ("", "schema.json")
        assert (name.split("/")[1] in SCHEMA["$defs"]) if file else resolve({"$ref": ref})
    told = {ref.split("/")[-1] for ref in found if ref.startswith("schema.json")} | {"line"}
    assert told >= set(SCHEMA["$defs"]) - {"id", "time", "epoch", "update", "entry", "updates", "page"}


def test_every_operation_has_a_name_of_its_own():
    names = [names for method, path in operations() if (names := API["paths"][path][method.lower()].get("operationId"))]
    assert len(names) == len(set(names))


def test_the_version_is_the_servers(server):
    assert server.get("/-/health").json()["version"] == API["info"]["version"]


# --- Paths, methods, parameters ---


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("path", API["paths"])
def test_a_path_takes_these_methods(server, channel, path):
    target = path.replace("/{channel}", channel).replace("{path}", "v1/alerts")
    allowed = set(server.request("OPTIONS", target).headers["allow"].split(", "))
    assert {method for method, its in operations() if its == path} == allowed - {"HEAD", "OPTIONS"}


def test_the_parameters_are_those_of_the_protocol():
    poll = PROTOCOL.split("\n## Poll\n")[1].split("\n## ")[0]
    consumers = PROTOCOL.split("\n## Consumers\n")[1].split("\n## ")[0]
    reply = PROTOCOL.split("\n### The reply in the address\n")[1].split("\n### Duplicates")[0]
    rows = re.compile(r"^\| `([.\w]+)` \|", re.M)
    fields = {"ok", "ts", "epoch", "missed", "reset", "skipped", "updates"}
    told = set(rows.findall(poll.split("| field of the reply")[0])) | {"as", "confirm"}
    assert {"as", "confirm"} <= set(rows.findall(consumers))
    assert parameters_of("GET", "/{channel}") == told | {"Last-Event-ID"}
    assert set(rows.findall(poll.split("| field of the reply")[1].split("\n\n")[0])) == fields
    assert set(SCHEMA["$defs"]["poll"]["properties"]) == fields | {"lag"}
    assert parameters_of("POST", "/{channel}") == set(rows.findall(reply)) | {".once", ".key"}


def test_an_entry_has_the_fields_of_the_protocol():
    table = PROTOCOL.split("\n## view=full\n")[1].split("\n\n`at` goes")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(SCHEMA["$defs"]["entry"]["properties"]) - {"epoch"}


# --- Replies ---

PUSHES = [
    ("", b'{"n":1}', {}),
    ("", b"[1,2]", {"Content-Type": "application/json"}),
    ("?app=shop", b"From=x", {"Content-Type": "application/x-www-form-urlencoded"}),
    ("", NOT_UTF8, {"Content-Type": "image/png"}),
    ("", b'{"n":1}\n{"n":2}\n', NDJSON),
    ("?.reply=ok&.status=201", b"{}", {}),
    ("?.status=204", b"{}", {}),
    ("?.type=application/json&.reply={}", b"{}", {}),
    ("?.type=nonsense", b"{}", {}),
    ("?.once", b"{}", {"Idempotency-Key": "7"}),
    ("?.once", b"{}", {"Idempotency-Key": "7"}),
    ("", b'{"type":"url_verification","challenge":"x"}', {}),
    ("", b"", NDJSON),
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", [path for method, path in operations() if method == "PATCH"])
def test_replies_to_pushes(server, channel, method, path):
    target = path.replace("/{channel}", channel).replace("{path}", "v1/alerts")
    for query, body, headers in PUSHES:
        check_reply(server.request(method, target + query, body, headers), method, path)


def test_replies_to_a_push_by_get(server, channel):
    check_reply(server.get(channel + "/pushUpdates?a=1"), "GET", "/{channel}/pushUpdates")


POLLS = [
    "",
    "?ts=0&view=full",
    "?ts=1&epoch=",
    "?ts=2&limit=1&as=bot",
    "?as=bot&confirm=now",
    "?ts=99",
    "?ts=99&epoch=0123456789abcdef",
    "?ts=now",
    "?since=1h&where=body.n:1",
    "?where=body.n:nothing&ts=0&view=full",
    "?ts=abc",
    "?ts=1&since=1h",
]


def fill(server, channel):
    for query, body, headers in PUSHES:
        server.post(channel + query, body, headers)
    server.push(channel + "/v1?x=1", b'{"n":1}', {"Idempotency-Key": "8"})
    server.push(channel, b'{"n":1}', {"Idempotency-Key": "8"})


@pytest.mark.parametrize("path", ["/{channel}", "/{channel}/getUpdates"])
def test_replies_to_polls(server, channel, path):
    fill(server, channel)
    target = path.replace("/{channel}", channel)
    for query in POLLS:
        check_reply(server.get(target + query), "GET", path)
    entries = server.get(target + "?view=full").updates
    for entry in entries:
        check(entry, "#/$defs/entry")
    assert {"same_as", "path", "raw", "raw_base64"} <= set().union(*entries)


def test_replies_where_updates_are_missed(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=1)
    channel = server.channel()
    for _ in range(3):
        server.push(channel)
    reply = server.get(channel)
    assert reply.json()["missed"] == 2
    check_reply(reply, "GET", "/{channel}")


def test_replies_to_polls_of_many(server, channel):
    fill(server, channel)
    other = server.channel()
    for query, body in [("", {channel: 0, other: "now"}), ("?epoch=&view=full", {channel: 1}), ("?where=body.n:1", {channel: {"ts": 99}}), ("", {channel: "x"})]:
        check_reply(server.post("/-/poll" + query, json.dumps(body)), "POST", "/-/poll")


@pytest.mark.parametrize("query", ["", "&view=full", "&epoch=", "&where=body.n:1"])
def test_lines_of_a_stream(server, channel, query):
    fill(server, channel)
    newest = server.get(channel + "?ts=now").json()["ts"]
    with Stream(server, f"{channel}?feed=lines&ts=0{query}") as stream:
        while True:
            line = json.loads(stream.next())
            check(line, "#/$defs/line")
            if line["ts"] == newest:
                break


def test_the_other_replies(server, channel):
    fill(server, channel)
    everything, read, _ = new_keys()
    server.get(channel + "?as=bot")
    server.post(channel + "/getUpdates", b"{}")
    for method, target, path in [
        ("GET", channel + "/consumers", "/{channel}/consumers"),
        ("GET", channel + "/refused", "/{channel}/refused"),
        ("DELETE", channel + "?as=bot", "/{channel}"),
        ("DELETE", channel + "?upto=1", "/{channel}"),
        ("DELETE", channel + "?", "/{channel}"),
        ("DELETE", channel, "/{channel}"),
        ("POST", "/" + read, "/{channel}"),
        ("DELETE", "/" + read, "/{channel}"),
        ("GET", "/" + everything, "/{channel}"),
        ("GET", "/%zz", "/{channel}"),
        ("GET", "/-/health", "/-/health"),
        ("GET", "/-/metrics", "/-/metrics"),
    ]:
        check_reply(server.request(method, target), method, path)


def test_what_is_not_documented_is_noticed():
    for wrong in ({"ok": True, "ts": 1, "updates": [], "more": 1}, {"ok": True, "ts": -1, "updates": []}, {"ok": True, "ts": 1, "updates": [3]}):
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, "#/$defs/poll")
