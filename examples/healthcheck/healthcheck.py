#!/usr/bin/env python3
"""Servers that watch each other: each tells the others that it is alive, and reports whoever falls silent.

    healthcheck.py NAME URL
"""

import sys
import threading
import time
from pathlib import Path

# The client of this checkout; with `pip install` this line goes.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))
from longline import Channel, LonglineError

BEAT_S = 1
SILENT_BEATS = 3


def report(message):
    """Your part: a message to you, in place of this line."""
    print(message, flush=True)


class Watch:
    """Who was heard when.

    A server's own beats come back to it like those of the others, and they are its clock: a peer is silent when more
    than three of them came without one of the peer's in between. While the line to longline is down there are no beats
    at all, so nobody is called down for that, however long it takes.
    """

    def __init__(self, name):
        self.name = name
        self.beats = 0
        self.heard_at = {}
        self.down = set()

    def hear(self, name):
        if name == self.name:
            self.beats += 1
            self.look()
            return
        if name not in self.heard_at:
            report(f"{name} is there")
        elif name in self.down:
            report(f"{name} is back")
        self.heard_at[name] = self.beats
        self.down.discard(name)

    def look(self):
        for peer, at in self.heard_at.items():
            if self.beats - at > SILENT_BEATS and peer not in self.down:
                self.down.add(peer)
                report(f"{peer} is DOWN: silent for more than {SILENT_BEATS * BEAT_S} s")


def beat(channel, name):
    """Says once that it is alive. Returns the update's ts, or None."""
    try:
        return channel.push({"alive": name})
    except LonglineError as error:
        print(f"cannot tell that I am alive: {error}", file=sys.stderr, flush=True)


def keep_beating(channel, name):
    next_at = time.monotonic()
    while True:
        next_at += BEAT_S
        # A beat that was late is not made up for.
        next_at = max(next_at, time.monotonic())
        time.sleep(max(0, next_at - time.monotonic()))
        beat(channel, name)


def main(name, url):
    channel = Channel(url, timeout=3)
    # What was said before is no sign of life: it hears from its own first beat on.
    while (ts := beat(channel, name)) is None:
        time.sleep(BEAT_S)
    threading.Thread(target=keep_beating, args=(channel, name), daemon=True).start()
    watch = Watch(name)
    # With its own beats every poll is over in a second: one that lasts longer hangs on a dead connection.
    for update in channel.updates(ts=ts, sleep=3):
        if isinstance(update, dict) and isinstance(update.get("alive"), str):
            watch.hear(update["alive"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
