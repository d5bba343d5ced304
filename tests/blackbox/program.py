"""A program of an example: started, spoken to, listened to, ended."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from longline_server import REPOSITORY, wait_until

EXAMPLES = REPOSITORY / "examples"
PYTHON = "/usr/bin/python3"


class Program:
    """Its stdin is a pipe, its stdout and stderr are files in `directory`."""

    def __init__(self, directory: Path, command, cwd, environment):
        directory.mkdir()
        self.command = [str(word) for word in command]
        self._stdout_path = directory / "stdout"
        self._stderr_path = directory / "stderr"
        with open(self._stdout_path, "wb") as stdout, open(self._stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                self.command,
                cwd=cwd,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                # A session of its own, for kill() to find whatever it starts.
                start_new_session=True,
            )

    @property
    def lines(self):
        """What it has written so far, without a line that is not finished."""
        return self._stdout_path.read_text(errors="replace").split("\n")[:-1]

    @property
    def stderr(self):
        return self._stderr_path.read_text(errors="replace")

    def told(self):
        return f"{self.command}, exit code {self.process.poll()}\nstdout: {self.lines[-20:]}\nstderr: {self.stderr[-3000:]}"

    def say(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def wait_for(self, condition, what, timeout_s=10):
        """Waits until condition(lines) is true and returns it."""

        def holds():
            ended = self.process.poll() is not None
            value = condition(self.lines)
            assert value or not ended, f"it ended without {what}: {self.told()}"
            return value

        try:
            return wait_until(holds, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def wait_for_line(self, text, timeout_s=10):
        """The first line with `text` in it."""
        return self.wait_for(lambda lines: next((line for line in lines if text in line), None), f"{text!r}", timeout_s)

    def wait_for_note(self, text, timeout_s=10):
        """Until `text` is in its stderr."""
        self.wait_for(lambda _: text in self.stderr, f"{text!r} in its stderr", timeout_s)

    def hang_up(self):
        """Closes its stdin and returns its exit code."""
        self.process.stdin.close()
        return self.wait()

    def terminate(self):
        self.process.terminate()
        return self.wait()

    def wait(self, timeout_s=10):
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.told()}") from None

    def kill(self):
        """As a power cut would end it, and all that it started."""
        while session := self.session():
            for pid in session:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def session(self):
        """The processes of its session that are alive."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(path.parent.name))
        return found
