#include "sqlite/upgrade.h"
#include "base/log.h"
#include "sqlite/meta.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stdio.h>

enum {
    SLICE_ROWS = 1000,
    SLICE_BYTES = 8 << 20,
    SLICE_CHANNELS = 10000,
    WAL_BYTES = 64 << 20,
    DAY_MS = 86400 * 1000,
    TELL_NS = 1000000000,
};

struct upgrade {
    struct log_file *file;
    const struct store_options *options;
    sqlite3_stmt *next, *move, *delete;
    int64_t last_at, last_born; /* of the row that moved last; 0: none has */
    int64_t wal_bytes;
    int64_t moved, rows;
    uint64_t told_at;
};

/* --- Rows of the log -------------------------------------------------------------------------- */

/* The time between two rows, as the log's own clock counts it: a gap of more than a day may have
 * been a clock that was set, and one that was set back is none. */
static int64_t passed(int64_t from_ms, int64_t to_ms) {
    int64_t ms = to_ms - from_ms;
    return ms < 0 ? 0 : ms > DAY_MS ? DAY_MS : ms;
}

/* Moves one row; its size goes to `*bytes`. SQLITE_DONE when none is left. */
static int move_row(struct upgrade *upgrade, int64_t *bytes) {
    int status = sqlite3_step(upgrade->next);
    int64_t seq = 0, at = 0;
    if (status == SQLITE_ROW) {
        seq = sqlite3_column_int64(upgrade->next, 0);
        at = sqlite3_column_int64(upgrade->next, 1);
        *bytes = sqlite3_column_int64(upgrade->next, 2);
    }
    sqlite3_reset(upgrade->next);
    if (status != SQLITE_ROW)
        return status;
    upgrade->last_born =
        upgrade->last_born ? upgrade->last_born + passed(upgrade->last_at, at) : at;
    upgrade->last_at = at;
    sqlite3_bind_int64(upgrade->move, 1, seq);
    sqlite3_bind_int64(upgrade->move, 2, upgrade->last_born);
    sqlite3_bind_int64(upgrade->delete, 1, seq);
    return sql_run(upgrade->move) && sql_run(upgrade->delete) ? SQLITE_ROW : SQLITE_ERROR;
}

static void tell(struct upgrade *upgrade) {
    uint64_t now = uv_hrtime();
    if (now - upgrade->told_at < TELL_NS)
        return;
    upgrade->told_at = now;
    log_info("upgrading the data file", "moved", log_number((uint64_t)upgrade->moved).text, "of",
             log_number((uint64_t)upgrade->rows).text, NULL);
}

/* `bytes` more are written. */
static void bound_wal(struct upgrade *upgrade, int64_t bytes) {
    if (upgrade->options->at_work)
        upgrade->options->at_work();
    upgrade->wal_bytes += bytes;
    if (upgrade->wal_bytes < WAL_BYTES)
        return;
    upgrade->wal_bytes = 0;
    sqlite3_wal_checkpoint_v2(upgrade->file->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/* Moves a slice in one transaction. SQLITE_DONE when nothing is left. */
static int move_slice(struct upgrade *upgrade) {
    int64_t bytes = 0;
    int status = log_file_begin(upgrade->file) ? SQLITE_ROW : SQLITE_ERROR;
    for (int row = 0; status == SQLITE_ROW && row < SLICE_ROWS && bytes < SLICE_BYTES; row++) {
        int64_t size = 0;
        status = move_row(upgrade, &size);
        bytes += size;
        upgrade->moved += status == SQLITE_ROW;
    }
    if ((status != SQLITE_ROW && status != SQLITE_DONE) || !log_file_commit(upgrade->file))
        return SQLITE_ERROR;
    bound_wal(upgrade, bytes);
    tell(upgrade);
    return status;
}

static bool move_rows(struct upgrade *upgrade) {
    struct log_file *file = upgrade->file;
    bool ok = log_file_query(file, "SELECT count(*) FROM update_log_1", 0, 0, &upgrade->rows) &&
              log_file_query(file, "SELECT at FROM update_log ORDER BY seq DESC LIMIT 1", 0, 0,
                             &upgrade->last_at) &&
              log_file_query(file, "SELECT born FROM update_log ORDER BY seq DESC LIMIT 1", 0, 0,
                             &upgrade->last_born) &&
              log_file_prepare(file, &upgrade->next,
                               "SELECT seq, at, size FROM update_log_1 ORDER BY seq LIMIT 1") &&
              log_file_prepare(file, &upgrade->move,
                               "INSERT INTO update_log SELECT " SEAL_NUMBERS ","
                               " make_seal(" SEAL_NUMBERS ", " SEAL_CONTENT "), " SEAL_CONTENT
                               " FROM (SELECT *, ?2 AS born FROM update_log_1 WHERE seq = ?1)") &&
              log_file_prepare(file, &upgrade->delete, "DELETE FROM update_log_1 WHERE seq = ?1");
    int status = ok ? SQLITE_ROW : SQLITE_ERROR;
    while (status == SQLITE_ROW)
        status = move_slice(upgrade);
    sqlite3_finalize(upgrade->next);
    sqlite3_finalize(upgrade->move);
    sqlite3_finalize(upgrade->delete);
    return status == SQLITE_DONE;
}

/* --- Rows of `channel` ------------------------------------------------------------------------ */

/* The log's clock is at most `born` by now. */
static bool seal_channels(struct upgrade *upgrade) {
    struct log_file *file = upgrade->file;
    int64_t next_id = -1;
    if (!log_file_query(file, "SELECT min(id) FROM channel WHERE seal IS NULL", 0, 0, &next_id))
        return false;
    int64_t born = upgrade->last_born ? upgrade->last_born : INT64_MAX;
    for (int64_t last_id = next_id; next_id >= 0 && last_id >= 0; next_id += SLICE_CHANNELS) {
        last_id = -1;
        bool ok = log_file_begin(file) &&
                  log_file_query(file,
                                 "UPDATE channel SET last_born = min(last_born, ?2) WHERE id"
                                 " BETWEEN ?1 AND ?1 + 9999 AND seal IS NULL",
                                 next_id, born, NULL) &&
                  log_file_query(file,
                                 "UPDATE channel SET seal = make_channel_seal(" SEAL_CHANNEL ")"
                                 " WHERE id BETWEEN ?1 AND ?1 + 9999 AND seal IS NULL",
                                 next_id, 0, NULL) &&
                  log_file_commit(file) &&
                  log_file_query(file, "SELECT max(id) FROM channel WHERE id > ?1 + 9999", next_id,
                                 0, &last_id);
        if (!ok)
            return false;
        bound_wal(upgrade, (int64_t)SLICE_CHANNELS * 128);
    }
    return true;
}

/* --- The whole -------------------------------------------------------------------------------- */

/* All that changes at once. */
static bool change_tables(struct log_file *file) {
    int64_t last_seq = 0;
    char stamp[64];
    snprintf(stamp, sizeof stamp, "PRAGMA user_version = %d", LOG_SCHEMA_VERSION);
    return log_file_query(file, "SELECT max(seq) FROM update_log", 0, 0, &last_seq) &&
           log_file_begin(file) &&
           log_file_execute(file,
                            "ALTER TABLE update_log RENAME TO update_log_1;"
                            "ALTER TABLE channel RENAME COLUMN last_at TO last_born;"
                            "ALTER TABLE channel ADD COLUMN seal INTEGER;"
                            "ALTER TABLE meta ADD COLUMN seal INTEGER;" LOG_FILE_UPDATE_LOG) &&
           log_file_execute(file, stamp) && meta_upgrade(file, last_seq) && log_file_commit(file);
}

bool upgrade_file(struct log_file *file, const struct store_options *options, char *error,
                  size_t error_size) {
    struct upgrade upgrade = {.file = file, .options = options};
    int64_t is_under_way = 0;
    bool ok = (file->version != 1 || change_tables(file)) &&
              log_file_query(file, "SELECT count(*) FROM sqlite_schema WHERE name = 'update_log_1'",
                             0, 0, &is_under_way) &&
              (!is_under_way || (move_rows(&upgrade) && seal_channels(&upgrade) &&
                                 log_file_execute(file, "DROP TABLE update_log_1")));
    if (!ok)
        log_file_explain(file, options, "cannot be upgraded", error, error_size);
    else if (is_under_way)
        log_info("the data file is upgraded", "updates", log_number((uint64_t)upgrade.moved).text,
                 NULL);
    return ok;
}
