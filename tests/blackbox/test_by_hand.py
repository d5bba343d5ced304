"""What people try by hand, with curl, gzip and jq: each of these lost something once."""

import base64
import json
import subprocess
import time

import pytest

from longline_server import SLOW

MIB = 1 << 20
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def by_hand(server, channel, tmp_path):
    return ByHand(server, channel, tmp_path)


class ByHand:
    """A shell that knows the channel's address as $U."""

    def __init__(self, server, channel, directory):
        self.server, self.channel, self.directory = server, channel, directory
        self.variables = {"U": server.url(channel), "HOST": server.url(""), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

    def run(self, command):
        """Runs the command with `curl` silent, and returns what it writes."""
        done = subprocess.run(["bash", "-c", f'curl() {{ command curl -sS "$@"; }}; {command}'], cwd=self.directory, env=self.variables, capture_output=True, check=True)
        return done.stdout.decode()

    def push(self, command):
        """A push that must succeed. Returns the update, as jq reads it, and its full view."""
        assert self.run(command) == "OK"
        page = self.run('curl "$U?ts=-1&view=full" | jq -c ".updates[]"')
        full = json.loads(page)
        return full["body"], full

    def updates(self):
        return [json.loads(line) for line in self.run('curl "$U" | jq -c ".updates[]"').splitlines()]


# --- Methods and addresses ---


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_other_methods(by_hand, method):
    update, full = by_hand.push(f"""curl -X {method} -d '{{"a":1}}' "$U" """)
    assert (update, full["method"]) == ({"a": 1}, method)


def test_addresses(by_hand):
    for behind, path in [("/", None), ("//", None), ("/v1/alerts", "/v1/alerts")]:
        update, full = by_hand.push(f"""curl -d '{{"a":1}}' "$U{behind}" """)
        assert (update, full.get("path")) == ({"a": 1}, path)
    assert by_hand.push(f"""curl -d '{{"a":1}}' "$HOST/{by_hand.channel}" """)[0] == {"a": 1}
    assert by_hand.run("""curl "$U/pushUpdates?door=open" """) == "OK"
    assert by_hand.updates()[-1] == {"door": "open"}


def test_raw_utf8_in_the_address(by_hand):
    assert by_hand.push("""curl -d '' "$U?text=Привет" """)[0] == {"text": "Привет"}


# --- Sizes and codings ---


@pytest.mark.providers("sqlite")
def test_25_megabytes(serve, tmp_path):
    server = serve(REDIS_TIMEOUT=30000)  # of Redis it may take longer on a busy machine
    by_hand = ByHand(server, server.channel(), tmp_path)
    items = [{"n": n, "text": "é" * 200, "is": None} for n in range(60_000)]
    body = json.dumps(items, ensure_ascii=False).encode()
    body += b" " * (25_000_000 - len(body))
    (tmp_path / "body.json").write_bytes(body)
    assert by_hand.run("""curl -H 'Content-Type: application/json' --data-binary @body.json "$U" """) == "OK"
    assert by_hand.run("""curl -o reply "$U" """) == ""
    assert (tmp_path / "reply").read_bytes() == b'{"ok":true,"ts":1,"updates":[' + body + b"]}"
    assert by_hand.run("jq '.updates[0] | length' reply") == "60000\n"
    by_hand.run("""curl "$U?view=full" | jq -j '.updates[0].raw' >raw""")
    assert (tmp_path / "raw").read_bytes() == body


def test_gzip(by_hand):
    update, full = by_hand.push("""echo '{"a":1}' | gzip | curl -H 'Content-Encoding: gzip' --data-binary @- "$U" """)
    assert update == {"a": 1}
    assert full.get("raw", '{"a":1}\n') == '{"a":1}\n'


def test_what_is_no_coding_or_an_unknown_one(by_hand):
    assert by_hand.push("""curl -H 'Content-Encoding: UTF-8' -d '{"a":1}' "$U" """)[0] == {"a": 1}
    update, full = by_hand.push(r"""printf '\x8b\x03\x80' | curl -H 'Content-Encoding: br' --data-binary @- "$U" """)
    assert update == {"body_base64": "iwOA"} and full["raw_base64"] == "iwOA"


@pytest.mark.providers("memory")
def test_a_bomb_is_refused_cheaply(serve, tmp_path):
    """A gigabyte of zeros, also as a batch and in two layers: neither stored nor inflated whole."""
    server = serve(LOG_LEVEL="info")
    by_hand = ByHand(server, server.channel(), tmp_path)
    by_hand.run("head -c 1G /dev/zero | gzip -1 >bomb; gzip -1 <bomb >twice")
    before = server.rss_bytes()
    begin = time.monotonic()
    for coding, file, type_ in [("gzip", "bomb", "application/json"), ("gzip, gzip", "twice", "text/plain"), ("gzip", "bomb", "application/x-ndjson")]:
        reply = by_hand.run(f"""curl -H 'Content-Encoding: {coding}' -H 'Content-Type: {type_}' --data-binary @{file} "$U" """)
        assert json.loads(reply)["error_description"] == "The body is larger than MAX_BODY"
    took = time.monotonic() - begin
    peak = int(next(line.split()[1] for line in open(f"/proc/{server.pid}/status") if line.startswith("VmHWM"))) * 1024
    assert server.get(by_hand.channel).total == 0
    server.wait_for_metric("longline_buffer_bytes", 0)
    if not SLOW:
        assert took < 5, f"{took:.1f} s"
        assert peak - before < 80 * MIB, f"{(peak - before) / MIB:.0f} MiB"


# --- What is not JSON, or not UTF-8 ---


@pytest.mark.parametrize(
    "type_, body, update",
    [
        ("application/json", "{bad", {"body": "{bad"}),
        ("application/json", '"ping"', {"body": "ping"}),
        ("application/json", "null", {"body": None}),
        ("application/json", "NaN", {"body": "NaN"}),
        ("application/json", "a=1&b=2", {"body": "a=1&b=2"}),
        ("", "temp=22.5", {"body": "temp=22.5"}),
    ],
)
def test_what_is_no_json(by_hand, type_, body, update):
    got, full = by_hand.push(f"""curl -H 'Content-Type: {type_}' -d '{body}' "$U" """.replace("Type: '", "Type:'"))
    assert (got, full["raw"]) == (update, body)


def test_latin_1(by_hand):
    body = r"""printf '{"n":"Ren\xe9"}' | curl -H 'Content-Type: application/json' --data-binary @- "$U" """
    update, full = by_hand.push(body)
    assert (update, base64.b64decode(full["raw_base64"])) == ({"n": "René"}, b'{"n":"Ren\xe9"}')
    form = """curl -H 'Content-Type: application/x-www-form-urlencoded; charset=windows-1252' -d 'first_name=Ren%E9' "$U" """
    assert by_hand.push(form)[0] == {"first_name": "René"}


def test_a_repeated_name(by_hand):
    assert by_hand.push("""curl -d 'to[]=a&to[]=b&to[]=c' "$U" """)[0] == {"to[]": ["a", "b", "c"]}
    assert by_hand.push("""curl -g -d '{"a":1}' "$U?to[]=a&to[]=b" """)[0] == {"a": 1, "to[]": ["a", "b"]}


def test_a_picture_without_its_type(by_hand):
    """curl says that --data-binary is a form."""
    (by_hand.directory / "a.png").write_bytes(PICTURE)
    assert by_hand.push("""curl --data-binary @a.png "$U" """)[0] == {"body_base64": base64.b64encode(PICTURE).decode()}


def test_a_field_and_a_picture(by_hand):
    (by_hand.directory / "a.png").write_bytes(PICTURE)
    assert by_hand.push("""curl -F 'name=René' -F 'photo=@a.png' "$U" """)[0] == {
        "name": "René",
        "photo": {"filename": "a.png", "content_type": "image/png", "size": len(PICTURE), "body_base64": base64.b64encode(PICTURE).decode()},
    }


# --- What jq 1.6 refuses ---


def test_half_a_surrogate_pair_does_not_spoil_the_page(by_hand):
    half = r'{"text":"party \ud83c"}'
    assert by_hand.push(f"""curl -d '{half}' "$U" """)[1]["raw"] == half
    for n in (1, 2):
        by_hand.push(f"""curl -d '{{"good":{n}}}' "$U" """)
    assert by_hand.updates() == [{"text": "party \ufffd"}, {"good": 1}, {"good": 2}]


def test_300_levels_do_not_spoil_the_page(by_hand):
    deep = "[" * 300 + "]" * 300
    by_hand.push(f"""curl -H 'Content-Type: application/json' -d '{deep}' "$U" """)
    deepest = "[" * 200 + "]" * 200
    by_hand.push(f"""curl -H 'Content-Type: application/json' -d '{deepest}' "$U?a=1" """)
    assert by_hand.updates() == [{"body": deep}, {"body": json.loads(deepest), "a": "1"}]


# --- What senders want to hear ---


@pytest.mark.parametrize(
    "command, answer",
    [
        ("""curl -d '{"type":"url_verification","challenge":"c0ffee"}' "$U" """, "c0ffee"),
        ("""curl "$U?hub.mode=subscribe&hub.challenge=115820" """, "115820"),
        ("""curl "$U?challenge=xyz" """, "xyz"),
        ("""curl -d '' "$U?validationToken=abc%20def" """, "abc def"),
        ("""curl -d '{"type":"message_new"}' "$U?.reply=ok" """, "ok"),
        ("""curl -w '%{http_code}' -d 'From=%2B1&Body=hi' "$U?.status=204" """, "204"),
    ],
)
def test_the_answer_is_the_senders(by_hand, command, answer):
    assert by_hand.run(command) == answer
    assert len(by_hand.updates()) == 1
    assert not any(name.startswith(".") for name in by_hand.updates()[0])


def test_consent(by_hand):
    head = by_hand.run("""curl -i -X OPTIONS -H 'WebHook-Request-Origin: ev.example' "$U" """)
    assert "WebHook-Allowed-Origin: ev.example" in head


def test_a_refused_push_is_seen(serve, tmp_path):
    server = serve(LOG_LEVEL="info", STRICT_JSON="on")
    by_hand = ByHand(server, server.channel(), tmp_path)
    assert json.loads(by_hand.run("""curl -H 'Content-Type: application/json' -d '{bad' "$U" """))["error_code"] == 400
    line = next(line for line in server.log().splitlines() if "push refused" in line)
    assert "reason=json" in line and "channel=" in line and by_hand.channel[1:] not in line
    assert server.metric('longline_pushes_refused_total{reason="json"}') == 1
