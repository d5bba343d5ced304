#include "sqlite/cursors.h"
#include "base/hash.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stdlib.h>
#include <string.h>

enum {
    WAIT_MS = 300,       /* for an append to take cursors along; then maintenance writes them */
    WAITING_MAX = 16384, /* cursors; less than 3 MB */
    SLICE_CHANNELS = 16,
    SLICE_ROWS = 256, /* of a channel */
    PERIOD_MIN_MS = 10 * 1000,
    PERIOD_MAX_MS = 3600 * 1000,
    ORPHAN_MS = 3600 * 1000, /* the row of a channel may lag behind its consumers, not so long */
    LOAD_MAX = 4 * CONSUMERS_MAX,
    ROW_BYTES = 192, /* with the room that pages leave */
    SHARE = 16,      /* of the bound on bytes */
};

/* A cursor that waits to be written. */
struct cursor {
    struct table_node node;
    struct list link, bucket_link;
    int64_t channel;
    bool is_anew; /* what the table has of the name does not count: it was forgotten */
    bool is_gone; /* and there is no new one */
    struct store_cursor at;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS consumer ("
    "  channel INTEGER NOT NULL, name BLOB NOT NULL, ts INTEGER NOT NULL, used INTEGER NOT NULL,"
    "  seal INTEGER NOT NULL, PRIMARY KEY (channel, name)) WITHOUT ROWID";

static struct slice name_of(const struct store_cursor *at) {
    return (struct slice){at->name, at->name_len};
}

/* --- What waits ------------------------------------------------------------------------------- */

struct key {
    int64_t channel;
    char name[CONSUMER_NAME_MAX_BYTES];
};

static struct slice key_of(struct key *key, int64_t channel, struct slice name) {
    key->channel = channel;
    memcpy(key->name, name.data, name.len);
    return (struct slice){(const char *)key, offsetof(struct key, name) + name.len};
}

static bool has_key(const struct table_node *node, const void *key, size_t len) {
    const struct cursor *cursor = container_of(node, struct cursor, node);
    struct key own;
    return slice_equal(key_of(&own, cursor->channel, name_of(&cursor->at)),
                       (struct slice){key, len});
}

/* Where what waits of the channel is, and of a few others. */
static struct list *bucket_of(struct cursors *cursors, int64_t channel) {
    return &cursors->buckets[(uint64_t)channel % CURSORS_BUCKETS];
}

/* NULL when nothing of the name waits. */
static struct cursor *find_waiting(const struct cursors *cursors, int64_t channel,
                                   struct slice name) {
    if (list_empty(&cursors->waiting))
        return NULL;
    struct key text;
    struct slice key = key_of(&text, channel, name);
    struct table_node *node = table_find(&cursors->table, hash_of(key), has_key, key.data, key.len);
    return node ? container_of(node, struct cursor, node) : NULL;
}

/* NULL when memory is out, or too many wait. */
static struct cursor *add_waiting(struct cursors *cursors, int64_t channel, struct slice name,
                                  int64_t now_ms) {
    if (cursors->table.count >= WAITING_MAX) {
        cursors->file->reason = "too many cursors of consumers wait to be written";
        return NULL;
    }
    struct cursor *cursor = calloc(1, sizeof *cursor);
    if (!cursor)
        return NULL;
    struct key key;
    cursor->node.hash = hash_of(key_of(&key, channel, name));
    cursor->channel = channel;
    cursor->at.name_len = (uint8_t)name.len;
    memcpy(cursor->at.name, name.data, name.len);
    table_insert(&cursors->table, &cursor->node);
    list_append(&cursors->waiting, &cursor->link);
    list_append(bucket_of(cursors, channel), &cursor->bucket_link);
    if (!cursors->waiting_since)
        cursors->waiting_since = now_ms;
    return cursor;
}

/* Frees the first `count` of those that wait. */
static void drop_waiting(struct cursors *cursors, size_t count) {
    for (struct list *link; count && (link = list_shift(&cursors->waiting)); count--) {
        struct cursor *cursor = container_of(link, struct cursor, link);
        table_remove(&cursors->table, &cursor->node);
        list_remove(&cursor->bucket_link);
        free(cursor);
    }
    if (list_empty(&cursors->waiting))
        cursors->waiting_since = 0;
    cursors->written = 0;
}

/* `at` is what both know, as far as they know it. */
static void merge(struct store_cursor *at, uint64_t ts, int64_t used_ms) {
    if (ts > at->ts)
        at->ts = ts;
    if (used_ms > at->used_ms)
        at->used_ms = used_ms;
}

/* --- The table -------------------------------------------------------------------------------- */

static bool prepare(struct cursors *cursors) {
    struct log_file *file = cursors->file;
    cursors->is_prepared =
        log_file_prepare(file, &cursors->load,
                         "SELECT name, ts, used, seal FROM consumer"
                         " WHERE channel = ?1 AND used >= ?2 LIMIT ?3") &&
        log_file_prepare(file, &cursors->find,
                         "SELECT name, ts, used, seal FROM consumer"
                         " WHERE channel = ?1 AND name = ?2") &&
        log_file_prepare(file, &cursors->put,
                         "INSERT OR REPLACE INTO consumer (channel, name, ts, used, seal)"
                         " VALUES (?1, ?2, ?3, ?4, ?5)") &&
        log_file_prepare(file, &cursors->delete,
                         "DELETE FROM consumer WHERE channel = ?1 AND name = ?2") &&
        log_file_prepare(file, &cursors->find_channel,
                         "SELECT min(channel) FROM consumer WHERE channel >= ?1") &&
        log_file_prepare(
            file, &cursors->delete_old,
            "DELETE FROM consumer WHERE channel = ?1 AND name IN (SELECT name FROM consumer"
            " WHERE channel = ?1 AND used < iif(EXISTS (SELECT 1 FROM channel WHERE id = ?1),"
            " ?2, ?3) LIMIT ?4)");
    return cursors->is_prepared;
}

static void unprepare(struct cursors *cursors) {
    sqlite3_stmt **statements[] = {&cursors->load,   &cursors->find,         &cursors->put,
                                   &cursors->delete, &cursors->find_channel, &cursors->delete_old};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        sqlite3_finalize(*statements[i]);
        *statements[i] = NULL;
    }
    cursors->is_prepared = false;
}

/* The table is damaged: all cursors are unknown from now on. */
static void forget_all(struct cursors *cursors) {
    cursors->is_stuck = cursors->is_damaged; /* dropping it was tried */
    cursors->is_damaged = true;
    cursors->is_made = false;
    cursors->rows = cursors->rows_before = cursors->next_channel = 0;
    unprepare(cursors);
    drop_waiting(cursors, SIZE_MAX);
    log_error("the data file is damaged", "table", "consumer", "meaning",
              cursors->is_stuck ? "named consumers are not remembered over a restart"
                                : "named consumers begin anew",
              NULL);
}

/* After a failure: forgets all if damage is the reason; else false. */
static bool forget_damaged(struct cursors *cursors) {
    if (sqlite3_errcode(cursors->file->db) != SQLITE_CORRUPT)
        return false;
    forget_all(cursors);
    return true;
}

/* In the open transaction. */
static bool make_table(struct cursors *cursors) {
    struct log_file *file = cursors->file;
    return (!cursors->is_damaged || log_file_execute(file, "DROP TABLE IF EXISTS consumer")) &&
           log_file_execute(file, schema) && prepare(cursors);
}

static void tell_of_damage(struct cursors *cursors) {
    if (!cursors->has_told_of_damage)
        log_error("a consumer's cursor is damaged", "meaning",
                  "it begins anew, as others may; see longline check", NULL);
    cursors->has_told_of_damage = true;
}

/* The current row of `load` or `find`. False when it is damaged. */
static bool take_row(struct cursors *cursors, sqlite3_stmt *rows, int64_t channel,
                     struct store_cursor *at) {
    struct slice name = sql_column(rows, 0);
    int64_t ts = sqlite3_column_int64(rows, 1), used = sqlite3_column_int64(rows, 2);
    if (name.len > sizeof at->name ||
        seal_consumer(channel, name, ts, used) != sqlite3_column_int64(rows, 3)) {
        tell_of_damage(cursors);
        return false;
    }
    *at = (struct store_cursor){.ts = (uint64_t)ts, .used_ms = used, .name_len = (uint8_t)name.len};
    memcpy(at->name, name.data, name.len);
    return true;
}

/* --- Loading ---------------------------------------------------------------------------------- */

/* Adds one to the operation's list. False when memory is out. */
static bool give(struct store_cursors *op, const struct store_cursor *at) {
    if ((op->count & (op->count - 1)) == 0) { /* 0, or a power of two: it is full */
        size_t capacity = op->count ? 2 * (size_t)op->count : 1;
        struct store_cursor *list = realloc(op->list, capacity * sizeof *list);
        if (!list)
            return false;
        op->list = list;
    }
    op->list[op->count++] = *at;
    return true;
}

/* Gives the rows of which nothing waits. */
static bool load_rows(struct cursors *cursors, int64_t channel, int64_t cutoff_ms,
                      struct store_cursors *op) {
    sqlite3_stmt *load = cursors->load;
    sqlite3_bind_int64(load, 1, channel);
    sqlite3_bind_int64(load, 2, cutoff_ms);
    sqlite3_bind_int64(load, 3, LOAD_MAX);
    int status;
    bool ok = true;
    while (ok && (status = sqlite3_step(load)) == SQLITE_ROW) {
        struct store_cursor at;
        if (take_row(cursors, load, channel, &at) && !find_waiting(cursors, channel, name_of(&at)))
            ok = give(op, &at);
    }
    sqlite3_reset(load);
    return ok && status == SQLITE_DONE;
}

/* Brings what waits to what the table has. False on failure. */
static bool catch_up(struct cursors *cursors, struct cursor *cursor, bool *has_row) {
    sqlite3_stmt *find = cursors->find;
    sqlite3_bind_int64(find, 1, cursor->channel);
    sql_bind_bytes(find, 2, name_of(&cursor->at));
    int status = sqlite3_step(find);
    struct store_cursor at;
    *has_row = status == SQLITE_ROW;
    if (*has_row && !cursor->is_anew && take_row(cursors, find, cursor->channel, &at))
        merge(&cursor->at, at.ts, at.used_ms);
    sqlite3_reset(find);
    return *has_row || status == SQLITE_DONE;
}

static bool load_waiting(struct cursors *cursors, int64_t channel, struct store_cursors *op) {
    struct list *bucket = bucket_of(cursors, channel);
    for (struct list *link = bucket->next; link != bucket; link = link->next) {
        struct cursor *cursor = container_of(link, struct cursor, bucket_link);
        bool has_row;
        if (cursor->channel != channel || cursor->is_gone)
            continue;
        if ((cursors->is_prepared && !catch_up(cursors, cursor, &has_row)) ||
            !give(op, &cursor->at))
            return false;
    }
    return true;
}

static bool load(struct cursors *cursors, int64_t channel, int64_t cutoff_ms,
                 struct store_cursors *op) {
    if ((!cursors->is_prepared || load_rows(cursors, channel, cutoff_ms, op)) &&
        load_waiting(cursors, channel, op))
        return true;
    op->count = 0;
    return forget_damaged(cursors);
}

/* --- Saving ----------------------------------------------------------------------------------- */

static bool save_one(struct cursors *cursors, int64_t channel, int64_t now_ms,
                     const struct store_cursor *at) {
    struct cursor *cursor = find_waiting(cursors, channel, name_of(at));
    if (!cursor)
        cursor = add_waiting(cursors, channel, name_of(at), now_ms);
    if (!cursor)
        return false;
    cursor->is_gone = false;
    merge(&cursor->at, at->ts, at->used_ms);
    return true;
}

static bool forget_one(struct cursors *cursors, int64_t channel, int64_t now_ms,
                       const struct store_cursor *at) {
    struct cursor *cursor = find_waiting(cursors, channel, name_of(at));
    if (!cursor && !cursors->is_prepared)
        return true;
    if (!cursor)
        cursor = add_waiting(cursors, channel, name_of(at), now_ms);
    if (!cursor)
        return false;
    cursor->is_anew = cursor->is_gone = true;
    cursor->at.ts = 0;
    cursor->at.used_ms = 0;
    return true;
}

bool cursors_do(struct cursors *cursors, int64_t channel, int64_t now_ms, int64_t log_ms,
                struct store_cursors *op) {
    if (op->action == CURSORS_LOAD)
        return load(cursors, channel, log_ms - cursors->ttl_ms, op);
    bool ok = true;
    for (uint32_t i = 0; ok && i < op->count && !cursors->is_stuck; i++)
        ok = op->action == CURSORS_SAVE ? save_one(cursors, channel, now_ms, &op->list[i])
                                        : forget_one(cursors, channel, now_ms, &op->list[i]);
    return ok;
}

/* --- Writing ---------------------------------------------------------------------------------- */

bool cursors_are_due(const struct cursors *cursors, int64_t now_ms) {
    return cursors->waiting_since && now_ms - cursors->waiting_since >= WAIT_MS;
}

static bool delete_row(struct cursors *cursors, const struct cursor *cursor) {
    sqlite3_bind_int64(cursors->delete, 1, cursor->channel);
    sql_bind_bytes(cursors->delete, 2, name_of(&cursor->at));
    if (!sql_run(cursors->delete))
        return false;
    cursors->rows -= sqlite3_changes(cursors->file->db);
    return true;
}

static bool put_row(struct cursors *cursors, const struct cursor *cursor) {
    sqlite3_stmt *put = cursors->put;
    struct slice name = name_of(&cursor->at);
    int64_t ts = (int64_t)cursor->at.ts, used = cursor->at.used_ms;
    sqlite3_bind_int64(put, 1, cursor->channel);
    sql_bind_bytes(put, 2, name);
    sqlite3_bind_int64(put, 3, ts);
    sqlite3_bind_int64(put, 4, used);
    sqlite3_bind_int64(put, 5, seal_consumer(cursor->channel, name, ts, used));
    return sql_run(put);
}

static void tell_of_bound(struct cursors *cursors) {
    if (!cursors->has_told_of_bound)
        log_warn("there is no room for more named consumers", "consumers",
                 log_number((uint64_t)cursors->rows).text, "meaning",
                 "further ones begin anew after a restart; DATA_MAX_BYTES bounds them", NULL);
    cursors->has_told_of_bound = true;
}

static bool write_one(struct cursors *cursors, struct cursor *cursor) {
    if (cursor->is_gone)
        return delete_row(cursors, cursor);
    bool has_row;
    if (!catch_up(cursors, cursor, &has_row))
        return false;
    if (!has_row && cursors->rows >= cursors->max_rows) {
        tell_of_bound(cursors);
        return true;
    }
    cursors->rows += !has_row;
    return put_row(cursors, cursor);
}

static bool write_some(struct cursors *cursors, size_t max) {
    if (!cursors->is_prepared && !make_table(cursors))
        return false;
    struct list *link = cursors->waiting.next;
    for (cursors->written = 0; cursors->written < max && link != &cursors->waiting;
         link = link->next) {
        if (!write_one(cursors, container_of(link, struct cursor, link)))
            return false;
        cursors->written++;
    }
    return true;
}

bool cursors_write(struct cursors *cursors, size_t max) {
    cursors->is_writing = true;
    bool ok = write_some(cursors, max);
    if (!ok)
        forget_damaged(cursors);
    return ok;
}

void cursors_committed(struct cursors *cursors) {
    if (cursors->is_prepared) {
        cursors->is_made = true;
        cursors->is_damaged = false;
    }
    cursors->rows_before = cursors->rows;
    cursors->is_held &= !cursors->is_writing;
    cursors->is_writing = false;
    drop_waiting(cursors, cursors->written);
}

void cursors_undone(struct cursors *cursors) {
    cursors->is_held |= cursors->is_writing;
    cursors->is_writing = false;
    cursors->written = 0;
    cursors->rows = cursors->rows_before;
    if (!cursors->is_made)
        unprepare(cursors); /* the table may be gone with the transaction */
}

/* --- What is old ------------------------------------------------------------------------------ */

/* Deletes what is old of the next channel, or a part of it, and moves on. */
static bool forget_next(struct cursors *cursors, int64_t log_ms) {
    int64_t channel, cutoff_ms = log_ms - cursors->ttl_ms, orphan_ms = log_ms - ORPHAN_MS;
    sqlite3_bind_int64(cursors->find_channel, 1, cursors->next_channel);
    if (!sql_get(cursors->find_channel, &channel))
        return false;
    cursors->next_channel = channel;
    if (!channel)
        return true;
    sqlite3_bind_int64(cursors->delete_old, 1, channel);
    sqlite3_bind_int64(cursors->delete_old, 2, cutoff_ms);
    sqlite3_bind_int64(cursors->delete_old, 3, cutoff_ms > orphan_ms ? cutoff_ms : orphan_ms);
    sqlite3_bind_int64(cursors->delete_old, 4, SLICE_ROWS);
    if (!sql_run(cursors->delete_old))
        return false;
    int64_t deleted = sqlite3_changes(cursors->file->db);
    cursors->rows -= deleted;
    cursors->has_told_of_bound &= !deleted;
    if (deleted < SLICE_ROWS)
        cursors->next_channel++;
    return true;
}

static bool forget_slice(struct cursors *cursors, int64_t log_ms) {
    if (!log_file_begin_lax(cursors->file))
        return false;
    for (int i = 0; i < SLICE_CHANNELS && cursors->next_channel; i++)
        if (!forget_next(cursors, log_ms))
            return false;
    return log_file_commit(cursors->file);
}

static int64_t period_ms(const struct cursors *cursors) {
    int64_t ms = cursors->ttl_ms / 4;
    return ms < PERIOD_MIN_MS ? PERIOD_MIN_MS : ms > PERIOD_MAX_MS ? PERIOD_MAX_MS : ms;
}

void cursors_forget_some(struct cursors *cursors, int64_t log_ms) {
    if (!cursors->is_made ||
        (!cursors->next_channel && log_ms - cursors->begun_at < period_ms(cursors)))
        return;
    if (!cursors->next_channel) {
        cursors->begun_at = log_ms;
        cursors->next_channel = 1;
    }
    if (forget_slice(cursors, log_ms)) {
        cursors->rows_before = cursors->rows;
        return;
    }
    cursors->next_channel = 0;
    forget_damaged(cursors);
    log_file_note_error(cursors->file, "forgetting old consumers");
    log_file_roll_back(cursors->file);
    cursors_undone(cursors);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static bool count_rows(struct cursors *cursors) {
    struct log_file *file = cursors->file;
    if (!log_file_query(file, "SELECT count(*) FROM consumer", 0, 0, &cursors->rows))
        return false;
    int64_t excess = cursors->rows - cursors->max_rows;
    if (excess > 0 &&
        log_file_change(file,
                        "DELETE FROM consumer WHERE (channel, name) IN"
                        " (SELECT channel, name FROM consumer ORDER BY used LIMIT ?1)",
                        excess, "deleting cursors of consumers"))
        cursors->rows = cursors->max_rows;
    cursors->rows_before = cursors->rows;
    return true;
}

bool cursors_init(struct cursors *cursors, struct log_file *file,
                  const struct store_options *options) {
    int64_t is_there = 0;
    *cursors = (struct cursors){
        .file = file,
        .ttl_ms = options->ttl_ms,
        .max_rows =
            options->max_bytes ? (int64_t)(options->max_bytes / SHARE / ROW_BYTES) : INT64_MAX,
    };
    list_init(&cursors->waiting);
    for (size_t i = 0; i < CURSORS_BUCKETS; i++)
        list_init(&cursors->buckets[i]);
    if (!table_init(&cursors->table) ||
        !log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'consumer'", 0, 0,
                        &is_there))
        return false;
    cursors->is_made = is_there;
    bool is_bounded = options->max_bytes != 0;
    if (!is_there || (prepare(cursors) && (!is_bounded || count_rows(cursors))))
        return true;
    if (!log_file_is_damaged(file))
        return false;
    forget_all(cursors);
    return true;
}

void cursors_deinit(struct cursors *cursors) {
    if (!cursors->file)
        return;
    drop_waiting(cursors, SIZE_MAX);
    table_deinit(&cursors->table);
}
