#include "sqlite/check.h"
#include "sqlite/data_lock.h"
#include "sqlite/log_file.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"
#include "sqlite/wal_repair.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    NAMED_MAX = 20, /* damaged rows that are named; all are counted */
    TELL_ROWS = 100000,
};

struct check {
    struct log_file file;
    const char *path;
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
    while (ok && sqlite3_step(statement) == SQLITE_ROW) {
        const char *finding = (const char *)sqlite3_column_text(statement, 0);
        if (!finding || strcmp(finding, "ok") == 0)
            continue;
        check->damaged++;
        fprintf(check->out, "damaged: pages: %s\n", finding);
    }
    sqlite3_finalize(statement);
    if (!ok)
        name_error(check, "pages");
}

static void check_rows(struct check *check) {
    int64_t updates = count_rows(
        check, "SELECT seq, has_numbers(" SEAL_NUMBERS ", seal) FROM update_log ORDER BY seq",
        "the numbers of an update", "update_log.seq");
    count_rows(check,
               "SELECT seq, has_content(seq, seal, " SEAL_CONTENT ") FROM update_log ORDER BY seq",
               "the content of an update", "update_log.seq");
    int64_t channels = count_rows(
        check, "SELECT id, is_whole(" SEAL_CHANNEL ", seal) FROM channel NOT INDEXED ORDER BY id",
        "a channel", "channel.id");
    count_rows(check,
               "SELECT id, EXISTS (SELECT 1 FROM channel AS c NOT INDEXED WHERE c.id = i.id AND"
               " c.name = i.name) FROM (SELECT id, name FROM channel INDEXED BY"
               " sqlite_autoindex_channel_1) AS i",
               "a name in the index", "channel.id");
    count_rows(check, "SELECT 0, is_sealed(key, value, seal) FROM meta", "meta", "row");
    /* Deleted rows are the oldest, or past the bound on a channel's count. */
    count_rows(check,
               "SELECT l.seq, 0 FROM update_log AS l LEFT JOIN update_log AS p ON p.seq = l.prev"
               " WHERE l.prev >= l.seq OR (p.seq IS NOT NULL AND"
               "  (p.channel <> l.channel OR p.ts <> l.ts - 1))",
               "a link to the update before", "update_log.seq");
    if (updates >= 0 && channels >= 0)
        fprintf(check->out, "%" PRId64 " updates and %" PRId64 " channels read\n", updates,
                channels);
}

/* False when SQLite would not read all of it. */
static bool check_wal(struct check *check) {
    char error[512] = "";
    enum wal_state state = wal_repair(check->path, false, true, error, sizeof error);
    if (state == WAL_WHOLE)
        return true;
    fprintf(check->out, "damaged: %s; nothing else was looked at\n",
            state == WAL_REPAIRED ? "a bit of the write-ahead log, which the next start mends"
                                  : error);
    return false;
}

static bool has_wal(const struct check *check) {
    char path[PATH_MAX + 8];
    struct stat status;
    snprintf(path, sizeof path, "%s-wal", check->path);
    return stat(path, &status) == 0 && status.st_size > 0;
}

/* --- The whole -------------------------------------------------------------------------------- */

static enum check_result check_open_file(struct check *check) {
    if (check->file.version < LOG_SCHEMA_VERSION)
        fprintf(check->out,
                "schema version %" PRId64 " has no checksums; a start of longline adds them\n",
                check->file.version);
    check_pages(check);
    if (check->file.version == LOG_SCHEMA_VERSION)
        check_rows(check);
    if (!check->damaged)
        fprintf(check->out, "%s is whole\n", check->path);
    else
        fprintf(check->out, "%s is damaged: %" PRId64 " findings\n", check->path, check->damaged);
    return check->damaged ? CHECK_DAMAGED : CHECK_WHOLE;
}

enum check_result check_file(const char *path, FILE *out, FILE *progress) {
    struct check check = {.path = path, .out = out, .progress = progress};
    char error[512] = "";
    if (access(path, R_OK) != 0) {
        fprintf(out, "%s cannot be read: %s\n", path, strerror(errno));
        return CHECK_FAILED;
    }
    bool is_in_use = data_is_locked(path), is_alone = !is_in_use && !has_wal(&check);
    if (is_in_use)
        fputs("the server is running: its write-ahead log is read as SQLite sees it\n", out);
    else if (!check_wal(&check))
        return CHECK_DAMAGED;
    bool ok = log_file_open_to_read(&check.file, path, is_alone, error, sizeof error);
    enum check_result result = CHECK_FAILED;
    if (ok)
        result = check_open_file(&check);
    else
        fprintf(out, "%s\n", error);
    log_file_close(&check.file);
    return result;
}
