"""SIGUSR2 where something goes wrong: the server serves on, whichever program that is, and says why."""

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from http_client import Client
from longline_server import BINARY, PATIENCE_S, environment, wait_until
from streams import Stream
from test_durability import KEEP_ALL, SEED, Writers, check_channel
from test_live_upgrade import HEAD, UPGRADES, next_update, poll
from test_upgrade import write_old_file

pytestmark = pytest.mark.providers("sqlite", "redis")


# --- What does not start ----------------------------------------------------------------------------


@pytest.fixture
def replaceable(start_replaceable, tmp_path):
    return start_replaceable(LISTEN=f"127.0.0.1:0,unix:{tmp_path}/socket")


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
    """And who asks again meanwhile hears that."""
    server = replaceable
    server.replace("sleep 1000")
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: "upgrade begins" in server.log(), "the check")
    refused(server, "did not answer within 10 s")
    assert server.log().count("an upgrade is under way already") == 1


HEAD_OF_STATE = b"longline1" + bytes(7)


@pytest.mark.parametrize(
    "state",
    [None, b"", HEAD_OF_STATE, bytes(64), HEAD_OF_STATE + (2**64 - 64).to_bytes(8, "little") + bytes(40), HEAD_OF_STATE + (24).to_bytes(8, "little"), HEAD_OF_STATE + (24).to_bytes(8, "little") + b"\xff" * 40],
    ids=["no_file", "empty", "short", "no_magic", "index", "no_sockets", "sockets"],
)
def test_nonsense_that_is_handed_over_is_no_start(tmp_path, state):
    """As if a program before it had broken its file; there is none to go back to."""
    file = tmp_path / "state"
    file.write_bytes(state or b"")
    with open(file, "rb") as handed_over:
        fd = 1000 if state is None else handed_over.fileno()
        settings = environment({"LISTEN": "127.0.0.1:0", "DATA_PATH": tmp_path / "longline.db", "LONGLINE_HANDOVER": f"{fd} -1 {BINARY}"})
        ended = subprocess.run([BINARY, "serve"], env=settings, pass_fds=[handed_over.fileno()], capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False)
    why = "cannot be read: Bad file descriptor" if state is None else "makes no sense"
    assert (ended.returncode, ended.stderr) == (1, f"longline: what the old version handed over {why}\n")
    assert not (tmp_path / "longline.db").exists()


def test_a_program_older_than_the_data_file_changes_nothing(replaceable):
    server = replaceable
    server.push(server.channel())
    with sqlite3.connect(server.data_path) as database:
        database.execute("PRAGMA user_version = 77")
    refused(server, "schema version 77")
    with sqlite3.connect(server.data_path) as database:
        database.execute("PRAGMA user_version = 2")
    server.upgrade()


def disk(waits):
    """A library that makes a program wait so at each sync."""
    return f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int wait_and(const char *name, int fd) {{
    {waits}
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}}
int fsync(int fd) {{ return wait_and("fsync", fd); }}
int fdatasync(int fd) {{ return wait_and("fdatasync", fd); }}
"""


SLOW_DISK = disk("usleep(100000);")
STUCK_DISK = disk('while (access(getenv("STUCK"), F_OK) == 0) usleep(10000);')  # as long as that file is there


def preload(directory, source):
    """The settings of a program with this library in it."""
    library = directory / "preloaded.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=source, text=True, check=True)
    return {"LD_PRELOAD": library, "ASAN_OPTIONS": "verify_asan_link_order=0"}


def test_a_push_whose_client_has_gone_is_seen(start, tmp_path):
    """It is stored while nobody waits for its reply, and a poll waits for it."""
    server = start(**preload(tmp_path, SLOW_DISK))
    channel = server.channel()
    with poll(server, channel + "?ts=now&sleep=60&where=body.is:none"):
        server.wait_for_parked(1)
        server.send_signal(signal.SIGUSR2)
        while not server.metric("longline_upgrades_total"):  # unanswered while it is held
            with server.client() as client:
                client.send_request("POST", channel, "{}")
                server.get("/-/health")
                client.abort()
            for _ in range(20):
                server.get("/-/health")
        wait_until(lambda: server.get(channel + "?ts=now").ts == server.metric("longline_pushes_total") > 0, "the last push")


# Preloaded into a program, it keeps that from locking its data file, but not the one behind it.
FAILS = """
#include <errno.h>
#include <stdlib.h>
__attribute__((constructor)) static void forget(void) { unsetenv("LD_PRELOAD"); }
int flock(int fd, int operation) { errno = EWOULDBLOCK; return fd < 0 || operation ? -1 : -1; }
"""
# The same for the last of its listening sockets, when it has taken over all others.
FAILS_LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
__attribute__((constructor)) static void forget(void) { unsetenv("LD_PRELOAD"); }
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    int is_listening = 0, domain = 0;
    socklen_t len = sizeof(int);
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    if (!is_listening || domain != AF_UNIX)
        return ((int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl"))(epoll, operation, fd, event);
    errno = EPERM;
    return -1;
}
"""


def fails_with(library):
    return f'''if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD={library} exec $LONGLINE "$@" '''


def test_a_program_that_fails_after_its_check_gives_back(replaceable, tmp_path):
    """It has the sockets already when it finds that it cannot start."""
    server = replaceable
    server.replace(fails_with(preload(tmp_path, FAILS)["LD_PRELOAD"]))
    refused(server, "did not start: ", "is in use by another longline process")
    server.replace(fails_with(preload(tmp_path, FAILS_LATE)["LD_PRELOAD"]))
    refused(server, "did not start: ", "cannot take over the listening sockets: operation not permitted")
    with Client(f"{tmp_path}/socket") as client, server.client() as other:
        assert client.get("/-/health").status == other.get("/-/health").status == 200
    server.replace(f'if {IS_CHECK}; then rm "$0"; exec $LONGLINE "$@"; fi')
    refused(server, "No such file")
    assert server.upgraded() == server.metric("longline_upgrades_total") == 0
    os.symlink(BINARY, server.binary)
    server.upgrade()
    assert server.metric("longline_upgrades_total") == 1


def test_without_a_way_back_it_refuses(tmp_path):
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount anything")
    settings = environment({"LISTEN": f"unix:{tmp_path}/socket", "DATA_PATH": tmp_path / "longline.db"})
    log = tmp_path / "log"
    with open(log, "wb") as file, subprocess.Popen([*inside, BINARY, "serve"], env=settings, stderr=file) as process:
        try:
            wait_until(lambda: b"listening" in log.read_bytes(), "the start")
            process.send_signal(signal.SIGUSR2)
            wait_until(lambda: b"/proc/self/exe cannot be opened" in log.read_bytes(), "the refusal")
            with Client(f"{tmp_path}/socket") as client:
                assert client.post("/without-proc", "{}").total == 1
            process.terminate()
            assert process.wait(PATIENCE_S) == 0 or b"LeakSanitizer does not work" in log.read_bytes()
        finally:
            process.kill()


def test_a_store_that_does_not_get_on_refuses(start, tmp_path):
    stuck = tmp_path / "stuck"
    server = start(**preload(tmp_path, STUCK_DISK), STUCK=stuck)
    channel = server.channel()
    server.push(channel, '{"n":0}')
    with poll(server, channel + "?ts=1&sleep=60") as waiting, server.client() as sender:
        server.wait_for_parked(1)
        stuck.touch()
        sender.send_request("POST", channel, '{"n":1}')
        wait_until(lambda: server.metric("longline_buffer_bytes") > 0, "the push")
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: "the store does not get on" in server.log(), "the refusal")
        assert server.get("/-/health").status == 200
        stuck.unlink()
        assert sender.read_reply().body == b"OK" and waiting.read_reply().updates == [{"n": 1}]
    server.upgrade()


def test_memory_refuses(start):
    server = start(DATA_PROVIDER="memory")
    channel = server.channel()
    server.push(channel, '{"n":1}')
    refused(server, "DATA_PROVIDER=memory")
    assert server.get(channel).updates == [{"n": 1}]


def test_a_store_in_trouble_refuses(start):
    """Closed, its file could not be opened again."""
    server = start(LOG_LEVEL="info")
    channel = server.channel()
    for n in range(60):
        server.push(channel, json.dumps({"n": n, "blob": "x" * 10_000}))
    with poll(server, channel + "?ts=60&sleep=60") as client:
        server.wait_for_parked(1)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
        assert server.post(channel, json.dumps({"blob": "x" * 50_000})).status == 503
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade failed" in server.log(), "the refusal")
        assert "the data file cannot be written: " in server.log()
        assert server.get(channel + "?ts=59").updates[0]["n"] == 59 and server.metric("longline_polls_parked") == 1
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: server.post(channel, '{"n":60}').status == 200, "the room")
        assert client.read_reply().updates == [{"n": 60}]
    server.upgrade()
    assert server.get(channel + "?ts=60").updates == [{"n": 60}]


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


def test_requests_that_do_not_end_keep_the_old_program(start, redis):
    server = start(**redis.settings(REDIS_TIMEOUT=30_000), LOG_LEVEL="info")
    channel = server.channel()
    server.push(channel, '{"n":0}')
    with poll(server, channel + "?ts=1&sleep=60") as waiting, server.client() as sender, server.client() as other:
        server.wait_for_parked(1)
        redis.freeze()
        sender.send_request("POST", channel, '{"n":1}')
        wait_until(lambda: server.metric("longline_buffer_bytes") > 0, "the push")
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: "requests are under way that do not end" in server.log(), "the end")
        assert other.get("/-/health").status in (200, 503)
        redis.thaw()
        assert sender.read_reply().body == b"OK" and waiting.read_reply().updates == [{"n": 1}]
        server.upgrade()
        assert sender.get(channel + "?ts=1").updates == [{"n": 1}]


def test_no_room_for_the_state_keeps_the_listening_sockets(start):
    """Its file is larger than the process may write: connections are closed, none is refused."""
    server = start()
    channel = server.channel()
    with server.client() as client:
        client.send((HEAD % channel).encode() + b"Content-Length: 9000000\r\n\r\n" + b" " * 8_000_000)
        wait_until(lambda: server.metric("longline_buffer_bytes") > 8_000_000, "the upload")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
        server.upgrade()
        assert client.read_to_end() == b""
    assert "the connections cannot be handed over" in server.log()
    server.push(channel)


# --- What stands in the way -------------------------------------------------------------------------


def test_an_older_data_file_is_upgraded_on_the_way(replaceable):
    """As an older program would leave it: the newest update is in the write-ahead log."""
    server = replaceable
    name = server.channel()[1:]
    old, kept = server.directory / "old.db", server.directory / "kept.db"
    write_old_file(old, [name.encode()], 50, int(time.time() * 1000) - 60_000)
    database = sqlite3.connect(old)
    seq, channel, ts, _, mark, at = database.execute("SELECT seq, channel, ts, prev, skip, at FROM update_log ORDER BY seq DESC").fetchone()
    row = (seq + 1, channel, ts + 1, seq, mark, at, len('{"n":51}'), '{"n":51}')
    database.execute("INSERT INTO update_log VALUES (?,?,?,?,?,?,?,NULL,?,NULL,'POST','',NULL)", row)
    database.commit()
    for end in ("", "-wal"):
        shutil.copy(f"{old}{end}", f"{kept}{end}")
    database.close()
    server.replace(f"""if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        rm -f {server.data_path}*; cp {kept} {server.data_path}; cp {kept}-wal {server.data_path}-wal
        exec $LONGLINE "$@" """)
    with server.client() as client:
        client.get("/-/health")
        for _ in range(2):  # the second time, it is the new program that leaves it
            server.upgrade()
            server.replace('exec $LONGLINE "$@"')
            assert [update["n"] for update in client.get(f"/{name}?ts=49").updates] == [50, 51]


def test_a_kill_at_any_moment_of_it_loses_nothing(start):
    rng = random.Random(SEED)
    server = start(**KEEP_ALL)
    for _ in range(2 * UPGRADES):
        channels = [server.channel() for _ in range(8)]
        writers = Writers(server, channels, rng, 16)
        writers.run_until_killed(0.1 + 0.4 * rng.random(), upgrade_after_s=0.1)
        server.start()
        for channel, acknowledged in writers.acknowledged.items():
            check_channel(server, channel, acknowledged)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_is_checked_stops(replaceable, number, tmp_path):
    """The program that is checked is ended too; signals for one more upgrade change nothing."""
    replaceable.replace(f"echo $$ >{tmp_path}/checked; exec sleep 1000")
    with poll(replaceable, replaceable.channel() + "?sleep=60") as client:
        replaceable.wait_for_parked(1)
        replaceable.send_signal(signal.SIGUSR2)
        wait_until(lambda: (tmp_path / "checked").exists() and (tmp_path / "checked").read_text(), "the check")
        replaceable.send_signal(signal.SIGUSR2)
        wait_until(lambda: "an upgrade is under way already" in replaceable.log(), "the second signal")
        replaceable.stop(number)
        assert client.read_reply().status == 200
    checked = Path("/proc", (tmp_path / "checked").read_text().strip(), "stat")

    def is_over():
        try:
            stat = checked.read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return "(sleep)" not in stat or "(sleep) Z" in stat

    wait_until(is_over, "the end of the check")


def test_an_upgrade_behind_a_stop_changes_nothing(start, tmp_path):
    server = start(**preload(tmp_path, SLOW_DISK))
    server.push(server.channel())
    server.send_signal(signal.SIGTERM)
    while server.process.poll() is None:  # also while the store is being closed
        server.send_signal(signal.SIGUSR2)
        time.sleep(0.005)
    assert server.wait_for_exit() == 0


# A shell would let the signals come.
WAITS = """
import os, sys, time
_, folder, *program = sys.argv
open(folder + "/begun", "w").close()
while not os.path.exists(folder + "/go"):
    time.sleep(0.01)
os.execv(program[0], program)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_between_two_programs_waits_for_the_next(replaceable, tmp_path, number):
    replaceable.replace(f"""if {IS_CHECK}; then exec $LONGLINE "$@"; fi
        exec {sys.executable} -c '{WAITS}' {tmp_path} $LONGLINE "$@" """)
    replaceable.send_signal(signal.SIGUSR2)
    wait_until((tmp_path / "begun").exists, "the next program")
    replaceable.send_signal(number)
    (tmp_path / "go").touch()
    assert replaceable.wait_for_exit() == 0


def test_the_environment_keeps_nothing_of_it(replaceable, tmp_path):
    """Neither of an upgrade, nor of one that came back."""
    replaceable.upgrade()
    replaceable.replace(f'if {IS_CHECK}; then rm "$0"; exec $LONGLINE "$@"; fi')
    refused(replaceable, "No such file")
    replaceable.replace(f"""if {IS_CHECK}; then env >{tmp_path}/environment; fi; exec $LONGLINE "$@" """)
    replaceable.upgrade()
    found = (tmp_path / "environment").read_text()
    assert "DATA_PATH=" in found and "LONGLINE_HANDOVER" not in found and "LONGLINE_UPGRADE" not in found, found
