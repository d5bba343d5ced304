"""The clocks of the programs that have its settings go as the test says (tests/faults/clock.c)."""

import time

from longline_server import preloaded

DAY_S = 86400


class Clocks:
    """The wall clock and the monotonic one: both are right at first."""

    def __init__(self, directory):
        self.path = directory / "clocks"
        self.path.write_bytes(bytes(16))
        self.settings = {"LD_PRELOAD": str(preloaded("clock")), "CLOCK_FILE": str(self.path), "ASAN_OPTIONS": "verify_asan_link_order=0"}
        self.wall_s = self.monotonic_s = 0

    def _move(self, wall_s, monotonic_s):
        self.wall_s, self.monotonic_s = wall_s, monotonic_s
        with open(self.path, "r+b") as file:
            file.write(wall_s.to_bytes(8, "little", signed=True) + monotonic_s.to_bytes(8, "little", signed=True))

    def set(self, days):
        """The wall clock is so many days ahead from now on."""
        self._move(round(days * DAY_S), self.monotonic_s)

    def is_near(self, at_ms):
        """Whether that is about what the wall clock shows."""
        return abs(at_ms / 1000 - time.time() - self.wall_s) < 3600

    def set_forward(self, seconds, wall=False):
        """Moves the monotonic clock, with `wall` both: time passes."""
        self._move(self.wall_s + (seconds if wall else 0), self.monotonic_s + seconds)

    def forward(self, server, seconds):
        """Moves the monotonic clock; the server looks at it when something happens, such as a request."""
        self.set_forward(seconds)
        with server.client() as client:
            assert client.get("/-/health").status == 200
