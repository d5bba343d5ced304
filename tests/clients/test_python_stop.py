"""The Python client: stop, close, cancellation and signals."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from program import PYTHON
from longline_server import PATIENCE_S, wait_until
from python_client import CLIENT, AsyncChannel, Channel, LonglineError, Stopped, push_sync
from standin import bound_socket, refusal, reply
from stops import TRIES, check_stops_at_once

# --- stop ---


class Loop:
    """A thread that loops over a channel's updates."""

    def __init__(self, channel, **options):
        self.updates = channel.updates(**options)
        self.got = []
        self.failure = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            for update in self.updates:
                self.got.append(update)
            self.ended_at = time.monotonic()
        except BaseException as failure:
            self.failure = failure

    def end_with(self, stop):
        """Calls stop() and returns how long the loop took to end."""
        asked_at = time.monotonic()
        stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive() and self.failure is None, self.failure
        return self.ended_at - asked_at


@pytest.mark.parametrize("how", ["channel.stop", "channel.close", "updates.stop", "updates.close"])
def test_stop_ends_a_waiting_poll(server, url, how):
    def measure():
        channel = Channel(url)
        loop = Loop(channel, sleep=60)
        server.wait_for_parked(1)
        owner = {"channel": channel, "updates": loop.updates}[how.split(".")[0]]
        seconds = loop.end_with(getattr(owner, how.split(".")[1]))
        server.wait_for_parked(0)
        channel.close()
        return seconds

    check_stops_at_once(measure)


def test_stop_ends_a_poll_over_tls(stand_in, tls):
    def measure():
        server = stand_in([reply(1, ["over TLS"])], tls=tls[0])
        channel = Channel(server.url, context=tls[1])
        loop = Loop(channel)
        server.wait_for_held()
        seconds = loop.end_with(channel.stop)
        assert loop.got == [["over TLS"]]
        return seconds

    check_stops_at_once(measure)


def test_stop_ends_a_tls_handshake():
    def measure():
        with bound_socket(0) as sock:
            sock.listen()
            channel = Channel(f"https://127.0.0.1:{sock.getsockname()[1]}/a")
            loop = Loop(channel)
            peer, _ = sock.accept()
            with peer:
                peer.recv(1)
                return loop.end_with(channel.stop)

    check_stops_at_once(measure)


def test_stop_ends_a_backoff(stand_in):
    def measure():
        server = stand_in([refusal(503, Retry_After="60")])
        told = threading.Event()
        channel = Channel(server.url)
        loop = Loop(channel, on_error=lambda _: told.set())
        assert told.wait(PATIENCE_S)
        return loop.end_with(channel.stop)

    check_stops_at_once(measure)


def test_stop_ends_a_connect(silent_url):
    def measure():
        channel = Channel(silent_url)
        loop = Loop(channel)
        wait_until(lambda: loop.updates._connection._socket, "the connect")
        return loop.end_with(channel.stop)

    check_stops_at_once(measure)


def test_stop_ends_the_resolution_of_a_name(monkeypatch):
    called, over = threading.Event(), threading.Event()

    def hang(*_, **__):
        called.set()
        over.wait()
        raise socket.gaierror("over")

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    def measure():
        called.clear()
        channel = Channel("http://name.example/a")
        loop = Loop(channel)
        assert called.wait(PATIENCE_S)
        return loop.end_with(channel.stop)

    try:
        check_stops_at_once(measure)
        with pytest.raises(LonglineError, match="could not be resolved in time"):
            push_sync("http://name.example/a", {}, timeout=0.05)
    finally:
        over.set()


def test_a_connect_that_is_not_answered(silent_url, push):
    with pytest.raises(LonglineError):
        push(silent_url, {}, timeout=0.05)


def stop_async(url, ready, **options):
    """How many seconds a waiting loop takes to end. ready() blocks, in a thread, until it waits."""

    async def run():
        channel = AsyncChannel(url, **options)

        async def loop():
            async for _ in channel.updates():
                pass
            return time.monotonic()

        task = asyncio.ensure_future(loop())
        await asyncio.to_thread(ready)
        asked_at = time.monotonic()
        channel.stop()
        return await task - asked_at

    return asyncio.run(run())


def test_stop_asyncio(server, url, stand_in, tls, silent_url):
    check_stops_at_once(lambda: stop_async(url, lambda: server.wait_for_parked(1)))
    server.wait_for_parked(0)
    over_tls = stand_in([reply(1, [1])], tls=tls[0])
    check_stops_at_once(lambda: stop_async(over_tls.url, over_tls.wait_for_held, context=tls[1]))
    refused = stand_in([refusal(503, Retry_After="60")] * TRIES)
    tries = iter(range(1, TRIES + 1))
    check_stops_at_once(lambda: stop_async(refused.url, lambda: refused.wait_for_requests(next(tries))))
    check_stops_at_once(lambda: stop_async(silent_url, lambda: None))


def test_a_task_that_is_cancelled_loses_nothing(server, url, channel):
    async def run():
        async with AsyncChannel(url) as other:
            updates = other.updates()
            for _ in range(3):
                task = asyncio.ensure_future(updates.__anext__())
                await asyncio.to_thread(server.wait_for_parked, 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(server.wait_for_parked, 0)
            channel.push([1])
            return await updates.__anext__(), updates.ts

    assert asyncio.run(run()) == ([1], 0)

# --- close ---


def test_after_close(channel):
    channel.close()
    assert list(channel.updates()) == []
    with pytest.raises(LonglineError, match="closed"):
        channel.push({})


def test_after_close_asyncio(url):
    async def run():
        channel = AsyncChannel(url)
        await channel.push({})
        await channel.close()
        assert [update async for update in channel.updates()] == []
        with pytest.raises(LonglineError, match="closed"):
            await channel.push({})

    asyncio.run(run())


def test_a_subscription_that_is_left_closes_its_connection(server, url):
    channel = Channel(url)
    channel.push([1])
    open_before = server.metric("longline_connections")
    with channel.updates() as updates:
        next(updates)
        assert server.metric("longline_connections") == open_before + 1
    server.wait_for_metric("longline_connections", open_before)
    for _ in channel.updates():
        break
    server.wait_for_metric("longline_connections", open_before)
    channel.close()


def test_close_closes_what_an_iterator_holds(channel, url):
    channel.push([1])
    for close in (lambda: other.close(), lambda: updates.close()):
        other = Channel(url)
        updates = other.updates()
        next(updates)
        held = updates._connection._socket
        close()
        assert held.fileno() == -1

    async def run():
        for close in (lambda: other.close(), lambda: updates.close()):
            other = AsyncChannel(url)
            updates = other.updates()
            await updates.__anext__()
            held = updates._connection._writer.get_extra_info("socket")
            await close()
            assert held.fileno() == -1

    asyncio.run(run())


def test_close_of_a_loop_that_waits(server, url):
    channel = Channel(url)
    loop = Loop(channel)
    server.wait_for_parked(1)
    held = loop.updates._connection._socket
    loop.end_with(channel.close)
    assert held.fileno() == -1

    async def run():
        channel = AsyncChannel(url)
        updates = channel.updates()
        task = asyncio.ensure_future(updates.__anext__())
        await asyncio.to_thread(server.wait_for_parked, 1)
        held = updates._connection._writer.get_extra_info("socket")
        await channel.close()
        assert held.fileno() == -1
        with pytest.raises(StopAsyncIteration):
            await task

    server.wait_for_parked(0)
    asyncio.run(run())


@pytest.mark.parametrize("end", ["channel", "updates"])
def test_close_from_a_callback(stand_in, end):
    """The loop is using the connection then, and closes it itself."""
    channel = Channel(stand_in([reply(5, [5], missed=4)]).url)
    held = []

    def close(_):
        held.append(updates._connection._socket)
        {"channel": channel, "updates": updates}[end].close()

    updates = channel.updates(on_missed=close)
    assert list(updates) == []
    assert held[0].fileno() == -1

# --- signals ---


def at_every_line(begin):
    """begin() returns (work, handler, check). Runs work() with handler() before each line."""
    source = (str(CLIENT / "src"), threading.__file__)
    nth = lines = 0
    while lines >= nth:
        nth, lines = nth + 1, 0
        work, handler, check = begin()

        def trace(frame, event, _):
            nonlocal lines
            if not frame.f_code.co_filename.startswith(source):
                return None
            if event == "line":
                lines += 1
                if lines == nth:
                    handler()
            return trace

        outcome = []

        def run():
            sys.settrace(trace)
            try:
                outcome.append(work())
            except Exception as error:
                outcome.append(error)
            finally:
                sys.settrace(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        assert outcome, f"it hangs when the handler is called at its line {nth}"
        if lines >= nth:
            check(*outcome)
    assert nth > 1


def test_a_signals_handler_may_call_close(url):
    """It does not matter what the interrupted thread is about to do."""

    def subscribe():
        channel = Channel(url)

        def check(updates):
            assert updates._connection.stopped

        return channel.updates, channel.close, check

    def wait():
        connection = Channel(url).updates()._connection

        def check(outcome):
            assert isinstance(outcome, Stopped)

        return lambda: connection.wait(0.2), connection.stop, check

    def push():
        channel = Channel(url)

        def check(outcome):
            assert isinstance(outcome, (int, LonglineError)), outcome
            assert all(connection._socket is None for connection in channel._idle)

        return lambda: channel.push([]), channel.close, check

    for begin in (subscribe, wait, push):
        at_every_line(begin)


PROGRAM = """
import sys
sys.path.insert(0, {source!r})
from longline import Channel
for update in Channel(sys.argv[1]).updates():
    print(update, flush=True)
"""


ASYNCIO_PROGRAM = """
import asyncio, sys
sys.path.insert(0, {source!r})
from longline import AsyncChannel
async def main():
    async for update in AsyncChannel(sys.argv[1]).updates():
        print(update, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [PROGRAM, ASYNCIO_PROGRAM], ids=["sync", "asyncio"])
@pytest.mark.parametrize("state", ["waiting", "backing off"])
def test_ctrl_c_ends_at_once(stand_in, program, state):
    script = [reply(1, [1])] + ([] if state == "waiting" else [refusal(503, Retry_After="60")])
    server = stand_in(script)
    command = [PYTHON, "-B", "-W", "error", "-c", program.format(source=str(CLIENT / "src")), server.url]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job ignores it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        try:
            if state == "waiting":
                server.wait_for_held()
            else:
                assert re.search(r"the next try is in [6-9]\d\.\d s", process.stderr.readline())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)  # it would go on for a minute
        finally:
            process.kill()
    assert out == "[1]\n"
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert process.returncode == -signal.SIGINT
