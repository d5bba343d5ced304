"""Malformed and ambiguous requests: each is refused with its status, and the connection closed.

Nothing is stored, and nobody else is harmed.
"""

import re

import pytest

from http_client import Closed, request_bytes
from longline_server import REPOSITORY

FILES = sorted((REPOSITORY / "tests/badrequests").glob("*.http"))
CHANNEL = "/bad-request-channel"

# None of these requests reaches a store.
pytestmark = pytest.mark.providers("sqlite", "memory")


def statuses_of(file):
    """The statuses at the start of the file's name."""
    return {int(status) for status in re.match(r"((?:\d{3}-)+)", file.name)[1].strip("-").split("-")}


def refused(server, send, statuses):
    """send(client) sends a bad request. It must get one error and a close, and change nothing."""
    pushes = server.metric("longline_pushes_total")
    with server.client() as client:
        send(client)
        reply = client.read_reply()
        assert reply.status in statuses, reply
        assert reply.json()["ok"] is False and reply.json()["error_code"] == reply.status
        assert reply.closes, reply
        assert client.read_to_end() == b"", "something behind a refused request was answered"
    assert server.metric("longline_pushes_total") == pushes
    server.wait_for_metric("longline_connections", 1)
    return reply


def test_the_table_is_there():
    assert len(FILES) > 80


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_bad_request_is_refused(server, file):
    data = file.read_bytes()
    server.saw_target(CHANNEL)
    refused(server, lambda client: client.send(data), statuses_of(file))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_bad_request_is_refused_when_it_comes_behind_a_good_one(server, file, channel):
    """Pipelining on a kept-alive connection, where smuggling happens: only the good one counts."""
    data = file.read_bytes()
    with server.client() as client:
        client.send(request_bytes("POST", channel, b'{"good":1}') + data + request_bytes("POST", channel, b'{"smuggled":1}'))
        assert client.read_reply().total == 1
        assert client.read_reply().status in statuses_of(file)
        assert client.read_to_end() == b""
    assert server.get(channel).updates == [{"good": 1}]
    assert server.get(CHANNEL).total == 0


def send_by_the_byte(client, data):
    for i in range(len(data)):
        try:
            client.send(data[i : i + 1])
        except (BrokenPipeError, ConnectionResetError):
            return


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_bad_request_is_refused_byte_by_byte(server, file):
    data = file.read_bytes()
    with server.client() as client:
        send_by_the_byte(client, data)
        try:
            reply = client.read_reply()
        except Closed as closed:
            # It closed while we were sending, and our last bytes may have reset the connection.
            assert "reset" in str(closed)
        else:
            assert reply.status in statuses_of(file) and reply.closes
            assert client.read_to_end() == b""
    assert server.get(CHANNEL).total == 0


# --- too big to be kept as files ---


def test_64_kib_of_headers_in_one_field(server):
    refused(server, lambda client: client.send(request_bytes("GET", CHANNEL, headers={"X-Big": "v" * 65536})), {431})


def test_64_kib_of_headers_in_many_fields(server):
    fields = {f"X-{i}": "v" * 1000 for i in range(65)}
    refused(server, lambda client: client.send(request_bytes("GET", CHANNEL, headers=fields)), {431})


def test_2000_headers(server):
    fields = {f"X-{i}": "v" for i in range(2000)}
    refused(server, lambda client: client.send(request_bytes("POST", CHANNEL, b"{}", fields)), {431})


def test_a_header_name_that_never_ends(server):
    refused(server, lambda client: client.send(b"GET / HTTP/1.1\r\n" + b"x" * 70_000), {431})


def test_a_target_that_never_ends(server):
    refused(server, lambda client: client.send(b"GET /" + b"x" * 70_000), {414})


def test_a_method_that_never_ends(server):
    refused(server, lambda client: client.send(b"X" * 70_000), {400, 431, 501})


def test_a_chunk_extension_that_never_ends(server):
    def send(client):
        client.send(request_bytes("POST", CHANNEL, b"", {"Transfer-Encoding": "chunked"}) + b"2;")
        try:
            for _ in range(64):
                client.send(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass

    pushes = server.metric("longline_pushes_total")
    with server.client() as client:
        send(client)
        try:
            assert client.read_reply().status in (400, 413, 431)
        except Closed as closed:
            assert "reset" in str(closed)
    assert server.metric("longline_pushes_total") == pushes


def test_trailers_without_end_are_refused(server):
    def send(client):
        trailers = b"".join(b"X-%d: v\r\n" % i for i in range(2000))
        client.send(request_bytes("POST", CHANNEL, b"", {"Transfer-Encoding": "chunked"}) + b"2\r\n{}\r\n0\r\n" + trailers)

    refused(server, send, {400, 413, 431})


def test_chunks_of_one_byte_do_not_add_up_past_max_body(serve):
    server = serve(MAX_BODY=1000)
    data = request_bytes("POST", CHANNEL, b"", {"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\n" * 1001
    refused(server, lambda client: client.send(data), {413})


@pytest.mark.parametrize("data", [b"\x00" * 5000, b"\xff" * 5000, b"\r" * 5000, b" " * 5000, b"GET " * 5000, bytes(range(256)) * 100])
def test_noise_is_refused(server, data):
    refused(server, lambda client: client.send(data), {400, 405, 414, 431, 501, 505})
