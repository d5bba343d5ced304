#include "sqlite/log_file.h"
#include "base/config.h"
#include "base/log.h"
#include "sqlite/sql.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    APPLICATION_ID = 0x6c6f6e67, /* "long" */
    BUSY_MS = 10000,             /* an administrator's sqlite3 may hold a lock for a moment */
};

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

static const char *path_of(const struct store_options *options) {
    return options->path ? options->path : ":memory:";
}

void log_file_explain(const struct log_file *file, const struct store_options *options,
                      const char *what, char *error, size_t error_size) {
    bool has_no_memory = sqlite3_system_errno(file->db) == ENOMEM; /* to SQLite an I/O error */
    snprintf(error, error_size, "%s %s: %s", path_of(options), what,
             has_no_memory ? "out of memory" : sqlite3_errmsg(file->db));
}

void log_file_note_error(struct log_file *file, const char *doing) {
    uint64_t now = uv_hrtime();
    if (!file->errors++ || now - file->error_logged_at > 1000000000) {
        log_error("store failed", "doing", doing, "error", sqlite3_errmsg(file->db), NULL);
        file->error_logged_at = now;
    }
}

/* --- Statements ------------------------------------------------------------------------------- */

bool log_file_prepare(struct log_file *file, sqlite3_stmt **statement, const char *sql) {
    return sqlite3_prepare_v3(file->db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) ==
           SQLITE_OK;
}

static bool execute(struct log_file *file, const char *sql) {
    return sqlite3_exec(file->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/*
 * Runs one statement once, with `a` and `b` as ?1 and ?2 where it has them. `number`, if not NULL,
 * gets the first column of the first row, and stays as it is when there is no row or it holds NULL.
 */
static bool query(struct log_file *file, const char *sql, int64_t a, int64_t b, int64_t *number) {
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(file->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return false;
    int parameters = sqlite3_bind_parameter_count(statement);
    if (parameters > 0)
        sqlite3_bind_int64(statement, 1, a);
    if (parameters > 1)
        sqlite3_bind_int64(statement, 2, b);
    int status = sqlite3_step(statement);
    if (number && status == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL)
        *number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

int64_t log_file_used_bytes(const struct log_file *file) {
    return (sql_number(file->page_count) - sql_number(file->freelist_count)) * file->page_bytes;
}

/* --- Transactions ----------------------------------------------------------------------------- */

bool log_file_begin(struct log_file *file) {
    return sql_run(file->begin);
}

bool log_file_commit(struct log_file *file) {
    uint64_t start = uv_hrtime();
    if (!sql_run(file->commit))
        return false;
    file->commits++;
    file->commit_ns += uv_hrtime() - start;
    return true;
}

void log_file_roll_back(struct log_file *file) {
    if (!sqlite3_get_autocommit(file->db))
        sql_run(file->rollback);
}

/* --- meta ------------------------------------------------------------------------------------- */

static bool put_meta(struct log_file *file, const char *key, int64_t value) {
    sql_bind_text(file->put_meta, 1, slice_of(key));
    sqlite3_bind_int64(file->put_meta, 2, value);
    return sql_run(file->put_meta);
}

bool log_file_put_counts(struct log_file *file, const struct log_state *state) {
    return put_meta(file, "counted_seq", state->last_seq) && put_meta(file, "rows", state->rows) &&
           put_meta(file, "excess", log_excess_total(&state->excess));
}

bool log_file_put_checkpoint(struct log_file *file, const struct log_state *state, int64_t seq,
                             int64_t channel_max) {
    return put_meta(file, "checkpoint", seq) &&
           put_meta(file, "last_channel", state->last_channel_id) &&
           put_meta(file, "channel_max", channel_max) && log_file_put_counts(file, state);
}

/* What a new file does not have yet stays as it is. */
static bool get_meta(struct log_file *file, struct log_meta *meta) {
#define META(key) "SELECT value FROM meta WHERE key = '" key "'"
    return query(file, META("checkpoint"), 0, 0, &meta->checkpoint) &&
           query(file, META("last_channel"), 0, 0, &meta->last_channel) &&
           query(file, META("channel_max"), 0, 0, &meta->channel_max) &&
           query(file, META("counted_seq"), 0, 0, &meta->counted_seq) &&
           query(file, META("rows"), 0, 0, &meta->rows) &&
           query(file, META("excess"), 0, 0, &meta->excess);
#undef META
}

/* --- Replay ----------------------------------------------------------------------------------- */

/* Makes and updates the rows of `channel` from the log after `seq`. */
static bool bring_up_channels(struct log_file *file, int64_t seq) {
    return query(file,
                 "INSERT INTO channel (id, name, total, head, mark, last_at)"
                 "  SELECT channel, name, 0, 0, 0, at FROM update_log"
                 "  WHERE seq > ?1 AND name IS NOT NULL"
                 "  ON CONFLICT DO NOTHING",
                 seq, 0, NULL) &&
           query(file,
                 "UPDATE channel SET total = news.ts, head = news.seq, last_at = news.at,"
                 "  mark = max(channel.mark, coalesce(news.mark, 0))"
                 "  FROM (SELECT channel AS id, max(seq) AS seq, max(ts) AS ts, max(at) AS at,"
                 "               max(seq) FILTER (WHERE ts % ?2 = 0) AS mark"
                 "        FROM update_log WHERE seq > ?1 GROUP BY channel) AS news"
                 "  WHERE channel.id = news.id AND news.seq > channel.head",
                 seq, LOG_SKIP, NULL);
}

static bool look_at_log(struct log_file *file, int64_t counted_seq, int64_t channel_max,
                        struct log_found *found) {
    return query(file, "SELECT max(seq) FROM update_log", 0, 0, &found->last_seq) &&
           query(file, "SELECT at FROM update_log ORDER BY seq DESC LIMIT 1", 0, 0,
                 &found->last_at) &&
           query(file, "SELECT max(id) FROM channel", 0, 0, &found->last_channel_id) &&
           query(file, "SELECT count(*) FROM update_log WHERE seq > ?1", counted_seq, 0,
                 &found->rows_after) &&
           query(file, "SELECT count(*) FROM update_log WHERE seq > ?1 AND ts > ?2", counted_seq,
                 channel_max, &found->full_after);
}

bool log_file_replay(struct log_file *file, int64_t channel_max, struct log_state *state) {
    struct log_meta meta = {.channel_max = channel_max};
    struct log_found found = {0};
    if (!execute(file, "BEGIN IMMEDIATE") || !get_meta(file, &meta) ||
        !bring_up_channels(file, meta.checkpoint) ||
        !look_at_log(file, meta.counted_seq, channel_max, &found))
        return false;
    *state = log_state_at_start(&meta, &found, channel_max);
    return log_file_put_checkpoint(file, state, state->checkpoint_seq, channel_max) &&
           execute(file, "COMMIT");
}

/* --- Opening and closing ---------------------------------------------------------------------- */

/* False where SQLite cannot: it has no write-ahead log everywhere. */
static bool set_journal_mode(struct log_file *file, const char *mode) {
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s", mode);
    sqlite3_stmt *statement = NULL;
    bool ok = sqlite3_prepare_v2(file->db, sql, -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW &&
              strcmp((const char *)sqlite3_column_text(statement, 0), mode) == 0;
    sqlite3_finalize(statement);
    return ok;
}

static bool set_up(struct log_file *file, const struct store_options *options) {
    static const char *const synchronous[] = {
        [SYNC_ALWAYS] = "PRAGMA synchronous = FULL",
        [SYNC_INTERVAL] = "PRAGMA synchronous = NORMAL",
        [SYNC_NEVER] = "PRAGMA synchronous = OFF",
    };
    sqlite3_busy_timeout(file->db, BUSY_MS);
    return execute(file, "PRAGMA page_size = 8192") &&
           set_journal_mode(file, options->path ? "wal" : "memory") &&
           execute(file, synchronous[options->sync]) &&
           execute(file, "PRAGMA wal_autocheckpoint = 0") &&
           execute(file, "PRAGMA cache_size = -16384") &&
           execute(file, "PRAGMA temp_store = MEMORY");
}

static bool create_tables(struct log_file *file) {
    char stamp[96];
    snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             APPLICATION_ID, LOG_SCHEMA_VERSION);
    return execute(file, "BEGIN IMMEDIATE") && execute(file, schema) && execute(file, stamp) &&
           execute(file, "COMMIT");
}

/* Creates the tables in a new file. False, with `error`, for a file that is not ours or of
 * another version. */
static bool check_schema(struct log_file *file, const struct store_options *options, char *error,
                         size_t error_size) {
    int64_t application = -1, version = -1, tables = -1;
    bool is_readable = query(file, "PRAGMA application_id", 0, 0, &application) &&
                       query(file, "PRAGMA user_version", 0, 0, &version) &&
                       query(file, "SELECT count(*) FROM sqlite_schema", 0, 0, &tables);
    bool is_new = tables == 0 && application == 0 && version == 0;
    if (!is_readable)
        log_file_explain(file, options, "cannot be read", error, error_size);
    else if (is_new && !create_tables(file))
        log_file_explain(file, options, "cannot create the tables", error, error_size);
    else if (!is_new && application != APPLICATION_ID)
        snprintf(error, error_size, "%s is not a longline database", path_of(options));
    else if (!is_new && version != LOG_SCHEMA_VERSION)
        snprintf(error, error_size, "%s has schema version %lld; this longline knows %d only",
                 path_of(options), (long long)version, LOG_SCHEMA_VERSION);
    else
        return true;
    return false;
}

static bool prepare(struct log_file *file) {
    return log_file_prepare(file, &file->begin, "BEGIN IMMEDIATE") &&
           log_file_prepare(file, &file->commit, "COMMIT") &&
           log_file_prepare(file, &file->rollback, "ROLLBACK") &&
           log_file_prepare(file, &file->put_meta,
                            "INSERT INTO meta (key, value) VALUES (?1, ?2)"
                            " ON CONFLICT (key) DO UPDATE SET value = ?2") &&
           log_file_prepare(file, &file->page_count, "PRAGMA page_count") &&
           log_file_prepare(file, &file->freelist_count, "PRAGMA freelist_count");
}

bool log_file_open(struct log_file *file, const struct store_options *options, char *error,
                   size_t error_size) {
    *file = (struct log_file){.page_bytes = 4096};
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path_of(options), &file->db, flags, NULL) != SQLITE_OK ||
        !set_up(file, options)) {
        log_file_explain(file, options, "cannot be opened", error, error_size);
        return false;
    }
    if (!check_schema(file, options, error, error_size))
        return false;
    if (!prepare(file) || !query(file, "PRAGMA page_size", 0, 0, &file->page_bytes)) {
        log_file_explain(file, options, "cannot be read", error, error_size);
        return false;
    }
    return true;
}

void log_file_close(struct log_file *file) {
    sqlite3_stmt *statement;
    while (file->db && (statement = sqlite3_next_stmt(file->db, NULL)))
        sqlite3_finalize(statement);
    sqlite3_close(file->db);
}
