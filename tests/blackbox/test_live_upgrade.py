"""SIGUSR2: the server becomes another program, and nobody who talks to it notices.

Every test has connections at work when it happens: none is closed, no request is lost or done twice.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from commands import Command
from http_client import Client, chunked, connect, request_bytes
from keys import new_keys
from longline_server import BINARY, PATIENCE_S, environment, wait_until
from streams import BEAT_S, Stream

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
        upgraded_s = time.monotonic() - began
        assert client.read_reply().json() == {"ok": True, "ts": 0, "updates": []}
    assert 3 < time.monotonic() - began < max(4, upgraded_s) + 2


@pytest.mark.parametrize("name", ["", "&as=me"])
def test_what_a_filter_has_left_out_is_counted_once(serve, name):
    server = serve()
    channel = server.channel()
    with poll(server, channel + "?sleep=60&where=body.a:y" + name) as client:
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


def test_a_forgotten_consumer_stays_forgotten(serve):
    server = serve()
    channel = server.channel()
    server.push(channel, '{"n":0}')
    with poll(server, f"{channel}?as=me&ts=1&sleep=60") as waiting:
        server.wait_for_parked(1)
        assert server.request("DELETE", f"{channel}?as=me").status == 200
        server.upgrade()
        server.wait_for_parked(1)
        assert server.get(f"{channel}/consumers").json()["consumers"] == []
        server.upgrade()
        server.push(channel, '{"n":1}')
        reply = waiting.read_reply()
        assert reply.updates == [{"n": 1}] and reply.json()["lag"] == 1
    assert server.get(f"{channel}/consumers").json()["consumers"] == []


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


def push_until_unsent(server, channel, blob):
    """Pushes more than the system's buffers take, but not so much that the stream is cut. Returns how many."""
    pushed = 0
    while server.metric("longline_buffer_bytes") < 400_000:
        server.push(channel, json.dumps({"n": pushed, "blob": blob}))
        pushed += 1
    return pushed


def test_a_stream_whose_client_reads_slowly(serve):
    server = serve()
    channel = server.channel()
    blob = "x" * 200_000
    with Stream(server, f"{channel}?ts=0&feed=lines", receive_buffer=4096) as stream:
        server.wait_for_metric("longline_streams", 1)
        for n in range(push_until_unsent(server, channel, blob)):
            if n % 5 == 1:
                server.upgrade()
            assert next_update(stream) == {"n": n, "blob": blob}


@pytest.mark.parametrize("then", ["another upgrade", "a full cache"])
def test_a_slow_stream_sees_what_was_pushed_before_it_goes_on(serve, then):
    """The channel has gone on without it, and is not in memory when it does."""
    server = serve(CACHE_SIZE=1)
    channel, other = server.channel(), server.channel()
    blob = "x" * 200_000
    with Stream(server, f"{channel}?ts=0&feed=lines", receive_buffer=4096) as stream:
        server.wait_for_metric("longline_streams", 1)
        pushed = push_until_unsent(server, channel, blob)
        server.upgrade()
        for n in range(pushed, pushed + 5):
            server.push(channel, json.dumps({"n": n, "blob": ""}))
        if then == "another upgrade":
            server.upgrade()
        else:
            for _ in range(20):
                server.push(other, json.dumps({"blob": blob}))
        assert [next_update(stream)["n"] for _ in range(pushed + 5)] == list(range(pushed + 5))


def test_a_slow_stream_that_moves_is_not_cut(start, clock):
    """What a new program finds unsent is no stall."""
    server = start(SANDBOX="off", **clock.settings)  # the next program opens the file of the clocks
    channel = server.channel()
    body = json.dumps("x" * 50_000)
    with Stream(server, f"{channel}?ts=0&feed=lines", receive_buffer=4096) as stream:
        server.wait_for_metric("longline_streams", 1)
        pushed = 0
        while server.metric("longline_buffer_bytes") < 600_000:
            pushed += 1
            server.push(channel, body)
        for _ in range(6):
            next_update(stream)
            server.upgrade()
            clock.forward(server, BEAT_S)
            assert server.metric("longline_buffer_bytes") > 0 and server.metric("longline_streams_cut_total") == 0
            assert server.metric("longline_streams") == 1
        for _ in range(6, pushed):
            next_update(stream)
        assert server.metric("longline_streams") == 1
    server.wait_for_metric("longline_streams", 0)


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


def test_uploads_that_fill_the_buffer_go_on(start):
    server = start(BUFFER_SIZE=16, MAX_BODY=4_000_000)
    channel = server.channel()
    body = json.dumps("x" * 1_100_000).encode()
    clients = [server.client() for _ in range(9)]
    for client in clients:
        client.send((HEAD % channel).encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-9])
    wait_until(lambda: server.metric("longline_buffer_bytes") > 9 * len(body), "the uploads")
    for _ in range(2):
        server.upgrade()
    for client in clients:
        client.send(body[-9:])
        assert client.read_reply().body == b"OK"
        client.close()
    assert "could be taken over" not in server.log()


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
                if self.stopping.is_set():  # ten at a time, it would take minutes to catch up with 100 upgrades
                    query = ""
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


# --- And else ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["", "upgrade begins", "upgraded from="])
def test_a_stop_right_behind_an_upgrade_stops(serve, moment):
    server = serve(LOG_LEVEL="info")
    server.push(server.channel())
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: moment in server.log(), "the moment")
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


def test_process_1_of_a_container(tmp_path):
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace of process ids")
    settings = environment({"LISTEN": f"unix:{tmp_path}/socket", "DATA_PATH": tmp_path / "longline.db"})
    with open(tmp_path / "log", "wb") as log, subprocess.Popen([*inside, BINARY, "serve"], env=settings, stderr=log) as outer:
        try:
            wait_until(lambda: b"listening" in (tmp_path / "log").read_bytes(), "the start")
            pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
            assert b"NSpid:\t%d\t1\n" % pid in Path(f"/proc/{pid}/status").read_bytes()
            with Client(f"{tmp_path}/socket") as client:
                for n in range(2):
                    assert client.post("/in-a-container", "{}").total == n + 1
                    os.kill(pid, signal.SIGUSR2)
                    wait_until(lambda: (tmp_path / "log").read_bytes().count(b"upgraded from=") == n + 1, "the upgrade")
                assert client.get("/in-a-container").ts == 2
            os.kill(pid, signal.SIGTERM)
            assert outer.wait(PATIENCE_S) == 0
        finally:
            outer.kill()


def test_a_redis_that_is_connected_anew_counts_as_there(start, redis):
    """For REDIS_TIMEOUT."""
    server = start(**redis.settings(REDIS_TIMEOUT=8000))
    server.push(server.channel())
    redis.freeze()
    server.upgrade()
    assert server.get("/-/health").status == 200
    wait_until(lambda: server.get("/-/health").status == 503, "the end of it")
    redis.thaw()
    wait_until(lambda: server.get("/-/health").status == 200, "the Redis")


def test_the_commands_do_not_mind(serve, tmp_path):
    """`pkill -USR2 longline` reaches them as well."""
    server = serve()
    channel = server.channel()
    shows = ["sh", "-c", "cat; echo; kill -USR2 $$; echo alive"]
    with contextlib.ExitStack() as stack:
        commands = [
            Command(tmp_path / "tail", "tail", server.url(channel)),
            Command(tmp_path / "exec", "exec", server.url(channel), "--", *shows, XDG_STATE_HOME=str(tmp_path)),
        ]
        for command in commands:
            stack.callback(command.kill)
        server.wait_for_parked(2)
        for command in commands:
            command.process.send_signal(signal.SIGUSR2)
        server.upgrade()
        server.push(channel, '{"n":1}')
        for command in commands:
            command.wait_for(lambda lines: lines, "the update")
            assert '"n":1' in command.lines[0] and command.is_alive
        wait_until(lambda: "signal" in commands[1].stderr, "the end of what does mind")
        assert "alive" not in commands[1].lines


def test_a_program_that_was_started_by_a_descriptor(tmp_path):
    program, log = tmp_path / "longline", tmp_path / "log"
    shutil.copy(BINARY, program)
    settings = environment({"LISTEN": "127.0.0.1:0", "DATA_PATH": tmp_path / "longline.db"})
    fd = os.open(program, os.O_RDONLY)
    with open(log, "wb") as file, subprocess.Popen(["longline", "serve"], executable=f"/proc/self/fd/{fd}", pass_fds=[fd], env=settings, stderr=file) as process:
        os.close(fd)
        try:
            wait_until(lambda: b"listening" in log.read_bytes(), "the start")
            for n in range(2):
                process.send_signal(signal.SIGUSR2)
                wait_until(lambda: log.read_bytes().count(b"upgraded from=") == n + 1, "the upgrade")
            assert b"upgrade begins path=%s\n" % os.fsencode(program) in log.read_bytes()
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


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


def test_no_more_connections_than_are_allowed(start):
    """Also while those that were open are taken over, a slice a turn."""
    most = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2 * most), hard), hard))
    server = start(MAX_CONNECTIONS=most, LOG_LEVEL="info")
    channel = server.channel()
    asked = request_bytes("GET", channel + "?sleep=60")
    clients = [connect(server.address) for _ in range(most - 1)]
    for client in clients:
        client.sendall(asked)
    server.wait_for_parked(most - 1)
    others = []
    for _ in range(500):
        other = socket.socket()
        other.setblocking(False)
        other.connect_ex(server.address)
        others.append(other)
    before = server.descriptor_count()
    server.upgrade()
    server.wait_for_parked(most - 1)
    assert server.descriptor_count() <= before and server.metric("longline_connections") <= most
    for client in clients + others:
        client.close()


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
    assert Path(f"/proc/{server.pid}/comm").read_text() == "longline\n"
