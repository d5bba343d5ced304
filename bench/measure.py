"""Measures lines of the benchmark: rounds, load clients, and the figures of all rounds.

The servers of a line are measured in turn, in another order each round, so that a slow minute of the
machine falls on all of them. A measurement that other programs disturbed is repeated.
"""

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Callable

import servers
from table import figure_text

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WRK_THREADS = 1  # of two cores: with two threads every server is slower
CHANNELS = 1000  # that wrk walks
DEFAULT_KEEP = 1000  # updates a channel: the default of CHANNEL_STORAGE_MAXSIZE
FSYNC_ROUNDS = 1000
DISTURBED_PERCENT = 10


@dataclass(frozen=True)
class Line:
    """One line of the benchmark.

    measure(bench, start) returns the figures of one server, which `with start() as server` starts
    afresh; start(keep=N) lets it keep another number of updates a channel than the options say. Each of `rows` is a function that makes a row of the report from a View.
    """

    name: str
    about: str
    servers: tuple
    measure: Callable
    rows: list
    shows: tuple  # the figures that the progress tells
    rates: str | None = None  # the load's name in the table of rates; None: not there
    rounds: int = 5
    quick_rounds: int = 2
    before_round: Callable | None = None

    def round_count(self, options):
        return options.rounds or (self.quick_rounds if options.quick else self.rounds)


@dataclass
class Figures:
    """Every figure that was measured: (line, server, figure) → one value a round."""

    options: object
    values: dict = field(default_factory=dict)

    def record(self, line_name, server_name, values):
        for figure, value in values.items():
            if isinstance(value, (int, float)):
                self.values.setdefault((line_name, server_name, figure), []).append(value)

    def of(self, line_name):
        return View(self, line_name)


@dataclass
class View:
    """The figures of one line, for its rows: of(server, figure) is a median, or None."""

    figures: Figures
    line_name: str

    def __call__(self, server, figure, line_name=None):
        values = self.figures.values.get((line_name or self.line_name, server.name, figure))
        return statistics.median(values) if values else None

    def text(self, what):
        """`what` with the numbers of this run: {polls}, {channels}."""
        options = self.figures.options
        return what.format(polls=f"{options.polls:,}", channels=f"{options.channels:,}")


class Disturbance:
    """How much of the machine's time other programs took, and other guests of its host."""

    def __init__(self):
        self.before = self.now()

    @staticmethod
    def now():
        with open("/proc/stat") as file:
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        ours = sum(usage.ru_utime + usage.ru_stime
                   for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
        busy = user + nice + system + irq + softirq
        return busy + steal + idle + iowait, busy - ours * servers.CLOCK_TICK, steal

    def percents(self):
        """(other programs, other guests). Wait for all our own processes first."""
        whole, others, steal = (now - before for now, before in zip(self.now(), self.before))
        return max(0, 100 * others / whole), 100 * steal / whole


class Bench:
    """The settings of a run, the tools that it calls, and its figures."""

    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.figures = Figures(options)
        self.measured = self.disturbed = 0

    # --- lines ---

    def run(self, line):
        rounds = line.round_count(self.options)
        for number in range(rounds):
            if line.before_round:
                line.before_round(self)
            turn = number % len(line.servers)
            for server in line.servers[turn:] + line.servers[:turn]:
                values = self.measure(line, server, f"{number + 1}/{rounds}")
                self.figures.record(line.name, server.name, values)

    def measure(self, line, server, number):
        """The figures of the first undisturbed try, or else of the least disturbed one."""
        tries = []
        while len(tries) <= self.options.retries:
            disturbance = Disturbance()
            values = line.measure(self, lambda keep=None: self.start(server, keep))
            others, steal = disturbance.percents()
            tries.append((others + steal, values))
            disturbed = others + steal > DISTURBED_PERCENT
            note = f"  [disturbed: others {others:.0f} %, hypervisor {steal:.0f} %]" if disturbed else ""
            told = ", ".join(figure_text(name, values[name]) for name in line.shows)
            self.progress(f"{line.name} {number}  {server.name}: {told}{note}")
            if not disturbed:
                break
        self.measured += 1
        self.disturbed += disturbed
        return min(tries, key=lambda one: one[0])[1]

    @staticmethod
    def progress(text):
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def start(self, server, keep):
        directory = tempfile.mkdtemp(prefix="run-", dir=self.directory)
        try:
            with server(directory, keep or self.options.keep) as running:
                yield running
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    # --- tools ---

    def tool(self, *command):
        """Runs a load client to its end and returns the JSON of its last line."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT,
                              preexec_fn=servers.before_exec, env={**os.environ, "BENCH_DIR": HERE})
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def polls(self, server, mode, pids=None, **settings):
        """Runs a mode of the load client. It measures `pids`, or all processes of the server."""
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

    def wrk(self, server, script, connections, seconds=None, parameters=()):
        """Runs wrk with a script, for as long as the options say unless `seconds` is given."""
        cpu_seconds = server.cpu_seconds()
        result = self.tool("wrk", f"-t{WRK_THREADS}", f"-c{connections}", f"-d{seconds or self.options.seconds}",
                           "-s", os.path.join(HERE, script), f"http://127.0.0.1:{server.port}", "--",
                           server.dialect, str(CHANNELS), *parameters)
        cpu_seconds = server.cpu_seconds() - cpu_seconds
        if result["errors"]:
            raise RuntimeError(f"{server.name}: {result['errors']} of {result['requests']} requests failed")
        result["rate"] = result["requests"] / result["seconds"]
        result["cpu_us"] = cpu_seconds * 1e6 / result["requests"]
        return result

    def fsync(self):
        """Times small durable writes on the disk that the servers use."""
        path = os.path.join(self.directory, "fsync")
        return self.tool(self.options.client, "fsync", "--path", path, "--rounds", str(FSYNC_ROUNDS))
