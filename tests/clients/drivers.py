"""The clients' driver programs: started, listened to, stopped, ended."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 20
STDERR = "driver-stderr"


class Driver:
    """One way to run one client. `text`: it gives the exact text of an update."""

    def __init__(self, name, program, before=(), after=(), text=False):
        self.name = name
        self.program = REPOSITORY / program
        self.command = [*before, str(self.program)]
        self.after = list(after)
        self.text = text

    def start(self, directory, url, ts=0, sleep=1, backoff_ms=20):
        return Run(self, directory, url, ts, sleep, backoff_ms)


PYTHON = "/usr/bin/python3"
DRIVERS = [
    Driver("lua5.1", "clients/lua/tests/driver.lua", ["lua5.1"]),
    Driver("luajit", "clients/lua/tests/driver.lua", ["luajit"]),
    Driver("gmod", "clients/lua/tests/driver.lua", ["luajit"], ["--gmod"]),
    Driver("node", "clients/js/tests/driver.mjs", ["node"], text=True),
    Driver("python", "clients/python/tests/driver.py", [PYTHON], text=True),
    Driver("python-asyncio", "clients/python/tests/driver.py", [PYTHON], ["--asyncio"], text=True),
]


class Run:
    """A driver that runs. Its lines are `events`, as they come."""

    def __init__(self, driver, directory, url, ts, sleep, backoff_ms):
        self.driver = driver
        self.events = []
        self._changed = threading.Condition()
        self._over = False
        self._stderr_path = Path(directory) / STDERR
        start = "-" if ts is None else str(ts)
        with open(self._stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                # The options stand behind the program and before the arguments, for any of them to be found.
                [*driver.command, *driver.after, url, start, str(sleep)],
                cwd=REPOSITORY,
                env={**os.environ, "BACKOFF_MS": str(backoff_ms), "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            at = time.monotonic()
            try:
                event = json.loads(line)
            except ValueError:
                event = {"not JSON": line.decode("utf-8", "replace")}
            with self._changed:
                self.events.append(event)
                self.last_at = at
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def alive(self):
        return not self._over

    def told(self):
        """What to say of it when a test fails."""
        stderr = self._stderr_path.read_text(errors="replace")[-3000:]
        return f"its last events: {self.events[-10:]}\nits exit code: {self.process.poll()}\nits stderr: {stderr}"

    def wait_for(self, condition, what):
        """Waits until condition(events) holds."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while not condition(self.events):
                assert not self._over, f"the driver ended before {what}\n{self.told()}"
                assert time.monotonic() < deadline, f"{PATIENCE_S} s without {what}\n{self.told()}"
                self._changed.wait(0.1)

    def wait_for_events(self, count):
        self.wait_for(lambda events: len(events) >= count, f"{count} events")

    def stop(self):
        """Closes its stdin. Returns the line it says goodbye with, and after how many seconds that came."""
        with self._changed:
            count = len(self.events)
        asked_at = time.monotonic()
        self.process.stdin.close()
        self.wait_for(lambda events: any("stopped" in event for event in events[count:]), "the line of its stop")
        seconds = self.last_at - asked_at
        assert self.exit_code() == 0, self.told()
        stopped = [event for event in self.events if "stopped" in event]
        assert stopped == self.events[-1:], f"it went on after it had stopped\n{self.told()}"
        self.events.pop()
        return stopped[0], seconds

    def exit_code(self):
        """Waits for it to end by itself."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver does not end\n{self.told()}") from None
        self._reader.join(PATIENCE_S)
        return code

    def finish(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
