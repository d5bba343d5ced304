#include "sqlite/check.h"
#include "sqlite/data_lock.h"
#include "sqlite/lax.h"
#include "sqlite/log_file.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"
#include "sqlite/wal_repair.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
    NAMED_MAX = 20, /* damaged rows that are named; all are counted */
    TELL_ROWS = 100000,
};

struct check {
    struct log_file file;
    const char *path, *name; /* name: what it is called */
    FILE *out, *progress;
    int64_t damaged; /* rows, and whatever else is wrong */
};

static void name_damage(struct check *check, const char *what, const char *where, int64_t number) {
    if (++check->damaged <= NAMED_MAX)
        fprintf(check->out, "damaged: %s, %s %" PRId64 "\n", what, where, number);
    else if (check->damaged == NAMED_MAX + 1)
        fputs("damaged: …\n", check->out);
}

/* What SQLite says of what is wrong. */
static void name_error(struct check *check, const char *what) {
    check->damaged++;
    fprintf(check->out, "damaged: %s: %s\n", what, sqlite3_errmsg(check->file.db));
}

/* Runs `sql`, whose rows are a number and whether it is whole. Their count; -1 on failure. */
static int64_t count_rows(struct check *check, const char *sql, const char *what,
                          const char *where) {
    sqlite3_stmt *statement = NULL;
    if (!log_file_prepare(&check->file, &statement, sql)) {
        name_error(check, what);
        return -1;
    }
    int status;
    int64_t count = 0;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        if (!sqlite3_column_int(statement, 1))
            name_damage(check, what, where, sqlite3_column_int64(statement, 0));
        if (++count % TELL_ROWS == 0 && check->progress)
            fprintf(check->progress, "%" PRId64 " rows read\n", count);
    }
    sqlite3_finalize(statement);
    if (status == SQLITE_DONE)
        return count;
    name_error(check, what);
    return -1;
}

/* --- The parts of a file ---------------------------------------------------------------------- */

/* The pages, and the index on names. SQLite's own look at everything that is not ours. */
static void check_pages(struct check *check) {
    sqlite3_stmt *statement = NULL;
    bool ok = log_file_prepare(&check->file, &statement, "PRAGMA integrity_check(20)");
    int status = SQLITE_DONE;
    while (ok && (status = sqlite3_step(statement)) == SQLITE_ROW) {
        struct slice finding = sql_column(statement, 0);
        if (slice_equal(finding, SLICE("ok")))
            continue;
        check->damaged++;
        fprintf(check->out, "damaged: pages: %.*s\n", (int)finding.len, finding.data);
    }
    sqlite3_finalize(statement);
    if (!ok || status != SQLITE_DONE)
        name_error(check, "pages");
}

/* False, too, if that cannot be read, which counts as damage. */
static bool has_table(struct check *check, const char *table) {
    char find[96];
    int64_t is_there = 0;
    snprintf(find, sizeof find, "SELECT 1 FROM sqlite_schema WHERE name = '%s'", table);
    if (!log_file_query(&check->file, find, 0, 0, &is_there))
        name_error(check, table);
    return is_there;
}

/* Each update leads to the one before, and each channel to its newest, as a reader sees it: one
 * that is not there was deleted from the old end, past its channel's bound, or purged. */
static void check_links(struct check *check) {
    static const char wrong[] =
        "SELECT l.seq, 0 FROM update_log AS l LEFT JOIN update_log AS p ON p.seq = l.prev"
        " WHERE l.prev >= l.seq OR p.channel <> l.channel OR p.ts <> l.ts - 1";
#define META(key) "(SELECT value FROM meta WHERE key = '" key "')"
#define FLOOR(id) "coalesce((SELECT upto FROM purge WHERE channel = " id "), 0)"
#define IS_TOO_YOUNG(seq)                                                                          \
    seq " > " META("raised_seq") " AND " seq " >= (SELECT min(seq) FROM update_log)"
    static const char lost[] =
        "SELECT l.seq, 0 FROM update_log AS l JOIN channel AS c ON c.id = l.channel"
        " WHERE " IS_TOO_YOUNG("l.prev") " AND l.ts - 1 > c.total - " META(
            "channel_max") " AND l.ts - 1 > " FLOOR("c.id") " AND NOT EXISTS (SELECT 1 FROM "
                                                            "update_log WHERE seq = l.prev)";
    static const char headless[] =
        "SELECT id, 0 FROM channel NOT INDEXED WHERE " IS_TOO_YOUNG("head") " AND total > " FLOOR(
            "id") " AND NOT EXISTS (SELECT 1 FROM update_log WHERE seq = head)";
#undef FLOOR
#undef IS_TOO_YOUNG
#undef META
    if (!has_table(check, "purge"))
        log_file_execute(&check->file, "CREATE TEMP VIEW purge AS SELECT 0 AS channel, 0 AS upto");
    count_rows(check, wrong, "a link to the update before", "update_log.seq");
    count_rows(check, lost, "the update before is missing", "update_log.seq");
    count_rows(check, headless, "the newest update is missing", "channel.id");
}

/* Of a table that is made when it is needed. */
static void check_rows_if(struct check *check, const char *table, const char *sql, const char *what,
                          const char *where) {
    if (has_table(check, table))
        count_rows(check, sql, what, where);
}

static void check_rows(struct check *check) {
    int64_t updates =
        count_rows(check, "SELECT seq, " SEAL_HAS_NUMBERS " FROM update_log ORDER BY seq",
                   "the numbers of an update", "update_log.seq");
    count_rows(check, "SELECT seq, " SEAL_HAS_CONTENT " FROM update_log ORDER BY seq",
               "the content of an update", "update_log.seq");
    int64_t channels =
        count_rows(check, "SELECT id, " SEAL_IS_WHOLE " FROM channel NOT INDEXED ORDER BY id",
                   "a channel", "channel.id");
    count_rows(check,
               "SELECT id, EXISTS (SELECT 1 FROM channel AS c NOT INDEXED WHERE c.id = i.id AND"
               " c.name = i.name) FROM (SELECT id, name FROM channel INDEXED BY"
               " sqlite_autoindex_channel_1) AS i",
               "a name in the index", "channel.id");
    count_rows(check, "SELECT 0, is_sealed(key, value, seal) FROM meta", "meta", "row");
    check_rows_if(check, "delivery",
                  "SELECT channel, is_delivery(channel, ts, id, born, seal) FROM delivery"
                  " ORDER BY channel, ts",
                  "a delivery's id", "delivery.channel");
    check_rows_if(check, "consumer",
                  "SELECT channel, is_consumer(channel, name, ts, used, seal) FROM consumer"
                  " ORDER BY channel, name",
                  "a consumer's cursor", "consumer.channel");
    check_rows_if(check, "epoch", "SELECT id, is_epoch(id, name, seq, seal) FROM epoch ORDER BY id",
                  "an epoch", "epoch.id");
    check_rows_if(check, "purge",
                  "SELECT channel, is_purge(channel, upto, seq, seal) FROM purge ORDER BY channel",
                  "what is purged", "purge.channel");
    check_rows_if(check, "purge_job",
                  "SELECT id, is_purge(id, channel, upto, seq, seal) FROM purge_job"
                  " ORDER BY id",
                  "what is to be purged", "purge_job.id");
    check_rows_if(check, "lax", "SELECT id, " LAX_IS_WHOLE " FROM lax", "a mark", "lax.id");
    check_links(check);
    if (updates >= 0 && channels >= 0)
        fprintf(check->out, "%" PRId64 " updates and %" PRId64 " channels read\n", updates,
                channels);
}

/* False when SQLite would not read all of it. */
static bool check_wal(struct check *check) {
    char error[512] = "";
    struct wal_end end;
    enum wal_state state = wal_repair(check->path, false, true, &end, error, sizeof error);
    if (state == WAL_WHOLE)
        return true;
    fprintf(check->out, "damaged: %s; nothing else was looked at\n",
            state == WAL_REPAIRED ? "a bit of the write-ahead log, which the next start mends"
                                  : error);
    return false;
}

/* --- The whole -------------------------------------------------------------------------------- */

/* Whether its rows have seals. */
static bool has_seals(struct check *check) {
    bool is_upgrading = has_table(check, "update_log_1");
    if (check->file.version == LOG_SCHEMA_VERSION && !is_upgrading)
        return true;
    fputs(is_upgrading ? "its upgrade is not finished; the next start of longline goes on\n"
                       : "it is of version 1, without checksums; a start of longline adds them\n",
          check->out);
    return false;
}

static enum check_result check_open_file(struct check *check) {
    check_pages(check);
    if (has_seals(check))
        check_rows(check);
    if (!check->damaged)
        fprintf(check->out, "%s is whole\n", check->name);
    else
        fprintf(check->out, "%s is damaged: %" PRId64 " findings\n", check->name, check->damaged);
    return check->damaged ? CHECK_DAMAGED : CHECK_WHOLE;
}

static enum check_result look(struct check *check, bool is_in_use) {
    char error[512] = "";
    bool is_alone = !is_in_use && !data_has_wal(check->path);
    if (!is_in_use && !check_wal(check))
        return CHECK_DAMAGED;
    if (log_file_open_to_read(&check->file, check->path, is_alone, error, sizeof error))
        return check_open_file(check);
    fprintf(check->out, "%s\n", error);
    return CHECK_FAILED;
}

enum check_result check_file(const char *path, FILE *out, FILE *progress) {
    return check_file_as(path, path, out, progress);
}

enum check_result check_file_as(const char *path, const char *name, FILE *out, FILE *progress) {
    struct check check = {.path = path, .name = name, .out = out, .progress = progress};
    if (access(path, R_OK) != 0) {
        fprintf(out, "%s cannot be read: %s\n", path, strerror(errno));
        return CHECK_FAILED;
    }
    bool is_in_use = data_is_locked(path);
    if (is_in_use)
        fputs("the server is running: its write-ahead log is read as SQLite sees it\n", out);
    enum check_result result = look(&check, is_in_use);
    log_file_close(&check.file);
    if (is_in_use || !data_is_locked(path))
        return result;
    fputs("the server was started meanwhile: this counts for nothing, run it again\n", out);
    return CHECK_FAILED;
}
