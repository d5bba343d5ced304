#include "sqlite/backup.h"
#include "sqlite/check.h"
#include "sqlite/data_lock.h"
#include "sqlite/log_file.h"
#include "sqlite/wal_repair.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEP_PAGES = 1024, BUSY_SLEEP_MS = 100 };

struct backup {
    const char *from, *to;
    FILE *errors, *progress;
    struct log_file file;
    bool is_alone;      /* no lock and no write-ahead log keeps a server off */
    struct stat before; /* of `from` */
    sqlite3 *copy;
};

/* What is unfinished, for the signal handler; empty: nothing. */
static char part[PATH_MAX];

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};

static void on_end(int number) {
    if (*part)
        unlink(part);
    raise(number); /* SA_RESETHAND: this time it ends us */
}

static void catch_ends(void) {
    struct sigaction action = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &action, NULL);
}

static bool fail(struct backup *backup, const char *path, const char *reason) {
    fprintf(backup->errors, "longline: %s: %s\n", path, reason);
    return false;
}

/* SQLite's reason, which may be the system's. */
static bool fail_sqlite(struct backup *backup, int status) {
    int system = sqlite3_system_errno(backup->copy);
    bool is_system = system && (status == SQLITE_IOERR || status == SQLITE_CANTOPEN);
    return fail(backup, backup->to, is_system ? strerror(system) : sqlite3_errstr(status));
}

/* --- Copying ---------------------------------------------------------------------------------- */

/* Makes the unfinished file, which nobody but us may read. */
static bool make_part(struct backup *backup) {
    struct stat status;
    if (lstat(backup->to, &status) == 0)
        return fail(backup, backup->to, "is there already, and is not replaced");
    if (snprintf(part, sizeof part, "%s.part-XXXXXX", backup->to) >= (int)sizeof part) {
        *part = '\0';
        return fail(backup, backup->to, strerror(ENAMETOOLONG));
    }
    catch_ends();
    int fd = mkstemp(part);
    if (fd < 0) {
        *part = '\0';
        return fail(backup, backup->to, strerror(errno));
    }
    close(fd);
    return true;
}

/* Of a killed server's write-ahead log, SQLite leaves out all behind a flipped bit. */
static bool has_whole_wal(struct backup *backup) {
    char error[512] = "";
    struct wal_end end;
    enum wal_state state = data_is_locked(backup->from)
                               ? WAL_WHOLE
                               : wal_repair(backup->from, false, true, &end, error, sizeof error);
    if (state == WAL_WHOLE)
        return true;
    return fail(backup, backup->from,
                state == WAL_REPAIRED
                    ? "a bit of the write-ahead log is wrong; the next start of longline mends it"
                    : error);
}

/* A server that writes would make a copy without a transaction begin anew, each time. */
static bool open_source(struct backup *backup) {
    char error[512];
    int64_t row;
    if (access(backup->from, R_OK) != 0 || stat(backup->from, &backup->before) != 0)
        return fail(backup, backup->from, strerror(errno));
    if (!has_whole_wal(backup))
        return false;
    backup->is_alone = data_is_alone(backup->from);
    if (!log_file_open_to_read(&backup->file, backup->from, backup->is_alone, error,
                               sizeof error)) {
        fprintf(backup->errors, "longline: %s\n", error);
        return false;
    }
    if (!log_file_execute(&backup->file, "BEGIN") ||
        !log_file_query(&backup->file, "SELECT count(*) FROM sqlite_schema", 0, 0, &row))
        return fail(backup, backup->from, sqlite3_errmsg(backup->file.db));
    return true;
}

/* Whether all pages are of one moment: a file that nobody used is read without SQLite's locks. */
static bool is_of_one_moment(struct backup *backup) {
    const struct stat *before = &backup->before;
    struct stat after;
    if (!backup->is_alone || (data_is_alone(backup->from) && stat(backup->from, &after) == 0 &&
                              after.st_ino == before->st_ino && after.st_size == before->st_size &&
                              after.st_mtim.tv_sec == before->st_mtim.tv_sec &&
                              after.st_mtim.tv_nsec == before->st_mtim.tv_nsec))
        return true;
    return fail(backup, backup->from, "a server was started meanwhile: run it again");
}

static void tell(struct backup *backup, sqlite3_backup *job) {
    int64_t all = sqlite3_backup_pagecount(job), left = sqlite3_backup_remaining(job);
    if (backup->progress && all)
        fprintf(backup->progress, "\r%lld%% copied%s", (long long)((all - left) * 100 / all),
                left ? "" : "; checking it\n");
}

static bool copy_pages(struct backup *backup) {
    if (sqlite3_open_v2(part, &backup->copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK)
        return fail_sqlite(backup, sqlite3_errcode(backup->copy));
    /* It is ours alone, and synced as a whole. */
    sqlite3_exec(backup->copy, "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF", NULL, NULL,
                 NULL);
    sqlite3_backup *job = sqlite3_backup_init(backup->copy, "main", backup->file.db, "main");
    if (!job)
        return fail_sqlite(backup, sqlite3_errcode(backup->copy));
    int status;
    do {
        status = sqlite3_backup_step(job, STEP_PAGES);
        tell(backup, job);
        if (status == SQLITE_BUSY || status == SQLITE_LOCKED)
            sqlite3_sleep(BUSY_SLEEP_MS);
    } while (status == SQLITE_OK || status == SQLITE_BUSY || status == SQLITE_LOCKED);
    sqlite3_backup_finish(job);
    return status == SQLITE_DONE || fail_sqlite(backup, status);
}

/* --- What becomes of the copy ----------------------------------------------------------------- */

static bool sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Gives the copy its name, if nobody has taken it. Some file systems can do it only by a link. */
static bool give_name(const char *to) {
    if (renameat2(AT_FDCWD, part, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return true;
    return errno == EINVAL && link(part, to) == 0 && unlink(part) == 0;
}

static bool publish(struct backup *backup) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", backup->to);
    if (!sync_path(part) || !give_name(backup->to))
        return fail(backup, backup->to, strerror(errno));
    *part = '\0';
    return sync_path(dirname(folder)) || fail(backup, backup->to, strerror(errno));
}

/* Gives a whole copy its name, and then says so on `out`: in the words of `longline check`. */
static bool finish(struct backup *backup, FILE *out) {
    char *said = NULL;
    size_t len;
    FILE *text = open_memstream(&said, &len);
    if (!text)
        return fail(backup, backup->to, strerror(errno));
    bool is_whole = check_file_as(part, backup->to, text, backup->progress) == CHECK_WHOLE;
    if (fclose(text) != 0 || !said) {
        free(said);
        return fail(backup, backup->to, strerror(ENOMEM));
    }
    bool is_done = is_whole && publish(backup);
    if (is_done || !is_whole)
        fputs(said, is_done ? out : backup->errors);
    free(said);
    if (!is_whole)
        fputs("longline: no backup was made; `longline check` says more of the data file\n",
              backup->errors);
    return is_done;
}

bool backup_file(const char *from, const char *to, FILE *out, FILE *errors, FILE *progress) {
    struct backup backup = {.from = from, .to = to, .errors = errors, .progress = progress};
    bool is_copied = open_source(&backup) && make_part(&backup) && copy_pages(&backup) &&
                     is_of_one_moment(&backup);
    sqlite3_close(backup.copy);
    log_file_close(&backup.file);
    bool is_done = is_copied && finish(&backup, out);
    if (*part)
        unlink(part);
    return is_done;
}
