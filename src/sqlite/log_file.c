#include "sqlite/log_file.h"
#include "base/config.h"
#include "base/log.h"
#include "sqlite/lax.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"
#include "sqlite/wal_repair.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

enum {
    APPLICATION_ID = 0x6c6f6e67, /* "long" */
    SPARE_MS = 5000,             /* of a log in memory: what is free for so long is too much, */
    SPARE_PAGES = 512,           /* but for so many */
};

static const char schema[] = LOG_FILE_CHANNEL
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, seal INTEGER) WITHOUT "
    "ROWID;" LOG_FILE_UPDATE_LOG LAX_TABLE;

const char *log_file_path(const struct store_options *options) {
    return options->path ? options->path : ":memory:";
}

bool log_file_lacked_memory(const struct log_file *file) {
    int code = sqlite3_errcode(file->db);
    return !file->reason && (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE);
}

/* What failed. */
static const char *reason_of(const struct log_file *file) {
    return file->reason                   ? file->reason
           : log_file_lacked_memory(file) ? "out of memory"
                                          : sqlite3_errmsg(file->db);
}

void log_file_explain(const struct log_file *file, const struct store_options *options,
                      const char *what, char *error, size_t error_size) {
    bool has_no_memory = sqlite3_system_errno(file->db) == ENOMEM; /* to SQLite an I/O error */
    snprintf(error, error_size, "%s %s: %s", log_file_path(options), what,
             has_no_memory ? "out of memory" : reason_of(file));
}

bool log_file_is_damaged(const struct log_file *file) {
    int code = sqlite3_errcode(file->db);
    return code == SQLITE_CORRUPT || code == SQLITE_ERROR;
}

void log_file_note_error(struct log_file *file, const char *doing) {
    uint64_t now = uv_hrtime();
    if (!file->errors++ || now - file->error_logged_at > 1000000000) {
        log_error("store failed", "doing", doing, "error", reason_of(file), NULL);
        file->error_logged_at = now;
    }
    file->reason = NULL;
}

/* --- Statements ------------------------------------------------------------------------------- */

bool log_file_prepare(struct log_file *file, sqlite3_stmt **statement, const char *sql) {
    return sqlite3_prepare_v3(file->db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) ==
           SQLITE_OK;
}

bool log_file_execute(struct log_file *file, const char *sql) {
    return sqlite3_exec(file->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

bool log_file_query(struct log_file *file, const char *sql, int64_t a, int64_t b, int64_t *number) {
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

bool log_file_used_bytes(const struct log_file *file, int64_t *bytes) {
    int64_t pages, free_pages;
    if (!sql_get(file->page_count, &pages) || !sql_get(file->freelist_count, &free_pages))
        return false;
    *bytes = (pages - free_pages) * file->page_bytes;
    return true;
}

/* Looks how many pages were free all the time; those beyond the ones that are kept are to go. */
static bool look_at_spare(struct log_file *file, int64_t now_ms) {
    struct spare *spare = &file->spare;
    int64_t pages, free_pages;
    if (!sql_get(file->page_count, &pages) || !sql_get(file->freelist_count, &free_pages))
        return false;
    if (free_pages < spare->least)
        spare->least = free_pages;
    if (now_ms - spare->since_ms < SPARE_MS)
        return false;
    if (spare->least > SPARE_PAGES && spare->least > pages / 4)
        spare->to_give = spare->least - SPARE_PAGES;
    spare->least = free_pages;
    spare->since_ms = now_ms;
    return spare->to_give > 0;
}

bool log_file_give_back(struct log_file *file, int64_t now_ms) {
    if (file->spare.to_give <= 0 && !look_at_spare(file, now_ms))
        return false;
    file->spare.to_give--;
    /* One page: SQLite looks for it in the list of all that are free. */
    if (!log_file_execute(file, "PRAGMA incremental_vacuum(1)")) {
        log_file_note_error(file, "giving back memory");
        file->spare.to_give = 0;
    }
    if (file->spare.to_give <= 0)
        malloc_trim(0);
    return file->spare.to_give > 0;
}

/* --- Transactions ----------------------------------------------------------------------------- */

static bool set_sync(struct log_file *file, int sync) {
    static const char *const synchronous[] = {
        [SYNC_ALWAYS] = "PRAGMA synchronous = FULL",
        [SYNC_INTERVAL] = "PRAGMA synchronous = NORMAL",
        [SYNC_NEVER] = "PRAGMA synchronous = OFF",
    };
    if (!log_file_execute(file, synchronous[sync]))
        return false;
    file->sync_now = sync;
    return true;
}

/* Only a sync that is asked for needs to know what became of the one before. */
static bool make_sure(struct log_file *file, int sync) {
    bool must_be_sure = sync == SYNC_ALWAYS || file->sync == SYNC_ALWAYS;
    bool ok = log_tail_is_known(&file->tail) && (!must_be_sure || log_tail_secure(&file->tail));
    file->reason = ok ? NULL : file->tail.trouble; /* not that of an attempt before */
    return ok;
}

bool log_file_begin_as(struct log_file *file, int sync) {
    log_file_roll_back(file); /* what was left: a rollback can be out of memory, too */
    return make_sure(file, sync) && (file->sync_now == sync || set_sync(file, sync)) &&
           sql_run(file->begin);
}

bool log_file_begin(struct log_file *file) {
    return log_file_begin_as(file, file->sync);
}

/* What cannot be marked is synced. */
bool log_file_begin_lax(struct log_file *file) {
    bool is_lax = file->sync == SYNC_ALWAYS && lax_prepare(file) &&
                  log_file_begin_as(file, SYNC_INTERVAL) && lax_mark(file);
    return is_lax || log_file_begin(file);
}

/* On a full disk, what was committed was not written as a whole. */
bool log_file_commit(struct log_file *file) {
    uint64_t start = uv_hrtime();
    if (!sql_run(file->commit)) {
        if (sqlite3_errcode(file->db) != SQLITE_FULL)
            log_tail_failed(&file->tail);
        return false;
    }
    file->commits++;
    if (!file->is_append_corrupt)
        file->trouble = NULL;
    file->commit_ns += uv_hrtime() - start;
    return true;
}

void log_file_roll_back(struct log_file *file) {
    if (!sqlite3_get_autocommit(file->db))
        sql_run(file->rollback);
    log_tail_cut(&file->tail);
}

bool log_file_change(struct log_file *file, const char *sql, int64_t a, const char *doing) {
    if (log_file_begin(file) && log_file_query(file, sql, a, 0, NULL) && log_file_commit(file))
        return true;
    log_file_note_error(file, doing);
    log_file_roll_back(file);
    return false;
}

void log_file_committed(struct log_file *file, int frames) {
    log_tail_committed(&file->tail, frames, file->sync_now == SYNC_ALWAYS);
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
    if (sqlite3_finalize(statement) == SQLITE_OK && !ok)
        file->reason = "SQLite begins no write-ahead log: out of memory, or a file system without";
    return ok;
}

static bool set_up(struct log_file *file, const struct store_options *options) {
    file->sync = options->sync;
    sqlite3_busy_timeout(file->db, LOG_BUSY_MS);
    return log_file_execute(file, "PRAGMA page_size = 8192") &&
           (options->path || log_file_execute(file, "PRAGMA auto_vacuum = INCREMENTAL")) &&
           set_journal_mode(file, options->path ? "wal" : "memory") &&
           set_sync(file, options->sync) &&
           log_file_execute(file, "PRAGMA wal_autocheckpoint = 0") &&
           log_file_execute(file, "PRAGMA cache_size = -16384") &&
           log_file_execute(file, "PRAGMA temp_store = MEMORY") &&
           log_file_execute(file, "PRAGMA secure_delete = FAST") && seal_define_functions(file->db);
}

static bool create_tables(struct log_file *file) {
    char stamp[96];
    snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
             APPLICATION_ID, LOG_SCHEMA_VERSION);
    return log_file_execute(file, "BEGIN IMMEDIATE") && log_file_execute(file, schema) &&
           log_file_execute(file, stamp) && log_file_execute(file, "COMMIT");
}

/* Creates the tables in a new file. False, with `error`, for a file that is not ours or of
 * another version. */
static bool check_schema(struct log_file *file, const struct store_options *options,
                         bool may_create, char *error, size_t error_size) {
    int64_t application = -1, version = -1, tables = -1;
    bool is_readable = log_file_query(file, "PRAGMA application_id", 0, 0, &application) &&
                       log_file_query(file, "PRAGMA user_version", 0, 0, &version) &&
                       log_file_query(file, "SELECT count(*) FROM sqlite_schema", 0, 0, &tables);
    bool is_new = tables == 0 && application == 0 && version == 0;
    file->version = is_new ? LOG_SCHEMA_VERSION : version;
    if (!is_readable)
        log_file_explain(file, options, "cannot be read", error, error_size);
    else if (is_new && !may_create)
        snprintf(error, error_size, "%s is empty", log_file_path(options));
    else if (is_new && !create_tables(file))
        log_file_explain(file, options, "cannot create the tables", error, error_size);
    else if (!is_new && application != APPLICATION_ID)
        snprintf(error, error_size, "%s is not a longline database", log_file_path(options));
    else if (file->version < 1 || file->version > LOG_SCHEMA_VERSION)
        snprintf(error, error_size, "%s has schema version %lld; this longline knows 1 to %d",
                 log_file_path(options), (long long)version, LOG_SCHEMA_VERSION);
    else
        return true;
    return false;
}

static bool prepare(struct log_file *file) {
    return log_file_prepare(file, &file->begin, "BEGIN IMMEDIATE") &&
           log_file_prepare(file, &file->commit, "COMMIT") &&
           log_file_prepare(file, &file->rollback, "ROLLBACK") &&
           log_file_prepare(file, &file->page_count, "PRAGMA page_count") &&
           log_file_prepare(file, &file->freelist_count, "PRAGMA freelist_count");
}

/* An error for which a file of the write-ahead log's index may be to blame: a full disk. */
static bool lacks_shared_memory(const struct log_file *file) {
    int code = sqlite3_extended_errcode(file->db);
    return code == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE || code == SQLITE_IOERR_SHMMAP ||
           code == SQLITE_IOERR_SHMOPEN || code == SQLITE_CANTOPEN;
}

static bool open_database(struct log_file *file, const struct store_options *options) {
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    return sqlite3_open_v2(log_file_path(options), &file->db, flags, NULL) == SQLITE_OK;
}

/* On a full disk, goes on without the shared memory that lets others read the file: with a new
 * connection, for one that has looked for it never does without. */
static bool set_up_without_room(struct log_file *file, const struct store_options *options) {
    const char *reason = sqlite3_errstr(sqlite3_errcode(file->db));
    if (!lacks_shared_memory(file))
        return false;
    sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(file->db);
    file->db = NULL;
    if (!open_database(file, options) ||
        !log_file_execute(file, "PRAGMA locking_mode = EXCLUSIVE") || !set_up(file, options))
        return false;
    log_warn(
        "the data file is opened for us alone", "error", reason, "meaning",
        "there is no shared memory for it; no other program can open it until the next restart",
        NULL);
    return true;
}

/* Where open() failed once, SQLite goes on with what it may only read, and that for good. So it is
 * with the file, its write-ahead log and the index of that. */
static bool is_read_only(struct log_file *file) {
    if (sqlite3_db_readonly(file->db, "main"))
        return true;
    bool ok = sql_run(file->begin);
    int code = sqlite3_errcode(file->db);
    log_file_roll_back(file);
    return !ok && code == SQLITE_READONLY;
}

/* Statistics of SQLite's memory would cost a mutex for each of its allocations, and nobody asks for
 * them. Only before its first use; later SQLite refuses, which does no harm. */
static void set_up_library(void) {
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static int on_commit(void *file, UNUSED sqlite3 *db, UNUSED const char *name, int frames) {
    log_file_committed(file, frames);
    return SQLITE_OK;
}

bool log_file_open(struct log_file *file, const struct store_options *options, char *error,
                   size_t error_size) {
    struct wal_end end = {0};
    *file = (struct log_file){.page_bytes = 4096};
    set_up_library();
    if (options->path) {
        enum wal_state wal =
            wal_repair(options->path, true, options->sync == SYNC_ALWAYS, &end, error, error_size);
        if (wal == WAL_DAMAGED || wal == WAL_FAILED)
            return false;
    }
    if (!open_database(file, options) ||
        (!set_up(file, options) && !set_up_without_room(file, options))) {
        log_file_explain(file, options, "cannot be opened", error, error_size);
        return false;
    }
    log_tail_init(&file->tail, options->path ? file->db : NULL, &end);
    sqlite3_wal_hook(file->db, on_commit, file);
    if (!check_schema(file, options, true, error, error_size))
        return false;
    if (!prepare(file) || !log_file_query(file, "PRAGMA page_size", 0, 0, &file->page_bytes)) {
        log_file_explain(file, options, "cannot be read", error, error_size);
        return false;
    }
    if (is_read_only(file)) {
        snprintf(error, error_size, "%s cannot be opened for writing", log_file_path(options));
        return false;
    }
    return true;
}

/* Whether the program that has left the log marks what it does not sync (lax.h). */
static bool has_marks(struct log_file *file) {
    int64_t is_there = 0;
    log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'lax'", 0, 0, &is_there);
    return is_there;
}

void log_file_take_over(struct log_file *file, bool is_left) {
    if (is_left)
        log_tail_is_left(&file->tail);
    if (is_left && (file->sync != SYNC_ALWAYS || has_marks(file)))
        return;
    if (!make_sure(file, file->sync == SYNC_NEVER ? SYNC_NEVER : SYNC_ALWAYS))
        log_file_note_error(file, "sync of the write-ahead log");
}

/* "file:PATH?immutable=1", as https://www.sqlite.org/uri.html says; cut off when it is too long. */
static void write_uri(char *uri, size_t size, const char *path) {
    struct buf text = {0};
    buf_puts(&text, "file:");
    for (; *path; path++)
        if (strchr("?#%", *path))
            buf_printf(&text, "%%%02x", (unsigned char)*path);
        else
            buf_putc(&text, *path);
    snprintf(uri, size, "%.*s?immutable=1", (int)text.len, text.data ? text.data : "");
    buf_deinit(&text);
}

bool log_file_open_to_read(struct log_file *file, const char *path, bool is_alone, char *error,
                           size_t error_size) {
    *file = (struct log_file){.page_bytes = 4096};
    struct store_options options = {.path = path};
    char uri[3 * PATH_MAX];
    write_uri(uri, sizeof uri, path);
    int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | (is_alone ? SQLITE_OPEN_URI : 0);
    if (sqlite3_open_v2(is_alone ? uri : path, &file->db, flags, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(file->db, LOG_BUSY_MS) != SQLITE_OK ||
        !log_file_execute(file, "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY") ||
        !seal_define_functions(file->db)) {
        log_file_explain(file, &options, "cannot be opened", error, error_size);
        return false;
    }
    return check_schema(file, &options, false, error, error_size);
}

void log_file_close(struct log_file *file) {
    sqlite3_stmt *statement;
    while (file->db && (statement = sqlite3_next_stmt(file->db, NULL)))
        sqlite3_finalize(statement);
    if (file->tail.is_in_doubt && file->sync != SYNC_NEVER && !log_tail_secure(&file->tail))
        sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(file->db);
}
