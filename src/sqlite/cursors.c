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
static struct list *bucket_of(struct cursors *consumers, int64_t channel) {
    return &consumers->buckets[(uint64_t)channel % CURSORS_BUCKETS];
}

/* NULL when nothing of the name waits. */
static struct cursor *find_waiting(const struct cursors *consumers, int64_t channel,
                                   struct slice name) {
    if (list_empty(&consumers->waiting))
        return NULL;
    struct key text;
    struct slice key = key_of(&text, channel, name);
    struct table_node *node =
        table_find(&consumers->table, hash_of(key), has_key, key.data, key.len);
    return node ? container_of(node, struct cursor, node) : NULL;
}

/* NULL when memory is out, or too many wait. */
static struct cursor *add_waiting(struct cursors *consumers, int64_t channel, struct slice name,
                                  int64_t now_ms) {
    if (consumers->table.count >= WAITING_MAX)
        consumers->file->reason = "too many cursors of consumers wait to be written";
    struct cursor *cursor = consumers->table.count < WAITING_MAX ? calloc(1, sizeof *cursor) : NULL;
    if (!cursor)
        return NULL;
    struct key key;
    cursor->node.hash = hash_of(key_of(&key, channel, name));
    cursor->channel = channel;
    cursor->at.name_len = (uint8_t)name.len;
    memcpy(cursor->at.name, name.data, name.len);
    table_insert(&consumers->table, &cursor->node);
    list_append(&consumers->waiting, &cursor->link);
    list_append(bucket_of(consumers, channel), &cursor->bucket_link);
    if (!consumers->waiting_since)
        consumers->waiting_since = now_ms;
    return cursor;
}

/* Frees the first `count` of those that wait. */
static void drop_waiting(struct cursors *consumers, size_t count) {
    for (struct list *link; count && (link = list_shift(&consumers->waiting)); count--) {
        struct cursor *cursor = container_of(link, struct cursor, link);
        table_remove(&consumers->table, &cursor->node);
        list_remove(&cursor->bucket_link);
        free(cursor);
    }
    if (list_empty(&consumers->waiting))
        consumers->waiting_since = 0;
    consumers->written = 0;
}

/* `at` is what both know, as far as they know it. */
static void merge(struct store_cursor *at, uint64_t ts, int64_t used_ms) {
    if (ts > at->ts)
        at->ts = ts;
    if (used_ms > at->used_ms)
        at->used_ms = used_ms;
}

/* --- The table -------------------------------------------------------------------------------- */

static bool prepare(struct cursors *consumers) {
    struct log_file *file = consumers->file;
    consumers->is_prepared =
        log_file_prepare(file, &consumers->load,
                         "SELECT name, ts, used, seal FROM consumer"
                         " WHERE channel = ?1 AND used >= ?2 LIMIT ?3") &&
        log_file_prepare(file, &consumers->find,
                         "SELECT name, ts, used, seal FROM consumer"
                         " WHERE channel = ?1 AND name = ?2") &&
        log_file_prepare(file, &consumers->put,
                         "INSERT OR REPLACE INTO consumer (channel, name, ts, used, seal)"
                         " VALUES (?1, ?2, ?3, ?4, ?5)") &&
        log_file_prepare(file, &consumers->delete,
                         "DELETE FROM consumer WHERE channel = ?1 AND name = ?2") &&
        log_file_prepare(file, &consumers->find_channel,
                         "SELECT min(channel) FROM consumer WHERE channel >= ?1") &&
        log_file_prepare(
            file, &consumers->delete_old,
            "DELETE FROM consumer WHERE channel = ?1 AND name IN (SELECT name FROM consumer"
            " WHERE channel = ?1 AND used < iif(EXISTS (SELECT 1 FROM channel WHERE id = ?1),"
            " ?2, ?3) LIMIT ?4)");
    return consumers->is_prepared;
}

static void unprepare(struct cursors *consumers) {
    sqlite3_stmt **statements[] = {&consumers->load,         &consumers->find,
                                   &consumers->put,          &consumers->delete,
                                   &consumers->find_channel, &consumers->delete_old};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        sqlite3_finalize(*statements[i]);
        *statements[i] = NULL;
    }
    consumers->is_prepared = false;
}

/* The table is damaged: all cursors are unknown from now on. */
static void forget_all(struct cursors *consumers) {
    consumers->is_stuck = consumers->is_damaged; /* dropping it was tried */
    consumers->is_damaged = true;
    consumers->is_made = false;
    consumers->rows = consumers->rows_before = consumers->next_channel = 0;
    unprepare(consumers);
    drop_waiting(consumers, SIZE_MAX);
    log_error("the data file is damaged", "table", "consumer", "meaning",
              consumers->is_stuck ? "named consumers are not remembered over a restart"
                                  : "named consumers begin anew",
              NULL);
}

/* After a failure: forgets all if damage is the reason; else false. */
static bool forget_damaged(struct cursors *consumers) {
    if (sqlite3_errcode(consumers->file->db) != SQLITE_CORRUPT)
        return false;
    forget_all(consumers);
    return true;
}

/* In the open transaction. */
static bool make_table(struct cursors *consumers) {
    struct log_file *file = consumers->file;
    return (!consumers->is_damaged || log_file_execute(file, "DROP TABLE IF EXISTS consumer")) &&
           log_file_execute(file, schema) && prepare(consumers);
}

static void tell_of_damage(struct cursors *consumers) {
    if (!consumers->has_told_of_damage)
        log_error("a consumer's cursor is damaged", "meaning",
                  "it begins anew, as others may; see longline check", NULL);
    consumers->has_told_of_damage = true;
}

/* The current row of `load` or `find`. False when it is damaged. */
static bool take_row(struct cursors *consumers, sqlite3_stmt *rows, int64_t channel,
                     struct store_cursor *at) {
    struct slice name = sql_column(rows, 0);
    int64_t ts = sqlite3_column_int64(rows, 1), used = sqlite3_column_int64(rows, 2);
    if (name.len > sizeof at->name ||
        seal_consumer(channel, name, ts, used) != sqlite3_column_int64(rows, 3)) {
        tell_of_damage(consumers);
        return false;
    }
    *at = (struct store_cursor){.ts = (uint64_t)ts, .used_ms = used, .name_len = (uint8_t)name.len};
    memcpy(at->name, name.data, name.len);
    return true;
}

/* --- Loading ---------------------------------------------------------------------------------- */

/* Adds one to the operation's list. False when memory is out. */
static bool give(struct store_cursors *cursors, const struct store_cursor *at) {
    if ((cursors->count & (cursors->count - 1)) == 0) { /* 0, or a power of two: it is full */
        size_t capacity = cursors->count ? 2 * (size_t)cursors->count : 1;
        struct store_cursor *list = realloc(cursors->list, capacity * sizeof *list);
        if (!list)
            return false;
        cursors->list = list;
    }
    cursors->list[cursors->count++] = *at;
    return true;
}

/* Gives the rows of which nothing waits. */
static bool load_rows(struct cursors *consumers, int64_t channel, int64_t cutoff_ms,
                      struct store_cursors *cursors) {
    sqlite3_stmt *load = consumers->load;
    sqlite3_bind_int64(load, 1, channel);
    sqlite3_bind_int64(load, 2, cutoff_ms);
    sqlite3_bind_int64(load, 3, LOAD_MAX);
    int status;
    bool ok = true;
    while (ok && (status = sqlite3_step(load)) == SQLITE_ROW) {
        struct store_cursor at;
        if (take_row(consumers, load, channel, &at) &&
            !find_waiting(consumers, channel, name_of(&at)))
            ok = give(cursors, &at);
    }
    sqlite3_reset(load);
    return ok && status == SQLITE_DONE;
}

/* Brings what waits to what the table has. False on failure. */
static bool catch_up(struct cursors *consumers, struct cursor *cursor, bool *has_row) {
    sqlite3_stmt *find = consumers->find;
    sqlite3_bind_int64(find, 1, cursor->channel);
    sql_bind_bytes(find, 2, name_of(&cursor->at));
    int status = sqlite3_step(find);
    struct store_cursor at;
    *has_row = status == SQLITE_ROW;
    if (*has_row && !cursor->is_anew && take_row(consumers, find, cursor->channel, &at))
        merge(&cursor->at, at.ts, at.used_ms);
    sqlite3_reset(find);
    return *has_row || status == SQLITE_DONE;
}

static bool load_waiting(struct cursors *consumers, int64_t channel,
                         struct store_cursors *cursors) {
    struct list *bucket = bucket_of(consumers, channel);
    for (struct list *link = bucket->next; link != bucket; link = link->next) {
        struct cursor *cursor = container_of(link, struct cursor, bucket_link);
        bool has_row;
        if (cursor->channel != channel || cursor->is_gone)
            continue;
        if ((consumers->is_prepared && !catch_up(consumers, cursor, &has_row)) ||
            !give(cursors, &cursor->at))
            return false;
    }
    return true;
}

static bool load(struct cursors *consumers, int64_t channel, int64_t cutoff_ms,
                 struct store_cursors *cursors) {
    if ((!consumers->is_prepared || load_rows(consumers, channel, cutoff_ms, cursors)) &&
        load_waiting(consumers, channel, cursors))
        return true;
    cursors->count = 0;
    return forget_damaged(consumers);
}

/* --- Saving ----------------------------------------------------------------------------------- */

static bool save_one(struct cursors *consumers, int64_t channel, int64_t now_ms,
                     const struct store_cursor *at) {
    struct cursor *cursor = find_waiting(consumers, channel, name_of(at));
    if (!cursor)
        cursor = add_waiting(consumers, channel, name_of(at), now_ms);
    if (!cursor)
        return false;
    cursor->is_gone = false;
    merge(&cursor->at, at->ts, at->used_ms);
    return true;
}

static bool forget_one(struct cursors *consumers, int64_t channel, int64_t now_ms,
                       const struct store_cursor *at) {
    struct cursor *cursor = find_waiting(consumers, channel, name_of(at));
    if (!cursor && !consumers->is_prepared)
        return true;
    if (!cursor)
        cursor = add_waiting(consumers, channel, name_of(at), now_ms);
    if (!cursor)
        return false;
    cursor->is_anew = cursor->is_gone = true;
    cursor->at.ts = 0;
    cursor->at.used_ms = 0;
    return true;
}

bool cursors_do(struct cursors *consumers, int64_t channel, int64_t now_ms, int64_t log_ms,
                struct store_cursors *cursors) {
    if (cursors->action == CURSORS_LOAD)
        return load(consumers, channel, log_ms - consumers->ttl_ms, cursors);
    bool ok = true;
    for (uint32_t i = 0; ok && i < cursors->count && !consumers->is_stuck; i++)
        ok = cursors->action == CURSORS_SAVE
                 ? save_one(consumers, channel, now_ms, &cursors->list[i])
                 : forget_one(consumers, channel, now_ms, &cursors->list[i]);
    return ok;
}

/* --- Writing ---------------------------------------------------------------------------------- */

bool cursors_are_due(const struct cursors *consumers, int64_t now_ms) {
    return consumers->waiting_since && now_ms - consumers->waiting_since >= WAIT_MS;
}

static bool delete_row(struct cursors *consumers, const struct cursor *cursor) {
    sqlite3_bind_int64(consumers->delete, 1, cursor->channel);
    sql_bind_bytes(consumers->delete, 2, name_of(&cursor->at));
    if (!sql_run(consumers->delete))
        return false;
    consumers->rows -= sqlite3_changes(consumers->file->db);
    return true;
}

static bool put_row(struct cursors *consumers, const struct cursor *cursor) {
    sqlite3_stmt *put = consumers->put;
    struct slice name = name_of(&cursor->at);
    int64_t ts = (int64_t)cursor->at.ts, used = cursor->at.used_ms;
    sqlite3_bind_int64(put, 1, cursor->channel);
    sql_bind_bytes(put, 2, name);
    sqlite3_bind_int64(put, 3, ts);
    sqlite3_bind_int64(put, 4, used);
    sqlite3_bind_int64(put, 5, seal_consumer(cursor->channel, name, ts, used));
    return sql_run(put);
}

static void tell_of_bound(struct cursors *consumers) {
    if (!consumers->has_told_of_bound)
        log_warn("there is no room for more named consumers", "consumers",
                 log_number((uint64_t)consumers->rows).text, "meaning",
                 "further ones begin anew after a restart; DATA_MAX_BYTES bounds them", NULL);
    consumers->has_told_of_bound = true;
}

static bool write_one(struct cursors *consumers, struct cursor *cursor) {
    if (cursor->is_gone)
        return delete_row(consumers, cursor);
    bool has_row;
    if (!catch_up(consumers, cursor, &has_row))
        return false;
    if (!has_row && consumers->rows >= consumers->max_rows) {
        tell_of_bound(consumers);
        return true;
    }
    consumers->rows += !has_row;
    return put_row(consumers, cursor);
}

static bool write_some(struct cursors *consumers, size_t max) {
    if (!consumers->is_prepared && !make_table(consumers))
        return false;
    struct list *link = consumers->waiting.next;
    for (consumers->written = 0; consumers->written < max && link != &consumers->waiting;
         link = link->next) {
        if (!write_one(consumers, container_of(link, struct cursor, link)))
            return false;
        consumers->written++;
    }
    return true;
}

bool cursors_write(struct cursors *consumers, size_t max) {
    consumers->is_writing = true;
    bool ok = write_some(consumers, max);
    if (!ok)
        forget_damaged(consumers);
    return ok;
}

void cursors_committed(struct cursors *consumers) {
    if (consumers->is_prepared) {
        consumers->is_made = true;
        consumers->is_damaged = false;
    }
    consumers->rows_before = consumers->rows;
    consumers->is_held &= !consumers->is_writing;
    consumers->is_writing = false;
    drop_waiting(consumers, consumers->written);
}

void cursors_undone(struct cursors *consumers) {
    consumers->is_held |= consumers->is_writing;
    consumers->is_writing = false;
    consumers->written = 0;
    consumers->rows = consumers->rows_before;
    if (!consumers->is_made)
        unprepare(consumers); /* the table may be gone with the transaction */
}

/* --- What is old ------------------------------------------------------------------------------ */

/* Deletes what is old of the next channel, or a part of it, and moves on. */
static bool forget_next(struct cursors *consumers, int64_t log_ms) {
    int64_t channel, cutoff_ms = log_ms - consumers->ttl_ms, orphan_ms = log_ms - ORPHAN_MS;
    sqlite3_bind_int64(consumers->find_channel, 1, consumers->next_channel);
    if (!sql_get(consumers->find_channel, &channel))
        return false;
    consumers->next_channel = channel;
    if (!channel)
        return true;
    sqlite3_bind_int64(consumers->delete_old, 1, channel);
    sqlite3_bind_int64(consumers->delete_old, 2, cutoff_ms);
    sqlite3_bind_int64(consumers->delete_old, 3, cutoff_ms > orphan_ms ? cutoff_ms : orphan_ms);
    sqlite3_bind_int64(consumers->delete_old, 4, SLICE_ROWS);
    if (!sql_run(consumers->delete_old))
        return false;
    int64_t deleted = sqlite3_changes(consumers->file->db);
    consumers->rows -= deleted;
    consumers->has_told_of_bound &= !deleted;
    if (deleted < SLICE_ROWS)
        consumers->next_channel++;
    return true;
}

static bool forget_slice(struct cursors *consumers, int64_t log_ms) {
    if (!log_file_begin_lax(consumers->file))
        return false;
    for (int i = 0; i < SLICE_CHANNELS && consumers->next_channel; i++)
        if (!forget_next(consumers, log_ms))
            return false;
    return log_file_commit(consumers->file);
}

static int64_t period_ms(const struct cursors *consumers) {
    int64_t ms = consumers->ttl_ms / 4;
    return ms < PERIOD_MIN_MS ? PERIOD_MIN_MS : ms > PERIOD_MAX_MS ? PERIOD_MAX_MS : ms;
}

void cursors_forget_some(struct cursors *consumers, int64_t log_ms) {
    if (!consumers->is_made ||
        (!consumers->next_channel && log_ms - consumers->begun_at < period_ms(consumers)))
        return;
    if (!consumers->next_channel) {
        consumers->begun_at = log_ms;
        consumers->next_channel = 1;
    }
    if (forget_slice(consumers, log_ms)) {
        consumers->rows_before = consumers->rows;
        return;
    }
    consumers->next_channel = 0;
    forget_damaged(consumers);
    log_file_note_error(consumers->file, "forgetting old consumers");
    log_file_roll_back(consumers->file);
    cursors_undone(consumers);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static bool count_rows(struct cursors *consumers) {
    struct log_file *file = consumers->file;
    if (!log_file_query(file, "SELECT count(*) FROM consumer", 0, 0, &consumers->rows))
        return false;
    int64_t excess = consumers->rows - consumers->max_rows;
    if (excess > 0 && log_file_query(file,
                                     "DELETE FROM consumer WHERE (channel, name) IN"
                                     " (SELECT channel, name FROM consumer ORDER BY used LIMIT ?1)",
                                     excess, 0, NULL))
        consumers->rows = consumers->max_rows;
    consumers->rows_before = consumers->rows;
    return true;
}

bool cursors_init(struct cursors *consumers, struct log_file *file,
                  const struct store_options *options) {
    int64_t is_there = 0;
    *consumers = (struct cursors){
        .file = file,
        .ttl_ms = options->ttl_ms,
        .max_rows =
            options->max_bytes ? (int64_t)(options->max_bytes / SHARE / ROW_BYTES) : INT64_MAX,
    };
    list_init(&consumers->waiting);
    for (size_t i = 0; i < CURSORS_BUCKETS; i++)
        list_init(&consumers->buckets[i]);
    if (!table_init(&consumers->table) ||
        !log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'consumer'", 0, 0,
                        &is_there))
        return false;
    consumers->is_made = is_there;
    bool is_bounded = options->max_bytes != 0;
    if (!is_there || (prepare(consumers) && (!is_bounded || count_rows(consumers))))
        return true;
    if (sqlite3_errcode(file->db) == SQLITE_NOMEM)
        return false;
    forget_all(consumers);
    return true;
}

void cursors_deinit(struct cursors *consumers) {
    if (!consumers->file)
        return;
    drop_waiting(consumers, SIZE_MAX);
    table_deinit(&consumers->table);
}
