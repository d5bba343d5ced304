#include "sqlite/update_log.h"
#include "sqlite/checkpoint.h"
#include "sqlite/entries.h"
#include "sqlite/forget.h"
#include "sqlite/log_file.h"
#include "sqlite/reader.h"
#include "sqlite/rows.h"
#include "sqlite/sweeper.h"
#include "sqlite/wal.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAINTENANCE_ROWS = 1024 }; /* written in one transaction; twice as many are swept */

struct update_log {
    struct store_options options;
    struct log_file file;
    struct rows rows;
    struct log_state state;
    struct entries entries;
    struct checkpoint checkpoint;
    struct sweeper sweeper;
    struct forget forget;
    struct wal wal;
};

/* --- Time: nobody else in this room asks the clock -------------------------------------------- */

struct moment {
    int64_t now_ms;
    int64_t cutoff_ms; /* updates from before are past the bound on age */
};

static struct moment look_at_clock(const struct update_log *log) {
    int64_t now_ms = log->options.clock_ms();
    return (struct moment){.now_ms = now_ms, .cutoff_ms = now_ms - log->options.ttl_ms};
}

/* The `at` of new rows. It never goes back, even if the clock does: the old end of the log must
 * hold its oldest updates. */
static int64_t next_at(const struct update_log *log, struct moment moment) {
    return moment.now_ms > log->state.last_at ? moment.now_ms : log->state.last_at;
}

/* --- Transactions ----------------------------------------------------------------------------- */

/* What undoes a transaction in memory; the entries undo themselves. */
struct transaction {
    struct log_state before;
    struct checkpoint_slice written;
};

static bool begin(struct update_log *log, struct transaction *t) {
    t->before = log->state;
    checkpoint_slice_init(&t->written);
    entries_begin(&log->entries);
    return log_file_begin(&log->file);
}

static bool commit(struct update_log *log, struct transaction *t) {
    if (!log_file_commit(&log->file))
        return false;
    checkpoint_committed(&log->checkpoint, &t->written);
    return true;
}

static void roll_back(struct update_log *log, struct transaction *t, const char *doing) {
    log_file_note_error(&log->file, doing);
    log_file_roll_back(&log->file);
    checkpoint_failed(&log->checkpoint, &t->written);
    log->state = t->before;
    sweeper_undone(&log->sweeper);
}

/* --- Maintenance ------------------------------------------------------------------------------ */

/* What keeps the log in order is done within append transactions as well, so that it keeps up
 * with any load. Then a slice grows with the number of appends. */
static size_t slice_rows(size_t appends) {
    return appends > MAINTENANCE_ROWS ? appends : MAINTENANCE_ROWS;
}

static void open_checkpoint_if_due(struct update_log *log, struct moment moment, bool is_idle) {
    if (!log->checkpoint.is_open &&
        (checkpoint_is_due(&log->checkpoint, moment.now_ms) ||
         sweeper_needs_checkpoint(&log->sweeper, moment.cutoff_ms, is_idle)))
        checkpoint_open(&log->checkpoint);
}

/* Whether there is anything to do within a transaction. */
static bool is_maintenance_due(struct update_log *log, struct moment moment, bool is_idle) {
    return log->checkpoint.is_open ||
           sweeper_due(&log->sweeper, moment.cutoff_ms, is_idle) != SWEEP_NOTHING;
}

/* Does a slice of checkpoint and sweeping within the open transaction. */
static bool maintain_within(struct update_log *log, struct transaction *t, struct moment moment,
                            size_t rows, bool is_idle) {
    if (log->checkpoint.is_open && !checkpoint_write(&log->checkpoint, rows, &t->written))
        return false;
    enum sweep sweep = sweeper_due(&log->sweeper, moment.cutoff_ms, is_idle);
    return sweep == SWEEP_NOTHING ||
           sweeper_sweep(&log->sweeper, sweep, moment.cutoff_ms, (int64_t)rows * 2);
}

bool update_log_maintain(struct update_log *log, bool is_idle) {
    struct moment moment = look_at_clock(log);
    if (forget_some(&log->forget, &log->state, moment.now_ms))
        entries_drop_clean(&log->entries);
    open_checkpoint_if_due(log, moment, is_idle);
    if (is_maintenance_due(log, moment, is_idle)) {
        struct transaction t;
        if (!begin(log, &t) || !maintain_within(log, &t, moment, slice_rows(0), is_idle) ||
            !commit(log, &t)) {
            roll_back(log, &t, "maintenance");
            return false;
        }
    }
    wal_maintain(&log->wal, moment.now_ms);
    return is_maintenance_due(log, moment, is_idle);
}

/* --- Appending -------------------------------------------------------------------------------- */

static struct slice append_name(const struct store_append *append) {
    return (struct slice){append->name, append->name_len};
}

static struct store_append *append_of(struct list *link) {
    return container_of(link, struct store_append, op.link);
}

/* The row of a channel's next update. */
static struct update_row next_row(const struct update_log *log, const struct channel_row *channel,
                                  const struct update *update) {
    return (struct update_row){
        .seq = log->state.last_seq + 1,
        .ts = (int64_t)channel->total + 1,
        .prev = channel->head,
        .skip = channel->mark,
        .at = update->at_ms,
        .size = update->body_len + update->raw_len + update->query_len + update->headers_len,
    };
}

/* `row` is the channel's newest now. */
static void note_row(struct update_log *log, struct channel_row *channel,
                     const struct update_row *row) {
    channel->total = (uint64_t)row->ts;
    channel->head = row->seq;
    channel->last_at = row->at;
    if (row->ts % LOG_SKIP == 0)
        channel->mark = row->seq;
    log->state.last_seq = row->seq;
    log->state.rows++;
    if (channel->total > log->options.channel_max_updates)
        log->state.excess.fresh++;
}

static bool append_one(struct update_log *log, struct store_append *append, struct moment moment) {
    struct entry *entry;
    struct slice name = append_name(append);
    if (!entries_find(&log->entries, append->hash, name, true, &entry))
        return false;
    entries_touch(&log->entries, entry, moment.now_ms);
    struct channel_row *channel = &entry->now;
    if (!channel->id)
        channel->id = ++log->state.last_channel_id;
    append->update->at_ms = log->state.last_at;
    struct update_row row = next_row(log, channel, append->update);
    if (!rows_insert_update(&log->rows, channel->id, &row, channel->total ? NULL : &name,
                            append->update))
        return false;
    note_row(log, channel, &row);
    append->update->ts = channel->total;
    return true;
}

static bool try_append(struct update_log *log, struct list *batch, struct transaction *t,
                       struct moment moment) {
    log->state.last_at = next_at(log, moment);
    size_t count = 0;
    for (struct list *link = batch->next; link != batch; link = link->next, count++)
        if (!append_one(log, append_of(link), moment))
            return false;
    log->checkpoint.appends += (int64_t)count;
    return maintain_within(log, t, moment, slice_rows(count), false) && commit(log, t);
}

static void undo_appends(struct update_log *log, struct list *batch) {
    for (struct list *link = batch->next; link != batch; link = link->next)
        entries_undo(&log->entries, append_of(link)->hash, append_name(append_of(link)));
}

void update_log_append(struct update_log *log, struct list *batch) {
    struct moment moment = look_at_clock(log);
    open_checkpoint_if_due(log, moment, false);
    struct transaction t;
    bool ok = begin(log, &t) && try_append(log, batch, &t, moment);
    if (ok) {
        sweeper_appended(&log->sweeper);
    } else {
        roll_back(log, &t, "append");
        undo_appends(log, batch);
        wal_copy(&log->wal,
                 moment.now_ms); /* the disk may be full of it: a copy makes room in it */
    }
    wal_bound(&log->wal, moment.now_ms);
    for (struct list *link = batch->next; link != batch; link = link->next)
        append_of(link)->error = ok ? STORE_OK : STORE_FAILED;
    entries_trim(&log->entries);
}

/* --- Reading ---------------------------------------------------------------------------------- */

void update_log_read(struct update_log *log, struct store_read *read) {
    read->updates = NULL;
    read->count = 0;
    read->total = read->gone = read->end = 0;
    struct entry *entry;
    struct slice name = {read->name, read->name_len};
    struct read_bounds bounds = {.channel_max = (int64_t)log->options.channel_max_updates,
                                 .cutoff_ms = look_at_clock(log).cutoff_ms};
    bool ok = entries_find(&log->entries, read->hash, name, false, &entry) &&
              (!entry || reader_read(&log->rows, &entry->now, &bounds, read));
    read->error = ok ? STORE_OK : STORE_FAILED;
    if (!ok)
        log_file_note_error(&log->file, "read");
    entries_trim(&log->entries);
}

void update_log_count_bytes(const struct update_log *log, struct store_stats *stats) {
    stats->bytes = (uint64_t)log_file_used_bytes(&log->file);
}

void update_log_stats(const struct update_log *log, struct store_stats *stats) {
    stats->commits = log->file.commits;
    stats->commit_ns = log->file.commit_ns;
    stats->errors = log->file.errors;
    stats->updates = (uint64_t)log->state.rows;
    stats->swept = log->state.swept;
}

/* --- Opening and closing ---------------------------------------------------------------------- */

static bool init_parts(struct update_log *log) {
    const struct store_options *options = &log->options;
    int64_t channel_max = (int64_t)options->channel_max_updates;
    checkpoint_init(&log->checkpoint, &log->file, &log->entries, &log->state, channel_max);
    return rows_init(&log->rows, &log->file) &&
           sweeper_init(&log->sweeper, &log->file, &log->state, options) &&
           forget_init(&log->forget, &log->file, options->ttl_ms) &&
           log_file_replay(&log->file, channel_max, &log->state);
}

static void free_log(struct update_log *log) {
    log_file_close(&log->file);
    entries_deinit(&log->entries);
    free(log);
}

struct update_log *update_log_open(const struct store_options *options, char *error,
                                   size_t error_size) {
    struct update_log *log = calloc(1, sizeof *log);
    if (!log || !entries_init(&log->entries, &log->rows)) {
        free(log);
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    log->options = *options;
    if (!log_file_open(&log->file, options, error, error_size)) {
        free_log(log);
        return NULL;
    }
    if (!init_parts(log)) {
        log_file_explain(&log->file, options, "cannot be read", error, error_size);
        free_log(log);
        return NULL;
    }
    wal_init(&log->wal, &log->file, &log->options);
    return log;
}

void update_log_close(struct update_log *log) {
    while (log->checkpoint.is_open || log->entries.dirty_count) {
        if (!log->checkpoint.is_open)
            checkpoint_open(&log->checkpoint);
        uint64_t errors = log->file.errors;
        update_log_maintain(log, false);
        if (log->file.errors != errors)
            break; /* opening replays what could not be written */
    }
    free_log(log);
}
