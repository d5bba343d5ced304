"""Lets a server's allocations, its accept() and its syncs fail where a test says so (tests/faults/faults.c)."""

import mmap
import struct
from pathlib import Path

from longline_server import BINARY, REPOSITORY

FIELDS = ("calls", "first", "until", "failed", "accept_error", "accepts_failed", "syncs", "sync_error")
FOREVER = 2**64 - 1


def library():
    """It is built beside the program; a copy of the program finds that of the release build."""
    beside = BINARY.parent / "tests/faults/faults.so"
    return beside if beside.exists() else REPOSITORY / "build/tests/faults/faults.so"


class Faults:
    """The file that a test shares with its server. Its fields are those of struct faults."""

    def __init__(self, directory: Path):
        self.path = directory / "faults"
        self.path.write_bytes(bytes(8 * len(FIELDS)))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def settings(self):
        """For the server's environment."""
        return {
            "LD_PRELOAD": library(),
            "FAULTS_FILE": self.path,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
        }

    def __getitem__(self, field):
        return struct.unpack_from("Q", self.memory, 8 * FIELDS.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("Q", self.memory, 8 * FIELDS.index(field), value)

    def fail_allocation(self, nth, forever=False):
        """The nth allocation from now on fails, or all from it on."""
        self.stop()
        self["failed"] = 0
        self["first"] = first = self["calls"] + nth
        self["until"] = FOREVER if forever else first + 1

    def stop(self):
        """From now on no allocation fails."""
        self["until"] = 0
