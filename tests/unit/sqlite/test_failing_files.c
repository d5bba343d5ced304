/* Checks and backups of which each call fails in turn: nothing is called whole that is not, and
 * nothing is a backup that is not all there. */
#include "failures.h"

#include "sqlite/backup.h"
#include "sqlite/check.h"
#include "sqlite/data_lock.h"
#include "sqlite/data_stamp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct failure failures[] = {
    {.kind = FAIL_SQLITE, .code = SQLITE_IOERR},
    {.kind = FAIL_SQLITE, .code = SQLITE_NOMEM},
    {.kind = FAIL_SQLITE, .code = SQLITE_CORRUPT},
    {.kind = FAIL_SQLITE, .code = SQLITE_CANTOPEN},
    {.kind = FAIL_MEMORY},
    {.kind = FAIL_SYSTEM, .code = EIO},
    {.kind = FAIL_SYSTEM, .code = EINVAL},
};
enum { FAILURES = sizeof failures / sizeof *failures };

/* With every table that there can be. */
static void make_data(void) {
    uint64_t same, gone;
    open_log();
    assert_true(push_many("a", 1, 3));
    assert_true(push_id_to("a", 1, true, &same));
    assert_true(do_cursor(CURSORS_SAVE, "a", "bot", 1));
    assert_int_equal(try_purge("a", 2, &gone), STORE_OK);
    settle();
    keep_backup();
    close_log();
}

static FILE *nowhere(void) {
    return fopen("/dev/null", "w");
}

/* Both with the write-ahead log of a kill, and without one. */
static const char *source(int i) {
    return i ? backup_path() : path;
}

/* --- Checks ----------------------------------------------------------------------------------- */

/* False when it makes fewer than `n` calls. */
static bool try_check(const char *file, const struct failure *failure, int n,
                      enum check_result *result) {
    FILE *out = nowhere();
    fail_at(failure, n);
    *result = check_file(file, out, out);
    bool has_failed = fail_end();
    fclose(out);
    return has_failed;
}

static void test_checks(void **state) {
    (void)state;
    enum check_result result;
    make_data();
    for (int i = 0; i < 2 * FAILURES; i++) {
        const struct failure *failure = &failures[i / 2];
        int n = 1;
        for (; try_check(source(i % 2), failure, n, &result); n++)
            if (failure->kind == FAIL_SQLITE)
                assert_int_not_equal(result, CHECK_WHOLE);
        assert_int_equal(result, CHECK_WHOLE);
    }
}

static void test_checks_of_a_damaged_file(void **state) {
    (void)state;
    enum check_result result;
    make_data();
    run_sql("UPDATE consumer SET ts = ts + 1");
    for (int i = 0; i < FAILURES; i++)
        for (int n = 1; try_check(path, &failures[i], n, &result); n++)
            assert_int_not_equal(result, CHECK_WHOLE);
    assert_int_equal(result, CHECK_DAMAGED);
}

/* What a check says of the file. */
static const char *said(enum check_result wanted) {
    static char text[4096];
    memset(text, 0, sizeof text);
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_int_equal(check_file(path, out, NULL), wanted);
    fclose(out);
    return text;
}

static void test_files_to_be_upgraded(void **state) {
    (void)state;
    make_data();
    run_sql("CREATE TABLE update_log_1 (x)");
    assert_non_null(strstr(said(CHECK_WHOLE), "its upgrade is not finished"));
    run_sql("DROP TABLE update_log_1; PRAGMA user_version = 1");
    assert_non_null(strstr(said(CHECK_WHOLE), "it is of version 1"));
}

/* Done as soon as anything is written to the stream, once. */
static void (*action)(void);

static ssize_t act(void *unused, const char *text, size_t len) {
    (void)unused, (void)text;
    if (action)
        action();
    action = NULL;
    return (ssize_t)len;
}

static FILE *acting(void) {
    FILE *out = fopencookie(NULL, "w", (cookie_io_functions_t){.write = act});
    setvbuf(out, NULL, _IONBF, 0);
    return out;
}

static int lock_fd = -1;

static void start_server(void) {
    char error[256];
    lock_fd = data_lock(path, error, sizeof error);
    assert_true(lock_fd >= 0);
}

static void test_a_check_while_the_server_starts(void **state) {
    (void)state;
    make_data();
    FILE *out = acting();
    action = start_server;
    assert_int_equal(check_file(path, out, NULL), CHECK_FAILED);
    assert_int_equal(check_file(path, out, NULL), CHECK_WHOLE); /* of a running one */
    fclose(out);
    close(lock_fd);
}

/* --- The stamp of a stop ---------------------------------------------------------------------- */

/* A start that takes it for granted that nothing has changed is right, and only one is. */
static void test_stamps(void **state) {
    (void)state;
    const struct failure failure = {.kind = FAIL_SYSTEM, .code = EIO};
    bool has_failed = true;
    make_data();
    start_server();
    for (int n = 1; has_failed; n++) {
        data_stamp_put(lock_fd, path);
        fail_at(&failure, n);
        bool is_known = data_stamp_take(lock_fd, path);
        has_failed = fail_end();
        assert_int_equal(is_known, !has_failed);
        data_stamp_take(lock_fd, path);
        assert_false(data_stamp_take(lock_fd, path));
    }
    has_failed = true;
    for (int n = 1; has_failed; n++) {
        fail_at(&failure, n);
        data_stamp_put(lock_fd, path);
        has_failed = fail_end();
        assert_true(data_stamp_take(lock_fd, path) || has_failed);
    }
    close(lock_fd);
}

/* --- Backups ---------------------------------------------------------------------------------- */

static const char *copy_path(void) {
    static char text[64];
    snprintf(text, sizeof text, "%s/copy.db", dir);
    return text;
}

static bool has_part(void) {
    bool is_there = false;
    DIR *files = opendir(dir);
    for (struct dirent *file; (file = readdir(files));)
        is_there |= strstr(file->d_name, ".part-") != NULL;
    closedir(files);
    return is_there;
}

/* A backup that was made is whole; one that was not has left nothing, or, where the name alone is
 * not on the disk, what is whole as well. */
static bool try_backup(const char *file, const struct failure *failure, int n, bool *ok) {
    FILE *out = nowhere();
    fail_at(failure, n);
    *ok = backup_file(file, copy_path(), out, out, out);
    bool has_failed = fail_end();
    assert_false(has_part());
    if (*ok || access(copy_path(), F_OK) == 0)
        assert_int_equal(check_file(copy_path(), out, NULL), CHECK_WHOLE);
    fclose(out);
    unlink(copy_path());
    return has_failed;
}

static void test_backups(void **state) {
    (void)state;
    make_data();
    for (int i = 0; i < 2 * FAILURES; i++) {
        bool ok;
        for (int n = 1; try_backup(source(i % 2), &failures[i / 2], n, &ok); n++)
            ;
        assert_true(ok);
    }
}

/* SQLite waits for whoever writes. */
static void test_a_backup_of_a_busy_file(void **state) {
    (void)state;
    bool ok;
    make_data();
    for (int code = SQLITE_BUSY; code <= SQLITE_LOCKED; code++)
        for (int n = 1;
             try_backup(path, &(struct failure){.kind = FAIL_SQLITE, .code = code}, n, &ok); n++)
            ;
    assert_true(ok);
}

static void touch(void) {
    struct timespec times[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void grow(void) {
    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(truncate(path, before.st_size + 8192), 0);
}

static void replace(void) {
    char other[sizeof path + 8];
    snprintf(other, sizeof other, "%s-other", path);
    assert_int_equal(rename(path, other), 0);
    fclose(fopen(path, "w"));
}

static void delete(void) {
    assert_int_equal(unlink(path), 0);
}

static void test_a_backup_of_a_file_that_changes(void **state) {
    (void)state;
    void (*const actions[])(void) = {start_server, touch, grow, replace, delete};
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        is_clean = false;
        make_data();
        FILE *out = acting();
        action = actions[i];
        lock_fd = -1;
        assert_false(backup_file(path, copy_path(), out, out, out));
        fclose(out);
        assert_int_not_equal(access(copy_path(), F_OK), 0);
        if (lock_fd >= 0)
            close(lock_fd);
        unlink(path);
    }
}

static void test_names(void **state) {
    (void)state;
    char to[2 * PATH_MAX] = "";
    FILE *out = nowhere();
    snprintf(path, sizeof path, "%s/what?#%%41.db", dir); /* nothing of that is a URI's */
    make_data();
    assert_int_equal(check_file(path, out, NULL), CHECK_WHOLE);
    assert_true(backup_file(path, copy_path(), out, out, NULL));
    memset(to, 'x', sizeof to - 1);
    assert_false(backup_file(path, to, out, out, NULL));
    fclose(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_checks),
        LOG_TEST(test_checks_of_a_damaged_file),
        LOG_TEST(test_files_to_be_upgraded),
        LOG_TEST(test_a_check_while_the_server_starts),
        LOG_TEST(test_stamps),
        LOG_TEST(test_backups),
        LOG_TEST(test_a_backup_of_a_busy_file),
        LOG_TEST(test_a_backup_of_a_file_that_changes),
        LOG_TEST(test_names),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
