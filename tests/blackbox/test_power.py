"""Power cuts: after any of them longline starts, and all that was acknowledged is there (power.py).

CUTS says how many there are. script/torture sets it to a thousand.
"""

import errno
import json
import os
import random
import secrets
import shutil
import subprocess
import threading
import time

import pytest

from http_client import Closed
from longline_server import BINARY, DAMAGE, Server, wait_until
from power import Disk, Recorder
from test_upgrade import now_ms, write_old_file

CUTS = int(os.environ.get("CUTS", 40))
SEED = os.environ.get("SEED") or secrets.token_hex(4)
NDJSON = {"Content-Type": "application/x-ndjson"}
KEPT = 150  # updates of a channel
INTERVAL_S = 1.5
# Retention and maintenance have something to do.
SETTINGS = {"CHANNEL_STORAGE_MAXSIZE": KEPT, "LOG_LEVEL": "info"}
ALL, PURGED, RING, ONCE = "all-0123456789", "purged-0123456789", "ring-0123456789", "once-0123456789"


@pytest.fixture
def chance():
    print(f"SEED={SEED}")
    return random.Random(SEED)


# --- What is done to a server ---


class Story:
    """A server that is used and ended in every way, with all that it does to its files on record."""

    def __init__(self, directory, chance, files=(), **settings):
        self.directory, self.chance, self.number = directory, chance, 0
        self.folder = directory / "data"
        self.folder.mkdir(parents=True)
        self.files = dict(files)
        for name, content in self.files.items():
            (self.folder / name).write_bytes(content)
        self.recorder = Recorder(directory, self.folder)
        settings = {**SETTINGS, **settings, **self.recorder.settings()}
        self.server = Server(directory, DATA_PATH=self.folder / "longline.db", **settings)

    # --- requests, each noted before and after ---

    def next_numbers(self, count):
        self.number += count
        return list(range(self.number - count + 1, self.number + 1))

    def push(self, channel, count=1, size=None, client=None):
        numbers = self.next_numbers(count)
        size = size if size is not None else self.chance.choice((10, 10, 10, 300, 3000, 20000))
        lines = ['{"n":%d,"x":"%s"}' % (n, "x" * size) for n in numbers]
        headers = {"webhook-id": f"id-{numbers[0]}"} if channel == ONCE else {}
        target = f"/{channel}" + ("?.once" if channel == ONCE else "")
        self.recorder.note("push", channel=channel, n=numbers)
        reply = (client or self.server).post(target, "\n".join(lines), {**headers, **(NDJSON if count > 1 else {})})
        assert reply.status in (200, 503), reply
        self.recorder.note("stored" if reply.status == 200 else "refused", channel=channel, n=numbers, **({"ts": reply.total} if reply.status == 200 else {}))
        return reply.status == 200

    def push_some(self, channel, count):
        for _ in range(count):
            self.push(channel)

    def confirm(self, name, ts):
        self.recorder.note("confirm", name=name, ts=ts)
        self.server.get(f"/{ALL}?as={name}&ts={ts}")

    def purge(self, upto):
        self.recorder.note("purge", upto=upto)
        reply = self.server.request("DELETE", f"/{PURGED}?upto={upto}")
        if reply.status == 200:
            self.recorder.note("purged", upto=upto)
        return reply.status == 200

    def push_together(self, senders, each):
        """Several at once, so that commits hold several."""
        lock = threading.Lock()

        def send():
            with self.server.client() as client:
                for _ in range(each):
                    with lock:
                        numbers = self.next_numbers(1)
                    self.recorder.note("push", channel=ALL, n=numbers)
                    reply = client.post(f"/{ALL}", '{"n":%d}' % numbers[0])
                    if reply.status == 200:
                        self.recorder.note("stored", channel=ALL, n=numbers, ts=reply.total)

        threads = [threading.Thread(target=send) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # --- chapters ---

    def work(self):
        self.push_some(ALL, 3)
        self.push(ALL, 5)
        self.push(RING, 60, 10)
        self.push_some(ONCE, 3)
        self.push(PURGED, 70, 100)
        self.push_some(PURGED, 2)

    def confirm_some(self):
        """Cursors that no push takes along are written some time later."""
        for _ in range(2):
            self.confirm("bot", self.chance.randrange(1, 5))
            self.confirm("cat", self.chance.randrange(1, 5))
            time.sleep(0.5 + self.chance.random())
            self.push(self.chance.choice((ALL, ONCE)))

    def purge_some(self):
        last = self.server.get(f"/{PURGED}").total
        self.purge(last - 2)
        self.push_some(ALL, 3)
        wait_until(lambda: "purge" in self.server.log() or True)
        time.sleep(self.chance.random())
        self.push(PURGED, 30, 500)

    def restart(self):
        self.server.restart()
        self.push_some(ALL, 2)

    def upgrade(self):
        self.confirm("bot", 5)
        self.server.upgrade()
        self.confirm("cat", 6)
        time.sleep(self.chance.choice((0, 0.7)))
        self.push_some(ALL, 2)

    def kill(self):
        self.push_some(ONCE, 2)
        self.server.kill9()
        self.server.start()
        self.push_some(ALL, 2)

    def tell(self, *chapters):
        self.server.start()
        for chapter in chapters:
            chapter()
        self.server.stop()
        self.recorder.close()
        log = self.server.log()
        assert not DAMAGE.search(log), log
        return self.recorder.records()

    def tell_all(self):
        chapters = [self.work, self.confirm_some, self.purge_some, self.restart, self.upgrade, self.kill, self.work]
        together = lambda: self.push_together(4, 3)  # noqa: E731
        middle = [*chapters[1:], together]
        self.chance.shuffle(middle)
        return self.tell(self.work, *middle)


# --- What must be there ---


class Promise:
    """What was asked and answered before the cut."""

    def __init__(self, events, cut_ns, grace_s=0.0):
        """`grace_s`: what was answered so late may be gone."""
        self.tried = {channel: [] for channel in (ALL, PURGED, RING, ONCE)}  # lists of numbers
        self.stored = {channel: {} for channel in self.tried}  # ts → number
        self.lost = 0
        self.confirmed, self.asked_floor, self.floor = {}, 0, 0
        self.refused, self.refused_now = set(), set()
        for at_ns, event in events:
            self.take(event, (cut_ns - at_ns) / 1e9 > grace_s)

    def take(self, event, is_sure):
        what, channel, numbers = event["what"], event.get("channel"), event.get("n", [])
        if what == "push":
            self.tried[channel].append(numbers)
        elif what == "stored":
            # A later answer proves that the log was made sound.
            self.refused |= self.refused_now
            self.refused_now = set()
            for ts, number in zip(range(event["ts"] - len(numbers) + 1, event["ts"] + 1), numbers):
                if is_sure:
                    self.stored[channel][ts] = number
        elif what == "refused":
            self.refused_now |= set(numbers)
        elif what == "confirm":
            self.confirmed[event["name"]] = max(event["ts"], self.confirmed.get(event["name"], 0))
        elif what == "purge":
            self.asked_floor = max(event["upto"], self.asked_floor)
        elif what == "purged" and is_sure:
            self.floor = max(event["upto"], self.floor)

    def check(self, server, may_lose=False):
        for channel, stored in self.stored.items():
            found, missed, last = read(server, channel)
            self.check_ids(channel, found, missed, last)
            kept_from = last - KEPT
            for ts, number in stored.items():
                is_gone = ts <= kept_from or (channel == PURGED and ts <= self.asked_floor)
                if is_gone and ts not in found:
                    continue
                if found.get(ts) == number:
                    continue
                assert may_lose, f"{channel}: {ts} was {number}, now {found.get(ts)} (last {last})"
                self.lost += 1
        purged, _, _ = read(server, PURGED)
        assert may_lose or all(ts > self.floor for ts in purged), f"purged up to {self.floor}, now {sorted(purged)[:3]}"
        self.check_cursors(server)
        self.check_duplicates(server, may_lose)

    def check_ids(self, channel, found, missed, last):
        numbers = list(found.values())
        assert len(set(numbers)) == len(numbers), f"{channel}: an update is there twice"
        assert sorted(found) == list(range(last - len(found) + 1, last + 1)), f"{channel}: ids are not dense"
        assert missed == last - len(found)
        tried = {number for batch in self.tried[channel] for number in batch}
        assert set(numbers) <= tried, f"{channel}: nobody pushed {set(numbers) - tried}"
        assert not set(numbers) & self.refused, f"{channel}: refused, and there: {set(numbers) & self.refused}"
        if missed == 0:
            for batch in self.tried[channel]:
                assert len(set(batch) & set(numbers)) in (0, len(batch)), f"{channel}: a part of a batch"
        if channel != ALL:  # to which several push at once
            assert numbers == sorted(numbers), f"{channel}: out of order"

    def check_cursors(self, server):
        reply = server.get(f"/{ALL}/consumers")
        for consumer in reply.json()["consumers"] if reply.status == 200 else ():
            assert consumer["ts"] <= self.confirmed.get(consumer["name"], 0), "confirmed by nobody"

    def check_duplicates(self, server, may_lose):
        """A delivery that comes again is known, if its update is there; and new ones get the next ids."""
        found, _, last = read(server, ONCE)
        for ts, number in list(found.items())[-3:]:
            reply = server.post(f"/{ONCE}?.once", '{"n":%d}' % number, {"webhook-id": f"id-{number}"})
            assert reply.status == 200 and (may_lose or reply.headers.get("x-duplicate") == str(ts)), (reply, ts)
        for channel in (ALL, RING, PURGED) if not may_lose else ():
            last = server.get(f"/{channel}").total
            assert server.push(f"/{channel}", '{"n":0}') == last + 1


def read(server, channel):
    """{id: number}, how many are missed, and the last id."""
    ts, missed, found = 0, 0, {}
    while True:
        page = server.get(f"/{channel}?ts={ts}").json()
        assert "reset" not in page, page
        missed += page.get("missed", 0)
        found.update((page["ts"] - len(page["updates"]) + i + 1, update["n"]) for i, update in enumerate(page["updates"]))
        if page["ts"] == ts:
            return found, missed, ts
        ts = page["ts"]


# --- The cuts ---


class Cut:
    """A server on what a power cut has left."""

    def __init__(self, directory, content, **settings):
        shutil.rmtree(directory, ignore_errors=True)
        self.folder = directory / "data"
        self.folder.mkdir(parents=True)
        for name, bytes_ in content.items():
            (self.folder / name).write_bytes(bytes_)
        self.server = Server(directory, DATA_PATH=self.folder / "longline.db", **{**SETTINGS, **settings})

    def check(self, promise, may_lose=False, is_thorough=False):
        self.server.start()
        try:
            promise.check(self.server, may_lose)
            if is_thorough:
                done = subprocess.run([BINARY, "check", self.folder / "longline.db"], capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, done.stdout
            assert may_lose or not DAMAGE.search(self.server.log()), self.server.log_tail()
        finally:
            if self.server.process and self.server.process.poll() is None:
                self.server.kill9()
            self.server.process = None


def cuts(records, files, chance, count):
    """(where, the time, events so far, content) of so many cuts at random."""
    disk, events = Disk(files), []
    writes = [i for i, record in enumerate(records) if record[0] in "WTFDMUC"]
    places = sorted(chance.choices(writes, k=count))
    for index, record in enumerate(records):
        if record[0] == "A":
            events.append((record[1], json.loads(record[4])))
        elif record[0] != "S":
            disk.play(record)
        while places and places[0] == index:
            places.pop(0)
            yield index, record[1], list(events), disk.after_cut(chance)


def check_cuts(tmp_path, chance, tell, count, grace_s=0.0, may_lose=False, keep=None, **settings):
    """Tells stories, and cuts each at some places. How many updates were lost, and how many starts failed."""
    lost, failures, done = 0, [], 0
    while done < count:
        story = Story(tmp_path / f"story-{done}", chance, **settings)
        records = tell(story)
        for index, cut_ns, events, content in cuts(records, story.files, chance, min(60, count - done)):
            done += 1
            promise = Promise(events, cut_ns, grace_s)
            cut = Cut(tmp_path / "cut", content, **settings)
            try:
                cut.check(promise, may_lose, is_thorough=done % 10 == 0 and not may_lose)
            except (AssertionError, Closed, OSError) as failure:
                failures.append(f"cut {done} at record {index} of {len(records)}: {failure!s:.1500}")
                kept = tmp_path / f"failed-{done}"
                cut_again = Cut(kept, content)
                assert cut_again.folder.exists()
            lost += promise.lost
        shutil.rmtree(story.directory)
    assert done == count
    print(f"{count} cuts: {lost} updates lost, {len(failures)} failed")
    assert may_lose or not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:5])
    return lost + len(failures)


def test_a_power_cut_loses_nothing(tmp_path, chance):
    assert check_cuts(tmp_path, chance, Story.tell_all, CUTS, SYNC="always") == 0
