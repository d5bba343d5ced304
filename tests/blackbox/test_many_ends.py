"""POST /-/poll: how it ends."""

import random
import signal
import threading

from http_client import Client, request_bytes
from longline_server import wait_until
from test_many import Listener, SIXTY_FOUR, ask, channels, numbers, send, told  # noqa: F401


def test_who_hangs_up_leaves_nothing(server):
    for _ in range(3):
        clients = [server.client() for _ in range(4)]
        for i, client in enumerate(clients):
            send(client, {server.channel(): 0 for _ in range(SIXTY_FOUR)}, "sleep=60" + ("&where=method:POST" if i % 2 else ""))
        server.wait_for_parked(4 * SIXTY_FOUR)
        assert server.metric("longline_buffer_bytes") > 0
        for i, client in enumerate(clients):
            client.abort() if i % 2 else client.close()
        server.wait_for_parked(0)
        server.wait_for_metric("longline_buffer_bytes", 0)


def test_who_hangs_up_while_channels_are_read(serve, provider):
    server = serve()
    asked = [server.channel() for _ in range(SIXTY_FOUR)]
    for channel in asked:
        numbers(server, channel, 1)
    if provider != "memory":
        server.restart()
    for _ in range(5):
        server.send_signal(signal.SIGSTOP)
        clients = [server.client() for _ in range(8)]
        for client in clients:
            send(client, dict.fromkeys(asked, 0), "sleep=60")
            client.abort()
        server.send_signal(signal.SIGCONT)
        server.wait_for_parked(0)
    assert len(ask(server, dict.fromkeys(asked, 0))) == SIXTY_FOUR
    server.wait_for_metric("longline_buffer_bytes", 0)


def test_a_stop_answers_it(serve):
    server = serve()
    clients = [server.client() for _ in range(5)]
    for client in clients:
        send(client, {server.channel(): 0 for _ in range(SIXTY_FOUR)}, "sleep=60")
    server.wait_for_parked(5 * SIXTY_FOUR)
    server.stop()
    for client in clients:
        reply = client.read_reply()
        assert reply.closes and reply.text == '{"ok":true,"channels":{}}'
        assert client.read_to_end() == b""
        client.close()


def test_pipelined_ones(server, channels):
    numbers(server, channels[0], 1)
    with server.client() as client:
        send(client, {channels[0]: 0}, "")
        send(client, {channels[0]: 1, channels[1]: 0}, "sleep=0.2")
        send(client, {channels[0]: 0, channels[1]: 0}, "sleep=30")
        client.send(request_bytes("POST", channels[1], b"[1]"))
        first, second, third = (told(client.read_reply()) for _ in range(3))
        assert list(first) == list(third) == [channels[0]] and second == {}
        assert client.read_reply().status == 200


def test_a_storm(serve):
    """Several publishers and several that listen to all channels: each gets everything, in order."""
    server = serve(LOG_LEVEL="info", CHANNEL_STORAGE_MAXSIZE=100_000)
    asked = [server.channel() for _ in range(10)]
    listeners = [Listener(server, asked) for _ in range(4)]
    for listener in listeners:
        listener.start()

    def publish(seed):
        rng = random.Random(seed)
        with Client(server.address) as client:
            for _ in range(100):
                burst = [rng.choice(asked) for _ in range(rng.choice([1, 1, 2, 5, 20]))]
                client.send(b"".join(request_bytes("POST", channel, b"{}") for channel in burst))
                for _ in burst:
                    assert client.read_reply().status == 200

    publishers = [threading.Thread(target=publish, args=(seed,)) for seed in range(4)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    totals = {channel: server.get(channel + "?ts=-1").total for channel in asked}
    for listener in listeners:
        wait_until(lambda: listener.cursors == totals or listener.failure, "all updates")
        listener.stop()
