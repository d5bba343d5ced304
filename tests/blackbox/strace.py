"""Ends a server at one of its system calls, or lets calls fail, by strace.

strace counts the calls of each thread by itself: "the third" is that of the thread that gets there first.
A thread that was there before strace was attached begins with 1, like the others.
"""

import collections
import contextlib
import os
import re
import signal
import subprocess

from longline_server import wait_until

CALL = re.compile(r"^(\d+) +(\w+)\(")
UNTRACED = {"ASAN_OPTIONS": "detect_leaks=0"}  # LeakSanitizer wants to trace by itself


def on_files(path):
    """Words for strace: only the calls that are about this data file, its companions and its folder."""
    names = [path, *(f"{path}{suffix}" for suffix in ("-wal", "-shm", "-journal", "-lock")), path.parent]
    return [word for name in names for word in ("-P", str(name))]


class Strace:
    """strace of a running server. It ends with it, or is told to let go."""

    def __init__(self, server, words):
        self.said = server.directory / "strace"
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(
                ["strace", "-f", *words, "-p", str(server.pid)], stdin=subprocess.DEVNULL, stderr=said
            )
        wait_until(lambda: self.text() or self.process.poll() is not None, "strace")
        assert "attached" in self.text(), f"strace is not allowed here: {self.text()}"

    def text(self):
        return self.said.read_text(errors="replace")

    def let_go(self):
        stop_tracer(self.process.pid, lambda: self.process.poll() is not None)


def stop_tracer(pid, has_gone):
    """SIGTERM makes strace let go, but it can wait for ever for a thread that is busy or dead; SIGKILL lets go too."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            return wait_until(has_gone, "strace to let go", 0.5)
        os.kill(pid, signal.SIGKILL)
    return wait_until(has_gone, "strace to end")


def tracer_of(pid):
    """The process id of who traces it, or 0."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("TracerPid:"))
    return 0


def counts(trace):
    """How often the busiest thread made each call."""
    of_threads = collections.Counter()
    for line in open(trace, errors="replace"):
        if call := CALL.match(line):
            of_threads[call.groups()] += 1
    most = collections.Counter()
    for (_thread, name), count in of_threads.items():
        most[name] = max(most[name], count)
    return most
