"""Requests that two programs in a row may read differently: what a proxy takes for one, and longline might take for two.

The ideas are those of the public collections (the HTTP Garden's list of bugs, the tests of llhttp, gunicorn and h1spec, smuggler's mutations,
and the kinds CL.TE, TE.CL, TE.0, 0.CL), in words of our own. Each vector hides a push to /smuggled where it can.
"""

import os
import re

from longline_server import REPOSITORY
from reverse_proxy import NAME

HOST = b"Host: " + NAME.encode()
HIDDEN = b"POST /smuggled HTTP/1.1\r\n%s\r\nContent-Length: 2\r\n\r\n{}" % HOST
END = b"0\r\n\r\n"


def request(*fields, body=b"", line=b"POST /vector HTTP/1.1", host=HOST):
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def length(data):
    return b"Content-Length: %d" % len(data)


# --- codings ---

TE = b"Transfer-Encoding"
CODINGS = [
    TE + b": " + value
    for value in (
        b"chunked",
        b"xchunked",
        b"chunkedx",
        b"chunkedchunked",
        b"chunk",
        b"Chunked",
        b"CHUNKED",
        b"identity",
        b"chunked, identity",
        b"identity, chunked",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, chunked",
        b"cow chunked bar",
        b",chunked",
        b"chunked,",
        b", ,chunked",
        b"chunked;q=1",
        b"chunked; a=b",
        b'"chunked"',
        b"'chunked'",
        b"(comment) chunked",
        b"",
        b" \t chunked \t ",
        b"\tchunked",
        b"chunked\t",
        b"\x0bchunked",
        b"\x0cchunked",
        b"chunked\x0b",
        b"chunked\x0c",
        b"\x00chunked",
        b"chunked\x00",
        b"chunked\x00x",
        b"\xa0chunked",
        b"\x85chunked\x85",
        b"\xffchunked\xff",
        b"ch\x96nked",
        b"c\xc5\xabunked",
        b"chunked\r",
        b"\rchunked",
        b"\nchunked",
        b"\n chunked",
        b"\r\n chunked",
        b"\r\n\tchunked",
        b"\r\n \r\n chunked",
        b"chunked\r\n abc",
        b"x\r\n chunked",
        b"\\chunked",
        b"chunked#",
        b"%63hunked",
        b"0",
        b"trailers",
    )
]
CODINGS += [
    b"transfer-encoding:chunked",
    b"TRANSFER-ENCODING: CHUNKED",
    TE + b" : chunked",
    TE + b"\t: chunked",
    TE + b"\x0b: chunked",
    TE + b"\x00: chunked",
    TE + b"\r: chunked",
    TE + b"\x85: chunked",
    TE + b"\r\n : chunked",
    TE + b" chunked",
    TE + b"; chunked",
    b" " + TE + b": chunked",
    b"\t" + TE + b": chunked",
    b"\x00" + TE + b": chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer Encoding: chunked",
    b"Transfer\r-Encoding: chunked",
    b"Transfer-\r\nEncoding: chunked",
    b"Transf\x82r-Encoding: chunked",
    b"TE: chunked",
    b"Content-Encoding: chunked",
    b"X: x\r" + TE + b": chunked",
    b"X: x\n" + TE + b": chunked",
    b"X: x\r\r\n" + TE + b": chunked",
    b"X:\r" + TE + b": chunked",
    b"X:\n" + TE + b": chunked",
    b"X: x\r\n " + TE + b": chunked",
    b"X: x\x00" + TE + b": chunked",
    b": x\r\n" + TE + b": chunked",
    b"x\r\n" + TE + b": chunked",
    TE + b": chunked\r\n" + TE + b": chunked",
    TE + b": chunked\r\n" + TE + b": identity",
    TE + b": identity\r\n" + TE + b": chunked",
    TE + b": cow\r\n" + TE + b": chunked",
    TE + b": chunked\r\n" + TE + b": cow",
    TE + b": \r\n" + TE + b": chunked",
    TE + b": chunked\r\nTransfer_Encoding: gzip",
    b"Connection: " + TE + b"\r\n" + TE + b": chunked",
    b"Connection: close, " + TE + b"\r\n" + TE + b": chunked",
    b"Connection: Content-Length\r\n" + TE + b": chunked",
]


def every_byte():
    """A coding with each byte that a parser may skip, in each place."""
    for byte in [*range(0x20), *range(0x7F, 0x100)]:
        one = bytes([byte])
        yield from (TE + b":" + one + b"chunked", TE + one + b": chunked", one + TE + b": chunked", TE + b": chunked" + one)


def codings():
    for i, coding in enumerate(CODINGS + (list(every_byte()) if os.environ.get("SMUGGLING") == "all" else [])):
        name = f"coding-{i}"
        # By the length one request, by the coding two; and the other way round; and by the coding alone.
        yield f"{name}-cl-te", request(coding, length(END + HIDDEN), body=END + HIDDEN)
        yield f"{name}-te-cl", request(length(b"xx\r\n"), coding, body=chunk(HIDDEN) + END)
        yield f"{name}-te-0", request(coding, body=chunk(HIDDEN) + END)


# --- lengths ---

LENGTHS = [
    b"Content-Length: " + value
    for value in (
        b"",
        b" ",
        b"+%d",
        b"-%d",
        b"-0",
        b"00%d",
        b"0x%x",
        b"%d.0",
        b"%de0",
        b"%d_0",
        b"%d 0",
        b"0 %d",
        b"%d,",
        b",%d",
        b"%d, %d",
        b"0, %d",
        b"%d, 0",
        b'"%d"',
        b"%d;",
        b"%dx",
        b"%d\x00",
        b"\x0b%d",
        b"%d\x0c",
        b"\xa0%d",
        b"\xef\xbc\x91",
        b"%d\r",
        b"\r\n %d",
        b"%d\r\n 0",
        b"18446744073709551616",
        b"1844674407370955161%d",
        b"9223372036854775808",
        b"4294967296",
        b"1000000000000000000000",
    )
] + [
    b"Content-Length : %d",
    b"Content-Length\t: %d",
    b"Content-Length\x00: %d",
    b"Content-Length\x85: %d",
    b"Content-Length %d",
    b"Content_Length: %d",
    b"Content Length: %d",
    b"Content\rLength: %d",
    b" Content-Length: %d",
    b"\x00Content-Length: %d",
    b"X: x\n Content-Length: %d",
    b"X: x\r\n Content-Length: %d",
    b"X: x\rContent-Length: %d",
    b"X: x\nContent-Length: %d",
    b":\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length: \r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length:",
    b"Content-Length: %d\r\ncontent-length: +%d",
    b"Connection: Content-Length\r\nContent-Length: %d",
]


def lengths():
    for i, form in enumerate(LENGTHS):
        size = len(HIDDEN)
        field = re.sub(rb"%([dx])", lambda match, size=size: b"%x" % size if match[1] == b"x" else b"%d" % size, form)
        for method in (b"POST", b"GET"):
            yield f"length-{i}-{method.decode().lower()}", request(field, body=HIDDEN, line=method + b" /vector HTTP/1.1")


# --- chunks ---

SIZE_LINES = (
    b"",
    b" 2",
    b"2 ",
    b"\t2",
    b"2\t",
    b"02",
    b"00000000000000000002",
    b"0x2",
    b"0X2",
    b"+2",
    b"-2",
    b"-0",
    b"2_0",
    b"2h",
    b"2 x",
    b"2,",
    b'"2"',
    b"\x0b2",
    b"2\x00",
    b"2\x85",
    b"2\r",
    b"2\n",
    b"2;",
    b"2 ;",
    b"2; ",
    b"2;a",
    b"2;a=",
    b"2;=b",
    b"2;a=b",
    b"2;a = b",
    b"2;a;b",
    b"2;;a",
    b'2;a="b"',
    b'2;a="b',
    b'2;a="b\\"',
    b'2;a="\r\n"',
    b'2;a="\n"',
    b"2;a\x00b",
    b"2;a\x7f",
    b"2;a\xff",
    b"2;\r",
    b"2;\rx",
    b"2\r;x",
    b"2\r\r;xx",
    b"2;\n",
    b"2;\nxx",
    b"2;a\nxx",
    b"2\n;xx",
    b"2;a=b\rx",
    b"10000000000000002",
    b"ffffffffffffffff",
    b"fffffffffffffffe",
    b"7fffffffffffffff",
    b"8000000000000000",
    b"100000002",
    b"f" * 400,
    b"0" * 5000 + b"2",
    b"2;" + b"a" * 20000,
)

# What a whole chunked body may look like; behind each comes a hidden request.
BODIES = (
    b"2\r\n{}\r\n0\r\n",
    b"2\r\n{}\n0\r\n\r\n",
    b"2\n{}\n0\n\n",
    b"2\r\n{}0\r\n\r\n",
    b"2\r\n{}xx0\r\n\r\n",
    b"2\r\n{}\r\r0\r\n\r\n",
    b"2\r\n{}\n\n0\r\n\r\n",
    b"2\r\n{}\r\n\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\n\n",
    b"2\r\n{}\r\n0\r\n\rX",
    b"2\r\n{}\r\n0\r\nXX",
    b"2\r\n{}\r\n0\n\r\n",
    b"2\r\n{}\r\n0\r\r\n\r\n",
    b"2\r\n{}\r\n0\x00\r\n\r\n",
    b"2\r\n{}\r\n000\r\n\r\n",
    b"2\r\n{}\r\n0;a=b\r\n\r\n",
    b"2\r\n{}\r\n0;a\n\r\n\r\n",
    b"2\r\n{}\r\n0 \r\n\r\n",
    b"2\r\n{}\r\n-0\r\n\r\n",
    b"2\r\n{}\r\n0x0\r\n\r\n",
    b"2\r\n{}\r\n0\r\n\r\n0\r\n\r\n",
    b"3\r\n{}\r\n0\r\n\r\n",
    b"1\r\n{}\r\n0\r\n\r\n",
    b"\r\n2\r\n{}\r\n0\r\n\r\n",
    b"not chunked\r\n\r\n",
    b"\r\n\r\n",
)

TRAILERS = (
    b"X: y",
    b"Content-Length: %d" % len(HIDDEN),
    b"Transfer-Encoding: chunked",
    b"Host: evil.example.com",
    b"Connection: close",
    b"X : y",
    b" X: y",
    b"X: y\r\n z",
    b"X",
    b": y",
    b"X: y\nContent-Length: 5",
    b"X: y\rContent-Length: 5",
    b"X: \x00",
    b"X: y\n",
    b"POST /smuggled HTTP/1.1",
    b"\rX: y",
    b"\nX: y",
)


def chunks():
    coding = TE + b": chunked"
    for i, line in enumerate(SIZE_LINES):
        yield f"size-{i}", request(coding, body=line + b"\r\n{}\r\n" + END + HIDDEN)
        yield f"size-of-the-last-{i}", request(coding, body=b"2\r\n{}\r\n" + line.replace(b"2", b"0") + b"\r\n\r\n" + HIDDEN)
    # A size that one reads to its end, and another to its first wrong byte.
    for i, line in enumerate((b"0_%x", b"0x%x", b"0 %x", b"0;%x", b"0\r%x", b"0\n%x", b"0,%x")):
        yield f"size-read-twice-{i}", request(coding, body=line % (len(HIDDEN) + 7) + b"\r\n\r\n" + HIDDEN + b"\r\n" + END)
    for i, body in enumerate(BODIES):
        yield f"body-{i}", request(coding, body=body + HIDDEN)
    for i, trailer in enumerate(TRAILERS):
        yield f"trailer-{i}", request(coding, b"Trailer: X", body=b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n\r\n" + HIDDEN)


# --- heads ---

FIELDS = (
    b"X: a\nb: c",
    b"X: a\rb: c",
    b"X: a\x00b",
    b"X: a\x07b",
    b"X: a\x7fb",
    b"X: \xff",
    b"X: a\r\n b",
    b"X: a\r\n\tb",
    b"X:\r\n a",
    b"X : a",
    b" X: a",
    b"X\x00: a",
    b"X\xe9: a",
    b"X@: a",
    b'"X": a',
    b"X\r\n : a",
    b": a",
    b":",
    b"X",
    b"X a",
    b"Host: evil.example.com",
    HOST,
    b"Host:",
    b"Host : evil.example.com",
    b"Connection: close, X-Forwarded-For, Host, X-Saw",
    b"Connection: keep-alive, Content-Length",
    b"Keep-Alive: timeout=0",
    b"Proxy-Connection: keep-alive",
    b"Expect: 100-continue",
    b"Expect: 100-Continue, x",
    b"Expect: x",
    b"Expect:",
    b"Expect: 100-continue\r\nExpect: 100-continue",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Upgrade: TLS/1.0\r\nConnection: Upgrade",
    b"X-HTTP-Method-Override: GET",
    b"Range: bytes=0-",
    b"TE: trailers, chunked",
    b"Max-Forwards: 0",
    b"X: " + b"a" * 7000,
    b"X: " + b"a" * 31000,
    b"X: " + b"a" * 70000,
    b"\r\n".join(b"X-%d: a" % i for i in range(100)),
    b"\r\n".join(b"X-%d: a" % i for i in range(400)),
)

LINES = [
    b"GET / HTTP/1.0",
    b"POST /vector HTTP/1.0",
    b"POST /vector HTTP/0.9",
    b"POST /vector HTTP/1.2",
    b"POST /vector HTTP/1.10",
    b"POST /vector HTTP/1.01",
    b"POST /vector HTTP/01.1",
    b"POST /vector HTTP/2.0",
    b"POST /vector HTTP/3.0",
    b"POST /vector HTTP/1,1",
    b"POST /vector HTTP/1.1 ",
    b"POST /vector HTTP/1.1x",
    b"POST /vector HTTP/1.1\r",
    b"POST /vector HTTP/\r\r1.1",
    b"POST /vector http/1.1",
    b"POST /vector HTTP",
    b"POST /vector ICE/1.0",
    b"POST /vector",
    b"POST",
    b"POST  /vector HTTP/1.1",
    b"POST /vector  HTTP/1.1",
    b"POST\t/vector\tHTTP/1.1",
    b"POST\x0b/vector HTTP/1.1",
    b"POST /vector\x0bHTTP/1.1",
    b"POST\n/vector HTTP/1.1",
    b"POST /vector\nHTTP/1.1",
    b"POST /vector\rHTTP/1.1",
    b"POST /vector a HTTP/1.1",
    b"POST /vector HTTP/1.1\nX: y HTTP/1.1",
    b"POST /vector%0d%0aX:y HTTP/1.1",
    b"POST /vector\x00 HTTP/1.1",
    b"POST /vector\xff HTTP/1.1",
    b"POST /vector#fragment HTTP/1.1",
    b"POST vector HTTP/1.1",
    b"POST * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"POST http://%s/vector HTTP/1.1" % NAME.encode(),
    b"POST http://evil.example.com/vector HTTP/1.1",
    b"POST https://user:pass@%s/vector HTTP/1.1" % NAME.encode(),
    b"POST http://%s HTTP/1.1" % NAME.encode(),
    b"POST http:/vector HTTP/1.1",
    b"POST //evil.example.com/vector HTTP/1.1",
    b"POST /a/../vector HTTP/1.1",
    b"POST /%2e%2e/vector HTTP/1.1",
    b"POST /./vector HTTP/1.1",
    b"POST \\vector HTTP/1.1",
    b"CONNECT %s:443 HTTP/1.1" % NAME.encode(),
    b"CONNECT /vector HTTP/1.1",
    b"TRACE /vector HTTP/1.1",
    b"post /vector HTTP/1.1",
    b"PoST /vector HTTP/1.1",
    b"POST\x00 /vector HTTP/1.1",
    b"P\xd6ST /vector HTTP/1.1",
    b"P=ST /vector HTTP/1.1",
    b"-POST /vector HTTP/1.1",
    b"GPOST /vector HTTP/1.1",
    b" POST /vector HTTP/1.1",
    b"\tPOST /vector HTTP/1.1",
    b"\x00POST /vector HTTP/1.1",
    b"\nPOST /vector HTTP/1.1",
    b"\rPOST /vector HTTP/1.1",
    b"\r\nPOST /vector HTTP/1.1",
    b"\r\n" * 20 + b"POST /vector HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPOST /vector HTTP/1.1",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\xa8\x01\x0a\xc0\xa8\x01\x01\x30\x39\x01\xbbPOST /vector HTTP/1.1",
    b"POST /" + b"v" * 9000 + b" HTTP/1.1",
    b"POST /" + b"v" * 70000 + b" HTTP/1.1",
]

METHODS = (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"QUERY", b"PURGE", b"PROPFIND", b"TRACE", b"CONNECT")


def heads():
    for i, field in enumerate(FIELDS):
        yield f"field-{i}", request(field, length(HIDDEN), body=HIDDEN)
        yield f"field-first-{i}", request(HOST, length(HIDDEN), body=HIDDEN, host=field)
    for i, line in enumerate(LINES):
        yield f"line-{i}", request(length(HIDDEN), body=HIDDEN, line=line)
        yield f"line-without-length-{i}", request(body=HIDDEN, line=line)
    for method in METHODS:
        line = method + b" /vector HTTP/1.1"
        yield f"method-{method.decode()}-length", request(length(HIDDEN), body=HIDDEN, line=line)
        yield f"method-{method.decode()}-chunked", request(TE + b": chunked", body=chunk(HIDDEN) + END, line=line)
        yield f"method-{method.decode()}-none", request(body=HIDDEN, line=line)
    for i, end in enumerate((b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r", b"\r\n\r", b"\r\n\rZ", b"\r\n\x00\r\n", b"\r\n \r\n", b"\r\n\t\r\n\r\n")):
        yield f"end-of-head-{i}", b"POST /vector HTTP/1.1\r\n%s\r\nContent-Length: %d" % (HOST, len(HIDDEN)) + end + HIDDEN
    yield "no-host", request(length(HIDDEN), body=HIDDEN, host=None)
    yield "only-lf", request(length(HIDDEN), body=HIDDEN).replace(b"\r\n", b"\n")
    yield "only-cr", request(length(HIDDEN), body=HIDDEN).replace(b"\r\n", b"\r")


# --- one behind another ---


def pipelines():
    good = request(length(b"{}"), body=b"{}")
    bad = {
        "coding": request(TE + b": gzip", body=HIDDEN),
        "name": request(b"X : y", length(b"{}"), body=b"{}"),
        "body": request(TE + b": chunked", body=b"zz\r\n"),
        "too-large": request(b"Content-Length: 40000000"),
        "target": request(length(b"{}"), body=b"{}", line=b"POST /%zz HTTP/1.1"),
        "path": request(length(b"{}"), body=b"{}", line=b"POST /-/health HTTP/1.1"),
        "expect": request(b"Expect: 100-continue", length(HIDDEN), body=HIDDEN),
        "closes": request(b"Connection: close", length(b"{}"), body=b"{}"),
        "1.0": request(length(b"{}"), body=b"{}", line=b"POST /vector HTTP/1.0"),
        "1.0-keep-alive": request(b"Connection: keep-alive", length(b"{}"), body=b"{}", line=b"POST /vector HTTP/1.0"),
        "1.0-chunked": request(b"Connection: keep-alive", TE + b": chunked", body=END + HIDDEN, line=b"POST /vector HTTP/1.0"),
        "1.0-cl-te": request(b"Connection: keep-alive", TE + b": chunked", length(END + HIDDEN), body=END + HIDDEN, line=b"POST /vector HTTP/1.0"),
        "1.0-no-host": request(b"Connection: keep-alive", length(HIDDEN), body=HIDDEN, line=b"POST /vector HTTP/1.0", host=None),
        "early-get": request(length(HIDDEN), body=HIDDEN, line=b"GET /con HTTP/1.1"),
        "refused-early": request(b"Content-Encoding: cow", length(HIDDEN), body=HIDDEN),
        "not-found": request(length(HIDDEN), body=HIDDEN, line=b"POST /-/nothing HTTP/1.1"),
        "head": request(line=b"HEAD / HTTP/1.1"),
        "not-modified": request(b"If-None-Match: *", length(HIDDEN), body=HIDDEN, line=b"GET / HTTP/1.1"),
    }
    for name, text in bad.items():
        yield f"behind-{name}", text + good + HIDDEN
        yield f"between-{name}", good + text + good
    yield "twenty", good * 20


def files():
    """tests/badrequests, for a proxy that serves only its own name."""
    for path in sorted((REPOSITORY / "tests/badrequests").glob("*.http")):
        yield path.stem, path.read_bytes().replace(b"longline.test", NAME.encode()) + HIDDEN


def vectors():
    return {name: text for family in (codings, lengths, chunks, heads, pipelines, files) for name, text in family()}
