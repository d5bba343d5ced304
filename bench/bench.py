"""Measures longline beside nchan and prints a report; `script/bench --help` says how to run it.

Each figure is the median of several rounds. lines.py says what is measured, measure.py how.
"""

import argparse
import json
import os
import platform
import resource
import signal
import sys
import tempfile

import servers
from lines import LINES
from measure import DEFAULT_KEEP, DISTURBED_PERCENT, ROOT, WRK_THREADS, Bench
from table import MICROSECONDS, MILLISECONDS, RATE, Row, markdown


def rates(bench, line):
    """The rows that a line has in the table of rates."""
    of = bench.figures.of(line.name)
    return [[line.rates, server.name, RATE(of(server, "rate")), MICROSECONDS(of(server, "cpu_us")),
             MILLISECONDS(of(server, "p50_us")), MILLISECONDS(of(server, "p99_us"))] for server in line.servers]


def report(bench, chosen):
    options = bench.options
    rows = [row(bench.figures.of(line.name)).cells() for line in chosen for row in line.rows]
    text = markdown(Row.HEAD, rows)
    if rate_rows := [row for line in chosen if line.rates for row in rates(bench, line)]:
        head = ["load", "server", "requests/s", "server CPU per request", "p50", "p99"]
        text += "\n\n" + markdown(head, rate_rows)
    text += (f"\n\n{os.cpu_count()} cores, Linux {platform.release()}; {options.keep} updates kept a channel, "
             f"or {DEFAULT_KEEP:,} with default settings; medians, "
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
    parser.add_argument("--keep", type=int, default=30, help="updates kept a channel, by all servers, unless a line has the default settings (30)")
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
    chosen = [line for line in LINES if not options.only or line.name in options.only]
    os.makedirs(options.dir, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-", dir=options.dir, ignore_cleanup_errors=True) as directory:
        bench = Bench(options, directory)
        for line in chosen:
            bench.run(line)
        text = report(bench, chosen)
        print(text)
        if options.markdown:
            with open(options.markdown, "w") as file:
                file.write(text + "\n")
        if options.json:
            with open(options.json, "w") as file:
                json.dump({" / ".join(key): values for key, values in bench.figures.values.items()}, file, indent=1)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
