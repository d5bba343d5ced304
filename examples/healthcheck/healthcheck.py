#!/usr/bin/env python3
"""Servers that watch each other: each says that it is alive, and reports those that fall silent.

    healthcheck.py NAME URL
"""

import sys
import threading
import time
from pathlib import Path

# The client of this checkout. Delete this line if you have installed it with pip.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))
from longline import Channel, LonglineError

BEAT_S = 1
SILENT_BEATS = 3


def report(message):
    """Your code goes here: send yourself a message instead."""
    print(message, flush=True)


class Watch:
    """Who was heard, and when.

    A server receives its own beats like those of the others, and they are its clock: a peer is silent
    if more than three of them came with none of the peer's in between. While longline cannot be
    reached there are no beats at all, so nobody is reported, however long that takes.
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
        # Do not make up for a late beat.
        next_at = max(next_at, time.monotonic())
        time.sleep(max(0, next_at - time.monotonic()))
        beat(channel, name)


def main(name, url):
    channel = Channel(url, timeout=3)
    # Older beats are no sign of life: listen from our own first beat on.
    while (ts := beat(channel, name)) is None:
        time.sleep(BEAT_S)
    threading.Thread(target=keep_beating, args=(channel, name), daemon=True).start()
    watch = Watch(name)
    # Our own beats end every poll within a second. If one lasts longer, its connection is dead.
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
