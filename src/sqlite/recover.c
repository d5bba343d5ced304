#include "sqlite/recover.h"
#include "base/hash.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stdio.h>
#include <string.h>

/* --- Looking ---------------------------------------------------------------------------------- */

/* What was found in the table, or in the index: their sums are equal if the entries are. */
struct findings {
    uint64_t sum;
    int64_t rows;
    bool is_whole;
};

/* What a look at both has seen. */
struct look {
    struct known_names *names; /* hears of every name */
    bool is_whole;             /* all rows are what they should be, and where they are looked for */
    bool can_read_index;
};

static void add(struct findings *findings, struct slice name, int64_t id) {
    findings->sum += (uint64_t)seal_meta(name, id);
    findings->rows++;
}

static bool look_at_table(struct log_file *file, struct known_names *names,
                          struct findings *findings) {
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
        struct slice name = sql_column(statement, 0);
        add(findings, name, id);
        known_names_add(names, hash_of(name));
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
        findings->is_whole &= !findings->rows || order < 0 || (order == 0 && last_len < len);
        add(findings, name, sqlite3_column_int64(statement, 1));
        memcpy(last, name.data, len);
        last_len = len;
    }
    sqlite3_finalize(statement);
    return status == SQLITE_DONE;
}

/* False on failure. */
static bool look_at_both(struct log_file *file, struct look *look) {
    struct findings table, index;
    if (!look_at_table(file, look->names, &table))
        return false;
    look->can_read_index = look_at_index(file, &index);
    look->is_whole =
        look->can_read_index && table.is_whole && index.is_whole && table.sum == index.sum;
    return look->can_read_index || sqlite3_errcode(file->db) == SQLITE_CORRUPT;
}

/* --- Mending ---------------------------------------------------------------------------------- */

#define WHOLE_ROWS "channel NOT INDEXED WHERE " SEAL_IS_WHOLE

/* The channels without a whole row: those that the index names, and those whose first update the
 * log still has. A name that a whole row has is not lost: its entry in the index is wrong. */
static bool find_lost(struct log_file *file, bool can_read_index) {
    static const char in_index[] =
        "INSERT INTO lost (id, name, is_told) SELECT id, name, FALSE FROM"
        " (SELECT id, name FROM channel INDEXED BY sqlite_autoindex_channel_1)"
        " WHERE id NOT IN (SELECT id FROM " WHOLE_ROWS ")"
        " AND name NOT IN (SELECT name FROM " WHOLE_ROWS ")";
    static const char in_log[] =
        "INSERT OR REPLACE INTO lost (id, name, is_told) SELECT channel, name, TRUE FROM update_log"
        " WHERE name IS NOT NULL AND " SEAL_HAS_NUMBERS " AND " SEAL_HAS_CONTENT
        " AND channel NOT IN (SELECT id FROM " WHOLE_ROWS ")"
        " AND name NOT IN (SELECT name FROM " WHOLE_ROWS ")";
    return log_file_execute(file, "CREATE TEMP TABLE lost (id INTEGER PRIMARY KEY, name BLOB,"
                                  " is_told, total, head, mark, born)") &&
           (!can_read_index || log_file_execute(file, in_index)) && log_file_execute(file, in_log);
}

/* What the log knows of them. */
static bool look_up_lost(struct log_file *file) {
    /* A name may be lost under two ids, of which one is damaged itself. */
    static const char twice[] = "DELETE FROM lost WHERE head IS NULL AND name IN"
                                " (SELECT name FROM lost WHERE head IS NOT NULL)";
    return log_file_query(
               file,
               "UPDATE lost SET total = news.total, head = news.head, mark = news.mark, born = "
               "news.born"
               " FROM (SELECT channel, max(ts) AS total, max(seq) AS head, max(born) AS born,"
               "  max(coalesce(max(seq) FILTER (WHERE ts % ?1 = 0), 0), max(skip)) AS mark"
               "  FROM update_log WHERE channel IN (SELECT id FROM lost) AND " SEAL_HAS_NUMBERS
               "  GROUP BY channel) AS news WHERE lost.id = news.channel",
               LOG_SKIP, 0, NULL) &&
           log_file_execute(file, twice);
}

/* How many of their names may be what is damaged: the table and its index agree on a name that no
 * update tells, and the newest update agrees with all of the row's numbers. */
static bool count_doubtful_names(struct log_file *file, int64_t *count) {
    return log_file_query(
        file,
        "SELECT count(*) FROM channel AS c NOT INDEXED JOIN lost ON lost.id = c.id"
        " WHERE lost.name = c.name AND NOT lost.is_told AND EXISTS (SELECT 1 FROM update_log"
        " WHERE seq = c.head AND channel = c.id AND ts = c.total AND born = c.last_born"
        " AND iif(ts % ?1 = 0, seq, skip) = c.mark AND " SEAL_HAS_NUMBERS ")",
        LOG_SKIP, 0, count);
}

/* A purge deletes the newest first: ids go on above its floor, not above what is left. */
static bool raise_to_floors(struct log_file *file) {
    int64_t is_there = 0;
    return log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'purge'", 0, 0,
                          &is_there) &&
           (!is_there ||
            log_file_execute(file, "UPDATE lost SET total = max(lost.total, purge.upto) FROM purge"
                                   " WHERE purge.channel = lost.id AND"
                                   " is_purge(purge.channel, purge.upto, purge.seq, purge.seal)"));
}

/* The index first: deleting a row needs it. */
static bool delete_damaged(struct log_file *file) {
    return log_file_execute(file, "REINDEX channel") &&
           log_file_execute(file, "DELETE FROM channel WHERE NOT " SEAL_IS_WHOLE);
}

/* Where the lists of rows are damaged, rows cannot be found, nor deleted. The table stays in the
 * file under another name: to free its pages could free those of others. */
static bool leave_damaged(struct log_file *file) {
    char rename[96], copy[256];
    int64_t number;
    if (!log_file_query(file, "SELECT count(*) FROM sqlite_schema", 0, 0, &number))
        return false;
    snprintf(rename, sizeof rename, "ALTER TABLE channel RENAME TO damaged_channel_%lld",
             (long long)number);
    snprintf(copy, sizeof copy,
             "INSERT OR IGNORE INTO channel (" SEAL_CHANNEL ", seal) SELECT " SEAL_CHANNEL
             ", seal FROM damaged_channel_%lld NOT INDEXED WHERE " SEAL_IS_WHOLE,
             (long long)number);
    return log_file_execute(file, rename) && log_file_execute(file, LOG_FILE_CHANNEL) &&
           log_file_execute(file, copy);
}

static bool put_lost(struct log_file *file) {
    return log_file_execute(file, "INSERT INTO channel (" SEAL_CHANNEL ", seal)"
                                  " SELECT id, name, total, head, mark, born,"
                                  " make_channel_seal(id, name, total, head, mark, born)"
                                  " FROM lost");
}

/* Within a transaction. `clear` lets go of what is damaged. */
static bool mend(struct log_file *file, const struct look *look,
                 bool (*clear)(struct log_file *file), const struct store_options *options,
                 char *error, size_t error_size) {
    int64_t lost = 0, unknown = 0, doubtful = 0;
    bool ok = find_lost(file, look->can_read_index) && look_up_lost(file) &&
              raise_to_floors(file) && count_doubtful_names(file, &doubtful) &&
              log_file_query(file, "SELECT count(*) FROM lost", 0, 0, &lost) &&
              log_file_query(file, "SELECT count(*) FROM lost WHERE head IS NULL", 0, 0, &unknown);
    if (ok && unknown) {
        snprintf(error, error_size,
                 "%s is damaged: the rows of %lld channels, of which the log has no update any"
                 " more; restore a backup, or see \"A damaged file\" in docs/data.md",
                 log_file_path(options), (long long)unknown);
        return false;
    }
    struct look again = {.names = look->names};
    ok = ok && clear(file) && put_lost(file) && log_file_execute(file, "DROP TABLE lost") &&
         look_at_both(file, &again);
    if (ok && !again.is_whole)
        file->reason = "the rows of its channels cannot be made again";
    ok = ok && again.is_whole;
    if (ok)
        log_error("the data file was damaged", "table", "channel", "rows made again",
                  log_number((uint64_t)lost).text, "names in doubt",
                  log_number((uint64_t)doubtful).text, NULL);
    return ok;
}

static bool try_to_mend(struct log_file *file, const struct look *look,
                        bool (*clear)(struct log_file *file), const struct store_options *options,
                        char *error, size_t error_size) {
    if (log_file_begin(file) && mend(file, look, clear, options, error, error_size) &&
        log_file_commit(file))
        return true;
    if (!*error)
        log_file_explain(file, options, "is damaged", error, error_size);
    file->reason = NULL;
    log_file_roll_back(file);
    return false;
}

bool recover_channels(struct log_file *file, struct known_names *names,
                      const struct store_options *options, char *error, size_t error_size) {
    struct look look = {.names = names};
    if (!look_at_both(file, &look)) {
        log_file_explain(file, options, "is damaged", error, error_size);
        return false;
    }
    if (!look.is_whole && !try_to_mend(file, &look, delete_damaged, options, error, error_size)) {
        char again[512] = "";
        if (!try_to_mend(file, &look, leave_damaged, options, again, sizeof again))
            return false;
        *error = '\0';
    }
    known_names_complete(names);
    return true;
}
