"""POST: any request becomes an update, whatever its format."""

import base64
import json

import pytest

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
BINARY = {"Content-Type": "application/octet-stream"}


def stored_text(server, channel):
    """The newest update of the channel, byte for byte as in the reply."""
    body = server.get(f"{channel}?ts=-1").text
    start = body.index('"updates":[') + len('"updates":[')
    return body[start : body.rindex("]")]


def pushed(server, channel, body, headers=JSON, query=""):
    """Pushes and returns the stored update's text."""
    server.push(channel + query, body, headers)
    return stored_text(server, channel)


def test_a_push_is_answered_with_ok_and_its_id(server, channel):
    for expected_id in (1, 2, 3):
        reply = server.post(channel, "{}", JSON)
        assert (reply.status, reply.text, reply.total) == (200, "OK", expected_id)


def test_the_alias_push_updates_is_the_same_channel(server, channel):
    assert server.push(channel, '{"a":1}') == 1
    assert server.push(channel + "/pushUpdates?q=1", '{"a":2}') == 2
    assert server.get(channel).updates == [{"a": 1}, {"a": 2, "q": "1"}]


# --- JSON ---

VERBATIM = [
    '{"a": 1}',
    "[1,2]",
    "{}",
    "[]",
    '{"z":1.10,"id":12345678901234567890,"big":1e400,"neg":-0,"e":[],"n":null}',
    '{"id":4503599627370495,"chat":-1001234567890123,"over":9007199254740993}',
    r'{"t":"\u00e9\ud83d\ude00\/\"\\\b\f\n\r\t\u0000"}',
    '{"emoji":"😀👩‍👩‍👧 é ß 漢","key 漢":true}',
    '{"a":1,"a":2,"b":{"a":{"a":[[[[]]]]}}}',
    '{ "spaced" :\t[ 1 ,\r\n 2 ] ,\n "x" : { } }',
    '{"":"empty key"}',
    '{"html":"</script>&<b>"}',
]


@pytest.mark.parametrize("body", VERBATIM)
def test_json_is_stored_byte_for_byte(server, channel, body):
    assert pushed(server, channel, body) == body


@pytest.mark.parametrize("headers", [{}, FORM, TEXT, BINARY, {"Content-Type": "x"}, {"Content-Type": ""}])
def test_json_is_json_whatever_the_content_type_says(server, channel, headers):
    assert pushed(server, channel, '{"a": 1.0}', headers) == '{"a": 1.0}'
    assert pushed(server, channel, "[1, 2.0]", headers) == "[1, 2.0]"


SCALARS = {"number", "string", "true", "null"}
# Not UTF-8, and so read as windows-1252, or as their byte-order mark says.
DECODED = {
    "bare continuation byte": {"a": "€"},
    "overlong slash": {"a": "À¯"},
    "encoded surrogate": {"a": "í\xa0€"},
    "above U+10FFFF": {"a": "ô\x90€€"},
    "cut UTF-8 sequence": {"a": "â‚"},
    "Latin-1": {"a": "é"},
    "UTF-16": {"a": 1},
}
MALFORMED = {
    "text": b"not json",
    "number": b"5",
    "string": b'"x"',
    "true": b"true",
    "null": b"null",
    "cut off": b'{"a":1',
    "trailing comma": b'{"a":1,}',
    "trailing comma in array": b"[1,]",
    "second value": b'{"a":1}{"b":2}',
    "junk behind": b'{"a":1} x',
    "comment": b'{"a":1 /* no */}',
    "single quotes": b"{'a':1}",
    "bare key": b"{a:1}",
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "dot first": b'{"a":.5}',
    "dot last": b'{"a":1.}',
    "empty exponent": b'{"a":1e}',
    "hex": b'{"a":0x10}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":Infinity}',
    "bad escape": rb'{"a":"\x41"}',
    "short unicode escape": rb'{"a":"\u12"}',
    "raw newline in string": b'{"a":"\n"}',
    "raw NUL in string": b'{"a":"\x00"}',
    "NUL behind": b'{"a":1}\x00',
    "form feed between tokens": b'{"a":\x0c1}',
    "form feed in front": b'\x0c{"a":1}',
    "vertical tab between tokens": b'{"a":\x0b1}',
    "no-break space between tokens": b'{"a":\xc2\xa01}',
    "bare continuation byte": b'{"a":"\x80"}',
    "overlong slash": b'{"a":"\xc0\xaf"}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "above U+10FFFF": b'{"a":"\xf4\x90\x80\x80"}',
    "cut UTF-8 sequence": b'{"a":"\xe2\x82"}',
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "double BOM": b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}',
}


def test_strict_json_refuses_what_is_malformed_and_stores_nothing(serve):
    server = serve(STRICT_JSON="on")
    channel = server.channel()
    types = ["application/json", "", "application/json; charset=utf-8", "APPLICATION/JSON", "application/cloudevents+json"]
    for name, body in MALFORMED.items():
        for type_ in types:
            reply = server.post(channel, body, {"Content-Type": type_})
            assert reply.status == 400, (name, type_, reply)
            assert reply.json()["ok"] is False and reply.json()["error_code"] == 400
            assert not reply.closes
    for too_deep in ("[" * 201 + "]" * 201, '{"a":' * 200 + "{}" + "}" * 200, "[" * 200_000):
        assert server.post(channel, too_deep, JSON).status == 400
    assert server.get(channel).total == 0
    assert pushed(server, channel, '{"a":1}') == '{"a":1}'
    assert pushed(server, channel, "not json", TEXT) == '{"body":"not json"}'


@pytest.mark.parametrize("name", MALFORMED.keys())
@pytest.mark.parametrize("headers", [JSON, {}], ids=["json", "no type"])
def test_malformed_json_is_kept(server, channel, name, headers):
    body = MALFORMED[name]
    stored = json.loads(pushed(server, channel, body, headers))
    if name in DECODED:
        assert stored == DECODED[name]
    elif name in SCALARS:
        assert stored == {"body": json.loads(body)}
    else:
        assert stored == {"body": body.decode().removeprefix("\ufeff")}
    assert server.get(f"{channel}?ts=-1&view=full").updates[0].get("raw_base64", "") in ("", base64.b64encode(body).decode())


def test_nesting_is_taken_to_200_levels_and_deeper_is_text(server, channel):
    deep = "[" * 200 + "]" * 200
    assert pushed(server, channel, deep) == deep
    deep = '{"a":' * 199 + "{}" + "}" * 199
    assert pushed(server, channel, deep) == deep
    for headers in (JSON, {}, TEXT, FORM):
        for too_deep in ("[" * 201 + "]" * 201, '{"a":' * 200 + "{}" + "}" * 200, "[" * 200_000):
            assert json.loads(pushed(server, channel, too_deep, headers, "?q=1")) == {"body": too_deep, "q": "1"}


def test_a_byte_order_mark_before_json_is_dropped(server, channel):
    assert pushed(server, channel, b'\xef\xbb\xbf{"a":1}') == '{"a":1}'
    assert pushed(server, channel, b'\xef\xbb\xbf{"a":1}', query="?b=2") == '{"a":1,"b":"2"}'
    assert pushed(server, channel, b"\xef\xbb\xbf[1]", TEXT) == "[1]"


# --- other formats ---


@pytest.mark.parametrize("headers", [{}, JSON, FORM, TEXT, BINARY])
def test_an_empty_body_is_an_empty_object(server, channel, headers):
    assert pushed(server, channel, b"", headers) == "{}"


def test_a_post_without_any_length_has_an_empty_body(server, channel):
    with server.client() as client:
        client.send(b"POST %s?a=1 HTTP/1.1\r\nHost: x\r\n\r\n" % channel.encode())
        assert client.read_reply().text == "OK"
    assert stored_text(server, channel) == '{"a":"1"}'


FORMS = {
    "a=1&b=x+y%21": {"a": "1", "b": "x y!"},
    "a=": {"a": ""},
    "a": {"a": ""},
    "a=1&a=2": {"a": ["1", "2"]},
    "to[]=a&to[]=b&x=&to[]=c": {"to[]": ["a", "b", "c"], "x": ""},
    "a=b=c": {"a": "b=c"},
    "a%20b=%3D%26": {"a b": "=&"},
    "a[b]=1&a[]=2": {"a[b]": "1", "a[]": "2"},
    "&&a=1&&b=2&": {"a": "1", "b": "2"},
    "a=%": {"a": "%"},
    "a=%zz&b=%4": {"a": "%zz", "b": "%4"},
    "a=%C3%A9%F0%9F%98%80": {"a": "é😀"},
    "a=%ff": {"a": "ÿ"},
    "a=%00%0a%22%5c": {"a": '\x00\n"\\'},
    "Body=%7B%22a%22%3A1%7D": {"Body": '{"a":1}'},
}


@pytest.mark.parametrize("body", FORMS)
@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "Application/X-WWW-Form-URLEncoded; charset=UTF-8"])
def test_a_form_is_an_object_of_strings(server, channel, body, type_):
    assert json.loads(pushed(server, channel, body, {"Content-Type": type_})) == FORMS[body]


@pytest.mark.parametrize(
    "body", ["hello", "not json {", "5", "<a href=\"x\">é😀</a>", "line\r\nline\ttab\x00\x01\x1f\x7f", "\\u0041", "\ufeffmarked"]
)
@pytest.mark.parametrize("type_", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "garbage"])
def test_text_is_wrapped_in_body(server, channel, body, type_):
    stored = json.loads(pushed(server, channel, body, {"Content-Type": type_}))
    assert stored.keys() == {"body"}
    assert stored["body"].removeprefix("\ufeff") == body.removeprefix("\ufeff")


@pytest.mark.parametrize("length", [1, 2, 3, 4, 255, 256, 1000])
def test_bytes_are_wrapped_in_body_base64(server, channel, length):
    body = bytes(range(255, -1, -1)) * 4
    body = body[:length]
    stored = json.loads(pushed(server, channel, body, BINARY))
    assert stored == {"body_base64": base64.b64encode(body).decode()}


def test_the_identity_encoding_is_no_encoding(server, channel):
    assert pushed(server, channel, '{"a":1}', {**JSON, "Content-Encoding": "Identity"}) == '{"a":1}'


# --- merging the query ---

MERGES = [
    # body, query, stored
    ('{"a": "b"}', "?merge=me&n=2", '{"a": "b","merge":"me","n":"2"}'),
    ("{}", "?a=1", '{"a":"1"}'),
    ('{"id":1,"x":[1,{"y":null}]}', "?id=7", '{"id":"7","x":[1,{"y":null}]}'),
    ('{"x":1.10,"id":{"deep":[1,2]},"y":2}', "?id=7", '{"x":1.10,"id":"7","y":2}'),
    ('{ "id" : 1 , "x":[1, 2.50] }', "?id=7", '{ "id" : "7" , "x":[1, 2.50] }'),
    ('{"in":{"id":1},"id":2}', "?id=7", '{"in":{"id":1},"id":"7"}'),
    (r'{"\u0061":1}', "?a=2", r'{"\u0061":"2"}'),
    ('{"a":1}', "?b=1&c=2&b=3", '{"a":1,"b":["1","3"],"c":"2"}'),
    ('{"a":1}', "?", '{"a":1}'),
    ('{"a":1}', "?&&", '{"a":1}'),
    ('{"a":12345678901234567890}', "?src=tg", '{"a":12345678901234567890,"src":"tg"}'),
    ("[1, 2.0]", "?k=v", '{"body":[1, 2.0],"k":"v"}'),
    ("[]", "?body=v", '{"body":"v"}'),
]


@pytest.mark.parametrize("body,query,stored", MERGES)
def test_the_query_is_merged_and_all_other_bytes_stay(server, channel, body, query, stored):
    assert pushed(server, channel, body, query=query) == stored


MERGED_VALUES = [
    # body, headers, query, value
    ('{ "a" : 1 }', JSON, "?b=2", {"a": 1, "b": "2"}),
    ("{ \n }", JSON, "?b=2", {"b": "2"}),
    ('{"a":1,"a":2}', JSON, "?a=3", {"a": "3"}),
    ("", {}, "?i=server1&alive=1", {"i": "server1", "alive": "1"}),
    ("", JSON, "?c=%20x+y&d=1&d=2&e=", {"c": " x y", "d": ["1", "2"], "e": ""}),
    ("{}", JSON, "?flag", {"flag": ""}),
    ("{}", JSON, "?a=b=c", {"a": "b=c"}),
    ("{}", JSON, "?a=%22%5C%00%1f%7f", {"a": '"\\\x00\x1f\x7f'}),
    ("{}", JSON, "?%22k%22=%F0%9F%98%80", {'"k"': "😀"}),
    ("{}", JSON, "?a=%ff%fe&b=%C3", {"a": "ÿþ", "b": "Ã"}),
    ("{}", JSON, "?a=%&b=%zz&c=%4&d=100%25", {"a": "%", "b": "%zz", "c": "%4", "d": "100%"}),
    ("{}", JSON, "?ts=5&sleep=10&limit=1", {"ts": "5", "sleep": "10", "limit": "1"}),
    ("a=1&b=2", FORM, "?b=3&c=4", {"a": "1", "b": "3", "c": "4"}),
    ("hello", TEXT, "?k=v", {"body": "hello", "k": "v"}),
    ("hello", TEXT, "?body=v", {"body": "v"}),
    (b"\xff\x00", BINARY, "?k=v", {"body_base64": "/wA=", "k": "v"}),
]


@pytest.mark.parametrize("body,headers,query,value", MERGED_VALUES)
def test_the_query_is_merged_into_every_format(server, channel, body, headers, query, value):
    assert json.loads(pushed(server, channel, body, headers, query)) == value


def test_a_query_of_200_parameters(server, channel):
    query = "?" + "&".join(f"key{i}={i}" for i in range(200))
    body = "{" + ",".join(f'"key{i}":null' for i in range(0, 200, 3)) + ',"own":1.0}'
    stored = pushed(server, channel, body, query=query)
    assert json.loads(stored) == {"own": 1.0, **{f"key{i}": str(i) for i in range(200)}}
    assert '"own":1.0' in stored


def test_a_merged_update_of_an_alias(server, channel):
    server.push(channel + "/pushUpdates?x=1", "{}")
    assert stored_text(server, channel) == '{"x":"1"}'


# --- sizes ---


def test_a_body_of_exactly_max_body_is_taken_and_one_byte_more_is_413(serve):
    server = serve(MAX_BODY=1000)
    channel = server.channel()
    body = json.dumps({"a": "x" * 991})
    assert len(body) == 1000
    assert pushed(server, channel, body) == body
    reply = server.post(channel, body + " ", JSON)
    assert reply.status == 413 and reply.json()["error_code"] == 413 and reply.closes
    assert server.get(channel).total == 1


def test_a_chunked_body_over_max_body_is_413(serve):
    server = serve(MAX_BODY=1000)
    channel = server.channel()
    with server.client() as client:
        client.send(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % channel.encode())
        client.send(b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n")
        reply = client.read_reply()
        assert reply.status == 413 and reply.closes
        assert client.read_to_end() == b""
    assert server.get(channel).total == 0


def test_a_body_of_32_mebibytes_by_default(serve):
    server = serve(REDIS_TIMEOUT=30000)  # of Redis it may take longer on a busy machine
    channel = server.channel()
    frame = len('{"a":""}')
    body = '{"a":"' + "x" * ((32 << 20) - frame) + '"}'
    assert len(body) == 32 << 20
    assert server.post(channel, body + " ").status == 413
    assert pushed(server, channel, body) == body


def test_a_client_that_sends_all_of_a_refused_body_still_reads_its_413(server, channel):
    """A reset would discard the answer before the client reads it."""
    reply = server.post(channel, b"x" * (33 << 20), TEXT)
    assert reply.status == 413
