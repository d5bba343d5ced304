/*
 * The log's own clock, by which updates age. No jump of the wall clock moves it.
 *
 * While the process runs it follows the steady clock. Across a restart it goes on from what the
 * file knows: by the time that the wall clock says has passed, but by a day at most, and not at
 * all if the wall clock has gone back. Nobody saw that time, so the wall clock may have been wrong:
 * when it goes back over a later restart, it takes as much of that time back. In doubt updates
 * stay longer. What the wall clock does in between does not count. An upgrade of a running process
 * counts for a minute at most: it takes no longer.
 *
 * It counts milliseconds. On a new file it begins with the wall clock's; it equals it for as long
 * as that never jumps.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct store_options;

/* What the file knows. */
struct log_time {
    int64_t log_ms;    /* the log's clock at the last moment on record; 0: none */
    int64_t wall_ms;   /* the wall clock then, had it not jumped since the start */
    int64_t unseen_ms; /* of all restarts: what may be taken back */
};

struct log_clock {
    const struct store_options *options; /* its wall_ms() and steady_ms() */
    int64_t base_ms;                     /* plus the steady clock: the log's */
    int64_t start_base_ms; /* plus the steady clock: the wall clock without its jumps */
    int64_t wall_base_ms;  /* plus the steady clock: the wall clock when last watched */
    int64_t unseen_ms;
};

/* Goes on from `then`. Logs a wall clock that cannot be right. `options` must stay. */
void log_clock_start(struct log_clock *clock, const struct store_options *options,
                     struct log_time then);

/* From any thread. */
int64_t log_clock_now(const struct log_clock *clock);

/* What the file should know. */
struct log_time log_clock_time(const struct log_clock *clock);

/* Logs a jump of the wall clock since it was last asked. */
void log_clock_watch(struct log_clock *clock);

/* `then`, after a restart or an upgrade at `wall_ms` of the wall clock. For the tests. */
struct log_time log_time_resume(struct log_time then, int64_t wall_ms, bool is_upgrade);
