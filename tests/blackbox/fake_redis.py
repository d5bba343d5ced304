"""Stand-ins that answer as a Sentinel or a cluster's node would, when and what the test wants: a moment of a failover that lasts."""

import contextlib
import socket
import threading
from collections import Counter

from redis_server import HOST, PATIENT, SLOTS


class FakeRedis:
    """Answers each command with what answer(words) returns: a str is a status, bytes a string, an Exception an error."""

    def __init__(self):
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.asked, self.answered = Counter(), Counter()  # how often each command came and was answered, by its first words
        self.lines = []
        self.quiet = {}  # command → the event that it waits for
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.speak()
        self.cut()

    def cut(self):
        """Closes every connection."""
        for line in self.lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def hush(self, *commands):
        """From now on these commands (all, if none is named) get no answer until speak()."""
        event = threading.Event()
        for command in commands or ("",):
            self.quiet[command] = event

    def speak(self):
        """Answers what it owes, and everything that comes."""
        quiet, self.quiet = self.quiet, {}
        for event in quiet.values():
            event.set()

    def answer(self, words):
        return Exception("ERR unknown command")

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.lines.append(self.listener.accept()[0])
                threading.Thread(target=self._serve, args=(self.lines[-1],), daemon=True).start()

    def _serve(self, line):
        with contextlib.suppress(OSError, ValueError), line, line.makefile("rb") as incoming:
            while header := incoming.readline():
                words = [incoming.read(int(incoming.readline()[1:]) + 2)[:-2].decode("latin-1") for _ in range(int(header[1:]))]
                name = words[0].upper() + (" " + words[1].upper() if words[0].upper() in ("CLUSTER", "SENTINEL") else "")
                self.asked[name] += 1
                if event := self.quiet.get(name) or self.quiet.get(""):
                    event.wait()
                line.sendall(encode(self.answer(name, words)))
                self.answered[name] += 1


def encode(value):
    if isinstance(value, Exception):
        return b"-%s\r\n" % str(value).encode()
    if isinstance(value, str):
        return b"+%s\r\n" % value.encode()
    if isinstance(value, bytes):
        return b"$%d\r\n%s\r\n" % (len(value), value)
    if isinstance(value, int):
        return b":%d\r\n" % value
    return b"*%d\r\n" % len(value) + b"".join(map(encode, value))


class FakeSentinel(FakeRedis):
    def __init__(self, master, epoch=1):
        super().__init__()
        self.name(master, epoch)

    def name(self, master, epoch):
        """Whom it holds for the master, since which configuration."""
        self.told = (master.port, epoch, "master")

    def is_replacing(self, master, epoch=1):
        """It is in the midst of a failover, and still names the master that is being replaced."""
        self.told = (master.port, epoch, "master,s_down,o_down,failover_in_progress")

    @property
    def questions(self):
        return self.asked["SENTINEL GET-MASTER-ADDR-BY-NAME"]

    def hush(self):
        super().hush("SENTINEL MASTER", "SENTINEL GET-MASTER-ADDR-BY-NAME")

    def settings(self, *others, **more):
        addresses = ",".join(f"{HOST}:{sentinel.port}" for sentinel in (self, *others))
        return {"DATA_PROVIDER": "redis", "REDIS_SENTINEL": addresses, "REDIS_MASTER": "inbox", **PATIENT, **more}

    def answer(self, name, words):
        port, epoch, flags = self.told
        if name == "SENTINEL MASTER":
            state = {"name": words[2], "ip": HOST, "port": port, "flags": flags, "config-epoch": epoch}
            return [str(text).encode() for pair in state.items() for text in pair]
        if name == "SENTINEL GET-MASTER-ADDR-BY-NAME":
            return [HOST.encode(), str(port).encode()]
        return "PONG"


class FakeNode(FakeRedis):
    """A master of a cluster. It counts the pushes to each channel, and keeps nothing else."""

    def __init__(self):
        super().__init__()
        self.view = []  # who serves the slots, in equal parts, as it believes
        self.totals = Counter()

    def settings(self, **more):
        return {"DATA_PROVIDER": "redis", "REDIS_HOST": HOST, "REDIS_PORT": self.port, **PATIENT, **more}

    @property
    def beats(self):
        """What it is asked while nobody asks for anything."""
        return self.asked["PING"] + self.asked["EVAL"]

    def answer(self, name, words):
        if name == "EVALSHA":
            return self._read(words[3]) if len(words) == 3 + 3 + 8 else self._append(words[3:])
        if name == "CLUSTER SLOTS":
            count = len(self.view)
            return [
                [SLOTS * i // count, SLOTS * (i + 1) // count - 1, [HOST.encode(), node.port, b"%040d" % node.port]]
                for i, node in enumerate(self.view)
            ]
        if name == "CLUSTER NODES":
            return b"0 :0@0 myself,master - 0 0 1 connected\n"
        if name == "INFO":
            return b"redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n"
        if name == "CONFIG":
            return [b"appendfsync", b"always"]
        if name in ("SSUBSCRIBE", "SUNSUBSCRIBE"):
            return [name.lower().encode(), words[1].encode(), 1]
        return "PONG"

    def _read(self, key):
        total = self.totals[key]
        return [total, total, total + 1, [], [], 0, b"", total, 0]

    def _append(self, words):
        """KEYS: three of each channel. ARGV: five settings; of each channel: news, how many, their bodies and records."""
        first = next(i for i, word in enumerate(words) if word.isdigit())
        keys, at, totals = words[:first:3], first + 5, []
        for key in keys:
            count = int(words[at + 1])
            at += 2 + 2 * count
            self.totals[key] += count
            totals.append(self.totals[key])
        return [1000, b"", b"", *totals]
