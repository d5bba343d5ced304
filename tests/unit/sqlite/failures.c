#include "failures.h"
#include "need.h"

#include "sqlite/backup.h"
#include "sqlite/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct failure failure;
static int left; /* until the first one fails; 0: none does */
static bool has_failed;
static sqlite3 *failed_db; /* whose last error is ours */

/* Asked once of each call. */
/* Time stands still: what is bounded by it does all that there is to do, on any machine. */
uint64_t __wrap_uv_hrtime(void);
uint64_t __wrap_uv_hrtime(void) {
    return 1;
}

static bool fails_now(enum failing_kind kind) {
    if (!left || failure.kind != kind)
        return false;
    if (left > 1) {
        left--;
        return false;
    }
    left = failure.goes_on;
    has_failed = true;
    return true;
}

static bool system_fails(void) {
    if (!fails_now(FAIL_SYSTEM))
        return false;
    errno = failure.code;
    return true;
}

static void sync_fails(const char *file) {
    failing_sync = system_fails() ? file : NULL;
}

void fail_at(const struct failure *what, int n) {
    failure = *what;
    left = n;
    has_failed = false;
    allocations = 0;
    failing_allocation = failure.kind == FAIL_MEMORY ? n : 0;
    on_sync = sync_fails;
}

bool fail_end(void) {
    has_failed |= failing_allocation && allocations >= failing_allocation;
    left = failing_allocation = 0;
    failed_db = NULL;
    on_sync = NULL;
    failing_sync = NULL;
    return has_failed;
}

/* --- SQLite ----------------------------------------------------------------------------------- */

#define WRAP(type, name, parameters)                                                               \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters

static bool sqlite_fails(sqlite3 *db) {
    static bool is_rolling_back;
    bool fail = !is_rolling_back && fails_now(FAIL_SQLITE);
    if (!is_rolling_back)
        failed_db = fail ? db : NULL;
    if (fail && failure.rolls_back && db && !sqlite3_get_autocommit(db)) {
        is_rolling_back = true;
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        is_rolling_back = false;
    }
    return fail;
}

WRAP(int, sqlite3_open_v2, (const char *name, sqlite3 **db, int flags, const char *vfs)) {
    int status = __real_sqlite3_open_v2(name, db, flags, vfs);
    return sqlite_fails(*db) ? failure.code & 0xff : status;
}

WRAP(int, sqlite3_exec,
     (sqlite3 * db, const char *sql, int (*row)(void *, int, char **, char **), void *context,
      char **error)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_exec(db, sql, row, context, error);
}

WRAP(int, sqlite3_prepare_v2,
     (sqlite3 * db, const char *sql, int len, sqlite3_stmt **statement, const char **tail)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_prepare_v2(db, sql, len, statement, tail);
}

WRAP(int, sqlite3_prepare_v3,
     (sqlite3 * db, const char *sql, int len, unsigned flags, sqlite3_stmt **statement,
      const char **tail)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_prepare_v3(db, sql, len, flags, statement, tail);
}

WRAP(int, sqlite3_step, (sqlite3_stmt * statement)) {
    return sqlite_fails(sqlite3_db_handle(statement)) ? failure.code & 0xff
                                                      : __real_sqlite3_step(statement);
}

WRAP(int, sqlite3_wal_checkpoint_v2,
     (sqlite3 * db, const char *name, int mode, int *frames, int *copied)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_wal_checkpoint_v2(db, name, mode, frames, copied);
}

WRAP(int, sqlite3_file_control, (sqlite3 * db, const char *name, int what, void *out)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_file_control(db, name, what, out);
}

WRAP(int, sqlite3_busy_timeout, (sqlite3 * db, int ms)) {
    return sqlite_fails(db) ? failure.code & 0xff : __real_sqlite3_busy_timeout(db, ms);
}

WRAP(int, sqlite3_create_module,
     (sqlite3 * db, const char *name, const sqlite3_module *module, void *context)) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_create_module(db, name, module, context);
}

WRAP(int, sqlite3_create_function_v2,
     (sqlite3 * db, const char *name, int count, int flags, void *context,
      void (*call)(sqlite3_context *, int, sqlite3_value **),
      void (*step)(sqlite3_context *, int, sqlite3_value **), void (*end)(sqlite3_context *),
      void (*destroy)(void *))) {
    return sqlite_fails(db) ? failure.code & 0xff
                            : __real_sqlite3_create_function_v2(db, name, count, flags, context,
                                                                call, step, end, destroy);
}

WRAP(sqlite3_backup *, sqlite3_backup_init,
     (sqlite3 * to, const char *to_name, sqlite3 *from, const char *from_name)) {
    return sqlite_fails(to) ? NULL : __real_sqlite3_backup_init(to, to_name, from, from_name);
}

WRAP(int, sqlite3_backup_step, (sqlite3_backup * backup, int pages)) {
    return sqlite_fails(NULL) ? failure.code & 0xff : __real_sqlite3_backup_step(backup, pages);
}

WRAP(int, sqlite3_errcode, (sqlite3 * db)) {
    return db && db == failed_db ? failure.code & 0xff : __real_sqlite3_errcode(db);
}

WRAP(int, sqlite3_extended_errcode, (sqlite3 * db)) {
    return db && db == failed_db ? failure.code : __real_sqlite3_extended_errcode(db);
}

WRAP(const char *, sqlite3_errmsg, (sqlite3 * db)) {
    return db && db == failed_db ? sqlite3_errstr(failure.code) : __real_sqlite3_errmsg(db);
}

/* --- Memory ----------------------------------------------------------------------------------- */

/* Of these calls the allocations count. */
#define WITHIN(type, name, parameters, ...)                                                        \
    WRAP(type, name, parameters) {                                                                 \
        bool was_counting = is_counting;                                                           \
        is_counting = true;                                                                        \
        type result = __real_##name(__VA_ARGS__);                                                  \
        is_counting = was_counting;                                                                \
        return result;                                                                             \
    }
#define WITHIN_VOID(name, parameters, ...)                                                         \
    WRAP(void, name, parameters) {                                                                 \
        bool was_counting = is_counting;                                                           \
        is_counting = true;                                                                        \
        __real_##name(__VA_ARGS__);                                                                \
        is_counting = was_counting;                                                                \
    }

WITHIN(struct update_log *, update_log_open,
       (const struct store_options *options, bool goes_on, char *error, size_t size), options,
       goes_on, error, size)
WITHIN(bool, update_log_close, (struct update_log * log, bool is_left), log, is_left)
WITHIN(bool, update_log_maintain, (struct update_log * log, bool is_idle), log, is_idle)
WITHIN(bool, update_log_settle, (struct update_log * log), log)
WITHIN_VOID(update_log_append, (struct update_log * log, struct list *batch), log, batch)
WITHIN_VOID(update_log_read, (struct update_log * log, struct store_read *read), log, read)
WITHIN_VOID(update_log_purge, (struct update_log * log, struct store_purge *purge), log, purge)
WITHIN_VOID(update_log_cursors, (struct update_log * log, struct store_cursors *op), log, op)
WITHIN(enum check_result, check_file, (const char *file, FILE *out, FILE *progress), file, out,
       progress)
WITHIN(bool, backup_file,
       (const char *from, const char *to, FILE *out, FILE *errors, FILE *progress), from, to, out,
       errors, progress)

/* --- The system ------------------------------------------------------------------------------- */

ssize_t pread64(int fd, void *data, size_t len, off64_t offset) {
    return system_fails() ? -1 : syscall(SYS_pread64, fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    return system_fails() ? -1 : syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t write(int fd, const void *data, size_t len) {
    return system_fails() ? -1 : syscall(SYS_write, fd, data, len);
}

int ftruncate64(int fd, off64_t bytes) {
    return system_fails() ? -1 : (int)syscall(SYS_ftruncate, fd, bytes);
}

int rename(const char *from, const char *to) {
    return system_fails() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return system_fails() ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int link(const char *from, const char *to) {
    return system_fails() ? -1 : (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int open64(const char *name, int flags, ...) {
    va_list more;
    va_start(more, flags);
    unsigned mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;
    va_end(more);
    return system_fails() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, name, flags, mode);
}
