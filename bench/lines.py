"""The lines of the benchmark, in the order of the report. A new line is one more function here.

The function measures one server and returns its figures. Its decorator says what the line is about,
which servers it measures, which figures the progress shows, and which rows the report gets.
"""

import os

from measure import CHANNELS, DEFAULT_KEEP, Line
from servers import (LonglineMemory, LonglineRedis, LonglineRedisPair, LonglineSqlite, Nchan, NchanRedis,
                     NchanRedisPair)
from table import BYTES, COUNT, MEBIBYTES, MICROSECONDS, MILLISECONDS, NANOSECONDS, RATE, Row, compare

CACHE_BYTES = 64 * 2**20  # longline's default CACHE_SIZE
WRK_SHOWS = ("rate", "cpu_us", "p50_us", "p99_us")
WAKE_SHOWS = ("wake_p50_us", "wake_p99_us", "wake_max_us")
WINDOW = 64  # publishes out at once, to see the CPU of a busy server

LINES = []


def line(name, about, servers, **more):
    """Adds a line to the benchmark; the decorated function is its measure(). See Line."""
    def add(measure):
        LINES.append(Line(name, about, servers, measure, **more))
        return measure

    return add


# --- the rows ---


def ratio(what, figure, unit, ours, peer, at_least=None, at_most=None):
    """A row: our figure and the peer's. Its goal, if any, bounds their ratio."""
    def row(of):
        return compare(f"{of.text(what)}; {ours.name} : {peer.name}", unit, of(ours, figure),
                       of(peer, figure), at_least, at_most)

    return row


def within(bound, what, figure, unit, ours, peer):
    """The same, with a goal that bounds our figure alone."""
    def row(of):
        row = ratio(what, figure, unit, ours, peer)(of)
        row.goal, row.met = f"≤ {unit.goal(bound)}", of(ours, figure) <= bound
        return row

    return row


def bounded(bound, what, figure, unit, ours):
    """A row of our figure alone, and its bound."""
    def row(of):
        value = of(ours, figure)
        return Row(of.text(f"{what}; {ours.name}"), unit(value), goal=f"≤ {unit.goal(bound)}", met=value <= bound)

    return row


# --- requests, with wrk ---


def post(connections, rate_goal=None, redis_goal=None, cpu_goal=None):
    """The settings of a line that measures POST over that many connections, with default settings."""
    load = f"{connections} connections"
    return {
        "servers": (LonglineSqlite, LonglineMemory, Nchan, NchanRedis),
        "rates": f"POST, {load}",
        "shows": WRK_SHOWS,
        "rows": [
            ratio(f"durable POST, {load}", "rate", RATE, LonglineSqlite, Nchan, at_least=rate_goal),
            ratio(f"durable POST, {load}", "rate", RATE, LonglineSqlite, NchanRedis, at_least=redis_goal),
            ratio(f"CPU per durable POST, {load}", "cpu_us", MICROSECONDS, LonglineSqlite, Nchan,
                  at_most=cpu_goal),
        ],
    }


def measure_post(bench, start, connections, keep=DEFAULT_KEEP):
    with start(keep) as server:
        bench.wrk(server, "post.lua", connections, seconds=1)  # creates the channels
        return bench.wrk(server, "post.lua", connections)


@line("post256", "POST of 200 bytes over 1,000 channels, 256 connections",
      **post(256, rate_goal=0.9, redis_goal=5, cpu_goal=1.0))
def post256(bench, start):
    return measure_post(bench, start, 256)


@line("post256-kept30", "the same with 30 updates kept a channel, so that longline's sweeper is at work",
      (LonglineSqlite, Nchan), rates="POST, 256 connections, 30 kept", shows=WRK_SHOWS, rows=[
          ratio("CPU per durable POST, 256 connections, 30 kept", "cpu_us", MICROSECONDS, LonglineSqlite, Nchan,
                at_most=1.2),
      ])
def post256_kept30(bench, start):
    return measure_post(bench, start, 256, bench.options.keep)


def tail_row(of):
    p99, p50 = (of(LonglineSqlite, figure) for figure in ("p99_us", "p50_us"))
    return compare("durable POST, 64 connections: p99 : p50; longline sqlite", MILLISECONDS, p99, p50, at_most=3)


post64_settings = post(64, redis_goal=5.5)
post64_settings["rows"].append(tail_row)


@line("post64", "POST of 200 bytes over 1,000 channels, 64 connections", **post64_settings)
def post64(bench, start):
    return measure_post(bench, start, 64)


BATCH = 100  # updates, see batch.lua


def batch_row(of):
    return compare("batches of 100 × 200 bytes, 256 connections: updates/s : single pushes/s; longline sqlite", RATE,
                   of(LonglineSqlite, "updates_rate"), of(LonglineSqlite, "singles_rate"), at_least=4)


@line("batch256", "POST of batches of 100 updates of 200 bytes, 256 connections, beside single pushes", (LonglineSqlite,),
      shows=("updates_rate", "update_cpu_us", "singles_rate", "p50_us", "p99_us"), rows=[
          batch_row,
          bounded(3.5, "batches of 100 × 200 bytes, 256 connections: CPU per update", "update_cpu_us", MICROSECONDS,
                  LonglineSqlite),
      ])
def batch256(bench, start):
    with start(DEFAULT_KEEP) as server:
        bench.wrk(server, "post.lua", 256, seconds=1)
        singles = bench.wrk(server, "post.lua", 256)
    with start(DEFAULT_KEEP) as server:
        bench.wrk(server, "batch.lua", 256, seconds=1)
        figures = bench.wrk(server, "batch.lua", 256)
    return {**figures, "updates_rate": BATCH * figures["rate"], "update_cpu_us": figures["cpu_us"] / BATCH,
            "singles_rate": singles["rate"]}


@line("get64", "GET of the one update that waits in each of 1,000 channels, 64 connections",
      (LonglineSqlite, LonglineMemory, Nchan), rates="GET, 64 connections", shows=WRK_SHOWS, rows=[
          ratio("GET with one update waiting, 64 connections", "rate", RATE, LonglineSqlite, Nchan, at_least=1.0),
          ratio("CPU per GET, 64 connections", "cpu_us", MICROSECONDS, LonglineSqlite, Nchan),
      ])
def get64(bench, start):
    with start() as server:
        bench.polls(server, "write", channels=CHANNELS)
        bench.wrk(server, "get.lua", 64, seconds=1)
        return bench.wrk(server, "get.lua", 64)


# --- the disk ---


class Disk:
    """Stands for a server in the lines that measure the disk itself."""

    name = "disk"


def fsync_us(of, p):
    return of(Disk, f"overwrite_{p}_us", "fsync")


def fsync_row(p):
    return lambda of: Row(f"one fsync of 4 KiB over old bytes, {p}", MILLISECONDS(fsync_us(of, p)))


@line("fsync", "4 KiB and fdatasync on this disk (also measured by spread)", (Disk,), rounds=3, quick_rounds=3,
      shows=("overwrite_p50_us", "overwrite_p99_us", "append_p50_us", "append_p99_us"),
      rows=[fsync_row("p50"), fsync_row("p99")])
def fsync(bench, _start):
    return bench.fsync()


# --- our own code ---


class Seals:
    """Stands for a server in the line that measures the checksums of rows."""

    name = "checksum"


def seal_row(of):
    row = Row("checksum of an update of 200 bytes, CPU", NANOSECONDS(of(Seals, "seal_ns")))
    row.goal, row.met = f"≤ {NANOSECONDS.goal(200)}", of(Seals, "seal_ns") <= 200
    return row


@line("seals", "the checksums of a row of 200 bytes and as many of headers", (Seals,), rounds=3, quick_rounds=3,
      shows=("seal_ns", "numbers_ns"), rows=[seal_row])
def seals(bench, _start):
    return bench.tool(os.path.join(os.path.dirname(bench.options.client), "seals"))


# --- polls ---


def spread_rows(p):
    """The rows of one percentile. A durable push may take one fsync longer than one to memory."""
    what, figure = f"{{polls}} polls, each on its own channel: wake-up {p}", f"wake_{p}_us"

    def nchan_and_fsync(of):
        row = ratio(what, figure, MILLISECONDS, LonglineSqlite, Nchan)(of)
        bound = 1.15 * of(Nchan, figure) + fsync_us(of, p)
        row.goal = f"≤ 1.15 × nchan + one fsync = {MILLISECONDS(bound)}"
        row.met = of(LonglineSqlite, figure) <= bound
        return row

    def memory_and_fsync(of):
        return compare(f"{of.text(what)}; {LonglineSqlite.name} : {LonglineMemory.name} + one fsync",
                       MILLISECONDS, of(LonglineSqlite, figure), of(LonglineMemory, figure) + fsync_us(of, p))

    return [
        ratio(what, figure, MILLISECONDS, LonglineMemory, Nchan, at_most=1.15),
        nchan_and_fsync,
        memory_and_fsync,
        ratio(what, figure, MILLISECONDS, LonglineSqlite, NchanRedis),
    ]


def record_fsync(bench):
    bench.figures.record("fsync", Disk.name, bench.fsync())


@line("spread", "15,000 polls on 15,000 channels, one publish each, one after the other: wake-up latency",
      (LonglineSqlite, LonglineMemory, Nchan, NchanRedis), before_round=record_fsync,
      shows=(*WAKE_SHOWS, "cpu_us_per_push"), rows=[*spread_rows("p50"), *spread_rows("p99")])
def spread(bench, start):
    with start() as server:
        return bench.polls(server, "spread", polls=bench.options.polls)


@line("fanout", "15,000 polls on one channel, one publish, again and again: wakes per second",
      (LonglineSqlite, LonglineMemory, Nchan),
      shows=("wakes_per_second", "cpu_us_per_wake", "wake_p50_us", "wake_p99_us"), rows=[
          ratio("{polls} polls on one channel, wakes/s", "wakes_per_second", RATE, ours, Nchan, at_least=1.3)
          for ours in (LonglineSqlite, LonglineMemory)
      ])
def fanout(bench, start):
    with start() as server:
        return bench.polls(server, "fanout", polls=bench.options.polls, rounds=3 if bench.options.quick else 10)


def stream_rows(ours):
    return [
        lambda of: compare(f"{of.text('{polls} streams : polls on one channel, wakes/s')}; {ours.name}", RATE,
                           of(ours, "stream_rate"), of(ours, "poll_rate"), at_least=0.9),
        lambda of: compare(f"RSS per idle stream : parked poll, all on one channel; {ours.name}", BYTES,
                           of(ours, "stream_bytes"), of(ours, "poll_bytes"), at_most=1.05),
    ]


@line("streams", "15,000 streams on one channel, one publish, again and again, beside as many polls",
      (LonglineSqlite, LonglineRedis), shows=("stream_rate", "poll_rate", "stream_cpu_us", "poll_cpu_us", "stream_bytes", "poll_bytes"),
      rows=[*stream_rows(LonglineSqlite), *stream_rows(LonglineRedis)])
def streams(bench, start):
    figures = {}
    for mode, name in (("streams", "stream"), ("fanout", "poll")):
        with start() as server:
            woken = bench.polls(server, mode, polls=bench.options.polls, rounds=3 if bench.options.quick else 10)
        figures[f"{name}_rate"] = woken["wakes_per_second"]
        figures[f"{name}_cpu_us"] = woken["cpu_us_per_wake"]
        if mode == "streams":
            figures["stream_bytes"] = woken["rss_per_stream_bytes"]
    with start() as server:
        figures["poll_bytes"] = bench.polls(server, "park", polls=bench.options.polls, channels=1)["rss_per_poll_bytes"]
    return figures


@line("memory", "RSS before and after 15,000 polls are parked", (LonglineSqlite, Nchan), rounds=3, quick_rounds=1,
      shows=("spread_bytes", "one_bytes"), rows=[
          within(700, "RSS per parked poll, each on its own channel", "spread_bytes", BYTES, LonglineSqlite, Nchan),
          within(700, "RSS per parked poll, all on one channel", "one_bytes", BYTES, LonglineSqlite, Nchan),
      ])
def memory(bench, start):
    figures = {}
    for figure, channels in (("spread_bytes", bench.options.polls), ("one_bytes", 1)):
        with start() as server:
            parked = bench.polls(server, "park", polls=bench.options.polls, channels=channels)
        figures[figure] = parked["rss_per_poll_bytes"]
    return figures


# --- filters and names ---

WHERE = "&where=body.update_id:10000"  # what bench.c pushes


def own(what, figure, unit, base, at_most):
    """A row: our figure with something, and without it."""
    def row(of):
        return compare(f"{of.text(what)}; {LonglineSqlite.name}", unit, of(LonglineSqlite, figure),
                       of(LonglineSqlite, base), at_most=at_most)

    return row


@line("where", "15,000 polls on one channel: wakes and memory with a filter beside those without", (LonglineSqlite,),
      shows=("filtered_cpu_us", "plain_cpu_us", "filtered_us", "plain_us", "one_bytes", "own_bytes"), rows=[
          own("{polls} polls on one channel, with a filter : without: time until all are woken", "filtered_us",
              MILLISECONDS, "plain_us", 1.3),
          own("{polls} polls on one channel, with a filter : without: CPU per wake", "filtered_cpu_us", MICROSECONDS,
              "plain_cpu_us", 1.3),
          bounded(700, "RSS per parked poll with a filter, all on one channel", "one_bytes", BYTES, LonglineSqlite),
          bounded(700, "RSS per parked poll with a filter, each on its own channel", "own_bytes", BYTES,
                  LonglineSqlite),
      ])
def where(bench, start):
    polls, figures = bench.options.polls, {}
    for name, more in (("plain", {}), ("filtered", {"parameters": WHERE})):
        with start() as server:
            woken = bench.polls(server, "fanout", polls=polls, rounds=3 if bench.options.quick else 10, **more)
        figures[f"{name}_cpu_us"] = woken["cpu_us_per_wake"]
        figures[f"{name}_us"] = 1e6 * polls / woken["wakes_per_second"]
    for name, channels in (("one_bytes", 1), ("own_bytes", polls)):
        with start() as server:
            parked = bench.polls(server, "park", polls=polls, channels=channels, parameters=WHERE)
        figures[name] = parked["rss_per_poll_bytes"]
    return figures


@line("as", "GET of the one update that waits in each of 1,000 channels, 64 connections, with a name beside without",
      (LonglineSqlite,), shows=("named_cpu_us", "plain_cpu_us"), rows=[
          own("GET with one update waiting, 64 connections, with as : without: CPU", "named_cpu_us", MICROSECONDS,
              "plain_cpu_us", 1.05),
      ])
def named(bench, start):
    with start() as server:
        bench.polls(server, "write", channels=CHANNELS)
        bench.wrk(server, "get.lua", 64, seconds=1)
        plain = bench.wrk(server, "get.lua", 64)
        bench.wrk(server, "get.lua", 64, seconds=1, parameters=("&as=bot",))
        named = bench.wrk(server, "get.lua", 64, parameters=("&as=bot",))
    return {"plain_cpu_us": plain["cpu_us"], "named_cpu_us": named["cpu_us"]}


# --- nobody is held up ---


@line("pipeline", "a second client's requests, one at a time, beside a client that pipelines without end",
      (LonglineSqlite,), shows=("alone_p99_us", "second_p50_us", "second_p99_us", "second_max_us"), rows=[
          bounded(2000, "p99 of a second client beside one that pipelines without end", "second_p99_us",
                  MILLISECONDS, LonglineSqlite),
      ])
def pipeline(bench, start):
    with start() as server:
        return bench.polls(server, "pipeline")


@line("expire", "a second client's longest wait while 15,000 polls end in one moment", (LonglineSqlite,), rounds=3,
      quick_rounds=1, shows=("before_p99_us", "before_max_us", "stall_p99_us", "stall_max_us"), rows=[
          bounded(10000, "{polls} polls end in one moment: the longest wait of a second client", "stall_max_us",
                  MILLISECONDS, LonglineSqlite),
      ])
def expire(bench, start):
    with start() as server:
        return bench.polls(server, "expire", polls=bench.options.polls)


@line("upgrade", "a second client's longest wait while the server becomes another program, beside 15,000 parked polls",
      (LonglineSqlite,), rounds=1, quick_rounds=1, shows=("pause_p50_us", "pause_p99_us", "wake_p99_us"), rows=[
          bounded(100000, "SIGUSR2 beside {polls} parked polls: p99 of the longest wait of a second client",
                  "pause_p99_us", MILLISECONDS, LonglineSqlite),
      ])
def upgrade(bench, start):
    with start() as server:
        return bench.polls(server, "upgrade", polls=bench.options.polls, rounds=10 if bench.options.quick else 100)


# --- very many channels ---


def channels_rss(of):
    rss, bound = of(LonglineSqlite, "rss_bytes"), CACHE_BYTES + 64 * 2**20
    return Row(of.text("{channels} channels written once: RSS"), MEBIBYTES(rss), goal=f"≤ {MEBIBYTES(bound)}",
               met=rss <= bound)


def channels_growth(cost, key):
    """The cost of the last 100,000 appends compared with the first."""
    def row(of):
        what = of.text(f"{{channels}} channels written once: {cost} per append, the last 100,000 : the first")
        last, first = (of(LonglineSqlite, f"{end}_{key}_us") for end in ("last", "first"))
        return compare(what, MICROSECONDS, last, first, at_most=1.15)

    return row


@line("channels", "1,000,000 channels with random 22-character names written once each, 256 connections",
      (LonglineSqlite,), rounds=3, quick_rounds=1,
      shows=("rss_bytes", "first_wall_us", "last_wall_us", "all_wall_us", "first_cpu_us", "last_cpu_us", "all_cpu_us"),
      rows=[channels_rss, channels_growth("time", "wall"), channels_growth("CPU", "cpu")])
def channels(bench, start):
    with start() as server:
        return bench.polls(server, "write", channels=bench.options.channels, connections=256, names="secret",
                           deadline=900)


# --- over redis ---


def over_redis(what, figure, unit, **goal):
    return ratio(what, figure, unit, LonglineRedis, NchanRedis, **goal)


def one_script(of):
    row = over_redis("EVALSHA per POST, 64 connections", "redis_evalsha", COUNT)(of)
    row.goal, row.met = "≤ 1", round(of(LonglineRedis, "redis_evalsha"), 2) <= 1
    return row


@line("redis-post",
      "over redis: POST of 200 bytes over 1,000 channels, 64 connections; CPU on each side, redis' commands",
      (LonglineRedis, NchanRedis), rates="POST, 64 connections",
      shows=(*WRK_SHOWS, "front_cpu_us", "redis_cpu_us", "redis_evalsha", "redis_commands"), rows=[
          over_redis("POST over redis, 64 connections", "rate", RATE, at_least=3),
          within(15, "front end's CPU per POST over redis, 64 connections", "front_cpu_us", MICROSECONDS,
                 LonglineRedis, NchanRedis),
          over_redis("redis' CPU per POST, 64 connections", "redis_cpu_us", MICROSECONDS),
          one_script,
          over_redis("commands run in redis per POST, those of the script too, 64 connections", "redis_commands",
                     COUNT),
      ])
def redis_post(bench, start):
    with start() as server:
        bench.wrk(server, "post.lua", 64, seconds=1)  # creates the channels
        before = server.redis_stats()
        figures = bench.wrk(server, "post.lua", 64)
        for what, count in server.redis_stats().items():
            figures[f"redis_{what}"] = (count - before[what]) / figures["requests"]
        figures["front_cpu_us"] = figures["cpu_us"] - figures["redis_cpu_us"]
        return figures


WAKE = "{polls} polls on one front end, publishes on another"
BUSY = f"{WAKE}, {WINDOW} out at once"


@line("redis-wake",
      "15,000 polls on one front end, one publish to each on another, over one redis: latency, CPU on each side",
      (LonglineRedisPair, NchanRedisPair),
      shows=(*WAKE_SHOWS, "busy_rate", "pushes_cpu_us", "polls_cpu_us", "redis_cpu_us"), rows=[
          over_redis(f"{WAKE}: wake-up p50", "wake_p50_us", MILLISECONDS, at_most=1.0),
          over_redis(f"{WAKE}: wake-up p99", "wake_p99_us", MILLISECONDS),
          over_redis(f"{BUSY}: rate", "busy_rate", RATE),
          over_redis(f"{BUSY}: CPU per publish where it is made", "pushes_cpu_us", MICROSECONDS),
          over_redis(f"{BUSY}: CPU per wake where it is polled", "polls_cpu_us", MICROSECONDS),
          over_redis(f"{BUSY}: redis' CPU per publish", "redis_cpu_us", MICROSECONDS),
      ])
def redis_wake(bench, start):
    polls = bench.options.polls
    with start() as server:
        figures = bench.polls(server, "spread", polls=polls)
    with start() as server:
        roles = server.pids_by_role()
        pids = [pid for members in roles.values() for pid in members]
        busy = bench.polls(server, "spread", pids, polls=polls, window=WINDOW)
    cpu_us = dict(zip(pids, busy["cpu_us_per_push_each"]))
    for role, members in roles.items():
        figures[f"{role}_cpu_us"] = sum(cpu_us[pid] for pid in members)
    figures["busy_rate"] = polls / busy["seconds"]
    return figures


FIRST_POLL = "per first poll, each on its own channel"


@line("redis-park",
      "over redis: what 15,000 first polls, each on its own channel, cost: RSS on each side, redis' CPU",
      (LonglineRedis, NchanRedis), rounds=3, quick_rounds=1, shows=("front_bytes", "redis_bytes", "redis_cpu_us"),
      rows=[
          over_redis(f"front end's RSS {FIRST_POLL}", "front_bytes", BYTES),
          over_redis(f"redis' RSS {FIRST_POLL}", "redis_bytes", BYTES),
          over_redis(f"redis' CPU {FIRST_POLL}", "redis_cpu_us", MICROSECONDS),
      ])
def redis_park(bench, start):
    polls, figures = bench.options.polls, {}
    for part in ("front", "redis"):
        with start() as server:
            pids = server.front_pids() if part == "front" else [server.redis.pid]
            before = server.redis_stats()
            parked = bench.polls(server, "park", pids, polls=polls, names="secret")
            figures[f"{part}_bytes"] = parked["rss_per_poll_bytes"]
            figures["redis_cpu_us"] = (server.redis_stats()["cpu_us"] - before["cpu_us"]) / polls
    return figures
