"""Power cuts: what the disk may hold after one, worked out from all that a server did to its files (tests/faults/disk.c).

A sync of a file makes durable what was written to it before. Of what came later, each write may be on the disk, or not, or in
part: whole sectors, or its first bytes. A file may have its new size without its content. Files that were made, renamed or
removed since the folder was synced may be as before. What stood under a sync that failed may be there or not, whatever later
syncs say, until it is written again: Linux may forget that it was not written.
"""

import json
import os
import struct
import time
from pathlib import Path

from faults import Shared
from longline_server import preloaded

RECORD = struct.Struct("=IIqQq")
CONTROLS = ("sync_us", "failing", "error", "failed")
SECTOR = 512


class Recorder(Shared):
    """The log of what a server does to its files, and of what the test knows of it. It may be used by several threads."""

    def __init__(self, directory: Path, folder: Path):
        self.log_path, self.folder = directory / "disk.log", folder
        self.log_path.write_bytes(b"")
        self.log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND)
        super().__init__(directory / "disk.control", CONTROLS)

    def settings(self):
        """For the server's environment."""
        return {
            "LD_PRELOAD": preloaded("disk"),
            "DISK_FOLDER": self.folder,
            "DISK_LOG": self.log_path,
            "DISK_CONTROL": self.path,
            "ASAN_OPTIONS": "verify_asan_link_order=0",
            "SANDBOX": "off",  # which lets no library look up what a descriptor is
        }

    def note(self, what, **event):
        data = json.dumps({"what": what, **event}).encode()
        os.write(self.log, RECORD.pack(ord("A"), len(data), time.monotonic_ns(), 0, 0) + data)

    def records(self):
        content, at, records = self.log_path.read_bytes(), 0, []
        while at + RECORD.size <= len(content):
            kind, size, at_ns, inode, offset = RECORD.unpack_from(content, at)
            at += RECORD.size
            records.append((chr(kind), at_ns, inode, offset, content[at : at + size]))
            at += size
        return records

    def events(self):
        return [event_of(record) for record in self.records() if record[0] == "A"]

    def close(self):
        os.close(self.log)
        self.memory.close()


def event_of(record):
    """What the test has noted, and when."""
    return record[1], json.loads(record[4])


class File:
    """What is surely on the disk, and what was done since: [offset, data or None for a new size, how sure it is]."""

    def __init__(self, content=b""):
        self.base = bytearray(content)
        self.steps = []

    def synced(self, failed):
        for step in self.steps:
            if step[2] == "open":
                step[2] = "doubtful" if failed else "sure"
        while self.steps and self.steps[0][2] == "sure":
            offset, data, _ = self.steps.pop(0)
            apply(self.base, offset, data)

    def size(self):
        size = len(self.base)
        for offset, data, _ in self.steps:
            size = offset if data is None else max(size, offset + len(data))
        return size

    def after_cut(self, chance):
        content = bytearray(self.base)
        open_steps = [step for step in self.steps if step[2] != "sure"]
        how = chance.choice(("none", "all", "each", "each", "parts", "parts", "first", "but one", "one"))
        lucky = chance.random()
        first = chance.randrange(len(open_steps) + 1)
        end, number = 0, -1
        for step in self.steps:
            offset, data, state = step
            if state == "sure":
                apply(content, offset, data)
                continue
            number += 1
            is_kept = {
                "none": False,
                "all": True,
                "each": chance.random() < lucky,
                "parts": True,
                "first": number < first,
                "but one": number != first,
                "one": number == first,
            }[how]
            if data is None:
                if is_kept:
                    apply(content, offset, None)
                continue
            end = max(end, offset + len(data))
            is_torn = how == "parts" or (how != "all" and chance.random() < 0.1)
            if is_torn:
                tear(content, offset, data, chance, lucky)
            elif is_kept:
                apply(content, offset, data)
        if end > len(content) and chance.random() < 0.3:
            content += bytes(end - len(content))
        return bytes(content)


def apply(content, offset, data):
    if data is None:
        del content[offset:]
        content += bytes(offset - len(content))
        return
    if offset > len(content):
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data


def tear(content, offset, data, chance, lucky):
    """Writes some of its sectors, or its first bytes."""
    if chance.random() < 0.2:
        apply(content, offset, data[: chance.randrange(len(data) + 1)])
        return
    at = 0
    while at < len(data):
        size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        if chance.random() < lucky:
            apply(content, offset + at, data[at : at + size])
        at += size


class Disk:
    """The files while the records are played."""

    def __init__(self, files=()):
        """`files`: {name: content} that are there, synced."""
        self.inodes = {}
        self.folder = {name: File(content) for name, content in dict(files).items()}  # as programs see it
        self.durable = dict(self.folder)
        self.steps = []  # of the folder, not synced

    def play(self, record):
        kind, _, inode, offset, data = record
        file = self.inodes.get(inode)
        if kind == "Z":
            self.found(data.decode(), inode, offset)
        elif kind == "C":
            self.inodes[inode] = self.folder[data.decode()] = File()
            self.steps.append((data.decode(), self.inodes[inode]))
        elif kind == "W":
            file.steps.append([offset, data, "open"])
        elif kind == "T":
            file.steps.append([offset, None, "open"])
        elif kind == "M":
            old, new = data.decode().split("\0")
            self.folder[new] = self.folder.pop(old)
            self.steps.append((old, new))
        elif kind == "U":
            self.folder.pop(data.decode())
            self.steps.append((data.decode(), None))
        elif kind == "F":
            file.synced(offset != 0)
        elif kind == "D":
            self.durable = dict(self.folder)
            self.steps.clear()

    def found(self, name, inode, size):
        """A file at the start of a program. A kill may have come between the note of a write and the write."""
        file = self.inodes[inode] = self.folder[name]
        if file.size() != size and file.steps and file.steps[-1][2] == "open":
            file.steps.pop()
        assert file.size() == size, (name, file.size(), size)

    def after_cut(self, chance):
        """{name: content}."""
        names = dict(self.durable)
        kept = chance.choice((0, len(self.steps), chance.randrange(len(self.steps) + 1)))
        for step in self.steps[:kept]:
            if isinstance(step[1], File):
                names[step[0]] = step[1]
            elif step[1] is None:
                names.pop(step[0], None)
            elif step[0] in names:
                names[step[1]] = names.pop(step[0])
        return {name: file.after_cut(chance) for name, file in names.items()}
