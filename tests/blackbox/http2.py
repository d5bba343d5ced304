"""HTTP/2 by hand: requests that no library would send, and that a proxy must not turn into two of HTTP/1.1.

Header fields are literals without indexing, which HPACK leaves as they are.
"""

import contextlib
import socket
import ssl
import struct

from reverse_proxy import NAME

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS = 1, 4
HIDDEN = b"POST /smuggled HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\n{}" % NAME.encode()


def frame(kind, flags, payload=b"", stream=1):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack(fields):
    def number(value, prefix):
        most = (1 << prefix) - 1
        if value < most:
            return bytes([value])
        out, value = bytearray([most]), value - most
        while value >= 128:
            out.append(value % 128 + 128)
            value //= 128
        return bytes(out) + bytes([value])

    return b"".join(b"\0" + b"".join(number(len(text), 7) + text for text in field) for field in fields)


REQUEST = {b":method": b"POST", b":scheme": b"https", b":authority": NAME.encode(), b":path": b"/vector"}


def request(*fields, body=HIDDEN, change=(), trailers=None):
    """Those fields behind the usual ones, some of which may be changed or, with None, left out."""
    usual = {**REQUEST, **dict(change)}
    head = hpack([*((name, value) for name, value in usual.items() if value is not None), *fields])
    end = 0 if body is not None or trailers else END_STREAM
    frames = frame(HEADERS, END_HEADERS | end, head)
    if body is not None:
        frames += frame(DATA, 0 if trailers else END_STREAM, body)
    if trailers:
        frames += frame(HEADERS, END_HEADERS | END_STREAM, hpack(trailers))
    return frames


LENGTH = (b"content-length", b"%d" % len(HIDDEN))
INJECTED = b"\r\nTransfer-Encoding: chunked\r\nX: "
WHOLE = b" HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN


VALUES = {
    "crlf": b"a" + INJECTED,
    "lf": b"a\nTransfer-Encoding: chunked",
    "cr": b"a\rTransfer-Encoding: chunked",
    "nul": b"a\0b",
    "whole": b"a\r\n\r\n" + HIDDEN,
    "spaces": b" \ta\t ",
    "ends-with-crlf": b"a\r\n",
    "begins-with-crlf": b"\r\na",
    "high": b"\xff\x85\xa0",
    "delete": b"\x7f",
}
NAMES = [b"", b"X", b"x y", b"x:", b":x", b"x: y\r\ntransfer-encoding", b"x\n", b"x\r", b"x\0", b"x\xff", b"transfer_encoding", b"content-length\x00", b"@"]


def injected():
    for name, value in VALUES.items():
        yield f"value-{name}", request((b"x", value))
        for pseudo in REQUEST:
            yield f"pseudo-{pseudo[1:].decode()}-{name}", request(change={pseudo: REQUEST[pseudo] + value})
        for framing in (b"content-length", b"transfer-encoding", b"host", b"cookie", b"expect", b"te", b"x-forwarded-for"):
            yield f"{framing.decode()}-{name}", request((framing, value))
    for i, name in enumerate(NAMES):
        yield f"name-{i}", request((name, b"chunked"))


def framings():
    for value in (b"chunked", b"gzip, chunked", b"identity", b"", b"xchunked"):
        yield f"coding-{value.decode()}", request((b"transfer-encoding", value), body=b"0\r\n\r\n" + HIDDEN)
        yield f"coding-and-length-{value.decode()}", request((b"transfer-encoding", value), (b"content-length", b"5"), body=b"0\r\n\r\n")
    for value in (b"0", b"1", b"%d" % (len(HIDDEN) + 9), b"+%d" % len(HIDDEN), b"-1", b"", b"x", b"0x1", b"1, 1", b"18446744073709551616", b" 5"):
        yield f"length-{value.decode()}", request((b"content-length", value))
        yield f"length-{value.decode()}-without-body", request((b"content-length", value), body=None)
    yield "length-twice", request(LENGTH, LENGTH)
    yield "length-twice-different", request(LENGTH, (b"content-length", b"0"))
    for name in (b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings", b"te", b"trailer", b"expect", b"x-saw"):
        for value in (b"x", b"close", b"content-length", b"h2c", b"100-continue"):
            yield f"hop-{name.decode()}-{value.decode()}", request((name, value), LENGTH)


def pseudos():
    for pseudo in REQUEST:
        for value in (None, b"", b"/", b"*", b"a b", b"GET", b"x" + WHOLE, b"//x", b"http://x/y", b"%0d%0a", b"..", b"#", b"?"):
            yield f"{pseudo[1:].decode()}-is-{value!r}", request(change={pseudo: value})
        yield f"{pseudo[1:].decode()}-twice", request((pseudo, b"/x"))
        yield f"{pseudo[1:].decode()}-behind", request((b"x", b"y"), (pseudo, REQUEST[pseudo]), change={pseudo: None})
    yield "pseudo-unknown", request(change={b":x": b"y"})
    yield "pseudo-status", request(change={b":status": b"200"})
    yield "pseudo-protocol", request(change={b":method": b"CONNECT", b":protocol": b"websocket"})
    yield "connect", request(change={b":method": b"CONNECT", b":scheme": None, b":path": None})


def others():
    yield "host-differs", request((b"host", b"evil.example.com"))
    yield "host-twice", request((b"host", NAME.encode()), (b"host", b"evil.example.com"))
    yield "only-host", request((b"host", NAME.encode()), change={b":authority": None})
    yield "cookies", request(*[(b"cookie", b"a=b")] * 50)
    yield "many", request(*[(b"x-%d" % i, b"y") for i in range(300)])
    for method in (b"GET", b"HEAD", b"TRACE", b"DELETE", b"get", b"P ST", b"POST /x"):
        yield f"method-{method.decode()}-with-body", request(change={b":method": method})
    for i, trailer in enumerate([(b"x", b"y"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked"), (b":path", b"/x"), (b"x", b"y" + INJECTED), (b"x\r\n", b"y"), (b"host", b"x")]):
        yield f"trailer-{i}", request(trailers=[trailer])


def sequences():
    yield "data-behind-the-end", request(body=b"{}") + frame(DATA, END_STREAM, HIDDEN)
    yield "head-behind-the-end", request(body=b"{}") + request()
    yield "data-first", frame(DATA, END_STREAM, HIDDEN)
    yield "head-in-pieces", frame(HEADERS, 0, hpack(REQUEST.items())) + frame(CONTINUATION, END_HEADERS, hpack([(b"x", b"y")])) + frame(DATA, END_STREAM, HIDDEN)
    yield "head-in-pieces-with-data-between", frame(HEADERS, 0, hpack(REQUEST.items())) + frame(DATA, END_STREAM, HIDDEN)
    yield "many-data", request(body=b"") + frame(DATA, 0, b"{}") * 3
    yield "many-empty-data", frame(HEADERS, END_HEADERS, hpack(REQUEST.items())) + frame(DATA, 0) * 200 + frame(DATA, END_STREAM, b"{}")
    yield "priority-and-padding", frame(HEADERS, END_HEADERS | 0x28, b"\x04" + b"\0\0\0\0\x10" + hpack(REQUEST.items()) + b"\0" * 4) + frame(DATA, END_STREAM | 8, b"\x02{}\0\0")
    yield "reset", request(body=b"{}")[:-2] + frame(RST_STREAM, 0, b"\0\0\0\x08")
    yield "body-cut-and-reset", frame(HEADERS, END_HEADERS, hpack([*REQUEST.items(), LENGTH])) + frame(DATA, 0, HIDDEN[:9]) + frame(RST_STREAM, 0, b"\0\0\0\x08")


def vectors():
    return {name: frames for family in (injected, framings, pseudos, others, sequences) for name, frames in family()}


def send(proxy, frames, patience_s):
    """Sends them on a connection of their own, and waits for the end of stream 1, or not longer than that for anything more."""
    context = ssl.create_default_context(cafile=proxy.authority.certificate)
    context.set_alpn_protocols(["h2"])
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", proxy.port), 30) as plain:
        with context.wrap_socket(plain, server_hostname=NAME) as sock:
            assert sock.selected_alpn_protocol() == "h2"
            sock.sendall(PREFACE + frame(SETTINGS, 0, stream=0) + frame(SETTINGS, 1, stream=0) + frames)
            sock.settimeout(patience_s)
            _read_to_the_end(sock)


def _read_to_the_end(sock):
    buffer = b""
    while more := sock.recv(65536):
        buffer += more
        while len(buffer) >= 9 and len(buffer) >= (size := 9 + int.from_bytes(buffer[:3], "big")):
            kind, flags, stream = struct.unpack(">BBI", buffer[3:9])
            buffer = buffer[size:]
            if kind == GOAWAY or stream == 1 and (kind == RST_STREAM or kind in (DATA, HEADERS) and flags & END_STREAM):
                return
