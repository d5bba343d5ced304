#include "sqlite/meta.h"
#include "sqlite/recover.h"
#include "sqlite/replay.h"
#include "sqlite/update_log_parts.h"
#include "sqlite/upgrade.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TELL_MS = 1000,          /* from one options.at_work() to the next */
    PROGRESS_STEPS = 100000, /* of SQLite's virtual machine */
    SETTLE_MAX = 3, /* checkpoints before it is left: while many push, there is always more */
};

/* As far as there is room on the disk: opening replays what could not be written. */
static void write_checkpoint(struct update_log *log) {
    while (!log->checkpoint.is_stuck && (log->checkpoint.is_open || log->entries.dirty_count)) {
        if (!log->checkpoint.is_open)
            checkpoint_open(&log->checkpoint);
        uint64_t errors = log->file.errors;
        update_log_maintain(log, false);
        if (log->file.errors != errors)
            break;
    }
}

static void free_log(struct update_log *log) {
    log_file_close(&log->file);
    entries_deinit(&log->entries);
    epochs_deinit(&log->epochs);
    cursors_deinit(&log->cursors);
    purges_deinit(&log->purges);
    damage_deinit(&log->damage);
    free(log);
}

/* --- Opening ---------------------------------------------------------------------------------- */

/* What a start reads, mends and prepares. False with one line in `error` on failure. */
static bool init_parts(struct update_log *log, bool goes_on, char *error, size_t error_size) {
    const struct store_options *options = &log->options;
    int64_t channel_max = (int64_t)options->channel_max_updates;
    struct log_time time;
    if (!recover_channels(&log->file, &log->entries.names, options, error, error_size))
        return false;
    checkpoint_init(&log->checkpoint, &log->file, &log->entries, &log->state);
    if (!rows_init(&log->rows, &log->file) ||
        !sweeper_init(&log->sweeper, &log->file, &log->state, options) ||
        !forget_init(&log->forget, &log->file, &log->entries, options->ttl_ms) ||
        !deliveries_init(&log->deliveries, &log->file, options->max_bytes) ||
        !cursors_init(&log->cursors, &log->file, options) ||
        !wal_init(&log->wal, &log->file, options) ||
        !purges_init(&log->purges, &log->file, &log->rows, &log->state, &log->wal)) {
        log_file_explain(&log->file, options, "cannot be read", error, error_size);
        return false;
    }
    if (!replay_log(&log->file, &log->entries, options, &log->state, &time, error, error_size))
        return false;
    if (!epochs_open(&log->epochs, &log->file, log->state.last_seq, goes_on)) {
        log_file_explain(&log->file, options, "cannot be read", error, error_size);
        return false;
    }
    log_clock_start(&log->clock, options, time);
    log->time_put_at = options->steady_ms() - TIME_MS; /* the first transaction tells the file */
    log->reader = (struct reader){.rows = &log->rows,
                                  .damage = &log->damage,
                                  .channel_max = channel_max,
                                  .raised_seq = log->state.raised_seq};
    return true;
}

/* Of SQLite, while it reads and writes for the start: tells that it gets on. */
static int on_progress(void *context) {
    struct update_log *log = context;
    int64_t now_ms = log->options.steady_ms();
    if (now_ms - log->told_at >= TELL_MS) {
        log->told_at = now_ms;
        log->options.at_work();
    }
    return 0;
}

static void watch_progress(struct update_log *log) {
    log->told_at = log->options.steady_ms();
    sqlite3_progress_handler(log->file.db, log->options.at_work ? PROGRESS_STEPS : 0, on_progress,
                             log);
}

struct update_log *update_log_open(const struct store_options *options, bool goes_on, char *error,
                                   size_t error_size) {
    struct update_log *log = calloc(1, sizeof *log);
    if (!log || !entries_init(&log->entries, &log->rows)) {
        free(log);
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    log->options = *options;
    bool ok = log_file_open(&log->file, &log->options, error, error_size);
    if (ok) {
        watch_progress(log);
        log_file_take_over(&log->file, goes_on);
    }
    if (ok && upgrade_file(&log->file, &log->options, error, error_size) &&
        init_parts(log, goes_on, error, error_size)) {
        write_checkpoint(log); /* or the next start would replay the same again, and more */
        sqlite3_progress_handler(log->file.db, 0, NULL, NULL);
        return log;
    }
    free_log(log);
    return NULL;
}

int64_t update_log_now_ms(const struct update_log *log) {
    return log_clock_now(&log->clock);
}

/* --- Leaving and closing ---------------------------------------------------------------------- */

/* Writes of a checkpoint, with no sync: opening replays what a power cut undoes. */
static bool write_lax(struct update_log *log, struct slice_bound bound) {
    struct log_transaction t;
    struct log_moment moment = log_look_at_clock(log);
    bool was_unsynced = log->wal.is_unsynced;
    if (!log->checkpoint.is_open)
        checkpoint_open(&log->checkpoint);
    bool ok = log_begin_as(log, &t, log_file_begin_lax);
    for (size_t rows = 0; ok && !t.written.is_last && slice_may_go_on(&bound, rows);
         rows += STEP_ROWS)
        ok = checkpoint_write(&log->checkpoint, STEP_ROWS, &t.written);
    if (ok && log_put_time(log, moment) && log_commit(log, &t)) {
        log->wal.is_unsynced = was_unsynced;
        return true;
    }
    log_roll_back(log, &t, "checkpoint");
    return false;
}

/* So that what is left is little: to be written, and for the next program to read of the
 * write-ahead log. */
bool update_log_settle(struct update_log *log) {
    bool is_next =
        log->settled < SETTLE_MAX && (!log->settled || log->entries.dirty_count > STEP_ROWS);
    if (log->checkpoint.is_open || is_next) {
        log->settled += !log->checkpoint.is_open;
        if (write_lax(log, slice_when_idle()))
            return true;
    }
    log->settled = 0;
    wal_truncate(&log->wal, log_look_at_clock(log).steady_ms);
    write_lax(log, slice_when_idle()); /* the log begins anew, which costs a sync */
    return false;
}

/* What is still to be written when it is left, with no sync. */
static void write_rest(struct update_log *log) {
    struct slice_bound all = {.min_rows = SIZE_MAX, .max_rows = SIZE_MAX};
    while (write_lax(log, all) && log->entries.dirty_count)
        ;
    sqlite3_db_config(log->file.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

bool update_log_close(struct update_log *log, bool is_left) {
    if (is_left)
        write_rest(log);
    else
        write_checkpoint(log);
    if (log->cursors.waiting_since)
        log_write_cursors(log, SIZE_MAX);
    bool ok = (is_left ? log_file_begin_lax : log_file_begin)(&log->file) &&
              log_put_time(log, log_look_at_clock(log)) && log_file_commit(&log->file);
    if (!ok)
        log_file_roll_back(&log->file);
    bool is_clean = ok && !log->file.trouble && !log->file.sync_trouble &&
                    !log->file.tail.is_in_doubt && !log->epochs.is_unsaved;
    free_log(log);
    return is_clean;
}
