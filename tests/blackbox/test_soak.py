"""A soak in parts (soak.py): everything at once, for hours, and nothing grows.

SOAK_MINUTES says how long; without it the test takes seconds, and judges no growth. It goes in parts of 40 minutes at most. Each
begins with a kill, a stop and upgrades, while the clients go on; then one process serves to the end, and is judged from two fifths
of the part on, by what it has when all rest. A part that is over adds a line to the file SOAK_RESULTS, so that parts of several runs
add up, and its samples to one beside it. SOAK_PROVIDER is sqlite, memory or redis, and SOAK_RATE how many pushes there are a second.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import Faults
from longline_server import PATIENCE_S, REPOSITORY, SLOW, wait_until
from redis_server import DURABLE
from soak import MIB, Soak, growth, may_grow, sample, worst_commit_s

MINUTES = float(os.environ.get("SOAK_MINUTES", 0))
PROVIDER = os.environ.get("SOAK_PROVIDER", "sqlite")
RATE = float(os.environ.get("SOAK_RATE", 25))
RESULTS = REPOSITORY / os.environ.get("SOAK_RESULTS", "build/soak.jsonl")
PART_S, SHORT_S, SAMPLE_S = 2400, 4, 20
JUDGED_S = 600  # a shorter part is not judged: it is over before the caches are full
MEASURED_FROM = 0.4
SETTINGS = {"CHANNEL_STORAGE_MAXSIZE": 100, "DATA_TTL": 120, "CACHE_SIZE": 8, "LOG_LEVEL": "info"}
BOUNDS = {"sqlite": {"DATA_MAX_BYTES": 128 * MIB}, "memory": {"DATA_MAX_BYTES": 64 * MIB}, "redis": {}}
FAULTS = {
    "sqlite": ("kill9", "restart", "upgrade", "upgrade", "upgrade"),
    "memory": ("kill9", "restart"),  # it does not upgrade
    "redis": ("kill9", "restart", "upgrade", "upgrade", "upgrade"),
}
PROBE = Path(__file__).with_name("soak_probe.py")
WATCHED = ("heap", "pages", "resident", "descriptors", "threads", "file", "log", "redis")


# --- What counts as growth ------------------------------------------------------------------------------


def series(grow_by, seed=1):
    """A heap at rest, which grows from its first sample to its last."""
    rng = random.Random(seed)
    return [2 * MIB + rng.random() * MIB / 8 + (rng.random() < 0.2) * MIB + grow_by * i / 30 for i in range(30)]


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_is_told_from_noise(seed):
    flat, leak = series(0, seed), series(MIB, seed)
    assert growth(flat) <= may_grow("heap", flat)
    assert growth(leak) > may_grow("heap", leak)


def test_what_comes_and_goes_is_no_growth():
    wave = [60 * MIB + (i // 20 % 2) * 10 * MIB for i in range(300)]
    assert growth(wave) <= may_grow("resident", wave)
    assert growth([20] * 290 + [400] * 10) <= may_grow("descriptors", [20])


# --- The soak -------------------------------------------------------------------------------------------


class Part:
    """One part: the clients, the faults at its beginning, the samples."""

    def __init__(self, server, faults, seconds, redis=None):
        self.server, self.faults, self.seconds, self.redis = server, faults, seconds, redis
        self.samples = []
        self.idle_descriptors = self.descriptors()
        self.soak = Soak(server, RATE, seed=random.randrange(1 << 30))

    def descriptors(self):
        assert self.server.get("/-/health").status == 200
        return self.server.descriptor_count()

    def run(self):
        began = time.monotonic()
        with self.soak:
            for n, fault in enumerate(FAULTS[PROVIDER], 1):
                self.soak.run_until(began + self.seconds * 0.04 * n)
                self.disturb(fault)
            lives_from = time.monotonic()
            now, end = lives_from, max(began + self.seconds, lives_from + 1)
            probe = subprocess.Popen([sys.executable, "-B", PROBE, str(self.server.port), str(end - now)], stdout=subprocess.PIPE)
            while now < end:
                self.soak.run_until(min(now + SAMPLE_S, end))
                self.samples.append(self.soak.rest(lambda: sample(self.server, self.faults, self.redis)))
                now = time.monotonic()
            self.soak.swarm.during(lambda: setattr(self, "probed", json.loads(probe.communicate(timeout=2 * PATIENCE_S)[0])))
        self.refused = {name: count for name, count in self.server.metrics().items() if name.startswith("longline_pushes_refused") and count}
        self.cpu_share = self.samples[-1]["cpu"] / (time.monotonic() - lives_from)
        self.measured = [s for s in self.samples if s["at"] >= began + MEASURED_FROM * self.seconds]
        # All clients have gone.
        wait_until(lambda: self.descriptors() <= self.idle_descriptors, "the descriptors of clients to be closed", 2 * PATIENCE_S)

    def upgrade(self, tries=5 if PROVIDER == "redis" else 1):
        """Again, where it may be refused: Redis answers nobody while it reads 20 MB, and requests under way do not end."""

        def outcomes():
            return self.server.upgraded(), self.server.log().count("upgrade failed")

        before = outcomes()
        self.server.send_signal(signal.SIGUSR2)
        wait_until(lambda: outcomes() != before, "the upgrade", 2 * PATIENCE_S)
        if outcomes()[0] == before[0]:
            assert tries > 1, self.server.log().split("upgrade failed")[-1].splitlines()[0]
            self.upgrade(tries - 1)

    def disturb(self, fault):
        def act():
            if fault == "kill9":
                self.server.kill9()
                self.server.start()
            elif fault == "upgrade":
                self.upgrade()
            else:
                self.server.restart()

        self.soak.swarm.during(act)
        self.soak.count(fault)

    def result(self):
        is_long = self.seconds >= JUDGED_S and not SLOW
        return {
            "date": time.strftime("%Y-%m-%d"),
            "provider": PROVIDER,
            "minutes": round(self.seconds / 60, 1),
            **self.soak.counts,
            **self.probed,
            "commit_worst_ms": round(1000 * worst_commit_s(self.samples), 1),
            "cpu_percent": round(100 * self.cpu_share, 1),
            "refused": self.refused,
            **{what: round(self.samples[-1][what]) for what in WATCHED},
            **({"grew": {what: round(growth([s[what] for s in self.measured])) for what in WATCHED}} if is_long else {}),
        }

    def check_growth(self, result):
        for what, grew in result.get("grew", {}).items():
            allowed = may_grow(what, [s[what] for s in self.measured])
            assert grew <= allowed, f"{what} grew by {grew}, {allowed:.0f} is allowed"


def together(path):
    """What all parts of this provider in the file add up to."""
    parts = [part for line in path.read_text().splitlines() if (part := json.loads(line))["provider"] == PROVIDER]
    sums = {what: sum(part.get(what, 0) for part in parts) for what in ("minutes", "updates", "delivered", "kill9", "restart", "upgrade")}
    worst = {what: max(part[what] for part in parts) for what in ("push_worst_ms", "wake_worst_ms", "commit_worst_ms")}
    return f"{PROVIDER}, {len(parts)} parts: " + ", ".join(f"{what} {value:g}" for what, value in {**sums, **worst}.items())


def soak(start, redis, directory, seconds):
    directory.mkdir()
    faults = Faults(directory)  # beside the data: the program that the server becomes may not open files elsewhere
    # Beside much else, Redis may take a second for an update of 20 MB.
    provider = redis.settings(SANDBOX="off", REDIS_TIMEOUT=10_000) if redis else {"DATA_PROVIDER": PROVIDER, "DATA_PATH": directory / "longline.db"}
    server = start(**provider, **SETTINGS, **BOUNDS[PROVIDER], **faults.settings()).keep_address()
    part = Part(server, faults, seconds, redis)
    part.run()
    server.stop()
    return part


def test_nothing_grows(start, redis_servers, tmp_path):
    redis = redis_servers.start(**DURABLE) if PROVIDER == "redis" else None
    left_s = MINUTES * 60 or SHORT_S
    results = RESULTS if MINUTES else Path(tmp_path / "soak.jsonl")
    while left_s > 1:
        seconds = min(left_s, PART_S)
        left_s -= seconds
        part = soak(start, redis, tmp_path / f"{left_s:.0f}", seconds)
        result = part.result()
        with open(results, "a") as file, open(f"{results}.samples", "a") as samples:
            print(json.dumps(result), file=file)
            print(json.dumps(part.samples), file=samples)
        print(json.dumps(result, indent=1))
        assert result["updates"] and result["delivered"]
        part.check_growth(result)
    print(together(results))
