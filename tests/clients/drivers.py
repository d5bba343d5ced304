"""The clients' driver programs: how to start each, and how to listen to it."""

import json
import time
from pathlib import Path

from program import PYTHON, REPOSITORY, Program


class Driver:
    """One way to run one client. `text`: it reports the exact text of an update."""

    def __init__(self, name, program, before=(), after=(), text=False):
        self.name = name
        # The options stand behind the program and before the arguments.
        self.command = [*before, REPOSITORY / program, *after]
        self.text = text

    def start(self, directory, url, ts=0, sleep=1, backoff_ms=20, options=None):
        return Run(self, directory, url, ts, sleep, backoff_ms, options)


DRIVERS = [
    Driver("lua5.1", "clients/lua/tests/driver.lua", ["lua5.1"]),
    Driver("luajit", "clients/lua/tests/driver.lua", ["luajit"]),
    Driver("gmod", "clients/lua/tests/driver.lua", ["luajit"], ["--gmod"]),
    Driver("node", "clients/js/tests/driver.mjs", ["node"], text=True),
    Driver("python", "clients/python/tests/driver.py", [PYTHON], text=True),
    Driver("python-asyncio", "clients/python/tests/driver.py", [PYTHON], ["--asyncio"], text=True),
    Driver("tail", "tests/clients/tail_driver.py", [PYTHON]),
]


class Run(Program):
    """A driver that runs. Its lines are JSON: `events`, as they come."""

    def __init__(self, driver, directory: Path, url, ts, sleep, backoff_ms, options):
        self.driver = driver
        self._events = []
        command = [*driver.command, url, *("-" if value is None else str(value) for value in (ts, sleep))]
        if options:
            command.append(json.dumps(options))
        super().__init__(directory, command, environment={"BACKOFF_MS": str(backoff_ms)})

    def hear(self, line):
        super().hear(line)
        try:
            self._events.append(json.loads(line))
        except ValueError:
            self._events.append({"not JSON": line})

    @property
    def events(self):
        self.listen()
        return self._events

    def wait_for_events(self, count):
        self.wait_for(lambda _: len(self.events) >= count, f"{count} events")

    def stop(self):
        """Closes its stdin. Returns its last line, and after how many seconds that line came."""
        count = len(self.events)
        asked_at = time.monotonic()
        self.process.stdin.close()
        self.wait_for(lambda _: any("stopped" in event for event in self.events[count:]), "the line of its stop")
        seconds = self.heard_at - asked_at
        assert self.wait() == 0, self.describe()
        stopped = [event for event in self.events if "stopped" in event]
        assert stopped == self.events[-1:], f"it went on after it had stopped\n{self.describe()}"
        self.events.pop()
        return stopped[0], seconds
