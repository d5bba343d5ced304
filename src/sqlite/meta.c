#include "sqlite/meta.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <string.h>

/* --- Putting ---------------------------------------------------------------------------------- */

static bool put(struct log_file *file, const char *key, int64_t value) {
    if (!file->put_meta &&
        !log_file_prepare(file, &file->put_meta,
                          "INSERT INTO meta (key, value, seal) VALUES (?1, ?2, ?3)"
                          " ON CONFLICT (key) DO UPDATE SET value = ?2, seal = ?3"))
        return false;
    sql_bind_text(file->put_meta, 1, slice_of(key));
    sqlite3_bind_int64(file->put_meta, 2, value);
    sqlite3_bind_int64(file->put_meta, 3, seal_meta(slice_of(key), value));
    return sql_run(file->put_meta);
}

bool meta_put_counts(struct log_file *file, const struct log_state *state) {
    return put(file, "counted_seq", state->last_seq) && put(file, "rows", state->rows) &&
           put(file, "excess", log_excess_total(&state->excess)) &&
           put(file, "channel_max", state->channel_max) &&
           put(file, "raised_seq", state->raised_seq);
}

bool meta_put_time(struct log_file *file, const struct log_time *time) {
    return put(file, "log_ms", time->log_ms) && put(file, "wall_ms", time->wall_ms) &&
           put(file, "unseen_ms", time->unseen_ms);
}

bool meta_put_checkpoint(struct log_file *file, const struct log_state *state, int64_t seq) {
    return log_file_execute(file, "DELETE FROM meta WHERE NOT is_sealed(key, value, seal)") &&
           put(file, "checkpoint", seq) && put(file, "last_channel", state->last_channel_id) &&
           meta_put_counts(file, state);
}

/* --- Getting ---------------------------------------------------------------------------------- */

static const struct {
    const char *key;
    size_t offset;
} keys[] = {
    {"checkpoint", offsetof(struct log_meta, checkpoint)},
    {"last_channel", offsetof(struct log_meta, last_channel)},
    {"channel_max", offsetof(struct log_meta, channel_max)},
    {"raised_seq", offsetof(struct log_meta, raised_seq)},
    {"counted_seq", offsetof(struct log_meta, counted_seq)},
    {"rows", offsetof(struct log_meta, rows)},
    {"excess", offsetof(struct log_meta, excess)},
    {"log_ms", offsetof(struct log_meta, time) + offsetof(struct log_time, log_ms)},
    {"wall_ms", offsetof(struct log_meta, time) + offsetof(struct log_time, wall_ms)},
    {"unseen_ms", offsetof(struct log_meta, time) + offsetof(struct log_time, unseen_ms)},
};

enum { KEYS = sizeof keys / sizeof *keys };

static int64_t *value_in(struct log_meta *meta, size_t key) {
    return (int64_t *)((char *)meta + keys[key].offset);
}

/* The index in `keys`, KEYS for none. */
static size_t find_key(struct slice text) {
    size_t key = 0;
    while (key < KEYS && !slice_equal(slice_of(keys[key].key), text))
        key++;
    return key;
}

static void forget_damaged(struct log_meta *meta) {
    log_error("the data file is damaged", "table", "meta", "meaning",
              "the whole log is looked at instead", NULL);
    *meta = (struct log_meta){.is_damaged = true};
}

bool meta_get(struct log_file *file, struct log_meta *meta) {
    *meta = (struct log_meta){0};
    sqlite3_stmt *statement = NULL;
    if (!log_file_prepare(file, &statement, "SELECT key, value, seal FROM meta"))
        return false;
    int status;
    bool is_whole = true;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct slice key = sql_column(statement, 0);
        int64_t value = sqlite3_column_int64(statement, 1);
        is_whole &= seal_meta(key, value) == sqlite3_column_int64(statement, 2);
        size_t index = find_key(key);
        if (index < KEYS)
            *value_in(meta, index) = value;
    }
    sqlite3_finalize(statement);
    if (!is_whole)
        forget_damaged(meta);
    return status == SQLITE_DONE;
}

/* --- Upgrading -------------------------------------------------------------------------------- */

bool meta_upgrade(struct log_file *file, int64_t raised_seq) {
    sqlite3_stmt *statement = NULL;
    if (!log_file_prepare(file, &statement, "SELECT value FROM meta WHERE key = ?1"))
        return false;
    bool ok = true;
    for (size_t key = 0; ok && key < KEYS; key++) {
        sql_bind_text(statement, 1, slice_of(keys[key].key));
        int status = sqlite3_step(statement);
        int64_t value = sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
        ok = status == SQLITE_ROW ? put(file, keys[key].key, value) : status == SQLITE_DONE;
    }
    sqlite3_finalize(statement);
    return ok && put(file, "raised_seq", raised_seq);
}
