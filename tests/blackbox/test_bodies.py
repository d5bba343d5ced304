"""What real services send, taken whole: compressed, in another charset, broken, with raw UTF-8 in the address."""

import base64
import gzip
import json
import shutil
import subprocess
import zlib

import pytest

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MIB = 1 << 20


def newest(server, channel):
    return server.get(f"{channel}?ts=-1&view=full").updates[0]


def pushed(server, channel, body, headers, query=""):
    """Pushes and returns the newest update, as it is delivered."""
    server.push(channel + query, body, headers)
    return server.get(f"{channel}?ts=-1").updates[0]


def bare_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


# --- Content-Encoding ---

CODINGS = {
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    " Deflate , utf-8": bare_deflate,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "deflate, gzip": lambda body: gzip.compress(zlib.compress(body)),
}


def test_what_came_is_not_kept_if_its_plain_bytes_would_cost_too_much(server, channel):
    """Of the blanks nothing is in the update: who reads the request must not inflate a hundred such."""
    form = b"--x" + b" " * 30 * MIB + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--'
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
    assert pushed(server, channel, gzip.compress(form), headers) == {"a": "1"}
    full = newest(server, channel)
    assert full["raw"] == form.decode() and "coded_base64" not in full


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_is_inflated(server, channel, coding):
    body = b'{"a": 1.10, "text": "' + b"x" * 1000 + b'"}'
    headers = {**JSON, "Content-Encoding": coding}
    coded = CODINGS[coding](body)
    server.push(channel, coded, headers)
    assert body in server.get(f"{channel}?ts=-1").body
    full = newest(server, channel)
    assert full["body"] == json.loads(body)
    assert full["raw"] == body.decode() and "raw_base64" not in full
    assert base64.b64decode(full["coded_base64"]) == coded, "what a signature may be over"
    assert full["headers"]["content-encoding"] == coding.strip()
    assert pushed(server, channel, CODINGS[coding](b"a=1&a=2"), {**FORM, "Content-Encoding": coding}, "?q=1") == {
        "a": ["1", "2"],
        "q": "1",
    }


@pytest.mark.parametrize("coding", ["UTF-8", "none", "identity", "", "nonsense"])
def test_what_is_no_coding_is_ignored(server, channel, coding):
    assert pushed(server, channel, b'{"a":1}', {**JSON, "Content-Encoding": coding}) == {"a": 1}


def test_bytes_that_cannot_be_inflated_are_kept(server, channel):
    whole = gzip.compress(b'{"a":1}')
    for coding, body in [
        ("br", b"\x0b\x03\x80{}\x03"),
        ("zstd", b'{"a":1}'),
        ("gzip", whole[:-9]),
        ("gzip", whole + b"junk"),
        ("gzip", b'{"a":1}'),
        ("deflate", b"\xff\xff"),
        ("gzip, br", whole),
        ("gzip, gzip, gzip", whole),
    ]:
        update = pushed(server, channel, body, {**JSON, "Content-Encoding": coding}, "?q=1")
        assert update == {"body_base64": base64.b64encode(body).decode(), "q": "1"}, coding


@pytest.mark.providers("sqlite")
def test_a_bomb_is_413_and_stores_nothing(serve):
    server = serve(MAX_BODY=MIB)
    channel = server.channel()
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(100)) + packer.flush()
    for coding, body in [("gzip", bomb), ("gzip, gzip", gzip.compress(bomb))]:
        reply = server.post(channel, body, {**JSON, "Content-Encoding": coding})
        assert reply.status == 413 and reply.json()["error_code"] == 413
    fits, too_long = b"[" + b" " * (MIB - 2) + b"]", b"[" + b" " * (MIB - 1) + b"]"
    assert server.post(channel, gzip.compress(too_long), {**JSON, "Content-Encoding": "gzip"}).status == 413
    assert server.get(channel).total == 0
    assert pushed(server, channel, gzip.compress(fits), {**JSON, "Content-Encoding": "gzip"}) == []


# --- not JSON ---


@pytest.mark.parametrize(
    "body,update",
    [
        ("{bad", {"body": "{bad"}),
        ('"ping"', {"body": "ping"}),
        ("null", {"body": None}),
        ("NaN", {"body": "NaN"}),
        ("5", {"body": 5}),
        ("a=b&c=d", {"body": "a=b&c=d"}),
        ("temp=22.5", {"body": "temp=22.5"}),
    ],
)
@pytest.mark.parametrize("headers", [JSON, {}], ids=["json", "no type"])
def test_what_is_not_json_is_kept(server, channel, body, update, headers):
    assert pushed(server, channel, body, headers) == update
    assert pushed(server, channel, body, headers, "?q=1") == {**update, "q": "1"}
    assert newest(server, channel)["raw"] == body


# --- charsets ---


@pytest.mark.parametrize(
    "type_,encoding",
    [
        ("application/json", "latin-1"),
        ("", "cp1252"),
        ("application/json; charset=iso-8859-15", "iso-8859-15"),
        ('application/json; charset="windows-1252"', "cp1252"),
        ("application/json", "utf-16"),
        ("application/json", "utf-32"),
        ("application/json; charset=utf-16be", "utf-16-be"),
        ("text/plain; charset=gb18030", "gb18030"),
    ],
)
def test_json_in_another_charset_is_decoded(server, channel, type_, encoding):
    body = '{"n":"René"}'.encode(encoding)
    assert pushed(server, channel, body, {"Content-Type": type_}) == {"n": "René"}
    assert base64.b64decode(newest(server, channel)["raw_base64"]) == body
    assert pushed(server, channel, body, {"Content-Type": type_}, "?q=1") == {"n": "René", "q": "1"}


def test_text_and_forms_in_another_charset_are_decoded(server, channel):
    for type_, body, update in [
        ("application/x-www-form-urlencoded; charset=windows-1252", b"first_name=Ren%E9", {"first_name": "René"}),
        ("application/x-www-form-urlencoded", b"first_name=Ren%E9&x=\xe9", {"first_name": "René", "x": "é"}),
        ("application/x-www-form-urlencoded; charset=windows-1251", b"n=%CF", {"n": "П"}),
        ("application/x-www-form-urlencoded; charset=windows-1252", b"n=%C3%A9", {"n": "é"}),
        ("text/plain", b"caf\xe9 \x80", {"body": "café €"}),
        ("text/plain; charset=koi8-r", "Привет".encode("koi8-r"), {"body": "Привет"}),
        ("text/plain; charset=no-such/../charset", b"\xe9", {"body": "é"}),
        ("application/octet-stream", b"\xe9", {"body_base64": "6Q=="}),
        ("text/plain", b"\xe9\x00", {"body_base64": "6QA="}),
    ]:
        assert pushed(server, channel, body, {"Content-Type": type_}) == update, type_


# --- what jq 1.6 and others cannot read ---


def test_half_surrogates_are_mended_and_raw_is_exact(server, channel):
    half = r'{"text":"party \ud83c"}'
    server.push(channel, half, JSON)
    server.push(channel, '{"good":1}', JSON)
    server.push(channel + "?q=1", r'["\udf89\ud83c\udf89"]', JSON)
    server.push(channel, "[" * 300 + "]" * 300, JSON)
    page = server.get(channel)
    assert page.updates == [
        {"text": "party \ufffd"},
        {"good": 1},
        {"body": ["\ufffd🎉"], "q": "1"},
        {"body": "[" * 300 + "]" * 300},
    ]
    full = server.get(f"{channel}?view=full")
    assert full.updates[0]["raw"] == half
    assert full.updates[0]["body"] == {"text": "party \ufffd"}
    if shutil.which("jq"):
        done = subprocess.run(["jq", "-c", ".updates[1]"], input=page.body, capture_output=True)
        assert (done.returncode, done.stdout) == (0, b'{"good":1}\n')


def test_the_replies_of_halves_have_no_half(server, channel):
    server.push(channel, r'{"\ud83c":"\udf89","\ud83c\udf89":"\\ud83c"}', JSON)
    assert rb'{"\ufffd":"\ufffd","\ud83c\udf89":"\\ud83c"}' in server.get(channel).body


# --- addresses ---


def test_raw_utf8_in_an_address_is_taken(server, channel):
    with server.client() as client:
        target = f"{channel}?text=Привет&latin=".encode() + b"Ren\xe9"
        client.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % target)
        assert client.read_reply().status == 200
        for cut in range(1, len(target) + 5, 7):
            request = b"POST %s HTTP/1.1\r\nHost: x\r\n\r\n" % target
            client.send(request[:cut])
            client.send(request[cut:])
            assert client.read_reply().status == 200
    assert all(update == {"text": "Привет", "latin": "René"} for update in server.get(channel).updates)
    name = f"{channel}é漢"
    with server.client() as client:
        client.send(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}" % name.encode())
        assert client.read_reply().status == 200
    assert server.get(f"{channel}%C3%A9%E6%BC%A2").updates == [{"a": 1}]
    assert newest(server, f"{channel}%C3%A9%E6%BC%A2")["body"] == {"a": 1}


# --- sizes ---


def test_a_form_of_very_many_fields_is_kept_as_text(server, channel):
    body = "&".join(f"k{i}={i}" for i in range(60_000))
    assert pushed(server, channel, body, FORM) == {f"k{i}": str(i) for i in range(60_000)}
    body = "a&" * 70_000
    assert pushed(server, channel, body, FORM) == {"body": body}
