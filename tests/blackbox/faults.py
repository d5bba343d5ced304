"""Lets a server's allocations, its accept() and its syncs fail where a test says so (tests/faults/faults.c)."""

import mmap
import struct
from pathlib import Path

from longline_server import preloaded

FIELDS = ("calls", "first", "until", "failed", "accept_error", "accepts_failed", "syncs", "sync_error", "live_bytes", "live_blocks", "page_bytes", "pid")
FOREVER = 2**64 - 1


class Shared:
    """A file of numbers that a test shares with its server, each under its name."""

    def __init__(self, path: Path, fields):
        self.path, self.fields = path, fields
        self.path.write_bytes(bytes(8 * len(fields)))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, field):
        return struct.unpack_from("q" if field.startswith("live") or field == "page_bytes" else "Q", self.memory, 8 * self.fields.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("Q", self.memory, 8 * self.fields.index(field), value)


class Faults(Shared):
    """Its fields are those of struct faults."""

    def __init__(self, directory: Path):
        super().__init__(directory / "faults", FIELDS)

    def settings(self):
        """For the server's environment."""
        return {
            "LD_PRELOAD": preloaded("faults"),
            "FAULTS_FILE": self.path,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def fail_allocation(self, nth, forever=False):
        """The nth allocation from now on fails, or all from it on."""
        self.stop()
        self["failed"] = 0
        self["first"] = first = self["calls"] + nth
        self["until"] = FOREVER if forever else first + 1

    def stop(self):
        """From now on no allocation fails."""
        self["until"] = 0
