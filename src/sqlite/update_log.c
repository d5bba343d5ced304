#include "sqlite/update_log.h"
#include "base/config.h"
#include "base/log.h"
#include "base/table.h"

#include <assert.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    APPLICATION_ID = 0x6c6f6e67, /* "long" */
    CLEAN_ENTRIES_MAX = 16384,
    CHECKPOINT_DIRTY = 65536,    /* channels that make a checkpoint due */
    CHECKPOINT_APPENDS = 200000, /* updates that make one due: the bound on the replay */
    CHECKPOINT_MS = 5000,        /* age of the oldest change that makes one due */
    CHECKPOINT_SLICE = 1024,     /* rows written in one transaction */
    SWEEP_MIN_ROWS = 1024, /* deletable rows that make a pass worth while, or a quarter of all */
    SWEEP_IDLE_ROWS =
        65536, /* a log that is swept at every chance when there is nothing else to do */
    WAL_IDLE_BYTES = 4 << 20, /* copied into the database when there is nothing else to do */
    WAL_MAX_BYTES = 64 << 20, /* copied whatever there is to do */
    FORGET_SLICE = 65536,     /* channel ids looked at in one transaction */
    FORGET_DAYS = 365,        /* a channel without an update for so long is forgotten */
};

/* What the log knows of a channel. */
struct state {
    int64_t id; /* 0: it has none yet */
    uint64_t total;
    int64_t head, mark; /* seqs, 0 for none */
    int64_t last_at;
};

struct entry {
    struct table_node node;
    struct list link; /* in log->clean (recently used last), log->dirty or log->writing */
    struct state now;
    struct state before; /* at the start of transaction `transaction` */
    uint64_t transaction;
    bool is_dirty;  /* its row lags behind */
    bool was_dirty; /* as `before` */
    uint16_t name_len;
    char name[];
};

struct update_log {
    sqlite3 *db;
    struct store_options options;
    sqlite3_stmt *begin, *commit, *rollback, *insert, *find_channel, *put_channel, *head_of_row,
        *row, *put_meta, *sweep_slice, *sweep_count, *sweep_oldest, *oldest, *forget, *page_count,
        *freelist;
    struct table entries;
    struct list clean, dirty, writing;
    size_t clean_count, dirty_count;
    uint64_t transaction;
    int64_t last_seq, last_channel_id, last_at;
    int64_t page_bytes, wal_pages;
    int64_t synced_at; /* of SYNC=interval */
    bool unsynced;
    bool query_failed; /* of query_sql() */

    /* The checkpoint under way: the entries in `writing`, up to seq checkpoint_next. */
    int64_t checkpoint_seq, checkpoint_next;
    int64_t appends_since_checkpoint;
    int64_t dirty_since; /* wall clock of the oldest change, 0: none */
    bool checkpoint_open;

    /* The sweeper. */
    int64_t rows;
    /* An append to a full channel makes an older row deletable. So many there were; so many when the
     * checkpoint was written, which is what a pass can see; and so many passes have dealt with. */
    int64_t full_appends, full_at_checkpoint, full_swept;
    int64_t full_at_next;        /* of the checkpoint under way */
    int64_t full_at_pass;        /* of the pass under way */
    int64_t sweep_at, sweep_end; /* a pass over the log: the next seq to look at, and the last */
    bool sweep_open;
    int64_t oldest_seq, oldest_at;  /* of the oldest row; 0: not known, -1: no row */
    int64_t forgot_at, forget_next; /* the hour's look for forgotten channels goes on at this id */

    uint64_t commits, commit_ns, errors, swept;
    uint64_t error_logged_at; /* at most once a second */
};

/* --- SQLite ----------------------------------------------------------------------------------- */

static const char schema[] =
    "CREATE TABLE channel ("
    "  id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, total INTEGER NOT NULL,"
    "  head INTEGER NOT NULL, mark INTEGER NOT NULL, last_at INTEGER NOT NULL);"
    "CREATE TABLE update_log ("
    "  seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL, ts INTEGER NOT NULL, prev INTEGER NOT "
    "NULL,"
    "  skip INTEGER NOT NULL, at INTEGER NOT NULL, size INTEGER NOT NULL, name BLOB, body TEXT NOT "
    "NULL,"
    "  raw, method TEXT NOT NULL, query TEXT NOT NULL, headers TEXT);"
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;";

static void note_error(struct update_log *log, const char *what) {
    uint64_t now = uv_hrtime();
    if (!log->errors++ || now - log->error_logged_at > 1000000000) {
        log_error("store failed", "doing", what, "error", sqlite3_errmsg(log->db), NULL);
        log->error_logged_at = now;
    }
}

static bool execute(struct update_log *log, const char *sql) {
    return sqlite3_exec(log->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Runs a statement that gives no rows. */
static bool run(sqlite3_stmt *statement) {
    int status = sqlite3_step(statement);
    sqlite3_reset(statement);
    return status == SQLITE_DONE;
}

static int64_t query_number(sqlite3_stmt *statement) {
    int64_t number = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    return number;
}

static int64_t query_sql(struct update_log *log, const char *sql, int64_t fallback) {
    sqlite3_stmt *statement = NULL;
    int64_t number = fallback;
    int status = sqlite3_prepare_v2(log->db, sql, -1, &statement, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_step(statement);
    if (status == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL)
        number = sqlite3_column_int64(statement, 0);
    log->query_failed |= status != SQLITE_ROW && status != SQLITE_DONE;
    sqlite3_finalize(statement);
    return number;
}

/* A missing or NULL blob must be bound as an empty one. */
static void bind_bytes(sqlite3_stmt *statement, int index, struct slice bytes) {
    sqlite3_bind_blob64(statement, index, bytes.len ? bytes.data : "", bytes.len, SQLITE_STATIC);
}

static void bind_text(sqlite3_stmt *statement, int index, struct slice text) {
    sqlite3_bind_text64(statement, index, text.len ? text.data : "", text.len, SQLITE_STATIC,
                        SQLITE_UTF8);
}

static struct slice column_slice(sqlite3_stmt *statement, int column) {
    const void *data = sqlite3_column_blob(statement, column);
    return (struct slice){data ? data : "", (size_t)sqlite3_column_bytes(statement, column)};
}

static int64_t cutoff_ms(const struct update_log *log) {
    return log->options.clock_ms() - log->options.ttl_ms;
}

static int on_wal(void *context, sqlite3 *db, const char *name, int pages) {
    (void)db, (void)name;
    ((struct update_log *)context)->wal_pages = pages;
    return SQLITE_OK;
}

/* --- Entries ---------------------------------------------------------------------------------- */

static bool entry_equal(const struct table_node *node, const void *name, size_t len) {
    const struct entry *entry = container_of(node, struct entry, node);
    return entry->name_len == len && memcmp(entry->name, name, len) == 0;
}

static void entry_free(struct update_log *log, struct entry *entry) {
    table_remove(&log->entries, &entry->node);
    list_remove(&entry->link);
    free(entry);
}

static void trim_clean(struct update_log *log) {
    while (log->clean_count > CLEAN_ENTRIES_MAX) {
        entry_free(log, container_of(log->clean.next, struct entry, link));
        log->clean_count--;
    }
}

static void set_dirty(struct update_log *log, struct entry *entry) {
    if (entry->is_dirty)
        return;
    list_remove(&entry->link);
    list_append(&log->dirty, &entry->link);
    entry->is_dirty = true;
    log->clean_count--;
    log->dirty_count++;
    if (!log->dirty_since)
        log->dirty_since = log->options.clock_ms();
}

static void set_clean(struct update_log *log, struct entry *entry) {
    list_remove(&entry->link);
    list_append(&log->clean, &entry->link);
    entry->is_dirty = false;
    log->clean_count++;
    log->dirty_count--;
}

static struct entry *entry_new(struct update_log *log, uint64_t hash, struct slice name) {
    struct entry *entry = malloc(sizeof *entry + name.len);
    if (!entry)
        return NULL;
    *entry = (struct entry){.node.hash = hash, .name_len = (uint16_t)name.len};
    memcpy(entry->name, name.data, name.len);
    table_insert(&log->entries, &entry->node);
    list_append(&log->clean, &entry->link);
    log->clean_count++;
    return entry;
}

/*
 * Finds the entry of a channel in memory or makes it from its row. `*entry` is NULL when the channel is
 * unknown and `create` false. False on failure.
 */
static bool find_entry(struct update_log *log, uint64_t hash, struct slice name, bool create,
                       struct entry **entry) {
    struct table_node *node = table_find(&log->entries, hash, entry_equal, name.data, name.len);
    if (node) {
        *entry = container_of(node, struct entry, node);
        if (!(*entry)->is_dirty) {
            list_remove(&(*entry)->link);
            list_append(&log->clean, &(*entry)->link);
        }
        return true;
    }
    bind_bytes(log->find_channel, 1, name);
    int status = sqlite3_step(log->find_channel);
    bool found = status == SQLITE_ROW;
    bool ok = found || status == SQLITE_DONE;
    *entry = ok && (found || create) ? entry_new(log, hash, name) : NULL;
    if (ok && (found || create) && !*entry)
        ok = false;
    if (found && *entry) {
        (*entry)->now = (struct state){
            .id = sqlite3_column_int64(log->find_channel, 0),
            .total = (uint64_t)sqlite3_column_int64(log->find_channel, 1),
            .head = sqlite3_column_int64(log->find_channel, 2),
            .mark = sqlite3_column_int64(log->find_channel, 3),
            .last_at = sqlite3_column_int64(log->find_channel, 4),
        };
    }
    sqlite3_reset(log->find_channel);
    return ok;
}

/* --- The checkpoint --------------------------------------------------------------------------- */

static bool put_meta(struct update_log *log, const char *key, int64_t value) {
    sqlite3_bind_text(log->put_meta, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_int64(log->put_meta, 2, value);
    return run(log->put_meta);
}

/* The counts as of the last seq, less the `deleted` of the open transaction; opening adds what is behind. */
static bool put_counts(struct update_log *log, int64_t deleted) {
    return put_meta(log, "counted_seq", log->last_seq) &&
           put_meta(log, "rows", log->rows - deleted) &&
           put_meta(log, "excess", log->full_appends - log->full_swept);
}

static bool put_channel(struct update_log *log, const struct entry *entry) {
    sqlite3_bind_int64(log->put_channel, 1, entry->now.id);
    bind_bytes(log->put_channel, 2, (struct slice){entry->name, entry->name_len});
    sqlite3_bind_int64(log->put_channel, 3, (int64_t)entry->now.total);
    sqlite3_bind_int64(log->put_channel, 4, entry->now.head);
    sqlite3_bind_int64(log->put_channel, 5, entry->now.mark);
    sqlite3_bind_int64(log->put_channel, 6, entry->now.last_at);
    return run(log->put_channel);
}

static int by_name(const void *a, const void *b) {
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    size_t len = x->name_len < y->name_len ? x->name_len : y->name_len;
    int order = memcmp(x->name, y->name, len);
    return order ? order : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

/* Brings `writing` into the order of the index on names, so that its pages are written once each. */
static void sort_writing(struct update_log *log) {
    struct entry **sorted = malloc(log->dirty_count * sizeof(struct entry *));
    if (!sorted)
        return;
    size_t count = 0;
    for (struct list *link; (link = list_shift(&log->writing));)
        sorted[count++] = container_of(link, struct entry, link);
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++)
        list_append(&log->writing, &sorted[i]->link);
    free(sorted);
}

static void open_checkpoint(struct update_log *log) {
    list_splice(&log->writing, &log->dirty);
    sort_writing(log);
    log->checkpoint_next = log->last_seq;
    log->full_at_next = log->full_appends;
    log->checkpoint_open = true;
    log->appends_since_checkpoint = 0;
    log->dirty_since = 0;
}

/* What a transaction wrote of the checkpoint, until it is committed. */
struct slice_written {
    struct list entries; /* taken from `writing` */
    bool is_last;
};

/* Writes up to `rows` rows within the open transaction. */
static bool write_checkpoint(struct update_log *log, size_t rows, struct slice_written *written) {
    while (rows-- && !list_empty(&log->writing)) {
        struct list *link = list_shift(&log->writing);
        list_append(&written->entries, link);
        if (!put_channel(log, container_of(link, struct entry, link)))
            return false;
    }
    written->is_last = list_empty(&log->writing);
    return !written->is_last ||
           (put_meta(log, "checkpoint", log->checkpoint_next) &&
            put_meta(log, "last_channel", log->last_channel_id) &&
            put_meta(log, "channel_max", (int64_t)log->options.channel_max_updates) &&
            put_counts(log, 0));
}

static void checkpoint_committed(struct update_log *log, struct slice_written *written) {
    for (struct list *link; (link = list_shift(&written->entries));)
        set_clean(log, container_of(link, struct entry, link));
    if (written->is_last) {
        log->checkpoint_seq = log->checkpoint_next;
        log->full_at_checkpoint = log->full_at_next;
        log->checkpoint_open = false;
    }
    trim_clean(log);
}

static void checkpoint_failed(struct update_log *log, struct slice_written *written) {
    list_splice(&log->writing, &written->entries);
}

/* --- The sweeper ------------------------------------------------------------------------------ */

static int64_t used_bytes(const struct update_log *log) {
    return (query_number(log->page_count) - query_number(log->freelist)) * log->page_bytes;
}

static void find_oldest(struct update_log *log) {
    if (log->oldest_seq)
        return;
    int status = sqlite3_step(log->oldest);
    if (status == SQLITE_ROW) {
        log->oldest_seq = sqlite3_column_int64(log->oldest, 0);
        log->oldest_at = sqlite3_column_int64(log->oldest, 1);
    } else if (status == SQLITE_DONE) {
        log->oldest_seq = -1;
    }
    sqlite3_reset(log->oldest);
}

enum sweep { SWEEP_NOTHING, SWEEP_AGE, SWEEP_BYTES, SWEEP_COUNT };

/* So many deletable rows are worth a pass over the log. */
static int64_t sweep_threshold(const struct update_log *log, bool is_idle) {
    if (is_idle && log->rows <= SWEEP_IDLE_ROWS)
        return 1;
    return log->rows / 4 > SWEEP_MIN_ROWS ? log->rows / 4 : SWEEP_MIN_ROWS;
}

/* What there is to delete now. */
static enum sweep sweep_due(struct update_log *log, bool is_idle) {
    find_oldest(log);
    if (log->oldest_seq <= 0)
        return SWEEP_NOTHING;
    if (log->oldest_at < cutoff_ms(log))
        return SWEEP_AGE;
    if (log->options.max_bytes && used_bytes(log) > (int64_t)log->options.max_bytes)
        return SWEEP_BYTES;
    bool is_worth_it = log->full_at_checkpoint - log->full_swept >= sweep_threshold(log, is_idle);
    return log->sweep_open || is_worth_it ? SWEEP_COUNT : SWEEP_NOTHING;
}

/* Whether there are rows to delete, but none that a checkpoint includes (invariant 3). */
static bool is_sweep_blocked(struct update_log *log, bool is_idle) {
    return sweep_due(log, is_idle) != SWEEP_NOTHING && log->oldest_seq > log->checkpoint_seq;
}

static bool is_checkpoint_due(struct update_log *log, bool is_idle) {
    return log->dirty_count >= CHECKPOINT_DIRTY || is_sweep_blocked(log, is_idle) ||
           log->appends_since_checkpoint >= CHECKPOINT_APPENDS ||
           log->full_appends - log->full_at_checkpoint >= sweep_threshold(log, false) ||
           (log->dirty_since && log->options.clock_ms() - log->dirty_since >= CHECKPOINT_MS);
}

/* Deletes a slice of what is past the bounds within the open transaction. `*deleted` counts it. */
static bool sweep(struct update_log *log, enum sweep kind, int64_t rows, int64_t *deleted) {
    if (kind != SWEEP_COUNT) {
        int64_t cutoff = cutoff_ms(log);
        if (kind == SWEEP_BYTES) { /* as many as hold the bytes that are too many */
            int64_t used = used_bytes(log),
                    bytes_per_row = used / (log->rows > 0 ? log->rows : 1) + 1;
            int64_t enough = (used - (int64_t)log->options.max_bytes) / bytes_per_row + 1;
            rows = enough < 1 ? 1 : enough < rows ? enough : rows;
            cutoff = INT64_MAX;
        }
        sqlite3_bind_int64(log->sweep_oldest, 1, cutoff);
        sqlite3_bind_int64(log->sweep_oldest, 2, log->checkpoint_seq);
        sqlite3_bind_int64(log->sweep_oldest, 3, rows);
        if (!run(log->sweep_oldest))
            return false;
    } else {
        if (!log->sweep_open) {
            log->sweep_open = true;
            log->sweep_at = log->oldest_seq;
            log->sweep_end = log->checkpoint_seq;
            log->full_at_pass = log->full_at_checkpoint;
        }
        sqlite3_bind_int64(log->sweep_slice, 1, log->sweep_at);
        sqlite3_bind_int64(log->sweep_slice, 2, rows);
        int64_t end = query_number(log->sweep_slice);
        if (!end || end > log->sweep_end)
            end = log->sweep_end;
        sqlite3_bind_int64(log->sweep_count, 1, log->sweep_at);
        sqlite3_bind_int64(log->sweep_count, 2, end);
        sqlite3_bind_int64(log->sweep_count, 3, (int64_t)log->options.channel_max_updates);
        if (!run(log->sweep_count))
            return false;
        log->sweep_at = end + 1;
    }
    *deleted = sqlite3_changes(log->db);
    return true;
}

static void sweep_committed(struct update_log *log, enum sweep kind, int64_t deleted) {
    log->rows -= deleted;
    log->swept += (uint64_t)deleted;
    log->oldest_seq = 0;
    if (kind == SWEEP_COUNT && log->sweep_at > log->sweep_end) {
        log->sweep_open = false;
        log->full_swept = log->full_at_pass;
    }
}

/* --- Transactions ----------------------------------------------------------------------------- */

/* Everything that a transaction changes in memory but the entries, so that a failure can undo it. */
struct transaction {
    struct slice_written checkpoint;
    enum sweep sweep;
    int64_t deleted, sweep_at;
    bool sweep_was_open;
    int64_t last_seq, last_channel_id, rows, full_appends;
};

static bool begin(struct update_log *log, struct transaction *t) {
    *t = (struct transaction){
        .sweep_at = log->sweep_at,
        .sweep_was_open = log->sweep_open,
        .last_seq = log->last_seq,
        .last_channel_id = log->last_channel_id,
        .rows = log->rows,
        .full_appends = log->full_appends,
    };
    list_init(&t->checkpoint.entries);
    log->transaction++;
    return run(log->begin);
}

/* Takes a slice of maintenance into the open transaction. */
static bool maintain_within(struct update_log *log, struct transaction *t, size_t scale,
                            bool is_idle) {
    size_t rows = scale > CHECKPOINT_SLICE ? scale : CHECKPOINT_SLICE;
    if (log->checkpoint_open && !write_checkpoint(log, rows, &t->checkpoint))
        return false;
    t->sweep = sweep_due(log, is_idle);
    if (t->sweep == SWEEP_NOTHING)
        return true;
    return sweep(log, t->sweep, (int64_t)rows * 2, &t->deleted) &&
           (!t->deleted || put_counts(log, t->deleted));
}

static bool commit(struct update_log *log, struct transaction *t) {
    uint64_t start = uv_hrtime();
    if (!run(log->commit))
        return false;
    log->commits++;
    log->commit_ns += uv_hrtime() - start;
    log->unsynced = true;
    if (!list_empty(&t->checkpoint.entries) || t->checkpoint.is_last)
        checkpoint_committed(log, &t->checkpoint);
    if (t->sweep != SWEEP_NOTHING)
        sweep_committed(log, t->sweep, t->deleted);
    return true;
}

static void roll_back(struct update_log *log, struct transaction *t, const char *what) {
    note_error(log, what);
    if (!sqlite3_get_autocommit(log->db))
        run(log->rollback);
    checkpoint_failed(log, &t->checkpoint);
    log->sweep_at = t->sweep_at;
    log->sweep_open = t->sweep_was_open;
    log->last_seq = t->last_seq;
    log->last_channel_id = t->last_channel_id;
    log->rows = t->rows;
    log->full_appends = t->full_appends;
    log->oldest_seq = 0;
}

/* Whether the write-ahead log has `bytes`, or a quarter of the bound on the data where that is small. */
static bool is_wal_full(const struct update_log *log, int64_t bytes) {
    int64_t quarter = (int64_t)log->options.max_bytes / 4;
    return log->wal_pages * log->page_bytes >= (quarter && quarter < bytes ? quarter : bytes);
}

/* Copies the write-ahead log into the database; with SYNC=interval this is also what syncs. */
static void copy_wal(struct update_log *log) {
    int64_t now = log->options.clock_ms();
    bool interval_over = log->options.sync == SYNC_INTERVAL && log->unsynced &&
                         (now - log->synced_at >= 1000 || now < log->synced_at);
    if (!interval_over && !is_wal_full(log, WAL_IDLE_BYTES))
        return;
    if (sqlite3_wal_checkpoint_v2(log->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) !=
        SQLITE_OK)
        note_error(log, "checkpoint of the write-ahead log");
    else
        log->unsynced = false;
    log->wal_pages = 0;
    log->synced_at = now;
}

/* --- Appending -------------------------------------------------------------------------------- */

static struct slice append_name(const struct store_append *append) {
    return (struct slice){append->name, append->name_len};
}

static struct store_append *append_of(struct list *link) {
    return container_of(link, struct store_append, op.link);
}

static bool insert_update(struct update_log *log, struct entry *entry, struct update *update) {
    sqlite3_stmt *insert = log->insert;
    struct state *state = &entry->now;
    sqlite3_bind_int64(insert, 1, log->last_seq + 1);
    sqlite3_bind_int64(insert, 2, state->id);
    sqlite3_bind_int64(insert, 3, (int64_t)state->total + 1);
    sqlite3_bind_int64(insert, 4, state->head);
    sqlite3_bind_int64(insert, 5, state->mark);
    sqlite3_bind_int64(insert, 6, update->at_ms);
    sqlite3_bind_int64(
        insert, 7, update->body_len + update->raw_len + update->query_len + update->headers_len);
    if (state->total == 0)
        bind_bytes(insert, 8, (struct slice){entry->name, entry->name_len});
    else
        sqlite3_bind_null(insert, 8);
    bind_text(insert, 9, update_body(update));
    if (update->has_raw)
        bind_bytes(insert, 10, update_raw(update));
    else
        sqlite3_bind_null(insert, 10);
    bind_text(insert, 11, update_method(update));
    bind_text(insert, 12, update_query(update));
    if (update->headers_len)
        bind_text(insert, 13, update_headers(update));
    else
        sqlite3_bind_null(insert, 13);
    return run(insert);
}

static bool append_one(struct update_log *log, struct store_append *append, int64_t at_ms) {
    struct entry *entry;
    if (!find_entry(log, append->hash, append_name(append), true, &entry))
        return false;
    if (entry->transaction != log->transaction) {
        entry->transaction = log->transaction;
        entry->before = entry->now;
        entry->was_dirty = entry->is_dirty;
    }
    struct state *state = &entry->now;
    if (!state->id)
        state->id = ++log->last_channel_id;
    append->update->at_ms = at_ms;
    set_dirty(log, entry);
    if (!insert_update(log, entry, append->update))
        return false;
    state->head = ++log->last_seq;
    state->last_at = at_ms;
    append->update->ts = ++state->total;
    if (state->total % LOG_SKIP == 0)
        state->mark = state->head;
    log->rows++;
    if (state->total > log->options.channel_max_updates)
        log->full_appends++;
    return true;
}

/* Puts the entries of the failed batch back as they were. */
static void undo_appends(struct update_log *log, struct list *batch) {
    for (struct list *link = batch->next; link != batch; link = link->next) {
        struct store_append *append = append_of(link);
        struct slice name = append_name(append);
        struct table_node *node =
            table_find(&log->entries, append->hash, entry_equal, name.data, name.len);
        struct entry *entry = node ? container_of(node, struct entry, node) : NULL;
        if (!entry || entry->transaction != log->transaction)
            continue;
        entry->transaction = 0;
        entry->now = entry->before;
        if (!entry->was_dirty && entry->is_dirty)
            set_clean(log, entry);
        if (!entry->now.id) {
            entry_free(log, entry);
            log->clean_count--;
        }
    }
}

static bool try_append(struct update_log *log, struct list *batch, struct transaction *t) {
    int64_t now = log->options.clock_ms();
    if (now > log->last_at)
        log->last_at =
            now; /* `at` never goes back, even if the clock does: the oldest end stays the oldest */
    size_t count = 0;
    for (struct list *link = batch->next; link != batch; link = link->next, count++)
        if (!append_one(log, append_of(link), log->last_at))
            return false;
    log->appends_since_checkpoint += (int64_t)count;
    return maintain_within(log, t, count, false) && commit(log, t);
}

void update_log_append(struct update_log *log, struct list *batch) {
    if (!log->checkpoint_open && is_checkpoint_due(log, false))
        open_checkpoint(log);
    struct transaction t;
    bool ok = begin(log, &t) && try_append(log, batch, &t);
    if (!ok) {
        roll_back(log, &t, "append");
        undo_appends(log, batch);
        log->wal_pages =
            WAL_IDLE_BYTES /
            log->page_bytes; /* the disk may be full of it: what is copied makes room in it */
        copy_wal(log);
    }
    if (ok && log->oldest_seq < 0)
        log->oldest_seq = 0;
    if (is_wal_full(log, WAL_MAX_BYTES))
        copy_wal(log);
    for (struct list *link = batch->next; link != batch; link = link->next)
        append_of(link)->error = ok ? STORE_OK : STORE_FAILED;
    trim_clean(log);
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* The numbers of a row of the log. */
struct row {
    int64_t seq, ts, prev, skip, at, size;
};

/* False when the row is gone, past the age bound, or cannot be read (`*failed` then). */
static bool load_row(struct update_log *log, int64_t seq, int64_t cutoff, struct row *row,
                     bool *failed) {
    if (!seq)
        return false;
    sqlite3_bind_int64(log->head_of_row, 1, seq);
    int status = sqlite3_step(log->head_of_row);
    if (status == SQLITE_ROW)
        *row = (struct row){
            .seq = seq,
            .ts = sqlite3_column_int64(log->head_of_row, 0),
            .prev = sqlite3_column_int64(log->head_of_row, 1),
            .skip = sqlite3_column_int64(log->head_of_row, 2),
            .at = sqlite3_column_int64(log->head_of_row, 3),
            .size = sqlite3_column_int64(log->head_of_row, 4),
        };
    else if (status != SQLITE_DONE)
        *failed = true;
    sqlite3_reset(log->head_of_row);
    return status == SQLITE_ROW && row->at >= cutoff;
}

/* Moves `row` back to the update `ts` of its channel, or as near to it as updates are kept. */
static void seek(struct update_log *log, struct row *row, int64_t ts, int64_t cutoff,
                 bool *failed) {
    bool may_skip = true;
    while (row->ts > ts && !*failed) {
        struct row next;
        if (may_skip && (row->ts - 1) / LOG_SKIP * LOG_SKIP >= ts && row->skip) {
            may_skip = load_row(log, row->skip, cutoff, &next, failed);
            if (may_skip)
                *row = next;
            continue;
        }
        if (!load_row(log, row->prev, cutoff, &next, failed))
            return;
        *row = next;
    }
}

static struct update *load_update(struct update_log *log, const struct row *row) {
    sqlite3_stmt *statement = log->row;
    sqlite3_bind_int64(statement, 1, row->seq);
    struct update *update = NULL;
    if (sqlite3_step(statement) == SQLITE_ROW) {
        struct update_parts parts = {
            .body = column_slice(statement, 0),
            .raw = column_slice(statement, 1),
            .has_raw = sqlite3_column_type(statement, 1) != SQLITE_NULL,
            .method = column_slice(statement, 2),
            .query = column_slice(statement, 3),
            .headers = column_slice(statement, 4),
        };
        update = update_new(&parts);
        if (update) {
            update->ts = (uint64_t)row->ts;
            update->at_ms = row->at;
        }
    }
    sqlite3_reset(statement);
    return update;
}

/* Loads the updates of `rows`, which are newest first, into `read`, oldest first, up to the byte bound. */
static bool load_updates(struct update_log *log, struct store_read *read, const struct row *rows,
                         size_t count) {
    int64_t bytes = 0;
    read->updates = malloc(count * sizeof(struct update *));
    if (!read->updates)
        return false;
    while (count--) {
        bytes += rows[count].size;
        if (read->count && bytes > READ_MAX_BYTES)
            break;
        struct update *update = load_update(log, &rows[count]);
        if (!update)
            return false;
        read->updates[read->count++] = update;
    }
    return true;
}

static bool read_channel(struct update_log *log, struct store_read *read,
                         const struct state *state) {
    int64_t total = (int64_t)state->total, max = (int64_t)log->options.channel_max_updates;
    read->total = state->total;
    int64_t after = read->after_ts < 0 ? total + read->after_ts : read->after_ts;
    if (after < total - max)
        after = total - max;
    if (after < 0)
        after = 0;
    read->gone = total > max ? (uint64_t)(total - max) : 0;
    if (after >= total)
        return true;

    bool failed = false;
    int64_t cutoff = cutoff_ms(log);
    struct row head;
    if (!load_row(log, state->head, cutoff, &head, &failed)) {
        read->gone = state->total;
        return !failed;
    }
    struct row first = head;
    seek(log, &first, after + 1, cutoff, &failed);
    if (first.ts > after + 1)
        read->gone = (uint64_t)first.ts - 1;
    int64_t last_ts = first.ts + read->limit - 1;
    struct row row = head;
    seek(log, &row, last_ts, cutoff, &failed);
    if (failed)
        return false;
    size_t count = (size_t)(row.ts - first.ts + 1), found = 0;
    struct row *rows = malloc(count * sizeof *rows);
    if (!rows)
        return false;
    do
        rows[found++] = row;
    while (found < count && load_row(log, row.prev, cutoff, &row, &failed));
    bool ok = !failed && load_updates(log, read, rows, found);
    free(rows);
    return ok;
}

void update_log_read(struct update_log *log, struct store_read *read) {
    read->updates = NULL;
    read->count = 0;
    read->total = read->gone = 0;
    struct entry *entry;
    struct slice name = {read->name, read->name_len};
    bool ok = find_entry(log, read->hash, name, false, &entry) &&
              (!entry || read_channel(log, read, &entry->now));
    read->error = ok ? STORE_OK : STORE_FAILED;
    if (!ok) {
        note_error(log, "read");
        while (read->count)
            update_unref(read->updates[--read->count]);
        free(read->updates);
        read->updates = NULL;
    }
    trim_clean(log);
}

/* --- Maintenance ------------------------------------------------------------------------------ */

/*
 * Once an hour, a channel that has had no update for a year is forgotten, its counter with it; in slices.
 * A row that lags behind the log (invariant 3) is left alone.
 */
static void forget_channels(struct update_log *log) {
    int64_t now = log->options.clock_ms();
    if (!log->forget_next && now - log->forgot_at < 3600 * 1000)
        return;
    if (!log->forget_next)
        log->forgot_at = now;
    int64_t year_ms = (int64_t)FORGET_DAYS * 86400 * 1000;
    int64_t age_ms = log->options.ttl_ms > year_ms ? log->options.ttl_ms : year_ms;
    sqlite3_bind_int64(log->forget, 1, log->forget_next);
    sqlite3_bind_int64(log->forget, 2, log->forget_next + FORGET_SLICE - 1);
    sqlite3_bind_int64(log->forget, 3, now - age_ms);
    sqlite3_bind_int64(log->forget, 4, log->checkpoint_seq);
    log->forget_next += FORGET_SLICE;
    if (log->forget_next > log->last_channel_id)
        log->forget_next = 0;
    if (!run(log->forget))
        note_error(log, "forgetting old channels");
    if (sqlite3_changes(log->db))
        while (log->clean_count) { /* entries of forgotten channels may be among them */
            entry_free(log, container_of(log->clean.next, struct entry, link));
            log->clean_count--;
        }
}

bool update_log_maintain(struct update_log *log, bool is_idle) {
    forget_channels(log);
    if (!log->checkpoint_open && is_checkpoint_due(log, is_idle))
        open_checkpoint(log);
    if (log->checkpoint_open || sweep_due(log, is_idle) != SWEEP_NOTHING) {
        struct transaction t;
        if (!begin(log, &t) || !maintain_within(log, &t, 0, is_idle) || !commit(log, &t)) {
            roll_back(log, &t, "maintenance");
            return false;
        }
    }
    copy_wal(log);
    return log->checkpoint_open || sweep_due(log, is_idle) != SWEEP_NOTHING;
}

void update_log_count_bytes(const struct update_log *log, struct store_stats *stats) {
    stats->bytes = (uint64_t)used_bytes(log);
}

void update_log_stats(const struct update_log *log, struct store_stats *stats) {
    stats->commits = log->commits;
    stats->commit_ns = log->commit_ns;
    stats->errors = log->errors;
    stats->updates = (uint64_t)log->rows;
    stats->swept = log->swept;
}

/* --- Opening and closing ---------------------------------------------------------------------- */

static bool prepare(struct update_log *log) {
    const struct {
        sqlite3_stmt **statement;
        const char *sql;
    } statements[] = {
        {&log->begin, "BEGIN IMMEDIATE"},
        {&log->commit, "COMMIT"},
        {&log->rollback, "ROLLBACK"},
        {&log->insert,
         "INSERT INTO update_log (seq, channel, ts, prev, skip, at, size, name, body, raw, method,"
         " query, headers) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"},
        {&log->find_channel, "SELECT id, total, head, mark, last_at FROM channel WHERE name = ?1"},
        {&log->put_channel,
         "INSERT INTO channel (id, name, total, head, mark, last_at) VALUES (?1, ?2, ?3, ?4, ?5, "
         "?6)"
         " ON CONFLICT (id) DO UPDATE SET total = ?3, head = ?4, mark = ?5, last_at = ?6"},
        {&log->head_of_row, "SELECT ts, prev, skip, at, size FROM update_log WHERE seq = ?1"},
        {&log->row, "SELECT body, raw, method, query, headers FROM update_log WHERE seq = ?1"},
        {&log->put_meta, "INSERT INTO meta (key, value) VALUES (?1, ?2)"
                         " ON CONFLICT (key) DO UPDATE SET value = ?2"},
        {&log->sweep_slice, "SELECT max(seq) FROM"
                            " (SELECT seq FROM update_log WHERE seq >= ?1 ORDER BY seq LIMIT ?2)"},
        {&log->sweep_count,
         "DELETE FROM update_log WHERE seq BETWEEN ?1 AND ?2 AND"
         " ts <= (SELECT total FROM channel WHERE id = update_log.channel) - ?3"},
        {&log->sweep_oldest,
         "DELETE FROM update_log WHERE seq IN"
         " (SELECT seq FROM update_log WHERE seq <= ?2 ORDER BY seq LIMIT ?3) AND at < ?1"},
        {&log->oldest, "SELECT seq, at FROM update_log ORDER BY seq LIMIT 1"},
        {&log->forget, "DELETE FROM channel WHERE id BETWEEN ?1 AND ?2 AND last_at < ?3"
                       " AND id NOT IN (SELECT channel FROM update_log WHERE seq > ?4)"},
        {&log->page_count, "PRAGMA page_count"},
        {&log->freelist, "PRAGMA freelist_count"},
    };
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (sqlite3_prepare_v3(log->db, statements[i].sql, -1, SQLITE_PREPARE_PERSISTENT,
                               statements[i].statement, NULL) != SQLITE_OK)
            return false;
    return true;
}

/* False when SQLite cannot: in a place where it has no write-ahead log, say. */
static bool set_journal_mode(struct update_log *log, const char *mode) {
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s", mode);
    sqlite3_stmt *statement = NULL;
    bool ok = sqlite3_prepare_v2(log->db, sql, -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW &&
              strcmp((const char *)sqlite3_column_text(statement, 0), mode) == 0;
    sqlite3_finalize(statement);
    return ok;
}

static bool set_up(struct update_log *log, const struct store_options *options) {
    static const char *const synchronous[] = {
        [SYNC_ALWAYS] = "PRAGMA synchronous = FULL",
        [SYNC_INTERVAL] = "PRAGMA synchronous = NORMAL",
        [SYNC_NEVER] = "PRAGMA synchronous = OFF",
    };
    sqlite3_busy_timeout(log->db,
                         10000); /* an administrator's sqlite3 may hold a lock for a moment */
    return execute(log, "PRAGMA page_size = 8192") &&
           set_journal_mode(log, options->path ? "wal" : "memory") &&
           execute(log, synchronous[options->sync]) &&
           execute(log, "PRAGMA wal_autocheckpoint = 0") &&
           execute(log, "PRAGMA cache_size = -16384") && execute(log, "PRAGMA temp_store = MEMORY");
}

/* Makes the tables in a new file; false, with `error`, for a file that is not ours or of another version. */
static bool check_schema(struct update_log *log, char *error, size_t error_size) {
    int64_t application = query_sql(log, "PRAGMA application_id", -1);
    int64_t version = query_sql(log, "PRAGMA user_version", -1);
    int64_t tables = query_sql(log, "SELECT count(*) FROM sqlite_schema", -1);
    if (tables == 0 && application == 0 && version == 0) {
        char stamp[96];
        snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
                 APPLICATION_ID, LOG_SCHEMA_VERSION);
        if (execute(log, "BEGIN IMMEDIATE") && execute(log, schema) && execute(log, stamp) &&
            execute(log, "COMMIT"))
            return true;
        snprintf(error, error_size, "cannot create the tables: %s", sqlite3_errmsg(log->db));
        return false;
    }
    if (tables < 0 || version < 0)
        snprintf(error, error_size, "cannot be read: %s", sqlite3_errmsg(log->db));
    else if (application != APPLICATION_ID)
        snprintf(error, error_size, "is not a longline database");
    else if (version != LOG_SCHEMA_VERSION)
        snprintf(error, error_size, "has schema version %lld; this longline knows %d only",
                 (long long)version, LOG_SCHEMA_VERSION);
    else
        return true;
    return false;
}

/* Brings the rows of `channel` up to the end of the log (invariant 3), and the counts. */
static bool replay(struct update_log *log) {
    char sql[2048];
    log->checkpoint_seq = query_sql(log, "SELECT value FROM meta WHERE key = 'checkpoint'", 0);
    log->last_seq = query_sql(log, "SELECT max(seq) FROM update_log", 0);
    if (log->last_seq < log->checkpoint_seq)
        log->last_seq = log->checkpoint_seq;
    int64_t counted = query_sql(log, "SELECT value FROM meta WHERE key = 'counted_seq'", 0);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM update_log WHERE seq > %lld",
             (long long)counted);
    log->rows =
        query_sql(log, "SELECT value FROM meta WHERE key = 'rows'", 0) + query_sql(log, sql, 0);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM update_log WHERE seq > %lld AND ts > %llu",
             (long long)counted, (unsigned long long)log->options.channel_max_updates);
    log->full_appends =
        query_sql(log, "SELECT value FROM meta WHERE key = 'excess'", 0) + query_sql(log, sql, 0);
    int64_t max = (int64_t)log->options.channel_max_updates;
    if (query_sql(log, "SELECT value FROM meta WHERE key = 'channel_max'", max) > max)
        log->full_appends += log->rows; /* the bound is lower now: one pass has to look at all */
    log->full_at_checkpoint = log->full_appends;

    snprintf(
        sql, sizeof sql,
        "BEGIN IMMEDIATE;"
        "INSERT INTO channel (id, name, total, head, mark, last_at)"
        "  SELECT channel, name, 0, 0, 0, at FROM update_log WHERE seq > %lld AND name IS NOT NULL"
        "  ON CONFLICT DO NOTHING;"
        "UPDATE channel SET total = news.ts, head = news.seq, last_at = news.at,"
        "  mark = max(channel.mark, coalesce(news.mark, 0))"
        "  FROM (SELECT channel AS id, max(seq) AS seq, max(ts) AS ts, max(at) AS at,"
        "               max(seq) FILTER (WHERE ts %% %d = 0) AS mark"
        "        FROM update_log WHERE seq > %lld GROUP BY channel) AS news"
        "  WHERE channel.id = news.id AND news.seq > channel.head;"
        "INSERT INTO meta VALUES ('checkpoint', %lld), ('counted_seq', %lld), ('rows', %lld), "
        "('excess', %lld)"
        "  ON CONFLICT (key) DO UPDATE SET value = excluded.value;"
        "COMMIT;",
        (long long)log->checkpoint_seq, LOG_SKIP, (long long)log->checkpoint_seq,
        (long long)log->last_seq, (long long)log->last_seq, (long long)log->rows,
        (long long)log->full_appends);
    if (log->query_failed || !execute(log, sql))
        return false;
    log->checkpoint_seq = log->last_seq;
    log->last_channel_id = query_sql(log, "SELECT max(id) FROM channel", 0);
    int64_t last_forgotten = query_sql(log, "SELECT value FROM meta WHERE key = 'last_channel'", 0);
    if (log->last_channel_id < last_forgotten)
        log->last_channel_id = last_forgotten;
    log->last_at = query_sql(log, "SELECT at FROM update_log ORDER BY seq DESC LIMIT 1", 0);
    return !log->query_failed;
}

static void close_database(struct update_log *log) {
    sqlite3_stmt *statement;
    while (log->db && (statement = sqlite3_next_stmt(log->db, NULL)))
        sqlite3_finalize(statement);
    sqlite3_close(log->db);
    for (struct table_node *node; (node = table_pop(&log->entries));)
        free(container_of(node, struct entry, node));
    table_deinit(&log->entries);
    free(log);
}

struct update_log *update_log_open(const struct store_options *options, char *error,
                                   size_t error_size) {
    struct update_log *log = calloc(1, sizeof *log);
    if (!log || !table_init(&log->entries)) {
        free(log);
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    log->options = *options;
    list_init(&log->clean);
    list_init(&log->dirty);
    list_init(&log->writing);
    const char *path = options->path ? options->path : ":memory:";
    char reason[256] = "";
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &log->db, flags, NULL) != SQLITE_OK || !set_up(log, options))
        snprintf(reason, sizeof reason, "cannot be opened: %s", sqlite3_errmsg(log->db));
    else if (check_schema(log, reason, sizeof reason) && (!prepare(log) || !replay(log)))
        snprintf(reason, sizeof reason, "cannot be read: %s", sqlite3_errmsg(log->db));
    if (*reason) {
        snprintf(error, error_size, "%s %s", path, reason);
        close_database(log);
        return NULL;
    }
    log->page_bytes = query_sql(log, "PRAGMA page_size", 4096);
    sqlite3_wal_hook(log->db, on_wal, log);
    return log;
}

void update_log_close(struct update_log *log) {
    if (!log->checkpoint_open && log->dirty_count)
        open_checkpoint(log);
    while (log->checkpoint_open || log->dirty_count) {
        if (!log->checkpoint_open)
            open_checkpoint(log);
        uint64_t errors = log->errors;
        update_log_maintain(log, false);
        if (log->errors != errors)
            break; /* opening replays what could not be written */
    }
    close_database(log);
}
