"""What is left to somebody who has got into the server: tests/faults/intruder.c tries it from inside."""

import ctypes
import mmap
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from longline_server import BINARY, SLOW, Server, preloaded, wait_until
from strace import UNTRACED

UPGRADES = 18  # there can be 16 sandboxes of Landlock
LOOP, STORE = 1, 2
NAME_BYTES = 24
# What Landlock keeps; it has had some of it from a version on.
FILES = {"shell": 1, "passwd": 1, "another process": 1, "write outside": 1, "connect": 4, "signal": 6}
# What looks up a name server at fe80::1%eth0.
NEEDED = {"interface"}
# What only root may do where nothing forbids it.
OF_ROOT = {"AF_PACKET", "SOCK_PACKET", "SOCK_RAW", "chroot", "bpf", "TIOCSTI"}
# The sanitizers need them to look for leaks: there they may work.
OF_SANITIZERS = {"ptrace", "process_vm_readv", "dumpable", "another process"} if SLOW else set()


def landlock_version():
    return ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1)


class Intruder:
    """The file that a test shares with its server, a struct intruder, in the server's folder."""

    def __init__(self, outside):
        directory = outside.parent / "server-0"
        directory.mkdir()
        self.path = directory / "intruder"
        self.path.write_bytes(bytes(16 + 64 * (NAME_BYTES + 8)))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.settings = {
            "LD_PRELOAD": preloaded("intruder"),
            "INTRUDER_FILE": self.path,
            "INTRUDER_PORT": self.listener.getsockname()[1],
            "INTRUDER_OUTSIDE": outside,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def on(self, thread, server):
        """What works there, and how the rest failed, by name."""
        done = struct.unpack_from("Q", self.memory, 8)[0]
        struct.pack_into("Q", self.memory, 0, thread)

        def is_done():
            with server.client() as client:
                assert client.request("POST", server.channel(), b"{}").status == 200
            return struct.unpack_from("Q", self.memory, 8)[0] > done

        wait_until(is_done, "the intruder")
        tries = [struct.unpack_from(f"{NAME_BYTES}sq", self.memory, 16 + i * (NAME_BYTES + 8)) for i in range(64)]
        errors = {name.rstrip(b"\0").decode(): error for name, error in tries if name[0]}
        return {name for name, error in errors.items() if not error}, errors


@pytest.fixture
def intruder(tmp_path):
    intruder = Intruder(tmp_path / "outside")
    yield intruder
    intruder.listener.close()


def is_on(server, part):
    line = wait_until(lambda: re.search(r" sandbox( .*)\n", server.log()), "the line of the sandbox")[1]
    return f" {part}=on" in line


@pytest.mark.parametrize("thread", [LOOP, STORE], ids=["loop", "store"])
def test_nothing_is_left_to_an_intruder(start, intruder, thread):
    server = start(CORE_DUMPS="off", **intruder.settings)
    if not is_on(server, "seccomp"):
        pytest.skip("this kernel has no seccomp, or forbids it")
    version = landlock_version() if is_on(server, "landlock") else 0
    works, errors = intruder.on(thread, server)
    without = {name for name, since in FILES.items() if version < since} - OF_SANITIZERS
    assert works - OF_SANITIZERS == NEEDED | without, errors


def outcome(filter, architecture, call):
    """What the filter does with a system call whose arguments are 0."""
    data, at, value = struct.pack("<iIQ48x", call, architecture, 0), 0, 0
    while True:
        code, if_true, if_false, k = filter[at]
        at += 1
        match code:
            case 0x20:
                value = struct.unpack_from("<I", data, k)[0]
            case 0x54:
                value &= k
            case 0x05:
                at += k
            case 0x06:
                return k
            case _:
                at += if_true if {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: value & k}[code] else if_false


@pytest.mark.parametrize("name, architecture, openat, execveat, ptrace, bind", [("x86_64", 0xC000003E, 257, 322, 101, 49), ("aarch64", 0xC00000B7, 56, 281, 117, 200)])
def test_the_filter_of_each_processor(name, architecture, openat, execveat, ptrace, bind):
    """A release for another processor is made on this one."""
    made = subprocess.run([BINARY.parent / "src/filter", name], capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"\{(\w+), (\d+), (\d+), (\w+)\}", made.split("WITHOUT_SEAL")[0])
    filter = [tuple(int(field, 0) for field in line) for line in lines]
    assert [outcome(filter, architecture, call) >> 16 for call in (openat, execveat, ptrace, bind)] == [0x7FFF, 0x7FFF, 5, 5]


def test_without_the_sandbox_all_of_it_works(start, intruder):
    """Or the test above would prove nothing."""
    server = start(SANDBOX="off", CORE_DUMPS="on", **intruder.settings)
    works, errors = intruder.on(LOOP, server)
    may_fail = OF_ROOT if os.geteuid() else {"TIOCSTI"}
    if subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:  # in a chroot, say
        may_fail = may_fail | {"unshare", "namespace"}
    assert set(errors) - works <= may_fail, errors
    assert " sandbox landlock=off seccomp=off" in server.log()


def test_the_next_program_is_in_the_same_sandbox(start, intruder, tmp_path):
    """The package manager has replaced the file; sandboxes do not pile up, or there would be an end of upgrades."""
    program, new = tmp_path / "program/longline", tmp_path / "new"
    program.parent.mkdir()
    shutil.copy(BINARY, program)
    server = start(binary=program, **intruder.settings)
    before = Path(f"/proc/{server.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in before
    works, _ = intruder.on(LOOP, server)
    for _ in range(UPGRADES):
        shutil.copy(BINARY, new)
        os.rename(new, program)
        server.upgrade()
    assert intruder.on(LOOP, server)[0] - OF_SANITIZERS == works - OF_SANITIZERS
    after = Path(f"/proc/{server.pid}/status").read_text()
    for line in ("Seccomp", "Seccomp_filters", "NoNewPrivs"):
        assert re.findall(f"^{line}:.*", before, re.M) == re.findall(f"^{line}:.*", after, re.M)


def test_a_next_program_from_elsewhere_is_refused(start, tmp_path):
    program, elsewhere = tmp_path / "program/longline", tmp_path / "elsewhere/longline"
    for path in (program, elsewhere):
        path.parent.mkdir()
        shutil.copy(BINARY, path)
    server = start(binary=program)
    if not is_on(server, "landlock"):
        pytest.skip("this kernel has no Landlock, or forbids it")
    program.unlink()
    program.symlink_to(elsewhere)
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: 'goes on path=' in server.log() and 'error="permission denied"' in server.log(), "the refusal")
    server.push(server.channel())


@pytest.mark.parametrize("outcome, why", [("error=ENOMEM:when=2+", "Cannot allocate memory"), ("retval=0", "no rule holds for the folder of the data")])
def test_rules_that_fail_refuse_no_start(tmp_path, outcome, why):
    """Those that are left would keep the server from its data. On 9p, each is made, and none holds."""
    if landlock_version() < 1:
        pytest.skip("this kernel has no Landlock")
    server = Server(tmp_path / "server", **UNTRACED)
    server.under = ["strace", "-D", "-o", tmp_path / "trace", "-e", "trace=landlock_add_rule", "-e", f"inject=landlock_add_rule:{outcome}"]
    server.start()
    try:
        server.push(server.channel())
        assert f' sandbox landlock="{why}" seccomp=on' in server.log()
    finally:
        server.finish()


@pytest.mark.parametrize("is_there", [True, False], ids=["a file", "no file yet"])
def test_a_data_file_behind_links(start, tmp_path, is_there):
    real, middle, link = tmp_path / "data/real.db", tmp_path / "middle/link.db", tmp_path / "links/longline.db"
    for path in (real, middle, link):
        path.parent.mkdir()
    link.symlink_to("../middle/link.db")
    middle.symlink_to("../data/real.db")
    if is_there:
        first = start(DATA_PATH=real)
        first.stop()
    server = start(DATA_PATH=link)
    channel = server.channel()
    server.push(channel)
    server.upgrade()
    assert server.read_all(channel) == [(1, {})] and real.exists()


def test_sockets_in_folders_of_their_own(start, tmp_path):
    (tmp_path / "sockets").mkdir()
    path = tmp_path / "sockets/longline"
    server = start(LISTEN=f"unix:{path},127.0.0.1:0")
    server.upgrade()
    with server.client(address=str(path)) as client:
        assert client.request("POST", server.channel(), b"{}").status == 200
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("core_dumps", ["off", "on"])
def test_a_core_dump(start, core_dumps):
    server = start(CORE_DUMPS=core_dumps)
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("core dumps go elsewhere on this machine")
    _, most = resource.prlimit(server.pid, resource.RLIMIT_CORE)
    assert core_dumps == "on" or most == 0
    resource.prlimit(server.pid, resource.RLIMIT_CORE, (most, most))
    server.send_signal(signal.SIGABRT)
    server.wait_for_exit()
    assert bool(list(server.directory.glob("core*"))) == (core_dumps == "on")
