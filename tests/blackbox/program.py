"""A program that a test starts, speaks to, listens to and ends: a driver, a script, an example."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from longline_server import PATIENCE_S, REPOSITORY, wait_until

EXAMPLES = REPOSITORY / "examples"
PYTHON = "/usr/bin/python3"


class Program:
    """Its stdin is a pipe; its stdout and stderr are files in `directory`."""

    patience_s = PATIENCE_S

    def __init__(self, directory: Path, command, cwd=REPOSITORY, environment=None):
        directory.mkdir()
        self.command = [str(word) for word in command]
        self._stderr_path = directory / "stderr"
        self._lines = []
        self._rest = b""
        self.heard_at = 0.0  # when the last line was read
        stdout_path = directory / "stdout"
        with open(stdout_path, "wb") as stdout, open(self._stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                # Its own session, so that kill() finds whatever it starts.
                start_new_session=True,
            )
        self._stdout = open(stdout_path, "rb")

    # --- listening ---

    def listen(self):
        """Reads what it has written since the last time."""
        if self._stdout.closed:
            return
        *lines, self._rest = (self._rest + self._stdout.read()).split(b"\n")
        for line in lines:
            self.heard_at = time.monotonic()
            self.hear(line.decode("utf-8", "replace"))

    def hear(self, line):
        """Takes a line of its stdout."""
        self._lines.append(line)

    @property
    def lines(self):
        """What it has written so far, without an unfinished line."""
        self.listen()
        return self._lines

    @property
    def stderr(self):
        return self._stderr_path.read_text(errors="replace")

    @property
    def is_alive(self):
        return self.process.poll() is None

    def describe(self):
        """What to say about it when a test fails."""
        ending = f"{self.command}, exit code {self.process.poll()}"
        return f"{ending}\nstdout: {self.lines[-20:]}\nstderr: {self.stderr[-3000:]}"

    def wait_for(self, condition, what, timeout_s=None):
        """Waits until condition(lines) is true and returns it."""

        def holds():
            alive = self.is_alive  # before its last lines are read
            value = condition(self.lines)
            assert value or alive, f"it ended without {what}"
            return value

        try:
            return wait_until(holds, what, timeout_s or self.patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def wait_for_line(self, text, timeout_s=None):
        """Waits for a line with `text` in it and returns the first one."""
        return self.wait_for(lambda lines: next((line for line in lines if text in line), None), f"{text!r}", timeout_s)

    def wait_for_note(self, text, timeout_s=None):
        """Waits until its stderr contains `text`."""
        self.wait_for(lambda _: text in self.stderr, f"{text!r} in its stderr", timeout_s)

    # --- speaking ---

    def say(self, line=""):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    # --- ending ---

    def hang_up(self):
        """Closes its stdin and returns its exit code."""
        self.process.stdin.close()
        return self.wait()

    def terminate(self):
        self.process.terminate()
        return self.wait()

    def wait(self):
        """Waits until it ends and returns its exit code."""
        try:
            return self.process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.describe()}") from None

    def kill(self):
        """Ends it and everything that it started, as a power cut would."""
        while session := self.session():
            for pid in session:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.listen()
        self._stdout.close()

    def session(self):
        """The processes of its session that are alive."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(pid))
        return found
