"""Measures longline beside nchan and prints one table; `script/bench --help` says how to run it.

Each figure is the median of several rounds. A round starts each server afresh, one after the other and in
another order each time, so that a slow minute of the machine falls on all of them.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import servers
from servers import (LonglineMemory, LonglineRedis, LonglineRedisPair, LonglineSqlite, Nchan, NchanRedis,
                     NchanRedisPair)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WRK_THREADS = 1  # of two cores: with two threads every server is slower
CHANNELS = 1000
CACHE_MIB = 64  # longline's default CACHE_SIZE
FSYNC_ROUNDS = 1000
DISTURBED_PERCENT = 10

SQLITE, MEMORY, NCHAN, REDIS = (kind.name for kind in (LonglineSqlite, LonglineMemory, Nchan, NchanRedis))
OVER_REDIS = LonglineRedis.name


@dataclass
class Row:
    """One line of the table: two figures, what their ratio has to be, and whether it is."""

    what: str
    ours: str
    peer: str
    ratio: str = "–"
    goal: str = "–"
    met: bool | None = None

    def cells(self):
        met = "–" if self.met is None else "yes" if self.met else "**no**"
        return [self.what, self.ours, self.peer, self.ratio, self.goal, met]


class Disturbance:
    """How much of the machine's time went to programs other than ours, or to the hypervisor's other guests."""

    def __init__(self):
        self.before = self.now()

    @staticmethod
    def now():
        with open("/proc/stat") as file:
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        ours = sum(usage.ru_utime + usage.ru_stime for usage in
                   (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))
        busy = user + nice + system + irq + softirq
        return busy + steal + idle + iowait, busy - ours * servers.CLOCK_TICK, steal

    def percents(self):
        """Of others and of the hypervisor, once all of ours have ended and been waited for."""
        whole, others, steal = (now - before for now, before in zip(self.now(), self.before))
        return max(0, 100 * others / whole), 100 * steal / whole


class Bench:
    """The settings of a run, the tools it calls, and every figure measured so far."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.figures = {}  # (line, server, figure) -> one value a round
        self.measured = self.disturbed = 0

    def record(self, line, server, values):
        for figure, value in values.items():
            if isinstance(value, (int, float)):
                self.figures.setdefault((line, server, figure), []).append(value)

    def median(self, line, server, figure):
        values = self.figures.get((line, server, figure))
        return statistics.median(values) if values else None

    def progress(self, text):
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def serving(self, kind):
        directory = tempfile.mkdtemp(prefix="run-", dir=self.directory)
        try:
            with kind(directory, self.options.keep) as server:
                yield server
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def tool(self, *command):
        """Runs a load client to its end and returns the JSON of its last line."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT,
                              preexec_fn=servers.before_exec, env={**os.environ, "BENCH_DIR": HERE})
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def polls(self, server, mode, pids=None, **settings):
        """Runs the load client; the CPU and memory are those of `pids`, or of all the server's processes."""
        before = server.pids()
        command = [self.options.client, mode, "--server", f"127.0.0.1:{server.port}", "--dialect",
                   server.dialect, "--pids", ",".join(map(str, pids or before))]
        if server.publish_port:
            command += ["--publish-server", f"127.0.0.1:{server.publish_port}"]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        result = self.tool(*command)
        if set(server.pids()) != set(before):
            raise RuntimeError(f"{server.name}: its processes changed while it was measured")
        return result

    def wrk(self, server, script, connections, seconds):
        cpu_seconds = server.cpu_seconds()
        result = self.tool("wrk", f"-t{WRK_THREADS}", f"-c{connections}", f"-d{seconds}", "-s",
                           os.path.join(HERE, script), f"http://127.0.0.1:{server.port}", "--", server.dialect,
                           str(CHANNELS))
        cpu_seconds = server.cpu_seconds() - cpu_seconds
        if result["errors"]:
            raise RuntimeError(f"{server.name}: {result['errors']} of {result['requests']} requests failed")
        result["rate"] = result["requests"] / result["seconds"]
        result["cpu_us"] = cpu_seconds * 1e6 / result["requests"]
        return result


class Line:
    """One line of the benchmark: how a server is measured, and the rows that come of it."""

    name = about = None
    kinds = ()
    long_rounds = 5
    quick_rounds = 2

    def rounds(self, options):
        return options.rounds or (self.quick_rounds if options.quick else self.long_rounds)

    def run(self, bench):
        rounds = self.rounds(bench.options)
        for number in range(rounds):
            self.before_round(bench)
            turn = number % len(self.kinds)
            for kind in self.kinds[turn:] + self.kinds[:turn]:
                bench.record(self.name, kind.name, self.measure_quietly(bench, kind, f"{number + 1}/{rounds}"))

    def measure_quietly(self, bench, kind, number):
        """Measures again what was disturbed; of all tries the least disturbed counts."""
        tries = []
        while len(tries) <= bench.options.retries:
            disturbance = Disturbance()
            values = self.measure(bench, kind)
            others, steal = disturbance.percents()
            tries.append((others + steal, values))
            disturbed = others + steal > DISTURBED_PERCENT
            note = f"  [disturbed: others {others:.0f} %, hypervisor {steal:.0f} %]" if disturbed else ""
            bench.progress(f"{self.name} {number}  {kind.name}: {self.summary(values)}{note}")
            if not disturbed:
                break
        bench.measured += 1
        bench.disturbed += disturbed
        return min(tries, key=lambda one: one[0])[1]

    def before_round(self, bench):
        pass

    def measure(self, bench, kind):
        raise NotImplementedError

    def summary(self, values):
        raise NotImplementedError

    def rows(self, bench):
        raise NotImplementedError

    def rates(self, bench):
        return []


def ratio_row(what, ours, peer, show, at_least=None, at_most=None):
    """A row whose goal is a ratio of our figure to the peer's."""
    if ours is None or peer is None:
        return Row(what, show(ours), show(peer))
    ratio = ours / peer
    row = Row(what, show(ours), show(peer), f"{ratio:.2f}")
    if at_least is not None:
        row.goal, row.met = f"≥ {at_least}", ratio >= at_least
    elif at_most is not None:
        row.goal, row.met = f"≤ {at_most}", ratio <= at_most
    return row


def shown(form, unit=""):
    return lambda value: "–" if value is None else format(value, form) + unit


RATE = shown(",.0f", "/s")
MICROSECONDS = shown(".1f", " µs")
MILLISECONDS = lambda us: "–" if us is None else f"{us / 1000:.3f} ms"
BYTES = shown(",.0f", " B")
COUNT = shown(",.2f")


class WrkLine(Line):
    script = title = None
    connections = 64

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            self.prepare(bench, server)
            return bench.wrk(server, self.script, self.connections, bench.options.seconds)

    def summary(self, values):
        return (f"{values['rate']:,.0f}/s, {values['cpu_us']:.1f} µs of CPU each, "
                f"p50 {values['p50_us'] / 1000:.2f} ms, p99 {values['p99_us'] / 1000:.2f} ms")

    def rates(self, bench):
        return [[f"{self.title}, {self.connections} connections", kind.name,
                 RATE(bench.median(self.name, kind.name, "rate")),
                 MICROSECONDS(bench.median(self.name, kind.name, "cpu_us")),
                 MILLISECONDS(bench.median(self.name, kind.name, "p50_us")),
                 MILLISECONDS(bench.median(self.name, kind.name, "p99_us"))] for kind in self.kinds]

    def compare(self, bench, what, ours, peer, figure, show, **goal):
        return ratio_row(f"{what}, {self.connections} connections; {ours} : {peer}",
                         bench.median(self.name, ours, figure), bench.median(self.name, peer, figure), show, **goal)


class Post(WrkLine):
    script = "post.lua"
    title = "POST"
    kinds = (LonglineSqlite, LonglineMemory, Nchan, NchanRedis)
    rate_goal = redis_goal = cpu_goal = None

    def prepare(self, bench, server):
        bench.wrk(server, self.script, self.connections, 1)  # makes the channels

    def rows(self, bench):
        return [
            self.compare(bench, "durable POST", SQLITE, NCHAN, "rate", RATE, at_least=self.rate_goal),
            self.compare(bench, "durable POST", SQLITE, REDIS, "rate", RATE, at_least=self.redis_goal),
            self.compare(bench, "CPU per durable POST", SQLITE, NCHAN, "cpu_us", MICROSECONDS,
                         at_most=self.cpu_goal),
        ]


class Post256(Post):
    name = "post256"
    about = "POST of 200 bytes over 1,000 channels, 256 connections"
    connections = 256
    rate_goal, redis_goal, cpu_goal = 0.9, 5, 1.2


class Post64(Post):
    name = "post64"
    about = "the same with 64 connections (no goal)"


class Get64(WrkLine):
    name = "get64"
    about = "GET of the one update that waits in each of 1,000 channels, 64 connections"
    script = "get.lua"
    title = "GET"
    kinds = (LonglineSqlite, LonglineMemory, Nchan)

    def prepare(self, bench, server):
        bench.polls(server, "write", channels=CHANNELS)
        bench.wrk(server, self.script, self.connections, 1)

    def rows(self, bench):
        return [
            self.compare(bench, "GET with one update waiting", SQLITE, NCHAN, "rate", RATE, at_least=1.0),
            self.compare(bench, "CPU per GET", SQLITE, NCHAN, "cpu_us", MICROSECONDS),
        ]


class Fsync(Line):
    name = "fsync"
    about = "4 KiB and fdatasync on this disk (also measured by spread)"

    def run(self, bench):
        path = os.path.join(bench.directory, "fsync")
        for number in range(3):
            values = bench.tool(bench.options.client, "fsync", "--path", path, "--rounds", str(FSYNC_ROUNDS))
            bench.record("fsync", "disk", values)
            bench.progress(f"fsync {number + 1}/3  {fsync_summary(values)}")

    def rows(self, bench):
        return [Row(f"one fsync of 4 KiB over old bytes, {p}",
                    MILLISECONDS(bench.median("fsync", "disk", f"overwrite_{p}_us")), "–") for p in ("p50", "p99")]


def fsync_summary(values):
    return (f"overwrite p50 {values['overwrite_p50_us']:.0f} µs, p99 {values['overwrite_p99_us']:.0f} µs; "
            f"append p50 {values['append_p50_us']:.0f} µs, p99 {values['append_p99_us']:.0f} µs")


class Spread(Line):
    name = "spread"
    about = "15,000 polls on 15,000 channels, one publish each, one after the other: wake-up latency"
    kinds = (LonglineSqlite, LonglineMemory, Nchan, NchanRedis)

    def before_round(self, bench):
        values = bench.tool(bench.options.client, "fsync", "--path", os.path.join(bench.directory, "fsync"),
                            "--rounds", str(FSYNC_ROUNDS))
        bench.record("fsync", "disk", values)
        bench.progress(f"spread  fsync: {fsync_summary(values)}")

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            return bench.polls(server, "spread", polls=bench.options.polls)

    def summary(self, values):
        return (f"p50 {values['wake_p50_us']:.0f} µs, p99 {values['wake_p99_us']:.0f} µs, "
                f"max {values['wake_max_us'] / 1000:.1f} ms; {values['cpu_us_per_push']:.0f} µs of CPU each")

    def rows(self, bench):
        rows = []
        polls = f"{bench.options.polls:,}"
        for p in ("p50", "p99"):
            figure = f"wake_{p}_us"
            sqlite, memory, nchan, redis = (bench.median(self.name, kind.name, figure) for kind in self.kinds)
            fsync = bench.median("fsync", "disk", f"overwrite_{p}_us")
            what = f"{polls} polls, each on its own channel: wake-up {p}"
            rows.append(ratio_row(f"{what}; {MEMORY} : {NCHAN}", memory, nchan, MILLISECONDS, at_most=1.15))
            row = ratio_row(f"{what}; {SQLITE} : {NCHAN}", sqlite, nchan, MILLISECONDS)
            bound = 1.15 * nchan + fsync
            row.goal, row.met = f"≤ 1.15 × nchan + one fsync = {MILLISECONDS(bound)}", sqlite <= bound
            rows.append(row)
            rows.append(Row(f"{what}; {SQLITE} : {MEMORY} + one fsync", MILLISECONDS(sqlite),
                            MILLISECONDS(memory + fsync), f"{sqlite / (memory + fsync):.2f}"))
            rows.append(ratio_row(f"{what}; {SQLITE} : {REDIS}", sqlite, redis, MILLISECONDS))
        return rows


class Fanout(Line):
    name = "fanout"
    about = "15,000 polls on one channel, one publish, again and again: wakes per second"
    kinds = (LonglineSqlite, LonglineMemory, Nchan)

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            return bench.polls(server, "fanout", polls=bench.options.polls, rounds=3 if bench.options.quick else 10)

    def summary(self, values):
        return (f"{values['wakes_per_second']:,.0f} wakes/s, {values['cpu_us_per_wake']:.1f} µs of CPU each, "
                f"p50 {values['wake_p50_us'] / 1000:.0f} ms, p99 {values['wake_p99_us'] / 1000:.0f} ms")

    def rows(self, bench):
        nchan = bench.median(self.name, NCHAN, "wakes_per_second")
        return [ratio_row(f"{bench.options.polls:,} polls on one channel, wakes/s; {ours} : {NCHAN}",
                          bench.median(self.name, ours, "wakes_per_second"), nchan, RATE, at_least=1.3)
                for ours in (SQLITE, MEMORY)]


class Memory(Line):
    name = "memory"
    about = "RSS before and after 15,000 polls are parked"
    kinds = (LonglineSqlite, Nchan)
    long_rounds, quick_rounds = 3, 1
    goal_bytes = 700

    def measure(self, bench, kind):
        values = {}
        for key, channels in (("spread", bench.options.polls), ("one", 1)):
            with bench.serving(kind) as server:
                result = bench.polls(server, "park", polls=bench.options.polls, channels=channels)
                values[key] = result["rss_per_poll_bytes"]
        return values

    def summary(self, values):
        return f"{values['spread']:,.0f} B a poll, {values['one']:,.0f} B on one channel"

    def rows(self, bench):
        rows = []
        for key, where in (("spread", "each on its own channel"), ("one", "all on one channel")):
            ours = bench.median(self.name, SQLITE, key)
            row = ratio_row(f"RSS per parked poll, {where}; {SQLITE} : {NCHAN}", ours,
                            bench.median(self.name, NCHAN, key), BYTES)
            row.goal, row.met = f"≤ {self.goal_bytes} B", ours <= self.goal_bytes
            rows.append(row)
        return rows


class Channels(Line):
    name = "channels"
    about = "1,000,000 channels with random 22-character names written once each, 256 connections"
    kinds = (LonglineSqlite,)
    long_rounds, quick_rounds = 3, 1

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            return bench.polls(server, "write", channels=bench.options.channels, connections=256, names="secret",
                               deadline=900)

    def summary(self, values):
        return (f"{values['rss_bytes'] / 2**20:.0f} MiB; wall {values['first_wall_us']:.1f} → "
                f"{values['last_wall_us']:.1f} µs, CPU {values['first_cpu_us']:.1f} → "
                f"{values['last_cpu_us']:.1f} µs an append (all: {values['all_wall_us']:.1f}, "
                f"{values['all_cpu_us']:.1f})")

    def rows(self, bench):
        channels = f"{bench.options.channels:,} channels written once"
        bound = CACHE_MIB + 64
        rss = bench.median(self.name, SQLITE, "rss_bytes") / 2**20
        rows = [Row(f"{channels}: RSS", f"{rss:,.0f} MiB", "–", "–", f"≤ {bound} MiB", rss <= bound)]
        for key, cost in (("wall", "time"), ("cpu", "CPU")):
            rows.append(ratio_row(f"{channels}: {cost} per append, the last 100,000 : the first",
                                  bench.median(self.name, SQLITE, f"last_{key}_us"),
                                  bench.median(self.name, SQLITE, f"first_{key}_us"), MICROSECONDS, at_most=1.2))
        return rows


class RedisPost(WrkLine):
    name = "redis-post"
    about = "over redis: POST of 200 bytes over 1,000 channels, 64 connections; CPU on each side, redis' commands"
    script = "post.lua"
    title = "POST"
    kinds = (LonglineRedis, NchanRedis)
    rate_goal, cpu_goal_us = 3, 15

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            bench.wrk(server, self.script, self.connections, 1)  # makes the channels
            before = server.redis_stats()
            values = bench.wrk(server, self.script, self.connections, bench.options.seconds)
            for what, count in server.redis_stats().items():
                values[f"redis_{what}"] = (count - before[what]) / values["requests"]
            values["front_cpu_us"] = values["cpu_us"] - values["redis_cpu_us"]
            return values

    def summary(self, values):
        return (f"{super().summary(values)}: {values['front_cpu_us']:.1f} µs and redis' "
                f"{values['redis_cpu_us']:.1f} µs; {values['redis_evalsha']:.2f} scripts of "
                f"{values['redis_commands']:.1f} commands")

    def rows(self, bench):
        def row(what, figure, show, **goal):
            return self.compare(bench, what, OVER_REDIS, REDIS, figure, show, **goal)

        cpu = row("front end's CPU per POST over redis", "front_cpu_us", MICROSECONDS)
        cpu.goal = f"≤ {self.cpu_goal_us} µs"
        cpu.met = bench.median(self.name, OVER_REDIS, "front_cpu_us") <= self.cpu_goal_us
        scripts = row("EVALSHA per POST", "redis_evalsha", COUNT)
        scripts.goal, scripts.met = "1", round(bench.median(self.name, OVER_REDIS, "redis_evalsha"), 2) == 1
        return [
            row("POST over redis", "rate", RATE, at_least=self.rate_goal),
            cpu,
            row("redis' CPU per POST", "redis_cpu_us", MICROSECONDS),
            scripts,
            row("commands run in redis per POST, those of the script too", "redis_commands", COUNT),
        ]


class RedisWake(Line):
    name = "redis-wake"
    about = "15,000 polls on one front end, one publish to each on another, over one redis: latency, CPU on each side"
    kinds = (LonglineRedisPair, NchanRedisPair)
    window = 64  # publishes out at once, for the CPU

    def measure(self, bench, kind):
        with bench.serving(kind) as server:
            values = bench.polls(server, "spread", polls=bench.options.polls)
        with bench.serving(kind) as server:
            roles = server.pids_by_role()
            pids = [pid for members in roles.values() for pid in members]
            busy = bench.polls(server, "spread", pids, polls=bench.options.polls, window=self.window)
        cpu_us = dict(zip(pids, busy["cpu_us_per_push_each"]))
        for role, members in roles.items():
            values[f"{role}_cpu_us"] = sum(cpu_us[pid] for pid in members)
        values["busy_rate"] = bench.options.polls / busy["seconds"]
        return values

    def summary(self, values):
        return (f"p50 {values['wake_p50_us']:.0f} µs, p99 {values['wake_p99_us']:.0f} µs, max "
                f"{values['wake_max_us'] / 1000:.1f} ms; with {self.window} out {values['busy_rate']:,.0f}/s, CPU of "
                f"a publish {values['pushes_cpu_us']:.1f} µs, of a wake {values['polls_cpu_us']:.1f} µs, redis' "
                f"{values['redis_cpu_us']:.1f} µs")

    def rows(self, bench):
        def row(what, figure, show, **goal):
            return ratio_row(f"{what}; {OVER_REDIS} : {REDIS}", bench.median(self.name, OVER_REDIS, figure),
                             bench.median(self.name, REDIS, figure), show, **goal)

        what = f"{bench.options.polls:,} polls on one front end, publishes on another"
        busy = f"{what}, {self.window} out at once"
        return [
            row(f"{what}: wake-up p50", "wake_p50_us", MILLISECONDS, at_most=1.0),
            row(f"{what}: wake-up p99", "wake_p99_us", MILLISECONDS),
            row(f"{busy}: rate", "busy_rate", RATE),
            row(f"{busy}: CPU per publish where it is made", "pushes_cpu_us", MICROSECONDS),
            row(f"{busy}: CPU per wake where it is polled", "polls_cpu_us", MICROSECONDS),
            row(f"{busy}: redis' CPU per publish", "redis_cpu_us", MICROSECONDS),
        ]


class RedisPark(Line):
    name = "redis-park"
    about = "over redis: what 15,000 first polls, each on its own channel, cost: RSS on each side, redis' CPU"
    kinds = (LonglineRedis, NchanRedis)
    long_rounds, quick_rounds = 3, 1

    def measure(self, bench, kind):
        polls, values = bench.options.polls, {}
        for part in ("front", "redis"):
            with bench.serving(kind) as server:
                pids = server.front_pids() if part == "front" else [server.redis.pid]
                before = server.redis_stats()
                result = bench.polls(server, "park", pids, polls=polls, names="secret")
                values[f"{part}_bytes"] = result["rss_per_poll_bytes"]
                values["redis_cpu_us"] = (server.redis_stats()["cpu_us"] - before["cpu_us"]) / polls
        return values

    def summary(self, values):
        return (f"{values['front_bytes']:,.0f} B a poll, {values['redis_bytes']:,.0f} B in redis and "
                f"{values['redis_cpu_us']:.1f} µs of its CPU")

    def rows(self, bench):
        rows = []
        for what, figure, show in (("front end's RSS", "front_bytes", BYTES), ("redis' RSS", "redis_bytes", BYTES),
                                   ("redis' CPU", "redis_cpu_us", MICROSECONDS)):
            ours, peer = (bench.median(self.name, kind.name, figure) for kind in self.kinds)
            rows.append(ratio_row(f"{what} per first poll, each on its own channel; {OVER_REDIS} : {REDIS}", ours,
                                  peer, show))
        return rows


LINES = (Post256(), Post64(), Get64(), Fsync(), Spread(), Fanout(), Memory(), Channels(), RedisPost(), RedisWake(),
         RedisPark())


def table(head, rows):
    """A Markdown table that can also be read as it is."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        lines.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
    return "\n".join(lines)


def report(bench, lines):
    options = bench.options
    rows = [row.cells() for line in lines for row in line.rows(bench)]
    text = table(["what", "longline", "peer", "ratio", "goal", "met"], rows)
    rates = [rate for line in lines for rate in line.rates(bench)]
    if rates:
        text += "\n\n" + table(["load", "server", "requests/s", "server CPU per request", "p50", "p99"], rates)
    text += (f"\n\n{os.cpu_count()} cores, Linux {platform.release()}; {options.keep} updates kept a channel; medians, "
             f"wrk with {WRK_THREADS} thread for {options.seconds} s a round; server CPU is user + system of all its "
             "processes, redis's too.")
    if bench.disturbed:
        text += (f" In {bench.disturbed} of {bench.measured} measurements other programs or the hypervisor took more "
                 f"than {DISTURBED_PERCENT} % of the machine's time, in every try.")
    return text


def parse_options():
    parser = argparse.ArgumentParser(prog="script/bench", description="Measures longline beside nchan.",
                                     epilog="lines: " + "; ".join(f"{line.name}: {line.about}" for line in LINES))
    parser.add_argument("--quick", action="store_true", help="a few seconds a line")
    parser.add_argument("--only", action="append", metavar="NAME", choices=[line.name for line in LINES],
                        help="this line only (may be given again)")
    parser.add_argument("--rounds", type=int, help="rounds a line")
    parser.add_argument("--retries", type=int,
                        help="how often a measurement is repeated that other programs disturbed (1; quick: 0)")
    parser.add_argument("--seconds", type=int, help="seconds that wrk measures")
    parser.add_argument("--polls", type=int, default=15000, help="how many polls are held (15000)")
    parser.add_argument("--channels", type=int, help="how many channels are written once")
    parser.add_argument("--keep", type=int, default=30, help="updates kept a channel, by all servers (30)")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables to FILE too")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures to FILE")
    parser.add_argument("--dir", default=os.path.join(ROOT, "build", "bench"),
                        help="where the servers keep their data while they run: on the disk to be measured")
    parser.add_argument("--longline", metavar="FILE", default=os.path.join(ROOT, "build", "longline"),
                        help="the server to measure (build/longline)")
    parser.add_argument("--client", metavar="FILE", default=os.path.join(ROOT, "build", "bench", "polls"),
                        help="the load client (build/bench/polls)")
    options = parser.parse_args()
    options.seconds = options.seconds or (2 if options.quick else 5)
    if options.retries is None:
        options.retries = 0 if options.quick else 1
    options.channels = options.channels or (300_000 if options.quick else 1_000_000)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if options.polls > hard - 1000:
        options.polls = hard - 1000
        print(f"only {options.polls} polls: the limit of descriptors is {hard}", file=sys.stderr)
    return options


def stop_by_signal(number, _):
    raise SystemExit(128 + number)


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, stop_by_signal)
    signal.signal(signal.SIGHUP, stop_by_signal)
    servers.Longline.binary = options.longline
    lines = [line for line in LINES if not options.only or line.name in options.only]
    os.makedirs(options.dir, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=options.dir, ignore_cleanup_errors=True) as directory:
        bench = Bench(options, directory)
        for line in lines:
            line.run(bench)
        text = report(bench, lines)
        print(text)
        if options.markdown:
            with open(options.markdown, "w") as file:
                file.write(text + "\n")
        if options.json:
            with open(options.json, "w") as file:
                json.dump({" / ".join(key): values for key, values in bench.figures.items()}, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
