#include "sqlite/update_log.h"
#include "sqlite/meta.h"
#include "sqlite/update_log_parts.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    IDLE_SLICE_US = 2000,  /* and how long it may take */
    APPEND_SLICE_US = 500, /* the same within a transaction of appends */
    ROWS_AN_APPEND = 2,    /* of maintenance, however long they take: so it keeps up */
    CURSORS_A_SLICE = 128, /* of consumers, written within a transaction */
    PURGE_SLICE_US = 2000, /* of purging: how long it may take */
};

/* --- Time: nobody else in this room asks a clock ---------------------------------------------- */

struct log_moment log_look_at_clock(const struct update_log *log) {
    int64_t log_ms = log_clock_now(&log->clock);
    return (struct log_moment){.steady_ms = log->options.steady_ms(),
                               .wall_ms = log->options.wall_ms(),
                               .log_ms = log_ms,
                               .cutoff_ms = log_ms - log->options.ttl_ms};
}

/* --- Transactions ----------------------------------------------------------------------------- */

bool log_begin_as(struct update_log *log, struct log_transaction *t,
                  bool (*begin_file)(struct log_file *file)) {
    t->before = log->state;
    t->culprit = NULL;
    log->new_count = 0;
    checkpoint_slice_init(&t->written);
    entries_begin(&log->entries);
    return begin_file(&log->file);
}

static bool begin(struct update_log *log, struct log_transaction *t) {
    return log_begin_as(log, t, log_file_begin);
}

bool log_commit(struct update_log *log, struct log_transaction *t) {
    if (!log_file_commit(&log->file))
        return false;
    checkpoint_committed(&log->checkpoint, &t->written);
    deliveries_committed(&log->deliveries);
    cursors_committed(&log->cursors);
    purges_committed(&log->purges);
    return true;
}

void log_roll_back(struct update_log *log, struct log_transaction *t, const char *doing) {
    if (!t->culprit)
        log->file.trouble = log->file.reason ? log->file.reason
                            : log_file_lacked_memory(&log->file)
                                ? "out of memory"
                                : sqlite3_errstr(sqlite3_errcode(log->file.db));
    log_file_note_error(&log->file, doing);
    log_file_roll_back(&log->file);
    checkpoint_failed(&log->checkpoint, &t->written);
    log->state = t->before;
    sweeper_changed(&log->sweeper);
    deliveries_undone(&log->deliveries);
    cursors_undone(&log->cursors);
    purges_undone(&log->purges);
}

/* --- Maintenance ------------------------------------------------------------------------------ */

struct slice_bound slice_when_idle(void) {
    return (struct slice_bound){.max_rows = IDLE_ROWS,
                                .end_ns = uv_hrtime() + (uint64_t)IDLE_SLICE_US * 1000};
}

static struct slice_bound bound_for_appends(size_t appends, uint64_t began_ns) {
    uint64_t now = uv_hrtime(), slice_ns = (uint64_t)APPEND_SLICE_US * 1000;
    if (slice_ns < now - began_ns) /* as long as the appends took */
        slice_ns = now - began_ns;
    return (struct slice_bound){
        .min_rows = appends * ROWS_AN_APPEND, .max_rows = SIZE_MAX, .end_ns = now + slice_ns};
}

bool slice_may_go_on(const struct slice_bound *bound, size_t rows) {
    return rows < bound->max_rows && (rows < bound->min_rows || uv_hrtime() < bound->end_ns);
}

static void open_checkpoint_if_due(struct update_log *log, struct log_moment moment, bool is_idle) {
    if (!log->checkpoint.is_open &&
        (checkpoint_is_due(&log->checkpoint, moment.steady_ms) ||
         sweeper_needs_checkpoint(&log->sweeper, moment.cutoff_ms, is_idle) ||
         purges_need_checkpoint(&log->purges)))
        checkpoint_open(&log->checkpoint);
}

/* Whether the file should hear what time it is: what nobody has seen at the next start counts as a
 * day at most. While nothing can be written, it is also how we notice that it can again. */
static bool is_time_due(const struct update_log *log, struct log_moment moment) {
    return log->file.trouble || moment.steady_ms - log->time_put_at >= TIME_MS;
}

bool log_put_time(struct update_log *log, struct log_moment moment) {
    struct log_time time = log_clock_time(&log->clock);
    log->time_put_at = moment.steady_ms;
    return meta_put_time(&log->file, &time);
}

/* Whether there is anything to do within a transaction. */
static bool is_maintenance_due(struct update_log *log, struct log_moment moment, bool is_idle) {
    return checkpoint_is_under_way(&log->checkpoint) || is_time_due(log, moment) ||
           (!log->checkpoint.is_stuck && /* else a sweep of what it lacks is due for ever */
            sweeper_due(&log->sweeper, moment.cutoff_ms, is_idle) != SWEEP_NOTHING);
}

/* Does a slice of checkpoint and sweeping within the open transaction. */
static bool maintain_within(struct update_log *log, struct log_transaction *t,
                            struct log_moment moment, struct slice_bound bound, bool is_idle) {
    size_t rows = 0;
    while (checkpoint_is_under_way(&log->checkpoint) && !t->written.is_last &&
           (!rows || slice_may_go_on(&bound, rows))) {
        if (!checkpoint_write(&log->checkpoint, STEP_ROWS, &t->written))
            return false;
        rows += STEP_ROWS;
    }
    if ((t->written.is_last || is_time_due(log, moment)) && !log_put_time(log, moment))
        return false;
    if (cursors_may_ride(&log->cursors) && !cursors_write(&log->cursors, CURSORS_A_SLICE))
        return false;
    enum sweep sweep;
    bool is_moving = true; /* what is behind the checkpoint cannot be deleted yet */
    for (rows = 0; is_moving && (!rows || slice_may_go_on(&bound, rows)) &&
                   (sweep = sweeper_due(&log->sweeper, moment.cutoff_ms, is_idle));
         rows += STEP_ROWS) {
        uint64_t swept = log->state.swept;
        if (!sweeper_sweep(&log->sweeper, sweep, moment.cutoff_ms, STEP_ROWS))
            return false;
        is_moving = sweep == SWEEP_COUNT || log->state.swept > swept;
    }
    return true;
}

/* Writes cursors for which no append comes, or that wait for room. It costs no sync. */
bool log_write_cursors(struct update_log *log, size_t max) {
    bool was_unsynced = log->wal.is_unsynced;
    if (log_file_begin_lax(&log->file) && cursors_write(&log->cursors, max) &&
        log_file_commit(&log->file)) {
        cursors_committed(&log->cursors);
        log->wal.is_unsynced = was_unsynced;
        return true;
    }
    log_file_note_error(&log->file, "saving the cursors of consumers");
    log_file_roll_back(&log->file);
    cursors_undone(&log->cursors);
    return false;
}

/* Does a step of purging within a transaction. It costs no sync: what a crash undoes is done
 * again. */
static bool purge_within(struct update_log *log, enum purge_step step, uint64_t end_ns) {
    struct log_transaction t;
    int64_t deleted = 0;
    bool was_unsynced = log->wal.is_unsynced;
    if (log_begin_as(log, &t, log_file_begin_lax) &&
        (step == PURGE_END ? purges_end(&log->purges)
                           : purges_delete(&log->purges, end_ns, &deleted)) &&
        log_commit(log, &t)) {
        log->wal.is_unsynced = was_unsynced;
        sweeper_changed(&log->sweeper);
        return true;
    }
    log_roll_back(log, &t, "purging");
    return false;
}

bool update_log_purge_some(struct update_log *log) {
    int64_t now_ms = log->options.steady_ms();
    enum purge_step step = purges_due(&log->purges, now_ms);
    if (step == PURGE_NOTHING || step == PURGE_WAIT)
        return false;
    uint64_t end_ns = uv_hrtime() + (uint64_t)PURGE_SLICE_US * 1000;
    if (step == PURGE_WIPE)
        purges_wipe(&log->purges, now_ms, end_ns);
    else if (!purge_within(log, step, end_ns))
        purges_failed(&log->purges, now_ms);
    else if (step == PURGE_END)
        purges_ended(&log->purges, now_ms);
    log->sweeper.is_held = wipe_is_scanning(&log->purges.wipe);
    return purges_due(&log->purges, now_ms) > PURGE_WAIT;
}

bool update_log_maintain(struct update_log *log, bool is_idle) {
    struct log_moment moment = log_look_at_clock(log);
    log_clock_watch(&log->clock);
    forget_some(&log->forget, &log->state, moment.log_ms);
    deliveries_forget_some(&log->deliveries, moment.log_ms);
    cursors_forget_some(&log->cursors, moment.log_ms);
    purges_tidy(&log->purges, moment.log_ms);
    open_checkpoint_if_due(log, moment, is_idle);
    if (is_maintenance_due(log, moment, is_idle)) {
        struct log_transaction t;
        if (!begin(log, &t) || !maintain_within(log, &t, moment, slice_when_idle(), is_idle) ||
            !log_commit(log, &t)) {
            log_roll_back(log, &t, "maintenance");
            wal_maintain(&log->wal, moment.steady_ms);
            return false;
        }
    }
    bool has_cursors = cursors_are_due(&log->cursors, moment.steady_ms) &&
                       log_write_cursors(log, IDLE_ROWS) &&
                       cursors_are_due(&log->cursors, moment.steady_ms);
    wal_maintain(&log->wal, moment.steady_ms);
    bool is_purging = is_idle && update_log_purge_some(log);
    bool is_giving_back =
        is_idle && !log->options.path && log_file_give_back(&log->file, moment.steady_ms);
    return is_purging || is_giving_back || is_maintenance_due(log, moment, is_idle) ||
           has_cursors || log->forget.next_id || log->deliveries.next_channel ||
           log->cursors.next_channel;
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
        .channel = channel->id,
        .ts = (int64_t)channel->total + 1,
        .prev = channel->head,
        .skip = channel->mark,
        .at = update->at_ms,
        .born = update->born_ms,
        .size = update->body_len + update->raw_len + update->query_len + update->headers_len,
    };
}

/* `row` is the channel's newest now. */
static void note_row(struct update_log *log, struct channel_row *channel,
                     const struct update_row *row) {
    channel->total = (uint64_t)row->ts;
    channel->head = row->seq;
    channel->last_born = row->born;
    if (row->ts % LOG_SKIP == 0)
        channel->mark = row->seq;
    log->state.last_seq = row->seq;
    log->state.rows++;
    if (channel->total > log->options.channel_max_updates)
        log->state.excess.fresh++;
}

/* Gives SQLite the rows that have gathered. */
static bool flush_rows(struct update_log *log) {
    bool ok = !log->new_count || rows_append(&log->rows, log->new_rows, log->new_count);
    log->new_count = 0;
    return ok;
}

/* Looks whether the delivery of an update came before. False on failure. */
static bool note_delivery(struct update_log *log, const struct channel_row *channel,
                          struct update *update, struct delivery *delivery) {
    if (!delivery->has_id)
        return true;
    if (!deliveries_note(&log->deliveries, channel->id, (int64_t)channel->total + 1,
                         update->born_ms, delivery))
        return false;
    update_set_same_as(update, delivery->same_as);
    update->ts = delivery->same_as; /* it stays so, unless the update is stored */
    return true;
}

static bool append_row(struct update_log *log, struct channel_row *channel, struct slice name,
                       struct update *update) {
    if (log->new_count == NEW_ROWS_MAX && !flush_rows(log))
        return false;
    log->state.last_born = update->born_ms;
    struct new_row *new = &log->new_rows[log->new_count++];
    *new = (struct new_row){.row = next_row(log, channel, update),
                            .name = channel->total ? (struct slice){0} : name,
                            .update = update};
    note_row(log, channel, &new->row);
    update->ts = channel->total;
    return true;
}

static bool append_one(struct update_log *log, struct store_append *append,
                       struct log_transaction *t, struct log_moment moment) {
    struct entry *entry;
    struct slice name = append_name(append);
    if (!entries_find(&log->entries, append->hash, name, true, &entry)) {
        if (log->file.reason) /* its channel's row is damaged */
            t->culprit = append;
        return false;
    }
    entries_touch(&log->entries, entry, moment.steady_ms);
    struct channel_row *channel = &entry->now;
    if (!channel->id)
        channel->id = ++log->state.last_channel_id;
    for (uint32_t i = 0; i < append->count; i++) {
        struct update *update = append->updates[i];
        update->at_ms = moment.wall_ms;
        update->born_ms =
            moment.log_ms > log->state.last_born ? moment.log_ms : log->state.last_born;
        if (append->deliveries && !note_delivery(log, channel, update, &append->deliveries[i]))
            return false;
        if (store_append_is_stored(append, i) && !append_row(log, channel, name, update))
            return false;
    }
    append->epoch = epochs_of(&log->epochs, channel->id);
    return true;
}

static bool try_append(struct update_log *log, struct list *batch, struct log_transaction *t,
                       struct log_moment moment) {
    uint64_t began_ns = uv_hrtime();
    size_t count = 0;
    for (struct list *link = batch->next; link != batch; link = link->next) {
        struct store_append *append = append_of(link);
        if (append->error)
            continue;
        if (!append_one(log, append, t, moment))
            return false;
        count += append->count;
    }
    log->checkpoint.appends += (int64_t)count;
    bool ok = flush_rows(log) && epochs_save(&log->epochs) &&
              maintain_within(log, t, moment, bound_for_appends(count, began_ns), false) &&
              log_commit(log, t);
    if (ok)
        epochs_committed(&log->epochs);
    return ok;
}

static void undo_appends(struct update_log *log, struct list *batch) {
    for (struct list *link = batch->next; link != batch; link = link->next)
        entries_undo(&log->entries, append_of(link)->hash, append_name(append_of(link)));
}

/* How much of what appends take along has failed and is left out. */
static int count_left_out(const struct update_log *log) {
    return log->sweeper.is_end_stuck + log->sweeper.is_pass_stuck + log->cursors.is_held +
           log->cursors.is_damaged + log->deliveries.is_stuck + log->checkpoint.is_stuck;
}

/* Whether a batch that failed can be stored without what was in its way: an append whose channel is
 * damaged, the checkpoint, the sweeper, cursors of consumers, or ids of deliveries. */
static bool can_try_again(struct update_log *log, const struct log_transaction *t, int left_out) {
    if (t->culprit)
        t->culprit->error = STORE_FAILED;
    return t->culprit || count_left_out(log) != left_out;
}

static bool append_batch(struct update_log *log, struct list *batch, struct log_moment moment) {
    struct log_transaction t;
    bool ok;
    int left_out;
    do {
        left_out = count_left_out(log);
        open_checkpoint_if_due(log, moment, false);
        ok = begin(log, &t) && try_append(log, batch, &t, moment);
        if (ok)
            break;
        log_roll_back(log, &t, "append");
        undo_appends(log, batch);
    } while (can_try_again(log, &t, left_out));
    return ok;
}

void update_log_append(struct update_log *log, struct list *batch) {
    struct log_moment moment = log_look_at_clock(log);
    for (struct list *link = batch->next; link != batch; link = link->next)
        append_of(link)->error = STORE_OK;
    bool ok = append_batch(log, batch, moment);
    log->file.is_append_corrupt = !ok && log->file.trouble == sqlite3_errstr(SQLITE_CORRUPT);
    if (ok) {
        log->file.trouble = NULL;
        sweeper_appended(&log->sweeper);
    } else {
        wal_copy(&log->wal, moment.steady_ms); /* the disk may be full of it: that makes room */
    }
    for (struct list *link = batch->next; link != batch && !ok; link = link->next)
        append_of(link)->error = STORE_FAILED;
    entries_trim(&log->entries);
}

void update_log_bound_wal(struct update_log *log) {
    wal_bound(&log->wal, log->options.steady_ms());
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Judges what the reader has seen by its epoch: sets is_reset, and `after` with it. False on
 * failure. */
static bool judge_epoch(struct update_log *log, const struct reader_channel *channel,
                        struct store_read *read) {
    int64_t id = channel->row->id, seq;
    read->epoch = id ? epochs_of(&log->epochs, id) : 0;
    if (!read->seen_epoch || read->seen_epoch == read->epoch || read->position <= 0)
        return true;
    uint64_t ts = 0; /* up to it, what was read in that epoch is still there */
    if (id && epochs_find(&log->epochs, id, read->seen_epoch, &seq) &&
        !reader_find_ts(&log->reader, channel, seq, (struct slice){read->name, read->name_len},
                        &ts))
        return false;
    read->is_reset = read->position > (int64_t)ts;
    if (read->is_reset) {
        read->total = channel->row->total;
        read->after = read->end = ts;
    }
    return true;
}

static bool read_channel(struct update_log *log, const struct reader_channel *channel,
                         struct store_read *read) {
    if (!judge_epoch(log, channel, read))
        return false;
    if (read->is_reset)
        return true;
    if (channel->row->id)
        return reader_read(&log->reader, channel, log_look_at_clock(log).cutoff_ms, read);
    read->after = read->position > 0 ? (uint64_t)read->position : 0;
    return true;
}

static struct reader_channel channel_of(const struct entry *entry) {
    static const struct channel_row unknown = {0};
    return entry ? (struct reader_channel){&entry->now, entry->floor}
                 : (struct reader_channel){&unknown, 0};
}

void update_log_read(struct update_log *log, struct store_read *read) {
    read->updates = NULL;
    read->count = 0;
    read->epoch = read->after = read->total = read->gone = read->end = 0;
    read->is_reset = false;
    struct entry *entry;
    struct slice name = {read->name, read->name_len};
    bool ok = entries_find(&log->entries, read->hash, name, false, &entry);
    struct reader_channel channel = channel_of(ok ? entry : NULL);
    ok = ok && read_channel(log, &channel, read);
    read->error = ok ? STORE_OK : STORE_FAILED;
    if (!ok)
        log_file_note_error(&log->file, "read");
    entries_trim(&log->entries);
}

/* --- Purging ---------------------------------------------------------------------------------- */

/* Puts the floor of a channel into the file. Its row goes too, perhaps early: a replay that makes
 * the channel anew from the log would not know of the floor. */
static bool put_floor(struct update_log *log, struct entry *entry, uint64_t upto) {
    struct reader_channel channel = channel_of(entry);
    struct purge_range range = {
        .channel = entry->now.id, .upto = upto, .last_seq = entry->now.head};
    struct log_transaction t;
    if (!reader_find_seq(&log->reader, &channel, upto, entry_name(entry), &range.seq)) {
        log_file_note_error(&log->file, "purge");
        return false;
    }
    if (begin(log, &t) && rows_put_channel(&log->rows, entry_name(entry), &entry->now) &&
        purges_add(&log->purges, &range) && log_commit(log, &t)) {
        log->purges.has_jobs = true;
        entry->floor = upto;
        return true;
    }
    log_roll_back(log, &t, "purge");
    wal_copy(&log->wal, log->options.steady_ms()); /* the disk may be full of it */
    return false;
}

void update_log_purge(struct update_log *log, struct store_purge *purge) {
    struct entry *entry;
    purge->gone = 0;
    purge->error = STORE_OK;
    if (!entries_find(&log->entries, purge->hash, (struct slice){purge->name, purge->name_len},
                      false, &entry)) {
        purge->error = STORE_FAILED;
        log_file_note_error(&log->file, "purge");
        return;
    }
    if (!entry)
        return;
    uint64_t upto = purge->upto < entry->now.total ? purge->upto : entry->now.total;
    if (upto > entry->floor && !put_floor(log, entry, upto))
        purge->error = STORE_FAILED;
    struct reader_channel channel = channel_of(entry);
    if (!purge->error)
        purge->gone = reader_gone(&log->reader, &channel);
    entries_trim(&log->entries);
}

/* --- Consumers -------------------------------------------------------------------------------- */

static bool do_cursors(struct update_log *log, int64_t channel, struct store_cursors *cursors) {
    struct log_moment moment = log_look_at_clock(log);
    if (cursors_do(&log->cursors, channel, moment.steady_ms, moment.log_ms, cursors))
        return true;
    bool may_be_full = cursors->action != CURSORS_LOAD;
    return may_be_full && log_write_cursors(log, IDLE_ROWS + cursors->count) &&
           cursors_do(&log->cursors, channel, moment.steady_ms, moment.log_ms, cursors);
}

void update_log_cursors(struct update_log *log, struct store_cursors *cursors) {
    struct entry *entry;
    struct slice name = {cursors->name, cursors->name_len};
    if (cursors->action == CURSORS_LOAD) {
        cursors->list = NULL;
        cursors->count = 0;
    }
    bool ok = entries_find(&log->entries, cursors->hash, name, false, &entry) &&
              (!entry || do_cursors(log, entry->now.id, cursors));
    cursors->error = ok ? STORE_OK : STORE_FAILED;
    if (!ok)
        log_file_note_error(&log->file, "cursors of consumers");
    entries_trim(&log->entries);
}

/* --- Figures ---------------------------------------------------------------------------------- */

void update_log_count_bytes(const struct update_log *log, struct store_stats *stats) {
    int64_t bytes;
    if (log_file_used_bytes(&log->file, &bytes))
        stats->bytes = (uint64_t)bytes;
}

void update_log_stats(const struct update_log *log, struct store_stats *stats) {
    stats->commits = log->file.commits;
    stats->commit_ns = log->file.commit_ns;
    stats->errors = log->file.errors;
    stats->updates = (uint64_t)log->state.rows;
    stats->swept = log->state.swept;
    stats->damaged = log->damage.updates;
    stats->trouble = log->file.trouble ? log->file.trouble : log->file.sync_trouble;
}
