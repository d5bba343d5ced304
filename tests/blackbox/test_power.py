"""Power cuts: after any of them longline starts, and all that was acknowledged is there (power.py).

CUTS says how many there are. script/torture sets it to a thousand.
"""

import errno
import os
import random
import secrets
import shutil
import subprocess
import threading
import time

import pytest

from http_client import Closed
from longline_server import BINARY, DAMAGE, SLOW, Server, wait_until
from power import Disk, Recorder, event_of
from test_upgrade import now_ms, write_old_file

CUTS = int(os.environ.get("CUTS", 12))
IS_LONG = CUTS >= 100
SEED = os.environ.get("SEED") or secrets.token_hex(4)
NDJSON = {"Content-Type": "application/x-ndjson"}
KEPT = 150  # updates of a channel
AGAIN = 1000000  # the numbers of what is pushed between two cuts
INTERVAL_S = 1.5
WELL_AGAIN_S = 20 if SLOW else 5
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

    def push(self, channel, count=1, size=None):
        numbers = self.next_numbers(count)
        size = size if size is not None else self.chance.choice((10, 10, 10, 300, 3000, 20000))
        lines = ['{"n":%d,"x":"%s"}' % (n, "x" * size) for n in numbers]
        headers = {"webhook-id": f"id-{numbers[0]}"} if channel == ONCE else {}
        target = f"/{channel}" + ("?.once" if channel == ONCE else "")
        self.recorder.note("push", channel=channel, n=numbers)
        reply = self.server.post(target, "\n".join(lines), {**headers, **(NDJSON if count > 1 else {})})
        assert reply.status in (200, 503), reply
        if reply.status == 200:
            self.recorder.note("stored", channel=channel, n=numbers, ts=reply.total)
        else:
            self.recorder.note("refused", channel=channel, n=numbers)
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

    def push_together(self, senders=4, each=4):
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
        for _ in range(2 if IS_LONG else 1):
            self.confirm("bot", self.chance.randrange(1, 5))
            self.confirm("cat", self.chance.randrange(1, 5))
            time.sleep(0.8 + self.chance.random() * IS_LONG)
            self.push(self.chance.choice((ALL, ONCE)))

    def purge_some(self):
        last = self.server.get(f"/{PURGED}").total
        self.purge(last - 2)
        self.push_some(ALL, 3)
        time.sleep(self.chance.random() * IS_LONG)
        self.push(PURGED, 30, 500)

    def restart(self):
        self.server.restart()
        self.push_some(ALL, 2)

    def upgrade(self):
        self.confirm("bot", 5)
        self.server.upgrade()
        self.confirm("cat", 6)
        time.sleep(self.chance.choice((0, 0.7)) * IS_LONG)
        self.push_some(ALL, 2)

    def kill(self):
        self.push_some(ONCE, 2)
        self.server.kill9()
        self.server.start()
        self.push_some(ALL, 2)

    def fail(self):
        """Syncs fail for a while; it is killed meanwhile, or goes on with what it has."""
        self.recorder["error"] = self.chance.choice((errno.EIO, errno.ENOSPC))
        self.recorder["failing"] = self.chance.choice((300, 1000))
        for _ in range(self.chance.randrange(2, 12)):
            self.push(*self.chance.choice(((ALL, 1), (ALL, 3), (RING, 20), (ONCE, 1))))
            if self.chance.random() < 0.2 * IS_LONG:
                self.confirm("bot", self.chance.randrange(1, 5))
                time.sleep(1)
        if self.chance.random() < 0.6:
            self.server.kill9()
            if self.chance.random() < 0.5:
                self.recorder["failing"] = 0
            self.server.start()
            self.check_now()
            self.push_some(ALL, 2)
        self.recorder["failing"] = 0
        wait_until(lambda: self.push(ALL), "pushes to work again", WELL_AGAIN_S)
        self.push_some(ALL, 3)
        if self.chance.random() < 0.3:
            self.server.kill9()
            self.server.start()
        self.check_now()

    def check_now(self):
        """What was refused is not there, and all else is."""
        promise = Promise(self.recorder.events(), time.monotonic_ns())
        promise.refused |= promise.refused_now
        promise.check_updates(self.server)

    def tell_of_failures(self):
        return self.tell(self.work, *[self.fail] * (4 if IS_LONG else 2))

    def tell_of_work(self):
        return self.tell(self.work, self.work)

    def tell(self, *chapters):
        try:
            self.server.start()
            for chapter in chapters:
                chapter()
            self.server.stop()
        finally:
            self.end()
        log = self.server.log()
        assert not DAMAGE.search(log), log
        return self.recorder.records()

    def end(self):
        """Nothing of it is left running."""
        if self.server.process:
            self.server.kill9()
        self.recorder.close()

    def tell_all(self):
        chapters = [self.work, self.confirm_some, self.purge_some, self.restart, self.upgrade, self.kill, self.push_together]
        self.chance.shuffle(chapters)
        return self.tell(self.work, *chapters)


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
        self.check_updates(server, may_lose)
        self.check_cursors(server)
        self.check_duplicates(server, may_lose)

    def check_updates(self, server, may_lose=False):
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

    def check(self, promise, may_lose=False, is_thorough=False, also=None):
        self.server.start()
        try:
            if also:
                also(self.server)
            promise.check(self.server, may_lose)
            if is_thorough:
                done = subprocess.run([BINARY, "check", self.folder / "longline.db"], capture_output=True, text=True, timeout=300)
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
            events.append(event_of(record))
        elif record[0] != "S":
            disk.play(record)
        while places and places[0] == index:
            places.pop(0)
            yield index, record[1], list(events), disk.after_cut(chance)


def cut_again(tmp_path, chance, promise, content, **settings):
    """The server on `content` works for a moment, and the power goes again. What is left then; the promise grows."""
    story = Story(tmp_path / "again", chance, content, **settings)
    story.number = AGAIN + max((n for batches in promise.tried.values() for batch in batches for n in batch), default=0)
    try:
        story.server.start()
        story.push_some(ALL, 2)
        story.push(ONCE)
    finally:
        story.end()
    ((_, _, events, content),) = cuts(story.recorder.records(), content, chance, 1)
    promise.refused_now = set()  # the first cut may have brought it back
    for _, event in events:
        promise.take(event, True)
    shutil.rmtree(story.directory)
    return content


def check_cuts(tmp_path, chance, tell, count, grace_s=0.0, may_lose=False, files=(), also=None, **settings):
    """Tells stories, and cuts each at some places. How many updates were lost, and how many starts failed."""
    lost, failures, done = 0, [], 0
    while done < count:
        story = Story(tmp_path / f"story-{done}", chance, files, **settings)
        records = tell(story)
        for index, cut_ns, events, content in cuts(records, story.files, chance, min(60, count - done)):
            done += 1
            promise = Promise(events, cut_ns, grace_s)
            try:
                if done % 4 == 0 and not may_lose and not grace_s:
                    content = cut_again(tmp_path, chance, promise, content, **settings)
                cut = Cut(tmp_path / "cut", content, **settings)
                cut.check(promise, may_lose, is_thorough=done % 10 == 0 and not may_lose, also=also)
            except (AssertionError, Closed, OSError) as failure:
                failures.append(f"cut {done} at record {index} of {len(records)}: {failure!s:.1500}")
                Cut(tmp_path / f"failed-{done}", content)
            lost += promise.lost
        shutil.rmtree(story.directory)
    assert done == count
    print(f"{count} cuts: {lost} updates lost, {len(failures)} failed")
    assert may_lose or not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:5])
    return lost + len(failures)


def test_a_power_cut_loses_nothing(tmp_path, chance):
    assert check_cuts(tmp_path, chance, Story.tell_all, CUTS, SYNC="always") == 0


@pytest.fixture(scope="module")
def old_files(tmp_path_factory):
    """Those of the first version, with updates that nobody has pushed here."""
    path = tmp_path_factory.mktemp("old") / "longline.db"
    write_old_file(path, [b"old-0123456789"], 300, now_ms())
    return {path.name: path.read_bytes()}


@pytest.mark.torture
def test_a_power_cut_in_the_upgrade_of_an_old_file_loses_nothing(tmp_path, chance, old_files):
    def tell(story):
        return story.tell(lambda: story.push_some(ALL, 2), story.restart)

    def has_old(server):
        found, _, last = read(server, "old-0123456789")
        assert (last, list(found.values())) == (300, list(range(301 - len(found), 301))) and len(found) >= KEPT

    assert check_cuts(tmp_path, chance, tell, CUTS, files=old_files, also=has_old, SYNC="always") == 0


def test_a_power_cut_behind_a_sync_that_failed_loses_nothing(tmp_path, chance):
    assert check_cuts(tmp_path, chance, Story.tell_of_failures, CUTS, SYNC="always") == 0


@pytest.mark.torture
def test_a_power_cut_loses_a_second_and_a_half_at_most(tmp_path, chance):
    assert check_cuts(tmp_path, chance, Story.tell_all, CUTS, grace_s=INTERVAL_S, SYNC="interval") == 0


def test_a_power_cut_loses_something_without_syncs(tmp_path, chance):
    """Or these tests were worthless."""
    assert check_cuts(tmp_path, chance, Story.tell_of_work, CUTS, may_lose=True, SYNC="never") > 0
