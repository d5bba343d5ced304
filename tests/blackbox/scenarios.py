"""What a server does while strace ends it at a system call, or lets calls fail.

Each run of a scenario begins with the same data.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from http_client import GONE
from longline_server import wait_until
from script import Script
from strace import Strace, UNTRACED, counts, on_files, stop_tracer, tracer_of
from test_upgrade import check_all, now_ms, write_old_file

BOUND = 20  # updates a channel, where more are there to be swept

# With what a store writes; and with what replies and other news are sent.
FILE_CALLS = "openat,write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,fallocate,rename,renameat2,unlink,unlinkat,mmap"
REPLY_CALLS = "write,writev,sendto,sendmsg,io_uring_enter"


class Call:
    """The nth call of that name that a thread makes; of all, or of those on the data's files."""

    def __init__(self, name, nth, is_of_file=True):
        self.name, self.nth, self.is_of_file = name, nth, is_of_file

    def __str__(self):
        return f"{self.name} no. {self.nth}{' of a data file' if self.is_of_file else ''}"


class Scenario:
    """What is done to a server that serves already."""

    calls = ((FILE_CALLS, True),)  # that are interesting: names, and whether only those on the data's files

    def __init__(self, start, directory):
        self.template = directory / "template"
        self.trace = directory / "trace"
        self.may_fail = False  # calls do: what is waited for need not come
        self.server = start(LOG_LEVEL="info", **UNTRACED)
        self.prepare()
        if self.server.process:
            self.server.stop()
        self.template.mkdir()
        for path in self.files():
            shutil.copy2(path, self.template)

    def files(self):
        return list(self.server.data_path.parent.glob(f"{self.server.data_path.name}*"))

    def prepare(self):
        """Leaves the data as each run finds it."""

    def begin(self):
        """What comes before strace."""
        self.server.start()
        self.script = Script(self.server)
        self.script.play()

    def act(self):
        self.script.play()

    def check(self):
        self.script.check()

    # --- a run ---

    def reset(self):
        self.end()
        for path in self.files():
            path.unlink()
        for path in self.template.iterdir():
            shutil.copy2(path, self.server.data_path.parent)

    def run(self, words, output="/dev/null"):
        """One run under strace, which is still there when it ends."""
        self.reset()
        self.begin()
        self.tracer = Strace(self.server, [*words, "-o", str(output)])
        self.act()

    def run_with(self, call, tampering):
        words = on_files(self.server.data_path) if call.is_of_file else []
        self.run([*words, "-e", f"trace={call.name}", "-e", f"inject={call.name}:{tampering}"])

    def let_go(self):
        """Nobody interferes any more."""
        self.tracer.let_go()

    def was_killed(self):
        """Whether strace did it. It takes a moment, which begins at the latest when strace lets go."""
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.process.wait(10 if self.script.was_cut_off else 0.1)
        return self.is_dead

    def end(self):
        if self.server.process:
            self.server.kill9()

    @property
    def is_dead(self):
        return self.server.process.poll() is not None

    def all_calls(self):
        """Those that it makes when nothing happens to it."""
        found = []
        for names, is_of_file in self.calls:
            words = on_files(self.server.data_path) if is_of_file else []
            self.run([*words, "-e", f"trace={names}"], self.trace)
            self.let_go()
            self.end()
            for name, count in sorted(counts(self.trace).items()):
                found += [Call(name, nth, is_of_file) for nth in range(1, count + 1)]
        return found

    def await_or_death(self, condition, what):
        """Waits for the condition while it lives; if calls fail, not long."""
        end = time.monotonic() + 1.5

        def is_over():
            return self.is_dead or (self.may_fail and time.monotonic() > end) or condition()

        wait_until(is_over, what)


class Work(Scenario):
    calls = ((FILE_CALLS, True), (REPLY_CALLS, False))


class WorkWithoutUring(Work):
    """Replies go out by other calls."""

    calls = ((REPLY_CALLS, False),)

    def prepare(self):
        self.server.settings["IO_URING"] = "off"


class Stop(Scenario):
    def act(self):
        self.server.send_signal()
        self.server.process.wait(300)


class Sweep(Scenario):
    """Of what is past the bound on the updates of a channel."""

    def prepare(self):
        self.first = Script(self.server)
        for _ in range(5):
            self.first.push(self.first.plain, 60)
        self.server.settings["CHANNEL_STORAGE_MAXSIZE"] = BOUND

    def begin(self):
        self.server.start()
        self.script = self.first.fork(BOUND)

    def act(self):
        self.script.push(self.script.plain)
        self.await_or_death(lambda: self.swept() > 200, "the sweep")

    def swept(self):
        try:
            return self.server.metric("longline_store_swept_total")
        except GONE:
            return 0


class Copy(Scenario):
    """Of the write-ahead log into the database, when it is large."""

    def prepare(self):
        self.server.settings["DATA_MAX_BYTES"] = 1 << 20  # it is large with a quarter of that

    def begin(self):
        self.server.start()
        self.script = Script(self.server)

    def act(self):
        before = os.path.getsize(self.server.data_path)
        for _ in range(16):
            self.script.push(self.script.plain, size=30_000)
        self.await_or_death(lambda: os.path.getsize(self.server.data_path) > before + 200_000, "the copy")
        self.script.play()


class LiveUpgrade(Scenario):
    calls = ((FILE_CALLS, True), (REPLY_CALLS, False))

    def act(self):
        before, log_start = self.server.upgraded(), self.server.log_path.stat().st_size
        self.server.send_signal(signal.SIGUSR2)
        if not self.may_fail:
            self.script.push(self.script.plain, 3)

        def is_over():
            return self.server.upgraded() > before or "upgrade failed" in self.server.log(log_start)

        self.await_or_death(is_over, "the upgrade, or its failure")
        if not self.is_dead and not is_over():  # the old program is there again, and waits for its files
            self.let_go()
            wait_until(lambda: self.is_dead or is_over(), "the upgrade, or its failure")
        self.script.play()


class FirstStart(Scenario):
    """Of a server without a data file. Here strace is there from the program's first call on."""

    def prepare(self):
        self.server.stop()
        for path in self.files():
            path.unlink()
        self.first = Script(self.server)

    def run(self, words, output="/dev/null"):
        self.reset()
        self.script = self.first.fork()
        self.server.under = ["strace", "-D", "-I2", "-f", "-o", str(output), *words]
        self.log_start = self.server.log_path.stat().st_size
        self.server.launch()
        self.server.under = []
        wait_until(lambda: self.is_dead or self.server.listens(self.log_start), "the start, or its end")
        if not self.is_dead:
            self.script.play()

    def let_go(self):
        """strace is not our child, and has gone if the server has."""
        if self.server.process and (tracer := tracer_of(self.server.pid)):
            stop_tracer(tracer, lambda: not tracer_of(self.server.pid))


class StartAfterKill(FirstStart):
    def prepare(self):
        self.first = Script(self.server)
        for _ in range(5):
            self.first.play()
        self.server.kill9()


class OldFile(FirstStart):
    """Of the first version: it is upgraded at the start."""

    NAMES = (b"old-file-one", b"old-file-two", b"old-file-three")

    def prepare(self):
        super().prepare()
        write_old_file(self.server.data_path, self.NAMES, 300, now_ms())

    def check(self):
        check_all(self.server, self.NAMES, 300)
        super().check()


SCENARIOS = (Work, WorkWithoutUring, Stop, Sweep, Copy, LiveUpgrade, FirstStart, StartAfterKill, OldFile)
