"""What systemd and longline tell each other: notifications, the watchdog, and sockets that are passed."""

import os
import signal
import socket
import threading
import time

import pytest

from http_client import Client, Closed
from longline_server import BINARY, PATIENCE_S, Server, parse_address, wait_until
from systemd import Notifications, is_monotonic_now, listening, passing
from test_upgrade import write_old_file

# --- Type=notify ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_ready_and_stopping(start, tmp_path, is_abstract):
    with Notifications(tmp_path, is_abstract) as notifications:
        server = start(**notifications.settings)
        notifications.until(READY="1")
        assert server.get("/-/health").status == 200
        server.send_signal(signal.SIGTERM)
        notifications.until(STOPPING="1")
        assert server.wait_for_exit() == 0


def test_an_upgrade_is_a_reload(start, tmp_path):
    """Type=notify-reload of systemd 253, with ReloadSignal=SIGUSR2."""
    with Notifications(tmp_path) as notifications:
        server = start(**notifications.settings)
        notifications.until(READY="1")
        for _ in range(2):
            server.send_signal(signal.SIGUSR2)
            message = notifications.until(RELOADING="1")
            assert is_monotonic_now(message["MONOTONIC_USEC"])
            assert notifications.until(READY="1")["STATUS"] == ""


def test_an_upgrade_that_fails_says_why(start_replaceable, tmp_path):
    with Notifications(tmp_path) as notifications:
        server = start_replaceable(**notifications.settings)
        notifications.until(READY="1")
        server.replace("echo no such library; exit 3")
        server.send_signal(signal.SIGUSR2)
        notifications.until(RELOADING="1")
        assert notifications.until(READY="1")["STATUS"] == "Upgrade failed: it exits with 3: no such library"


def test_an_upgrade_that_comes_back_says_why(start_replaceable, tmp_path):
    """The program is gone when the check of it is over."""
    with Notifications(tmp_path) as notifications:
        server = start_replaceable(**notifications.settings)
        notifications.until(READY="1")
        server.replace('rm "$0"; exec $LONGLINE "$@"')
        server.send_signal(signal.SIGUSR2)
        notifications.until(RELOADING="1")
        assert notifications.until(READY="1")["STATUS"] == "Upgrade failed: No such file or directory"
        os.symlink(BINARY, tmp_path / "longline")
        server.send_signal(signal.SIGUSR2)
        notifications.until(RELOADING="1")
        assert notifications.until(READY="1")["STATUS"] == ""


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket", "@", "@" + "x" * 300])
def test_a_socket_that_nobody_reads_does_not_matter(start, name):
    server = start(NOTIFY_SOCKET=name)
    server.push(server.channel())


def test_a_socket_that_is_full_holds_nothing_up(start, tmp_path):
    with Notifications(tmp_path) as notifications:
        server = start(**notifications.settings, WATCHDOG_USEC=2_000)
        notifications.until(READY="1")
        is_full, sender = False, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.setblocking(False)
        while not is_full:
            try:
                sender.sendto(b"STATUS=full", notifications.settings["NOTIFY_SOCKET"])
            except BlockingIOError:
                is_full = True
        for _ in range(2):
            server.upgrade()
            assert server.get("/-/health").status == 200
        sender.close()
        wait_until(lambda: "READY" in notifications.next(), "what there was no room for")


# --- The watchdog -----------------------------------------------------------------------------------


def test_the_watchdog_is_fed(start, tmp_path):
    with Notifications(tmp_path) as notifications:
        server = start(**notifications.settings, WATCHDOG_USEC=200_000)
        notifications.until(READY="1")
        for _ in range(3):
            notifications.until(WATCHDOG="1")
        server.send_signal(signal.SIGUSR2)
        notifications.until(RELOADING="1")
        notifications.until(READY="1")
        notifications.until(WATCHDOG="1")


def test_a_data_file_that_is_upgraded_feeds_it(start, tmp_path):
    old = tmp_path / "old.db"
    write_old_file(old, [b"channel"], 5000, int(time.time() * 1000) - 60_000)
    with Notifications(tmp_path) as notifications:
        start(**notifications.settings, DATA_PATH=old)
        seen = []
        while "READY" not in (message := notifications.next()):
            seen.append(message)
        assert len(seen) >= 5 and seen[0] == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "60000000"}, seen


def test_the_pause_begins_with_a_report(start, tmp_path):
    with Notifications(tmp_path) as notifications:
        server = start(**notifications.settings)
        notifications.until(READY="1")
        server.send_signal(signal.SIGUSR2)
        notifications.until(RELOADING="1")
        assert notifications.next()["WATCHDOG"] == "1"
        notifications.until(READY="1")


def test_a_loop_that_hangs_does_not_feed_it(start, tmp_path):
    with Notifications(tmp_path) as notifications:
        server = start(**notifications.settings, WATCHDOG_USEC=20_000)
        notifications.until(READY="1")
        notifications.until(WATCHDOG="1")
        server.send_signal(signal.SIGSTOP)
        wait_until(lambda: open(f"/proc/{server.pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T", "the stop")
        notifications.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                notifications.next()
        time.sleep(0.1)
        with pytest.raises(BlockingIOError):
            notifications.next()
        server.send_signal(signal.SIGCONT)
        notifications.sock.settimeout(PATIENCE_S)
        notifications.until(WATCHDOG="1")


@pytest.mark.parametrize("settings", [{"WATCHDOG_PID": 1}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_of_somebody_else(start, tmp_path, settings):
    with Notifications(tmp_path) as notifications:
        server = start(**{**notifications.settings, "WATCHDOG_USEC": 10_000, **settings})
        notifications.until(READY="1")
        server.send_signal(signal.SIGTERM)
        assert notifications.next() == {"STOPPING": "1"}
        assert server.wait_for_exit() == 0


# --- LISTEN_FDS -------------------------------------------------------------------------------------


@pytest.fixture
def activate(start):
    """Starts a server with sockets that listen already."""

    def start_with(*socks, settings=None, **more):
        return start(pass_on=passing(*socks, **more), **(settings or {}))

    return start_with


def test_it_serves_on_the_sockets_that_are_passed(activate, tmp_path):
    path = f"{tmp_path}/passed"
    socks = [listening(), listening(socket.AF_INET6, ("::1", 0)), listening(socket.AF_UNIX, path)]
    server = activate(*socks, settings={"LISTEN": "127.0.0.1:1,127.0.0.1:1,127.0.0.1:1"}, names="http:v6:unix")
    addresses = [sock.getsockname()[:2] if sock.family != socket.AF_UNIX else path for sock in socks]
    assert [parse_address(address) for address in server.addresses] == addresses
    assert 'setting without effect setting=LISTEN needs="no LISTEN_FDS"' in server.log()
    for _ in range(2):
        for address in addresses:
            with Client(address) as client:
                assert client.get("/-/health").status == 200
        server.upgrade()
    server.stop()
    assert os.path.exists(path)  # it is systemd's


def test_listen_that_names_the_unix_socket(activate, tmp_path):
    path = f"{tmp_path}/passed"
    assert "without effect" not in activate(listening(socket.AF_UNIX, path), settings={"LISTEN": f"unix:{path}"}).log()


@pytest.mark.parametrize("family, bound, wanted", [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
    (socket.AF_INET6, "::1", "[::1]"),
    (socket.AF_INET6, "::", "127.0.0.1"),
])
def test_listen_that_says_what_the_socket_has_is_no_contradiction(activate, family, bound, wanted):
    """As with the unit, which sets LISTEN, and longline.socket."""
    sock = listening(family, (bound, 0))
    server = activate(sock, settings={"LISTEN": f"{wanted}:{sock.getsockname()[1]}"})
    assert "without effect" not in server.log()


def test_nothing_is_refused_while_the_process_is_replaced(activate):
    """The socket stays with systemd: who connects waits for the next process."""
    sock = listening()
    address = sock.getsockname()
    failures, pushed, is_over = [], [], threading.Event()

    def push():
        while not is_over.is_set():
            try:
                with Client(address) as client:
                    reply = client.post("/nobody-is-refused", "{}", {"Connection": "close"})
                    (pushed if reply.body == b"OK" else failures).append(reply)
            except (OSError, Closed) as failure:
                failures.append(failure)

    server = activate(sock)
    thread = threading.Thread(target=push)
    thread.start()
    try:
        for _ in range(3):
            before = len(pushed)
            wait_until(lambda: failures or len(pushed) > before + 20, "pushes")
            server.stop()
            server.start()
    finally:
        is_over.set()
        thread.join()
    assert not failures
    assert server.get("/nobody-is-refused").total == len(pushed)
    server.saw_target("/nobody-is-refused")


def refusal(directory, *socks, **more):
    """The line of a start that must fail."""
    server = Server(directory, pass_on=passing(*socks, **more), DATA_PROVIDER="memory")
    log_start = server.log_path.stat().st_size if server.log_path.exists() else 0
    server.launch()
    assert server.wait_for_exit() == 2
    return server.log(log_start)


def test_what_is_no_listening_socket_is_refused(tmp_path):
    wrong = "is no listening stream socket (Accept=no, ListenStream=)"
    assert refusal(tmp_path, listening(listens=False)) == f"longline: LISTEN_FDS: descriptor 3 {wrong}\n"
    assert refusal(tmp_path, listening(), listening(kind=socket.SOCK_DGRAM, listens=False), names="a:b") == f"longline: LISTEN_FDS: descriptor 4 (b) {wrong}\n"
    pair = socket.socketpair()
    assert refusal(tmp_path, pair[0]) == f"longline: LISTEN_FDS: descriptor 3 {wrong}\n"
    assert refusal(tmp_path, count=1) == f"longline: LISTEN_FDS: descriptor 3 {wrong}\n"
    assert refusal(tmp_path, listening(), count=17) == "longline: LISTEN_FDS: at most 16 sockets\n"


def test_sockets_that_are_for_another_process_do_not_count(activate):
    sock = listening()
    server = activate(sock, pid=1)
    assert server.port != sock.getsockname()[1]
    server.push(server.channel())
