"""SIGUSR2: the server becomes another program, and nobody who talks to it notices.

Every test has connections at work when it happens: none is closed, no request is lost or done twice.
"""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import time

import pytest

from http_client import Client, chunked, request_bytes
from keys import new_keys
from longline_server import BINARY, wait_until
from streams import Stream
from test_upgrade import write_old_file

UPGRADES = int(os.environ.get("UPGRADES", 3))

pytestmark = pytest.mark.providers("sqlite", "redis")  # "memory" would lose its updates, so it refuses


def poll(server, target):
    """A client whose poll is on its way."""
    client = server.client()
    client.send_request("GET", target)
    return client


def next_update(stream):
    found = stream.update()
    return found["update"] if stream.is_lines else found.json()


# --- Polls ------------------------------------------------------------------------------------------


def test_parked_polls_go_on(serve):
    server = serve()
    channels = [server.channel() for _ in range(5)]
    for channel in channels:
        server.push(channel, '{"n":0,"a":"x"}')
    targets = ["?ts=1&sleep=60", "?ts=1&sleep=60&view=full", "?ts=now&sleep=60", "?ts=1&sleep=60&epoch=", "?ts=1&sleep=60&where=body.a:y", "?ts=1&sleep=60&as=me&limit=7"]
    clients = [(channel, target, poll(server, channel + target)) for channel in channels for target in targets]
    server.wait_for_parked(len(clients))
    for _ in range(2):
        server.upgrade()
    server.wait_for_parked(len(clients))
    for channel in channels:
        server.push(channel, '{"n":1,"a":"y"}')
    for channel, target, client in clients:
        reply = client.read_reply().json()
        assert (reply["ok"], reply["ts"], len(reply["updates"])) == (True, 2, 1), (target, reply)
        assert ("epoch" in reply) == ("epoch" in target) and ("lag" in reply) == ("as=" in target)
        update = reply["updates"][0]
        assert (update["body"] if "view" in target else update)["n"] == 1
        assert client.get(channel + "?ts=2").ts == 2
        client.close()
    assert server.metric("longline_upgrades_total") == 2


def test_a_poll_ends_at_its_own_time(serve):
    server = serve()
    began = time.monotonic()
    with poll(server, server.channel() + "?sleep=4") as client:
        server.wait_for_parked(1)
        wait_until(lambda: time.monotonic() - began > 2, "half of the time")
        server.upgrade()
        assert client.read_reply().json() == {"ok": True, "ts": 0, "updates": []}
    assert 3 < time.monotonic() - began < 6


def test_what_a_filter_has_left_out_is_counted(serve):
    server = serve()
    channel = server.channel()
    with poll(server, channel + "?sleep=60&where=body.a:y") as client:
        server.wait_for_parked(1)
        for _ in range(3):
            server.push(channel, '{"a":"n"}')
        server.upgrade()
        server.push(channel, '{"a":"n"}')
        server.push(channel, '{"a":"y"}')
        reply = client.read_reply().json()
        assert (reply["ts"], reply["skipped"], reply["updates"]) == (5, 4, [{"a": "y"}])


def test_a_poll_by_a_key_goes_on(serve):
    server = serve()
    _, reading, sending = new_keys()
    with poll(server, f"/{reading}?sleep=60") as client:
        server.wait_for_parked(1)
        server.upgrade()
        server.push(f"/{sending}", '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}]


def test_a_poll_of_many_channels_goes_on(serve):
    server = serve()
    channels = [server.channel() for _ in range(3)]
    server.push(channels[0])
    body = json.dumps({channels[0][1:]: 1, channels[1][1:]: "now", channels[2][1:]: {"ts": 0, "epoch": ""}})
    with server.client() as client:
        client.send_request("POST", "/-/poll?sleep=60&limit=5&where=body.n:7", body)
        server.wait_for_parked(3)
        server.upgrade()
        server.wait_for_parked(3)
        server.push(channels[1], '{"n":6}')
        server.push(channels[1], '{"n":7}')
        reply = client.read_reply().json()
        assert reply["channels"] == {channels[1][1:]: {"ts": 2, "updates": [{"n": 7}], "skipped": 1}}, reply
        assert client.post("/-/poll?sleep=0", body).status == 200


def test_consumers_keep_what_they_have_confirmed(serve):
    server = serve()
    channel = server.channel()
    for n in range(3):
        server.push(channel, '{"n":%d}' % n)
    with poll(server, f"{channel}?as=me&ts=3&sleep=60") as waiting:
        server.wait_for_parked(1)
        server.upgrade()
        consumer = server.get(f"{channel}/consumers").json()["consumers"][0]
        assert (consumer["name"], consumer["ts"], consumer["lag"]) == ("me", 3, 0), consumer
        server.push(channel, '{"n":3}')
        assert waiting.read_reply().updates == [{"n": 3}]
    assert server.get(f"{channel}?as=me").updates == [{"n": 3}]


def test_the_epoch_stays(serve):
    server = serve()
    channel = server.channel()
    server.push(channel)
    epoch = server.get(f"{channel}?epoch=").json()["epoch"]
    for _ in range(2):
        server.upgrade()
        assert server.get(f"{channel}?ts=1&epoch={epoch}").json() == {"ok": True, "ts": 1, "epoch": epoch, "updates": []}


# --- Streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("feed", ["sse", "lines"])
def test_streams_go_on_where_they_are(serve, feed, version):
    server = serve()
    channel = server.channel()
    server.push(channel, '{"n":0}')
    with Stream(server, f"{channel}?ts=0&feed={feed}", version=version) as stream:
        for n in range(4):
            assert next_update(stream) == {"n": n}
            server.upgrade()
            server.push(channel, '{"n":%d}' % (n + 1))
        assert next_update(stream) == {"n": 4}
    assert server.metric("longline_streams") in (0, 1)


def test_a_stream_whose_client_reads_slowly(serve):
    server = serve()
    channel = server.channel()
    blob = "x" * 200_000
    with Stream(server, f"{channel}?ts=0&feed=lines", receive_buffer=4096) as stream:
        server.wait_for_metric("longline_streams", 1)
        for n in range(20):
            server.push(channel, json.dumps({"n": n, "blob": blob}))
        for n in range(20):
            if n % 5 == 1:
                server.upgrade()
            assert next_update(stream) == {"n": n, "blob": blob}


# --- Requests that came in part ---------------------------------------------------------------------

LONG = b'{"text":"' + b"0123456789" * 5000 + b'"}'
HEAD = "POST %s HTTP/1.1\r\nHost: h\r\n"
UPLOADS = {
    "length": (b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG, LONG),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n" + chunked(LONG[:7], LONG[7:2000], LONG[2000:]), LONG),
    "extensions": (b'Transfer-Encoding: chunked\r\n\r\n1;a="b;c"\r\n{\r\n1 ; d\r\n}\r\n0;x\r\nX-Trailer: t\r\n\r\n', b"{}"),
}


@pytest.mark.parametrize("kind", UPLOADS)
def test_slow_uploads(serve, kind):
    """As many clients as there are places where the upload is cut; each place sees one upgrade, the first ones more."""
    server = serve()
    channel = server.channel()
    rest, body = UPLOADS[kind]
    whole = (HEAD % channel).encode() + rest
    head = whole.index(b"\r\n\r\n") + 4
    places = sorted({3, 20, head - 3, head, *range(head + 1, min(len(whole), head + 60)), *range(head + 60, len(whole), 9973), len(whole) - 1})
    clients = [server.client() for _ in places]
    for round in range(2):
        for client, place in zip(clients, places):
            sent = 0 if round == 0 else place // 2
            client.send(whole[sent : place // 2 if round == 0 else place])
        server.get("/-/health")  # the loop has seen what came before
        server.upgrade()
    for client, place in zip(clients, places):
        client.send(whole[place:])
        assert client.read_reply().body == b"OK"
        client.close()
    updates = [update for _, update in server.read_all(channel)]
    assert updates == [json.loads(body)] * len(places)


def test_100_continue_is_said_once(serve):
    server = serve()
    channel = server.channel()
    with server.client() as client:
        client.send((HEAD % channel).encode() + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.read_reply().status == 100
        server.upgrade()
        client.send(b"{}")
        assert client.read_reply().body == b"OK"


def test_pipelined_requests_are_answered_once_each(serve):
    server = serve()
    channel = server.channel()
    with server.client() as client:
        client.send(request_bytes("GET", channel + "?sleep=60") + b"".join(request_bytes("POST", channel, '{"n":%d}' % n) for n in range(50)) + b"GET " + channel.encode())
        server.wait_for_parked(1)
        server.upgrade()
        server.push(channel, '{"n":-1}')
        assert client.read_reply().updates == [{"n": -1}]
        for n in range(50):
            assert client.read_reply().total == n + 2
        server.upgrade()
        client.send(b"?ts=50 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.read_reply().updates == [{"n": 49}]


# --- Replies that are half sent ---------------------------------------------------------------------


def test_large_replies_to_slow_readers(serve):
    server = serve(MAX_BODY=8_000_000)
    channel = server.channel()
    for n in range(3):
        server.push(channel, json.dumps({"n": n, "blob": chr(97 + n) * 2_000_000}))
    wanted = server.get(channel + "?limit=1").body
    clients = [Client(server.address, receive_buffer=4096) for _ in range(10)]
    for client in clients:
        client.send(request_bytes("GET", channel + "?limit=1") * 2)
    server.wait_for_metric("longline_connections", len(clients) + 1)
    for _ in range(2):
        for client in clients:
            client.buffer += client.sock.recv(1000)
        server.upgrade()
    for client in clients:
        assert client.read_reply().body == wanted
        assert client.read_reply().body == wanted
        assert client.get(channel + "?ts=3").updates == []
        client.close()


def test_a_reply_that_closes_still_does(serve):
    server = serve(MAX_BODY=8_000_000)
    channel = server.channel()
    server.push(channel, json.dumps({"blob": "x" * 4_000_000}))
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request_bytes("GET", channel, version="HTTP/1.0"))
        client.buffer += client.sock.recv(1000)
        server.upgrade()
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
        assert json.loads(body)["ts"] == 1


# --- Under load -------------------------------------------------------------------------------------


class Load:
    """Senders, pollers, streams and batches, each on a connection of its own that must never close."""

    def __init__(self, server):
        self.server = server
        self.stopping = threading.Event()
        self.failures = []
        self.threads = []
        self.sent = {}
        self.seen = {}

    def run(self, work, *args):
        def guarded():
            try:
                work(*args)
            except Exception as failure:  # noqa: BLE001: the test tells of it
                self.failures.append(f"{work.__name__}: {failure!r}")
                self.stopping.set()

        thread = threading.Thread(target=guarded)
        thread.start()
        self.threads.append(thread)

    def sender(self, channel, number):
        with self.server.client() as client:
            n = 0
            while not self.stopping.is_set():
                reply = client.post(channel, json.dumps({"from": number, "n": n}))
                assert reply.body == b"OK", reply
                n += 1
        self.sent[channel, number] = n

    def batches(self, channel, number):
        with self.server.client() as client:
            n = 0
            while not self.stopping.is_set():
                body = "".join(json.dumps({"from": number, "n": n + i}) + "\n" for i in range(300))
                reply = client.post(channel, body, {"Content-Type": "application/x-ndjson"})
                assert reply.headers["x-updates"] == "300", reply
                n += 300
        self.sent[channel, number] = n

    def slow_sender(self, channel, number):
        with self.server.client() as client:
            n = 0
            while not self.stopping.is_set():
                data = json.dumps({"from": number, "n": n}).encode()
                whole = (HEAD % channel).encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(data[:3], data[3:])
                for at in range(0, len(whole), 7):
                    client.send(whole[at : at + 7])
                    time.sleep(0.001)
                assert client.read_reply().body == b"OK"
                n += 1
        self.sent[channel, number] = n

    def connector(self, channel, number):
        """Each push on a new connection."""
        n = 0
        while not self.stopping.is_set():
            with self.server.client() as client:
                assert client.post(channel, json.dumps({"from": number, "n": n})).body == b"OK"
                n += 1
        self.sent[channel, number] = n

    def is_over(self, channel, seen):
        """Whether all that was acknowledged is seen, when no more comes."""
        if not self.stopping.is_set():
            return False
        wait_until(lambda: self.failures or len(self.sent) == self.senders, "the senders")
        return len(seen) >= sum(n for (of, _), n in self.sent.items() if of == channel) or self.failures

    def poller(self, channel, query):
        seen, ts = self.seen.setdefault((channel, "poll", query), []), 0
        with self.server.client() as client:
            while not self.is_over(channel, seen):
                reply = client.get(f"{channel}?ts={ts}&sleep=1{query}").json()
                assert reply["ok"] and "missed" not in reply and "reset" not in reply, reply
                assert reply["ts"] == ts + len(reply["updates"]), reply
                seen += reply["updates"]
                ts = reply["ts"]

    def consumer(self, channel, name):
        seen, ts = self.seen.setdefault((channel, "as", name), []), 0
        with self.server.client() as client:
            while not self.is_over(channel, seen):
                reply = client.get(f"{channel}?as={name}&ts={ts}&sleep=1").json()
                assert reply["ok"] and "missed" not in reply, reply
                seen += reply["updates"]
                ts = reply["ts"]

    def stream(self, channel, how):
        seen = self.seen.setdefault((channel, "stream", how), [])
        with Stream(self.server, f"{channel}?ts=0&feed={how}") as stream:
            while not self.is_over(channel, seen):
                seen.append(next_update(stream))

    def start(self, channels):
        senders = [self.sender, self.sender, self.batches, self.slow_sender, self.connector]
        self.senders = len(senders) * len(channels)
        for channel in channels:
            for number, work in enumerate(senders):
                self.run(work, channel, number)
            for query in ("", "&limit=10", "&epoch="):
                self.run(self.poller, channel, query)
            self.run(self.consumer, channel, "me")
            for how in ("sse", "lines"):
                self.run(self.stream, channel, how)

    def finish(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, "\n".join(self.failures)


def test_under_load(serve):
    server = serve(CHANNEL_STORAGE_MAXSIZE=1_000_000, LOG_LEVEL="info")
    channels = [server.channel() for _ in range(2)]
    load = Load(server)
    load.start(channels)
    try:
        for _ in range(UPGRADES):
            before = server.metric("longline_pushes_total")
            wait_until(lambda: load.failures or server.metric("longline_pushes_total") > before + 500, "pushes")
            if load.failures:
                break
            server.upgrade()
    finally:
        load.finish()
    assert server.upgraded() == UPGRADES
    for channel in channels:
        stored = [update for _, update in server.read_all(channel)]
        for number in range(5):
            ns = [update["n"] for update in stored if update["from"] == number]
            assert ns == list(range(load.sent[channel, number])), number
        for (of, *who), seen in load.seen.items():
            assert of != channel or seen == stored, who


# --- What does not start ----------------------------------------------------------------------------


@pytest.fixture
def replaceable(start, tmp_path):
    """A server whose program is a file of its own, and a function that replaces that."""
    path = tmp_path / "longline"
    os.symlink(BINARY, path)
    server = start(binary=path)

    def replace(script, mode=0o755):
        """By a shell script, in which $LONGLINE is the present program."""
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\nLONGLINE={BINARY}\n{script}\n")
        new.chmod(mode)
        os.rename(new, path)

    server.replace = replace
    return server


IS_CHECK = '[ "$2" = --check-upgrade ]'


def refused(server, *reasons):
    """Sends SIGUSR2, which must come to nothing; a poll and a stream do not notice."""
    channel = server.channel()
    with poll(server, channel + "?sleep=60") as client, Stream(server, channel + "?feed=sse") as stream:
        before = server.log().count("upgrade failed")
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: server.log().count("upgrade failed") > before, "the refusal")
        server.push(channel, '{"n":1}')
        assert client.read_reply().updates == [{"n": 1}] and next_update(stream) == {"n": 1}
    line = server.log().split("upgrade failed")[-1].splitlines()[0]
    for reason in reasons:
        assert reason in line, line


def test_a_program_that_does_not_start_changes_nothing(replaceable):
    server = replaceable
    server.replace("echo cannot find my library >&2; exit 127")
    refused(server, "it exits with 127", "cannot find my library")
    server.replace("exit 0")
    refused(server, "it is not longline")
    server.replace("kill -9 $$")
    refused(server, "signal 9")
    server.replace("", mode=0o644)
    refused(server, "permission denied")
    server.replace('exec $LONGLINE serve --no-such-setting 1')
    refused(server, "unknown flag")
    server.replace('shift 3; exec $LONGLINE serve --check-upgrade 0 "$@"')
    refused(server, "so different")
    os.unlink(server.binary)
    refused(server, "no such file")
    os.symlink(BINARY, server.binary)
    server.upgrade()


def test_a_program_that_hangs_changes_nothing(replaceable):
    replaceable.replace("sleep 1000")
    refused(replaceable, "did not answer within 10 s")


def test_a_program_older_than_the_data_file_changes_nothing(replaceable):
    server = replaceable
    server.push(server.channel())
    with sqlite3.connect(server.data_path) as database:
        database.execute("PRAGMA user_version = 77")
    refused(server, "schema version 77")
    with sqlite3.connect(server.data_path) as database:
        database.execute("PRAGMA user_version = 2")
    server.upgrade()


# Preloaded into a program, it keeps that from locking its data file, but not the one behind it.
FAILS = """
#include <errno.h>
#include <stdlib.h>
__attribute__((constructor)) static void forget(void) { unsetenv("LD_PRELOAD"); }
int flock(int fd, int operation) { errno = EWOULDBLOCK; return fd < 0 || operation ? -1 : -1; }
"""


def test_a_program_that_fails_after_its_check_gives_back(replaceable, tmp_path):
    """It has the sockets already when it finds that it cannot start."""
    server = replaceable
    source, library = tmp_path / "fails.c", tmp_path / "fails.so"
    source.write_text(FAILS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    server.replace(f'''if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD={library} exec $LONGLINE "$@" ''')
    refused(server, "did not start")
    assert "is in use by another longline process" in server.log()
    server.replace(f'if {IS_CHECK}; then rm "$0"; exec $LONGLINE "$@"; fi')
    refused(server, "No such file")
    os.symlink(BINARY, server.binary)
    server.upgrade()


def test_memory_refuses(start):
    server = start(DATA_PROVIDER="memory")
    channel = server.channel()
    server.push(channel, '{"n":1}')
    refused(server, "DATA_PROVIDER=memory")
    assert server.get(channel).updates == [{"n": 1}]


def test_a_state_of_another_version_keeps_the_listening_sockets(replaceable):
    """Its connections are closed, none is refused."""
    server = replaceable
    server.replace(f"""if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        printf 9 | dd of=/proc/self/fd/${{LONGLINE_HANDOVER%% *}} bs=1 seek=8 conv=notrunc 2>/dev/null
        exec $LONGLINE "$@" """)
    with server.client() as idle, poll(server, server.channel() + "?sleep=60") as waiting:
        idle.get("/-/health")
        server.wait_for_parked(1)
        server.upgrade()
        assert (idle.read_to_end(), waiting.read_to_end()) == (b"", b"")
    assert "the connections could not be taken over" in server.log()
    server.push(server.channel())


# --- And else ---------------------------------------------------------------------------------------


def test_an_older_data_file_is_upgraded_on_the_way(replaceable):
    server = replaceable
    name = server.channel()[1:]
    old = server.directory / "old.db"
    write_old_file(old, [name.encode()], 50, int(time.time() * 1000) - 60_000)
    server.replace(f"""if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        rm -f {server.data_path}*; cp {old} {server.data_path}; exec $LONGLINE "$@" """)
    with server.client() as client:
        client.get("/-/health")
        server.upgrade()
        assert client.get(f"/{name}?ts=49").updates[0]["n"] == 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_is_checked_stops(replaceable, number):
    replaceable.replace("sleep 1000")
    with poll(replaceable, replaceable.channel() + "?sleep=60") as client:
        replaceable.wait_for_parked(1)
        replaceable.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade begins" in replaceable.log(), "the check")
        replaceable.stop(number)
        assert client.read_reply().status == 200


def test_a_stop_right_behind_an_upgrade_stops(serve):
    """Whenever it comes: it waits for the next program."""
    for delay_s in (0, 0.02, 0.04, 0.06, 0.08):
        server = serve()
        server.push(server.channel())
        server.send_signal(signal.SIGUSR2)
        time.sleep(delay_s)
        server.stop()


def test_signals_on_top_of_each_other(serve):
    server = serve()
    with poll(server, server.channel() + "?sleep=60"):
        server.wait_for_parked(1)
        for _ in range(20):
            server.send_signal(signal.SIGUSR2)
        wait_until(server.upgraded, "an upgrade")
        server.wait_for_parked(1)


def test_what_the_server_counts_goes_on(start):
    server = start(RATE_LIMIT_LIMIT=30, RATE_LIMIT_FRAME=600, STRICT_JSON="on")
    channel = server.channel()
    for _ in range(3):
        server.push(channel)
    assert server.post(channel, "{", {"Content-Type": "application/json"}).status == 400
    left = int(server.get(channel).headers["x-ratelimit-remaining"])
    before = server.metrics()
    server.upgrade()
    assert int(server.get(channel).headers["x-ratelimit-remaining"]) == left - 1
    after = server.metrics()
    for name in ("longline_pushes_total", "longline_push_bytes_total", "longline_connections_accepted_total"):
        assert after[name] >= before[name] > 0, name
    assert after["longline_pushes_refused_total"] == before["longline_pushes_refused_total"] == 1
    told = server.get(f"{channel}/refused").json()["refused"]
    assert len(told) == 1 and told[0]["status"] == 400, told


def test_every_kind_of_listener_goes_on(start, tmp_path):
    server = start(LISTEN=f"127.0.0.1:0,[::1]:0,unix:{tmp_path}/socket")
    addresses = [("127.0.0.1", server.port), ("::1", int(server.addresses[1].rsplit(":", 1)[1])), f"{tmp_path}/socket"]
    clients = [Client(address) for address in addresses]
    for _ in range(2):
        server.upgrade()
        for address, client in zip(addresses, clients):
            assert client.get("/-/health").status == 200
            with Client(address) as other:
                assert other.get("/-/health").status == 200
    server.stop()
    assert not os.path.exists(addresses[2])


def test_nothing_is_left_open(serve):
    server = serve()
    for _ in range(2):
        server.upgrade()
        server.push(server.channel())
    before = server.descriptor_count()
    clients = [poll(server, server.channel() + "?sleep=60") for _ in range(10)]
    server.wait_for_parked(10)
    server.upgrade()
    server.wait_for_parked(10)
    for client in clients:
        client.close()
    server.wait_for_parked(0)
    server.push(server.channel())
    names = sorted(os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd"))
    wait_until(lambda: server.descriptor_count() <= before, "the descriptors to go")
    assert not [name for name in names if "handover" in name or name.endswith("longline")], names
    fields = open(f"/proc/{server.pid}/comm").read().strip()
    assert fields == "longline"


def test_the_environment_keeps_nothing_of_it(serve):
    server = serve()
    server.upgrade()
    server.upgrade()
    assert stat.S_ISREG(os.stat(BINARY).st_mode) and server.process.poll() is None
    assert server.log().count("upgrade begins") == 2
