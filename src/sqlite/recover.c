#include "sqlite/recover.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stdio.h>
#include <string.h>

/* --- Looking ---------------------------------------------------------------------------------- */

/* What was found in the table, or in the index: their sums are equal if the entries are. */
struct findings {
    uint64_t sum;
    bool is_whole;
};

static void add(struct findings *findings, struct slice name, int64_t id) {
    findings->sum += (uint64_t)seal_meta(name, id);
}

static bool look_at_table(struct log_file *file, struct findings *findings) {
    sqlite3_stmt *statement = NULL;
    if (!log_file_prepare(file, &statement,
                          "SELECT name, id, is_whole(" SEAL_CHANNEL ", seal) FROM channel NOT"
                          " INDEXED ORDER BY id"))
        return false;
    *findings = (struct findings){.is_whole = true};
    int status;
    int64_t last_id = INT64_MIN;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(statement, 1);
        findings->is_whole &= sqlite3_column_int(statement, 2) && id > last_id;
        add(findings, sql_column(statement, 0), id);
        last_id = id;
    }
    sqlite3_finalize(statement);
    return status == SQLITE_DONE;
}

static bool look_at_index(struct log_file *file, struct findings *findings) {
    sqlite3_stmt *statement = NULL;
    if (!log_file_prepare(file, &statement,
                          "SELECT name, id FROM channel INDEXED BY sqlite_autoindex_channel_1"
                          " ORDER BY name"))
        return false;
    *findings = (struct findings){.is_whole = true};
    int status;
    char last[CHANNEL_NAME_MAX_BYTES];
    size_t last_len = 0;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct slice name = sql_column(statement, 0);
        size_t len = name.len < sizeof last ? name.len : sizeof last;
        int order = memcmp(last, name.data, last_len < len ? last_len : len);
        findings->is_whole &= !findings->sum || order < 0 || (order == 0 && last_len < len);
        add(findings, name, sqlite3_column_int64(statement, 1));
        memcpy(last, name.data, len);
        last_len = len;
    }
    sqlite3_finalize(statement);
    return status == SQLITE_DONE;
}

/* --- Mending ---------------------------------------------------------------------------------- */

#define WHOLE "is_whole(" SEAL_CHANNEL ", seal)"
#define HAS_NUMBERS "has_numbers(" SEAL_NUMBERS ", seal)"

/*
 * The channels without a whole row: those that the index names, and those whose first update the
 * log still has. Then what the log knows of them.
 */
static bool find_lost(struct log_file *file, bool can_read_index) {
    static const char in_index[] =
        "INSERT INTO lost (id, name) SELECT id, name FROM"
        " (SELECT id, name FROM channel INDEXED BY sqlite_autoindex_channel_1)"
        " WHERE id NOT IN (SELECT id FROM channel NOT INDEXED WHERE " WHOLE ")";
    return log_file_execute(file, "CREATE TEMP TABLE lost (id INTEGER PRIMARY KEY, name BLOB,"
                                  " total, head, mark, born)") &&
           (!can_read_index || log_file_execute(file, in_index)) &&
           log_file_execute(
               file, "INSERT OR REPLACE INTO lost (id, name) SELECT channel, name FROM update_log"
                     " WHERE name IS NOT NULL AND " HAS_NUMBERS
                     " AND has_content(seq, seal, " SEAL_CONTENT ")"
                     " AND channel NOT IN (SELECT id FROM channel NOT INDEXED WHERE " WHOLE ");"
                     "UPDATE lost SET total = news.total, head = news.head, mark = news.mark,"
                     " born = news.born FROM (SELECT channel, max(ts) AS total, max(seq) AS head,"
                     "  max(coalesce(max(seq) FILTER (WHERE ts % 128 = 0), 0), max(skip)) AS mark,"
                     "  max(born) AS born"
                     "  FROM update_log WHERE " HAS_NUMBERS " AND channel IN (SELECT id FROM lost)"
                     "  GROUP BY channel) AS news WHERE lost.id = news.channel;");
}

/* Names only in the index, of channels that are whole under another name, are not among the lost.
 * The index first: deleting a row needs it. */
static bool put_lost(struct log_file *file) {
    return log_file_execute(file,
                            "REINDEX channel;"
                            "DELETE FROM channel WHERE NOT " WHOLE ";"
                            "INSERT INTO channel (" SEAL_CHANNEL
                            ", seal) SELECT id, name, total, head, mark, born,"
                            " make_channel_seal(id, name, total, head, mark, born) FROM lost;");
}

static bool mend(struct log_file *file, bool can_read_index, const struct store_options *options,
                 char *error, size_t error_size) {
    int64_t lost = 0, unknown = 0;
    bool ok = log_file_execute(file, "BEGIN IMMEDIATE") && find_lost(file, can_read_index) &&
              log_file_query(file, "SELECT count(*) FROM lost", 0, 0, &lost) &&
              log_file_query(file, "SELECT count(*) FROM lost WHERE head IS NULL", 0, 0, &unknown);
    if (ok && unknown) {
        snprintf(error, error_size,
                 "%s is damaged: the rows of %lld channels, of which the log has no update any"
                 " more; restore a backup, or see \"A damaged file\" in the operations guide",
                 log_file_path(options), (long long)unknown);
        log_file_roll_back(file);
        return false;
    }
    ok = ok && put_lost(file) && log_file_execute(file, "COMMIT; DROP TABLE temp.lost");
    if (ok)
        log_error("the data file was damaged", "table", "channel", "rows made again",
                  log_number((uint64_t)lost).text, NULL);
    return ok;
}

bool recover_channels(struct log_file *file, const struct store_options *options, char *error,
                      size_t error_size) {
    struct findings table, index;
    bool ok = look_at_table(file, &table);
    bool can_read_index = ok && look_at_index(file, &index);
    bool is_whole = can_read_index && table.is_whole && index.is_whole && table.sum == index.sum;
    if (ok && !is_whole)
        ok = mend(file, can_read_index, options, error, error_size);
    if (!ok && !*error)
        log_file_explain(file, options, "is damaged", error, error_size);
    return ok;
}
